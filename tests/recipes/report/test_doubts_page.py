"""The page of doubtful frames as people use it: a real browser, no server, no network."""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Page, expect, sync_playwright

from data_prep.clips.records import Clip
from data_prep.hub.source import FramesSource, open_dataset
from data_prep.labels import TRAIN
from recipes.report.doubtful import ranked_clips, ranked_frames
from recipes.report.doubts_page import clips_shown, doubts_page
from tests.recipes.report.test_doubtful import seen_as
from tests.recipes.report.test_page import Balance
from tests.recipes.serving.test_app import CHROMIUM, FLAGS
from tests.tiny_data import make_clip, many_clips, write_data

SHOWN = 4
NEEDS_A_BROWSER = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium found; on Debian: apt-get install chromium")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> FramesSource:
    """A data set of which one training clip has nine seconds; the seventh has no frame."""
    data = write_data(tmp_path_factory.mktemp("data") / "data", [long_clip(), *many_clips()])
    source = replace(open_dataset(str(data)), audit={"fps": 1.0})
    assert '0_<long> & "wide"' in source.rows(TRAIN)["clip"][:], "it isn't one of validation's"
    return source


def long_clip() -> Clip:
    return replace(make_clip("train", 0, '0_<long> & "wide"', content="long"), samples=(0, 1, 2, 3, 4, 5, 7, 8, 9))


@pytest.fixture(scope="module")
def text(source: FramesSource) -> str:
    """The page where two seconds of the long clip, and one each of two SAFE clips, are the doubtful ones."""
    rows = source.rows(TRAIN)
    log_odds = np.full((len(rows), 3), 4.0)
    for row, (clip, sample) in enumerate(zip(rows["clip"][:], rows["sample"][:], strict=True)):
        if "long" in clip and sample in (0, 8):
            log_odds[row] = (-1.0, -2.0, -5.0 + sample / 10)
    for number, row in enumerate(safe_rows(source)):
        log_odds[row] = (1.0, -0.5, -0.5 + number / 10)
    frames = ranked_frames(rows, seen_as(log_odds), [False] * len(rows))
    clips = ranked_clips(frames)
    shown = clips_shown(rows, frames, clips, SHOWN)
    return doubts_page(shown, run="outputs/<run>", source=source, frames=len(frames), clips=len(clips))


def safe_rows(source: FramesSource) -> list[int]:
    """Return the first row of the first clip of each of two SAFE behaviours."""
    classes = source.rows(TRAIN)["source_class"][:]
    return [classes.index("4_safe_walkway"), classes.index("7_safe_carrying")]


def test_page_is_whole_and_asks_for_nothing_from_outside(text: str) -> None:
    parser = Balance()
    parser.feed(text)
    assert parser.open == []
    assert all(reference.startswith("data:image/jpeg;base64,") for reference in parser.references)
    assert not re.search(r"@import|url\(|fetch\(|https?://", text)
    assert "0_&lt;long&gt; &amp; &#34;wide&#34;" in text and "<long>" not in text
    assert "outputs/&lt;run&gt;" in text


@pytest.fixture(scope="module")
def page(text: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    file = tmp_path_factory.mktemp("page") / "doubts.html"
    file.write_text(text, encoding="utf-8")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        opened = browser.new_page()
        opened.set_default_timeout(60_000)
        asked: list[str] = []
        opened.on("request", lambda request: asked.append(request.url))
        failed: list[str] = []
        opened.on("pageerror", lambda error: failed.append(str(error)))
        opened.goto(file.as_uri())
        yield opened
        assert not [url for url in asked if not url.startswith(("file:", "data:"))]
        assert not failed
        browser.close()


@pytest.fixture(autouse=True)
def untouched(request: pytest.FixtureRequest) -> None:
    """Begin each test on the page as it was first opened."""
    if "page" in request.fixturenames:
        page: Page = request.getfixturevalue("page")
        page.evaluate("localStorage.clear()")
        page.reload()


LONG = 'frames/train/unsafe/0_<long> & "wide"'


@NEEDS_A_BROWSER
def test_clips_come_in_the_order_of_their_most_doubtful_frame_each_second_among_its_neighbours(page: Page) -> None:
    heads = page.locator(".clip header > b").all_inner_texts()
    assert [head.partition("_")[0] for head in heads] == ["0", "4", "7"]
    strip = page.locator(".clip").first.locator(".strip li")
    assert [text.split(",")[0].strip() for text in strip.all_inner_texts()] == [
        *("second 0", "second 1", "second 2", "second 5", "second 7", "second 8", "second 9")
    ], "two to either side of the seconds 0 and 8, of those that there are"
    marked = page.locator(".clip").first.locator(".strip li.marked")
    expect(marked).to_have_count(2)
    expect(marked.first).to_contain_text("1: learned in no epoch")
    expect(marked.first).to_contain_text("0.27 0.12 0.01")
    expect(page.locator(".strip li.marked")).to_have_count(SHOWN)
    widths = page.locator(".strip img").evaluate_all("pictures => pictures.map(picture => picture.naturalWidth)")
    assert set(widths) == {16}, "every picture is there"


@NEEDS_A_BROWSER
def test_behaviour_filters_the_clips(page: Page) -> None:
    expect(page.locator(".clip:visible")).to_have_count(3)
    assert page.locator("#behaviour option").all_inner_texts() == [
        *("all", "safe walkway violation", "safe walkway", "safe carrying")
    ]
    page.locator("#behaviour").select_option(label="safe walkway")
    expect(page.locator(".clip:visible")).to_have_count(1)
    expect(page.locator(".clip:visible header")).to_contain_text("safe walkway")
    page.locator("#behaviour").select_option(label="all")
    expect(page.locator(".clip:visible")).to_have_count(3)


@NEEDS_A_BROWSER
def test_list_holds_what_was_ticked_with_its_reason_and_survives_a_reload(page: Page, tmp_path: Path) -> None:
    expect(page.locator("#ticked")).to_have_text("nothing ticked")
    expect(page.locator("#list")).to_be_hidden()
    page.locator(".clip").first.locator(".strip li img").first.click()  # a click on the picture ticks it
    page.locator(".clip").nth(1).locator("input.whole").check()
    expect(page.locator("#ticked")).to_have_text("1 frames and 1 clips ticked")
    page.locator("#behaviour").select_option(label="safe carrying")  # what is hidden stays ticked
    page.reload()
    expect(page.locator("#ticked")).to_have_text("1 frames and 1 clips ticked")
    page.locator("#give").click()
    lines = page.locator("#list").input_value().split("\n")
    assert lines[0] == f"{LONG}/0000.jpg\tlearned in no epoch; less sure than its clip's other frames"
    assert re.fullmatch(r"frames/train/safe/\d_tr\d\t1 of its 2 frames learned and forgotten", lines[1])
    assert lines[2:] == [""]
    with page.expect_download() as download:
        page.locator("#save").click()
    assert download.value.suggested_filename == "left_out.txt"
    download.value.save_as(tmp_path / "left_out.txt")
    assert (tmp_path / "left_out.txt").read_text() == "\n".join(lines)
    page.locator(".clip").nth(1).locator("input.whole").uncheck()
    expect(page.locator("#list")).to_be_hidden()
    expect(page.locator("#ticked")).to_have_text("1 frames and 0 clips ticked")
