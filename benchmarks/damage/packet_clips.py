"""A clip as the packets that a recorder writes, each with its times, so that copies can lose and change some."""

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, pairwise
from pathlib import Path

import av

from benchmarks.damage.box_tree import Box, read_boxes


@dataclass(frozen=True)
class Packet:
    """One picture's data, when it is decoded and shown in ticks of its track, and whether it is a keyframe."""

    data: bytes
    dts: int
    pts: int
    is_key: bool


@dataclass(frozen=True)
class PacketClip:
    """A clip's packets, the header that they came with, and a frame's length in ticks."""

    packets: tuple[Packet, ...]
    header: bytes
    frame_ticks: int
    codec: str

    def with_packets(self, packets: Iterable[Packet]) -> "PacketClip":
        """Return a copy with other packets."""
        return replace(self, packets=tuple(packets))

    def written(self) -> bytes:
        """Return the clip as an mp4: its header with tables of these packets, then their data, as one chunk."""
        (file_type, movie) = read_boxes(self.header)
        track = _video_track(movie)
        table = track.first(b"mdia", b"minf", b"stbl")
        table.inner = [table.first(b"stsd"), *_tables(self.packets, self.frame_ticks)]
        _state_durations(movie, track, self.packets, self.frame_ticks)
        data_begins = len(file_type.written()) + len(movie.written()) + 8
        table.first(b"stco").body = struct.pack(">3I", 0, 1, data_begins)
        data = Box(b"mdat", b"".join(packet.data for packet in self.packets))
        return file_type.written() + movie.written() + data.written()


def read_packets(path: Path) -> PacketClip:
    """Return the packets of a sound clip without sound whose frames come at an even rate."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        found = [packet for packet in container.demux(stream) if packet.size]
        packets = tuple(Packet(bytes(each), each.dts, each.pts, each.is_keyframe) for each in found)
        codec = stream.codec_context.name
    content = path.read_bytes()
    header = b"".join(box.written() for box in read_boxes(content) if box.kind in (b"ftyp", b"moov"))
    ticks = min(later - earlier for earlier, later in pairwise(sorted(packet.pts for packet in packets)))
    return PacketClip(packets, header, ticks, codec)


def _video_track(movie: Box) -> Box:
    tracks = [box for box in movie.inner if box.kind == b"trak"]
    return next(track for track in tracks if track.first(b"mdia", b"hdlr").body[8:12] == b"vide")


def _tables(packets: Sequence[Packet], last: int) -> list[Box]:
    steps = [later.dts - earlier.dts for earlier, later in pairwise(packets)] + [last]
    keys = [number for number, packet in enumerate(packets, start=1) if packet.is_key]
    return [
        _table(b"stts", [(len(run), step) for step, run in _runs(steps)], ">2I"),
        _table(b"ctts", [(len(run), gap) for gap, run in _runs([each.pts - each.dts for each in packets])], ">Ii", 1),
        _table(b"stss", [(key,) for key in keys], ">I"),
        _table(b"stsc", [(1, len(packets), 1)], ">3I"),
        _sizes([len(packet.data) for packet in packets]),
        Box(b"stco", struct.pack(">3I", 0, 1, 0)),
    ]


def _sizes(sizes: Sequence[int]) -> Box:
    return Box(b"stsz", struct.pack(f">3I{len(sizes)}I", 0, 0, len(sizes), *sizes))


def _runs(values: Iterable[int]) -> list[tuple[int, list[int]]]:
    return [(value, list(run)) for value, run in groupby(values)]


def _table(kind: bytes, rows: Sequence[tuple[int, ...]], form: str, version: int = 0) -> Box:
    return Box(kind, struct.pack(">B3xI", version, len(rows)) + b"".join(struct.pack(form, *row) for row in rows))


def _state_durations(movie: Box, track: Box, packets: Sequence[Packet], last: int) -> None:
    """Write the length of the packets into the headers, as who writes such a clip would state it."""
    media = track.first(b"mdia", b"mdhd")
    (scale,) = struct.unpack_from(">I", media.body, 12)
    (movie_scale,) = struct.unpack_from(">I", movie.first(b"mvhd").body, 12)
    length = packets[-1].dts - packets[0].dts + last
    shown = max(each.pts for each in packets) - min(each.pts for each in packets) + last
    _put(media, 16, length)
    for box, place in ((movie.first(b"mvhd"), 16), (track.first(b"tkhd"), 20)):
        _put(box, place, shown * movie_scale // scale)
    for box in track.walk():
        if box.kind == b"elst":
            _put(box, 8, shown * movie_scale // scale)


def _put(box: Box, place: int, value: int) -> None:
    box.body = box.body[:place] + struct.pack(">I", value) + box.body[place + 4 :]
