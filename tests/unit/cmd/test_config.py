"""daemon.json and flags: dockerd's names, and no guessing when they disagree."""

import json
import logging

import pytest

from wherry.cmd import config, logformat
from wherry.errors import InvalidArgument


def parse(tmp_path, content, *flags):
    path = tmp_path / "daemon.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return config.parse(["--config-file", str(path), *flags])


def test_file_and_flags_come_together(tmp_path):
    found = parse(tmp_path, {"data-root": "/d", "debug": True, "hosts": ["unix:///x"]}, "--bridge", "br9", "--mtu=1400")
    assert (found.data_root, found.debug, found.hosts, found.bridge, found.mtu) == (
        "/d",
        True,
        ("unix:///x",),
        "br9",
        1400,
    )


def test_one_setting_in_both_places_is_refused(tmp_path):
    with pytest.raises(InvalidArgument, match="specified both as a flag and in the configuration file: data-root: "):
        parse(tmp_path, {"data-root": "/d"}, "--data-root", "/e")


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ({"colour": "red"}, "don't match any configuration option: colour"),
        ("{", "Expecting"),
        ("[]", "must hold a JSON object"),
        ({"debug": "yes"}, "debug must be bool"),
        ({"mtu": True}, "mtu must be int"),
        ({"data-root": "relative"}, "absolute path"),
        ({"default-shm-size": "1x"}, "invalid size: '1x'"),
        ("[" * 100_000, "unable to configure"),
    ],
)
def test_bad_files_are_refused_with_a_reason(tmp_path, content, text):
    with pytest.raises(InvalidArgument, match=text):
        parse(tmp_path, content)


def test_a_file_that_was_named_must_be_there(tmp_path):
    with pytest.raises(InvalidArgument, match="no such file"):
        config.parse(["--config-file", str(tmp_path / "missing")])


def test_a_log_line_is_one_line_whatever_is_in_it():
    record = logging.makeLogRecord(
        {"msg": "a\nb\x1b[31m\u2028", "levelname": "INFO", "name": "wherry.x", "key": 'q"\r'}
    )
    text = logformat.Line().format(record)
    assert text.isprintable()
    assert 'msg="a\\nb\\u001b[31m\\u2028"' in text
    assert 'key="q\\"\\r"' in text


def test_lazy_pull_is_off_until_it_is_asked_for(tmp_path):
    assert not parse(tmp_path, {}).lazy_pull
    assert parse(tmp_path, {"lazy-pull": True}).lazy_pull
    assert parse(tmp_path, {}, "--lazy-pull").lazy_pull
    assert not parse(tmp_path, {}, "--lazy-pull=false").lazy_pull


def test_settings_of_networks_are_the_same_by_file_and_by_flag(tmp_path):
    found = parse(
        tmp_path,
        {
            "ipv6": True,
            "default-address-pools": [{"base": "10.9.0.0/16", "size": 24}],
            "default-network-opts": {"bridge": {"com.docker.network.driver.mtu": "1400"}},
        },
    )
    flags = ["--ipv6", "--default-address-pool", "base=10.9.0.0/16,size=24"]
    flags += ["--default-network-opt", "bridge=com.docker.network.driver.mtu=1400"]
    assert parse(tmp_path, {}, *flags) == found
    assert found.default_address_pools == (("10.9.0.0/16", 24),)
    assert found.default_network_opts == {"bridge": {"com.docker.network.driver.mtu": "1400"}}


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("--default-address-pool", "10.9.0.0/16"),
        ("--default-address-pool", "base=10.9.0.0/16"),
        ("--default-address-pool", "base=10.9.0.0/16,size=x"),
        ("--default-network-opt", "bridge"),
        ("--default-network-opt", "bridge=key"),
    ],
)
def test_flags_of_networks_that_say_too_little(tmp_path, flag, value):
    with pytest.raises(InvalidArgument, match="invalid default"):
        parse(tmp_path, {}, flag, value)


def test_the_hosts_address_for_containers(tmp_path):
    wanted = ("10.0.0.1", "fd00::1")
    assert parse(tmp_path, {"host-gateway-ips": ["10.0.0.1", "fd00::1"]}).host_gateway_ips == wanted
    flags = ("--host-gateway-ip", "10.0.0.1", "--host-gateway-ip", "fd00::1")
    assert parse(tmp_path, {}, *flags).host_gateway_ips == wanted
    assert parse(tmp_path, {"host-gateway-ip": "10.0.0.1"}).host_gateway_ips == ("10.0.0.1",)
