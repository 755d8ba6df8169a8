"""JSON bodies to models: Go's manners and texts (each text was asked of dockerd 28.5.2)."""

from __future__ import annotations

import pytest

from wherry.api.routes.containers import parse_create
from wherry.api.wire.decode import decode, parse
from wherry.api.wire.encode import encode
from wherry.errors import InvalidArgument
from wherry.models.container import (
    ContainerConfig,
    ExecConfig,
    HealthConfig,
    HostConfig,
    MountPoint,
    PortBinding,
    Ulimit,
)


def create(body: bytes):
    """A create body as the route reads it."""
    return parse_create(parse(body))


def test_the_three_parts_of_create_are_taken_apart():
    made = create(
        b'{"Image":"a","Cmd":["b"],"HostConfig":{"Memory":5,"ContainerIDFile":"f","UTSMode":"host",'
        b'"PortBindings":{"80/tcp":[{"HostPort":"8080"}],"81/tcp":null},"Ulimits":[{"Name":"nofile","Soft":1}]},'
        b'"NetworkingConfig":{"EndpointsConfig":{"n":{"IPAMConfig":{"IPv4Address":"10.0.0.2"}},"m":null}}}'
    )
    assert made.config.image == "a"
    assert made.config.cmd == ["b"]
    assert made.host_config.memory == 5
    assert made.host_config.container_id_file == "f"
    assert made.host_config.uts_mode == "host"
    assert made.host_config.port_bindings == {"80/tcp": [PortBinding(host_port="8080")], "81/tcp": None}
    assert made.host_config.ulimits == [Ulimit(name="nofile", soft=1)]
    endpoints = made.networking_config.endpoints_config
    assert endpoints["n"].ipam_config.ipv4_address == "10.0.0.2"
    assert endpoints["m"] is None


def test_names_match_in_any_case_and_unknown_ones_are_ignored():
    made = create(b'{"image":"a","hostconfig":{"MEMORY":7},"NoSuchField":{"x":[1]},"AttachStdin":true}')
    assert (made.config.image, made.host_config.memory, made.config.attach_stdin) == ("a", 7, True)


def test_null_leaves_the_default():
    made = create(b'{"Image":null,"Tty":null,"Env":[null,"A=b"],"HostConfig":null,"NetworkingConfig":null}')
    assert made.config == ContainerConfig(env=["", "A=b"])
    assert made.host_config == HostConfig()
    assert create(
        b'{"HostConfig":{"ConsoleSize":null,"LogConfig":null,"RestartPolicy":{"Name":null}}}'
    ).host_config == (HostConfig())


def test_a_command_may_be_one_text():
    assert create(b'{"Cmd":"echo hi","Entrypoint":["sh","-c"]}').config.cmd == "echo hi"


def test_missing_names_are_empty_as_in_go():
    assert create(b'{"HostConfig":{"Ulimits":[{}],"Mounts":[{}],"Devices":[{}]}}').host_config.ulimits == [Ulimit()]


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"", "invalid JSON: got EOF while reading request body"),
        (b'{"Image":', "invalid JSON: unexpected EOF"),
        (b"xx", "invalid JSON: invalid character 'x' looking for beginning of value"),
        (b'{"Image":"x"}{"a":1}', "unexpected content after JSON"),
        (b"null", "config cannot be empty in order to create a container"),
        (b"[]", "invalid JSON: json: cannot unmarshal array into Go value of type container.CreateRequest"),
        (b'{"Image":5}', "invalid JSON: json: cannot unmarshal number into Go struct field .Image of type string"),
        (
            b'{"HostConfig":{"memory":"x"}}',
            "invalid JSON: json: cannot unmarshal string into Go struct field .HostConfig.memory of type int64",
        ),
        (
            b'{"HostConfig":{"Memory":1.5}}',
            "invalid JSON: json: cannot unmarshal number 1.5 into Go struct field .HostConfig.Memory of type int64",
        ),
        (
            b'{"HostConfig":{"Memory":99999999999999999999}}',
            "invalid JSON: json: cannot unmarshal number 99999999999999999999 into Go struct field "
            ".HostConfig.Memory of type int64",
        ),
        (b'{"cmd":5}', "invalid JSON: json: cannot unmarshal number into Go value of type string"),
        (b'{"cmd":[5]}', "invalid JSON: json: cannot unmarshal array into Go value of type string"),
        (b'{"Tty":"yes"}', "invalid JSON: json: cannot unmarshal string into Go struct field .Tty of type bool"),
        (b'{"HostConfig":{"Memory":true}}', "invalid JSON: json: cannot unmarshal bool into Go struct field "
         ".HostConfig.Memory of type int64"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_in_dockerds_words(body, text):
    with pytest.raises(InvalidArgument) as caught:
        create(body)
    assert caught.value.message == text


@pytest.mark.parametrize("body", [b"[" * 100_000, b'{"a":' * 50_000, b'{"Labels":' + b"[" * 5000 + b"]" * 5000 + b"}"])
def test_depth_bombs_are_refused(body):
    with pytest.raises(InvalidArgument):
        decode(body, ContainerConfig)


def test_text_that_is_not_utf8_is_refused():
    with pytest.raises(InvalidArgument):
        decode(b'{"Image":"\xff"}', ContainerConfig)


def test_exec_config():
    assert decode(b'{"Cmd":["a"],"ConsoleSize":[24,80]}', ExecConfig).console_size == [24, 80]
    with pytest.raises(InvalidArgument, match=r"\.Cmd of type string"):
        decode(b'{"Cmd":[1]}', ExecConfig)


def test_encoding_survives_file_names_that_are_not_utf8():
    assert encode({"a": "b"}) == b'{"a":"b"}'
    assert encode({"a": "\udcff"}) == b'{"a":"\\udcff"}'
    assert encode(PortBinding(host_port="1")) == b'{"HostIp":"","HostPort":"1"}'


def test_some_objects_show_only_what_is_set():
    assert encode(HealthConfig(test=["CMD", "true"])) == b'{"Test":["CMD","true"]}'
    assert encode(MountPoint(type="bind", source="/a", target="/b")) == b'{"Type":"bind","Source":"/a","Target":"/b"}'
