"""The curves of a training run as one picture. Imports no torch."""

import io
from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure

BEST, LOSS, VALIDATION, MACRO_F1, RECALL = "#888888", "#4477aa", "#cc6677", "#228833", "#aa7733"


def training_plot(log_history: Sequence[dict[str, Any]], best_step: int | None) -> bytes:
    """Return a PNG of a trainer's log: the losses above, macro-F1 and recall on the validation frames below.

    A dashed line stands at the step whose checkpoint was kept. The same log gives the same bytes.
    """
    figure = Figure(figsize=(7, 6), layout="constrained")
    losses, figures = figure.subplots(2, 1, sharex=True)
    _curve(losses, log_history, "loss", "training loss", LOSS)
    _curve(losses, log_history, "eval_loss", "validation log loss", VALIDATION, marker="o")
    _curve(figures, log_history, "eval_macro_f1", "validation macro-F1", MACRO_F1, marker="o")
    _curve(figures, log_history, "eval_recall", "validation recall of UNSAFE", RECALL, marker="s")
    losses.set(ylabel="loss", yscale="log")  # it begins ten times as high as it ends
    figures.set(xlabel="step", ylabel="figure", ylim=(0, 1.02))
    for number, axes in enumerate((losses, figures)):
        if best_step:
            axes.axvline(best_step, color=BEST, linestyle="--", linewidth=1, label=None if number else "kept")
        axes.grid(alpha=0.3)
        if axes.get_legend_handles_labels()[1]:
            axes.legend(loc="best", frameon=False)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=110, metadata={"Software": None})
    return picture.getvalue()


def _curve(axes: Any, log: Sequence[dict[str, Any]], name: str, label: str, color: str, **style: Any) -> None:
    points = [(entry["step"], entry[name]) for entry in log if entry.get(name) is not None]
    if points:
        axes.plot(*zip(*points, strict=True), label=label, color=color, **style)
