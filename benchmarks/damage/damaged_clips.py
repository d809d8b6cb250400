"""Damaged clips by number: the same seed and number make the same clip."""

import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
from numpy.random import Generator

from benchmarks.damage.clip_recipes import recipes_to_damage, recipes_with_headers
from benchmarks.damage.encoded_clips import Recipe, encode
from benchmarks.damage.header_damage import damaged_header
from benchmarks.damage.packet_clips import PacketClip, read_packets
from benchmarks.damage.packet_damage import KINDS

Damaged = TypeVar("Damaged", bound="OfKind")

CODECS = {"libx264": "H.264", "libx265": "HEVC", "libsvtav1": "AV1", "mpeg4": "MPEG-4 part 2"}  # as encoders name them


@dataclass(frozen=True)
class DamagedClip:
    """A clip with damage: its bytes, what it was, and what was done to it."""

    content: bytes
    codec: str
    recipe: str
    damage: str


class OfKind(Protocol):
    """Whatever is known of a damaged clip: its codec, as CODECS names it, and the kind of damage."""

    @property
    def codec(self) -> str:
        """One of CODECS' values."""

    @property
    def kind(self) -> str:
        """One of KINDS."""


def by_codec_and_kind(found: Iterable[Damaged]) -> dict[tuple[str, str], list[Damaged]]:
    """Group what is known of damaged clips, in the order in which codecs and kinds come first."""
    groups: dict[tuple[str, str], list[Damaged]] = {}
    for each in found:
        groups.setdefault((each.codec, each.kind), []).append(each)
    return groups


def clip_with_damaged_header(seed: int, number: int) -> DamagedClip:
    """Return a clip with damage to its headers."""
    rng = np.random.default_rng([seed, 1, number])
    name = str(rng.choice(list(recipes_with_headers())))
    content, words = damaged_header(_header_base(name), rng)
    return DamagedClip(content, name.partition(",")[0], name, words)


def clip_with_damaged_packets(seed: int, number: int) -> DamagedClip:
    """Return a clip with damage to its packets: each kind in turn, the codec drawn."""
    rng = np.random.default_rng([seed, 2, number])
    kind = list(KINDS)[number % len(KINDS)]
    for codec in rng.permutation(list(CODECS)):
        clip = damaged(str(codec), kind, rng)
        if clip:
            return clip
    raise AssertionError(f"no codec has {kind}")


def damaged(codec: str, kind: str, rng: Generator) -> DamagedClip | None:
    """Return a clip of a codec with a kind of damage, None where none of the codec's clips can have it."""
    for name in rng.permutation(list(recipes_to_damage()[codec])):
        content = KINDS[kind](packets_to_damage(codec, str(name)), rng)
        if content is not None:
            return DamagedClip(content, codec, str(name), kind)
    return None


@cache
def packets_to_damage(codec: str, name: str) -> PacketClip:
    """Return the packets of a sound clip of clip_recipes.py."""
    with tempfile.TemporaryDirectory() as folder:
        return read_packets(encode(recipes_to_damage()[codec][name], Path(folder) / "clip.mp4"))


@cache
def _header_base(name: str) -> bytes:
    recipe: Recipe = recipes_with_headers()[name]
    with tempfile.TemporaryDirectory() as folder:
        return encode(recipe, Path(folder) / "clip.mp4").read_bytes()
