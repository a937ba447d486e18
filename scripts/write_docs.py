"""Writes the generated parts of docs/ (the table of settings); a test holds the docs against it."""

from __future__ import annotations

from pathlib import Path

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


def main() -> None:
    """Rewrite what is generated."""
    path = ROOT / "docs" / "operations.md"
    path.write_text(filled(path.read_text(), "settings", settings_table()))


if __name__ == "__main__":
    main()
