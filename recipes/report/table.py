"""A report as text for a terminal: the headline figures side by side."""

from collections.abc import Mapping, Sequence
from typing import Any

from data_prep.labels import LABELS
from recipes.metrics.figures import READING_ORDER
from recipes.report.look import SHORT_NAMES


def as_table(report: dict[str, Any]) -> str:
    """Lay out the report's headline figures as text: the adapter's beside those of what it is compared with."""
    adapter, baselines = report["results"], report["baselines"]
    columns = [
        ("adapter", "frames", adapter["frame"]),
        ("adapter", "clips", adapter["clip"]),
        *((SHORT_NAMES[name], "frames", (baselines[name] or {}).get("frame")) for name in baselines),
    ]
    names = [figure.name for figure in READING_ORDER if figure.in_table]
    lines = [
        _line("figure", [who for who, _, _ in columns]),
        _line("", [f"{figures['n']} {unit}" if figures else "-" for _, unit, figures in columns]),
        *(_line(name, [_number((figures or {}).get(name)) for _, _, figures in columns]) for name in names),
    ]
    after = 2 + names.index("macro_f1") + 1
    lines.insert(after, _line("  95 % interval", [_range(figures, "macro_f1") for _, _, figures in columns]))
    matrix = report["confusion_matrix"]
    lines += [f"{label} frames answered " + ", ".join(f"{a} {matrix[label][a]}" for a in LABELS) for label in LABELS]
    lines += [
        mcnemar_in_words(compared["mcnemar"], "adapter", SHORT_NAMES[name])
        for name, compared in report["comparison"].items()
        if compared and compared["mcnemar"]
    ]
    return "\n".join(lines)


def _range(figures: Mapping[str, Any] | None, name: str) -> str:
    bounds = figures["intervals"][name] if figures else None
    return f"{bounds[0]:.3f}-{bounds[1]:.3f}" if bounds else "-"


def _line(name: str, cells: Sequence[str]) -> str:
    return f"{name:<18}" + "".join(f"{cell:>14}" for cell in cells)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def mcnemar_in_words(tested: dict[str, float], first: str, second: str) -> str:
    """Say in a line how many clips either alone gets right."""
    return (
        f"clips that the {first} alone gets right {tested['only_first_right']}, the {second} alone "
        f"{tested['only_second_right']}; McNemar's p {tested['p_value']:.2g}"
    )
