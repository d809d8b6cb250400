import hashlib
import io
import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import datasets
import huggingface_hub.constants
import pyarrow.parquet
import pytest

from data_prep import build_jsonl, push_dataset
from data_prep.clips.jsonl import CLIPS_FILE, write_clips
from data_prep.clips.records import Settings
from data_prep.errors import InputError
from data_prep.files import PROJECT_ROOT
from data_prep.hub.old_versions import prune
from data_prep.hub.source import FramesSource, open_dataset
from data_prep.media.frame_format import FrameFormat
from data_prep.rows.content import content_hash
from tests.hub_stub import HubStub, Repo, hub_stub
from tests.tiny_data import many_clips, write_data

SCRIPT = PROJECT_ROOT / "data_prep" / "push_dataset.py"


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hf" / "hub"))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf" / "datasets")
    return write_data(tmp_path / "data", many_clips(train_per_class=2))


def run_remote(hub: HubStub, home: Path, data: Path, repo_id: str) -> subprocess.CompletedProcess[str]:
    """Run the script against the stub, in a process of its own: the libraries read these variables on import."""
    environment = {
        **os.environ,
        "HF_HOME": str(home),
        "HF_ENDPOINT": hub.url,
        "HF_TOKEN": "hf_stub",
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
    for name in ("HF_HUB_CACHE", "HF_DATASETS_CACHE"):
        environment.pop(name, None)
    command = [sys.executable, str(SCRIPT), "--data", str(data), "--remote", "--repo-id", repo_id]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100)


