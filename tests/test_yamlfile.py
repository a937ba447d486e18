"""What people of the site write wrong, and what they are told."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field

from pacsnode import yamlfile
from pacsnode.errors import ConfigError
from pacsnode.yamlfile import Items, Problem, Record


class Box(Record):
    size: Annotated[int, Field(ge=1)]
    colour: Literal["red", "green"] = "red"
    labels: Items[str] = ()


class File(Record):
    version: Literal[1]
    boxes: dict[str, Box]
    rows: Items[Box] = ()


GOOD = """\
version: 1
boxes:
  a: {size: 1, labels: [x, "0800"]}
rows:
  - size: 2
    colour: green
"""


def written(folder: Path, content: str | bytes) -> Path:
    path = folder / "file.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def mistakes(folder: Path, content: str | bytes) -> list[str]:
    """Each line of the error, without the folder."""
    path = written(folder, content)
    with pytest.raises(ConfigError) as caught:
        yamlfile.validate(yamlfile.load(path), File)
    assert str(caught.value).startswith(caught.value.where)
    assert caught.value.__cause__ is None
    assert "Traceback" not in str(caught.value)
    lines = str(caught.value).split("\n")
    assert all(re.match(r".+/file\.yaml:\d+:\d+ \S+: .+ \[[a-z-]+\]$", line) for line in lines), lines
    return [line.replace(f"{folder}/", "") for line in lines]


def test_a_good_file_becomes_a_model_with_tuples(tmp_path: Path) -> None:
    document = yamlfile.load(written(tmp_path, GOOD))
    content = yamlfile.validate(document, File)
    assert content.boxes["a"].labels == ("x", "0800")
    assert content.rows[0].colour == "green"


def test_positions_are_of_keys_and_values(tmp_path: Path) -> None:
    document = yamlfile.load(written(tmp_path, GOOD))
    assert document.position(("rows", 0, "colour")).endswith("file.yaml:6:13")
    assert document.position(("rows", 0, "colour"), "key").endswith("file.yaml:6:5")
    assert document.position(("boxes", "a", "labels", 1)).endswith("file.yaml:3:28")
    assert document.position(("rows", 0, "absent")).endswith("file.yaml:5:5")


def test_a_byte_order_mark_and_windows_line_ends_are_no_mistake(tmp_path: Path) -> None:
    content = b"\xef\xbb\xbf" + GOOD.replace("\n", "\r\n").encode()
    assert yamlfile.validate(yamlfile.load(written(tmp_path, content)), File).version == 1


def test_all_mistakes_are_told_at_once_in_the_order_of_the_file(tmp_path: Path) -> None:
    content = 'version: 2\nboxs: {}\nboxes:\n  a: {size: "1", color: red}\n  b: {size: 0, colour: gren}\nrows: {}\n'
    assert mistakes(tmp_path, content) == [
        "file.yaml:1:10 version: the number 2 is not known; expected: 1 [unknown-value]",
        "file.yaml:2:1 boxs: there is no such key; did you mean boxes? expected: version, boxes, rows [unknown-key]",
        "file.yaml:4:13 boxes.a.size: expected a whole number, found the text '1' [wrong-type]",
        "file.yaml:4:18 boxes.a.color: there is no such key; did you mean colour? expected: size, colour, labels "
        "[unknown-key]",
        "file.yaml:5:13 boxes.b.size: expected a number of at least 1, found the number 0 [wrong-value]",
        "file.yaml:5:24 boxes.b.colour: the text 'gren' is not known; expected: 'red' or 'green'; did you mean green? "
        "[unknown-value]",
        "file.yaml:6:7 rows: expected a list, found a map [wrong-type]",
    ]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("", "1:1 file: the file is empty"),
        ("# only a comment\n", "1:1 file: the file is empty"),
        ("- a\n- b\n", "1:1 file: the file is not a map"),
        ("version: 1\nboxes: {a: {size: 1}\n", "3:1 file: not YAML: while parsing a flow mapping"),
        ("version: 1\nboxes: a: b\n", "2:9 file: not YAML: mapping values are not allowed here"),
        ("version: 1\nboxes:\n\ta: 1\n", "3:1 file: a tab at the start of a line; indent with spaces"),
        ("version: 1\nversion: 1\nboxes: {}\n", "2:1 version: this key is here twice, first on line 1"),
        ("version: 1\nboxes: {a: {size: 1, size: 2}}\n", "2:22 boxes.a.size: this key is here twice"),
        ("version: 1\nboxes: *there\n", "2:8 file: not YAML: found undefined alias 'there'"),
        ("version: 1\nboxes: {a: &a [*a]}\n", "nested too deeply"),
        ("version: 1\nboxes: {<<: {a: {size: 1}}}\n", "2:9 boxes.<<: a key is a word"),
        ("version: 1\nboxes: {1: {size: 1}}\n", "2:9 boxes.1: a key is a word; put it in quotes"),
        ("version: 1\nboxes: {? [a] : 1}\n", "boxes.?: a key is a word"),
        ("version: 1\nboxes: {a: {size: 0x1F}}\n", "2:19 boxes.a.size: 0x1F is no plain number; put it in quotes"),
        ("version: 1\nboxes: {a: {size: 007}}\n", "2:19 boxes.a.size: 007 is no plain number; put it in quotes"),
        ("version: 1\nboxes: {a: {size: .inf}}\n", "2:19 boxes.a.size: .inf is no plain number"),
        (
            "version: 1\nboxes: {a: {size: 1, labels: [10]}}\n",
            "2:31 boxes.a.labels.0: expected text, found the number 10",
        ),
        ("version: 1\nboxes: {a: {size: true}}\n", "2:19 boxes.a.size: expected a whole number, found true"),
        ("version: 1\nboxes: {a: {size: }}\n", "boxes.a.size: expected a whole number, found nothing"),
        ("version: 1\nboxes: {a: {}}\n", "2:9 boxes.a.size: this key is missing"),
        ("version: 1\nboxes: !!python/object/apply:os.system [ls]\n", "2:8 boxes: the tag tag:yaml.org,2002:python"),
        ("version: 1\nboxes: !box {}\n", "2:8 boxes: the tag !box is not allowed"),
        ("version: !box 1\nboxes: {}\n", "1:10 version: the tag !box is not allowed"),
        ("%YAML 1.1\n---\nversion: 1\nboxes: {}\n", "1:1 file: a % line changes how YAML is read"),
        ("version: 1\nboxes: {}\n---\nversion: 1\n", "3:1 file: not YAML: expected a single document"),
        ("version: 1\nboxes: \x07\n", "2:8 file: a control character U+0007"),
        ("version: 1\nboxes: {a: 'b}\n", "file: not YAML: while scanning a quoted scalar"),
        ("version: 1\nboxes: " + "[" * 5000, "nested too deeply"),
        ("version: 1\nboxes: " + "[" * 60 + "]" * 60, "nested too deeply"),
        (
            "version: 1\n# 흉부\nboxes: {흉부: 1}\n".encode("euc-kr"),
            "2:3 file: saved as EUC-KR (CP949); save the file as UTF-8",
        ),
        (b"version: 1\nboxes: \xff\xff\n", "2:8 file: not UTF-8; save the file as UTF-8"),
        ("version: 1\n".encode("utf-16"), "1:1 file: saved as UTF-16"),
        (b"#" * 256_001, "1:1 file: larger than 256000 bytes"),
    ],
)
def test_a_broken_file_is_told_with_its_place_and_what_to_do(tmp_path: Path, content: str | bytes, told: str) -> None:
    assert any(told in line for line in mistakes(tmp_path, content)), mistakes(tmp_path, content)


def test_nine_lines_that_stand_for_a_billion_values_are_refused(tmp_path: Path) -> None:
    bomb = ["version: 1", "boxes:", "  a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    bomb += [f"  a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    assert any("more values than a person writes" in line for line in mistakes(tmp_path, "\n".join(bomb)))


def test_an_alias_is_written_out(tmp_path: Path) -> None:
    document = yamlfile.load(written(tmp_path, "version: 1\nboxes: {a: &a {size: 1}, b: *a}\n"))
    assert yamlfile.validate(document, File).boxes["b"] == Box(size=1)


def test_words_that_old_yaml_takes_for_true_or_a_date_stay_text(tmp_path: Path) -> None:
    document = yamlfile.load(written(tmp_path, "a: [NO, yes, on, 2026-03-31, 1.2.840.10008]\n"))
    assert document.data == {"a": ["NO", "yes", "on", "2026-03-31", "1.2.840.10008"]}


def test_a_missing_file_is_a_mistake_of_the_configuration(tmp_path: Path) -> None:
    for path in (tmp_path / "absent.yaml", tmp_path):
        with pytest.raises(ConfigError, match="cannot be read"):
            yamlfile.load(path)


def test_the_first_fifty_of_very_many_mistakes_are_told(tmp_path: Path) -> None:
    document = yamlfile.load(written(tmp_path, GOOD))
    error = document.error(Problem(("boxes", f"b{n}"), "is wrong", "wrong") for n in range(60))
    assert str(error).endswith("... and 10 more")


@settings(max_examples=150, deadline=None)
@given(st.one_of(st.binary(max_size=200), st.text(max_size=200).map(str.encode)))
def test_no_bytes_give_anything_but_a_document_or_a_config_error(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    path = written(tmp_path_factory.getbasetemp(), content)
    try:
        yamlfile.validate(yamlfile.load(path), File)
    except ConfigError as error:
        assert error.where.startswith(str(path))
