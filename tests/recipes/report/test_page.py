import base64
import io
import re
from functools import cache
from html.parser import HTMLParser
from typing import Any

import pytest
from PIL import Image

from recipes.metrics.figures import FIGURES, READING_ORDER
from recipes.report.contents import split_figures
from recipes.report.look import thumbnail
from recipes.report.mistakes import when, worst_mistakes
from recipes.report.neighbours import ClipsOfRows
from recipes.report.page import headline, report_page
from recipes.report.plots import draw_plots
from recipes.report.scored import Scored
from recipes.report.table import as_table
from recipes.report.writing import with_pictures
from tests.report_by_hand import BASE, P_UNSAFE, ROWS, TRUTH, frames, whole_report

PICTURE = thumbnail(Image.new("RGB", (1920, 1080), (200, 30, 30)))


@cache
def plots_at(threshold: float) -> dict[str, str]:
    return draw_plots(whole_report(threshold=threshold), Scored.of(ROWS, P_UNSAFE, BASE, threshold=threshold))


def page(report: dict[str, Any], *, picture: str | None = PICTURE, fps: float | None = 2.0) -> str:
    found = worst_mistakes(frames(report["threshold"]["value"]))
    mistakes = [{**mistake, "picture": picture, "strip": strip_of(mistake, picture)} for mistake in found]
    return report_page(report, plots_at(report["threshold"]["value"]), mistakes, fps=fps)


def strip_of(mistake: dict[str, Any], picture: str | None) -> list[dict[str, Any]]:
    """Return a mistake among its clip's frames, where pictures are shown."""
    near = [row for row, clip in enumerate(ROWS["clip"]) if clip == mistake["clip"] and picture]
    return [{"row": row, "sample": ROWS["sample"][row], "picture": picture} for row in near]


class Balance(HTMLParser):
    """Note what a page refers to, and whether every element that was opened is closed in order."""

    VOID = ("meta", "img", "br", "link", "input")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.references: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.references += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href", "data")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.references += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href", "data")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_page_is_whole_and_asks_for_nothing_from_outside() -> None:
    parser = Balance()
    parser.feed(page(whole_report()))
    assert parser.open == []
    assert all(reference.startswith(("data:image/jpeg;base64,", "#")) for reference in parser.references)
    text = page(whole_report())
    assert not re.search(r"<script|@import|url\((?!#)", text)
    assert 'content="width=device-width' in text and "@media print" in text and "prefers-color-scheme:dark" in text


def test_mistakes_stand_among_their_neighbours() -> None:
    """The worst of clip a is its last frame; of clip d, a single one, there is nothing around it to show."""
    text = page(whole_report())
    strips = re.findall(r'<div class="strip">(.*?)</div>', text, flags=re.DOTALL)
    seconds = [re.findall(r'title="(.*?)"( class="marked")?', strip) for strip in strips]
    assert [("second 0", ""), ("second 0.5", ""), ("second 1", ' class="marked"')] in seconds
    assert all(len(strip) > 1 for strip in seconds) and len(seconds) < len(worst_mistakes(frames(0.5)))
    assert '<div class="strip">' not in page(whole_report(), picture=None)


def test_neighbours_are_of_the_same_clip_in_the_order_of_their_samples() -> None:
    clips = ClipsOfRows(["a", "b", "a", "a", "a", "a"], [9, 0, 3, 1, 4, 2])
    assert [clips.around(row) for row in (4, 3, 0, 1)] == [[5, 2, 4, 0], [3, 5, 2], [2, 4, 0], [1]]
    assert clips.around(2, neighbours=1) == [5, 2, 4]
    assert clips.of("a") == [3, 5, 2, 4, 0]


def test_report_shows_the_seconds_around_a_mistake_unless_frames_are_left_out() -> None:
    content = io.BytesIO()
    Image.new("RGB", (320, 180), "red").save(content, "PNG")

    class Rows:
        def __getitem__(self, which: str | int) -> Any:
            return ROWS[which] if isinstance(which, str) else {"image": {"bytes": content.getvalue()}}

    mistakes = worst_mistakes(frames())
    shown = with_pictures(mistakes, Rows(), without_frames=False)
    assert {mistake["clip"]: [each["sample"] for each in mistake["strip"]] for mistake in shown} == {
        **{mistake["clip"]: [0] for mistake in mistakes if mistake["clip"] in "bd"},
        **{mistake["clip"]: [0, 1, 2] for mistake in mistakes if mistake["clip"] == "a"},
        **{mistake["clip"]: [0, 1] for mistake in mistakes if mistake["clip"] == "c"},
    }
    assert all(each["picture"].startswith("data:image/jpeg") for mistake in shown for each in mistake["strip"])
    left_out = with_pictures(mistakes, Rows(), without_frames=True)
    assert {(mistake["picture"], *mistake["strip"]) for mistake in left_out} == {(None,)}


