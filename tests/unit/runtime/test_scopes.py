"""Names of scopes and slices."""

from __future__ import annotations

import pytest

from wherry.runtime.cgroups import Cgroup, Layout
from wherry.runtime.scopes import Scope, is_slice, slice_path


@pytest.mark.parametrize(
    ("path", "unit", "group"),
    [
        ("system.slice:wherry:ab", "wherry-ab.scope", "/system.slice/wherry-ab.scope"),
        (":wherry:ab", "wherry-ab.scope", "/system.slice/wherry-ab.scope"),
        ("a-b-c.slice:p:n", "p-n.scope", "/a.slice/a-b.slice/a-b-c.slice/p-n.scope"),
        ("-.slice::n", "n.scope", "/n.scope"),
    ],
)
def test_scopes(path, unit, group):
    scope = Scope.parse(path)
    assert scope is not None
    assert (scope.unit, scope.path) == (unit, group)
    assert Cgroup.open(path, layout=Layout(2, ())).path == group


@pytest.mark.parametrize("path", ["/wherry/ab", "wherry", "/a:b:c", "a/b.slice:p:n", "a:b"])
def test_paths_are_no_scopes(path):
    assert Scope.parse(path) is None


@pytest.mark.parametrize(
    "path", ["a.slice:p:", "a:p:n", "a.slice:p q:n", "a.slice:p:n\0", "a--b.slice:p:n", "a.slice:p:" + "n" * 250]
)
def test_names_that_cannot_be(path):
    with pytest.raises(OSError, match="systemd"):
        Scope.parse(path)


@pytest.mark.parametrize(
    "name", ["", ".slice", "a", "a/b.slice", "-a.slice", "a-.slice", "a--b.slice", "a..slice/", "ä.slice"]
)
def test_slices_that_are_none(name):
    assert not is_slice(name)


def test_slices():
    assert [slice_path(each) for each in ("-.slice", "a.slice", "a-b.slice")] == ["", "/a.slice", "/a.slice/a-b.slice"]
