"""Writes the generated parts of docs/ (settings, keys of rules and services); a test holds the docs against it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import rules_reference
import services_reference

from pacsnode.settings import Settings

ROOT = Path(__file__).resolve().parents[1]


def settings_table() -> str:
    """Every setting, its default and its meaning, as Markdown."""
    lines = ["| variable | default | meaning |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
        default = f"`{field.default}`" if field.default not in ("", None) else ""
        lines.append(f"| `PACSNODE_{name.upper()}` | {default} | {field.description} |")
    return "\n".join(lines)


def filled(text: str, part: str, content: str) -> str:
    """`text` with `content` between the markers of `part`."""
    begin, end = f"<!-- {part}:begin -->", f"<!-- {part}:end -->"
    head, rest = text.split(begin)
    return f"{head}{begin}\n{content}\n{end}{rest.split(end)[1]}"


PAGES: dict[str, dict[str, Callable[[], str]]] = {
    "operations.md": {"settings": settings_table},
    "rules.md": rules_reference.PARTS,
    "services.md": services_reference.PARTS,
}
"""What is generated, by page and by the name of its markers."""


def main() -> None:
    """Rewrite what is generated."""
    for page, parts in PAGES.items():
        path = ROOT / "docs" / page
        text = path.read_text(encoding="utf-8")
        for part, made in parts.items():
            text = filled(text, part, made())
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
