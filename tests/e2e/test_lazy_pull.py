"""An engine that was told to pull lazily: the images are the same, the tables come first, lies are in its log."""

from __future__ import annotations

import io
import json
import tarfile

import pytest

from tests.engine import Engine, busybox_tar
from tests.estargz import Estargz, Table, estargz, push
from tests.registries import Registry
from tests.tars import Member

pytestmark = [pytest.mark.root, pytest.mark.engine]


def members() -> list[Member]:
    with tarfile.open(fileobj=io.BytesIO(busybox_tar())) as tar:
        return [(info, file.read() if (file := tar.extractfile(info)) and info.isreg() else b"") for info in tar]


def pull(engine: Engine, layer: Estargz, name: str) -> list[str]:
    """Pull it from a registry of its own, run it; return the registry's answers that are parts."""
    with Registry() as registry:
        push(registry, layer, name=name)
        engine.docker("pull", f"{registry.host}/{name}:1")
        assert engine.docker("run", "--rm", f"{registry.host}/{name}:1", "echo", "hi") == "hi"
        assert json.loads(engine.docker("image", "inspect", f"{registry.host}/{name}:1"))[0]["RootFS"]["Layers"]
        return [line for line in registry.log.read_text().splitlines() if '" 206 ' in line]


def test_lazy_pull_of_an_honest_and_of_a_lying_layer(own_engine: Engine) -> None:
    own_engine.root.joinpath("daemon.json").write_text(json.dumps({"lazy-pull": True}))
    own_engine.start()
    assert pull(own_engine, estargz(members(), chunk=100_000), "honest")
    assert "table of contents" not in own_engine.log.read_text()

    def lie(content: Table) -> None:
        content["entries"][-1]["uid"] = 77

    assert pull(own_engine, estargz(members(), change=lie), "lying")
    assert "is not what its table of contents promised" in own_engine.log.read_text()


def test_without_the_option_no_parts_are_asked_for(own_engine: Engine) -> None:
    own_engine.start()
    assert not pull(own_engine, estargz(members()), "plain")
