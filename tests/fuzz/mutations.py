"""Damage for inputs of parsers: bits, lengths, cuts, splices. The same random source does the same damage."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

LENGTHS = (0, 1, 2, 3, 4, 5, 6, 7, 8, 0x7F, 0x80, 0xFF, 0x100, 0x7FFF, 0x8000, 0xFFFE, 0xFFFF, 0x10000, 0x40000)
LARGE = (0x7FFFFFFF, 0x80000000, 0xFFFFFFF0, 0xFFFFFFFE, 0xFFFFFFFF)
TELLING = (b"\x00", b"\xff", b"\x1b$)C", b"\\", b"\r\n", b"../", b"SQ", b"UN", b"UT", b"\xfe\xff\x00\xe0", b"\x04\x00")
"""Bytes that mean something to one of the parsers."""

Mutation = Callable[[bytearray, random.Random, Sequence[bytes]], None]


def mutate(data: bytes, dice: random.Random, others: Sequence[bytes], longest: int = 65_536) -> bytes:
    """A damaged copy of at most `longest` bytes; splices come from `others`."""
    made = bytearray(data)
    for _ in range(dice.choice((1, 1, 1, 2, 2, 3, 5, 9))):
        dice.choice(MUTATIONS)(made, dice, others)
    return bytes(made[:longest])


def _place(made: bytearray, dice: random.Random) -> int:
    return dice.randrange(len(made) + 1)


def flip(made: bytearray, dice: random.Random, _: Sequence[bytes]) -> None:
    """One bit."""
    if made:
        made[dice.randrange(len(made))] ^= 1 << dice.randrange(8)


def replace(made: bytearray, dice: random.Random, _: Sequence[bytes]) -> None:
    """One byte."""
    if made:
        made[dice.randrange(len(made))] = dice.randrange(256)


def length_field(made: bytearray, dice: random.Random, _: Sequence[bytes]) -> None:
    """Two or four bytes become a number that lengths go wrong at."""
    size = dice.choice((2, 4))
    number = dice.choice(LENGTHS + LARGE + (len(made), max(0, len(made) - dice.randrange(16))))
    at = _place(made, dice)
    made[at : at + size] = (number & ((1 << 8 * size) - 1)).to_bytes(size, dice.choice(("big", "little")))


def near_length(made: bytearray, dice: random.Random, _: Sequence[bytes]) -> None:
    """Two or four bytes as a number, a little larger or smaller."""
    size, order = dice.choice((2, 4)), dice.choice(("big", "little"))
    at = _place(made, dice)
    number = int.from_bytes(made[at : at + size], "big" if order == "big" else "little")
    number = (number + dice.choice((-8, -4, -2, -1, 1, 2, 4, 8))) & ((1 << 8 * size) - 1)
    made[at : at + size] = number.to_bytes(size, "big" if order == "big" else "little")


def insert(made: bytearray, dice: random.Random, _: Sequence[bytes]) -> None:
    """Bytes that mean something, or random ones."""
    at = _place(made, dice)
    made[at:at] = dice.choice((*TELLING, dice.randbytes(dice.randrange(1, 17))))


def remove(made: bytearray, dice: random.Random, _: Sequence[bytes]) -> None:
    """A stretch goes."""
    at = _place(made, dice)
    del made[at : at + dice.choice((1, 2, 4, 8, dice.randrange(1, 64)))]


def truncate(made: bytearray, dice: random.Random, _: Sequence[bytes]) -> None:
    """The end goes."""
    del made[_place(made, dice) :]


def repeat(made: bytearray, dice: random.Random, _: Sequence[bytes]) -> None:
    """A stretch comes twice, or many times."""
    at = _place(made, dice)
    stretch = made[at : at + dice.randrange(1, 200)]
    made[at:at] = stretch * dice.choice((1, 1, 2, 40))


def splice(made: bytearray, dice: random.Random, others: Sequence[bytes]) -> None:
    """A stretch of another input is put in, or its end in place of ours."""
    if not others:
        return
    other = dice.choice(others)
    start = dice.randrange(len(other) + 1)
    at = _place(made, dice)
    if dice.random() < 0.5:
        made[at:] = other[start:]
    else:
        made[at:at] = other[start : start + dice.randrange(1, 200)]


MUTATIONS: tuple[Mutation, ...] = (
    flip,
    replace,
    length_field,
    near_length,
    insert,
    remove,
    truncate,
    repeat,
    splice,
)
