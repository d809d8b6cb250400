"""The fastest plan that a machine bears, by the predictions of this folder. No torch."""

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from data_prep.disk.byte_counts import GIB
from recipes.layers.sizes import ALL, counted, layers_of, vision_blocks_of
from recipes.machine.memory import PROCESS_BYTES, RESERVED, MemoryNeed, predict_memory, shortages
from recipes.machine.placed_weights import SLOTS
from recipes.machine.plan import (
    AT_ONCE,
    HOST_OPTIMIZERS,
    HOW,
    RECOMPUTED,
    TABLES,
    Machine,
    NoPlanError,
    Plan,
    agrees,
    at_once,
    contradiction,
    epochs_of,
)
from recipes.machine.training_time import predict_time

# Layers on the card unpacked, compiled, replayed as a graph. What is in 4 bits is compiled once it is unpacked.
WAYS = [how for how in product((False, True), repeat=3) if how[0] or not how[1]]
WAYS_IN_16_BITS = [how for how in product((False, True), repeat=3) if not how[0]]

MOST_FRAMES = 16  # on the card at once; an H100 is busy with them
EVAL_FRAMES = (16, 8, 4, 2, 1)  # at once, where none learns
ENOUGH_EVAL_FRAMES = 4  # fewer leave the card waiting, so they are taken where nothing else fits
SPARE_BYTES = 0.25 * GIB  # of the card, for what torch's allocator keeps in pieces beyond its share by RESERVED
TIE = 0.01  # of a run's predicted time, less than the prediction knows


def plan_run(
    settings: Mapping[str, Any],
    pinned: Mapping[str, Any],
    config: Mapping[str, Any],
    machine: Machine,
    *,
    frames: int,
) -> Plan:
    """Plan training on so many frames on a base of that `config` for the least predicted time.

    `settings` are all of a run's, `pinned` those of PLANNED that stay as they are. An update takes `frames_an_update`
    frames, however many are on the card at once. Of plans whose times differ by less than TIE the one that needs least
    of the card is taken. Raises InputError where no plan agrees with what is pinned, and NoPlanError where none fits,
    with what the machine lacks for the one that is closest to it.
    """
    for eval_frames in (ENOUGH_EVAL_FRAMES, EVAL_FRAMES[-1]):
        search = _Search(settings, pinned, config, machine, frames, eval_frames)
        plans = [plan for way in search.ways() if (plan := search.placed(way))]
        if plans:
            break
    else:
        if search.closest is None:
            raise contradiction(pinned)
        raise NoPlanError(search.what_is_short(search.closest))
    epochs = epochs_of(settings, frames)
    seconds = [plan.time.run(frames, epochs, machine.kept) for plan in plans]
    alike = [plan for plan, each in zip(plans, seconds, strict=True) if each <= (1 + TIE) * min(seconds)]
    return search.with_eval_frames(min(alike, key=lambda plan: plan.need.card_gib))