def test_local_push_prints_id_version_hash_and_counts(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert push_dataset.main(["--data", str(data), "--repo-id", "local/tiny"]) == 0
    first = capsys.readouterr().out.splitlines()
    assert first[0] == "id local/tiny"
    assert [len(line) for line in first[1:3]] == [len("version ") + 40, len("content ") + 64]
    assert first[3:] == [
        "train 16 frames of 8 clips (SAFE 8, UNSAFE 8)",
        "validation 16 frames of 8 clips (SAFE 8, UNSAFE 8)",
        "test 16 frames of 8 clips (SAFE 8, UNSAFE 8)",
    ]
    push_dataset.main(["--data", str(data), "--repo-id", "local/tiny"])
    assert capsys.readouterr().out.splitlines() == first
    push_dataset.main(["--data", str(data), "--repo-id", "local/tiny", "--seed", "1"])
    assert capsys.readouterr().out.splitlines()[1] != first[1]


def test_audit_goes_along_with_its_rows_alone(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert build_jsonl.main(["--data", str(data)]) == 0
    audit = json.loads((data / "audit.json").read_text())
    push_dataset.main(["--data", str(data), "--repo-id", "local/audited"])
    assert open_dataset("local/audited").audit == open_dataset(str(data)).audit == audit
    assert (audit["fps"], audit["test_clips_with_twins"]) == (1.0, [])
    rows = (data / "train.jsonl").read_text().splitlines(keepends=True)
    (data / "train.jsonl").write_text("".join(rows[1:]))
    capsys.readouterr()
    push_dataset.main(["--data", str(data), "--repo-id", "local/audited"])
    assert "warning: audit.json isn't of these rows" in capsys.readouterr().err
    assert open_dataset("local/audited").audit is None


def test_how_frames_were_kept_goes_along_whatever_became_of_the_rows(data: Path) -> None:
    """It has no part in the content; where clips differ in it, it isn't known."""
    content = []
    shrunk, another = Settings(fps=1.0, jpeg_quality=80, max_side=640), Settings(2.0, jpeg_quality=80, max_side=320)
    for last, expected in ((shrunk, FrameFormat(640, 80)), (another, None)):
        clips = [replace(clip, settings=shrunk) for clip in many_clips(train_per_class=2)]
        write_clips(data / CLIPS_FILE, [*clips[:-1], replace(clips[-1], settings=last)])
        push_dataset.main(["--data", str(data), "--repo-id", "local/tiny"])
        for source in (open_dataset("local/tiny"), open_dataset(str(data))):
            assert source.frames == expected
            assert source.max_side == (640 if expected else None)
            content.append(source.content_hash)
    assert len(set(content)) == 1


def pushed(data: Path, repo_id: str = "local/tiny", *flags: str) -> FramesSource:
    """Push, and open what was pushed."""
    assert push_dataset.main(["--data", str(data), "--repo-id", repo_id, *flags]) == 0
    return open_dataset(repo_id)


def drop_a_row(data: Path) -> None:
    rows = (data / "test.jsonl").read_text().splitlines(keepends=True)
    (data / "test.jsonl").write_text("".join(rows[1:]))


def test_what_a_push_was_built_in_is_gone(data: Path, tmp_path: Path) -> None:
    """A picture is in Parquet, for the Hub's cache, and in Arrow, for that of `datasets`; older versions in Parquet."""
    frame = (data / "frames/test/safe/4_te0/0000.jpg").read_bytes()
    for parquet in (1, 2):
        pushed(data)
        files = [path for path in (tmp_path / "hf").rglob("*") if path.is_file() and not path.is_symlink()]
        suffixes = [path.suffix for path in files if frame in path.read_bytes()]
        assert sorted(suffixes) == [*[""] * parquet, ".arrow"]
        drop_a_row(data)


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("data_prep.files.PROJECT_ROOT", tmp_path)
    (tmp_path / "outputs" / "mine" / "run").mkdir(parents=True)
    return tmp_path / "outputs"


def blobs(home: Path, repo_id: str) -> int:
    return len(list((home / "hf" / "hub" / f"datasets--{repo_id.replace('/', '--')}" / "blobs").iterdir()))


def test_older_versions_are_told_of_and_removed_where_that_is_asked_for(
    data: Path, runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = pushed(data, "local/other")
    first = pushed(data)
    whole, files = count_bytes(tmp_path), blobs(tmp_path, "local/tiny")
    drop_a_row(data)
    second = pushed(data)
    opened = open_dataset("local/tiny", revision=first.revision)
    told = r"1 older versions that no run in outputs/ was trained on take \d+ kB; --prune removes"
    assert re.search(told, capsys.readouterr().err)
    assert open_dataset("local/tiny", revision=first.revision).content_hash == first.content_hash
    pushed(data, "local/tiny", "--prune")
    assert re.search(r"1 older versions removed; \d+ kB freed", capsys.readouterr().err)
    with pytest.raises(InputError, match="is no version of local/tiny"):
        open_dataset("local/tiny", revision=first.revision)
    assert open_dataset("local/tiny").content_hash == second.content_hash == content_hash(second.dataset)
    assert content_hash(opened.dataset) == first.content_hash, "whoever has it open reads on"
    assert open_dataset("local/other").content_hash == other.content_hash
    assert blobs(tmp_path, "local/tiny") == files
    assert count_bytes(tmp_path) <= whole
    pushed(data, "local/tiny", "--prune")
    assert "0 older versions removed; 0 kB freed" in capsys.readouterr().err


def count_bytes(home: Path) -> int:
    return sum(path.lstat().st_size for path in (home / "hf").rglob("*") if path.is_file() and not path.is_symlink())


@pytest.mark.parametrize("name", ["run.json", "safety.json"])
def test_what_a_run_was_trained_on_is_kept(
    data: Path, runs: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    first = pushed(data)
    (runs / "mine" / "run" / name).write_text(json.dumps({"dataset_hash": first.content_hash}))
    (runs / "run.json").write_text("[]")
    (runs / "safety.json").write_text("{torn")
    drop_a_row(data)
    second = pushed(data)
    assert "--prune" not in capsys.readouterr().err
    drop_a_row(data)
    pushed(data, "local/tiny", "--prune")
    assert "1 older versions removed, 1 kept that runs in outputs/ were trained on; " in (capsys.readouterr().err)
    assert open_dataset("local/tiny", revision=first.revision).content_hash == first.content_hash
    with pytest.raises(InputError, match="is no version"):
        open_dataset("local/tiny", revision=second.revision)


def test_what_a_library_downloaded_under_the_id_is_left_alone(data: Path, runs: Path, tmp_path: Path) -> None:
    first = pushed(data)
    hub = tmp_path / "hf" / "hub" / "datasets--local--tiny"
    downloaded = hub / "snapshots" / ("0" * 40)
    downloaded.mkdir()
    parquet = (hub / "snapshots" / str(first.revision) / "data" / "test-00000-of-00001.parquet").resolve()
    (downloaded / "test.parquet").symlink_to(Path("../../blobs") / parquet.name)
    drop_a_row(data)
    pushed(data, "local/tiny", "--prune")
    assert (downloaded / "test.parquet").is_file()
    assert not (hub / "snapshots" / str(first.revision)).exists()


def test_pruning_that_was_killed_is_finished_by_the_next(
    data: Path, runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def killed(*_: object) -> None:
        raise Killed

    first, files = pushed(data), blobs(tmp_path, "local/tiny")
    drop_a_row(data)
    pushed(data)
    with monkeypatch.context() as patch:
        patch.setattr("data_prep.hub.old_versions.shutil.rmtree", killed)
        with pytest.raises(Killed):
            prune("local/tiny", [])
    with pytest.raises(InputError, match=r"is no version"):
        open_dataset("local/tiny", revision=first.revision)
    open_dataset("local/tiny")
    assert [version.revision for version in prune("local/tiny", []).gone] == [first.revision]
    assert blobs(tmp_path, "local/tiny") == files


def test_nothing_is_pruned_on_the_hub() -> None:
    with pytest.raises(InputError, match="--prune is for the local Hub cache; what lies on the Hub is removed there"):
        push_dataset.main(["--remote", "--repo-id", "me/frames", "--prune", "--data", "/nonexistent"])


def test_damaged_audit_is_named(data: Path) -> None:
    (data / "audit.json").write_text("{}")
    with pytest.raises(InputError, match=r"audit\.json: damaged; run data_prep/build_jsonl\.py again"):
        push_dataset.main(["--data", str(data)])


def test_default_id_is_the_contracts(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    push_dataset.main(["--data", str(data)])
    assert capsys.readouterr().out.startswith("id local/safe-unsafe-frames\n")


@pytest.mark.parametrize(
    "arguments",
    [
        ["--remote"],
        ["--remote", "--repo-id", "local/safe-unsafe-frames"],
        ["--remote", "--repo-id", "local/other"],
        ["--repo-id", "Local/Frames"],
    ],
)
def test_an_unfit_id_is_refused_before_anything_is_read(arguments: list[str]) -> None:
    with pytest.raises(InputError, match="id"):
        push_dataset.main([*arguments, "--data", "/nonexistent"])


def test_remote_push_is_private_and_the_bytes_arrive(data: Path, tmp_path: Path) -> None:
    with hub_stub() as hub:
        done = run_remote(hub, tmp_path / "home", data, "me/frames")
    assert done.returncode == 0, done.stderr
    repo = hub.repos["me/frames"]
    assert repo.private
    assert f"version {repo.sha}\n" in done.stdout
    assert sorted(path for path in repo.files if path.endswith(".parquet")) == [
        "data/test-00000-of-00001.parquet",
        "data/train-00000-of-00001.parquet",
        "data/validation-00000-of-00001.parquet",
    ]
    images = [
        (row["image"]["path"], hashlib.sha256(row["image"]["bytes"]).hexdigest())
        for row in pyarrow.parquet.read_table(io.BytesIO(repo.files["data/test-00000-of-00001.parquet"])).to_pylist()
    ]
    frames = [
        data / f"frames/test/{'unsafe' if d < 4 else 'safe'}/{d}_te0/000{k}.jpg" for d in range(8) for k in (0, 1)
    ]
    assert images == [(frame.name, hashlib.sha256(frame.read_bytes()).hexdigest()) for frame in frames]
    card = repo.files["README.md"].decode()
    assert card.startswith("---\n") and "dataset_info" in card
    assert "CC BY 4.0" in card and "10.17632/xjmtb22pff.1" in card and "identifiable" in card
    assert not any(str(tmp_path).encode() in content for content in repo.files.values())


def test_the_card_is_of_what_was_pushed_last_unless_somebody_wrote_it(data: Path, tmp_path: Path) -> None:
    with hub_stub() as hub:
        first = run_remote(hub, tmp_path / "home", data, "me/frames")
        rows = (data / "test.jsonl").read_text().splitlines(keepends=True)
        (data / "test.jsonl").write_text("".join(rows[1:]))
        second = run_remote(hub, tmp_path / "home", data, "me/frames")
        card = hub.repos["me/frames"].files["README.md"].decode()
        hub.repos["me/frames"].files["README.md"] = b"# Ours\n\nContent hash: see the wiki\n"
        third = run_remote(hub, tmp_path / "home", data, "me/frames")
    contents = [done.stdout.splitlines()[2].removeprefix("content ") for done in (first, second)]
    assert f"Content hash: `{contents[1]}`" in card and contents[0] not in card
    assert "| test | 15 | 8 | 8 | 7 |" in card and "| test | 16 |" not in card
    assert "dataset_info" in card and "num_examples: 15" in card
    assert third.returncode == 0
    assert "the README.md of me/frames isn't a push's, so it stays as it is" in third.stderr
    assert hub.repos["me/frames"].files["README.md"].decode().endswith("# Ours\n\nContent hash: see the wiki\n")


def test_a_public_repository_gets_nothing(data: Path, tmp_path: Path) -> None:
    with hub_stub() as hub:
        hub.repos["me/public"] = Repo(private=False)
        done = run_remote(hub, tmp_path / "home", data, "me/public")
    assert (done.returncode, done.stdout) == (2, "")
    assert "error: me/public is public on the Hub" in done.stderr
    assert "Traceback" not in done.stderr
    assert hub.repos["me/public"].files == {} and hub.uploads == {}
