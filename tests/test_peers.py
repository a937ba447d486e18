"""Who is known, by AE title and address together."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pacsnode import peers
from pacsnode.errors import ConfigError
from pacsnode.peers import Directory

GOOD = """\
version: 1
peers:
  north-1: {ae_title: CR1, host: 192.0.2.21, port: 104, may: [store], issuer: NORTH}
  south-1: {ae_title: CR1, host: 198.51.100.0/24, may: [store], issuer: SOUTH, reply_to: pacs}
  north:   {ae_title: "*", host: 192.0.2.0/24, may: [store, query]}
  room-9:  {ae_title: "*", host: 192.0.2.96/28, may: [store]}
  pacs:    {ae_title: PACS, host: 203.0.113.5, port: 11112, may: [query, retrieve], accepts: [sr]}
  bench:   {ae_title: BENCH, host: 127.0.0.1, port: 4242, may: [store]}
  six:     {ae_title: SIX, host: "2001:db8::/32", may: [store]}
  named:   {ae_title: NAMED, host: localhost, port: 4243, may: [store]}
rules: this part is not read here
"""


def load(folder: Path, content: str = GOOD) -> Directory:
    path = folder / "routing_rules.yaml"
    path.write_text(content, encoding="utf-8")
    return peers.load(path)


@pytest.mark.parametrize(
    ("ae_title", "address", "name"),
    [
        ("CR1", "192.0.2.21", "north-1"),
        ("CR1", "198.51.100.7", "south-1"),
        ("CR1", "192.0.2.22", "north"),
        ("CR1", "203.0.113.9", None),
        ("CR2", "192.0.2.21", "north"),
        ("ANY", "192.0.2.100", "room-9"),
        ("PACS", "203.0.113.5", "pacs"),
        ("PACS            ", "203.0.113.5", "pacs"),
        ("PACS\0", "203.0.113.5", "pacs"),
        ("pacs", "203.0.113.5", None),
        ("PACS", "203.0.113.6", None),
        ("CR1", "::ffff:192.0.2.21", "north-1"),
        ("CR1", "::ffff:c633:6407", "south-1"),
        ("BENCH", "127.0.0.1", "bench"),
        ("BENCH", "::1", "bench"),
        ("BENCH", "::ffff:127.0.0.1", "bench"),
        ("BENCH", "127.0.0.2", None),
        ("BENCH", "192.0.3.1", None),
        ("SIX", "2001:db8::7%eth0", "six"),
        ("SIX", "2001:db9::7", None),
        ("NAMED", "127.0.0.1", "named"),
        ("NAMED", "192.0.3.1", None),
        ("*", "203.0.113.5", None),
        ("", "203.0.113.5", None),
        ("CR1", "not an address", None),
    ],
)
def test_a_caller_is_found_by_ae_title_and_address(
    tmp_path: Path, ae_title: str, address: str, name: str | None
) -> None:
    found = load(tmp_path).find(ae_title, address)
    assert (found.name if found else None) == name


def test_one_ae_title_in_two_networks_is_two_peers_with_two_issuers(tmp_path: Path) -> None:
    directory = load(tmp_path)
    north, south = directory.find("CR1", "192.0.2.21"), directory.find("CR1", "198.51.100.21")
    assert north is not None
    assert south is not None
    assert (north.issuer, south.issuer) == ("NORTH", "SOUTH")


def test_a_host_name_is_looked_up_for_each_call_and_an_unknown_one_matches_nobody(tmp_path: Path) -> None:
    directory = load(tmp_path, GOOD.replace("host: localhost", "host: moving.example.org"))
    assert Directory(directory.peers, resolve=lambda _: frozenset()).find("NAMED", "198.18.0.77") is None
    moved = Directory(directory.peers, resolve=lambda _: frozenset(filter(None, [peers.address_of("198.18.0.77")])))
    found = moved.find("NAMED", "198.18.0.77")
    assert found is not None
    assert found.name == "named"


def test_a_name_that_nobody_can_resolve_has_no_addresses() -> None:
    assert peers.resolve("host.invalid") == frozenset()


def test_what_may_be_left_out_has_careful_defaults(tmp_path: Path) -> None:
    peer = load(tmp_path, "version: 1\npeers: {a: {ae_title: A, host: 192.0.2.1}}\n").by_name("a")
    assert peer is not None
    assert (peer.may, peer.port, peer.investigational, peer.reply_to) == ((), None, False, None)
    assert peer.accepts == ("sr", "seg", "sc", "pdf", "ko", "pr")


@pytest.mark.parametrize(
    ("word", "sender", "destination"),
    [
        ("pacs", "north-1", "pacs"),
        ("sender", "north-1", "north-1"),
        ("sender", "south-1", "pacs"),
        ("nobody", "pacs", None),
    ],
)
def test_sender_is_who_sent_it_or_whom_that_one_replies_to(
    tmp_path: Path, word: str, sender: str, destination: str | None
) -> None:
    peer = load(tmp_path).destination(word, sender)
    assert (peer.name if peer else None) == destination


@pytest.mark.parametrize(
    ("name", "obstacle"),
    [
        ("pacs", ""),
        ("named", ""),
        ("south-1", "its host 198.51.100.0/24 is a network"),
        ("north", 'its ae_title is "*"'),
        ("six", "its host 2001:db8::/32 is a network"),
    ],
)
def test_what_keeps_results_from_a_peer_is_said(tmp_path: Path, name: str, obstacle: str) -> None:
    peer = load(tmp_path).by_name(name)
    assert peer is not None
    assert peer.obstacle == obstacle


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("version: 1\n", "", "1:1 version: this key is missing"),
        ("peers:", "peer:", "peers: this key is missing; did you mean peer?"),
        ("ae_title: PACS", "ae-title: PACS", "7:13 peers.pacs.ae-title: there is no such key; did you mean ae_title?"),
        (
            "ae_title: PACS",
            "ae_title: AN_AE_TITLE_TOO_LONG",
            "7:23 peers.pacs.ae_title: 'AN_AE_TITLE_TOO_LONG' is no AE",
        ),
        ("ae_title: PACS", "ae_title: 팍스", "is no AE title"),
        ("ae_title: PACS", "ae_title: 0800", "7:23 peers.pacs.ae_title: 0800 is no plain number; put it in quotes"),
        (
            "ae_title: PACS",
            "ae_title: 800",
            "7:23 peers.pacs.ae_title: expected text, found the number 800; put it in quotes",
        ),
        ("host: 203.0.113.5", "host: 203.0.113.500", "7:35 peers.pacs.host: expected an address"),
        ("host: 203.0.113.5", "host: 203.0.113.5/24", "did you mean 203.0.113.0/24?"),
        ("host: 203.0.113.5", "host: pacs example", "7:35 peers.pacs.host: expected an address"),
        ("host: 203.0.113.5", 'host: "*"', "7:35 peers.pacs.host: expected an address"),
        ("port: 11112", "port: 70000", "7:54 peers.pacs.port: expected a number of at most 65535"),
        ("port: 11112", 'port: "11112"', "7:54 peers.pacs.port: expected a whole number, found the text '11112'"),
        ("may: [query, retrieve]", "may: [query, retreive]", "peers.pacs.may.1: the text 'retreive' is not known"),
        ("may: [query, retrieve]", "may: query", "peers.pacs.may: expected a list, found the text 'query'"),
        ("accepts: [sr]", "accepts: [dvd]", "peers.pacs.accepts.0: the text 'dvd' is not known"),
        ("accepts: [sr]", "name: pacs", "peer pacs has a `name`"),
        ("reply_to: pacs", "reply_to: pac", "4:90 peers.south-1.reply_to: there is no peer pac; did you mean pacs?"),
        ("reply_to: pacs", "reply_to: north", "nothing can be sent to north"),
        ("bench: ", "sender:", "8:3 peers.sender: a peer cannot be called 'sender'"),
        ("bench: ", "ROOM 9:", "8:3 peers.ROOM 9: ROOM 9 and room-9 differ only in punctuation or case"),
        ("bench: ", "room-9:", "8:3 peers.room-9: this key is here twice"),
        ("host: 192.0.2.0/24", "host: 192.0.2.96/28", "6:3 peers.room-9: has the ae_title and host of north"),
        ('  six:     {ae_title: SIX, host: "2001:db8::/32"', '  six:     {ae_title: BENCH, host: "::1"', "of bench"),
        ("peers:\n", "peers: [\n", "not YAML"),
    ],
)
def test_a_mistake_between_peers_is_told_by_line(tmp_path: Path, old: str, new: str, told: str) -> None:
    assert old in GOOD
    with pytest.raises(ConfigError, match=re.escape(told)) as caught:
        load(tmp_path, GOOD.replace(old, new, 1))
    assert re.match(r".+/routing_rules\.yaml:\d+:\d+ ", str(caught.value))


def test_mistakes_in_the_rules_do_not_keep_images_from_being_received(tmp_path: Path) -> None:
    assert load(tmp_path, GOOD.replace("rules: this part is not read here", "rules: [{nonsense: 1}]")).by_name("pacs")


OTHERS = """\
version: 1
peers:
  cloud:
    type: dicomweb
    url: https://pacs.example.org/dicom-web/
    token_url: https://login.example.org/token
    client_id: node
    secret_file: /etc/pacsnode/cloud
  lab:   {type: orthanc, url: "http://127.0.0.1:8042", user: node, secret_file: /etc/pacsnode/lab, accepts: [sr]}
  share: {type: folder, folder: /mnt/results}
  any:   {ae_title: "*", host: 192.0.2.0/24, may: [store]}
