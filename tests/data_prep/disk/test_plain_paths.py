"""The whole way from clips to a loaded data set in folders whose names libraries read as patterns or chains of URLs."""

from pathlib import Path

import datasets
import huggingface_hub.constants
import pytest

from data_prep import build_jsonl, extract_frames, push_dataset
from data_prep.disk.plain_paths import plain_path
from data_prep.hub.source import open_dataset
from tests.made_clips import make_dataset

CLIPS = {
    f"{split}/{folder}/{number}.mp4": 1
    for split in ("train", "test")
    for folder in ("0_safe_walkway_violation", "4_safe_walkway")
    for number in (1, 2)
}


@pytest.fixture
def links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep the links of this test out of the system's temporary folder."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(folder))
    return folder


def test_a_plain_path_is_its_own(tmp_path: Path, links: Path) -> None:
    folder = tmp_path / "a folder, of caf\u00e9s (2) ~ + = @"
    assert plain_path(folder) == folder
    assert not folder.exists()
    assert list(links.iterdir()) == []


@pytest.mark.parametrize("name", ["a::b", "[j]", "{j,k}", "a*", "a?", "!a", "a#b", "a%20b", "a\\b"])
def test_another_is_reached_through_a_link_that_is_always_the_same(tmp_path: Path, links: Path, name: str) -> None:
    plain = plain_path(tmp_path / name)
    assert plain.resolve() == tmp_path / name
    assert plain_path(tmp_path / name) == plain != plain_path(tmp_path / f"{name}{name}")
    assert plain.is_relative_to(links)
    assert not set("[]{}*?!:#%\\") & set(str(plain))
    assert plain.parent.stat().st_mode & 0o777 == 0o700


def test_nobody_else_s_links_are_followed(tmp_path: Path, links: Path) -> None:
    inside = plain_path(tmp_path / "a::b").parent
    inside.rename(tmp_path / "elsewhere")
    inside.symlink_to(tmp_path / "elsewhere")
    assert plain_path(tmp_path / "a::b").parent != inside


def test_from_clips_to_a_loaded_data_set(
    tmp_path: Path, links: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "pro[j]* a::b#c%20d {e,f}? !"
    data = root / "data ::x[1]"
    make_dataset(data, CLIPS)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(root / "hf" / "hub"))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", root / "hf" / "datasets")
    assert extract_frames.main(["--data", str(data), "--workers", "1"]) == 0
    assert build_jsonl.main(["--data", str(data)]) == 0
    assert push_dataset.main(["--data", str(data), "--repo-id", "local/tiny"]) == 0
    content = capsys.readouterr().out.partition("content ")[2][:64]
    for name in ("local/tiny", str(data)):
        source = open_dataset(name)
        assert source.content_hash == content
        assert [row["image"]["bytes"] for row in source.rows("test")] == [
            (data / f"frames/test/{label}/{video}/0000.jpg").read_bytes()
            for label, video in (
                ("unsafe", "1"),
                ("unsafe", "2"),
                ("safe", "4_safe_walkway__1"),
                ("safe", "4_safe_walkway__2"),
            )
        ]
        assert len(source.dataset["test"].filter(lambda row: row["response"] == "SAFE")) == 2
    assert {path.name for path in tmp_path.iterdir()} == {root.name, links.name}
