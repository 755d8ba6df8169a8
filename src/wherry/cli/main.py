"""The `wherry` command: docker's words, flags and exit codes, without docker.

Only what the chosen command needs is imported: the whole process must be over in the time that a person does not
notice, and containers are started by scripts in loops.
"""

from __future__ import annotations

import sys

from wherry.cli.failures import Failure, StartFailed, Unreachable

VERSION_FLAGS = ("-v", "--version")

# Word -> module and constant that hold the Command; the value is imported when the word is used.
COMMANDS = {
    "run": "running:RUN",
    "create": "running:CREATE",
    "start": "running:START",
    "attach": "running:ATTACH",
    "exec": "running:EXEC",
    "stop": "lifecycle:STOP",
    "restart": "lifecycle:RESTART",
    "kill": "lifecycle:KILL",
    "rm": "lifecycle:RM",
    "rename": "lifecycle:RENAME",
    "wait": "lifecycle:WAIT",
    "pause": "lifecycle:PAUSE",
    "unpause": "lifecycle:UNPAUSE",
    "top": "lifecycle:TOP",
    "logs": "lifecycle:LOGS",
    "mount ls": "mounts:LS",
    "mount add": "mounts:ADD",
    "mount rm": "mounts:REMOVE",
    "port": "ports:PORT",
    "port add": "ports:ADD",
    "port rm": "ports:REMOVE",
    "ps": "listing:PS",
    "images": "listing:IMAGES",
    "inspect": "listing:INSPECT",
    "xray": "xray.command:XRAY",
    "xray network": "xray.networks:NETWORK",
    "image bootstrap": "bootstrap.command:BOOTSTRAP",
    "import": "images:IMPORT",
    "load": "images:LOAD",
    "pull": "registries:PULL",
    "push": "registries:PUSH",
    "login": "registries:LOGIN",
    "logout": "registries:LOGOUT",
    "search": "registries:SEARCH",
    "tag": "images:TAG",
    "rmi": "images:RMI",
    "volume ls": "volumes:LS",
    "volume create": "volumes:CREATE",
    "volume inspect": "volumes:INSPECT",
    "volume rm": "volumes:RM",
    "volume prune": "volumes:PRUNE",
    "volume rename": "volumes:RENAME",
    "volume export": "backups:EXPORT",
    "volume import": "backups:IMPORT",
    "volume snapshot": "backups:SNAPSHOT",
    "network ls": "networks:LS",
    "network create": "networks:CREATE",
    "network inspect": "networks:INSPECT",
    "network rm": "networks:RM",
    "network prune": "networks:PRUNE",
    "network connect": "networks:CONNECT",
    "network disconnect": "networks:DISCONNECT",
    "info": "system:INFO",
    "version": "system:VERSION",
    "events": "system:EVENTS",
    "daemon": "system:DAEMON",
    "system check": "check:CHECK",
    "system dial-stdio": "system:DIAL_STDIO",
    "system info": "system:INFO",
    "system events": "system:EVENTS",
}

_GROUPS = {
    "container": "run create start attach exec stop restart kill rm rename wait pause unpause top logs port ls inspect "
    "xray",
    "image": "import load pull push tag rm ls inspect",
    "volume": "list remove",
    "network": "list remove",
}
_ALIASES = {
    "container ls": "ps",
    "image ls": "images",
    "image rm": "rmi",
    "network list": "network ls",
    "network remove": "network rm",
    "volume list": "volume ls",
    "volume remove": "volume rm",
}


def _import(target: str) -> object:
    """The object named MODULE:NAME below this package."""
    module, _, name = target.partition(":")
    return getattr(__import__(f"wherry.cli.{module}", fromlist=[name]), name)


def overview() -> str:
    """What `wherry --help` prints."""
    lines = ["Usage:  wherry [OPTIONS] COMMAND", "", "A container engine in Python", "", "Commands:"]
    lines += [f"  {word:<18} {_import(target).help}" for word, target in COMMANDS.items()]  # type: ignore[attr-defined]
    lines += ["", "Options:", "  -H, --host string   Daemon socket to connect to (unix://PATH or tcp://HOST:PORT)"]
    lines += ["  -v, --version       Print version information and quit", ""]
    return "\n".join([*lines, "Run 'wherry COMMAND --help' for more information on a command."])


