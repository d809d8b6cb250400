import json
import os
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import datasets
import huggingface_hub
import pytest

from data_prep.errors import InputError
from data_prep.files import PROJECT_ROOT
from data_prep.hub.layout import check_repo_id
from data_prep.hub.loading import load_pushed
from data_prep.hub.pushing import push_local
from data_prep.hub.source import check_dataset, open_dataset
from data_prep.rows.content import content_hash
from tests.data_prep.hub.conftest import REPO_ID, use_home
from tests.hub_stub import Repo, hub_stub

pytestmark = pytest.mark.usefixtures("home")


def hub_folder(home: Path) -> Path:
    return home / "hub" / "datasets--local--safe-unsafe-frames"


def served(home: Path) -> list[str]:
    folders = home.glob("datasets/local___safe-unsafe-frames/default/0.0.0/*")
    return sorted(path.name for path in folders if path.is_dir())


def flip(path: Path, at: int) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])


def test_what_is_pushed_is_what_is_loaded(versions: list[datasets.DatasetDict]) -> None:
    revision = push_local(versions[0], REPO_ID)
    assert re.fullmatch("[0-9a-f]{40}", revision)
    source = open_dataset(REPO_ID)
    assert (source.id, source.revision, source.content_hash) == (REPO_ID, revision, content_hash(versions[0]))
    assert content_hash(source.dataset) == source.content_hash
    assert source.dataset["test"].features == versions[0]["test"].features
    assert source.dataset["test"][0]["image"].size == (16, 12)
    assert source.describe() == (
        f"{REPO_ID} (version {revision[:12]}, content {source.content_hash[:12]}): train 16 frames of 8 clips "
        "(SAFE 8, UNSAFE 8); validation 16 frames of 8 clips (SAFE 8, UNSAFE 8); test 16 frames of 8 clips "
        "(SAFE 8, UNSAFE 8)"
    )


def test_same_data_same_version_other_data_another(versions: list[datasets.DatasetDict], home: Path) -> None:
    first = push_local(versions[0], REPO_ID)
    assert push_local(versions[0], REPO_ID) == first == push_local(versions[0], "local/another-name")
    assert push_local(versions[1], REPO_ID) != first
    assert len(list((hub_folder(home) / "snapshots").iterdir())) == 2


def test_the_libraries_read_the_snapshot(versions: list[datasets.DatasetDict], home: Path) -> None:
    revision = push_local(versions[0], REPO_ID)
    folder = huggingface_hub.snapshot_download(REPO_ID, repo_type="dataset", local_files_only=True)
    assert Path(folder) == hub_folder(home) / "snapshots" / revision
    assert content_hash(datasets.load_dataset(folder)) == content_hash(versions[0])
    cache = huggingface_hub.scan_cache_dir(home / "hub")
    assert [repo.repo_id for repo in cache.repos] == [REPO_ID] and not cache.warnings


def test_plain_load_dataset_works_offline_from_any_folder(
    versions: list[datasets.DatasetDict], home: Path, tmp_path: Path
) -> None:
    """In a process of its own, because HF_HOME and HF_HUB_OFFLINE are read on import."""
    push_local(versions[0], REPO_ID)
    push_local(versions[1], REPO_ID)
    program = (
        "from datasets import load_dataset\n"
        f"d = load_dataset({REPO_ID!r})\n"
        "print(list(d), d['test'][0]['response'], d['test'][0]['image'].size, len(d['train']))"
    )
    environment = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    environment |= {"HF_HOME": str(home), "HF_HUB_OFFLINE": "1"}
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=folder, env=environment, capture_output=True, text=True, timeout=100
    )
    assert done.stdout == "['train', 'validation', 'test'] SAFE (16, 12) 16\n", done.stderr


def test_load_dataset_never_gives_an_older_version(versions: list[datasets.DatasetDict], home: Path) -> None:
    """It takes the folder touched last, and `map` writes its cache file into the folder of the data it maps."""
    push_local(versions[0], REPO_ID)
    old = datasets.load_dataset(REPO_ID)
    second = push_local(versions[1], REPO_ID)
    assert served(home) == [second]
    assert old["test"][0]["response"] == "UNSAFE"  # whoever has the old one open keeps it
    push_local(versions[0], REPO_ID)
    back = datasets.load_dataset(REPO_ID)
    assert content_hash(back) == content_hash(versions[0])


