"""`wherry-runtime`: an OCI runtime on the command line, with runc's words, flags and exit codes.

containerd's shim, conmon (podman, cri-o) and people call it; docs/protocol/oci-runtime.md says what they rely on.
Every start of it is paid for by a container's start, so what it imports is kept to what the command needs.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from wherry.runtime.faults import Refused
from wherry.runtime.lean import defer_inspect
from wherry.runtime.options import Options, parse
from wherry.runtime.report import Report
from wherry.runtime.scopes import booted
from wherry.runtime.versions import OCI_VERSION, VERSION

NAME = "wherry-runtime"
ROOT = "/run/wherry-runtime"

GLOBAL = (
    "root=", "log=", "log-format=", "debug", "systemd-cgroup", "rootless=", "criu=", "help,h", "version,v",
)  # fmt: skip
_MAKE = (
    "bundle,b=", "console-socket=", "pidfd-socket=", "pid-file=", "no-pivot", "no-new-keyring", "preserve-fds=",
)  # fmt: skip


class Command:
    """One command: its flags, how many words it takes, how its failures begin and end.

    forks: it goes into a container, so that what it runs from is protected first.
    """

    def __init__(
        self,
        summary: str,
        flags: Sequence[str] = (),
        words: tuple[int, int] = (1, 1),
        prefix: str = "",
        failure: int = 1,
    ) -> None:
        self.summary = summary
        self.flags = flags
        self.words = words
        self.prefix = prefix
        self.failure = failure

    @property
    def forks(self) -> bool:
        """Whether it forks into a container: those are also the ones that say what failed."""
        return bool(self.prefix)


COMMANDS = {
    "create": Command("make a container that waits for start", _MAKE, prefix=f"{NAME} create failed"),
    "start": Command("run the program of a created container"),
    "run": Command("create and start in one", (*_MAKE, "detach,d", "keep", "no-subreaper"),
        prefix=f"{NAME} run failed",
    ),
    "exec": Command("run one more process in a container",
        (
            "console-socket=", "pidfd-socket=", "cwd=", "env,e=*", "tty,t", "user,u=", "additional-gids,g=*",
            "process,p=", "detach,d", "pid-file=", "process-label=", "apparmor=", "no-new-privs", "cap,c=*",
            "preserve-fds=", "ignore-paused",
        ),
        words=(1, sys.maxsize), prefix="exec failed", failure=255,
    ),
    "state": Command("print the state of a container"),
    "kill": Command("send a signal (SIGTERM) to a container", ("all,a",), words=(1, 2)),
    "delete": Command("remove a stopped container", ("force,f",)),
    "list": Command("print all containers", ("format,f=", "quiet,q"), words=(0, 0)),
    "ps": Command("print the processes of a container", ("format,f=",), words=(1, sys.maxsize)),
    "pause": Command("freeze a container"),
    "resume": Command("let a paused container go on"),
    "update": Command("change the limits of a container",
        (
            "resources,r=", "blkio-weight=", "cpu-period=", "cpu-quota=", "cpu-burst=", "cpu-share=", "cpuset-cpus=",
            "cpuset-mems=", "memory=", "memory-reservation=", "memory-swap=", "pids-limit=",
        ),
    ),
    "spec": Command("write an example config.json", ("bundle,b=",), words=(0, 0)),
    "features": Command("print what the runtime can do, as JSON", words=(0, 0)),
}  # fmt: skip


def usage() -> str:
    """Return the text of --help."""
    lines = [f"usage: {NAME} [--root DIR] [--log FILE] [--log-format text|json] COMMAND [flags] [ID] [arguments]", ""]
    for name, command in COMMANDS.items():
        lines.append(f"  {name:<9} {command.summary}")
        if command.flags:
            lines.append(" " * 12 + " ".join("--" + flag.rstrip("*=").partition(",")[0] for flag in command.flags))
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Carry out one command line; return the exit code."""
    given = sys.argv[1:] if arguments is None else arguments
    report = Report("", "text")
    try:
        options = parse(given, GLOBAL, mixed=False)
        report = Report(options.text("log"), options.text("log-format", "text"))
        if options.given("version"):
            print(f"{NAME} version {VERSION}\nspec: {OCI_VERSION}")
            return 0
        if options.given("help") or not options.words or options.words[0] in ("help", "h"):
            print(usage())
            return 0
        if options.given("systemd-cgroup") and not booted():
            raise Refused("systemd does not run on this machine: leave out --systemd-cgroup")
    except Refused as error:
        report.error(str(error))
        return 1
    return _dispatch(list(given), options, report)


def _dispatch(given: list[str], options: Options, report: Report) -> int:
    name, *rest = options.words
    command = COMMANDS.get(name)
    if command is None:
        report.error(f"no such command: {name}; there are {', '.join(COMMANDS)}")
        return 3
    try:
        own = parse(rest, (*command.flags, "help,h"), mixed=name != "exec")
        if own.given("help"):
            print(usage())
            return 0
        _check_words(name, command, own)
        if command.forks:
            from wherry.runtime.reexec import from_read_only_mount

            from_read_only_mount(given)
        return _carry_out(name, options, own, report)
    except (Refused, OSError) as error:
        message = _sentence(error)
        report.error(f"{command.prefix}: {message}" if command.prefix else message)
        return command.failure


def _carry_out(name: str, options: Options, own: Options, report: Report) -> int:
    """Import what the command needs, and no more, and call it."""
    defer_inspect()
    from wherry.kernel import const
    from wherry.kernel.fds import close_range

    close_range(3, flags=const.CLOSE_RANGE_CLOEXEC)  # what we were given beyond stdio goes to no hook
    os.umask(0o022)
    from wherry.runtime.context import Context
    from wherry.runtime.state import Store

    systemd = options.given("systemd-cgroup")
    context = Context(Store(options.text("root", ROOT)), report, systemd_cgroup=systemd)
    if COMMANDS[name].forks:
        from wherry.runtime import creation

        return {"create": creation.create, "run": creation.run, "exec": creation.execute}[name](context, own)
    from wherry.runtime import commands

    return commands.BY_NAME[name](context, own)


def _check_words(name: str, command: Command, options: Options) -> None:
    least, most = command.words
    if not least <= len(options.words) <= most:
        number = f"exactly {least}" if least == most else f"at least {least}"
        raise Refused(f'{NAME}: "{name}" requires {number} argument(s)')


def _sentence(error: Exception) -> str:
    if not isinstance(error, OSError) or error.errno is None:
        return str(error)
    text = os.strerror(error.errno).lower()
    if error.strerror and error.strerror.lower() != text:
        text = f"{error.strerror}: {text}"
    return f"{error.filename}: {text}" if error.filename else text


if __name__ == "__main__":
    sys.exit(main())
