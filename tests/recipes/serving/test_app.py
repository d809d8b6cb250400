"""The page as people use it: a real browser against the running app, with the demo's adapter."""

import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page, expect, sync_playwright

from data_prep.files import PROJECT_ROOT
from recipes.serving.answer_page import SWEEP_SECONDS, UPLOAD_SECONDS
from tests.conftest import Demo
from tests.project.test_demo import answer_of

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
]
PATIENCE_MS = 60_000  # two busy cores answer a frame in a fifth of a second, at other times in five

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium found; on Debian: apt-get install chromium")


@dataclass(frozen=True)
class App:
    """The running page: where it is, where it may put files, and what it tried to send away."""

    address: str
    temporary: Path
    sent: list[bytes]
    process: subprocess.Popen[str]


@pytest.fixture(scope="module")
def app(demo: Demo, tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    """Start the app with a proxy in its environment that notes whatever goes through it."""
    temporary = tmp_path_factory.mktemp("uploads")
    sent: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as proxy, socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
        free.close()
        threading.Thread(target=note, args=(proxy, sent), daemon=True).start()
        url = f"http://127.0.0.1:{proxy.getsockname()[1]}"
        proxies = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"), url)
        process = subprocess.Popen(
            [
                *(sys.executable, "recipes/app.py", "--adapter", str(demo.output), "--port", str(port)),
                *("--max-upload-mb", "1", "--examples", str(demo.data)),
            ],
            cwd=PROJECT_ROOT,
            env={**os.environ, **proxies, "no_proxy": "", "TMPDIR": str(temporary)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stdout and process.stderr
        address = process.stdout.readline().strip()
        assert address == f"http://127.0.0.1:{port}/", process.stderr.read()
        yield App(address, temporary, sent, process)
        process.terminate()
        assert process.wait(timeout=30) == 0
        assert list(temporary.iterdir()) == [], "nothing is left of what was dropped on it"


def note(proxy: socket.socket, sent: list[bytes]) -> None:
    while True:
        try:
            connection, _ = proxy.accept()
        except OSError:
            return
        with connection:
            sent.append(connection.recv(1024))


@pytest.fixture(scope="module")
def requests() -> list[str]:
    """What the page has asked for so far."""
    return []


@pytest.fixture(scope="module")
def page(app: App, requests: list[str]) -> Iterator[Page]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        opened = browser.new_page()
        opened.set_default_timeout(PATIENCE_MS)
        opened.on("request", lambda request: requests.append(request.url))
        opened.goto(app.address)
        opened.wait_for_selector("#drop input[type=file]", state="attached")
        yield opened
        browser.close()


@pytest.fixture(autouse=True)
def patience() -> None:
    expect.set_options(timeout=PATIENCE_MS)


def drop(page: Page, path: Path) -> None:
    """Drop a file on a fresh page."""
    page.reload()
    page.locator("#drop input[type=file]").set_input_files(path)


def answers(page: Page, count: int) -> list[str]:
    """Return the answers that are shown, once there are so many and the last has come."""
    expect(page.locator("#answers li")).to_have_count(count)
    expect(page.locator("#answers [role=status]")).to_contain_text("a frame")
    return page.locator("#answers li b").all_inner_texts()


def frame_of(demo: Demo, label: str) -> Path:
    return min(demo.data.glob(f"frames/test/{label}/*/0001.jpg"))


def test_page_says_what_it_is_and_what_it_is_not(page: Page) -> None:
    expect(page).to_have_title("SAFE or UNSAFE?")
    for words in ("It is not a safety device", "This is the demo's base", "local/safe-unsafe-demo", "nothing is"):
        expect(page.locator("body")).to_contain_text(words)


@pytest.mark.parametrize("label", ["unsafe", "safe"])
def test_frame_gets_the_answer_that_evaluation_gave(page: Page, demo: Demo, label: str) -> None:
    frame = frame_of(demo, label)
    drop(page, frame)
    assert answers(page, 1) == [answer_of(demo, frame)]
    expect(page.locator("#answers img")).to_have_attribute("alt", f"{frame.name}: {answer_of(demo, frame)}")


def test_png_is_taken_too(page: Page, demo: Demo, tmp_path: Path) -> None:
    frame = frame_of(demo, "unsafe")
    Image.open(frame).convert("RGBA").save(tmp_path / "frame.png")
    drop(page, tmp_path / "frame.png")
    assert answers(page, 1) == [answer_of(demo, frame)]


def test_clip_becomes_a_strip_of_answers_without_a_verdict(page: Page, demo: Demo) -> None:
    clip = min(demo.data.glob("*/test/0_*/*.mp4"))
    frames = sorted(demo.data.glob(f"frames/test/unsafe/{clip.stem}/*.jpg"))
    drop(page, clip)
    assert answers(page, len(frames)) == [answer_of(demo, frame) for frame in frames]
    items = page.locator("#answers li").all_inner_texts()
    assert ["second 0" in items[0], f"second {len(frames) - 1}" in items[-1]] == [True, True]
    counts = page.locator("#answers [role=status]").inner_text()
    assert re.match(rf"{len(frames)} frames: \d+ UNSAFE, \d+ SAFE · ", counts)


def test_threshold_relabels_without_asking_the_model(page: Page, demo: Demo) -> None:
    drop(page, frame_of(demo, "safe"))
    (before,) = answers(page, 1)
    shown = page.locator("#answers li").inner_text()
    threshold, after = ("0", "UNSAFE") if before == "SAFE" else ("1", "SAFE")
    number = page.get_by_role("spinbutton", name=re.compile("Threshold"))
    number.fill(threshold)
    number.press("Enter")
    expect(page.locator("#answers li b")).to_have_text(after)
    assert page.locator("#answers li").inner_text() == shown.replace(before, after, 1)
    assert "ms" not in page.locator("#answers [role=status]").inner_text()
    number.fill("0.5")
    number.press("Enter")
    expect(page.locator("#answers li b")).to_have_text(before)


def test_slider_and_examples_work_from_the_keyboard(page: Page) -> None:
    slider = page.get_by_role("slider", name=re.compile("Threshold"))
    slider.focus()
    before = float(slider.input_value())
    slider.press("ArrowRight")
    assert float(slider.input_value()) == pytest.approx(before + 0.001)
    slider.press("ArrowLeft")
    page.get_by_role("button", name="Try it on a frame of an UNSAFE clip").focus()
    page.keyboard.press("Enter")
    assert answers(page, 1) in (["UNSAFE"], ["SAFE"])
    expect(page.locator("#answers li")).to_contain_text("0002.jpg")


@pytest.mark.parametrize("name", ["frame.jpg", "clip.mp4"])
def test_file_that_is_not_what_it_is_called_is_said_in_a_line(page: Page, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("not a picture")
    drop(page, tmp_path / name)
    alert = page.locator("#answers [role=alert]")
    expect(alert).to_contain_text(f"{name}: not a readable")
    assert "Traceback" not in page.locator("body").inner_text()


def test_file_of_another_kind_is_refused(page: Page, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("words")
    drop(page, tmp_path / "notes.txt")
    expect(page.locator("body")).to_contain_text(re.compile("Invalid file type|only accepts", re.IGNORECASE))
    expect(page.locator("#answers li")).to_have_count(0)


def test_file_that_is_too_large_is_refused(page: Page, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (700, 700, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "large.png")
    assert (tmp_path / "large.png").stat().st_size > 1_000_000
    drop(page, tmp_path / "large.png")
    expect(page.locator("body")).to_contain_text(re.compile("exceed|too large|maximum", re.IGNORECASE))
    expect(page.locator("#answers li")).to_have_count(0)


def test_visitors_who_drop_the_same_file_at_once_each_get_their_answer(page: Page, app: App, demo: Demo) -> None:
    frame = frame_of(demo, "unsafe")
    browser = page.context.browser
    assert browser
    visitors = [browser.new_page() for _ in range(3)]
    for visitor in visitors:
        visitor.set_default_timeout(PATIENCE_MS)
        visitor.goto(app.address)
        visitor.wait_for_selector("#drop input[type=file]", state="attached")
    for visitor in visitors:
        visitor.locator("#drop input[type=file]").set_input_files(frame)
    for visitor in visitors:
        assert answers(visitor, 1) == [answer_of(demo, frame)]
        visitor.close()


def test_everything_has_a_name_for_screen_readers(page: Page) -> None:
    unnamed = page.evaluate(
        """() => [...document.querySelectorAll('button, input, [role=slider]')].filter(element => {
            if (element.type === 'file' || !element.checkVisibility()) return false;
            const label = element.labels && element.labels.length ? element.labels[0].innerText : '';
            return !(element.innerText || element.ariaLabel || element.title || label).trim();
        }).map(element => element.outerHTML.slice(0, 200))"""
    )
    assert unnamed == []


def test_nothing_was_asked_of_or_sent_to_anyone_else(page: Page, app: App, requests: list[str]) -> None:
    """Last: it tells of all that the tests before it did."""
    assert requests
    assert [url for url in requests if not url.startswith((app.address, "data:", "blob:"))] == []
    assert app.sent == []

    def kept() -> list[Path]:
        return [path for path in app.temporary.rglob("*") if path.suffix in (".jpg", ".png", ".mp4", ".txt")]

    assert [path for path in kept() if path.parent.name.startswith("taken-")] == []
    sweeps_end = time.monotonic() + UPLOAD_SECONDS + 2 * SWEEP_SECONDS + 5
    while kept() and time.monotonic() < sweeps_end:
        time.sleep(0.5)
    assert kept() == [], "what was dropped is removed within seconds"
