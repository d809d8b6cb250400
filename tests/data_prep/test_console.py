import os
import shlex
import subprocess
import sys

import pytest
from huggingface_hub import constants, get_session
from huggingface_hub.errors import OfflineModeIsEnabled

from data_prep.console import results_alone_on_stdout, stay_offline
from data_prep.files import PROJECT_ROOT


def test_only_results_reach_stdout(capfd: pytest.CaptureFixture[str]) -> None:
    """What Python prints, and what a library in C writes, goes to stderr for as long as it lasts."""
    with results_alone_on_stdout() as results:
        print("chatter")
        os.write(1, b"from C\n")
        print("SAFE", file=results, flush=True)
    print("afterwards")
    out, err = capfd.readouterr()
    assert out == "SAFE\nafterwards\n"
    assert sorted(err.splitlines()) == ["chatter", "from C"]


def test_reader_that_goes_away_ends_a_script_without_a_traceback() -> None:
    program = (
        "from data_prep.console import run_script\n"
        "from data_prep.console import results_alone_on_stdout\n"
        "def main(argv):\n"
        "    with results_alone_on_stdout() as results:\n"
        "        for number in range(100_000):\n"
        "            print('SAFE', file=results, flush=True)\n"
        "    return 0\n"
        "run_script(main)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program], cwd=PROJECT_ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout and process.stderr
    assert process.stdout.readline() == "SAFE\n"
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait() == 1


ASKING = (
    "import os, sys\n"
    "from data_prep.console import run_script\n"
    "from data_prep.console import stream_alone_on_stdin\n"
    "def ask():\n"
    "    try:\n"
    "        return input('Run the code of this folder? [y/N] ')\n"
    "    except (EOFError, RuntimeError):\n"
    "        return os.read(0, 10)\n"
    "def main(argv):\n"
    "    if not argv:\n"
    "        print(ask())\n"
    "        return 0\n"
    "    with stream_alone_on_stdin() as lines:\n"
    "        print(ask(), [line for line in lines])\n"
    "    return 0\n"
    "run_script(main, reads_stdin=bool(sys.argv[1:]))\n"
)


@pytest.mark.parametrize(("arguments", "said"), [([], "b''\n"), (["stream"], "b'' [b'y\\n', b'frame.jpg\\n']\n")])
def test_no_question_is_answered_from_stdin(arguments: list[str], said: str) -> None:
    """A library that asks gets nothing, and takes no line from the stream."""
    done = subprocess.run(
        [sys.executable, "-c", ASKING, *arguments],
        cwd=PROJECT_ROOT,
        input="y\nframe.jpg\n",
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout.removeprefix("Run the code of this folder? [y/N] ")) == (0, said), done.stderr


@pytest.mark.parametrize("arguments", ["", "stream"])
def test_stdin_that_is_closed_is_an_empty_one(arguments: str) -> None:
    """Else the next file to be opened would take its number, stdout's own copy for one."""
    program = ASKING.replace("print(ask()", "print(os.fstat(0).st_rdev == os.stat(os.devnull).st_rdev, ask()")
    command = f"exec {sys.executable} -c {shlex.quote(program)} {arguments} <&-"
    done = subprocess.run(command, shell=True, cwd=PROJECT_ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("True b'' []\n" if arguments else "True b''\n")


def test_offline_holds_for_what_was_imported_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    stay_offline()
    assert constants.is_offline_mode() and os.environ["HF_HUB_OFFLINE"] == "1"
    with pytest.raises(OfflineModeIsEnabled):
        get_session().get("https://plant.invalid")
