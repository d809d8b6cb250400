"""An adapter added to its base's weights, tensor by tensor, as files: rounded once, with no model in memory."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from bitsandbytes.nn import Params4bit
from peft import LoraConfig
from safetensors import SafetensorError, safe_open

from data_prep.errors import InputError
from data_prep.files import as_json
from recipes.adapter.folder import WEIGHTS_FILE, Adapter
from recipes.layers.four_bit import Weight, unpacked_rows
from recipes.model.base_files import INDEX_FILE, WEIGHT_FILE, language_linears
from recipes.model.published_layout import published_name
from recipes.model.quantized import quantization_config
from recipes.model.weight_files import StoredWeights, file_size, write_weights

_PEFT_PREFIX = "base_model.model."


@dataclass(frozen=True)
class Update:
    """What LoRA adds to a weight of shape (out, in): scaling times B A (arXiv 2106.09685).

    `a` has shape (r, in) and `b` (out, r), both in fp32.
    """

    a: torch.Tensor
    b: torch.Tensor
    scaling: float

    def added_to(self, weight: torch.Tensor, start: int = 0) -> torch.Tensor:
        """Return rows of a weight from `start` on with theirs added, in fp32, rounded once to the weight's dtype."""
        b = self.b[start : start + len(weight)].to(weight.device)
        return torch.addmm(weight.float(), b, self.a.to(weight.device), alpha=self.scaling).to(weight.dtype)


def read_updates(adapter: Adapter) -> dict[str, Update]:
    """Return what an adapter adds, by the published name of the weight that it is added to.

    Raises InputError where its weights are damaged, no numbers, or not exactly those that its configuration needs.
    """
    folder = adapter.folder
    config = LoraConfig.from_pretrained(folder)
    scaling = config.lora_alpha / (math.sqrt(config.r) if config.use_rslora else config.r)
    try:
        with safe_open(folder / WEIGHTS_FILE, framework="pt") as stored:
            tensors = {name: stored.get_tensor(name).float() for name in stored.keys()}  # noqa: SIM118  # no mapping
    except SafetensorError as error:
        raise InputError(f"adapter {folder}: {WEIGHTS_FILE} is damaged ({error}); train it again") from None
    tensors = {published_name(name.removeprefix(_PEFT_PREFIX)): tensor for name, tensor in tensors.items()}
    updates, expected = {}, set()
    for module, (out, into) in _targets(adapter, config).items():
        a, b = (f"{module}.lora_{part}.weight" for part in "AB")
        expected |= {a, b}
        if a in tensors and b in tensors:
            if tensors[a].shape != (config.r, into) or tensors[b].shape != (out, config.r):
                raise InputError(f"adapter {folder}: {module} has other shapes than its base; train it again")
            updates[f"{module}.weight"] = Update(tensors[a], tensors[b], scaling)
    if differing := expected ^ set(tensors):
        raise InputError(
            f"adapter {folder}: {len(differing)} weights are missing or unknown, among them {min(differing)}; it is "
            "damaged or for another base, train it again"
        )
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise InputError(f"adapter {folder}: {name} holds values that are no numbers; train it again")
    return updates


def _targets(adapter: Adapter, config: LoraConfig) -> dict[str, tuple[int, int]]:
    """Return the (out, in) shape of each linear that the adapter is on, by its published name."""
    assert config.target_modules is not None
    return {
        f"model.{linear}": shape
        for linear, shape in language_linears(adapter.base.read_config()).items()
        if linear.rpartition(".")[2] in config.target_modules
    }


class MergedWeights:
    """A base's weights with an adapter in them, in the dtype that the adapter is computed in.

    By default the base is as training saw it: what was trained in 4 bits is packed into them, or comes packed, and is
    written out again. With `original` the base's own 16 or 32 bits are taken in their place.
    """

    def __init__(self, adapter: Adapter, device: torch.device, *, original: bool = False) -> None:
        self.dtype: torch.dtype = getattr(torch, adapter.record.dtype)
        self._stored, self._device = StoredWeights(adapter.base), device
        self._updates = read_updates(adapter)
        self._pack = adapter.record.load_in_4bit and not original
        self._linears = {f"model.{linear}.weight" for linear in language_linears(adapter.base.read_config())}

    @cached_property
    def shapes(self) -> dict[str, dict[str, tuple[int, ...]]]:
        """The shape of each tensor of each file."""
        return {file: {name: self._stored.shape(name) for name in names} for file, names in self._stored.files.items()}

    def tensor(self, name: str) -> torch.Tensor:
        """Return a weight with what the adapter adds to it, if anything."""
        stored = self._stored.read(name, self._device)
        if name not in self._linears:
            return stored.values.to(self.dtype)
        weight = self._packed(stored) if self._pack else stored
        if weight.state is None:
            weight = Weight(weight.values.to(self.dtype), None)
        update = self._updates.get(name)
        return torch.cat(
            [
                rows if update is None else update.added_to(rows, start)
                for start, _, rows in unpacked_rows(weight, self.dtype)
            ]
        )

    def _packed(self, weight: Weight) -> Weight:
        """Return a weight in 4 bits, packed as loading packs it."""
        if weight.state is not None:
            return weight
        how = quantization_config(self.dtype)
        packed = Params4bit(
            weight.values.to(self.dtype),
            requires_grad=False,
            quant_type=how.bnb_4bit_quant_type,
            compress_statistics=how.bnb_4bit_use_double_quant,
        ).to(self._device)
        return Weight(packed.data, packed.quant_state)


def size_of(shapes: Mapping[str, Mapping[str, tuple[int, ...]]], dtype: torch.dtype) -> int:
    """Return how many bytes the files of write_merged take, but for the index."""
    return sum(file_size(of_file, dtype) for of_file in shapes.values())


def write_merged(weights: MergedWeights, folder: Path) -> None:
    """Write an adapter's base with it merged in, file by file of the base's own names, and their index."""
    shapes = weights.shapes
    for file, of_file in shapes.items():
        write_weights(folder / file, of_file, weights.dtype, weights.tensor)
    if list(shapes) == [WEIGHT_FILE]:
        return
    tensors = [(name, file) for file, of_file in shapes.items() for name in of_file]
    size = sum(math.prod(shape) for of_file in shapes.values() for shape in of_file.values()) * weights.dtype.itemsize
    index = {"metadata": {"total_size": size}, "weight_map": dict(sorted(tensors))}
    (folder / INDEX_FILE).write_bytes(as_json(index))
