"""What is slow and shared: the fixtures' folder, the small base, and one run of a small demo."""

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from data_prep.files import PROJECT_ROOT
from tests.made_bases import write_packed, write_tied

# Nothing in the tests may reach the Hub or the user's caches. Set before any library reads them.
HF_HOME = tempfile.mkdtemp(prefix="safe-unsafe-tests-")
os.environ.update(HF_HOME=HF_HOME, HF_HUB_OFFLINE="1", HF_HUB_DISABLE_TELEMETRY="1")

# The fewest clips among which stand all byte-copies and what they copy, at the demo's own shares of UNSAFE, and half
# its epochs. What the demo itself learns is held by tests/project/test_demo_figures.py.
TRAIN_CLIPS, TEST_CLIPS = 30, 24
CLIP_FLAGS = ("--train-clips", str(TRAIN_CLIPS), "--test-clips", str(TEST_CLIPS))
SMALL = {"DEMO_CLIPS": " ".join(CLIP_FLAGS), "DEMO_TRAINING": "--num_train_epochs 2"}


@dataclass(frozen=True)
class Kept:
    """What commit 9264ce6 wrote of a data set of 48 tiny frames.

    A data folder, the same pushed as local/safe-unsafe-tiny, a finished run of four updates on the small base, and that
    run as it was after two.
    """

    data: Path
    hf_home: Path
    run: Path
    unfinished: Path


@dataclass(frozen=True)
class Demo:
    """Where one run of `make demo`, small, left its work, and what it printed."""

    data: Path
    output: Path
    hf_home: Path
    stdout: str
    stderr: str


def pytest_unconfigure() -> None:
    """Remove what the libraries cached."""
    shutil.rmtree(HF_HOME, ignore_errors=True)


@pytest.fixture(scope="session")
def true_model_folder() -> Path:
    """The companion files of Qwen2-VL-7B-Instruct: configuration, tokenizer, processor, no weights."""
    folder = Path(os.environ.get("SAFE_UNSAFE_FIXTURES", "")) / "qwen2-vl-7b"
    if "SAFE_UNSAFE_FIXTURES" not in os.environ or not folder.is_dir():
        pytest.skip("SAFE_UNSAFE_FIXTURES names no folder with qwen2-vl-7b/")
    return folder


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    """Run `make demo` once, all steps of it on few clips, into folders of its own."""
    root = tmp_path_factory.mktemp("demo")
    places = {"DEMO_DATA": root / "data", "DEMO_OUTPUT": root / "outputs", "DEMO_VISION": root / "vision"}
    variables = [f"{name}={value}" for name, value in {**places, **SMALL}.items()]
    done = subprocess.run(
        ["make", "--silent", "demo", f"VENV={sys.prefix}", *variables],
        cwd=PROJECT_ROOT,
        env={**os.environ, "HF_HOME": str(root / "hf")},
        capture_output=True,
        text=True,
        check=False,
        timeout=1800,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return Demo(root / "data", root / "outputs", root / "hf", done.stdout, done.stderr)


@pytest.fixture(scope="session")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Kept:
    """Unpack what an earlier version wrote, to be read and not to be changed."""
    root = tmp_path_factory.mktemp("kept")
    shutil.unpack_archive(PROJECT_ROOT / "tests" / "data" / "made_by_9264ce6.tar.xz", root)
    return Kept(root / "data", root / "hf", root / "run", root / "unfinished")


@pytest.fixture(scope="session")
def small_base() -> Path:
    """The small Qwen2-VL that ships with the project."""
    return PROJECT_ROOT / "tiny_base" / "weights"


@pytest.fixture(scope="session")
def tied_base(small_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small base with its LM head tied to the embedding, as the 2B's is."""
    folder = tmp_path_factory.mktemp("bases") / "tied"
    write_tied(small_base, folder)
    return folder


@pytest.fixture(scope="session")
def packed_base(small_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small base in 4 bits as transformers saves it, made from fp32 as the tests' own 4-bit loading is."""
    folder = tmp_path_factory.mktemp("bases") / "packed"
    write_packed(small_base, folder, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True)
    return folder