def test_same_report_same_page() -> None:
    assert page(whole_report()) == page(whole_report())


def test_cameras_and_own_classes_have_their_words() -> None:
    assert "By camera" not in page(whole_report()) and "nearly tell the label" not in page(whole_report())
    rows = {**ROWS, "camera": ["<gate>"] * 3 + [None] * 4, "source_class": ["bins_3*", *ROWS["source_class"][1:]]}
    report = {**whole_report(), **split_figures(Scored.of(rows, P_UNSAFE, BASE, threshold=0.5))}
    audit = report["data"]["audit"] | {
        "cameras_that_tell_the_label": [{"camera": "<gate>", "label": "UNSAFE", "clips": 19, "of": 20}],
        "background_probe": {"clips": 40, "balanced_accuracy": 0.975},
    }
    classes = {"bins_3*": {"label": "UNSAFE", "description": "three bins & more"}}
    report["data"] = {**report["data"], "audit": audit, "classes": classes}
    text = page(report)
    assert "<td>&lt;gate&gt;</td><td>2</td><td>3</td><td>1</td><td>2</td>" in text
    assert '<td>bins 3*<br><span class="muted">three bins &amp; more</span></td>' in text
    assert "&lt;gate&gt; (19 of 20 clips UNSAFE)" in text and "balanced accuracy of\n0.975" in text


def test_headline_says_in_words_what_the_figures_say() -> None:
    """At 0.5: of four UNSAFE frames two are found, of three SAFE ones two called UNSAFE; two clips of four right."""
    said = headline(whole_report())
    assert said[0].startswith("Of 7 frames of 4 clips, 42.9 % (95 % interval ")
    assert said[1].startswith("Of 4 UNSAFE frames it found 2 and missed 2: 50.0 % (95 % interval ")
    assert said[2] == "Of 3 SAFE frames it called 2 UNSAFE, a false alarm."
    assert "50.0 % (95 % interval" in said[3] and said[3].endswith("of the clips are right.")
    assert "Macro-F1 on frames is 0.417; its base without the adapter has 0.857, a difference of -0.440" in said[4]
    assert len(headline(whole_report(base=False))) == 4


def test_worst_mistakes_are_the_most_confident_one_a_clip() -> None:
    """Wrong at 0.5: c/0 at 0.6, b/0 at 0.4, d/0 at 0.8, a/2 at 0.3. Of 0.25 on: all of c but one, d."""
    found = worst_mistakes(frames())
    assert [(frame["clip"], frame["sample"]) for frame in found] == [("d", 0), ("a", 2), ("c", 0), ("b", 0)]
    assert [(frame["frames_wrong"], frame["frames_in_clip"]) for frame in found] == [(1, 1), (1, 3), (1, 2), (1, 1)]
    assert [frame["row"] for frame in worst_mistakes(frames(), most=2)] == [4, 6]
    at_most = worst_mistakes(frames(threshold=0.95))
    assert [(frame["clip"], frame["sample"], frame["frames_wrong"]) for frame in at_most] == [("a", 2, 3), ("b", 0, 1)]


def test_mistakes_stand_in_the_page_with_clip_and_second() -> None:
    text = page(whole_report())
    assert "d, second 0<br>" in text and "a, second 1<br>" in text
    assert text.count(PICTURE) == 4 + 3 + 2, "one a clip, and strips of the two clips that have more frames"
    assert "Where people can be recognised" in text
    assert "a, sample 2<br>" in page(whole_report(), fps=None)
    assert (when(3, 2.0), when(4, 1.0), when(4, None)) == ("second 1.5", "second 4", "sample 4")
    assert (when(0, 1.0), when(100, 3.0), when(3, 0.1)) == ("second 0", "second 33.333", "second 30")
    assert when(15724801, 1.0) == "second 15724801"  # after a pause of months


def test_page_without_frames_shows_none_and_says_nothing_of_them() -> None:
    text = page(whole_report(), picture=None)
    assert "<img" not in text and "Where people can be recognised" not in text
    assert "d, second 0<br>" in text


