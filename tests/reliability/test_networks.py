"""A network whose creation or removal is cut off: no bridge without a network, no network without a bridge."""

import hashlib
import signal

import pytest

from tests.engine import Engine
from tests.kernel.isolation import ip

pytestmark = [pytest.mark.root, pytest.mark.engine]


def bridges(engine: Engine) -> set[str]:
    """The bridges of an engine's networks; other tests' engines have theirs beside them."""
    owner = hashlib.sha256(str(engine.run_root).encode()).hexdigest()[:12]
    return {each["ifname"] for each in ip("link") if each.get("ifalias", "").startswith(f"wherry {owner} ")}


@pytest.mark.parametrize(
    ("place", "words"), [("network.bridge", ["create", "n"]), ("network.forgotten", ["rm", "old"])]
)
@pytest.mark.parametrize("action", ["error", "kill"])
def test_nothing_half_made_stays(own_engine: Engine, place, words, action, monkeypatch: pytest.MonkeyPatch):
    own_engine.start()
    own_engine.docker("network", "create", "old")
    assert own_engine.stop() == 0
    monkeypatch.setenv("WHERRY_FAILPOINTS", f"{place}={action}")
    own_engine.start()
    assert own_engine.run("network", *words).returncode == 1
    assert own_engine.process is not None
    if action == "kill":
        assert own_engine.process.wait(timeout=10) == -signal.SIGKILL
    else:
        assert own_engine.stop() == 0
    monkeypatch.delenv("WHERRY_FAILPOINTS")
    own_engine.start()
    ids = own_engine.docker("network", "ls", "-q", "--filter", "type=custom").split()
    assert {f"br-{id_}" for id_ in ids} == bridges(own_engine)
    assert len(ids) == (1 if place == "network.bridge" else 0)
    own_engine.docker("network", "create", "n")
    own_engine.docker("network", "prune", "-f")
    assert bridges(own_engine) == set()
