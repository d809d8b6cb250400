import os
import subprocess
import sys
from pathlib import Path

import datasets
import pytest
from huggingface_hub import constants

from data_prep import files
from data_prep.errors import InputError
from data_prep.hub.loading import load_pushed
from data_prep.hub.pushing import push_local
from data_prep.hub.source import check_dataset, open_dataset
from data_prep.rows.content import content_hash
from data_prep.rows.dataset import build_dataset
from tests.data_prep.hub.conftest import REPO_ID
from tests.tiny_data import make_clip, many_clips, write_data

pytestmark = pytest.mark.usefixtures("home")


def test_rows_of_a_source_come_undecoded(versions: list[datasets.DatasetDict]) -> None:
    push_local(versions[0], REPO_ID)
    row = open_dataset(REPO_ID).rows("validation")[0]
    assert row["image"]["bytes"].startswith(b"\xff\xd8") and row["image"]["path"] == "0000.jpg"
    with pytest.raises(InputError, match="has no split 'dev'; it has train, validation, test"):
        open_dataset(REPO_ID).rows("dev")


def test_an_id_that_was_not_pushed_is_refused_offline_and_online(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    for check in (open_dataset, check_dataset):
        with pytest.raises(InputError, match=r"neither an id pushed to the local Hub cache .*push_dataset\.py"):
            check("someone/frames")
    (home / "hub/datasets--someone--frames/refs").mkdir(parents=True)  # downloaded by a library, never pushed
    (home / "hub/datasets--someone--frames/refs/main").write_text("0" * 40)
    with pytest.raises(InputError, match="neither an id pushed"):
        open_dataset("someone/frames")
    with pytest.raises(InputError, match="never fetched from the Hub"):
        load_pushed("someone/frames")


def test_a_name_is_a_folder_or_a_pushed_id(
    versions: list[datasets.DatasetDict], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "PROJECT_ROOT", tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    write_data(tmp_path / "data/demo", many_clips(train_per_class=2))
    for name in ("data/demo", "./data/demo", str(tmp_path / "data/demo"), "~/data/demo"):
        source = open_dataset(name)
        assert (source.id, source.revision, source.content_hash) == ("data/demo", None, content_hash(versions[0]))
        check_dataset(name)
    assert source.describe().startswith(f"data/demo (folder, content {source.content_hash[:12]}): train 16 frames")
    revision = push_local(versions[1], "data/demo")
    for check in (open_dataset, check_dataset):
        with pytest.raises(InputError, match=r"is both .*write \./data/demo for the folder, or name a revision"):
            check("data/demo")
    assert open_dataset("./data/demo").revision is None
    assert open_dataset("data/demo", revision=revision[:8]).revision == revision
    for name in ("./data", "/nonexistent", "~/data"):
        with pytest.raises(InputError, match=r"holds no train\.jsonl; run data_prep/build_jsonl\.py"):
            open_dataset(name)
    with pytest.raises(InputError, match="is a folder and has no versions"):
        open_dataset("./data/demo", revision=revision)


def test_check_dataset_looks_at_every_row(tmp_path: Path) -> None:
    data = write_data(tmp_path / "data", many_clips(train_per_class=2))
    check_dataset(str(data))
    train = (data / "train.jsonl").read_text()
    unsafe = "".join(line for line in train.splitlines(True) if '"UNSAFE"' in line)
    for text, complaint in [
        ("", r"train\.jsonl: holds no row"),
        (train[:-20], r"train\.jsonl:32: not a whole JSON object"),
        (train.replace('"SAFE"', '"safe"', 1), r"train\.jsonl:17: response 'safe'"),
        (unsafe, "train has no SAFE frame, but needs both SAFE and UNSAFE"),
    ]:
        (data / "train.jsonl").write_text(text)
        with pytest.raises(InputError, match=complaint):
            check_dataset(str(data))
    (data / "train.jsonl").write_text(train)
    (data / "frames/test/safe/7_te0/0001.jpg").unlink()
    with pytest.raises(InputError, match=r"test\.jsonl:16: image .* is missing"):
        check_dataset(str(data))


def test_check_dataset_wants_both_labels_and_a_validation_split(tmp_path: Path) -> None:
    lone = write_data(tmp_path / "lone", many_clips(train_per_class=1))
    with pytest.raises(InputError, match="has no validation split"):
        check_dataset(str(lone))
    clips = [make_clip("train", 0, "0_tr0"), make_clip("train", 0, "0_tr1"), make_clip("test", 4, "4_te0")]
    one_label = write_data(tmp_path / "one", clips)
    push_local(build_dataset(one_label), REPO_ID)
    for name in (str(one_label), REPO_ID):
        with pytest.raises(InputError, match="train has no SAFE frame"):
            check_dataset(name)


def test_check_dataset_imports_nothing_heavy(versions: list[datasets.DatasetDict], home: Path) -> None:
    push_local(versions[0], REPO_ID)
    program = (
        "import sys; from data_prep.hub.source import check_dataset; "
        f"check_dataset({REPO_ID!r}); print(sorted({{'datasets', 'pyarrow', 'torch', 'numpy'}} & set(sys.modules)))"
    )
    environment = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    environment |= {"HF_HOME": str(home)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=60)
    assert done.stdout == "[]\n", done.stderr
