"""What is shown, as text of a terminal and as a page of a browser. What objects hold never becomes control or markup.

In: a tree of names and values from objects that anyone may have made. Out: lines without control characters, or one
HTML page that loads nothing: no script, no link, no network.
"""

from __future__ import annotations

import html
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

INDENT = "  "
DEEPEST = 24
LONGEST_VALUE = 4000
_ESCAPED = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
"""Controls (ESC, CR, LF), marks that turn the direction of writing, what is no letter: shown as `\\x1b`."""

_STYLE = """
body { font: 16px/1.45 system-ui, sans-serif; margin: 0 auto; max-width: 60rem; padding: 1rem; color: #1a1a1a }
h1 { font-size: 1.5rem; margin: 0 0 .5rem } ul { list-style: none; margin: 0; padding-left: 1.2rem }
body > ul { padding-left: 0 } li { margin: .15rem 0; overflow-wrap: anywhere }
.value { white-space: pre-wrap }
body > ul > li { border-top: 1px solid #ccc; padding: .4rem 0 } .name { color: #555 } .group { font-weight: 600 }
.warning { background: #ffbf00; color: #000; padding: .4rem .8rem; font-weight: 600 }
img { max-width: 100%; height: auto; margin: .6rem 0; display: block; background: #000 }
@media print { body { max-width: none } img { break-inside: avoid } }
"""
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


@dataclass(frozen=True)
class Node:
    """A name and what it says; `children` belong to it. Either text may come from an object: it is not cleaned yet."""

    name: str
    value: str = ""
    children: tuple[Node, ...] = ()


def clean(text: str) -> str:
    """`text` on one line in which nothing acts on a terminal; what would is spelt."""
    return "".join(c if unicodedata.category(c) not in _ESCAPED else _spelt(c) for c in text)


def text_lines(node: Node, depth: int = 0) -> Iterator[str]:
    """The tree, two spaces a level; a value of several lines goes on below its name."""
    label = INDENT * depth + clean(node.name)
    first, *more = _split(node.value)
    if node.value:
        label = f"{label}: {first}" if node.name else f"{INDENT * depth}{first}"
    yield label
    for line in more:
        yield f"{INDENT * (depth + 1)}{line}"
    if depth < DEEPEST:
        for child in node.children:
            yield from text_lines(child, depth + 1)
    elif node.children:
        yield f"{INDENT * (depth + 1)}…"


def html_page(node: Node, warning: str, pictures: Sequence[str]) -> str:
    """A page by itself. `pictures`: data URLs of PNG that we made."""
    title = html.escape(clean(node.name))
    drawn = "\n".join(f'<img alt="" src="{html.escape(url)}">' for url in pictures)
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        f'<meta name="referrer" content="no-referrer">\n<title>{title}</title>\n<style>{_STYLE}</style></head><body>\n'
        f'<p class="warning">{html.escape(clean(warning))}</p>\n<h1>{title}</h1>\n{drawn}\n'
        f"<ul>\n{''.join(map(_item, node.children))}</ul>\n</body></html>\n"
    )


def _item(node: Node, depth: int = 0) -> str:
    lines = html.escape("\n".join(_split(node.value)))
    value = f'<span class="value">{lines}</span>' if node.value else ""
    name = html.escape(clean(node.name))
    if value and name:
        told = f'<span class="name">{name}:</span> {value}'
    else:
        told = value or f'<span class="group">{name}</span>'
    below = ""
    if node.children:
        inside = "".join(_item(child, depth + 1) for child in node.children) if depth < DEEPEST else "<li>…</li>"
        below = f"<ul>{inside}</ul>"
    return f"<li>{told}{below}</li>\n"


def _split(value: str) -> list[str]:
    """Cleaned lines: SR text has paragraphs, with CR, LF or both."""
    cut = value if len(value) <= LONGEST_VALUE else value[:LONGEST_VALUE] + "…"
    return [clean(line) for line in cut.replace("\r\n", "\n").replace("\r", "\n").split("\n")] or [""]


def _spelt(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
