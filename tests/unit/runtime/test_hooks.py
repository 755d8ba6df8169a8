"""Hooks run in order with the state on stdin, and what fails is told."""

from __future__ import annotations

import json
import time

import pytest

from wherry.runtime import hooks
from wherry.runtime.faults import Refused

STATE = {"id": "c1", "pid": 7, "status": "creating"}


def shell(script, **more):
    return {"path": "/bin/sh", "args": ["sh", "-c", script], **more}


def spec(*given):
    return {"hooks": {"prestart": list(given)}}


def test_in_order_with_the_state_and_only_the_given_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("SECRET", "of the caller")
    out = tmp_path / "out"
    hooks.run(
        "prestart",
        spec(
            shell(f"/bin/cat >{out}"),
            shell(f"/usr/bin/env >>{out}"),
            shell(f'echo "$A" >>{out}', env=["A=b=c"]),
        ),
        STATE,
    )
    first, rest = out.read_text().split("}", 1)
    assert json.loads(first + "}") == STATE
    assert "SECRET" not in rest
    assert rest.endswith("b=c\n")


def test_without_args_the_path_is_the_name():
    hooks.run("prestart", spec({"path": "/bin/true"}), STATE)


def test_the_first_failure_ends_it(tmp_path):
    with pytest.raises(Refused) as caught:
        hooks.run("prestart", spec(shell("true"), shell("echo no luck; exit 3"), shell(f"touch {tmp_path}/x")), STATE)
    assert str(caught.value) == "error running prestart hook #1: exit status 3, output: no luck"
    assert not (tmp_path / "x").exists()


def test_all_of_them_when_asked_to(tmp_path):
    failures = hooks.run_all("prestart", spec(shell("kill -9 $$"), shell(f"touch {tmp_path}/x")), STATE)
    assert failures == ["error running prestart hook #0: signal 9"]
    assert (tmp_path / "x").exists()


def test_a_missing_program():
    with pytest.raises(Refused, match="exec /no/such: no such file or directory"):
        hooks.run("prestart", spec({"path": "/no/such"}), STATE)


def test_the_timeout_kills():
    begin = time.monotonic()
    with pytest.raises(Refused, match="did not end within 1 s"):
        hooks.run("prestart", spec(shell("exec sleep 20", timeout=1)), STATE)
    assert time.monotonic() - begin < 5


def test_much_output_does_not_hang():
    hooks.run("prestart", spec(shell("head -c 3000000 /dev/zero")), STATE)


def test_no_hooks_of_that_kind():
    hooks.run("poststop", spec(), STATE)
    assert hooks.run_all("poststop", {}, STATE) == []
    assert hooks.run_all("poststop", {"hooks": {"poststop": None}}, STATE) == []
