"""UIDs: checked where they come from the wire, derived where they are ours. No I/O."""

from __future__ import annotations

import hashlib
import re

_UID = re.compile(r"(?:0|[1-9]\d*)(?:\.(?:0|[1-9]\d*))*", re.ASCII)

IMPLEMENTATION_CLASS_UID = "2.25.202611220930147711905502774461098331"
IMPLEMENTATION_VERSION_NAME = "PACSNODE_0_1"


def is_valid(uid: str) -> bool:
    """Whether `uid` is a UID of PS3.5 9.1: digits and dots, at most 64 characters, no leading zero."""
    return len(uid) <= 64 and _UID.fullmatch(uid) is not None


def is_safe(uid: str) -> bool:
    """Whether `uid` has only digits and dots and 1 to 64 characters: what broken but honest devices send."""
    return 0 < len(uid) <= 64 and not uid.strip("0123456789.")


def derive(*parts: str) -> str:
    """The UID of `parts`: the same parts give the same UID on every machine (PS3.5 B.2, root 2.25)."""
    digest = hashlib.sha256("\x1f".join(parts).encode()).digest()
    number = int.from_bytes(digest[:16], "big")
    number = (number & ~(0xF << 76)) | (8 << 76)  # UUID version 8 (RFC 9562): derived by the application
    number = (number & ~(0x3 << 62)) | (2 << 62)
    return f"2.25.{number}"
