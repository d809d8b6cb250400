"""A report as one self-contained HTML page, for people. Imports no torch."""

import base64
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

from data_prep.files import PROJECT_ROOT, from_root
from data_prep.labels import LABELS, SAFE, UNSAFE
from recipes.metrics.intervals import at_most_without_error
from recipes.report.contents import SHORT_NAMES
from recipes.report.plots import DARK, LIGHT, class_in_words

MOST_MISTAKES = 12
THUMBNAIL_SIDE = 360  # pixels
SMALL_BASE = PROJECT_ROOT / "tiny_base" / "weights"

PLOT_TITLES = {
    "confusion": "What is, and what was answered: frames",
    "classes": "Frames answered right, by behaviour, with 95 % intervals; dotted: what no error leaves open",
    "histogram": "P(UNSAFE) of the frames of each label; dashed: the threshold",
    "reliability": "Is P(UNSAFE) to be taken at its word? On the diagonal it is; numbers count frames",
    "precision_recall": "Precision against recall, and where the threshold lies",
    "roc": "Frames found against false alarms, and where the threshold lies",
}
FIGURE_NAMES = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "precision": "precision of UNSAFE",
    "recall": "recall of UNSAFE",
    "f1": "F1 of UNSAFE",
    "macro_f1": "macro-F1",
    "mcc": "Matthews correlation",
    "auroc": "AUROC",
    "average_precision": "average precision",
    "brier": "Brier score (less is better)",
    "calibration_error": "calibration error (less is better)",
}


def worst_mistakes(frames: Sequence[Mapping[str, Any]], most: int = MOST_MISTAKES) -> list[dict[str, Any]]:
    """Return the frames that were answered wrong with the most confidence, the worst of each clip, the worst first.

    `frames` are those of predictions.jsonl. Each result has the frame's `row` among them, and how many of its clip's
    `frames_wrong` there are of `frames_in_clip`.
    """
    by_clip: dict[str, list[dict[str, Any]]] = {}
    in_clip: dict[str, int] = {}
    for row, frame in enumerate(frames):
        in_clip[frame["clip"]] = in_clip.get(frame["clip"], 0) + 1
        if frame["answer"] != frame["label"]:
            by_clip.setdefault(frame["clip"], []).append({**frame, "row": row})
    worst = [
        {**max(wrong, key=_confidence), "frames_wrong": len(wrong), "frames_in_clip": in_clip[clip]}
        for clip, wrong in by_clip.items()
    ]
    return sorted(worst, key=lambda frame: (-_confidence(frame), frame["row"]))[:most]


def _confidence(frame: Any) -> float:
    p_unsafe: float = frame["p_unsafe"]
    return p_unsafe if frame["answer"] == UNSAFE else 1 - p_unsafe


