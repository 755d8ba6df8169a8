"""What pages are made of: headings, tables, wrapped text, bars; and how a stranger's text is made harmless."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_STYLES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "cyan": "36"}
LEFT = 2
BLOCKS = " ▏▎▍▌▋▊▉█"
_STOPS = " \t"


def plain(text: object, limit: int = 400) -> str:
    """Text that a container decided, fit for a terminal: what is not printable becomes an escape, the rest is cut.

    Not printable are control characters of both kinds, those that turn the direction of writing, and stray bytes.
    """
    shown = []
    for character in str(text)[: limit + 1]:
        number = ord(character)
        if character.isprintable():
            shown.append(character)
        elif 0xDC80 <= number <= 0xDCFF:  # a byte that is not UTF-8
            shown.append(f"\\x{number - 0xDC00:02x}")
        else:
            shown.append(f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}")
    result = "".join(shown)
    return result if len(result) <= limit else result[: limit - 1] + "…"


def size(number: float) -> str:
    """Bytes in powers of 1024: 64 MiB."""
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if number < 1024 or unit == "TiB":
            break
        number /= 1024
    return f"{number:.3g} {unit}" if number < 1000 else f"{number:.0f} {unit}"


def count(number: int, one: str, many: str = "") -> str:
    """2 processes, 1 process."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def shorten(text: str, width: int) -> str:
    """A path or id that fits: the middle goes, since the ends say which it is."""
    if len(text) <= width:
        return text
    keep = max(1, width - 1)
    return text[: keep // 2] + "…" + text[len(text) - (keep - keep // 2) :]


def cut(text: str, width: int) -> str:
    """The beginning of a text, with a mark when that is not all."""
    return text if len(text) <= width else text[: max(0, width - 1)] + "…"


def wrap(words: Iterable[str], width: int) -> list[str]:
    """Words as lines of at most `width` columns; a longer word is broken."""
    lines, line = [], ""
    for word in words:
        while len(word) > width:
            if line:
                lines.append(line)
                line = ""
            lines.append(word[:width])
            word = word[width:]
        if line and len(line) + 1 + len(word) > width:
            lines.append(line)
            line = word
        elif word:
            line = f"{line} {word}" if line else word
    return [*lines, line] if line else lines


def bar(share: float, width: int) -> str:
    """A bar of `width` columns, filled in eighths of one; what is not nothing is seen."""
    eighths = max(1 if share > 0 else 0, round(min(share, 1.0) * width * 8))
    whole, rest = divmod(eighths, 8)
    return ("█" * whole + (BLOCKS[rest] if rest else "")).ljust(width)


class Page:
    """One section. Lines are collected; colours are added only when wanted, and never change what is written."""

    def __init__(self, width: int, *, colour: bool = False) -> None:
        self.width = width
        self._colour = colour
        self._lines: list[str] = []

    def text(self) -> str:
        """The page without spaces at the ends of lines and without empty lines at its end."""
        return "\n".join(line.rstrip() for line in self._lines).rstrip("\n")

    def paint(self, text: str, *styles: str) -> str:
        """Text in these styles; the spaces around it stay as they are."""
        if not self._colour or not text.strip():
            return text
        codes = ";".join(_STYLES[style] for style in styles)
        return f"\x1b[{codes}m{text}\x1b[0m"

    def heading(self, title: str, what: str, right: str = "") -> None:
        """The name of the section, what it is about in plain words, and a rule below."""
        room = self.width - len(title) - 2 - len(right) - 2
        middle = cut(what, max(0, room))
        space = self.width - len(title) - 2 - len(middle) - len(right)
        line = f"{self.paint(title, 'bold', 'cyan')}  {middle}{' ' * max(1, space)}{self.paint(right, 'dim')}"
        self._lines += [line, self.paint("─" * self.width, "dim"), ""]

    def part(self, title: str) -> None:
        """A heading within the page, with an empty line above unless it is the first."""
        if self._lines and self._lines[-1]:
            self._lines.append("")
        self._lines.append(" " * LEFT + self.paint(cut(title, self.width - LEFT), "bold"))

    def gap(self) -> None:
        """An empty line."""
        if self._lines and self._lines[-1]:
            self._lines.append("")

    def line(self, text: str = "", indent: int = LEFT) -> None:
        """One line as it is; the caller has seen to its width."""
        self._lines.append(" " * indent + text)

    def prose(self, text: str, indent: int = LEFT, *styles: str) -> None:
        """Sentences, wrapped."""
        for each in wrap(text.split(), self.width - indent):
            self._lines.append(" " * indent + (self.paint(each, *styles) if styles else each))

    def field(self, name: str, text: str, *, column: int = 18, style: str = "") -> None:
        """A name, and what is to be said of it, wrapped beside it."""
        lines = wrap(text.split(), self.width - LEFT - column) or [""]
        for number, each in enumerate(lines):
            label = name.ljust(column) if number == 0 else " " * column
            self._lines.append(" " * LEFT + self.paint(label, "dim") + (self.paint(each, style) if style else each))

    def table(self, titles: Sequence[str], rows: Sequence[Sequence[str]], *, flexible: int = -1) -> None:
        """Rows in columns that are as wide as they must be; `flexible`, by default the last, gives way."""
        flexible %= len(titles)
        widths = [max(len(title), *(len(row[at]) for row in rows), 0) for at, title in enumerate(titles)]
        rest = self.width - LEFT - sum(widths) + widths[flexible] - 2 * (len(titles) - 1)
        widths[flexible] = max(8, min(widths[flexible], rest))
        if any(titles):
            line = "  ".join(title.ljust(width) for title, width in zip(titles, widths, strict=True)).rstrip()
            self._lines.append(" " * LEFT + self.paint(cut(line, self.width - LEFT), "dim"))
        for row in rows:
            cells = [cut(cell, width).ljust(width) for cell, width in zip(row, widths, strict=True)]
            self._lines.append(" " * LEFT + cut("  ".join(cells).rstrip(), self.width - LEFT))