def test_nothing_that_is_pushed_names_this_machine(
    versions: list[datasets.DatasetDict], home: Path, tmp_path: Path
) -> None:
    push_local(versions[0], REPO_ID)
    pushed = [path for path in home.rglob("*") if path.is_file() and ".locks" not in path.parts]
    assert len(pushed) > 8
    places = [str(PROJECT_ROOT), str(tmp_path.parent), str(Path.home()), os.uname().nodename]
    for path in pushed:
        content = path.read_bytes()
        assert not [place for place in places if len(place) > 5 and place.encode() in content], path


def test_an_older_version_is_loaded_by_name(versions: list[datasets.DatasetDict]) -> None:
    first, second = push_local(versions[0], REPO_ID), push_local(versions[1], REPO_ID)
    assert content_hash(load_pushed(REPO_ID)) == content_hash(versions[1])
    for name in (first, first[:12]):
        source = open_dataset(REPO_ID, revision=name)
        assert (source.revision, source.content_hash) == (first, content_hash(versions[0]))
        assert content_hash(source.dataset) == source.content_hash
    assert datasets.load_dataset(REPO_ID)["test"][0]["response"] == "SAFE"  # still the newer one
    for name in ("", "main", "0" * 40, first[:4] + "zz", "../" + second):
        with pytest.raises(InputError, match="is no version of"):
            load_pushed(REPO_ID, name)


def test_an_ambiguous_version_is_refused(versions: list[datasets.DatasetDict], home: Path) -> None:
    first = push_local(versions[0], REPO_ID)
    shutil.copytree(hub_folder(home) / "snapshots" / first, hub_folder(home) / "snapshots" / (first[:8] + "0" * 32))
    with pytest.raises(InputError, match="begins several versions"):
        load_pushed(REPO_ID, first[:8])


