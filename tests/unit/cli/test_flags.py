"""Command lines as docker's users write them."""

from __future__ import annotations

import pytest

from wherry.cli.failures import UsageError
from wherry.cli.flags import Command, Flag, check_count, parse

FLAGS = (
    Flag("-i --interactive", ""),
    Flag("-t --tty", ""),
    Flag("-d --detach", ""),
    Flag("-e --env", "", "list"),
    Flag("--name", "", "text"),
    Flag("-n --last", "", "int"),
    Flag("--pull", "", "text", "missing"),
    Flag("--net --network", "", "text"),
)


def test_short_flags_are_bundled_and_the_last_may_have_a_value() -> None:
    parsed = parse(FLAGS, ["-ite", "A=1", "-eB=2", "-e=C"])
    assert parsed["interactive"]
    assert parsed["tty"]
    assert not parsed["detach"]
    assert parsed["env"] == ["A=1", "B=2", "C"]


def test_values_stand_beside_or_behind_an_equals_sign() -> None:
    parsed = parse(FLAGS, ["--name=a=b", "--env", "X", "--last", "3", "--net", "none"])
    assert parsed["name"] == "a=b"
    assert parsed["env"] == ["X"]
    assert parsed["last"] == 3
    assert parsed["network"] == "none"
    assert parsed.given == {"name", "env", "last", "network"}


def test_defaults() -> None:
    parsed = parse(FLAGS, [])
    assert (parsed["pull"], parsed["env"], parsed["last"], parsed["name"]) == ("missing", [], None, "")


def test_the_command_of_a_container_keeps_its_own_flags() -> None:
    parsed = parse(FLAGS, ["-i", "image", "ls", "-d", "--name"], interspersed=False)
    assert parsed.words == ["image", "ls", "-d", "--name"]
    assert not parsed["detach"]


def test_flags_may_follow_words_and_two_dashes_end_them() -> None:
    assert parse(FLAGS, ["a", "-d", "b", "--", "-x"]).words == ["a", "b", "-x"]


@pytest.mark.parametrize(("given", "value"), [("--tty=false", False), ("--tty=1", True), ("-t=0", False)])
def test_booleans_take_a_value_only_with_an_equals_sign(given: str, value: bool) -> None:
    assert parse(FLAGS, [given])["tty"] is value


# The texts are docker's.
WRONG = [
    (["--foo"], "unknown flag: --foo"),
    (["--foo=1"], "unknown flag: --foo"),
    (["-iz"], "unknown shorthand flag: 'z' in -iz"),
    (["--name"], "flag needs an argument: --name"),
    (["-ie"], "flag needs an argument: 'e' in -ie"),
    (["--tty=x"], 'invalid argument "x" for "-t, --tty" flag: strconv.ParseBool: parsing "x": invalid syntax'),
    (["-n", "x"], 'invalid argument "x" for "-n, --last" flag: strconv.ParseInt: parsing "x": invalid syntax'),
]


@pytest.mark.parametrize(("argv", "text"), WRONG)
def test_what_cannot_be_understood_is_said_in_dockers_words(argv: list[str], text: str) -> None:
    with pytest.raises(UsageError) as raised:
        parse(FLAGS, argv)
    assert str(raised.value) == text
    assert raised.value.status == 125


@pytest.mark.parametrize(
    ("count", "words", "text"),
    [
        ((1, -1), [], "'wherry x' requires at least 1 argument"),
        ((2, 2), ["a"], "'wherry x' requires 2 arguments"),
        ((0, 0), ["a"], "'wherry x' accepts no arguments"),
        ((0, 1), ["a", "b"], "'wherry x' requires at most 1 argument"),
    ],
)
def test_too_few_and_too_many_words(count: tuple[int, int], words: list[str], text: str) -> None:
    with pytest.raises(UsageError) as raised:
        check_count(Command("x", "", "", "", (), count), words)
    assert str(raised.value) == text
    assert raised.value.status == 1
