"""Damage of a file's bytes: what a bad disk, a broken download or a hostile hand does without knowing the format."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

Damage = Callable[[bytearray, Random, bytes], None]  # file, randomness, another model's file
DAMAGES: list[Damage] = []


def damage(change: Damage) -> Damage:
    """Enter a kind of damage into the list."""
    DAMAGES.append(change)
    return change


def damaged(data: bytes, random: Random, other: bytes) -> bytes:
    """Return a file with one to four damages."""
    changed = bytearray(data)
    for _ in range(random.choice((1, 1, 1, 2, 4))):
        if changed:
            random.choice(DAMAGES)(changed, random, other)
    return bytes(changed)


def _place(data: bytearray, random: Random, longest: int = 64) -> slice:
    start = random.randrange(len(data))
    return slice(start, start + random.randint(1, longest))


@damage
def flip_bits(data: bytearray, random: Random, other: bytes) -> None:
    for _ in range(random.choice((1, 1, 2, 8))):
        data[random.randrange(len(data))] ^= 1 << random.randrange(8)


@damage
def set_bytes(data: bytearray, random: Random, other: bytes) -> None:
    data[random.randrange(len(data))] = random.choice((0, 1, 0x7F, 0x80, 0xFF, random.randrange(256)))


@damage
def delete(data: bytearray, random: Random, other: bytes) -> None:
    del data[_place(data, random)]


@damage
def insert(data: bytearray, random: Random, other: bytes) -> None:
    start = random.randrange(len(data))
    data[start:start] = random.randbytes(random.randint(1, 16))


@damage
def duplicate(data: bytearray, random: Random, other: bytes) -> None:
    part = _place(data, random, 512)
    data[part.start : part.start] = data[part]


@damage
def truncate(data: bytearray, random: Random, other: bytes) -> None:
    del data[random.randrange(len(data)) :]


@damage
def splice(data: bytearray, random: Random, other: bytes) -> None:
    """Go on with another model from some place: protobuf merges what is well formed on both sides."""
    data[random.randrange(len(data)) :] = other[random.randrange(len(other)) :]


@damage
def append(data: bytearray, random: Random, other: bytes) -> None:
    """Put two whole files one after the other, which protobuf merges into one model."""
    data += other
