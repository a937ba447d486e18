"""The exceptions of pacsnode. The class decides what happens to the one thing that went wrong:

PacsnodeError
├─ ConfigError    start-up stops, exit 2; file, line, column, key
├─ Rejected       becomes a DIMSE status (PS3.7 Annex C, PS3.4 B.2.3) with an error comment
├─ Transient      waits with back-off: peer unreachable, association rejected, device busy
└─ Permanent      parked with its reason, shown to the operator: unsuitable input, inference failed, peer refused
   └─ Unsupported    the peer does not offer what was asked of it: another way may do
"""

from __future__ import annotations


class PacsnodeError(Exception):
    """Base of all errors that the program raises on purpose."""

    exit_code = 1


class ConfigError(PacsnodeError):
    """A setting or file of the site is wrong; `where` is `file:line:column` or a setting's name."""

    exit_code = 2

    def __init__(self, message: str, *, where: str = "") -> None:
        super().__init__(f"{where}: {message}" if where else message)
        self.where = where


class SchemaError(PacsnodeError):
    """The database is newer or older than the program."""

    exit_code = 3


class Rejected(PacsnodeError):
    """An operation of a peer that gets a DIMSE failure status; the comment is cut to 64 characters (LO)."""

    OUT_OF_RESOURCES = 0xA700
    DATA_SET_MISMATCH = 0xA900
    CANNOT_UNDERSTAND = 0xC000
    NOT_AUTHORISED = 0x0124
    SOP_CLASS_NOT_SUPPORTED = 0x0122

    def __init__(self, status: int, comment: str) -> None:
        super().__init__(f"0x{status:04X} {comment}")
        self.status = status
        self.comment = comment[:64]


class Transient(PacsnodeError):
    """May succeed later with no change by a person."""


class Permanent(PacsnodeError):
    """Will fail again until a person changes something; the text is the reason that an operator reads."""


class Unsupported(Permanent):
    """The peer does not offer this service, or refuses to do it: another way may do."""
