"""A base's weights read from its files, and written into others, one tensor at a time: no model stands in memory.

safetensors' own writer takes all of a file's tensors at once, 4 GB of the 7B's.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path

import torch
from bitsandbytes.functional import QuantState
from safetensors import safe_open

from data_prep.disk.disk_errors import named
from data_prep.files import sync
from recipes.layers.four_bit import Weight
from recipes.model.base import BaseModel
from recipes.model.base_files import language_linears, read_header, weight_files
from recipes.model.published_layout import published_name

_DTYPES = {torch.bfloat16: "BF16", torch.float32: "F32"}  # by safetensors' names
_STATE_MARK = ".weight.quant_state.bitsandbytes__"
_STATE_PARTS = ("absmax", "quant_map", "nested_absmax", "nested_quant_map")


class StoredWeights:
    """The weights of a base as its files have them, in 16 or 32 bits or in bitsandbytes' 4, by published names."""

    def __init__(self, base: BaseModel) -> None:
        self._folder = base.folder
        self._headers = {file: read_header(base.name, base.folder / file) for file in weight_files(base.folder)}
        self._places = {
            published_name(stored): (file, stored) for file, header in self._headers.items() for stored in header
        }
        self._linears = {f"model.{name}.weight": shape for name, shape in language_linears(base.read_config()).items()}

    @cached_property
    def _packed(self) -> dict[str, str]:
        """The names under which the packed weights' states are stored, by weight."""
        return {f"{name.partition(_STATE_MARK)[0]}.weight": name for name in self._places if _STATE_MARK in name}

    @cached_property
    def files(self) -> dict[str, list[str]]:
        """The tensors of each file, in its order, without what packed weights have beside them."""
        beside = {f"{weight}.{part}" for weight in self._packed for part in _STATE_PARTS} | {*self._packed.values()}
        return {
            file: [name for name in map(published_name, header) if name not in beside]
            for file, header in self._headers.items()
        }

    def shape(self, name: str) -> tuple[int, ...]:
        """Return a tensor's shape, of a packed weight that of the unpacked one."""
        if name in self._packed:
            return self._linears[name]
        file, stored = self._places[name]
        return self._headers[file][stored].shape

    def read(self, name: str, device: torch.device) -> Weight:
        """Return a tensor, packed or not, on a device. Its file isn't held open, nor what else was read of it."""
        values = self._tensor(name).to(device)
        if name not in self._packed:
            return Weight(values, None)
        state_name = self._packed[name]
        parts = {state_name.removeprefix(f"{name}."): self._tensor(state_name)}
        parts |= {part: self._tensor(f"{name}.{part}") for part in _STATE_PARTS if f"{name}.{part}" in self._places}
        return Weight(values, QuantState.from_dict(parts, device=device))

    def _tensor(self, name: str) -> torch.Tensor:
        file, stored = self._places[name]
        with named(self._folder / file), safe_open(self._folder / file, framework="pt") as weights:
            found: torch.Tensor = weights.get_tensor(stored).clone()
        return found


def file_size(shapes: Mapping[str, Sequence[int]], dtype: torch.dtype) -> int:
    """Return how many bytes write_weights writes."""
    return len(_header(shapes, dtype)) + sum(math.prod(shape) for shape in shapes.values()) * dtype.itemsize


def write_weights(
    file: Path, shapes: Mapping[str, Sequence[int]], dtype: torch.dtype, tensor: Callable[[str], torch.Tensor]
) -> None:
    """Write a safetensors file of tensors of these names and shapes, each made by `tensor` when its turn comes.

    The file is on the disk when this returns. Raises ValueError where one comes in another shape or dtype, OSError
    naming the file where it can't be written.
    """
    with named(file, file_size(shapes, dtype)):
        with file.open("wb") as out:
            out.write(_header(shapes, dtype))
            for name, shape in shapes.items():
                made = tensor(name)
                if tuple(made.shape) != tuple(shape) or made.dtype != dtype:
                    raise ValueError(f"{name} is {made.dtype} of shape {tuple(made.shape)}, not {dtype} of {shape}")
                out.write(made.cpu().contiguous().view(-1).view(torch.uint8).numpy())
        sync(file)


def _header(shapes: Mapping[str, Sequence[int]], dtype: torch.dtype) -> bytes:
    """Return a safetensors file's beginning: its length in 8 bytes, then JSON, padded so that tensors are aligned."""
    described: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, shape in shapes.items():
        end = offset + math.prod(shape) * dtype.itemsize
        described[name] = {"dtype": _DTYPES[dtype], "shape": [*shape], "data_offsets": [offset, end]}
        offset = end
    header = json.dumps(described, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header
