"""Leases count, grow, and tell what nobody holds any more."""

from wherry.images.leases import Leases


def test_a_name_is_released_with_its_last_lease():
    released: list[str] = []
    leases = Leases(released.append)
    with leases.hold(["a", "b"]):
        with leases.hold(["b"]) as inner:
            inner.add(["c", "c", "b"])
            assert leases.names() == {"a", "b", "c"}
        assert released == ["c"]
        assert "b" in leases
        assert "c" not in leases
    assert sorted(released) == ["a", "b", "c"]
    assert leases.names() == set()


def test_a_failure_ends_a_lease_too():
    leases = Leases(lambda _: None)
    try:
        with leases.hold(["a"]):
            raise ValueError
    except ValueError:
        pass
    assert "a" not in leases