def thumbnail(image: Image.Image) -> str:
    """Return an RGB image, shrunk, as a data URI."""
    small = image.copy()
    small.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
    content = io.BytesIO()
    small.save(content, format="JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(content.getvalue()).decode()


def headline(report: Mapping[str, Any]) -> list[str]:
    """Say what was found in a few plain sentences."""
    frame, clip = report["results"]["frame"], report["results"]["clip"]
    matrix = report["confusion_matrix"]
    unsafe, safe = (sum(matrix[label].values()) for label in (UNSAFE, SAFE))
    of_clips = f" of {clip['n']} clips" if clip else ""
    prior = report["threshold"]["prior"]["stated"]
    weighed = "" if prior is None else f", weighed for a share of {prior:g} {UNSAFE} ones"
    alike = "" if prior is None else ", weighed alike,"
    clips = report["clips"]
    right = _share(frame, "accuracy", clip["n"] if clip else max(clips.values()))
    said = [f"Of {frame['n']} frames{of_clips}{weighed}, {right} were answered right."]
    if unsafe:
        said.append(
            f"Of {unsafe} {UNSAFE} frames it found {matrix[UNSAFE][UNSAFE]} and missed {matrix[UNSAFE][SAFE]}: "
            f"{_share(frame, 'recall', clips[UNSAFE])} found."
        )
    if safe:
        said.append(f"Of {safe} {SAFE} frames it called {matrix[SAFE][UNSAFE]} {UNSAFE}, a false alarm.")
    if clip:
        right = _share(clip, "accuracy", clip["n"])
        said.append(f"By the mean P(UNSAFE) of each clip's frames, {right} of the clips{alike} are right.")
    base = report["comparison"].get("base_model")
    if base and (macro_f1 := base["frame"]["macro_f1"]) and macro_f1["interval"]:
        low, high = macro_f1["interval"]
        said.append(
            f"Macro-F1 on frames is {macro_f1['first']:.3f}; its base without the adapter has "
            f"{macro_f1['second']:.3f}, a difference of {macro_f1['value']:+.3f} ({low:+.3f} to {high:+.3f})."
        )
    return said


def _share(figures: Mapping[str, Any], name: str, clips: int) -> str:
    """Return a figure in per cent with its interval in words; without an error on `clips`, what may still go wrong."""
    text, bounds = f"{100 * figures[name]:.1f} %", figures["intervals"][name]
    if figures[name] == 1.0:
        at_most = 100 * at_most_without_error(clips)
        return f"{text} (without an error on {clips} clips: up to {at_most:.1f} % of clips may still go wrong)"
    return f"{text} (95 % interval {100 * bounds[0]:.1f} to {100 * bounds[1]:.1f} %)" if bounds else text


def report_page(
    report: Mapping[str, Any],
    plots: Mapping[str, str],
    mistakes: Sequence[Mapping[str, Any]],
    *,
    fps: float | None,
) -> str:
    """Return the page. It asks for nothing from outside.

    `plots` are draw_plots'; `mistakes` are worst_mistakes', each with its `picture`, a data URI, or None where frames
    aren't to be shown. `fps` is how many frames a second were taken, None where that isn't known.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(_FILTERS)
    config = report["config"]
    return environment.get_template("report.html.j2").render(
        report=report,
        config=config,
        record=config["trained_with"],
        headline=headline(report),
        plots={name: Markup(svg) for name, svg in plots.items()},
        plot_titles=PLOT_TITLES,
        figure_names=FIGURE_NAMES,
        compared=_compared(report),
        short_names=SHORT_NAMES,
        mistakes=[{**mistake, "when": when(mistake["sample"], fps)} for mistake in mistakes],
        labels=LABELS,
        is_small_base=is_small_base(config["model"]),
        light=Markup(LIGHT),
        dark=Markup(DARK),
    )


def is_small_base(base_model: str) -> bool:
    """Say whether a base, by its name in safety.json, is the small one that ships with the project."""
    return from_root(base_model) == SMALL_BASE


def when(sample: int, fps: float | None) -> str:
    """Say where in its clip a frame is: the second at which its slot begins, or its number without a rate."""
    return f"sample {sample}" if fps is None else "second " + f"{sample / fps:.3f}".rstrip("0").rstrip(".")


def _compared(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the rows of the comparison: the adapter, then what it is compared with, each with the difference."""
    rows = [{"name": "adapter", "figures": report["results"]["frame"], "difference": None, "mcnemar": None}]
    for name, results in report["baselines"].items():
        if results:
            compared = report["comparison"].get(name) or {}
            rows.append(
                {
                    "name": SHORT_NAMES[name],
                    "figures": results["frame"],
                    "difference": (compared.get("frame") or {}).get("macro_f1"),
                    "mcnemar": compared.get("mcnemar"),
                }
            )
    return rows


def _number(value: float | None, digits: int = 3) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _bounds(value: Sequence[float] | None, spec: str = ".3f") -> str:
    return "-" if value is None else f"{value[0]:{spec}} to {value[1]:{spec}}"


_FILTERS: dict[str, Callable[..., Any]] = {"number": _number, "bounds": _bounds, "class_in_words": class_in_words}