@pytest.mark.parametrize(
    "name",
    [
        "README.md",
        "manifest.json",
        "data/train-00000-of-00001.parquet",
        "data/validation-00000-of-00001.parquet",
        "data/test-00000-of-00001.parquet",
    ],
)
def test_a_changed_file_is_named_and_a_push_mends_it(
    versions: list[datasets.DatasetDict], home: Path, name: str
) -> None:
    revision = push_local(versions[0], REPO_ID)
    path = hub_folder(home) / "snapshots" / revision / name
    size = path.stat().st_size
    for at in (0, size // 2, size - 1):
        flip(path, at)
        with pytest.raises(InputError, match=re.escape(str(path))):
            open_dataset(REPO_ID)
        flip(path, at)
    open_dataset(REPO_ID)
    flip(path, size // 2)
    assert push_local(versions[0], REPO_ID) == revision
    open_dataset(REPO_ID)
    path.unlink()
    for check in (open_dataset, check_dataset):
        with pytest.raises(InputError, match=re.escape(str(path))):
            check(REPO_ID)
    assert push_local(versions[0], REPO_ID) == revision
    open_dataset(REPO_ID)


def test_changed_bytes_in_the_arrow_copy_are_named_and_mended(versions: list[datasets.DatasetDict], home: Path) -> None:
    """Wherever the byte lies: all of the file is tried in steps, and what loads must be what was pushed."""
    revision = push_local(versions[0], REPO_ID)
    path = home / f"datasets/local___safe-unsafe-frames/default/0.0.0/{revision}/safe-unsafe-frames-test.arrow"
    refused = 0
    for at in range(0, path.stat().st_size, 97):
        flip(path, at)
        try:
            assert content_hash(load_pushed(REPO_ID)) == content_hash(versions[0])
        except InputError as error:
            assert str(path) in str(error)
            refused += 1
        flip(path, at)
    assert refused > 50
    at = path.read_bytes().index(b"\xff\xd8\xff") + 300
    flip(path, at)
    with pytest.raises(InputError, match=re.escape(str(path))):
        load_pushed(REPO_ID)
    push_local(versions[0], REPO_ID)
    assert content_hash(datasets.load_dataset(REPO_ID)) == content_hash(versions[0])
    assert content_hash(load_pushed(REPO_ID)) == content_hash(versions[0])


def test_litter_in_the_cache_is_passed_over(versions: list[datasets.DatasetDict], home: Path) -> None:
    snapshot = hub_folder(home) / "snapshots" / push_local(versions[0], REPO_ID)
    for folder in (snapshot, snapshot / "data"):
        (folder / ".DS_Store").touch()
        (folder / "@eaDir").mkdir()
        (folder / "@eaDir" / "manifest.json").touch()
    assert content_hash(load_pushed(REPO_ID)) == content_hash(versions[0])
    assert push_local(versions[1], REPO_ID) != snapshot.name


def test_a_file_that_was_not_pushed_is_refused(versions: list[datasets.DatasetDict], home: Path) -> None:
    revision = push_local(versions[0], REPO_ID)
    stray = hub_folder(home) / "snapshots" / revision / "data" / "train-00001-of-00002.parquet"
    stray.write_bytes(b"")
    with pytest.raises(InputError, match=rf"{re.escape(str(stray))}: was not pushed"):
        open_dataset(REPO_ID)


def test_without_the_datasets_cache_the_snapshot_is_enough(versions: list[datasets.DatasetDict], home: Path) -> None:
    push_local(versions[0], REPO_ID)
    shutil.rmtree(home / "datasets")
    assert content_hash(load_pushed(REPO_ID)) == content_hash(versions[0])
    push_local(versions[0], REPO_ID)
    assert content_hash(datasets.load_dataset(REPO_ID)) == content_hash(versions[0])


# Kills itself right before the n-th step that changes what others see; counts the steps where n is 0.
KILL = """
import os, pathlib, signal, sys
import datasets
from huggingface_hub import constants
from data_prep.hub.pushing import push_local

template, work = map(pathlib.Path, sys.argv[1:])
datasets.disable_progress_bars()

def push(home, kill_at):
    constants.HF_HUB_CACHE, datasets.config.HF_DATASETS_CACHE = str(home / "hub"), home / "datasets"
    steps = 0
    def counted(function):
        def wrapper(*args, **kwargs):
            nonlocal steps
            steps += 1
            if steps == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **kwargs)
        return wrapper
    for name in ("rename", "replace", "symlink_to", "mkdir"):
        setattr(pathlib.Path, name, counted(getattr(pathlib.Path, name)))
    os.utime = counted(os.utime)
    second = datasets.load_from_disk(str(work / "second"))
    push_local(second, "local/safe-unsafe-frames")
    return steps

def in_child(home, kill_at):
    import shutil
    shutil.copytree(template, home, symlinks=True)
    child = os.fork()
    if child == 0:
        steps = push(home, kill_at)
        (work / "steps").write_text(str(steps))
        os._exit(0)
    return os.waitpid(child, 0)[1]

assert in_child(work / "home-0", 0) == 0
for kill_at in range(1, int((work / "steps").read_text()) + 1):
    assert in_child(work / f"home-{kill_at}", kill_at) == signal.SIGKILL, kill_at
"""


def test_a_killed_push_leaves_a_whole_version(
    versions: list[datasets.DatasetDict], home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGKILL before every step of a push: both ways of loading give a whole version, the old one until the switch."""
    first = push_local(versions[0], REPO_ID)
    work = tmp_path / "work"
    work.mkdir()
    versions[1].save_to_disk(str(work / "second"))
    done = subprocess.run(
        [sys.executable, "-c", KILL, str(home), str(work)], capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr
    names = {content_hash(versions[0]): "old", content_hash(versions[1]): "new"}
    seen = []
    steps = int((work / "steps").read_text())
    for killed_at in [*range(1, steps + 1), 0]:
        use_home(monkeypatch, work / f"home-{killed_at}")
        assert content_hash(load_pushed(REPO_ID, first)) in names
        seen.append((names[content_hash(load_pushed(REPO_ID))], names[content_hash(datasets.load_dataset(REPO_ID))]))
    assert steps > 20
    assert seen[0] == ("old", "old") and seen[-1] == ("new", "new")
    assert set(seen) <= {("old", "old"), ("new", "old"), ("new", "new")}
    assert seen == sorted(seen, reverse=True)
    assert seen.count(("old", "old")) > steps - 8
    for killed_at in (steps // 2, steps - 1):  # the next push clears up
        use_home(monkeypatch, work / f"home-{killed_at}")
        second = push_local(versions[1], REPO_ID)
        assert served(work / f"home-{killed_at}") == [second]
        assert names[content_hash(datasets.load_dataset(REPO_ID))] == "new"
        assert not list((work / f"home-{killed_at}").rglob(".pushing"))


DECOY = """
import json, sys
from datasets import load_dataset
from data_prep.hub.source import check_dataset, open_dataset
name, requests = sys.argv[1], sys.argv[2]
check_dataset(name)
ours = open_dataset(name).content_hash
before = len(open(requests).readlines())
decoy = load_dataset(name)["train"]["secret"][0]
check_dataset(name)
print(json.dumps({"asked": before, "ours": ours, "decoy": decoy, "after": open_dataset(name).content_hash}))
"""


def test_a_pushed_id_is_never_asked_of_the_hub(
    versions: list[datasets.DatasetDict], home: Path, tmp_path: Path
) -> None:
    """A Hub serves a decoy of that name; `load_dataset` falls for it, which shows that the stub would be believed."""
    push_local(versions[0], REPO_ID)
    decoy = tmp_path / "decoy.parquet"
    datasets.Dataset.from_dict({"secret": ["decoy"]}).to_parquet(decoy)
    log = tmp_path / "requests"
    log.touch()
    environment = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    with hub_stub(log) as hub:
        decoys = {"README.md": b"# decoy\n", "data/train-00000-of-00001.parquet": decoy.read_bytes()}
        hub.repos[REPO_ID] = Repo(private=False, files=decoys)
        environment |= {
            "HF_HOME": str(home),
            "HF_ENDPOINT": hub.url,
            "HF_HUB_DISABLE_XET": "1",
            "HF_UPDATE_DOWNLOAD_COUNTS": "0",
        }
        command = [sys.executable, "-c", DECOY, REPO_ID, str(log)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    ours = content_hash(versions[0])
    assert json.loads(done.stdout) == {"asked": 0, "ours": ours, "decoy": "decoy", "after": ours}
    assert (hub_folder(home) / "refs/main").read_text() == hub.repos[REPO_ID].sha  # it took over the usual ref
    push_local(versions[0], REPO_ID)  # and a push puts ours before the decoy again
    assert content_hash(datasets.load_dataset(REPO_ID)) == ours


@pytest.mark.parametrize("repo_id", ["local/safe-unsafe-frames", "me/a.b_c-d9", "a/b"])
def test_ids_that_round_trip(repo_id: str) -> None:
    check_repo_id(repo_id)


@pytest.mark.parametrize(
    "repo_id",
    ["frames", "a/b/c", "local/Frames", "Local/frames", "local/fra mes", "local/../x", "local/a--b", "local/a__b",
     "/frames", "local/", "local/.frames", "local/frames-", "a_/b", "local/x.py", "local/x.git", "buckets/x",
     "local/frames\n", "local/" + "a" * 96],
)  # fmt: skip
def test_ids_that_would_not_round_trip(repo_id: str, versions: list[datasets.DatasetDict], home: Path) -> None:
    for call in (check_repo_id, lambda repo_id: push_local(versions[0], repo_id), load_pushed):
        with pytest.raises(InputError, match="repo id"):
            call(repo_id)
    assert not home.exists()


def test_a_push_waits_for_the_one_before_it(versions: list[datasets.DatasetDict], home: Path) -> None:
    push_local(versions[0], REPO_ID)
    second = threading.Thread(target=push_local, args=(versions[1], REPO_ID))
    with huggingface_hub.utils.WeakFileLock(home / "hub/.locks/datasets--local--safe-unsafe-frames/push.lock"):
        second.start()
        second.join(timeout=0.5)
        assert second.is_alive()
        assert content_hash(load_pushed(REPO_ID)) == content_hash(versions[0])
    second.join(timeout=60)
    assert content_hash(load_pushed(REPO_ID)) == content_hash(versions[1])
