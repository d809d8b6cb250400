"""A report written into its folder. Imports no torch."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from data_prep.files import as_json, write_together
from data_prep.media.images import read_image
from recipes.report.contents import predictions
from recipes.report.evaluated_split import EvaluatedSplit
from recipes.report.look import thumbnail
from recipes.report.mistakes import worst_mistakes
from recipes.report.neighbours import ClipsOfRows, strip
from recipes.report.page import report_page
from recipes.report.plots import draw_plots, standalone
from recipes.report.scored import Scored


def write_report(
    folder: Path, report: dict[str, Any], split: EvaluatedSplit, scored: Scored, *, without_frames: bool = False
) -> None:
    """Write predictions.jsonl, the plots, report.html and report.json: all of them, or none."""
    frames = predictions(scored, split.name)
    lines = "".join(json.dumps(frame, allow_nan=False) + "\n" for frame in frames).encode()
    plots = draw_plots(report, scored)
    mistakes = with_pictures(worst_mistakes(frames), split.rows, without_frames=without_frames)
    page = report_page(report, plots, mistakes, fps=(split.source.audit or {}).get("fps"))
    report = {**report, "predictions_sha256": hashlib.sha256(lines).hexdigest()}
    folder.mkdir(parents=True, exist_ok=True)
    contents = {
        "predictions.jsonl": lines,
        **{f"plots/{name}.svg": standalone(svg) for name, svg in plots.items()},
        "report.html": page.encode(),
        "report.json": as_json(report),
    }
    write_together(folder, contents)


def with_pictures(mistakes: Sequence[dict[str, Any]], rows: Any, *, without_frames: bool) -> list[dict[str, Any]]:
    """Return the mistakes, each with its frame's `picture` and the `strip` of its neighbours, or with neither."""
    if without_frames:
        return [{**mistake, "picture": None, "strip": []} for mistake in mistakes]
    samples = rows["sample"][:]
    clips = ClipsOfRows(rows["clip"][:], samples)

    def pictures(row: int) -> dict[str, Any]:
        picture = thumbnail(read_image(rows[row]["image"]["bytes"]))
        return {"picture": picture, "strip": strip(rows, clips.around(row), samples)}

    return [{**mistake, **pictures(mistake["row"])} for mistake in mistakes]
