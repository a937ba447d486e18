"""What kinds of destination there are, and which keys of a peer belong to which: tables and checks of text. No I/O.

In: the keys that a peer of the rules file has. Out: what is missing, and what belongs to another kind. A secret never
stands in the rules file: a key names the file that holds it.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection, Iterator
from pathlib import PurePosixPath
from typing import Literal
from urllib.parse import urlsplit

from pacsnode.yamlfile import Loc, Problem, nearest, wrong

DestinationType = Literal["dimse", "dicomweb", "folder", "orthanc"]

NEEDED: dict[DestinationType, tuple[str, ...]] = {
    "dimse": ("ae_title", "host"),
    "dicomweb": ("url",),
    "folder": ("folder",),
    "orthanc": ("url",),
}
"""Those of `dimse` are asked for while the file is read: what is misspelt is held against what is missing."""
ONLY_OF: dict[DestinationType, tuple[str, ...]] = {
    "dimse": (
        "ae_title",
        "host",
        "port",
        "may",
        "issuer",
        "charset",
        "reply_to",
        "tls",
        "certificate",
        "associations",
    ),
    "dicomweb": ("url", "user", "secret_file", "token_url", "client_id", "scope"),
    "folder": ("folder",),
    "orthanc": ("url", "user", "secret_file"),
}
LONGEST_URL = 512
_HOST = re.compile(r"[a-z0-9_.-]{1,253}|\[[0-9a-f:.]{2,45}\]", re.ASCII | re.IGNORECASE)


def checked_url(given: str) -> str:
    """An `https://` or `http://` URL without a user, a query or a fragment, and without a slash at its end.

    Raises PydanticCustomError.
    """
    try:
        parts = urlsplit(given)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), 0
    host = parts.netloc.rpartition("@")[2].removesuffix(f":{port}")
    plain = given.isascii() and given.isprintable() and " " not in given and len(given) <= LONGEST_URL
    if not plain or parts.scheme not in ("https", "http") or not _HOST.fullmatch(host):
        raise wrong("url", f"expected a URL such as https://pacs.example.org/dicom-web, found {given[:60]!r}")
    if "@" in parts.netloc:
        raise wrong("url", "a URL here holds no user and no password; write `user:` and `secret_file:`")
    if parts.query or parts.fragment or given.endswith(("?", "#")):
        raise wrong("url", f"a URL here has neither ? nor #, found {given[:60]!r}")
    return given.rstrip("/")


def checked_path(given: str) -> str:
    """An absolute path. Raises PydanticCustomError."""
    path = PurePosixPath(given)
    if not path.is_absolute() or ".." in path.parts or not given.isprintable():
        raise wrong("path", f"expected a whole path such as /srv/results, found {given[:60]!r}")
    return given


def is_private(url: str) -> bool:
    """Whether nobody on the way can read what goes to a URL: TLS, or this machine itself."""
    parts = urlsplit(url)
    if parts.scheme == "https" or parts.hostname == "localhost":
        return True
    try:
        return ipaddress.ip_address(parts.hostname or "").is_loopback
    except ValueError:
        return False


def type_mistakes(kind: DestinationType, given: Collection[str], here: Loc) -> Iterator[Problem]:
    """Keys that a peer of this type lacks, and those that it cannot have. `given`: the keys that it has."""
    for key in NEEDED[kind]:
        if key not in given:
            told = nearest(key, given)
            yield Problem((*here, key), f"this key is missing{told}", "missing", at="key")
    others = {key for keys in ONLY_OF.values() for key in keys} - set(ONLY_OF[kind])
    for key in sorted(others.intersection(given)):
        owners = " or ".join(f"type: {one}" for one, keys in ONLY_OF.items() if key in keys)
        told = f"goes with {owners}, and this peer has type: {kind}"
        yield Problem((*here, key), told, "other-type", at="key")


def secret_mistakes(given: Collection[str], urls: Collection[str], here: Loc) -> Iterator[Problem]:
    """What does not go together of user, client and secret. `urls`: where a secret would be sent."""
    for one, other in (
        ("user", "secret_file"),
        ("client_id", "secret_file"),
        ("client_id", "token_url"),
        ("token_url", "client_id"),
        ("scope", "token_url"),
    ):
        if one in given and other not in given:
            yield Problem((*here, one), f"needs `{other}:` beside it", "secret")
    if {"user", "client_id"} <= set(given):
        yield Problem((*here, "user"), "a user or a client_id, not both", "secret")
    elif "secret_file" in given and not {"user", "client_id"} & set(given):
        yield Problem((*here, "secret_file"), "whose secret is it? add `user:` or `client_id:`", "secret")
    if "secret_file" in given and not all(map(is_private, urls)):
        told = "a secret is sent over https:// alone (or to this machine itself)"
        yield Problem((*here, "secret_file"), told, "secret")
