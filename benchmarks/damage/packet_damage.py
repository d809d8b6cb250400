"""Kinds of damage to a clip's packets, as networks, disks and power cuts do it."""

import io
from bisect import bisect_left
from collections.abc import Callable, Collection
from dataclasses import replace
from functools import cache, partial

import av
import numpy as np
from numpy.random import Generator

from benchmarks.damage.packet_clips import Packet, PacketClip

Damage = Callable[[PacketClip, Generator], bytes | None]
TRIES = 40  # until a packet of the wanted kind is found, or the clip is taken to have none
VCL_END = {"h264": 6, "hevc": 32}  # NAL units below this number hold slices


def lose(clip: PacketClip, numbers: Collection[int], *, close_up: bool) -> bytes:
    """Return the clip without some packets: with a hole in its times, or with times that were counted by frames."""
    kept = [packet for number, packet in enumerate(clip.packets) if number not in numbers]
    if close_up:
        gone = sorted(clip.packets[number].pts for number in numbers)
        kept = [
            replace(packet, dts=slot.dts, pts=packet.pts - clip.frame_ticks * bisect_left(gone, packet.pts))
            for packet, slot in zip(kept, clip.packets, strict=False)
        ]
    return clip.with_packets(kept).written()


@cache
def is_leaf(clip: PacketClip, number: int) -> bool:
    """Say whether every other frame is decoded as it should be without a packet."""
    frames = dict(frames_of(clip))
    frames.pop(clip.packets[number].pts, None)
    rest = clip.with_packets(packet for other, packet in enumerate(clip.packets) if other != number)
    return dict(frames_of(rest)) == frames


@cache
def frames_of(clip: PacketClip) -> tuple[tuple[int, int], ...]:
    """Return time and a hash of the pixels of every frame that a full decode gives."""
    found = []
    with av.open(io.BytesIO(clip.written()), format="mp4") as container:
        stream = container.streams.video[0]
        stream.thread_count = 1
        base = None
        for packet in [*container.demux(stream)]:
            if base is None and packet.size:
                base = packet.dts - clip.packets[0].dts
            try:
                frames = stream.codec_context.decode(packet if packet.size else None)
            except av.FFmpegError:
                continue
            found += [(frame.pts - (base or 0), hash(frame.to_ndarray().tobytes())) for frame in frames]
    return tuple(found)


def _lose_one(clip: PacketClip, rng: Generator, *, role: str, close_up: bool) -> bytes | None:
    number = _number_of(role, clip, rng)
    return None if number is None else lose(clip, {number}, close_up=close_up)


def _number_of(role: str, clip: PacketClip, rng: Generator) -> int | None:
    if role in ("first", "last"):
        return 0 if role == "first" else len(clip.packets) - 1
    keys = _keyframes(clip)
    if role == "keyframe":
        return int(rng.choice(keys)) if keys else None
    for _ in range(TRIES):
        number = int(rng.integers(1, len(clip.packets) - 1))
        if number not in keys and number + 1 not in keys and is_leaf(clip, number) == (role == "leaf"):
            return number
    return None


def _keyframes(clip: PacketClip) -> list[int]:
    return [number for number in range(1, len(clip.packets) - 1) if clip.packets[number].is_key]


def _lose_burst(clip: PacketClip, rng: Generator, *, close_up: bool) -> bytes:
    while True:
        length = int(rng.integers(2, 13))
        first = int(rng.integers(1, len(clip.packets) - length))
        if not clip.packets[first + length].is_key:
            return lose(clip, range(first, first + length), close_up=close_up)


def _lose_end_of_group(clip: PacketClip, rng: Generator, *, close_up: bool) -> bytes | None:
    """Lose what comes right before a keyframe, which may begin afresh and then tells nothing of what was before."""
    keys = _keyframes(clip)
    if not keys:
        return None
    end, length = int(rng.choice(keys)), int(rng.integers(1, 9))
    return lose(clip, range(max(1, end - length), end), close_up=close_up)


def _with_data(clip: PacketClip, changed: dict[int, bytes]) -> bytes:
    packets = enumerate(clip.packets)
    return clip.with_packets(
        replace(packet, data=changed[number]) if number in changed else packet for number, packet in packets
    ).written()


def _any_packet(clip: PacketClip, rng: Generator) -> tuple[int, bytes]:
    number = int(rng.integers(len(clip.packets)))
    return number, clip.packets[number].data


