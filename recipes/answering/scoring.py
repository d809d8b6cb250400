"""P(UNSAFE) from one forward pass: the one way in which training, evaluation and inference answer."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Any

import numpy as np
import torch
from peft import PeftModel
from tqdm import tqdm

from data_prep.errors import InputError
from data_prep.labels import LABELS, SAFE, UNSAFE
from recipes.answering.pooling import pooled_batch
from recipes.batches.collator import VisionCollator
from recipes.batches.loader import batches
from recipes.metrics.linear_probe import LinearProbe
from recipes.model.cuda_graphs import GraphedFunction
from recipes.model.device import memory_told
from recipes.model.forward import Batch, add_image_features, insert_image_features, last_hidden, rows_of_head, to_device
from recipes.ranks.group import gathered
from recipes.ranks.place import here, is_alone
from recipes.ranks.shares import whole_batches

Grids = tuple[tuple[int, ...], ...]


class NoProbabilityError(InputError):
    """A P(UNSAFE) that is no number: nothing may be answered from it."""


class ScoringLeftError(Exception):
    """A pass was left before its end, by all processes, because one of them was to leave it."""


def label_token_ids(collator: VisionCollator) -> list[int]:
    """Return the ids of the first tokens of SAFE and UNSAFE, in the order of LABELS.

    Raises ValueError for a tokenizer that begins both answers with the same token: one position couldn't tell them.
    """
    first = [collator.answer_ids[label][0] for label in LABELS]
    if len(set(first)) != len(first):
        raise ValueError(f"the tokenizer begins {SAFE} and {UNSAFE} with the same token {first[0]}")
    return first


class Scorer:
    """Gives P(UNSAFE) of batches, with one model; with `cuda_graphs`, frames of a size that keeps coming are replayed.

    The model may be a base with an adapter on it, or one that has taken its adapter in. Threads that ask at once are
    answered one after another: a model, and above all the memory that its graphs work in, takes one batch at a time.
    """

    def __init__(self, model: torch.nn.Module, label_ids: Sequence[int], *, cuda_graphs: bool = False) -> None:
        self.base = model.get_base_model() if isinstance(model, PeftModel) else model
        device = self.base.model.language_model.norm.weight.device
        self._rows = rows_of_head(self.base.lm_head, label_ids, device).float()
        self._graphed = GraphedFunction(self._p_unsafe) if cuda_graphs else None
        self._one_at_a_time = Lock()

    def __call__(self, batch: Batch) -> np.ndarray:
        """Return P(UNSAFE), of shape (batch,), as float64.

        `batch` comes from VisionCollator.prompts: its last position is the one that predicts the answer's first token.
        The probability is a softmax over the two labels' tokens alone, so SAFE and UNSAFE sum to 1, and no other row of
        the LM head is needed, wherever that lies. Raises NoProbabilityError where one is no number.
        """
        p_unsafe = self.on_device(batch).double().cpu().numpy()
        if not np.isfinite(p_unsafe).all():
            raise NoProbabilityError(
                f"P({UNSAFE}) is no number, so there is no answer: adapter or base is damaged; train or fetch it again"
            )
        return p_unsafe

    @torch.no_grad()
    def on_device(self, batch: Batch) -> torch.Tensor:
        """Return what a call returns, in fp32 on the model's device, unchecked and without waiting for it.

        Raises CardFullError where the card's memory is too short.
        """
        grids: Grids = tuple(map(tuple, batch["image_grid_thw"].tolist()))
        with self._one_at_a_time, memory_told(len(grids)):
            inputs = to_device(self.base, batch)
            return self._p_unsafe(inputs, grids) if self._graphed is None else self._graphed(inputs, grids)

    def _p_unsafe(self, inputs: Mapping[str, torch.Tensor], grids: Grids) -> torch.Tensor:
        hidden = last_hidden(self.base, insert_image_features(self.base, inputs, torch.tensor(grids)), 1)[:, 0]
        # In fp32, or two logits around 20 come in steps of an eighth: a bf16 product has eight bits for all of it.
        return (hidden.float() @ self._rows.t()).softmax(dim=-1)[:, LABELS.index(UNSAFE)]


@dataclass(frozen=True)
class SplitScores:
    """What one pass over n rows gave: P(UNSAFE) by the model with its adapter, and without, both of shape (n,).

    `by_probe` is P(UNSAFE) by a linear probe on each frame's mean vision-tower feature. What wasn't asked for is None.
    """

    p_unsafe: np.ndarray
    without_adapter: np.ndarray | None
    by_probe: np.ndarray | None

    @classmethod
    def joined(cls, parts: Sequence["SplitScores"]) -> "SplitScores":
        """Return what passes over one part of a split after the other gave, one at least, as one."""

        def column(name: str) -> Any:
            values = [getattr(part, name) for part in parts]
            return None if values[0] is None else np.concatenate(values)

        return cls(column("p_unsafe"), column("without_adapter"), column("by_probe"))


def score_together(
    model: torch.nn.Module, collator: VisionCollator, rows: Any, *, batch_size: int, **how: Any
) -> SplitScores:
    """Return what score_split does, each process of a job having scored its part of the rows.

    Batches are those of one process, so that the scores are, to the digit. `rows` is a data set; where one process is
    alone, anything indexable. `how` are score_split's further arguments.
    """
    if is_alone():
        return score_split(model, collator, rows, batch_size=batch_size, **how)
    mine = whole_batches(len(rows), batch_size, here().rank, here().ranks)
    left, found = False, None
    try:
        found = score_split(model, collator, rows.select(mine), batch_size=batch_size, **how) if mine else None
    except ScoringLeftError:
        left = True  # the others are told where all meet
    parts = gathered((left, found))
    if any(left for left, _ in parts):
        raise ScoringLeftError
    return SplitScores.joined([part for _, part in parts if part is not None])


def score_rows(
    model: torch.nn.Module,
    collator: VisionCollator,
    rows: Any,
    *,
    batch_size: int,
    **how: Any,
) -> np.ndarray:
    """Return P(UNSAFE) of every row, in order, as float64 of shape (rows,); see score_together."""
    return score_together(model, collator, rows, batch_size=batch_size, **how).p_unsafe


def score_split(
    model: torch.nn.Module,
    collator: VisionCollator,
    rows: Any,
    *,
    batch_size: int,
    num_workers: int = 0,
    show_progress: bool = False,
    without_adapter: bool = False,
    probe: LinearProbe | None = None,
    is_left: Callable[[], bool] = lambda: False,
) -> SplitScores:
    """Score every row, in order, with the adapter and, where asked for, without it, and by a linear probe.

    The vision tower, which bears no adapter, sees each frame once for all of these. `rows` is anything indexable.
    Raises NoProbabilityError where a P(UNSAFE) is no number, CardFullError where the card's memory is too short, and
    ScoringLeftError once `is_left`, which is asked before each batch, says so.
    """
    loader = batches(rows, collator.prompts, batch_size=batch_size, num_workers=num_workers)
    was_training = model.training
    model.eval()
    score = Scorer(model, label_token_ids(collator))
    with_it: list[np.ndarray] = []
    without: list[np.ndarray] = []
    by_probe: list[np.ndarray] = []
    for batch in tqdm(loader, desc="scoring", unit="batch", disable=None if show_progress else True):
        if is_left():
            raise ScoringLeftError
        with memory_told(batch_size):
            seen = add_image_features(score.base, batch)
        with_it.append(score(seen))
        if without_adapter:
            with model.disable_adapter():
                without.append(score(seen))
        if probe:
            by_probe.append(probe.p_unsafe(pooled_batch(score.base, seen)))
    model.train(was_training)
    if_asked = (np.concatenate(each) if each else None for each in (without, by_probe))
    return SplitScores(np.concatenate(with_it), *if_asked)
