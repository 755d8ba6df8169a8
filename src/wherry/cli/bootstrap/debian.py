"""A base image of a Debian suite, made by mmdebstrap from the machine's own package sources.

Its date is that of the newest Release file of those sources, unless SOURCE_DATE_EPOCH says another: nothing in it is
younger. What depends on the run, or on the machine, is left out (`_UNWANTED`).
https://reproducible-builds.org/docs/source-date-epoch/, mmdebstrap(1)
"""

from __future__ import annotations

import email.utils
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile

from wherry.cli.bootstrap import sources
from wherry.cli.bootstrap.archive import layer_writer, plain
from wherry.cli.failures import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import IO

RUN = {"Cmd": ["bash"], "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]}
_UNWANTED = re.compile(
    r"""(?:dev|run|tmp|var/tmp)/.+ | etc/(?:machine-id|hostname|resolv\.conf|mtab|\.pwd\.lock)
    | etc/(?:passwd|group|shadow|gshadow|subuid|subgid)- | var/lib/(?:dbus/machine-id|systemd/random-seed)
    | var/lib/apt/(?:lists|mirrors)/.+ | var/lib/apt/extended_states | var/lib/dpkg/(?:.*-old|lock.*)
    | var/cache/(?:apt|debconf|ldconfig|man|fontconfig)/.+ | var/log/(?:apt/.+|faillog|lastlog|wtmp|btmp|tallylog)
    | var/log/.+\.(?:log|gz|[0-9])
    """,
    re.VERBOSE,
)
_SETTINGS = re.compile(r'(Acquire::(?:Check-Valid-Until|(?:http|https)::Proxy|Retries)) "([^"]*)";\Z')
_DATE = re.compile(r"^Date: (.+)$", re.MULTILINE)


def build(target: IO[bytes], suite: str, date: int | None, packages: str = "") -> int:
    """Write the layer; return its date (Unix s). packages: further ones, "a,b". Raises Failure."""
    for name, package in (("mmdebstrap", "mmdebstrap"), ("apt-get", "apt")):
        if not shutil.which(name):
            raise Failure(f"there is no {name} on this machine: install Debian's {package}")
    lines = sources.entries(suite, sources.read())
    settings = apt_settings()
    with tempfile.TemporaryDirectory(prefix="wherry-bootstrap-") as work:
        listed = os.path.join(work, "sources.list")
        with open(listed, "w", encoding="utf-8") as file:
            file.write("".join(f"{line}\n" for line in lines))
        when = release_date(work, listed, settings) if date is None else date
        made = os.path.join(work, "root.tar")
        options = [f"--aptopt={name} {_quoted(value)}" for name, value in settings]
        options += [f"--include={packages}"] if packages else []
        _run(["mmdebstrap", "--quiet", "--variant=minbase", "--format=tar", *options, suite, made, listed], when)
        with tarfile.open(made) as tree:
            tidied(tree, target, when)
    return when


def tidied(tree: tarfile.TarFile, target: IO[bytes], newest: int) -> None:
    """Copy a tree, sorted by name, without what depends on the run. newest: Unix s."""
    kept = {}
    for info in tree:
        name = info.name.removeprefix("./").rstrip("/")
        if name and name != "." and not _UNWANTED.fullmatch(name):
            info.name = name
            kept[name] = info
    first: dict[str, str] = {}
    with layer_writer(target) as tar:
        for name in sorted(kept):
            info = plain(kept[name], newest)
            if info.islnk():  # the name that comes first gets the content
                owner = info.linkname.removeprefix("./")
                if owner not in kept:
                    raise Failure(f"{name} is a link to {owner}, which is not there")
                _add_link(tar, tree, info, kept[owner], first)
            elif name in first:
                tar.addfile(_link(info, first[name]))
            else:
                tar.addfile(info, tree.extractfile(info) if info.isreg() else None)
                first[name] = name


def _add_link(
    tar: tarfile.TarFile, tree: tarfile.TarFile, info: tarfile.TarInfo, owner: tarfile.TarInfo, first: dict[str, str]
) -> None:
    if owner.name in first:
        tar.addfile(_link(info, first[owner.name]))
        return
    info.type, info.size, info.linkname = owner.type, owner.size, ""
    tar.addfile(info, tree.extractfile(owner))
    first[owner.name] = info.name


def _link(info: tarfile.TarInfo, to: str) -> tarfile.TarInfo:
    info.type, info.size, info.linkname = tarfile.LNKTYPE, 0, to
    return info


def apt_settings() -> list[tuple[str, str]]:
    """What the machine's apt is told of reaching its archives, which mmdebstrap does not look at."""
    program = shutil.which("apt-config")
    dump = subprocess.run([program, "dump"], capture_output=True, text=True, check=False).stdout if program else ""
    found = (_SETTINGS.match(line) for line in dump.splitlines())
    return [(match[1], match[2]) for match in found if match and match[2]]


def _quoted(value: str) -> str:
    return '"' + value.replace('"', "") + '"'


def release_date(work: str, listed: str, settings: list[tuple[str, str]]) -> int:
    """The newest date of the Release files of the sources (Unix s). Raises Failure."""
    state = os.path.join(work, "lists")
    os.makedirs(os.path.join(state, "partial"))
    options = {
        "Dir::Etc::SourceList": listed, "Dir::Etc::SourceParts": "/dev/null", "Dir::State::Lists": state,
        "Acquire::IndexTargets::deb::Packages::DefaultEnabled": "false", "Acquire::Languages": "none",
        "pkgCacheFile::Generate": "false", "Dir::Cache": work, "APT::Sandbox::User": "root", **dict(settings),
    }  # fmt: skip
    _run(["apt-get", "-qq", *(f"-o{name}={value}" for name, value in options.items()), "update"], 0)
    dates = []
    for name in os.listdir(state):
        if name.endswith("Release"):
            with open(os.path.join(state, name), encoding="utf-8", errors="replace") as file:
                match = _DATE.search(file.read(1 << 16))
            if match:
                dates.append(int(email.utils.parsedate_to_datetime(match[1]).timestamp()))
    if not dates:
        raise Failure("the package sources gave no Release file with a date; set SOURCE_DATE_EPOCH")
    return max(dates)


def _run(argv: list[str], when: int) -> None:
    """Run a program of Debian's in a clean environment, its words on stderr. Raises Failure."""
    wanted = ("http_proxy", "https_proxy", "no_proxy", "TMPDIR")
    kept = {key: value for key, value in os.environ.items() if key in wanted}
    environment = kept | {
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive",
    }  # fmt: skip
    if when:
        environment["SOURCE_DATE_EPOCH"] = str(when)
    argv = [shutil.which(argv[0]) or argv[0], *argv[1:]]
    ran = subprocess.run(argv, env=environment, stdin=subprocess.DEVNULL, stdout=sys.stderr, check=False)
    if ran.returncode:
        raise Failure(f"{argv[0]} failed with status {ran.returncode}; its words are above")
