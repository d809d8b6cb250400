"""serve.py as a process of its own, with a real adapter on the small base, beside infer.py's answers."""

import io
import json
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from data_prep.files import PROJECT_ROOT
from tests.black_hole import free_port
from tests.conftest import Kept

PATIENCE = 120  # seconds, for a model that is loaded on busy cores
TOKEN = "c0ffee-c0ffee"
TOLERANCE = 1e-4  # of P(UNSAFE), between a frame alone and in a batch


@dataclass(frozen=True)
class Running:
    """The process, how to ask it, and the file of what it says."""

    process: subprocess.Popen[str]
    client: httpx.Client
    said: Path


@pytest.fixture(scope="module")
def running(kept: Kept, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("service")
    (folder / "token").write_text(TOKEN + "\n")
    (folder / "temporary").mkdir()
    port = str(free_port())
    flags = ["--adapter", str(kept.run), "--port", port, "--token-file", str(folder / "token")]
    with (folder / "said").open("w") as said:
        process = subprocess.Popen(
            [sys.executable, "recipes/serve.py", *flags, "--batch-size", "4", "--max-upload-seconds", "5"],
            cwd=PROJECT_ROOT,
            env={**os.environ, "TMPDIR": str(folder / "temporary")},
            stdout=subprocess.PIPE,
            stderr=said,
            text=True,
        )
    last_resort = threading.Timer(PATIENCE * 3, process.kill)
    last_resort.start()
    assert process.stdout
    address = process.stdout.readline().strip()
    assert address == f"http://127.0.0.1:{port}/", (folder / "said").read_text()
    headers = {"Authorization": f"Bearer {TOKEN}"}
    with httpx.Client(base_url=address, headers=headers, timeout=PATIENCE, trust_env=False) as client:
        yield Running(process, client, folder / "said")
    process.kill()
    process.wait(PATIENCE)
    last_resort.cancel()
    written = [path for path in (folder / "temporary").rglob("*") if path.is_file()]
    assert written == [], "nothing that comes is written anywhere"


def encoded(image: Image.Image, kind: str, **how: Any) -> bytes:
    content = io.BytesIO()
    image.save(content, kind, **how)
    return content.getvalue()


@pytest.fixture(scope="module")
def frames(kept: Kept) -> list[bytes]:
    """Frames of the kept data set and odd ones: of other modes, sizes and orientations."""
    files = sorted((kept.data / "frames").rglob("*.jpg"))[::4]
    random = np.random.default_rng(0)
    noise = Image.fromarray(random.integers(0, 256, (90, 160, 3), dtype=np.uint8)).resize((640, 360))
    turned = Image.Exif()
    turned[0x0112] = 6
    odd = [
        encoded(noise, "JPEG", exif=turned),
        encoded(noise, "PNG"),
        encoded(noise.convert("L"), "PNG"),
        encoded(noise.convert("RGBA"), "PNG"),
        encoded(noise.resize((1920, 1080)), "JPEG"),
        encoded(noise.resize((57, 90)), "JPEG"),
    ]
    return [file.read_bytes() for file in files] + odd


@pytest.fixture(scope="module")
def expected(kept: Kept, frames: list[bytes], tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What infer.py says of each frame alone."""
    folder = tmp_path_factory.mktemp("frames")
    for number, content in enumerate(frames):
        (folder / f"{number:03}.jpg").write_bytes(content)
    command = [sys.executable, "recipes/infer.py", "--adapter", str(kept.run), "--json", "--image"]
    done = subprocess.run(
        [*command, *map(str, sorted(folder.iterdir()))], cwd=PROJECT_ROOT, capture_output=True, text=True, check=True
    )
    found = [json.loads(line) for line in done.stdout.splitlines()]
    values = sorted(each["p_unsafe"] for each in found)
    assert max(b - a for a, b in pairwise(values)) > 10 * TOLERANCE, "they can be told apart"
    return found


def same(found: dict[str, Any], answer: dict[str, Any]) -> bool:
    close = abs(found["p_unsafe"] - answer["p_unsafe"]) < TOLERANCE
    return close and (found["answer"], found["threshold"]) == (answer["label"], answer["threshold"])


def test_each_frame_gets_infer_s_answer_whoever_else_asks(
    running: Running, frames: list[bytes], expected: list[dict[str, Any]]
) -> None:
    turns = [*range(len(frames))] * 2
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda number: running.client.post("/answer", content=frames[number]), turns))
    assert {each.status_code for each in found} == {200}
    wrong = [number for number, each in zip(turns, found, strict=True) if not same(each.json(), expected[number])]
    assert wrong == []


def test_frames_of_one_request_get_infer_s_answers(
    running: Running, frames: list[bytes], expected: list[dict[str, Any]]
) -> None:
    files = [("frame", ("frame.jpg", content)) for content in frames]
    found = running.client.post("/answers", files=files).json()
    assert all(same(each, answer) for each, answer in zip(found, expected, strict=True))


def test_good_and_bad_requests_at_once_are_told_apart(
    running: Running, frames: list[bytes], expected: list[dict[str, Any]]
) -> None:
    bad = [b"words", frames[0][:400], b""]
    asked = [*frames[:10], *bad] * 2
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda content: running.client.post("/answer", content=content), asked))
    for content, each in zip(asked, found, strict=True):
        if content in bad:
            assert each.status_code == 422
        else:
            assert same(each.json(), expected[frames.index(content)])


def test_sigterm_answers_what_was_accepted_and_ends_with_0(
    running: Running, frames: list[bytes], expected: list[dict[str, Any]]
) -> None:
    """Last: it ends the process. Of what is sent until then each request has its answer, or was never accepted."""
    before = running.client.get("/metrics").text
    answered_before = sum(float(line.split()[-1]) for line in before.splitlines() if "answers_total{" in line)
    outcomes = Counter[str]()
    lock, enough = threading.Lock(), threading.Event()

    def ask(client_number: int) -> None:
        for turn in range(1000):
            number = (client_number + turn) % len(frames)
            try:
                with httpx.Client(headers=running.client.headers, timeout=PATIENCE, trust_env=False) as client:
                    found = client.post(f"{running.client.base_url}answer", content=frames[number])
            except httpx.TransportError as error:
                with lock:
                    outcomes[type(error).__name__] += 1
                return
            assert same(found.json(), expected[number])
            with lock:
                outcomes["answered"] += 1
                if outcomes["answered"] == 12:
                    enough.set()

    with ThreadPoolExecutor(6) as threads:
        asking = [threads.submit(ask, number) for number in range(6)]
        assert enough.wait(PATIENCE)
        running.process.send_signal(signal.SIGTERM)
        for each in asking:
            each.result()
    assert running.process.wait(PATIENCE) == 0
    assert outcomes.keys() <= {"answered", "ConnectError", "RemoteProtocolError", "ReadError", "WriteError"}
    total = answered_before + outcomes["answered"]
    last = running.said.read_text().splitlines()[-1]
    assert last.startswith(f"{total:.0f} answered, ") and last.endswith(" 0 hung up")


def test_log_holds_a_line_a_refusal_and_nothing_else(running: Running) -> None:
    first, *refusals, last = running.said.read_text().splitlines()
    assert first.startswith("loading ") and last.endswith(" hung up")
    assert set(refusals) == {"refused: 422 Unprocessable Entity"}
    assert len(refusals) == 6
