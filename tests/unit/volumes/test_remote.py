"""Volumes of plugins that are not there; those that are, see tests/e2e/test_volume_plugins.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from wherry.errors import NotFound
from wherry.plugins.api import Roots
from wherry.plugins.registry import Plugins
from wherry.volumes.remote import RemoteVolumes


def test_a_driver_that_is_not_there_is_not_found(tmp_path: Path) -> None:
    remote = RemoteVolumes(Plugins(Roots((tmp_path,), (tmp_path,))))
    for driver in ("nod", "../nod", ""):
        with pytest.raises(NotFound) as caught:
            remote.check(driver, "vv")
        text = f'create vv: error looking up volume plugin {driver}: plugin "{driver}" not found'
        assert caught.value.message == text
