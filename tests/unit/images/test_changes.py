"""The instructions of docker import --change, with the results and texts that dockerd 28.5 gave."""

from __future__ import annotations

from typing import Any

import pytest

from wherry.errors import InvalidArgument
from wherry.images import changes, words


def applied(*lines: str) -> dict[str, Any]:
    config: dict[str, Any] = {}
    changes.apply(config, list(lines))
    return config


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ('CMD ["true"]', {"Cmd": ["true"]}),
        ("CMD echo hi", {"Cmd": ["/bin/sh", "-c", "echo hi"]}),
        ("CMD", {"Cmd": ["/bin/sh", "-c"]}),
        ("ENTRYPOINT", {"Entrypoint": None, "Cmd": None}),
        ("CMD []", {"Cmd": []}),
        ("HEALTHCHECK --interval=0 CMD x", {"Healthcheck": {"Test": ["CMD-SHELL", "x"], "Interval": 0}}),
        ("cmd [not json", {"Cmd": ["/bin/sh", "-c", "[not json"]}),
        ('ENTRYPOINT ["sh", "-c"]', {"Entrypoint": ["sh", "-c"], "Cmd": None}),
        ('ENV A=b C="d e"', {"Env": ["A=b", "C=d e"]}),
        ("ENV x y z", {"Env": ["x=y z"]}),
        ("ENV A=1 B=$A", {"Env": ["A=1", "B="]}),
        ('LABEL a=b "c d"=e', {"Labels": {"a": "b", "c d": "e"}}),
        ("EXPOSE 80 90/udp", {"ExposedPorts": {"80/tcp": {}, "90/udp": {}}}),
        ("EXPOSE 8000-8002", {"ExposedPorts": {"8000/tcp": {}, "8001/tcp": {}, "8002/tcp": {}}}),
        ("USER 1:2", {"User": "1:2"}),
        ("VOLUME /data /x", {"Volumes": {"/data": {}, "/x": {}}}),
        ('VOLUME ["/a b"]', {"Volumes": {"/a b": {}}}),
        ("WORKDIR /w/../x", {"WorkingDir": "/x"}),
        ("STOPSIGNAL SIGINT", {"StopSignal": "SIGINT"}),
        ("STOPSIGNAL 9", {"StopSignal": "9"}),
        ("STOPSIGNAL RTMIN+3", {"StopSignal": "RTMIN+3"}),
        ("HEALTHCHECK NONE", {"Healthcheck": {"Test": ["NONE"]}}),
        (
            "HEALTHCHECK --interval=5s --timeout=1m30s --retries=3 CMD x",
            {"Healthcheck": {"Test": ["CMD-SHELL", "x"], "Interval": 5 * 10**9, "Timeout": 90 * 10**9, "Retries": 3}},
        ),
        ('HEALTHCHECK CMD ["a", "b"]', {"Healthcheck": {"Test": ["CMD", "a", "b"]}}),
        ("ONBUILD RUN x", {"OnBuild": ["RUN x"]}),
    ],
)
def test_one_instruction(line: str, wanted: dict[str, Any]) -> None:
    assert applied(line) == wanted


def test_an_entry_point_ends_the_command_of_the_one_before() -> None:
    """As dockerd 28.5: docker commit -c 'ENTRYPOINT ["b"]' of a container with a command."""
    for lines, command in (
        (["ENTRYPOINT x"], None), (['CMD ["a"]', "ENTRYPOINT x"], ["a"]), (["ENTRYPOINT x", 'CMD ["a"]'], ["a"]),
    ):  # fmt: skip
        config: dict[str, Any] = {"Cmd": ["old"]}
        changes.apply(config, lines)
        assert config["Cmd"] == command


def test_instructions_build_on_each_other() -> None:
    config = applied("ENV A=1", "ENV B=${A}2 A=3", "WORKDIR rel", "WORKDIR sub", "LABEL v=$B", "# no", "USER \\\n me")
    assert config == {"Env": ["A=3", "B=12"], "WorkingDir": "/rel/sub", "Labels": {"v": "12"}, "User": "me"}


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("FOO bar", "FOO is not a valid change command"),
        ("RUN bar", "RUN is not a valid change command"),
        ('SHELL ["a"]', "SHELL is not a valid change command"),
        ("EXPOSE x", "Invalid containerPort: x"),
        ("EXPOSE 99999", "Invalid containerPort: 99999"),
        ("ENV x", "ENV must have two arguments"),
        ("LABEL x", "LABEL must have two arguments"),
        ("STOPSIGNAL BOGUS", "invalid signal: BOGUS"),
        ("USER", "USER requires exactly one argument"),
        ("HEALTHCHECK --bogus=1 CMD x", "unknown flag: --bogus"),
        ("ONBUILD ONBUILD RUN x", "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed"),
        ("ONBUILD FROM x", "FROM isn't allowed as an ONBUILD trigger"),
        ("EXPOSE 80/foo", "Invalid proto: foo"),
        ("HEALTHCHECK foo x", 'Unknown type "FOO" in HEALTHCHECK (try CMD)'),
        ("HEALTHCHECK --interval=0.1ms CMD x", 'Interval "interval" cannot be less than 1ms'),
        ("HEALTHCHECK --timeout=-1s CMD x", 'Interval "timeout" cannot be less than 1ms'),
        ("HEALTHCHECK --retries=-1 CMD x", "--retries cannot be negative (-1)"),
        ("HEALTHCHECK --retries=x CMD a", 'strconv.ParseInt: parsing "x": invalid syntax'),
        ('CMD ["a", 1]', "when using JSON array syntax, arrays must be comprised of strings only"),
        ('ENTRYPOINT ["a", null]', "when using JSON array syntax, arrays must be comprised of strings only"),
        ("# only a comment", "file with no instructions"),
        ("  ", "file with no instructions"),
    ],
)
def test_the_texts_of_dockerd(line: str, text: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        applied(line)
    assert caught.value.message == text


@pytest.mark.parametrize(
    "line",
    ["ENV =x", "ENV A=b c", 'ENV A="x', "ENV A='x", "ENV A=${x", "ENV A=${x:?}", "VOLUME []", "HEALTHCHECK", "ONBUILD",
     "HEALTHCHECK CMD", "HEALTHCHECK NONE x", "HEALTHCHECK --interval=1 CMD x", "HEALTHCHECK --retries=x CMD x",
     "WORKDIR", "EXPOSE", "ENV", "LABEL", "EXPOSE 0", "EXPOSE 9-8"],
)  # fmt: skip
def test_what_is_wrong(line: str) -> None:
    with pytest.raises(InvalidArgument):
        applied(line)


@pytest.mark.parametrize(
    ("word", "wanted"),
    [
        ("plain", "plain"), ("'a $x'", "a $x"), ('"a $x"', "a 1"), (r"\$x", "$x"), (r'"\"q\\"', '"q\\'),
        ("${x}y", "1y"), ("${no:-d}", "d"), ("${x:-d}", "1"), ("${x:+d}", "d"), ("${no:+d}", ""), ("$", "$"),
        ("a'b'\"c\"", "abc"), ("${no:-${x}}", "1"), ("$x$x", "11"), ("\\", ""),
    ],
)  # fmt: skip
def test_words_are_expanded(word: str, wanted: str) -> None:
    assert words.expand(word, {"x": "1"}) == wanted


def test_lines_are_joined() -> None:
    assert words.logical_lines("A b \\\n# comment\n\n c\n\n# x\n  D e") == ["A b  c", "D e"]
