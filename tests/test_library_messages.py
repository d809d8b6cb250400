import os
import subprocess
import sys

import pytest

from data_prep.files import PROJECT_ROOT
from recipes.library_messages import results_alone_on_stdout


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
        "from data_prep.errors import run_script\n"
        "from recipes.library_messages import results_alone_on_stdout\n"
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