def _flip_bit(clip: PacketClip, rng: Generator) -> bytes:
    """Flip one bit of all the clip's data, so that large packets are hit more often, as they are in life."""
    sizes = np.array([len(packet.data) for packet in clip.packets])
    number = int(rng.choice(len(sizes), p=sizes / sizes.sum()))
    data = bytearray(clip.packets[number].data)
    data[int(rng.integers(len(data)))] ^= 1 << int(rng.integers(8))
    return _with_data(clip, {number: bytes(data)})


def _overwrite(clip: PacketClip, rng: Generator, *, zeros: bool) -> bytes:
    number, data = _any_packet(clip, rng)
    length = int(rng.integers(1, len(data) + 1))
    begins = int(rng.integers(len(data) - length + 1))
    instead = bytes(length) if zeros else rng.bytes(length)
    return _with_data(clip, {number: data[:begins] + instead + data[begins + length :]})


def _truncate(clip: PacketClip, rng: Generator) -> bytes:
    number, data = _any_packet(clip, rng)
    return _with_data(clip, {number: data[: int(rng.integers(1, len(data)))]})


def _swap(clip: PacketClip, rng: Generator, *, times_move: bool) -> bytes:
    number = int(rng.integers(1, len(clip.packets) - 1))
    one, two = clip.packets[number : number + 2]
    if times_move:
        pair = [replace(two, dts=one.dts), replace(one, dts=two.dts)]
    else:
        pair = [replace(two, dts=one.dts, pts=one.pts), replace(one, dts=two.dts, pts=two.pts)]
    return clip.with_packets([*clip.packets[:number], *pair, *clip.packets[number + 2 :]]).written()


def _double(clip: PacketClip, rng: Generator, *, shift: bool) -> bytes:
    number = int(rng.integers(len(clip.packets)))
    one, step = clip.packets[number], clip.frame_ticks if shift else 0
    after = [_later(packet, step, one.pts) for packet in clip.packets[number + 1 :]]
    return clip.with_packets([*clip.packets[: number + 1], _later(one, step, -1), *after]).written()


def _later(packet: Packet, step: int, than: int) -> Packet:
    return replace(packet, dts=packet.dts + step, pts=packet.pts + step * (packet.pts > than))


def _lose_slice(clip: PacketClip, rng: Generator) -> bytes | None:
    for _ in range(TRIES):
        number, data = _any_packet(clip, rng)
        units = nal_units(data)
        slices = [place for place, unit in enumerate(units) if _is_slice(unit, clip.codec)]
        if len(slices) > 1:
            del units[int(rng.choice(slices))]
            return _with_data(clip, {number: b"".join(len(unit).to_bytes(4, "big") + unit for unit in units)})
    return None


def nal_units(data: bytes) -> list[bytes]:
    """Return the NAL units of a packet that states their lengths in four bytes."""
    units, position = [], 0
    while position + 4 <= len(data):
        length = int.from_bytes(data[position : position + 4], "big")
        units.append(data[position + 4 : position + 4 + length])
        position += 4 + length
    return units


def _is_slice(unit: bytes, codec: str) -> bool:
    if codec not in VCL_END or not unit:
        return False
    kind = unit[0] & 0b11111 if codec == "h264" else unit[0] >> 1 & 0b111111
    return (codec == "hevc" or kind > 0) and kind < VCL_END[codec]


def _cut_file(clip: PacketClip, rng: Generator) -> bytes:
    content = clip.written()
    data = sum(len(packet.data) for packet in clip.packets)
    return content[: len(content) - int(rng.integers(1, data))]


KINDS: dict[str, Damage] = {
    **{
        f"{role} lost, {times}": partial(_lose_one, role=role, close_up=times == "closed up")
        for role in ("reference", "leaf", "keyframe", "first", "last")
        for times in ("hole", "closed up")
        if role not in ("first", "last") or times == "hole"  # the others' times are the same either way
    },
    "burst lost, hole": partial(_lose_burst, close_up=False),
    "burst lost, closed up": partial(_lose_burst, close_up=True),
    "group's end lost, hole": partial(_lose_end_of_group, close_up=False),
    "group's end lost, closed up": partial(_lose_end_of_group, close_up=True),
    "slice lost": _lose_slice,
    "bit flipped": _flip_bit,
    "zeros": partial(_overwrite, zeros=True),
    "random bytes": partial(_overwrite, zeros=False),
    "packet cut short": _truncate,
    "swapped with its time": partial(_swap, times_move=True),
    "swapped, times stay": partial(_swap, times_move=False),
    "twice at one time": partial(_double, shift=False),
    "twice, the rest later": partial(_double, shift=True),
    "file cut": _cut_file,
}