def test_thumbnail_is_small_and_keeps_its_shape() -> None:
    image = Image.open(io.BytesIO(base64.b64decode(PICTURE.partition(",")[2])))
    assert (image.format, image.size) == ("JPEG", (360, 203))


def test_what_others_wrote_is_escaped() -> None:
    text = page(whole_report())
    assert "outputs/&lt;run&gt;" in text and "Is it &lt;safe&gt;?" in text


@pytest.mark.parametrize(
    ("report", "words", "there"),
    [
        (whole_report(model="./tiny_base/weights"), "This is the demo's base", True),
        (whole_report(), "This is the demo's base", False),
        (whole_report(threshold=0.7), "<th>frames at 0.5</th>", True),
        (whole_report(), "<th>frames at 0.5</th>", False),
        (whole_report(), "6 frames<br>without a twin", True),
        (whole_report(), "broken.mp4</code> (no frame)", True),
        (whole_report(), "<td>base model</td><td>0.857</td>", True),
        (whole_report(base=False), "<td>base model</td>", False),
    ],
)
def test_page_says_what_applies(report: dict[str, Any], words: str, there: bool) -> None:
    assert (words in page(report)) is there


def test_page_of_other_data_and_of_a_stated_prior_says_so() -> None:
    report = whole_report()
    report["config"]["same_data_as_training"] = False
    report["threshold"]["prior"] |= {"training": 0.8, "stated": 0.5}
    text = page(report)
    assert "This is other data than the adapter was trained on" in text
    assert "All figures are for a plant in which a share of 0.5 of the frames is UNSAFE" in text
    assert "0.800 for the adapter, 0.500 for the probe, and\n0.5 for the base" in text
    assert "corrected for a share of\n0.5 UNSAFE frames; training weighed them as 0.800" in text
    assert "The threshold is applied to what comes out, so answers change with the share" in text
    report["threshold"]["chosen"] = "macro_f1 on 68 validation frames"
    assert "The threshold was 0.25 in training and is\ncorrected alike" in page(report)
    assert "for a plant in which" not in page(whole_report())


def test_headline_at_a_prior_is_of_that_world_and_counts_what_is_there() -> None:
    """A third of SAFE and a half of UNSAFE frames are right, and of either's clips a half."""
    said = headline(whole_report(prior=0.1))
    assert said[0].startswith("Of 7 frames of 4 clips, weighed for a share of 0.1 UNSAFE ones, 35.0 % (95 % interval ")
    assert said[1].startswith("Of 4 UNSAFE frames it found 2 and missed 2: 50.0 % (95 % interval ")
    assert said[3].endswith("of the clips, weighed alike, are right.")


def without_an_error() -> dict[str, Any]:
    report = whole_report()
    figures = split_figures(Scored.of(ROWS, TRUTH.astype(float), {"base_model": None}, threshold=0.5), not_clean={"d"})
    return {**report, **figures}


def test_no_error_is_no_certainty() -> None:
    """Four clips, two of them UNSAFE; 3/4 and all of the clips may still go wrong."""
    said = headline(without_an_error())
    assert "100.0 % (without an error on 4 clips: up to 75.0 % of clips may still go wrong)" in said[0]
    assert "100.0 % (without an error on 2 clips: up to 100.0 % of clips may still go wrong)" in said[1]
    text = page(without_an_error())
    assert text.count("<td>1.000</td><td>-</td><td>1.000</td></tr>") == 4, "right, no interval, 3 of one clip at most"
    assert page(whole_report()).count("</td><td></td></tr>\n") >= 4


def test_page_copes_with_what_is_not_known() -> None:
    report = whole_report()
    report["data"]["audit"] = report["excluded"] = None
    report["clean_subset"] = None
    report["results"]["clip"] = None
    assert "No audit is known of these rows" in page(report)


def test_every_figure_stands_in_the_report_its_page_and_its_table() -> None:
    report = whole_report()
    assert list(report["results"]["frame"]) == ["n", *(figure.name for figure in FIGURES), "intervals"]
    rows = re.findall(r"<tr><td>([^<]+)</td>", page(report).partition("All figures")[2].partition("The data")[0])
    assert rows == [figure.words for figure in READING_ORDER] and set(READING_ORDER) == set(FIGURES)
    lines = {line.split()[0] for line in as_table(report).splitlines()}
    assert {figure.name for figure in FIGURES} & lines == {figure.name for figure in FIGURES if figure.in_table}
