"""HTML in which everything is text that is escaped, but what was made here."""

from __future__ import annotations

import html
import json
from collections.abc import Iterable, Sequence
from typing import Any

from edgenas.text import printable_lines

VOID = {"meta", "link", "br", "col"}


class Markup(str):
    """HTML that was made here; any other text is escaped where it is put into HTML."""

    __slots__ = ()


Content = Any  # Markup, or anything else: it is shown as `text` has it


def text(value: Content) -> str:
    """`value` as HTML: a Markup as it is, None as a dash, a number with five digits, a list of these one by one, any
    other text made printable and escaped."""
    if isinstance(value, Markup):
        return value
    if isinstance(value, list | tuple):
        return "".join(map(text, value))
    return html.escape(shown(value))


def shown(value: Any) -> str:
    """A number with five digits, the text of anything else."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1e5 else f"{value:.5g}"
    return printable_lines(str(value))


def element(tag: str, /, *content: Content, **attributes: Any) -> Markup:
    """`<tag ...>content</tag>`; an attribute that is None or False is left out, and of its name a `_` at the end,
    others become dashes."""
    given = "".join(
        f" {key.rstrip('_').replace('_', '-')}"
        + ("" if value is True else f'="{html.escape(printable_lines(str(value)))}"')
        for key, value in attributes.items()
        if value is not None and value is not False
    )
    return Markup(f"<{tag}{given}>" if tag in VOID else f"<{tag}{given}>{text(content)}</{tag}>")


def joined(parts: Iterable[Content]) -> Markup:
    """One after another."""
    return Markup("".join(map(text, parts)))


def json_block(data: Any, identity: str) -> Markup:
    """`data` for the page's program; nothing in it can end the block. Raises ValueError for NaN."""
    content = json.dumps(data, allow_nan=False, separators=(",", ":"))  # ASCII only, so no U+2028
    for character in "<>&":
        content = content.replace(character, f"\\u{ord(character):04x}")
    return Markup(f'<script type="application/json" id="{html.escape(identity)}">{content}</script>')


def table(header: Sequence[str], rows: Sequence[Sequence[Content]], caption: str) -> Markup:
    """A table that can be sorted, where it has more than one row. Columns of numbers are aligned right."""
    numeric = [bool(rows) and all(isinstance(row[i], int | float | None) for row in rows) for i in range(len(header))]
    heads = [
        element("th", name, scope="col", class_="n" if right else None)
        for name, right in zip(header, numeric, strict=True)
    ]
    lines = [
        element(
            "tr",
            *(element("td", cell, class_="n" if right else None) for cell, right in zip(row, numeric, strict=True)),
        )
        for row in rows
    ]
    made = element(
        "table",
        element("caption", caption),
        element("thead", element("tr", *heads)),
        element("tbody", *lines),
        class_="sortable" if len(rows) > 1 else None,
    )
    return element("div", made, class_="wide", tabindex="0", role="region", aria_label=caption)


def facts(rows: Iterable[tuple[str, Content]]) -> Markup:
    """Names and what they are, those without anything left out."""
    kept = [(name, value) for name, value in rows if value is not None and value != ""]
    return element("dl", *(element("div", element("dt", name), element("dd", value)) for name, value in kept))


def details(summary: str, *content: Content) -> Markup:
    """What is folded away until asked for."""
    return element("details", element("summary", summary), *content)


def command(words: str) -> Markup:
    """A command to be copied."""
    return element("pre", element("code", words), class_="command", tabindex="0", aria_label="commands")


def section(title: str, *content: Content, level: int = 3, identity: str | None = None) -> Markup:
    return element("section", element(f"h{level}", title), *content, id=identity)


def badge(word: str, tone: str) -> Markup:
    """A verdict in a word; `tone`: good, unsure, bad or neutral. A sign stands beside the colour."""
    signs = {
        "good": "\N{CHECK MARK}",
        "unsure": "\N{ALMOST EQUAL TO}",
        "bad": "\N{MULTIPLICATION X}",
        "neutral": "\N{BULLET}",
    }
    return element("span", element("span", signs[tone], aria_hidden="true"), " ", word, class_=f"badge {tone}")
