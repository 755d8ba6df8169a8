"""Platforms: their forms, and which image a machine takes."""

from __future__ import annotations

import pytest

from wherry.errors import InvalidArgument, NotFound
from wherry.models.manifest import Descriptor, Platform, host_architecture
from wherry.models.platforms import choose, fits, from_json, from_words, plain, suitable, words


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", Platform(host_architecture(), "linux")),
        ("linux", Platform(host_architecture(), "linux")),
        ("arm64", Platform("arm64", "linux")),
        ("Linux/AMD64", Platform("amd64", "linux")),
        ("linux/arm/v7", Platform("arm", "linux", "v7")),
        ("windows/amd64", Platform("amd64", "windows")),
    ],
)
def test_words(text: str, wanted: Platform) -> None:
    assert from_words(text) == wanted


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("bogus", '"bogus": unknown operating system or architecture: invalid argument'),
        ("a/b/c/d", '"a/b/c/d": cannot parse platform specifier: invalid argument'),
        ("linux/", '"linux/": cannot parse platform specifier: invalid argument'),
        ("linux/a b", '"linux/a b": cannot parse platform specifier: invalid argument'),
    ],
)
def test_words_that_are_none(text: str, reason: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        from_words(text)
    assert caught.value.message == reason


def test_json() -> None:
    assert from_json("") is None
    assert from_json("{}") is None
    assert from_json('{"os":"linux","architecture":"arm","variant":"v6"}') == Platform("arm", "linux", "v6")
    for text in ('{"os":"linux"}', '{"architecture":"arm"}'):
        with pytest.raises(InvalidArgument, match="both OS and Architecture must be provided"):
            from_json(text)
    for text in ("foo", "[]", '{"os":1,"architecture":"a"}', "[" * 100_000):
        with pytest.raises(InvalidArgument, match="failed to parse platform: "):
            from_json(text)


@pytest.mark.parametrize(
    ("wanted", "image", "result"),
    [
        ("linux/amd64", "linux/amd64", True),
        ("linux/x86_64", "linux/amd64", True),
        ("linux/arm64", "linux/arm64/v8", True),
        ("linux/arm64", "linux/amd64", False),
        ("linux/arm/v6", "linux/arm/v7", False),
        ("linux/arm/v6", "linux/arm", True),
        ("windows/amd64", "linux/amd64", False),
    ],
)
def test_what_fits(wanted: str, image: str, result: bool) -> None:
    assert fits(from_words(wanted), from_words(image)) is result


def test_an_image_that_says_nothing_fits() -> None:
    assert fits(Platform("amd64", "linux"), Platform())
    assert not fits(Platform("amd64", "windows"), Platform())


def entry(text: str, **annotations: str) -> Descriptor:
    return Descriptor(f"sha256:{text}", 1, annotations=annotations or None, platform=from_words(text) if text else None)


@pytest.mark.parametrize(
    ("machine", "entries", "taken"),
    [
        ("linux/amd64", ["linux/arm64", "linux/amd64"], 1),
        ("linux/amd64/v3", ["linux/386", "linux/amd64", "linux/amd64/v2"], 2),
        ("linux/arm/v6", ["linux/arm/v7", "linux/arm/v5"], 1),
        ("linux/arm64", ["linux/arm/v7", "linux/arm/v8"], 1),
        ("linux/s390x", ["linux/amd64", "linux/s390x"], 1),
        ("linux/amd64", [""], 0),
    ],
)
def test_choice(machine: str, entries: list[str], taken: int) -> None:
    given = [entry(each) for each in entries]
    assert choose(given, from_words(machine)) is given[taken]


def test_attestations_are_no_images() -> None:
    kind = {"vnd.docker.reference.type": "attestation-manifest"}
    for given in ([entry("linux/amd64", **kind)], [entry("unknown/unknown")], [], [entry(""), entry("")]):
        with pytest.raises(NotFound, match="no matching manifest for linux/amd64 in the manifest list entries"):
            choose(given, Platform("amd64", "linux"))


def test_a_variant_that_cannot_be_costs_nothing() -> None:
    assert len(suitable(Platform("amd64", "linux", "v" + "9" * 5000))) == 3
    assert len(suitable(Platform("arm64", "linux", "v9999999999"))) < 10


def test_how_it_is_spelled() -> None:
    assert plain(Platform("arm64", "linux")) == "linux/arm64"
    assert words(Platform("aarch64", "linux")) == "linux/arm64/v8"
    assert words(Platform("x86-64", "linux", "v1")) == "linux/amd64"
