"""Several data folders as one data set, and whole cameras held out."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from data_prep import build_jsonl
from data_prep.clips.jsonl import CLIPS_FILE, write_clips
from data_prep.clips.records import Clip
from data_prep.errors import InputError
from data_prep.rows.dataset import dataset_of
from data_prep.rows.frames import Frame
from data_prep.rows.joining import Joined, image_of, join_folders
from data_prep.rows.jsonl import read_rows, write_rows
from tests.tiny_data import make_clip, many_clips, write_data

pytestmark = pytest.mark.usefixtures("own_cache")


def plant(folder: Path, clips: Sequence[Clip], *, built: bool = True) -> Path:
    write_data(folder, list(clips))
    if built:
        assert build_jsonl.main(["--data", str(folder)]) == 0
    return folder


def of_plant(name: str, *, cameras: bool = False) -> list[Clip]:
    """The names of clips are the same in each plant, the contents are its own."""
    clips = [make_clip(c.split, int(c.source_class[0]), c.video_id, f"{name} {c.video_id}") for c in many_clips(2)]
    gates = ["gate", "hall", "yard"]
    return [replace(clip, camera=gates[number % 3]) for number, clip in enumerate(clips)] if cameras else clips


def frames_of(joined: Joined) -> list[Frame]:
    return [frame for frames in joined.splits.values() for frame in frames]


def test_clips_of_several_folders_bear_their_folders_names(tmp_path: Path) -> None:
    folders = [plant(tmp_path / name, of_plant(name, cameras=True)) for name in ("north", "south")]
    joined = join_folders(folders)
    clips = {frame.clip for frame in frames_of(joined)}
    assert clips == {f"{name}/{clip.video_id}" for name in ("north", "south") for clip in of_plant(name)}
    assert {frame.camera for frame in frames_of(joined)} == {
        f"{name}/{camera}" for name in ("north", "south") for camera in ("gate", "hall", "yard")
    }
    dataset = dataset_of(joined.splits)
    assert sum(len(dataset[split]) for split in dataset) == 2 * 48
    assert len(dataset["test"].unique("clip")) == 16


def test_a_single_folder_keeps_its_names(tmp_path: Path) -> None:
    folder = plant(tmp_path / "north", of_plant("north", cameras=True))
    assert {frame.clip for frame in frames_of(join_folders([folder]))} == {c.video_id for c in of_plant("north")}
    assert {frame.camera for frame in frames_of(join_folders([folder]))} == {"gate", "hall", "yard"}


def test_content_is_never_in_two_splits_whichever_folders_it_is_from(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In train: a copy of the other's test clip, a copy under the other label, and one that is no leak.

    And one of what the other has under both labels, neither of which has a row there.
    """
    north = [*of_plant("north"), make_clip("train", 1, "a", "south 1_te0"), make_clip("train", 0, "b", "south 5_tr0")]
    north += [make_clip("train", 2, "c", "south 2_tr0"), make_clip("train", 3, "d", "odd")]
    south = [*of_plant("south"), make_clip("train", 3, "e", "odd"), make_clip("train", 7, "f", "odd")]
    folders = [plant(tmp_path / "north", north), plant(tmp_path / "south", south)]
    capsys.readouterr()
    joined = join_folders(folders)
    clips = {frame.clip for frame in frames_of(joined)}
    assert not clips & {"north/a", "north/b", "north/d", "south/5_tr0", "south/e", "south/f"}
    assert {"north/c", "south/2_tr0", "south/1_te0"} <= clips
    assert "left out of train: 4 clips, 8 frames" in capsys.readouterr().err
    assert joined.audit
    assert {each["path"] for each in joined.audit["left_out_of_train"]} == {
        "north/train/1_unauthorized_intervention/a.mp4",
        "north/train/0_safe_walkway_violation/b.mp4",
        "north/train/3_carrying_overload_with_forklift/d.mp4",
        "south/train/3_carrying_overload_with_forklift/e.mp4",
        "south/train/7_safe_carrying/f.mp4",
        "south/train/5_authorized_intervention/5_tr0.mp4",
    }
    assert len(joined.audit["leaks_in_train"]) == len(joined.audit["left_out_of_train"]) == 6
    assert [each["clip"] for each in joined.audit["test_clips_with_twins"]] == ["south/1_te0"]
    by_split = [{frame.clip_sha256 for frame in frames} for frames in joined.splits.values()]
    assert sum(map(len, by_split)) == len(set().union(*by_split))


def test_audit_counts_all_clips_and_is_none_where_one_has_none(tmp_path: Path) -> None:
    folders = [plant(tmp_path / name, of_plant(name, cameras=True)) for name in ("north", "south")]
    audit = join_folders(folders).audit
    assert audit and audit["splits"]["train"]["clips"] == 32
    assert list(audit["cameras"]) == [
        f"{name}/{camera}" for name in ("north", "south") for camera in ("gate", "hall", "yard")
    ]
    assert all(
        path.startswith(("north/", "south/")) for group in audit["near_identical_clips"] for path in group["paths"]
    )
    (folders[1] / "audit.json").unlink()
    assert join_folders(folders).audit is None


def test_frames_kept_otherwise_are_of_no_one_format(tmp_path: Path) -> None:
    folders = [plant(tmp_path / name, of_plant(name)) for name in ("north", "south")]
    assert join_folders(folders).frame_format == join_folders(folders[:1]).frame_format is not None
    other = [replace(c, settings=replace(c.settings, max_side=640)) for c in of_plant("south")]
    write_clips(folders[1] / CLIPS_FILE, other)
    assert join_folders(folders).frame_format is None


