"""The demo's clips are drawn again where anything that draws them has changed."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from data_prep.clips.archive import DATASET_FOLDER
from data_prep.demo.clips import plan_clips
from data_prep.demo.record import DRAWING, Settings, hash_of_drawing, prepare
from data_prep.files import PROJECT_ROOT
from tests.project.test_layering import MODULES, imports

PLAN = plan_clips("train", 8)


@pytest.fixture
def drawing(tmp_path: Path) -> Path:
    """Return a copy of the folder that draws, to change."""
    return Path(shutil.copytree(DRAWING, tmp_path / "drawing", ignore=shutil.ignore_patterns("__pycache__")))


def recorded_clips(out: Path, drawing: Path) -> Settings:
    """Record clips as drawn by the code in that folder; what is in them doesn't matter here."""
    settings = Settings(seed=0, train_clips=8, test_clips=8, generator=hash_of_drawing(drawing))
    for clip in prepare(out, settings, PLAN):
        (out / DATASET_FOLDER / clip.path).write_bytes(b"drawn")
    assert prepare(out, settings, PLAN) == []
    return settings


@pytest.mark.parametrize("source", sorted(path.name for path in DRAWING.glob("*.py")))
def test_a_change_of_any_file_that_draws_makes_clips_stale(tmp_path: Path, drawing: Path, source: str) -> None:
    settings = recorded_clips(tmp_path / "out", drawing)
    with (drawing / source).open("a") as file:
        file.write("# another\n")
    assert prepare(tmp_path / "out", replace(settings, generator=hash_of_drawing(drawing)), PLAN) == PLAN
    assert not list((tmp_path / "out").rglob("*.mp4"))


def test_a_file_more_or_renamed_makes_clips_stale_and_litter_does_not(drawing: Path) -> None:
    first = hash_of_drawing(drawing)
    for litter in ("__pycache__/stage.cpython-312.pyc", "._stage.py", ".#stage.py", "notes.txt"):
        (drawing / litter).parent.mkdir(exist_ok=True)
        (drawing / litter).write_bytes(b"x")
    assert hash_of_drawing(drawing) == first
    (drawing / "weather").mkdir()
    (drawing / "weather/rain.py").touch()
    more = hash_of_drawing(drawing)
    (drawing / "weather/rain.py").rename(drawing / "weather/snow.py")
    assert len({first, more, hash_of_drawing(drawing)}) == 3


def test_all_that_draws_lies_in_one_folder() -> None:
    """But for the names and labels of the eight classes: its hash tells nothing of a change elsewhere."""
    assert PROJECT_ROOT / "data_prep" / "demo" == DRAWING
    reached, waiting = set(), {"data_prep.demo.clips"}
    while waiting:
        module = waiting.pop()
        reached.add(module)
        waiting |= (imports(MODULES[module]) & set(MODULES)) - reached
    assert {name for name in reached if not name.startswith("data_prep.demo.")} == {
        "data_prep.errors",
        "data_prep.labels",
    }
