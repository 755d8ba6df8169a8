"""`wherry image bootstrap`: an image without a registry, the same one each time."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.engine import Engine

pytestmark = [pytest.mark.root, pytest.mark.engine]


def wherry(engine: Engine, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "wherry.cli.main", "-H", engine.host, "image", "bootstrap", *words]
    return subprocess.run(argv, capture_output=True, text=True, env={**os.environ, **environment}, timeout=900)


def test_busybox(own_engine: Engine) -> None:
    own_engine.start()
    start = time.monotonic()
    first = wherry(own_engine, "busybox")
    took = time.monotonic() - start
    assert first.returncode == 0, first.stderr
    assert took < 3, f"{took:.1f} s"
    blobs = sorted(os.listdir(own_engine.data_root / "content/blobs/sha256"))
    again = wherry(own_engine, "busybox")
    assert again.stdout == first.stdout
    assert sorted(os.listdir(own_engine.data_root / "content/blobs/sha256")) == blobs
    assert own_engine.docker("inspect", "-f", "{{.Id}}", "busybox") == first.stdout.strip()
    script = "echo $PATH; id -un; ls -d /bin/sh /tmp"
    assert own_engine.docker("run", "--rm", "--network", "none", "busybox", "sh", "-c", script) == (
        "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\nroot\n/bin/sh\n/tmp"
    )
    dated = wherry(own_engine, "busybox", "-t", "dated:1", SOURCE_DATE_EPOCH="86400")
    assert dated.returncode == 0
    told = own_engine.docker("inspect", "-f", "{{.Created}} {{.RepoTags}}", "dated:1")
    assert told == "1970-01-02T00:00:00Z [dated:1]"


def test_what_cannot_be_made(own_engine: Engine, tmp_path: Path) -> None:
    own_engine.start()
    for words, text in (
        (("alpine",), "unknown base 'alpine': it is busybox or debian:SUITE"),
        (("debian",), "unknown base 'debian'"),
        (("busybox", "--include", "x"), "--include is for Debian images"),
        (("debian:Not A Suite",), "there is no mmdebstrap on this machine"),
        (("busybox", "-t", "BAD"), "must be lowercase"),
    ):
        ran = wherry(own_engine, *words, **({"PATH": str(tmp_path)} if "debian:" in words[0] else {}))
        assert ran.returncode == 1
        assert text in ran.stderr, ran.stderr
    ran = wherry(own_engine, "busybox", SOURCE_DATE_EPOCH="soon")
    assert "SOURCE_DATE_EPOCH='soon' is not a number of seconds" in ran.stderr
    assert own_engine.docker("images", "-q") == ""


MMDEBSTRAP = """#!/bin/sh
# Stands in for mmdebstrap, which needs a network: a tree with what differs from run to run.
for last in "$@"; do target=$before; before=$last; done
work=$(mktemp -d)
cd "$work" && mkdir -p bin etc dev run var/log/apt
cp {busybox} bin/sh && ln bin/sh bin/busybox
date +%s.%N | tee etc/machine-id etc/hostname var/log/dpkg.log var/log/apt/term.log run/x >/dev/null
printf '%s\n' "$*" | sed 's:/[^ ]*::g' >etc/arguments
cat "$last" >etc/sources; env | grep -v PWD | sort >etc/environment
tar -cf "$target" .
rm -r "$work"
"""
APT_GET = """#!/bin/sh
for word; do case $word in -oDir::State::Lists=*) cd "${word#*=}";; esac; done
echo 'Date: Sat, 09 Jan 2016 12:00:00 UTC' >a_InRelease
echo 'Date: Sat, 10 Jan 2016 12:00:00 UTC' >b_Release
"""


def test_debian_twice_is_the_same(own_engine: Engine, tmp_path: Path) -> None:
    own_engine.start()
    script = MMDEBSTRAP.replace("{busybox}", shutil.which("busybox") or "")
    for name, text in (("mmdebstrap", script), ("apt-get", APT_GET)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    first, second = (wherry(own_engine, "debian:sid", "--include", "x,y", PATH=path, SECRET="1") for _ in range(2))
    assert first.returncode == 0, first.stderr
    assert first.stdout == second.stdout
    told = own_engine.docker("inspect", "-f", "{{.Created}} {{.Config.Cmd}}", "debian:sid")
    assert told == "2016-01-10T12:00:00Z [bash]"
    script = "busybox cat /etc/arguments /etc/sources /etc/environment; busybox find /etc /run /var -type f"
    told = own_engine.docker("run", "--rm", "--network", "none", "debian:sid", "sh", "-c", script)
    assert "--variant=minbase" in told
    assert "--include=x,y sid " in told
    assert re.search(r"^deb .* sid main$", told, re.MULTILINE)
    assert "SOURCE_DATE_EPOCH=1452427200" in told
    assert "SECRET" not in told
    assert "dpkg.log" not in told
    assert "machine-id" not in told
