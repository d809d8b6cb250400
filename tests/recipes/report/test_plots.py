import re
from xml.etree import ElementTree

import pytest

from recipes.report.look import DARK, LIGHT, class_in_words
from recipes.report.plots import draw_plots, standalone
from recipes.report.scored import Scored
from tests.report_by_hand import BASE, NOBODY, P_UNSAFE, ROWS, whole_report

NAMES = ["confusion", "classes", "histogram", "reliability", "precision_recall", "roc"]


@pytest.fixture(scope="module")
def plots() -> dict[str, str]:
    return draw_plots(whole_report(threshold=0.7), Scored.of(ROWS, P_UNSAFE, BASE, threshold=0.7))


def texts(svg: str) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]


def test_all_plots_are_drawn_and_the_same_each_time(plots: dict[str, str]) -> None:
    assert list(plots) == NAMES
    assert draw_plots(whole_report(threshold=0.7), Scored.of(ROWS, P_UNSAFE, BASE, threshold=0.7)) == plots


def test_plots_take_every_colour_from_the_page_s_variables(plots: dict[str, str]) -> None:
    for svg in plots.values():
        assert not re.search(r"#[0-9a-f]{6}\b", svg.replace("#ffffff", "").split("<style")[0]), svg[:300]
        for variable in re.findall(r"var\(--([a-z]+)\)", svg):
            assert f"--{variable}:#" in LIGHT and f"--{variable}:#" in DARK


def test_file_of_its_own_has_its_colours_and_is_well_formed(plots: dict[str, str]) -> None:
    for svg in plots.values():
        root = ElementTree.fromstring(standalone(svg).decode())
        assert root.tag.endswith("svg")
        assert b"prefers-color-scheme:dark" in standalone(svg)


def test_no_two_plots_share_an_id(plots: dict[str, str]) -> None:
    ids = [found for svg in plots.values() for found in re.findall(r'\bid="([^"]+)"', svg)]
    assert len(ids) == len(set(ids))


def test_confusion_matrix_shows_the_counts_and_shares(plots: dict[str, str]) -> None:
    """From 0.7 on: of three SAFE frames one is called UNSAFE, of four UNSAFE ones one is found."""
    found = texts(plots["confusion"])
    assert found.count("2") == 1 and found.count("3") == 1 and found.count("1") == 2
    assert {"66.7 %", "33.3 %", "75.0 %", "25.0 %"} <= set(found)


def test_curves_name_who_they_are_of_and_where_the_thresholds_lie(plots: dict[str, str]) -> None:
    for name in ("roc", "precision_recall"):
        assert {"adapter", "base model", "threshold 0.7", "0.5"} <= set(texts(plots[name]))
    at_half = draw_plots(whole_report(), Scored.of(ROWS, P_UNSAFE, NOBODY, threshold=0.5))["roc"]
    assert "threshold 0.5" in texts(at_half) and "base model" not in texts(at_half)


def test_behaviours_are_named_in_words(plots: dict[str, str]) -> None:
    assert class_in_words("2_opened_panel_cover") == "opened panel cover"
    assert {"safe walkway violation", "authorized intervention"} <= set(texts(plots["classes"]))


def test_precision_is_that_of_the_stated_share(monkeypatch: pytest.MonkeyPatch) -> None:
    """From 0.7 on one of three SAFE frames is called UNSAFE and one of four UNSAFE ones: 0.1/4 to 0.9/3."""
    marked: list[tuple[float, float]] = []
    monkeypatch.setattr("recipes.report.plots._mark", lambda axes, place, threshold: marked.append(place(threshold)))
    for prior in (0.1, None):
        scored = Scored.of(ROWS, P_UNSAFE, NOBODY, threshold=0.7, prior=prior)
        draw_plots(whole_report(threshold=0.7, prior=prior), scored)
    precision = 0.1 / 4 / (0.1 / 4 + 0.9 / 3)
    assert marked == [
        pytest.approx(each) for each in ((1 / 4, precision), (1 / 3, 1 / 4), (1 / 4, 1 / 2), (1 / 3, 1 / 4))
    ]


def test_one_label_has_no_curves() -> None:
    rows = {**ROWS, "response": ["UNSAFE"] * 7}
    assert list(draw_plots(whole_report(), Scored.of(rows, P_UNSAFE, NOBODY, threshold=0.5))) == NAMES[:4]
