"""What bench_doubts found: each statistic's ranking of each run, and what leaving frames out regained."""

from collections.abc import Collection, Mapping, Sequence
from statistics import mean
from typing import Any

import numpy as np
from sklearn.metrics import roc_auc_score

from data_prep.labels import UNSAFE
from data_prep.rows.frames import Frame
from recipes.metrics.doubt import STATISTICS, by_row
from recipes.metrics.seen_rows import SeenRows

FIRST_CLIPS = 10
YARDSTICK = "out of fold, two trainings more"
ROWS = {
    "flipped_10": ("10 % of labels flipped: found in the top fifth", "top_fifth", 0.8),
    "flipped_20": ("20 % of labels flipped: found in the top two fifths", "top_two_fifths", 0.8),
    "wrong_clips": ("clips on the wrong side among the first ten", "first_clips", 6),
    "late": ("late clips: AUROC of hidden seconds among UNSAFE frames", "auroc_unsafe", 0.85),
}
REGAINED = {"flipped_20": "20 % of labels flipped", "late": "late clips"}


def ranking_figures(
    frames: Sequence[Frame], seen: SeenRows, wrong: Collection[str], out_of_fold: np.ndarray | None = None
) -> dict[str, dict[str, float]]:
    """Return of each statistic how it ranks a run's frames, of which those images bear a wrong label.

    `out_of_fold` is the yardstick's log-odds, None where that wasn't measured.

    `top_fifth` and `top_two_fifths` are shares of the wrong ones; `auroc_unsafe` is among frames labelled UNSAFE;
    `first_clips` counts clips of wrong frames alone among the first ten by their frames' mean doubt.
    """
    clips = np.unique([frame.clip for frame in frames], return_inverse=True)[1]
    is_wrong = np.array([frame.image in wrong for frame in frames])
    unsafe = np.array([frame.response == UNSAFE for frame in frames])
    log_odds = by_row(seen, len(frames))
    doubts = {name: statistic(log_odds, clips) for name, statistic in STATISTICS.items()}
    figures = {}
    for name, doubt in (doubts | ({} if out_of_fold is None else {YARDSTICK: -out_of_fold})).items():
        order = np.argsort(-doubt, kind="stable")
        of_clip = np.bincount(clips, weights=doubt) / np.bincount(clips)
        wholly_wrong = np.bincount(clips, weights=is_wrong) == np.bincount(clips)
        figures[name] = {
            "top_fifth": _share(is_wrong, order, 0.2),
            "top_two_fifths": _share(is_wrong, order, 0.4),
            "auroc_unsafe": float(roc_auc_score(is_wrong[unsafe], doubt[unsafe])),
            "first_clips": int(wholly_wrong[np.argsort(-of_clip, kind="stable")[:FIRST_CLIPS]].sum()),
        }
    return figures


def _share(is_wrong: np.ndarray, order: np.ndarray, share: float) -> float:
    return float(is_wrong[order[: round(share * len(order))]].sum() / is_wrong.sum())


def summarise(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return, by arm, each statistic's figure by seed; macro-F1 by seed; and what was regained of what noise cost."""
    by_arm: dict[str, dict[int, Mapping[str, Any]]] = {}
    for run in runs:
        by_arm.setdefault(run["arm"], {})[run["seed"]] = run
    rankings = {
        arm: {
            name: {
                str(seed): run["rankings"][name][figure]
                for seed, run in by_arm.get(arm, {}).items()
                if name in run["rankings"]
            }
            for name in (*STATISTICS, YARDSTICK)
        }
        for arm, (_, figure, _) in ROWS.items()
    }
    macro_f1 = {arm: {str(seed): run["frame_macro_f1"] for seed, run in of.items()} for arm, of in by_arm.items()}
    return {"rankings": rankings, "frame_macro_f1": macro_f1, "regained": regained(macro_f1)}


def regained(macro_f1: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
    """Return of each noise, over the seeds that have all three runs, what it cost and what leaving out regained."""
    found = {}
    for arm in REGAINED:
        of = [macro_f1.get(name, {}) for name in ("clean", arm, f"{arm}_reviewed")]
        seeds = sorted(set(of[0]) & set(of[1]) & set(of[2]))
        if seeds:
            clean, noisy, reviewed = (mean(figures[seed] for seed in seeds) for figures in of)
            share = (reviewed - noisy) / (clean - noisy) if clean > noisy else None
            found[arm] = {"seeds": seeds, "cost": clean - noisy, "regained": reviewed - noisy, "share": share}
    return found


def as_table(summary: Mapping[str, Any]) -> str:
    """Lay the figures out as Markdown: a row a statistic, then macro-F1 and what was regained."""
    names = [words for words, _, _ in ROWS.values()]
    lines = [f"| ranked by | {' | '.join(names)} |", "|---|" + "---:|" * len(names)]
    lines.append(f"| the goal | {' | '.join(f'{goal:g} or more' for _, _, goal in ROWS.values())} |")
    for statistic in (*STATISTICS, YARDSTICK):
        cells = [_cell(summary["rankings"][arm][statistic]) for arm in ROWS]
        lines.append(f"| {statistic} | {' | '.join(cells)} |")
    lines += ["", "| run | macro-F1, frames |", "|---|---:|"]
    lines += [f"| {arm} | {_cell(figures, 3)} |" for arm, figures in summary["frame_macro_f1"].items()]
    lines.append("")
    for arm, of in summary["regained"].items():
        share = "-" if of["share"] is None else f"{of['share']:.0%}"
        lines.append(f"- {REGAINED[arm]}: cost {of['cost']:.3f}, regained {of['regained']:+.3f}, {share}")
    return "\n".join(lines)


def _cell(by_seed: Mapping[str, float], digits: int = 2) -> str:
    if not by_seed:
        return "-"
    mean_of_them, *each = (
        f"{value:.{digits}f}".removesuffix(".00") for value in (mean(by_seed.values()), *by_seed.values())
    )
    return f"{mean_of_them} ({', '.join(each)})"
