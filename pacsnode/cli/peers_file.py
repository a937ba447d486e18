"""One peer more in the rules file of the site: lines put behind the last peer, every other byte as it was.

In: the file and a Peer. Out: the file with the peer, checked as a whole before it takes the old one's place. Never
rewrites what a person wrote: comments, order, quotes and indentation stay.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from pathlib import Path

import ruamel.yaml
from ruamel.yaml.nodes import CollectionNode, MappingNode, Node

from pacsnode import peers
from pacsnode.errors import ConfigError
from pacsnode.peers import Peer
from pacsnode.textfile import read

_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_.-]*|\d+(\.\d+){3}(/\d+)?", re.ASCII)
_NOT_PLAIN = re.compile("(?i)true|false|yes|no|on|off|null|y|n")


def lines_of(peer: Peer, indent: str = "  ") -> str:
    """The lines of a peer as a person would write them."""
    given = peer.model_dump(exclude={"name"}, exclude_defaults=True)
    lines = [f"{indent}{_text(peer.name)}:"]
    for key, value in given.items():
        if isinstance(value, tuple):
            shown = f"[{', '.join(map(_text, value))}]"
        else:
            shown = _text(value) if isinstance(value, str) else json.dumps(value)
        lines.append(f"{indent}  {key}: {shown}")
    return "\n".join(lines) + "\n"


def _text(value: str) -> str:
    """Plain where YAML and people read it the same, else in quotes (JSON's are YAML's)."""
    plain = _PLAIN.fullmatch(value) and not _NOT_PLAIN.fullmatch(value)
    return value if plain else json.dumps(value, ensure_ascii=False)


def append(path: Path, peer: Peer) -> None:
    """Put the peer behind the last one of the file. Raises ConfigError and changes nothing where that cannot be."""
    path = path.resolve()  # a link stays one
    before = peers.load(path).peers
    text = read(path)
    changed = _with_lines(text, peer)
    if changed is None:
        raise ConfigError("its peers are not written one below the other; add the lines by hand", where=str(path))
    try:
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".peers-") as folder:
            new = Path(folder) / path.name
            new.write_text(changed, encoding="utf-8", newline="")
            shutil.copystat(path, new)
            status = path.stat()
            os.chown(new, status.st_uid, status.st_gid)
            try:
                after = peers.load(new).peers
            except ConfigError as error:
                raise ConfigError(str(error).replace(str(new), f"{path} with {peer.name}")) from None
            if after != {**before, peer.name: peer}:
                raise ConfigError("the lines would be read otherwise there; add them by hand", where=str(path))
            with new.open("rb") as written:
                os.fsync(written.fileno())
            new.replace(path)
    except OSError as error:  # read-only, or a single file mounted into a container
        raise ConfigError(f"cannot be changed ({error.strerror}); add the lines by hand", where=str(path)) from None


def _with_lines(text: str, peer: Peer) -> str | None:
    root = ruamel.yaml.YAML(typ="rt").compose(text)
    assert isinstance(root, MappingNode)  # it was loaded
    block = next(value for key, value in root.value if key.value == "peers")
    if not isinstance(block, MappingNode) or block.flow_style or not block.value:
        return None
    indent = " " * block.value[0][0].start_mark.column
    lines = text.splitlines(keepends=True)
    at = _last_line(block) + 1
    if not lines[at - 1].endswith("\n"):
        lines[at - 1] += "\n"
    separated = at >= 2 and at < len(lines) and not lines[at].strip()
    return "".join([*lines[:at], "\n" if separated else "", lines_of(peer, indent), *lines[at:]])


def _last_line(node: Node) -> int:
    """The line (0-based) on which the last value of a node stands; a block's own end is behind comments."""
    if isinstance(node, CollectionNode) and node.value and not node.flow_style:
        last = node.value[-1]
        return _last_line(last[1] if isinstance(last, tuple) else last)
    end = node.end_mark
    return int(end.line - 1 if end.column == 0 and end.line > node.start_mark.line else end.line)
