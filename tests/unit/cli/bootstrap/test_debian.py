"""The tidying of a Debian tree: nothing of the machine or of the run stays, and order and times are fixed."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from tests import tars
from tests.tars import file, folder, hard, link, node
from wherry.cli.bootstrap import debian
from wherry.cli.failures import Failure

NEWEST = 1000


def tidied(members: list[tars.Member]) -> tarfile.TarFile:
    target = io.BytesIO()
    with tarfile.open(fileobj=io.BytesIO(tars.archive(members))) as tree:
        debian.tidied(tree, target, NEWEST)
    return tarfile.open(fileobj=io.BytesIO(target.getvalue()))


def test_what_depends_on_the_machine_or_the_run_goes() -> None:
    goes = [
        "etc/machine-id", "etc/hostname", "etc/resolv.conf", "etc/passwd-", "etc/.pwd.lock", "dev/null", "run/lock",
        "tmp/x", "var/log/dpkg.log", "var/log/apt/term.log", "var/log/lastlog", "var/cache/apt/pkgcache.bin",
        "var/cache/ldconfig/aux-cache", "var/lib/apt/lists/x_Packages", "var/lib/dpkg/status-old", "var/lib/dpkg/lock",
    ]  # fmt: skip
    stays = ["etc/passwd", "usr/bin/log", "var/lib/dpkg/status", "var/log", "dev", "var/lib/dpkg/info/x"]
    members = [node(name, tarfile.CHRTYPE, 1, 3) if name == "dev/null" else file(f"./{name}") for name in goes]
    assert tidied([*members, *[file(f"./{name}") for name in stays]]).getnames() == sorted(stays)


def test_times_names_and_order() -> None:
    late = file("./b", b"1", mtime=2000.5, uname="root")
    tree = tidied([late, folder("./a", mtime=5), folder("./"), link("./c", "/x", mtime=1001)])
    found = [(info.name, info.mtime, info.uname) for info in tree]
    assert found == [("a", 5, ""), ("b", NEWEST, ""), ("c", NEWEST, "")]


def test_of_hard_links_the_first_name_has_the_content() -> None:
    tree = tidied([file("./z", b"content", mode=0o755), hard("./m", "./z"), hard("./a", "./z"), file("./y", b"other")])
    found = {info.name: info for info in tree}
    assert (found["a"].isreg(), found["a"].size) == (True, 7)
    assert {name: found[name].linkname for name in ("m", "z")} == {"m": "a", "z": "a"}
    content = tree.extractfile("a")
    assert content is not None
    assert content.read() == b"content"
    with pytest.raises(Failure, match="a is a link to gone, which is not there"):
        tidied([hard("./a", "./gone")])


def test_extended_attributes_stay() -> None:
    (info,) = tidied([file("./ping", b"x", xattrs={"security.capability": "cap"}, mtime=3.25)])
    assert info.pax_headers == {"SCHILY.xattr.security.capability": "cap"}
    assert info.mtime == 3


def test_without_mmdebstrap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Failure, match="there is no mmdebstrap on this machine: install Debian's mmdebstrap"):
        debian.build(io.BytesIO(), "bookworm", None)
