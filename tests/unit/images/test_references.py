"""Names of images: what Docker accepts, spells out and shows."""

from __future__ import annotations

import pytest

from wherry.errors import InvalidArgument
from wherry.images import references

DIGEST = "sha256:" + "0a" * 32


@pytest.mark.parametrize(
    ("text", "stored", "familiar"),
    [
        ("busybox", "docker.io/library/busybox:latest", "busybox:latest"),
        ("busybox:1.36", "docker.io/library/busybox:1.36", "busybox:1.36"),
        ("library/busybox", "docker.io/library/busybox:latest", "busybox:latest"),
        ("docker.io/busybox", "docker.io/library/busybox:latest", "busybox:latest"),
        ("index.docker.io/a/b", "docker.io/a/b:latest", "a/b:latest"),
        ("a/b:t", "docker.io/a/b:t", "a/b:t"),
        ("localhost/x", "localhost/x:latest", "localhost/x:latest"),
        ("localhost:5000/x/y:1", "localhost:5000/x/y:1", "localhost:5000/x/y:1"),
        ("[::1]:5000/x", "[::1]:5000/x:latest", "[::1]:5000/x:latest"),
        ("ghcr.io/a_b/c--d/e__f", "ghcr.io/a_b/c--d/e__f:latest", "ghcr.io/a_b/c--d/e__f:latest"),
        ("UP/x", "UP/x:latest", "UP/x:latest"),
        (f"a@{DIGEST}", f"docker.io/library/a@{DIGEST}", f"a@{DIGEST}"),
        (f"a:t@{DIGEST}", f"docker.io/library/a@{DIGEST}", f"a:t@{DIGEST}"),
    ],
)
def test_names_are_spelled_out(text: str, stored: str, familiar: str) -> None:
    reference = references.parse(text)
    assert (reference.stored, reference.familiar) == (stored, familiar)
    again = references.from_stored(stored)
    assert again.stored == stored


@pytest.mark.parametrize(
    "text",
    ["", "a:b:c", "a//b", "/a", "a/", "-a", "a-", "a..b", "a:", "a: b", "a@", "a@sha256:00", "a@md5:" + "0" * 32, "ä",
     "a\n", "a b", "../x", "x/../y", ".", "a:" + "t" * 129, f"a@{DIGEST.upper()}", "a" * 2000, "exa mple.com/x", "a\0"],
)  # fmt: skip
def test_what_is_no_name(text: str) -> None:
    with pytest.raises(InvalidArgument, match=r"^invalid reference format"):
        references.parse(text)


def test_the_texts_of_dockerd() -> None:
    with pytest.raises(InvalidArgument) as caught:
        references.parse("UPPER")
    assert caught.value.message == "invalid reference format: repository name (library/UPPER) must be lowercase"
    with pytest.raises(InvalidArgument, match="cannot specify 64-byte hexadecimal strings"):
        references.parse("a" * 64)
    with pytest.raises(InvalidArgument, match=r"^invalid tag format$"):
        references.parse_target("a/b", "-z")
    with pytest.raises(InvalidArgument, match=r"^cannot import digest reference$"):
        references.parse_target(f"a/b@{DIGEST}", "")
    with pytest.raises(InvalidArgument, match="refusing to create an ambiguous tag"):
        references.parse_target("sha256", "x")


def test_targets() -> None:
    target = references.parse_target("a/b:q", "z")
    assert target is not None
    assert target.familiar == "a/b:z"
    assert references.parse_target("", "x") is None


@pytest.mark.parametrize("text", ["sha256:../../x", "md5:" + "0" * 64, "SHA256:" + "0" * 64, "sha256:" + "0" * 63, "x"])
def test_a_digest_is_checked_before_it_is_a_path(text: str) -> None:
    with pytest.raises(InvalidArgument):
        references.hex_of(text)
