"""Regular expressions in Go's syntax. What dockerd 28.5 answers was asked of it; these are its texts."""

import pytest

from wherry.errors import InvalidArgument
from wherry.logs.patterns import compile_pattern


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
