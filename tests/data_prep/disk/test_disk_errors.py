"""What disks, file systems and permissions refuse: one line with path and remedy, from every script; nothing lost."""

import errno
import importlib
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import datasets
import numpy as np
import pytest
from huggingface_hub import constants
from PIL import Image

from data_prep import build_jsonl
from data_prep.clips import extraction
from data_prep.clips.jsonl import CLIPS_FILE, read_clips
from data_prep.console import run_script
from data_prep.disk.disk_errors import named, told
from data_prep.disk.parquet_files import write_parquet
from data_prep.errors import InputError
from data_prep.files import PROJECT_ROOT, check_writable, replace, write_atomic, write_together
from data_prep.hub.loading import load_pushed
from data_prep.hub.old_versions import prune
from data_prep.hub.pushing import push_local
from data_prep.locks import hold_lock
from data_prep.media.frame_format import FrameFormat
from data_prep.rows.content import content_hash
from data_prep.rows.dataset import build_dataset
from tests.tiny_data import many_clips, write_data

FULL = Path("/dev/full")
REPO_ID = "local/safe-unsafe-frames"
LONG = "n" * 300
AGAIN = "; then run the same command again, finished work is kept\n"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = write_data(tmp_path / "data", many_clips(train_per_class=2))
    assert build_jsonl.main(["--data", str(folder)]) == 0
    return folder


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    datasets.disable_progress_bars()
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "home/hub"))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "home/datasets")
    return tmp_path / "home"


def refusing(number: int) -> Callable[..., NoReturn]:
    """Return a function that fails as the system would, whatever it is given, and names no path."""

    def refuse(*args: Any, **kwargs: Any) -> NoReturn:
        raise OSError(number, os.strerror(number))

    return refuse


def run(
    script: str, arguments: list[str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> tuple[Any, str]:
    """Run a script as its last line does; return its exit status and what it said on stderr."""
    monkeypatch.setattr(sys, "argv", [script, *arguments])
    monkeypatch.setattr("data_prep.console.empty_stdin", lambda: None)
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    capfd.readouterr()
    with pytest.raises(SystemExit) as exit_:
        run_script(importlib.import_module(script).main)
    return exit_.value.code, capfd.readouterr().err


# Texts as the libraries' own, each from a run on a disk of 1 MB or as another user.
@pytest.mark.parametrize(
    ("error", "line"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "/x/a"), r"/x/a: No space .* free there\); make room"),
        (OSError(errno.EDQUOT, "Disk quota exceeded", "/x/a"), r"/x/a: .*quota is used up"),
        (OSError(errno.EROFS, "Read-only file system", "/x/a"), r"/x/a: Read-only file system; mount it"),
        (OSError(errno.EROFS, "Read-only", "/x/a", None, "/x/b"), r"/x/a -> /x/b: Read-only"),
        (OSError(errno.ENOLCK, "No locks available", "/x/a"), r"/x/a: No locks available; mount it with locks"),
        (OSError(errno.EIO, "Input/output error", b"/x/\xff"), r"/x/\\xff: Input/output error; see whether its disk"),
        (OSError(errno.ESTALE, "Stale file handle", "/x/a"), r"/x/a: Stale file handle; .* mount the share anew"),
        (OSError(errno.ENAMETOOLONG, "File name too long", "/x/a"), r"/x/a: File name too long; give it a shorter"),
        (OSError(errno.EMFILE, "Too many open files", "/x/a"), r"/x/a: Too many open files; .*ulimit -n"),
        (OSError(errno.ETXTBSY, "Text file busy", "/x/a"), r"/x/a: Text file busy; another program uses it"),
        (OSError(errno.ENOTDIR, "Not a directory", "/x/a"), r"/x/a: Not a directory; look what lies there"),
        (OSError(errno.ELOOP, "Too many levels", "/x/a"), r"/x/a: Too many levels; its links lead round"),
        (OSError(errno.ENODEV, "No such device", "/x/a"), r"/x/a: No such device; see whether its disk or share"),
        (OSError(errno.ENOTSUP, "Operation not supported", "/x/a"), r"/x/a: Operation not supported; this file system"),
        (OSError(errno.ENOENT, "No such file or directory", "/x/a"), r"/x/a: No such .*moved or removed meanwhile"),
        (OSError(errno.EFBIG, "File too large", "/x/a"), r"/x/a: File too large; no file there may be as large"),
        (
            FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp', '/']"),
            r"/.*: No usable temporary directory found in .*; make room there, or set TMPDIR",
        ),
        (OSError(errno.EACCES, "Failed to open local file '/x/a'. Detail: [errno 13]"), r"/x/a: Permission"),
        (Exception("No space left on device (os error 28)"), r"a file that isn't named, .*: No space left .*; make"),
        (
            RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 576 vs 534"),
            r"a file that isn't named, .*: No space left on device; make room",
        ),
        (
            OSError("Caught OSError in DataLoader worker process 0.\nTraceback:\n[Errno 5] Input/output error: '/x/a'"),
            r"/x/a: Input/output error; see",
        ),
        (
            RuntimeError("unable to write to file </torch_12_34_0>: No space left on device (28)"),
            r"/dev/shm: No space left .*; make room there, or give the container more of it \(shm_size\)",
        ),
    ],
)  # fmt: skip
def test_each_kind_in_a_line_with_path_and_remedy(error: Exception, line: str) -> None:
    said = told(error)
    assert said is not None and "\n" not in said
    assert re.match(line, said), said