def test_folders_of_one_name_or_of_a_splits(tmp_path: Path) -> None:
    for one, other in (("a/north", "b/North"), ("a/north", "a/north"), ("a/train", "a/north")):
        folders = [tmp_path / one, tmp_path / other]
        for folder in folders:
            plant(folder, of_plant("north"), built=False)
        with pytest.raises(InputError, match="names must differ, and none may be train or test"):
            join_folders(folders)


def test_different_questions_are_refused(tmp_path: Path) -> None:
    folders = [plant(tmp_path / name, of_plant(name), built=False) for name in ("north", "south")]
    for split in ("train", "test"):
        file = folders[1] / f"{split}.jsonl"
        write_rows(file, [replace(row, prompt="SAFE or UNSAFE?") for row in read_rows(file)])
    with pytest.raises(InputError, match=r"asks 'You are .* and .* asks 'SAFE or UNSAFE\?'; .* the same --prompt"):
        join_folders(folders)


def test_one_class_under_two_labels_is_refused(tmp_path: Path) -> None:
    def own(name: str, label: str) -> list[Clip]:
        return [
            *of_plant(name),
            replace(make_clip("train", 0, "x", name), own_class=True, source_class="gate", label=label),
        ]

    folders = [
        plant(tmp_path / name, own(name, label), built=False)
        for name, label in (("north", "SAFE"), ("south", "UNSAFE"))
    ]
    with pytest.raises(InputError, match=r"'gate' is SAFE in .*north.* and UNSAFE in .*south"):
        join_folders(folders)


def test_camera_that_is_held_out_is_the_test_split_and_nowhere_else(tmp_path: Path) -> None:
    clips = of_plant("north", cameras=True)
    copied = next(c for c in clips if c.camera == "yard" and c.split == "train")
    twin = replace(make_clip("train", int(copied.source_class[0]), "twin"), sha256=copied.sha256, camera="gate")
    folder = plant(tmp_path / "north", [*clips, twin], built=False)
    splits = join_folders([folder], test_camera="yard").splits
    assert {frame.camera for frame in splits["test"]} == {"yard"}
    assert {frame.camera for frame in [*splits["train"], *splits["validation"]]} == {"gate", "hall"}
    learnt = {frame.clip for frame in [*splits["train"], *splits["validation"]]}
    assert learnt == {c.video_id for c in clips if c.camera != "yard" and c.split == "train"}
    expected = {f"train/{c.video_id}" if c.split == "train" else c.video_id for c in clips if c.camera == "yard"}
    assert {frame.clip for frame in splits["test"]} == expected
    with pytest.raises(InputError, match=r"--test-camera 'attic' is none of .* cameras; known: gate, hall, yard"):
        join_folders([folder], test_camera="attic")


@pytest.mark.parametrize(
    ("clip", "split", "image"),
    [
        ("7_te1", "test", "frames/test/safe/7_te1/0003.jpg"),
        ("7_tr1", "validation", "frames/train/safe/7_tr1/0003.jpg"),
        ("train/7_tr1", "test", "frames/train/safe/7_tr1/0003.jpg"),
        ("north/7_te1", "test", "north/frames/test/safe/7_te1/0003.jpg"),
        ("north/train/7_tr1", "test", "north/frames/train/safe/7_tr1/0003.jpg"),
    ],
)
def test_image_of_a_clip_by_its_name(clip: str, split: str, image: str) -> None:
    assert image_of(clip, 3, split=split, label="SAFE") == image


def test_images_of_all_that_is_joined_and_held_out_are_there(tmp_path: Path) -> None:
    folders = [plant(tmp_path / name, of_plant(name, cameras=True)) for name in ("north", "south")]
    for split, frames in join_folders(folders, test_camera="south/yard").splits.items():
        for frame in frames:
            image = image_of(frame.clip, frame.sample, split=split, label=frame.response)
            assert image == f"{Path(frame.folder).name}/{frame.image}"


def test_whole_cameras_are_held_out_for_validation(tmp_path: Path) -> None:
    clips = of_plant("north", cameras=True)
    held = next(c for c in clips if c.camera == "hall" and c.split == "train")
    twin = replace(make_clip("train", int(held.source_class[0]), "twin"), sha256=held.sha256, camera=None)
    folder = plant(tmp_path / "north", [*clips, twin], built=False)
    chosen = set()
    for seed in range(6):
        splits = join_folders([folder], validation="camera", seed=seed).splits
        assert splits == join_folders([folder], validation="camera", seed=seed).splits
        held_out = {frame.camera for frame in splits["validation"]} - {None}
        assert not held_out & {frame.camera for frame in splits["train"]}
        for split in ("train", "validation"):
            assert {frame.response for frame in splits[split]} == {"SAFE", "UNSAFE"}
        assert ("twin" in {frame.clip for frame in splits["validation"]}) == ("hall" in held_out)
        chosen |= held_out
    assert chosen == {"gate", "hall", "yard"}, "seeds draw different ones"


def test_cameras_that_cannot_part_the_labels(tmp_path: Path) -> None:
    clips = of_plant("north")
    by_label = [replace(c, camera=c.label.lower()) for c in clips]
    for number, its in enumerate((clips, by_label)):
        with pytest.raises(InputError, match=f"--validation camera: of {2 * number} known cameras none can"):
            join_folders([plant(tmp_path / str(number), its, built=False)], validation="camera")