@dataclass
class _Search:
    """The plans of a run on a machine; `closest` is what the one needs that lacks least of those that don't fit.

    `eval_frames` are at once where none learns, unless that is pinned.
    """

    settings: Mapping[str, Any]
    pinned: Mapping[str, Any]
    config: Mapping[str, Any]
    machine: Machine
    frames: int
    eval_frames: int
    closest: MemoryNeed | None = None

    def ways(self) -> Iterator[dict[str, Any]]:
        """Yield what may be chosen, but for how many layers and blocks are recomputed or stream: that follows."""
        update = self.settings["frames_an_update"]
        counts = [
            count
            for count in range(1, update + 1)
            if update % count == 0 and (count <= MOST_FRAMES or set(AT_ONCE) & set(self.pinned))
        ]
        on_card = WAYS if self.settings["load_in_4bit"] else WAYS_IN_16_BITS
        tables = product((False, True), repeat=len(TABLES))
        for count, kept, how, places in product(counts, (False, True), on_card, tables):
            way = {
                **at_once(update, count),
                "cache_vision_features": kept,
                **dict(zip(HOW, how, strict=True)),
                **dict(zip(TABLES, places, strict=True)),
            }
            if self._is_open(way):
                yield way

    def _is_open(self, way: Mapping[str, Any]) -> bool:
        if way["cuda_graphs"] and way["head_on_host"]:
            return False
        if way["optimizer_on_host"] and (self.settings["optim"] not in HOST_OPTIMIZERS or self.settings["optim_args"]):
            return False
        if way["compile_layers"] and not self.machine.compiles:
            return False
        return agrees(way, self.pinned)

    def placed(self, way: Mapping[str, Any]) -> Plan | None:
        """Return the fastest plan of a way; None where none fits or agrees with what is pinned."""
        streams = not any(way[name] for name in HOW)
        layers = self._on_host("layers_on_host", layers_of(self.config), streams=streams)
        blocks = self._on_host("vision_blocks_on_host", vision_blocks_of(self.config), streams=streams)
        recomputed = [count for count in self._recomputed() if not (way["cuda_graphs"] and count)]
        if not (layers and blocks and recomputed):
            return None
        least = self._need(self._values(way, recomputed[-1], layers[-1], blocks[-1]))
        if not self._fits_card(least):
            self._note(least)
            return None
        plans = []
        for count in recomputed:
            plan = self._least_on_host(way, count, layers, blocks)
            if plan is not None:
                plans.append(plan)
                if (plan.values["layers_on_host"], plan.values["vision_blocks_on_host"]) == (layers[0], blocks[0]):
                    break  # recomputing more would spare nothing
        return min(plans, key=lambda plan: plan.time.frame) if plans else None

    def _on_host(self, name: str, number: int, *, streams: bool) -> list[str]:
        """Return how many of so many layers or blocks may lie on the host, the fewest first, as the setting says it."""
        counts = sorted({0, *range(SLOTS + 1, number), number}) if streams else [0]
        words = [ALL if count == number else str(count) for count in counts]
        pinned = self.pinned.get(name)
        return [word for word in words if pinned is None or counted(pinned, number) == counted(word, number)]

    def _recomputed(self) -> list[int]:
        """Return how many layers may be recomputed, the fewest first."""
        layers, switch, count = layers_of(self.config), *(self.pinned.get(name) for name in RECOMPUTED)
        if switch is False:
            return [0]
        counts = range(layers + 1) if count is None else [counted(count, layers)]
        return [each for each in counts if each or switch is None]

    def _least_on_host(
        self, way: Mapping[str, Any], recomputed: int, layers: Sequence[str], blocks: Sequence[str]
    ) -> Plan | None:
        """Return the plan that has as little as must on the host, decoder layers before vision blocks."""
        places = [(count, blocks[0]) for count in layers] + [(layers[-1], count) for count in blocks[1:]]
        all_values = [self._values(way, recomputed, *place) for place in places]
        first = bisect_left(all_values, True, key=lambda values: self._fits_card(self._need(values)))
        if first == len(places):
            return None
        values, need = all_values[first], self._need(all_values[first])
        if self._lacking(need):
            self._note(need)
            return None
        return Plan(
            values,
            need,
            predict_time({**self.settings, **values}, self.config, self.machine.card, kernels=self.machine.compiles),
        )

    def _values(self, way: Mapping[str, Any], recomputed: int, layers: str, blocks: str) -> dict[str, Any]:
        all_layers = recomputed in (0, layers_of(self.config))
        return {
            **way,
            "per_device_eval_batch_size": self.pinned.get("per_device_eval_batch_size", self.eval_frames),
            "activation_checkpointing": recomputed > 0,
            "recomputed_layers": ALL if all_layers else str(recomputed),
            "layers_on_host": layers,
            "vision_blocks_on_host": blocks,
        }

    def _need(self, values: Mapping[str, Any]) -> MemoryNeed:
        return predict_memory({**self.settings, **values}, self.config)

    def with_eval_frames(self, plan: Plan) -> Plan:
        """Return the plan with as many frames at once, where none learns, as fit beside the rest of it."""
        if "per_device_eval_batch_size" in self.pinned:
            return plan
        for frames in EVAL_FRAMES:
            values = {**plan.values, "per_device_eval_batch_size": frames}
            need = self._need(values)
            if not self._lacking(need):
                break
        return plan._replace(values=values, need=need)

    def _fits_card(self, need: MemoryNeed) -> bool:
        return RESERVED * need.card_gib * GIB + SPARE_BYTES <= self.machine.card_bytes

    def _lacking(self, need: MemoryNeed) -> float:
        """Return the bytes that the machine lacks for a plan, of card, host and disk together."""
        lacking = (
            RESERVED * need.card_gib * GIB + SPARE_BYTES - self.machine.card_bytes,
            need.host_gib * GIB + PROCESS_BYTES - self.machine.host_bytes,
            self._disk_bytes(need) - self.machine.disk_bytes,
        )
        return sum(max(0.0, each) for each in lacking)

    def _disk_bytes(self, need: MemoryNeed) -> float:
        return need.disk_bytes_a_frame * max(0, self.frames - self.machine.kept)

    def _note(self, need: MemoryNeed) -> None:
        if self.closest is None or self._lacking(need) < self._lacking(self.closest):
            self.closest = need

    def what_is_short(self, need: MemoryNeed) -> str:
        """Say in words what the machine lacks for a plan."""
        machine = self.machine
        missing = shortages(need, card_bytes=machine.card_bytes, host_bytes=machine.host_bytes, spare_bytes=SPARE_BYTES)
        disk = self._disk_bytes(need)
        if disk > machine.disk_bytes:
            free = machine.disk_bytes / GIB
            missing.append(f"the disk has {free:.1f} GiB free, and {disk / GIB:.1f} are needed to keep features")
        return f"{'; '.join(missing)}; take a lower max_pixels, or fewer lora_target_modules"
