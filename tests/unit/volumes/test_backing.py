"""What a volume's options mean."""

import pytest

from wherry.errors import InvalidArgument, SystemFailure
from wherry.volumes import backing


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"foo": "bar"}, 'create vv: invalid option: "foo"'),
        ({"type": "tmpfs"}, 'create vv: missing required option: "device"'),
        ({"device": "/tmp"}, 'create vv: missing required option: "type"'),
        ({"o": "size=1m"}, 'create vv: missing required option: "device"'),
        (
            {"size": "10k", "type": "tmpfs", "device": "x"},
            "create vv: quota size requested but no quota support for what is mounted",
        ),
        ({"size": "zz"}, "create vv: invalid size: 'zz'"),
        ({"size": "5000P"}, "create vv: invalid size: '5000P'"),
        ({"size": "9" * 400}, "create vv: invalid size: '999"),
        ({"type": "none", "device": "/tmp\0", "o": "bind"}, 'create vv: option "device" has a NUL byte in it'),
        ({"type": "none", "device": "/tmp", "o": "bind,rshared"}, 'option "rshared" cannot be used for a volume'),
    ],
)
def test_bad_options_are_refused(options, text):
    with pytest.raises(InvalidArgument) as caught:
        backing.check("vv", options)
    assert text in caught.value.message


@pytest.mark.parametrize("server", ["a" * 64, "a..b", "", "no.such.host.invalid"])
def test_a_server_that_has_no_address(server):
    found = backing.of({"type": "nfs", "device": ":/x", "o": f"addr={server}"})
    with pytest.raises(SystemFailure, match="error resolving passed in network volume address: lookup"):
        backing.resolved(found, "/p")


@pytest.mark.parametrize(
    ("device", "words", "expected"),
    [
        ("//localhost/a/b", "username=u", "//127.0.0.1/a/b"),
        ("//192.0.2.1/a", "username=u", "//192.0.2.1/a"),
        ("//files/a", "addr=localhost", "//files/a"),
    ],
)
def test_the_server_of_cifs_is_in_its_device(device, words, expected):
    found = backing.resolved(backing.of({"type": "cifs", "device": device, "o": words}), "/p")
    assert (found.device, found.data) == (expected, words.replace("localhost", "127.0.0.1"))
    with pytest.raises(SystemFailure, match="network volume address: lookup a\\.\\.b: "):
        backing.resolved(backing.of({"type": "cifs", "device": "//a..b/x"}), "/p")


@pytest.mark.parametrize("words", ["password=secret", "username=u,password=secret,addr=1.2.3.4"])
def test_a_password_is_not_repeated(words):
    found = backing.of({"type": "cifs", "device": "//1.2.3.4/x", "o": words})
    assert f", data: {words.replace('secret', '********')}: reason" in found.complaint("/p", "reason")


def test_no_options_are_a_directory_of_ours():
    backing.check("vv", {"type": "", "device": "", "o": ""})
    assert backing.of(None).plain
    assert backing.of({}).plain
    assert backing.of({"type": "", "device": "", "o": "size=10k"}).plain


def test_a_bind_is_a_directory_of_the_host_with_attributes():
    found = backing.of({"type": "none", "device": "/srv", "o": "bind,ro,nosuid"})
    assert (found.bind, found.mounted, found.device) == (True, False, "/srv")
    assert found.attributes == ("rro", "nosuid")


def test_the_rest_is_mounted_with_flags_and_data():
    found = backing.of({"type": "nfs", "device": ":/x", "o": "addr=1.2.3.4,ro,noexec,vers=4,rw"})
    assert (found.mounted, found.flags, found.data) == (True, 0x8, "addr=1.2.3.4,vers=4")
    assert found.complaint("/p", "no such device") == (
        "error while mounting volume '/p': failed to mount local volume: "
        "mount :/x:/p, flags: 0x8, data: addr=1.2.3.4,vers=4: no such device"
    )
