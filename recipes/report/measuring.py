"""What an evaluation measures of an adapter: P(UNSAFE) of every frame, and how long a frame takes."""

import sys
import time
from statistics import median
from typing import Any

import torch

from data_prep.media.images import read_image
from recipes.answering.adapted_model import AdaptedModel
from recipes.answering.scoring import score_together
from recipes.metrics.linear_probe import read_probe
from recipes.metrics.prior_shift import at_prior
from recipes.ranks.group import compare, gathered
from recipes.ranks.place import is_alone
from recipes.report.contents import priors_of_baselines
from recipes.report.evaluated_split import EvaluatedSplit
from recipes.report.scored import Scored

LATENCY_FRAMES = 8


def measure_split(
    split: EvaluatedSplit, adapted: AdaptedModel, *, batch_size: int, num_workers: int = 0, base_model: bool = True
) -> Scored:
    """Score a split by the adapter, and by its base alone, where asked for, and the linear probe.

    Several processes of a job score a part each. Raises InputError where they have other adapters or frames,
    or where one has no card.

    The probe's scores are None where training fitted none. For a stated prior all are corrected.
    """
    if not is_alone():
        device = adapted.card_collator.device.type
        compare({"adapter": split.adapter.sha256(), "dataset_hash": split.source.content_hash, "device": device})
        batch_size = min(gathered(batch_size))  # as the smallest card takes
    found = score_together(
        adapted.model,
        adapted.collator,
        split.rows,
        batch_size=batch_size,
        num_workers=num_workers,
        show_progress=sys.stderr.isatty(),
        without_adapter=base_model,
        probe=read_probe(split.adapter.folder),
    )
    record, prior = adapted.record, split.prior
    baselines = {"base_model": found.without_adapter, "linear_probe": found.by_probe}
    if prior is not None:
        made_under = priors_of_baselines(record)
        baselines = {
            name: None if scores is None else at_prior(scores, training_prior=made_under[name], prior=prior)
            for name, scores in baselines.items()
        }
    p_unsafe = record.at_prior(found.p_unsafe, prior)
    return Scored.of(split.rows, p_unsafe, baselines, threshold=record.threshold_at(prior), prior=prior)


def measure_latency(adapted: AdaptedModel, rows: Any) -> dict[str, float | int]:
    """Time single frames from encoded bytes to P(UNSAFE), in milliseconds, after one that isn't counted."""
    times: list[float] = []
    encoded = [row["image"]["bytes"] for row in rows.select(range(min(LATENCY_FRAMES + 1, len(rows))))]
    for content in encoded:
        begin = time.perf_counter()
        adapted.p_unsafe([read_image(content)])
        times.append(1000 * (time.perf_counter() - begin))
    counted = times[1:] or times
    return {"frames": len(counted), "p50": median(counted), "max": max(counted)}


def device_name(adapted: AdaptedModel) -> str:
    """Name the card that the model runs on, or the CPU."""
    device = adapted.model.device
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
