"""Real CCTV clips through all of data_prep: extraction, rows, push, load. How each frame looks, test_extract_frames."""

from collections import Counter
from pathlib import Path

import pytest

from data_prep import build_jsonl, extract_frames, push_dataset
from data_prep.clips.archive import DATASET_FOLDER
from data_prep.hub.source import open_dataset
from data_prep.rows.jsonl import read_rows
from tests.made_clips import real_clip

# The containers say 23.04 s, 30.16 s and 139.4 s: frames at the seconds 0 to 23, 0 to 30 and 0 to 139.
PERSON, CARS, TRAFFIC = (
    ("intel_one-by-one-person-detection.mp4", 140),
    ("intel_car-detection.mp4", 31),
    ("dvrscan_traffic_camera.mp4", 24),
)
PLACES = {
    "train/2_opened_panel cover/2_tr1.mp4": PERSON,
    "train/0_safe_walkway_violation/0_tr1.mp4": TRAFFIC,
    "train/4_safe_walkway/4_tr1.mp4": CARS,
    "test/2_opened_panel_cover/2_te1.mp4": CARS,
    "test/4_safe_walkway/4_te1.mp4": TRAFFIC,
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("real")
    for place, (name, _) in PLACES.items():
        path = folder / DATASET_FOLDER / place
        path.parent.mkdir(parents=True)
        path.write_bytes(real_clip(f"cctv/{name}").read_bytes())
    assert extract_frames.main(["--data", str(folder)]) == 0
    assert build_jsonl.main(["--data", str(folder), "--keep-leaks"]) == 0  # three contents for five clips
    return folder


def test_as_many_frames_as_seconds_say(data: Path) -> None:
    expected = {Path(place).stem: count for place, (_, count) in PLACES.items()}
    rows = [row for split in ("train", "test") for row in read_rows(data / f"{split}.jsonl")]
    assert Counter(row.image.split("/")[3] for row in rows) == expected
    assert {row.response for row in rows if "/2_t" in row.image} == {"UNSAFE"}


def test_pushed_and_loaded_frame_by_frame(data: Path) -> None:
    push_dataset.main(["--data", str(data), "--repo-id", "local/real-clips"])
    pushed = open_dataset("local/real-clips")
    assert pushed.content_hash == open_dataset(str(data)).content_hash
    for split in ("train", "test"):
        jpegs = [(data / row.image).read_bytes() for row in read_rows(data / f"{split}.jsonl")]
        assert [row["image"]["bytes"] for row in pushed.rows(split)] == jpegs
    assert set(pushed.dataset["test"]["source_class"]) == {"2_opened_panel_cover", "4_safe_walkway"}
