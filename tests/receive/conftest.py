"""Servers on free ports, stopped at the end of each test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pacsnode.receive.protocol import TimeLimits
from pacsnode.receive.server import ListenOptions
from tests.receive.doubles import Door, Node, RememberingStore


@pytest.fixture
def start_node() -> Iterator[Callable[..., Node]]:
    """Start servers on free ports; each is stopped at the end of the test."""
    nodes: list[Node] = []

    def start(limits: TimeLimits | None = None, may: frozenset[str] = frozenset({"store"}), **options: Any) -> Node:
        listen = ListenOptions(host="127.0.0.1", port=0, limits=limits or TimeLimits(linger_s=0.5), **options)
        node = Node(listen, Door(may), RememberingStore())
        nodes.append(node)
        return nodes[-1]

    yield start
    for node in nodes:
        node.server.stop(grace_s=5)


@pytest.fixture
def node(start_node: Callable[..., Node]) -> Node:
    return start_node()