def test_a_library_s_wrapping_is_looked_through() -> None:
    outer = RuntimeError("An error occurred while generating the dataset")
    outer.__cause__ = OSError(errno.EROFS, "Read-only file system", "/x/a")
    assert (told(outer) or "").startswith("/x/a: Read-only file system")


@pytest.mark.parametrize(
    "error",
    [
        ZeroDivisionError("division by zero"),
        OSError(errno.EBADF, "Bad file descriptor"),
        OSError(errno.ENOENT, "No such file or directory"),
        ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"),
        OSError("image file is truncated"),
        RuntimeError("PytorchStreamReader failed reading zip archive: failed finding central directory"),
    ],
)
def test_a_fault_of_the_program_is_none_of_the_disk_s(error: Exception) -> None:
    assert told(error) is None


def test_a_fault_in_dealing_with_the_disk_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def main(argv: list[str]) -> int:
        try:
            raise PermissionError(errno.EACCES, "Permission denied", "/x")
        except PermissionError:
            return int(argv["a mistake"])  # type: ignore[call-overload]

    monkeypatch.setattr(sys, "argv", ["script"])
    with pytest.raises(TypeError):
        run_script(main, reads_stdin=True)


# Real errors that root meets as well: a name that no file system takes.
@pytest.mark.parametrize(
    ("script", "arguments"),
    [
        ("data_prep.make_demo_clips", ["--out", LONG]),
        ("data_prep.extract_frames", ["--data", LONG]),
        ("data_prep.build_jsonl", ["--data", LONG]),
        ("data_prep.audit", ["--data", LONG]),
        ("data_prep.push_dataset", ["--data", LONG]),
        ("recipes.sft_qwen2vl", ["--config", "recipes/configs/demo_cpu.yaml", "--output_dir", LONG]),
        ("recipes.eval_qwen2vl", ["--adapter", LONG]),
        ("recipes.infer", ["--adapter", LONG, "--image", f"{LONG}.jpg"]),
        ("recipes.app", ["--adapter", LONG]),
        ("recipes.doctor", ["--config", LONG]),
        ("benchmarks.bench_frames", ["--out", LONG]),
    ],
)
def test_every_script_tells_in_a_line(
    script: str, arguments: list[str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    status, said = run(script, arguments, monkeypatch, capfd)
    assert status == 2
    assert said.count("\n") == 1 and said.startswith("error: ")
    assert f"{LONG[:200]}" in said and "File name too long; give it a shorter name" in said


# The same script by script, in a process of its own: as nobody where root runs the tests, else in folders that their
# owner may not write to. Modules are loaded before, because root's Python may be out of nobody's reach.
AS_NOBODY = """
import importlib, json, os, sys, traceback
from pathlib import Path
import datasets
from data_prep.disk.disk_errors import told
from data_prep.console import run_script
told(PermissionError(13, "Permission denied", "/"))
for name, (script, arguments) in json.loads(sys.argv[2]).items():
    main = importlib.import_module(script).main
    if (child := os.fork()) == 0:
        for stream, number in (("out", 1), ("err", 2)):
            os.dup2(os.open(f"{sys.argv[1]}/{name}.{stream}", os.O_WRONLY | os.O_CREAT), number)
        if os.getuid() == 0:
            os.setgroups([]), os.setresgid(65534, 65534, 65534), os.setresuid(65534, 65534, 65534)
        sys.argv = [script, *arguments]
        run_script(main)
    _, status = os.waitpid(child, 0)
    Path(sys.argv[1], f"{name}.status").write_text(str(os.waitstatus_to_exitcode(status)))
"""


def test_another_s_folder_is_named_with_what_to_run(data: Path, tmp_path: Path) -> None:
    cases = {
        "demo": ("data_prep.make_demo_clips", ["--out", str(data)]),
        "new": ("data_prep.make_demo_clips", ["--out", str(data / "new")]),
        "extract": ("data_prep.extract_frames", ["--data", str(data), "--dataset", str(data / "clips")]),
        "build": ("data_prep.build_jsonl", ["--data", str(data)]),
        "audit": ("data_prep.audit", ["--data", str(tmp_path / "closed")]),
        "push": ("data_prep.push_dataset", ["--data", str(data)]),
        "train": ("recipes.sft_qwen2vl", ["--config", str(PROJECT_ROOT / "recipes/configs/demo_cpu.yaml"),
                                          "--dataset", str(data), "--output_dir", str(tmp_path / "closed/run")]),
        "infer": ("recipes.infer", ["--adapter", str(tmp_path / "closed"), "--image", str(tmp_path / "closed/a.jpg")]),
        "evaluate": ("recipes.eval_qwen2vl", ["--adapter", str(tmp_path / "closed")]),
        "page": ("recipes.app", ["--adapter", str(tmp_path / "closed")]),
    }  # fmt: skip
    for split in ("train", "test"):
        (data / "clips" / split / "4_safe_walkway").mkdir(parents=True)
        (data / "clips" / split / "4_safe_walkway" / "a.mp4").touch()
    (tmp_path / "closed").mkdir()
    (tmp_path / "home").mkdir()
    (tmp_path / "said").mkdir()
    before = {path: path.read_bytes() for path in data.rglob("*") if path.is_file()}
    tmp_path.chmod(0o755)
    for folder in tmp_path.parents:
        if os.getuid() == 0 and folder.name.startswith("pytest-"):
            folder.chmod(0o755)
    for name, mode in (("data", 0o555), ("closed", 0o000), ("home", 0o555)):
        (tmp_path / name).chmod(mode)
    environment = {**os.environ, "HF_HOME": str(tmp_path / "home"), "PYTHONPATH": str(PROJECT_ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", AS_NOBODY, str(tmp_path / "said"), json.dumps(cases)],
        env=environment, cwd=PROJECT_ROOT, capture_output=True, text=True, timeout=400,
    )  # fmt: skip
    for name in ("data", "closed", "home"):
        (tmp_path / name).chmod(0o755)
    assert done.returncode == 0, done.stderr
    for name in cases:
        said = (tmp_path / "said" / f"{name}.err").read_text()
        assert ((tmp_path / "said" / f"{name}.status").read_text(), said.count("\n")) == ("2", 1), f"{name}: {said}"
        where = "closed" if "closed" in str(cases[name]) else "home" if name == "push" else "data"
        assert f"{tmp_path / where}" in said and "Permission denied" in said, said
        take_over = f"chown -R 65534:65534 {tmp_path / where}"
        remedy = f"install -d -o 65534 -g 65534 {data}/new" if name == "new" else take_over
        if os.getuid() == 0 and name != "train":
            assert f"belongs to root and this runs as nobody; run: sudo {remedy}, or run this as root" in said, said
        elif os.getuid():
            assert "chmod -R u+rwX" in said
    assert before == {path: path.read_bytes() for path in data.rglob("*") if path.is_file()}


def test_nobody_is_told_to_take_over_what_is_everybody_s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 65534)
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)
    missing = "which-nobody-has-made"
    for path in ("/.cache/huggingface", f"/usr/share/{missing}", f"/tmp/{missing}", f"/home/{missing}"):
        said = told(PermissionError(errno.EACCES, "Permission denied", path)) or ""
        assert "chown" not in said and "another folder" in said, said


def test_a_full_disk_leaves_rows_clips_and_versions_as_they_were(
    data: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    version = push_local(build_dataset(data), REPO_ID)
    whole = content_hash(load_pushed(REPO_ID))
    before = {path: path.read_bytes() for path in data.rglob("*") if path.is_file()}
    monkeypatch.setattr(os, "fsync", refusing(errno.ENOSPC))
    for script, file in (("build_jsonl", "data/train.jsonl"), ("push_dataset", "snapshot/README.md")):
        status, said = run(f"data_prep.{script}", ["--data", str(data)], monkeypatch, capfd)
        last = said.splitlines(keepends=True)[-1]
        assert status == 2 and "Traceback" not in said
        assert re.search(rf"{file}: No space left on device for \d+ kB \(.* free there\); make ", last)
        assert last.endswith(AGAIN)
    assert before == {path: path.read_bytes() for path in data.rglob("*") if path.is_file()}
    assert load_pushed(REPO_ID, version) and content_hash(load_pushed(REPO_ID)) == whole


def test_a_frame_on_a_full_disk_is_never_taken_for_whole(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    (tmp_path / "0000.jpg").symlink_to(FULL)
    with pytest.raises(OSError, match=r"No space left on device.*0000\.jpg"):
        extraction._save_frame(Image.fromarray(noise), tmp_path / "0000.jpg", FrameFormat(None, 90))


def test_parquet_on_a_full_disk_is_an_error_and_no_abort(tmp_path: Path) -> None:
    """Arrow's own writer ends the process by SIGABRT where a write fails within a column."""
    (tmp_path / "a.parquet").symlink_to(FULL)
    rows = datasets.Dataset.from_dict({"bytes": [os.urandom(100_000) for _ in range(30)]})
    with pytest.raises(OSError, match=r"No space left on device for 3 MB.*a\.parquet"):
        write_parquet(rows, tmp_path / "a.parquet")
    write_parquet(rows, tmp_path / "b.parquet")
    rows.to_parquet(tmp_path / "c.parquet")
    assert (tmp_path / "b.parquet").read_bytes() == (tmp_path / "c.parquet").read_bytes()


def test_a_checkpoint_on_a_full_disk_is_named(tmp_path: Path) -> None:
    import torch

    checkpoint = tmp_path / "checkpoint-8"
    with pytest.raises(OSError, match=r"No space left on device.*checkpoint-8") as raised, named(checkpoint):
        torch.save({"weight": torch.zeros(100_000)}, FULL)
    assert (told(raised.value) or "").startswith(f"{checkpoint}: No space left on device (")


def test_room_is_looked_for_before_hours_of_work(tmp_path: Path) -> None:
    check_writable(tmp_path / "new" / "eval")
    with pytest.raises(OSError, match=r"No space left on device for 1000000\.0 GB"):
        check_writable(tmp_path, 10**15)
    assert list(tmp_path.iterdir()) == []


def test_files_that_belong_together_stay_where_one_folder_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_together(tmp_path, {"report": b"1", "plots/a": b"1", "last": b"1"})
    made = tempfile.mkstemp

    def mkstemp(prefix: str, suffix: str, dir: Path) -> tuple[int, str]:
        if dir.name == "plots":
            raise PermissionError(errno.EACCES, "Permission denied", f"{dir}/{prefix}")
        return made(prefix=prefix, suffix=suffix, dir=dir)

    monkeypatch.setattr(tempfile, "mkstemp", mkstemp)
    with pytest.raises(PermissionError, match=f"{tmp_path}/plots/a'"):
        write_together(tmp_path, {"report": b"2", "plots/a": b"2", "last": b"2"}, remove_first=["last"])
    assert [(tmp_path / name).read_bytes() for name in ("report", "plots/a", "last")] == [b"1"] * 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["last", "plots", "report"]


def test_a_lock_where_there_are_none_is_a_file_that_names_its_holder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    held = tmp_path / ".lock.held"
    for number in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
        monkeypatch.setattr("fcntl.flock", refusing(number))
        with hold_lock(tmp_path / ".lock", "busy"):
            assert held.read_text().startswith(f"process {os.getpid()} on ")
        assert not held.exists()
        assert capsys.readouterr().err.count("this file system has no locks; meanwhile .lock.held stands for one") == 1
    for holder in (f"process 1 on {os.uname().nodename}\n", "process 1 on elsewhere\n", ""):
        held.write_text(holder)
        refused = pytest.raises(InputError, match=rf"busy\. .*{held} says .* remove it")
        with refused, hold_lock(tmp_path / ".lock", "busy"):
            pass
        assert held.read_text() == holder
    gone = subprocess.Popen(["true"])
    gone.wait()
    held.write_text(f"process {gone.pid} on {os.uname().nodename}\n")
    with hold_lock(tmp_path / ".lock", "busy"):
        assert f"process {gone.pid} on " in capsys.readouterr().err
    assert not held.exists()
    monkeypatch.setattr("fcntl.flock", refusing(errno.EIO))
    with pytest.raises(OSError, match=f"Input/output error: '{tmp_path}/.lock'"), hold_lock(tmp_path / ".lock", "busy"):
        pass


def without_links_modes_and_times(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the file system lack what exFAT and SMB lack."""
    for name, number in (("symlink", errno.EPERM), ("chmod", errno.ENOTSUP), ("utime", errno.EPERM)):
        monkeypatch.setattr(os, name, refusing(number))
    moved = os.replace

    def move(path: Any, final: Any, **kwargs: Any) -> None:
        if Path(final).is_file():
            raise OSError(errno.EEXIST, os.strerror(errno.EEXIST), str(path), None, str(final))
        moved(path, final, **kwargs)

    monkeypatch.setattr(os, "replace", move)


def test_a_cache_without_links_modes_and_times_works(data: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = build_dataset(data)
    (data / "test.jsonl").write_text((data / "test.jsonl").read_text().replace('"UNSAFE"', '"SAFE"', 1))
    second = build_dataset(data)
    without_links_modes_and_times(monkeypatch)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    for dataset in (first, second, first, second):
        version = push_local(dataset, REPO_ID)
        loaded = (load_pushed(REPO_ID), load_pushed(REPO_ID, version), datasets.load_dataset(REPO_ID))
        assert {content_hash(each) for each in loaded} == {content_hash(dataset)}
    assert not any(path.is_symlink() for path in home.rglob("*"))
    assert len(list((home / "hub").glob("*/snapshots/*/manifest.json"))) == 2


def test_a_version_that_cannot_be_read_is_never_removed_for_it(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    version = push_local(build_dataset(data), REPO_ID)
    used = content_hash(load_pushed(REPO_ID))
    (data / "test.jsonl").write_text((data / "test.jsonl").read_text().replace('"UNSAFE"', '"SAFE"', 1))
    push_local(build_dataset(data), REPO_ID)
    read = Path.read_bytes

    def refuse(path: Path) -> bytes:
        if path.name == "manifest.json" and path.parent.name == version:
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        return read(path)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", refuse)
        with pytest.raises(OSError, match="Input/output error"):
            prune(REPO_ID, {used})
    assert content_hash(load_pushed(REPO_ID, version)) == used


def test_rows_are_built_there_too(data: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    old = {name: (data / name).read_bytes() for name in ("train.jsonl", "test.jsonl", "audit.json")}
    without_links_modes_and_times(monkeypatch)
    assert build_jsonl.main(["--data", str(data)]) == 0
    assert old == {name: (data / name).read_bytes() for name in old}
    assert len(read_clips(data / CLIPS_FILE)) == 24
    assert not [path for path in data.iterdir() if path.name.startswith(".")]


def test_what_can_t_be_replaced_at_once_is_kept_until_the_new_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "old").write_text("old")
    without_links_modes_and_times(monkeypatch)
    write_atomic(tmp_path / "old", b"new")
    assert (tmp_path / "old").read_text() == "new"
    with pytest.raises(FileNotFoundError):
        replace(tmp_path / "absent", tmp_path / "old")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["new"]


def script(body: str, before: str = "", **streams: Any) -> subprocess.CompletedProcess[str]:
    """Run a script of one line, after one that goes before it."""
    main = f"def main(argv):\n    {body}\n    return 0"
    program = f"{before}\nfrom data_prep.console import run_script\n{main}\nrun_script(main)"
    environment = {**os.environ, "PYTHONPATH": str(PROJECT_ROOT), "PYTHONUNBUFFERED": ""}
    command = [sys.executable, "-c", program]
    return subprocess.run(command, text=True, stderr=subprocess.PIPE, env=environment, **streams)


def test_a_full_disk_behind_stdout_is_told_in_a_line() -> None:
    with FULL.open("w") as full:
        done = script("print('answer')", stdout=full)
    assert done.returncode == 2
    assert done.stderr.startswith("error: /dev/stdout: No space left on device (") and done.stderr.count("\n") == 1


def test_what_was_printed_before_the_disk_refused_is_not_lost() -> None:
    done = script("print('answer'); open('/dev/full/x')", stdout=subprocess.PIPE)
    assert (done.returncode, done.stdout) == (2, "answer\n")
    assert done.stderr == f"error: /dev/full/x: Not a directory; look what lies there, and move it away{AGAIN}"


def test_a_library_s_thread_tells_in_a_line_as_well() -> None:
    """TensorBoard writes in one, and raises the same error again where it is next written to."""
    body = "import threading; each = threading.Thread(target=open, args=['/dev/full/x']); each.start(); each.join()"
    done = script(body, stdout=subprocess.PIPE)
    assert (done.returncode, done.stderr.count("\n")) == (0, 1)
    assert done.stderr.startswith("error: /dev/full/x: Not a directory")


def test_a_user_without_a_name_has_one_for_torch() -> None:
    unnamed = "import os, pwd; os.environ.clear(); pwd.getpwuid = {}.__getitem__"
    done = script("import getpass; print(getpass.getuser())", before=unnamed, stdout=subprocess.PIPE)
    assert (done.returncode, done.stdout) == (0, f"{os.getuid()}\n"), done.stderr
