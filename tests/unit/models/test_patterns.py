"""Regular expressions in Go's syntax. What dockerd 28.5 answers was asked of it; these are its texts."""

import random
import re
import time

import pytest

from wherry.errors import InvalidArgument
from wherry.models.patterns import compile_pattern


@pytest.mark.parametrize(
    ("pattern", "found", "not_found"),
    [
        ("^(BA|b)", ["BAR", "bx"], ["XBA"]),
        (r"[[:upper:]]{5}", ["EMPTY"], ["FOO"]),
        (r"^[^[:digit:]_]+\z", ["abc"], ["a1", "a_"]),
        ("O$", ["FOO"], ["FOO\n"]),  # Python's $ would match before a newline too
        (r"\Qa.b\E+", ["a.b", "a.bb"], ["axb"]),
        ("(?P<x>F)(?<y>O)", ["FO"], ["F"]),
        ("(?i)foo", ["FOO"], ["bar"]),
        ("a(?i:B)", ["ab"], ["Ab"]),
        (r"\x{46}\x4f", ["FO"], ["46"]),
        (r"^\0+$", ["\0\0"], ["0"]),
        (r"^\B$", [""], ["a"]),  # Python finds no \B in nothing
        (r"[]a]", ["]"], ["b"]),
        (r"[[]", ["["], ["]"]),
        ("a{2,3}?", ["aa"], ["a"]),
        (r"\d\w\b", ["1a"], ["\u0661a"]),  # of ASCII alone
        ("", ["x"], []),
    ],
)
def test_what_is_found(pattern, found, not_found):
    compiled = compile_pattern(pattern)
    assert all(compiled.search(text) for text in found)
    assert not any(compiled.search(text) for text in not_found)


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ("(", "missing closing ): `(`"),
        ("a)", "unexpected ): `a)`"),
        ("x[a", "missing closing ]: `[a`"),
        ("(?=F)", "invalid or unsupported Perl syntax: `(?=`"),
        ("(?!F)", "invalid or unsupported Perl syntax: `(?!`"),
        ("(?>F)", "invalid or unsupported Perl syntax: `(?>`"),
        ("(?#c)F", "invalid or unsupported Perl syntax: `(?#`"),
        (r"(.)\1", r"invalid escape sequence: `\1`"),
        (r"O\Z", r"invalid escape sequence: `\Z`"),
        ("F*+", "invalid nested repetition operator: `*+`"),
        ("O{2000}", "invalid repeat count: `{2000}`"),
        ("*", "missing argument to repetition operator: `*`"),
        ("a|*", "missing argument to repetition operator: `*`"),
        ("a\\", "trailing backslash at end of expression: ``"),
        (r"\pL", r"classes of Unicode are not supported by this engine: `\p`"),
        ("(?U)F", "flags like these are not supported by this engine: `(?U)`"),
        ("a(?i)b", "flags like these are not supported by this engine: `(?i)`"),
    ],
)
def test_what_is_refused(pattern, text):
    with pytest.raises(InvalidArgument) as caught:
        compile_pattern(pattern)
    assert caught.value.message == f"error parsing regexp: {text}"


@pytest.mark.parametrize("pattern", ["(a+)+b", "^(a|a)*$", "(a?){60}(a){60}b", "((a{0,100}){0,10})*b", "(.*)(.*)(.*)x"])
def test_a_pattern_that_python_would_try_for_ever_is_searched_for_at_once(pattern):
    begun = time.monotonic()
    assert not compile_pattern(pattern).search("a" * 60 + "c")
    assert time.monotonic() - begun < 5


def test_a_pattern_that_would_take_all_memory_is_refused():
    with pytest.raises(InvalidArgument, match="expression too large"):
        compile_pattern("((a{0,1000}){0,1000}){0,1000}")


def test_random_patterns_find_what_python_finds():
    chosen = random.Random(5)
    tokens = ["a", "b", "c", "_", "-", ".", "[ab]", "[^a]", "^", "$", "(", "(?:", "|", ")", "*", "+", "?", "{2}"]
    tokens += ["{1,2}", "{0,}", "(?i:", r"\b", r"\B", r"\w", r"\d", "B"]
    compared = 0
    for _ in range(20_000):
        pattern = "".join(chosen.choice(tokens) for _ in range(chosen.randint(1, 9)))
        try:
            ours = compile_pattern(pattern)
        except InvalidArgument:
            continue
        theirs = re.compile(pattern.replace("(?)", "").replace("$", r"\Z"), re.ASCII)
        for _ in range(3):
            text = "".join(chosen.choice("abcAB_-.9 ") for _ in range(chosen.randint(1, 6)))
            assert ours.search(text) == bool(theirs.search(text)), (pattern, text)
            compared += 1
    assert compared > 5000