"""


def test_destinations_of_other_types_can_be_sent_to_and_never_call(tmp_path: Path) -> None:
    directory = load(tmp_path, OTHERS)
    cloud, lab, share = (directory.peers[name] for name in ("cloud", "lab", "share"))
    assert cloud.url == "https://pacs.example.org/dicom-web"
    assert [peer.obstacle for peer in (cloud, lab, share)] == ["", "", ""]
    assert lab.accepts == ("sr",)
    for title in ("", "*", "cloud", "ANY"):
        found = directory.find(title, "192.0.2.7")
        assert found is not None
        assert found.name == "any"
        assert directory.find(title, "127.0.0.1") is None


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("type: folder, folder: /mnt/results", "type: folder", "10:3 peers.share.folder: this key is missing"),
        ("type: folder, folder: /mnt/results", "ae_title: X", "10:3 peers.share.host: this key is missing"),
        ("folder: /mnt/results}", "folder: /mnt/results, port: 104}", "peers.share.port: goes with type: dimse, and"),
        ("folder: /mnt/results", "folder: results", "10:33 peers.share.folder: expected a whole path"),
        ("folder: /mnt/results", "folder: /mnt/../etc", "expected a whole path"),
        ("type: orthanc", "type: ortanc", "'ortanc' is not known"),
        ("http://127.0.0.1:8042", "http://192.0.2.9:8042", "a secret is sent over https:// alone"),
        ("http://127.0.0.1:8042", "https://node:x@192.0.2.9", "holds no user and no password"),
        ("http://127.0.0.1:8042", "ftp://192.0.2.9", "expected a URL such as"),
        ("http://127.0.0.1:8042", "http://127.0.0.1:99999", "expected a URL such as"),
        ("http://127.0.0.1:8042", "https://x.example/?a=b", "neither ? nor #"),
        ("user: node, ", "", "whose secret is it?"),
        (", secret_file: /etc/pacsnode/lab", "", "needs `secret_file:` beside it"),
        ("    client_id: node\n", "", "6:16 peers.cloud.token_url: needs `client_id:` beside it"),
        ("    client_id: node\n", "    client_id: node\n    user: me\n", "a user or a client_id, not both"),
    ],
)
def test_a_mistake_in_a_destination_is_told_by_line(tmp_path: Path, old: str, new: str, told: str) -> None:
    assert old in OTHERS
    with pytest.raises(ConfigError, match=re.escape(told)):
        load(tmp_path, OTHERS.replace(old, new))
