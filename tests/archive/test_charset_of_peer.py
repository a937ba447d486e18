"""A device that declares no character set: what its entry in the rules file says is used everywhere, and kept."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from pacsnode.archive.attributes import read_attributes
from pacsnode.dicom.beginning import read_beginning
from pacsnode.dicom.names import parse_name
from pacsnode.encode.normalise import read_header
from pacsnode.errors import ConfigError
from pacsnode.peers import load
from pacsnode.settings import Settings
from tests.archive.homes import EXPLICIT, archive, data_set, home, on_disk, request, restart, rows, store
from tests.archive.test_recovery import lose_the_index

GREEK = "Παπαδοπουλος^Ιωαννης"
"""In ISO_IR 126; without a declaration its bytes might be anything."""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return home(tmp_path)


def undeclared(uid: str, declared: bytes = b"") -> bytes:
    """A data set whose name is Greek, and whose Specific Character Set is this."""
    marker = "N" * len(GREEK)
    whole = data_set(uid, PatientName=marker).replace(marker.encode(), GREEK.encode("iso8859_7"))
    head = b"\x08\x00\x05\x00CS"
    start = whole.index(head)
    element = whole[start : start + 8 + 10]
    assert element.endswith(b"ISO_IR 192")
    return whole.replace(element, head + len(declared).to_bytes(2, "little") + declared if declared else b"")


def names(settings: Settings) -> list[str]:
    found = rows(settings, "SELECT attributes FROM instances JOIN common ON id = common ORDER BY sop_instance_uid")
    return [json.loads(str(attributes))["PatientName"][0] for (attributes,) in found]


def test_text_of_a_peer_with_a_charset_is_read_by_it_in_index_recovery_rules_and_results(settings: Settings) -> None:
    node = archive(settings)
    for uid in ("1.9.1", "1.9.2", "1.9.3"):  # the later ones are read by the layout of the first
        store(node, undeclared(uid), replace(request(uid), charset="ISO_IR 126"))
    node.close()
    assert names(settings) == [GREEK] * 3
    lose_the_index(settings)
    restart(settings)
    assert names(settings) == [GREEK] * 3
    for path in on_disk(settings):
        assert read_attributes(path, [parse_name("0010,0010")]) == {"0010,0010": (GREEK,)}
        assert str(read_header(path).PatientName) == GREEK


def test_what_a_data_set_declares_counts_before_the_charset_of_its_peer(settings: Settings) -> None:
    node = archive(settings)
    declared = undeclared("1.9.1", b"ISO_IR 126")
    store(node, declared, replace(request("1.9.1"), charset="GB18030"))
    node.close()
    assert names(settings) == [GREEK]


def test_two_peers_with_other_charsets_and_the_same_bytes_are_read_apart() -> None:
    data = undeclared("1.9.1")
    read = [read_beginning(bytearray(data), EXPLICIT, charset) for charset in ("ISO_IR 126", "GB18030", "ISO_IR 126")]
    greek, chinese, again = [one.header.attributes["PatientName"] for one in read if one is not None]
    assert greek == again == (GREEK,)
    assert chinese != greek


def test_a_charset_that_is_none_is_a_mistake_of_the_rules_file(tmp_path: Path) -> None:
    text = (
        "version: 1\nunmatched: keep\nrules: []\npeers:\n  ct: {ae_title: CT, host: 192.0.2.1, charset: ISO_IR 999}\n"
    )
    rules = tmp_path / "rules.yaml"
    rules.write_text(text)
    with pytest.raises(ConfigError, match=r"5:48 peers\.ct\.charset: 'ISO_IR 999' is no Specific Character Set"):
        load(rules)
    rules.write_text(text.replace("ISO_IR 999", "ISO 2022 IR 149"))
    assert load(rules).peers["ct"].charset == "ISO 2022 IR 149"
