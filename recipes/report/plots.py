"""The plots of a report as SVG that follows the reader's light or dark theme. Imports no torch.

matplotlib draws in marker colours, and each becomes a CSS variable: inside a page the page's own, in a file of its own
those of STYLE. Text stays text, and the same figures give the same bytes.
"""

import io
import re
from collections.abc import Callable, Mapping
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.metrics import precision_recall_curve, roc_curve

from data_prep.labels import LABELS, SAFE, UNSAFE
from recipes.metrics.prior_shift import weigh
from recipes.metrics.threshold import PLAIN_THRESHOLD
from recipes.report.look import DARK, LIGHT, SHORT_NAMES, class_in_words
from recipes.report.scored import Scored

# Each is drawn in a colour that nothing else has, and written as the variable of its name.
INK, MUTED, GRID = "#000102", "#000103", "#000104"
LABEL_COLORS = {SAFE: "#000105", UNSAFE: "#000106"}
BASE, PROBE = "#000107", "#000108"
_VARIABLES = {
    INK: "ink",
    MUTED: "muted",
    GRID: "line",
    LABEL_COLORS[SAFE]: "safe",
    LABEL_COLORS[UNSAFE]: "unsafe",
    BASE: "base",
    PROBE: "probe",
}
STYLE = f"<style>svg{{{LIGHT}}}@media (prefers-color-scheme:dark){{svg{{{DARK}}}}}</style>"

_BINS = 20
_SIZE = (4.4, 3.6)
_LOOK: Any = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 9.5,
    "text.color": INK,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "grid.color": GRID,
    "legend.frameon": False,
}


def draw_plots(report: Mapping[str, Any], scored: Scored) -> dict[str, str]:
    """Return the plots of a report as SVG by their names, in the order of reading.

    Curves that need both labels are left out where there is one.
    """
    truth, p_unsafe, threshold, prior = scored.truth, scored.p_unsafe, scored.threshold, scored.prior
    curves = [("adapter", INK, "-", p_unsafe)]
    curves += [(SHORT_NAMES[name], _COLOR_OF[name], "--", scores) for name, scores in scored.asked.items()]
    drawn: dict[str, Callable[[Figure], None]] = {
        "confusion": lambda figure: _confusion(figure, report["confusion_matrix"]),
        "classes": lambda figure: _classes(figure, report["per_source_class"]),
        "histogram": lambda figure: _histogram(figure, truth, p_unsafe, threshold),
        "reliability": lambda figure: _reliability(figure, report["calibration"]),
    }
    if len(np.unique(truth)) == len(LABELS):
        drawn["precision_recall"] = lambda figure: _precision_recall(figure, truth, curves, threshold, prior)
        drawn["roc"] = lambda figure: _roc(figure, truth, curves, threshold)
    return {name: _as_svg(name, draw) for name, draw in drawn.items()}


_COLOR_OF = {"base_model": BASE, "linear_probe": PROBE}


def _as_svg(name: str, draw: Callable[[Figure], None]) -> str:
    with mpl.rc_context({**_LOOK, "svg.hashsalt": name}):
        figure = Figure(figsize=_SIZE, layout="constrained")
        draw(figure)
        written = io.StringIO()
        figure.savefig(written, format="svg", transparent=True, metadata={"Date": None})
    svg = written.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r'<g id="[^"]+">', "<g>", svg)  # of use to nobody, and the same in every plot
    for color, variable in _VARIABLES.items():
        svg = svg.replace(color, f"var(--{variable})")
    return svg


def standalone(svg: str) -> bytes:
    """Return a plot as a file of its own, with the colours that a page would bring."""
    end = svg.index(">") + 1
    return (svg[:end] + STYLE + svg[end:]).encode()


def _axes(figure: Figure, **labels: Any) -> Axes:
    axes = figure.subplots()
    axes.set(**labels)
    axes.grid(linewidth=0.6)
    axes.set_axisbelow(True)
    return axes


def _roc(figure: Figure, truth: np.ndarray, curves: list[Any], threshold: float) -> None:
    axes = _axes(
        figure,
        xlabel=f"{SAFE} frames called {UNSAFE}",
        ylabel=f"{UNSAFE} frames found",
        xlim=(-0.02, 1.02),
        ylim=(-0.02, 1.02),
    )
    axes.plot([0, 1], [0, 1], color=GRID, linewidth=1)
    for name, color, line, scores in curves:
        false_alarms, found, _ = roc_curve(truth, scores)
        axes.plot(false_alarms, found, line, color=color, label=name, linewidth=1.6)

    def place(at: float) -> tuple[float, float]:
        called = curves[0][3] >= at
        return float(called[truth == 0].mean()), float(called[truth == 1].mean())

    _mark(axes, place, threshold)
    axes.legend(loc="lower right")


