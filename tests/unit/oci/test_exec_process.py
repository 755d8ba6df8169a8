"""The OCI process of an exec, made from the container's own."""

from __future__ import annotations

import msgspec
import pytest

from wherry.models.container import ContainerConfig, ExecConfig, HostConfig
from wherry.oci.build import SpecRequest, build_spec, exec_process
from wherry.oci.host import HostFacts


def run_exec(config, host=None, container=None, **more):
    own = {"Cmd": ["true"], "Hostname": "box", "User": "me", "WorkingDir": "/w", **(container or {})}
    request = SpecRequest(
        id="x",
        config=msgspec.convert(own, ContainerConfig),
        host_config=msgspec.convert(host or {}, HostConfig),
        facts=HostFacts(),
    )
    process = build_spec(request)["process"]
    return exec_process(process, msgspec.convert(config, ExecConfig), **more)


def test_an_exec():
    process = run_exec({"Cmd": ["ls"], "Env": ["A=b", "PATH=/x"]}, {"GroupAdd": ["44"]})
    assert process["args"] == ["ls"]
    assert process["env"] == ["PATH=/x", "HOSTNAME=box", "A=b"]
    assert process["cwd"] == "/w"
    assert process["user"] == {"uid": 0, "gid": 0, "username": "me", "additionalGroups": ["44"]}
    assert process["terminal"] is False


def test_an_exec_with_a_user_has_no_groups_of_the_container():
    process = run_exec({"Cmd": ["ls"], "User": "5:6", "WorkingDir": "/x/.."}, {"GroupAdd": ["44"]})
    assert process["user"] == {"uid": 0, "gid": 0, "username": "5:6"}
    assert process["cwd"] == "/"


@pytest.mark.parametrize(
    ("container", "config", "terms"),
    [
        ({"Tty": True}, {}, []),
        ({"Tty": True}, {"Tty": True}, ["TERM=xterm"]),
        ({}, {"Tty": True}, ["TERM=xterm"]),
        ({"Env": ["TERM=x"]}, {"Tty": True}, ["TERM=x"]),
        ({"Tty": True, "Env": ["TERM=x"]}, {}, ["TERM=x"]),
        ({}, {"Env": ["TERM=y"]}, ["TERM=y"]),
    ],
)
def test_term_goes_with_the_terminal(container, config, terms):
    process = run_exec({"Cmd": ["ls"], **config}, container=container)
    assert [entry for entry in process["env"] if entry.startswith("TERM=")] == terms


def test_a_privileged_exec():
    process = run_exec({"Cmd": ["ls"]}, privileged=True, available=("CAP_CHOWN",))
    assert process["capabilities"] == {kind: ["CAP_CHOWN"] for kind in ("bounding", "effective", "permitted")}


def test_console_size_of_an_exec_is_its_own():
    host, container = {"ConsoleSize": [5, 6]}, {"Tty": True}
    assert "consoleSize" not in run_exec({"Cmd": ["ls"], "Tty": True}, host, container)
    sized = run_exec({"Cmd": ["ls"], "Tty": True}, host, container, console_size=[1, 2])
    assert sized["consoleSize"] == {"height": 1, "width": 2}