def _globals(argv: list[str]) -> tuple[str, list[str]]:
    """Take --host from the front."""
    host = ""
    while argv and argv[0].startswith(("-H", "--host")):
        flag = argv.pop(0)
        name, equals, value = flag.partition("=")
        if equals and name in ("-H", "--host"):
            host = value
        elif flag in ("-H", "--host") and argv:
            host = argv.pop(0)
        elif flag.startswith("-H") and len(flag) > 2:
            host = flag[2:]
        else:
            break
    return host, argv


def _word(argv: list[str]) -> tuple[str, list[str]]:
    """The command, of one word or two, and what is left."""
    first = argv[0]
    if len(argv) > 1:
        second = argv[1]
        both = f"{first} {second}"
        if both in COMMANDS:
            return both, argv[2:]
        if second in _GROUPS.get(first, "").split():
            return _ALIASES.get(both, second), argv[2:]
    return first, argv[1:]


def _fail(message: str, status: int, hint: str = "") -> int:
    print(message + (f"\n\n{hint}" if hint else ""), file=sys.stderr)
    return status


def _invoke(word: str, host: str, argv: list[str]) -> int:
    from wherry.cli.flags import Command, Parsed, check_count, help_text, parse

    command = _import(COMMANDS[word])
    assert isinstance(command, Command)
    if word == "daemon":
        return int(_import(command.target)(host, Parsed({}, argv)))  # type: ignore[operator]
    help_words = ("--help",) if word in ("run", "create") else ("--help", "-h")
    if argv and argv[0] in help_words:
        print(help_text(command))
        return 0
    flags = parse(command.flags, argv, interspersed=command.interspersed)
    check_count(command, flags.words)
    return int(_import(command.target)(host, flags))  # type: ignore[operator]


def _explain(word: str, failure: Failure) -> int:
    """Say what went wrong in docker's form: the reason, then where to read more."""
    hint = f"Run 'wherry {word} --help' for more information"
    text = f"{failure.prefix}{failure}"
    if failure.usage:
        from wherry.cli.flags import Command, usage

        command = _import(COMMANDS[word])
        assert isinstance(command, Command)
        if text.startswith("'"):  # the wrong number of words; docker says See only when there may be more
            see = hint if command.count[0] == command.count[1] else hint.replace("Run", "See", 1)
            return _fail(f"wherry: {text}", failure.status, f"{usage(command)}\n\n{see}")
        return _fail(text, failure.status, f"{usage(command)}\n\n{hint}")
    return _fail(text, failure.status, hint if isinstance(failure, StartFailed) else "")


def _guarded(word: str, host: str, argv: list[str]) -> int:
    try:
        return _invoke(word, host, argv)
    except Unreachable as failure:
        return _fail(f"{failure}. Is it running? Start one with: wherry daemon", 125 if word == "run" else 1)
    except Failure as failure:
        return _explain(word, failure)
    except (OSError, ValueError) as error:
        return _fail(f"wherry: {error}", 125 if word == "run" else 1)
    except KeyboardInterrupt:
        return 130


def main(argv: list[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    host, rest = _globals(list(sys.argv[1:] if argv is None else argv))
    if not rest or rest[0] in ("--help", "-h", "help"):
        print(overview())
        return 0
    if rest[0] in VERSION_FLAGS:
        from wherry.version import WHERRY

        print(f"Wherry version {WHERRY}")
        return 0
    word, rest = _word(rest)
    if word not in COMMANDS:
        hint = "Run 'wherry --help' for more information"
        if word.startswith("-"):
            return _fail(f"unknown flag: {word}", 125, hint)
        return _fail(f"wherry: unknown command: wherry {word}", 1, hint)
    return _guarded(word, host, rest)


if __name__ == "__main__":
    sys.exit(main())
