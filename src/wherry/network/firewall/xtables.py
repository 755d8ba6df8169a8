"""iptables-save and iptables-restore: reading what is there, and changing it in one call per family.

Without --noflush all other rules would be lost, and with it a line ":CHAIN" empties a chain of the user's; chains are
made with -N, which fails when somebody else was faster. --wait=SECONDS is for the lock of the legacy kind
(/run/xtables.lock). A call is one transaction per table with the nf_tables kind.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import subprocess
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from wherry.errors import NotImplementedHere

PATH = "/usr/sbin:/sbin:/usr/bin:/bin:/usr/local/sbin"
LOCK_SECONDS = 10
SECONDS = 60.0
_NAMES = {4: "iptables", 6: "ip6tables"}
ours: deque[int] = deque(maxlen=256)
"""Process ids of the last programs that we ran, to know their changes from others'."""
_LINE = re.compile(r"line:? (\d+)")


@dataclass(slots=True)
class Saved:
    """What iptables-save says. policies: of each chain, by table and name, "-" for those of users. rules: by the same
    key, each as the text after "-A CHAIN "."""

    policies: dict[tuple[str, str], str] = field(default_factory=dict)
    rules: dict[tuple[str, str], list[str]] = field(default_factory=dict)

    def of(self, table: str, chain: str) -> list[str]:
        """Return the rules of a chain, none when it is not there."""
        return self.rules.get((table, chain), [])

    def tagged(self, table: str, chain: str, tag: str) -> list[str]:
        """Return the rules of a chain that have a comment."""
        mark = f"--comment {tag} "
        return [text for text in self.of(table, chain) if mark in f"{text} ".replace('"', "")]


def parse(text: str) -> Saved:
    """Read the output of iptables-save."""
    saved, table = Saved(), ""
    for line in text.splitlines():
        if line.startswith("*"):
            table = line[1:]
        elif line.startswith(":"):
            name, policy, *_ = line[1:].split()
            saved.policies[table, name] = policy
            saved.rules.setdefault((table, name), [])
        elif line.startswith("-A "):
            _, name, rest = line.split(" ", 2)
            saved.rules.setdefault((table, name), []).append(rest)
    return saved


def available(family: int) -> bool:
    """Whether the programs of a family are there, and the family is."""
    if family == 6 and not os.path.exists("/proc/thread-self/net/if_inet6"):
        return False
    return shutil.which(f"{_NAMES[family]}-restore", path=PATH) is not None


def save(family: int) -> Saved:
    """Return all tables of a family. Raises OSError; NotImplementedHere when the program is missing."""
    out = _run(family, "save", ())
    if "is incompatible, use 'nft' tool" in out:
        raise OSError(errno.ENOTSUP, f"{_NAMES[family]}-save cannot read a table that another program has changed")
    return parse(out)


def restore(family: int, lines: Sequence[str]) -> None:
    """Carry lines out, keeping everything that they do not name. Raises OSError with the line that failed."""
    _run(family, "restore", ("--noflush", f"--wait={LOCK_SECONDS}"), lines)


def _run(family: int, action: str, flags: Sequence[str], lines: Sequence[str] = ()) -> str:
    name = f"{_NAMES[family]}-{action}"
    program = shutil.which(name, path=PATH)
    if program is None:
        raise NotImplementedHere(
            f"the firewall backend iptables needs the program {name}, which is not there: install the package "
            'iptables, or choose "firewall-backend": "nftables"'
        )
    text = "".join(f"{line}\n" for line in lines)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([program, *flags], text=True, env={}, **pipes) as process:  # type: ignore[call-overload]
        ours.append(process.pid)
        try:
            out, err = process.communicate(text, timeout=SECONDS)
        except subprocess.TimeoutExpired as error:
            process.kill()
            raise OSError(errno.ETIMEDOUT, f"{name} did not end within {SECONDS:.0f} s") from error
    if process.returncode:
        raise OSError(errno.EIO, f"{name}: {_reason(err.strip(), lines)}")
    return str(out)


def _reason(stderr: str, lines: Sequence[str]) -> str:
    """Put the line that failed to what the program says."""
    found = _LINE.search(stderr)
    number = int(found[1]) if found else 0
    shown = f" ({lines[number - 1]})" if 0 < number <= len(lines) else ""
    return f"{' '.join(stderr.split())}{shown}"
