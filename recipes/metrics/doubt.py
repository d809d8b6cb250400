"""How doubtful a row's label is, from the log-odds that training noted of it. No torch.

`log_odds` is by_row's table, of shape (rows, sightings); `clips` numbers each row's clip, of shape (rows,). Each
statistic is of shape (rows,), the higher the more doubtful.
"""

from collections.abc import Callable, Mapping

import numpy as np
from scipy.special import expit

from recipes.metrics.seen_rows import SeenRows

Statistic = Callable[[np.ndarray, np.ndarray], np.ndarray]


def by_row(seen: SeenRows, rows: int) -> np.ndarray:
    """Return the log-odds of so many rows at each time they were seen, in order: (rows, sightings).

    A row that was seen less often than others has NaN at the end. All that was seen must be of these rows.
    """
    order = np.argsort(seen.row, kind="stable")
    row, counts = seen.row[order], np.bincount(seen.row, minlength=rows)
    time = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)
    table = np.full((rows, counts.max(initial=0)), np.nan)
    table[row, time] = seen.log_odds[order]
    return table


def later_margin(log_odds: np.ndarray) -> np.ndarray:
    """Return the mean log-odds over the later half of the times that each row was seen, of shape (rows,).

    What an untrained model says at first is of the model, not of the row. Of three times the last two count.
    """
    times = (~np.isnan(log_odds)).sum(axis=1, keepdims=True)
    return np.nanmean(np.where(np.arange(log_odds.shape[1]) >= times // 2, log_odds, np.nan), axis=1)


def doubt_of_rows(log_odds: np.ndarray, clips: np.ndarray) -> np.ndarray:
    """Return what recipes/doubts.py ranks frames by: the later margin, and how far it is below its clip's others'.

    Of the statistics here it was the best at flipped labels and late seconds together (benchmarks/bench_doubts.py).
    """
    margin = later_margin(log_odds)
    return below_others(margin, clips) - margin


def mean_margin(log_odds: np.ndarray, _clips: np.ndarray) -> np.ndarray:
    """Return the mean log-odds, turned round: the area under the margin of arXiv 2001.10528."""
    return -np.nanmean(log_odds, axis=1)


def mean_confidence(log_odds: np.ndarray, _clips: np.ndarray) -> np.ndarray:
    """Return the mean P of the other label: the confidence of arXiv 2009.10795, turned round."""
    return np.nanmean(expit(-log_odds), axis=1)


def spread(log_odds: np.ndarray, _clips: np.ndarray) -> np.ndarray:
    """Return the standard deviation of P over the times: the variability of arXiv 2009.10795."""
    return np.nanstd(expit(log_odds), axis=1)


def forgetting(log_odds: np.ndarray, _clips: np.ndarray) -> np.ndarray:
    """Return how often a row was right and then wrong, as arXiv 1812.05159 counts; one never right is above all."""
    right = log_odds > 0
    forgotten = (right[:, :-1] & (log_odds[:, 1:] <= 0)).sum(axis=1)
    return np.where(right.any(axis=1), forgotten, log_odds.shape[1]).astype(float)


def clip_relative(log_odds: np.ndarray, clips: np.ndarray) -> np.ndarray:
    """Return by how much the mean log-odds are below those of the clip's other frames."""
    return below_others(np.nanmean(log_odds, axis=1), clips)


def below_others(values: np.ndarray, clips: np.ndarray) -> np.ndarray:
    """Return by how much each value is below the mean of the other rows of its clip, 0 where there is none."""
    return np.where(np.bincount(clips)[clips] > 1, of_others(values, clips) - values, 0.0)


def of_others(values: np.ndarray, clips: np.ndarray) -> np.ndarray:
    """Return the mean of the other rows of each row's clip, of shape (rows,); 0 where there is none."""
    count = np.bincount(clips)[clips] - 1
    return (np.bincount(clips, weights=values)[clips] - values) / np.maximum(count, 1)


STATISTICS: Mapping[str, Statistic] = {
    "later margin, and below its clip": doubt_of_rows,
    "later margin": lambda log_odds, _clips: -later_margin(log_odds),
    "mean margin": mean_margin,
    "mean P": mean_confidence,
    "spread of P": spread,
    "forgetting": forgetting,
    "clip-relative mean margin": clip_relative,
}
