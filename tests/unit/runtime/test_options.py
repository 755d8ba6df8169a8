"""The command line of the stand-alone runtime is read as runc's is."""

from __future__ import annotations

import pytest

from wherry.runtime.faults import Refused
from wherry.runtime.options import parse

FLAGS = ("bundle,b=", "detach,d", "env,e=*", "pid-file=")


@pytest.mark.parametrize(
    ("words", "values", "rest"),
    [
        (["--bundle", "/x", "id"], {"bundle": "/x"}, ["id"]),
        (["--bundle=/x=y", "id"], {"bundle": "/x=y"}, ["id"]),
        (["-b", "/x", "-d", "id"], {"bundle": "/x", "detach": True}, ["id"]),
        (["-bundle", "/x", "id"], {"bundle": "/x"}, ["id"]),
        (["id", "--detach"], {"detach": True}, ["id"]),
        (["--detach=false", "id"], {"detach": False}, ["id"]),
        (["-e", "A=1", "--env", "B=2"], {"env": ["A=1", "B=2"]}, []),
        (["--", "--detach"], {}, ["--detach"]),
        (["-"], {}, ["-"]),
        (["--pid-file", "-d", "id"], {"pid-file": "-d"}, ["id"]),
    ],
)
def test_forms(words, values, rest):
    options = parse(words, FLAGS)
    assert (options.values, options.words) == (values, rest)


def test_without_mixing_the_first_word_ends_the_flags():
    options = parse(["-d", "id", "ls", "-d", "--", "-x"], FLAGS, mixed=False)
    assert (options.values, options.words) == ({"detach": True}, ["id", "ls", "-d", "--", "-x"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--nope"], "flag provided but not defined: -nope"),
        (["--bundle"], "flag needs an argument: -bundle"),
        (["--detach=maybe"], 'invalid boolean value "maybe" for -detach'),
    ],
)
def test_refusals(words, message):
    with pytest.raises(Refused) as caught:
        parse(words, FLAGS)
    assert str(caught.value) == message


def test_numbers():
    assert parse(["--pid-file", "0x10"], FLAGS).number("pid-file") == 16
    assert parse([], FLAGS).number("pid-file", 7) == 7
    with pytest.raises(Refused, match="whole number"):
        parse(["--pid-file", "ten"], FLAGS).number("pid-file")
