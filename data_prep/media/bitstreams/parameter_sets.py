"""The parameter sets of H.264 and HEVC that are in force, and whether new ones came (ITU-T H.264 and H.265, 7.4.1)."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Generic, Protocol, TypeVar

from data_prep.media.bitstreams.bit_reader import Unreadable
from data_prep.media.bitstreams.nal_units import unescaped


class _Pps(Protocol):
    @property
    def sps(self) -> int:
        """The number of the SPS that it goes with."""


Sps = TypeVar("Sps")
Pps = TypeVar("Pps", bound=_Pps)


class ParameterSets(ABC, Generic[Sps, Pps]):
    """Takes in parameter sets, as they come, and keeps the last of each kind and number."""

    def __init__(self) -> None:
        self.pairs: Mapping[int, tuple[Sps, Pps]] = {}  # by the PPS's number; another object whenever any changes
        self.are_new = False  # whether any differs from what was in force before; the reader takes it back
        self._units: dict[tuple[int, int], bytes] = {}
        self._sps: dict[int, Sps] = {}
        self._pps: dict[int, Pps] = {}

    def take(self, kind: int, unit: bytes) -> None:
        """Take in a set, by its NAL unit, new or repeated. One that can't be read brings nothing, but is new."""
        unit = unit.rstrip(b"\0")
        if unit in self._units.values():
            return
        self.are_new = True
        try:
            number = self._read(kind, unescaped(unit))
        except Unreadable:
            number = -1
        self._units[kind, number] = unit
        self.pairs = {number: (self._sps[pps.sps], pps) for number, pps in self._pps.items() if pps.sps in self._sps}

    @abstractmethod
    def _read(self, kind: int, unit: bytes) -> int:
        """Keep what is read of a set in `_sps` or `_pps`, and return its number. Raises Unreadable."""