def _precision_recall(
    figure: Figure, truth: np.ndarray, curves: list[Any], threshold: float, prior: float | None
) -> None:
    axes = _axes(
        figure, xlabel=f"recall: {UNSAFE} frames found", ylabel="precision", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02)
    )
    weights = weigh(truth, prior)
    axes.axhline(float(np.average(truth, weights=weights)), color=GRID, linewidth=1)
    for name, color, line, scores in curves:
        precision, recall, _ = precision_recall_curve(truth, scores, sample_weight=weights)
        axes.plot(recall, precision, line, color=color, label=name, linewidth=1.6, drawstyle="steps-post")

    def place(at: float) -> tuple[float, float]:
        called = curves[0][3] >= at
        of_called = None if weights is None else weights[called]
        precision = float(np.average(truth[called], weights=of_called)) if called.any() else 1.0
        return float(called[truth == 1].mean()), precision

    _mark(axes, place, threshold)
    axes.legend(loc="lower left")


def _mark(axes: Axes, place: Callable[[float], tuple[float, float]], threshold: float) -> None:
    """Mark on the adapter's curve where its threshold lies, and where 0.5 would."""
    axes.plot(*place(threshold), "o", color=LABEL_COLORS[UNSAFE], markersize=8, label=f"threshold {threshold:.3g}")
    if threshold != PLAIN_THRESHOLD:
        axes.plot(*place(PLAIN_THRESHOLD), "D", color=MUTED, markersize=6, label=f"{PLAIN_THRESHOLD:g}")


def _reliability(figure: Figure, bins: list[dict[str, Any]]) -> None:
    axes = _axes(
        figure, xlabel=f"mean P({UNSAFE})", ylabel=f"share that is {UNSAFE}", xlim=(-0.04, 1.04), ylim=(-0.06, 1.12)
    )
    axes.plot([0, 1], [0, 1], color=GRID, linewidth=1)
    x, y = [row["mean_p_unsafe"] for row in bins], [row["unsafe_share"] for row in bins]
    axes.plot(x, y, "o-", color=INK, linewidth=1.2, markersize=5)
    for row, across, up in zip(bins, x, y, strict=True):
        text = f"{row['n']}"
        axes.annotate(
            text, (across, up), xytext=(0, 7), textcoords="offset points", ha="center", color=MUTED, fontsize=8
        )


def _histogram(figure: Figure, truth: np.ndarray, p_unsafe: np.ndarray, threshold: float) -> None:
    rows = figure.subplots(len(LABELS), 1, sharex=True)
    edges = np.linspace(0, 1, _BINS + 1)
    for axes, label in zip(rows, reversed(LABELS), strict=True):
        counts, _, _ = axes.hist(p_unsafe[truth == LABELS.index(label)], bins=edges, color=LABEL_COLORS[label])
        axes.axvline(threshold, color=INK, linestyle="--", linewidth=1)
        axes.set(ylabel=f"{label} frames", xlim=(0, 1))
        if counts.any():
            axes.set_yscale("log")
            axes.set_ylim(bottom=0.7)
        axes.grid(axis="y", linewidth=0.6)
        axes.set_axisbelow(True)
    rows[-1].set_xlabel(f"P({UNSAFE})")


def _confusion(figure: Figure, matrix: Mapping[str, Mapping[str, int]]) -> None:
    axes = figure.subplots()
    for row, actual in enumerate(LABELS):
        total = sum(matrix[actual].values())
        for column, answer in enumerate(LABELS):
            share = matrix[actual][answer] / total if total else 0.0
            color = LABEL_COLORS[answer]
            axes.add_patch(mpl.patches.Rectangle((column, row), 1, 1, facecolor=color, alpha=0.08 + 0.5 * share))
            axes.text(column + 0.5, row + 0.44, str(matrix[actual][answer]), ha="center", va="center", fontsize=19)
            axes.text(
                column + 0.5, row + 0.7, f"{100 * share:.1f} %" if total else "-", ha="center", va="center", color=MUTED
            )
    axes.set(xlim=(0, 2), ylim=(2, 0), xlabel="answered", ylabel="is")
    axes.set_xticks([0.5, 1.5], LABELS)
    axes.set_yticks([0.5, 1.5], LABELS, rotation=90, va="center")
    axes.tick_params(length=0, labelcolor=INK)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _classes(figure: Figure, table: Mapping[str, Mapping[str, Any]]) -> None:
    axes = _axes(figure, xlabel="share of frames answered right", xlim=(0, 1.0))
    for position, row in enumerate(table.values()):
        low, high = row["interval"] or (row["accuracy"], row["accuracy"])
        axes.barh(position, row["accuracy"], color=LABEL_COLORS[row["label"]], height=0.62, alpha=0.85)
        axes.plot([low, high], [position, position], color=INK, linewidth=1.4)
        if row["error_at_most"] is not None:
            axes.plot([1 - row["error_at_most"], 1], [position, position], ":", color=INK, linewidth=1.4)
    axes.set_yticks(range(len(table)), [class_in_words(name) for name in table])
    axes.tick_params(axis="y", length=0, labelcolor=INK)
    axes.grid(axis="y", visible=False)
    axes.invert_yaxis()


PLOT_TITLES = {
    "confusion": "What is, and what was answered: frames",
    "classes": "Frames answered right, by behaviour, with 95 % intervals; dotted: what no error leaves open",
    "histogram": f"P({UNSAFE}) of the frames of each label; dashed: the threshold",
    "reliability": f"Is P({UNSAFE}) to be taken at its word? On the diagonal it is; numbers count frames",
    "precision_recall": "Precision against recall, and where the threshold lies",
    "roc": "Frames found against false alarms, and where the threshold lies",
}
