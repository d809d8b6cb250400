"""A report as one self-contained HTML page, for people. Imports no torch."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from markupsafe import Markup

from data_prep.labels import LABELS, SAFE, UNSAFE
from recipes.metrics.figures import READING_ORDER
from recipes.metrics.intervals import at_most_without_error
from recipes.report.look import DARK, LIGHT, SHORT_NAMES, class_in_words, is_small_base
from recipes.report.mistakes import when
from recipes.report.plots import PLOT_TITLES
from recipes.report.templates import template


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
        said.append(f"By the mean P({UNSAFE}) of each clip's frames, {right} of the clips{alike} are right.")
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

    `plots` are draw_plots'; `mistakes` are worst_mistakes', each with its `picture`, a data URI, and the `strip` of its
    neighbours, or None and none where frames aren't to be shown. `fps` is how many frames a second were taken, None
    where that isn't known.
    """
    config = report["config"]
    return template("report.html.j2", _FILTERS).render(
        report=report,
        config=config,
        record=config["trained_with"],
        headline=headline(report),
        plots={name: Markup(svg) for name, svg in plots.items()},
        plot_titles=PLOT_TITLES,
        figure_names={figure.name: figure.words for figure in READING_ORDER},
        compared=_compared(report),
        short_names=SHORT_NAMES,
        mistakes=[_with_times(mistake, fps) for mistake in mistakes],
        labels=LABELS,
        safe=SAFE,
        unsafe=UNSAFE,
        is_small_base=is_small_base(config["model"]),
        light=Markup(LIGHT),
        dark=Markup(DARK),
    )


def _with_times(mistake: Mapping[str, Any], fps: float | None) -> dict[str, Any]:
    """Return a mistake that says of itself and its neighbours where in the clip they are."""
    neighbours = [{**each, "when": when(each["sample"], fps)} for each in mistake["strip"]]
    return {**mistake, "when": when(mistake["sample"], fps), "strip": neighbours}


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
