"""The D-Bus client: its encoding against jeepney's, its conversation against a real dbus-daemon."""

from __future__ import annotations

import errno
import subprocess
from collections.abc import Iterator

import pytest
from jeepney import DBusAddress, new_method_call
from jeepney.low_level import Parser

from wherry.runtime import dbus
from wherry.runtime.dbus import Variant

BUS = ("org.freedesktop.DBus", "/org/freedesktop/DBus")
VALUES = [
    ("s", ("",), ("",)),
    ("ybnqiuxtd", (7, True, -1, 1, -5, 5, -9, 9, 0.5), (7, True, -1, 1, -5, 5, -9, 9, 0.5)),
    ("sog", ("é", "/a/b", "a{sv}"), ("é", "/a/b", "a{sv}")),
    ("yay", (1, b"\x03\x00"), (1, b"\x03\x00")),
    ("yat", (1, [5, 6]), (1, [5, 6])),
    ("ya(ss)", (1, []), (1, [])),
    ("a(sv)", ([("A", ("t", 5)), ("B", ("au", [0]))],), ([("A", Variant("t", 5)), ("B", Variant("au", [0]))],)),
    ("va(sa(sv))", (("a(ss)", [("p", "rw")]), []), (Variant("a(ss)", [("p", "rw")]), [])),
]


@pytest.mark.parametrize(("signature", "theirs", "ours"), VALUES)
def test_what_is_sent_is_what_another_library_sends(signature, theirs, ours):
    message = new_method_call(DBusAddress("/", "a.b", "c.d"), "M", signature, theirs).serialise(1)
    assert message.endswith(dbus.encode(signature, ours))
    body = Parser()
    body.add_data(message)
    assert len(dbus.encode(signature, ours)) == len(message) - len(message.removesuffix(dbus.encode(signature, ours)))


@pytest.mark.parametrize(("signature", "theirs", "ours"), VALUES)
def test_what_is_read_is_what_was_sent(signature, theirs, ours):
    def plain(value):
        if isinstance(value, Variant):
            return plain(value.value)
        if isinstance(value, bytes):
            return list(value)
        return type(value)(map(plain, value)) if isinstance(value, list | tuple) else value

    assert dbus.decode(signature, dbus.encode(signature, ours)) == plain(ours)


@pytest.mark.parametrize("signature", ["z", "(s", "a", "s)", "a{s"])
def test_signatures_that_are_none(signature):
    with pytest.raises(OSError, match="not a D-Bus signature") as caught:
        dbus.types(signature)
    assert caught.value.errno == errno.EBADMSG


@pytest.mark.parametrize(
    ("signature", "data"),
    [("u", b"\1\0"), ("s", b"\xff\0\0\0a\0"), ("at", b"\xff\0\0\0\0\0\0\0"), ("s", b"\1\0\0\0\xff\0"), ("v", b"\1u\0")],
)
def test_bodies_that_end_too_early(signature, data):
    with pytest.raises(OSError, match="does not match its signature"):
        dbus.decode(signature, data)


@pytest.fixture
def bus(tmp_path) -> Iterator[str]:
    place = str(tmp_path / "bus")
    words = ["dbus-daemon", "--session", "--nofork", f"--address=unix:path={place}", "--print-address"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as daemon:
        assert daemon.stdout is not None
        daemon.stdout.readline()  # it listens
        yield place
        daemon.terminate()


def test_a_conversation(bus):
    with dbus.Connection(bus) as one:
        assert "org.freedesktop.DBus" in one.call(*BUS, "org.freedesktop.DBus.ListNames")[0]
        one.call(*BUS, "org.freedesktop.DBus.AddMatch", "s", ("type='signal',member='NameOwnerChanged'",))
        one.call(*BUS, "org.freedesktop.DBus.RequestName", "su", ("a.b", 0))
        one.call(*BUS, "org.freedesktop.DBus.RequestName", "su", ("a.c", 0))
        assert one.signal("NameOwnerChanged", lambda body: body[0] == "a.c")[0] == "a.c"
        assert one.signal("NameOwnerChanged", lambda body: body[0] == "a.b")[1] == ""


def test_an_error_has_its_name(bus):
    with dbus.Connection(bus) as one, pytest.raises(dbus.Remote) as caught:
        one.call(*BUS, "org.freedesktop.DBus.Nothing")
    assert caught.value.name == "org.freedesktop.DBus.Error.UnknownMethod"
    assert "does not understand message Nothing" in str(caught.value)


def test_a_signal_that_does_not_come(bus):
    with dbus.Connection(bus, seconds=0.05) as one, pytest.raises(OSError, match="no answer") as caught:
        one.signal("NameOwnerChanged", lambda body: True)
    assert caught.value.errno == errno.ETIMEDOUT


def test_nobody_there(tmp_path):
    with pytest.raises(OSError, match="connect: No such file") as caught:
        dbus.Connection(str(tmp_path / "bus"))
    assert caught.value.filename == str(tmp_path / "bus")
