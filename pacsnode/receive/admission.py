"""Who gets an association: the question that receive asks, and the answers. No I/O; the site's peers answer it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol, Self

from pacsnode.dimse.tls import Certificate
from pacsnode.errors import PacsnodeError

STORE: Final = "store"
ANSWER: Final = "answer"
"""The permissions in `Admitted.may` of which a C-STORE needs one; C-ECHO needs none. What a peer stores that may only
answer is a result of its own: no image of a study."""

PERMANENT: Final = 1
TRANSIENT: Final = 2
BY_USER: Final = 1
BY_ACSE: Final = 2
BY_PRESENTATION: Final = 3
"""Results and sources of A-ASSOCIATE-RJ (PS3.8 table 9-21)."""


@dataclass(frozen=True)
class Caller:
    """Who asks for an association, as far as the line tells. A `certificate` was verified; None: none was shown."""

    calling_ae_title: str
    called_ae_title: str
    address: str
    tls: bool = False
    certificate: Certificate | None = None


@dataclass(frozen=True)
class Admitted:
    """A peer that may associate: its name in the site's file, the issuer of its patient IDs, what it may do.

    `associations`: how many it may have at once; 0: as many as the node. `charset`: of data sets that declare none.
    """

    peer: str
    issuer: str
    may: frozenset[str]
    associations: int = 0
    charset: str = ""


class Refused(PacsnodeError):
    """No association: becomes an A-ASSOCIATE-RJ with these numbers; `text` is for our log alone."""

    def __init__(self, result: int, source: int, reason: int, text: str) -> None:
        super().__init__(text)
        self.result = result
        self.source = source
        self.reason = reason

    @classmethod
    def calling_ae_title(cls, text: str) -> Self:
        """The calling AE title is not recognised (or not from this address)."""
        return cls(PERMANENT, BY_USER, 3, text)

    @classmethod
    def called_ae_title(cls, text: str) -> Self:
        """The called AE title is not ours."""
        return cls(PERMANENT, BY_USER, 7, text)

    @classmethod
    def local_limit(cls, text: str) -> Self:
        """There is no place for one association more; a later try may find one."""
        return cls(TRANSIENT, BY_PRESENTATION, 2, text)


class Admission(Protocol):
    """Decides on each association request."""

    def admit(self, caller: Caller) -> Admitted:
        """Which peer calls. Raises Refused."""

    def refused(self, caller: Caller, reason: str) -> None:
        """A caller got no association, for a person to look at; must not raise."""
