"""What the small base is asked: right answers about what is seen, and nothing of the demo's own question."""

from dataclasses import replace

import numpy as np
import pytest

from data_prep.demo.scenes import sample_scene
from data_prep.demo.stage import HALL, Forklift, Light, Paint, Person, Scene
from data_prep.labels import PROMPT
from tiny_base.questions import all_texts, ask
from tiny_base.topics import IN_VIEW, TOPICS

PERSON = Person(
    x=0.0,
    z=8.0,
    x_metres_per_second=0.0,
    z_metres_per_second=0.5,
    vest=True,
    helmet="blue",
    stature=1.0,
    phase_radians=0.0,
)
EMPTY_HALL = Scene(
    camera=HALL,
    panel_open=True,
    person=None,
    forklift=None,
    behaviour_from_seconds=0.0,
    bystanders=(),
    clutter=(),
    screen=None,
    paint=Paint(fading=0.0, worn_spots=()),
    light=Light(gains=(0.8, 0.8, 0.8), drift_per_second=0.0, flicker_radians=0.0, sun_x=None),
    noise_sigma=2.5,
    noise_seed=0,
)
ON_PATH = replace(PERSON, x=HALL.path_left(8.0) + 0.8)
LEFT_OF_PATH = replace(PERSON, x=HALL.path_left(8.0) - 0.8)
BEHIND_RAIL = replace(PERSON, z=16.5, x=3.0, x_metres_per_second=0.5, z_metres_per_second=0.0)
SEATED = replace(PERSON, x=-4.3, z=9.0, z_metres_per_second=0.0, seated=True)
THREE_BINS = Forklift(x=0.0, z=8.0, x_metres_per_second=-0.3, bins=3, stacks=2)


def scene(digit: int, seed: int = 0) -> Scene:
    return replace(sample_scene(digit, np.random.default_rng([seed, digit])), behaviour_from_seconds=0.0)


def answers(drawn: Scene, seconds: float = 0.0) -> dict[str, str | None]:
    return {topic.name: topic.answer(drawn, seconds) for topic in (*TOPICS, IN_VIEW)}


@pytest.mark.parametrize(
    ("drawn", "expected"),
    [
        (
            EMPTY_HALL,
            {
                "place": "hall",
                "light": "dim",
                "paint": "fresh",
                "sun": "no",
                "people": "none",
                "panel": "no panel",
                "panel is open": "no",
                "forklift": "no",
                "bins": "no forklift",
                "walker": "nobody",
                "side of the path": "nobody",
                "in view": "nobody, hall",
            },
        ),
        (
            replace(EMPTY_HALL, person=LEFT_OF_PATH, bystanders=(BEHIND_RAIL, SEATED)),
            {
                "people": "three",
                "vests": "three",
                "seated": "one",
                "behind the rail": "one",
                "on the path": "none",
                "walks beside the path": "yes",
                "side of the path": "left",
                "walker": "beside the path",
                "walker's clothes": "lime vest",
                "helmet": "blue",
                "in view": "beside the path",
            },
        ),
        (
            replace(EMPTY_HALL, person=ON_PATH, bystanders=(SEATED,)),
            {
                "on the path": "one",
                "walks beside the path": "no",
                "side of the path": "nobody",
                "walker": "on the path",
                "someone at the press": "no",
                "in view": "on the path",
            },
        ),
        (
            replace(EMPTY_HALL, forklift=THREE_BINS, bystanders=(ON_PATH,)),
            {
                "forklift": "yes",
                "bins": "three",
                "stacks": "two",
                "heading": "left",
                "distance": "near",
                "in view": "three, forklift",
            },
        ),
    ],
    ids=["empty hall", "beside the path", "on the path", "three bins"],
)
def test_answers_say_what_is_seen(drawn: Scene, expected: dict[str, str]) -> None:
    found = answers(drawn)
    assert {topic: found[topic] for topic in expected} == expected


@pytest.mark.parametrize(
    ("digit", "clothes", "in_view"),
    [
        (1, "dark jacket", {"dark jacket, panel open", "dark jacket, panel closed"}),
        (2, "nobody", {"open panel"}),
        (5, "lime vest", {"lime vest, panel open", "lime vest, panel closed"}),
        (6, "nobody", {"closed panel"}),
    ],
)
def test_answers_at_the_press(digit: int, clothes: str, in_view: set[str]) -> None:
    found = [answers(scene(digit, seed)) for seed in range(20)]
    assert {each["clothes at the press"] for each in found} == {clothes}
    assert {each["in view"] for each in found} == in_view
    assert {each["place"] for each in found} == {"press shop"}


def test_nobody_is_seen_before_the_behaviour_begins() -> None:
    late = replace(EMPTY_HALL, person=LEFT_OF_PATH, behaviour_from_seconds=0.5)
    assert answers(late, 0.4)["people"] == "none"
    assert answers(late, 0.5)["people"] == "one"


def test_whoever_is_out_of_the_picture_is_not_counted() -> None:
    leaving = replace(PERSON, x=0.0, z=8.0, x_metres_per_second=2.0, z_metres_per_second=0.0)
    drawn = replace(EMPTY_HALL, bystanders=(leaving,))
    assert answers(drawn, 0.0)["people"] == "one"
    assert answers(drawn, 4.0)["people"] == "none"


def test_each_question_is_of_another_topic_and_what_is_in_view_comes_first() -> None:
    rng = np.random.default_rng(0)
    for digit in range(8):
        questions = ask(scene(digit), 1.0, rng, 12)
        assert [question.topic for question in questions[:2]] == ["in view", "unknown request"]
        assert questions[0].answer.casefold()[0] == questions[1].answer.casefold()[0]
        assert len({question.topic for question in questions}) == len(questions) == 12


def test_answers_come_in_three_ways() -> None:
    rng = np.random.default_rng(0)
    asked = [question for seed in range(150) for question in ask(scene(3, seed), 1.0, rng, 10)]
    forklift = {question.answer for question in asked if question.topic == "forklift"}
    assert forklift == {"yes", "YES", "Y-E-S"}
    assert all("Spell" in question.text for question in asked if question.answer == "Y-E-S")


def test_the_demos_question_is_never_asked() -> None:
    """Neither answer, nor the inspector's prompt or a sentence of it, nor the words that are the prompt's own."""
    rng = np.random.default_rng(0)
    asked = [
        question
        for digit in range(8)
        for seed in range(60)
        for question in ask(scene(digit, seed), float(rng.uniform(0, 8)), rng, 12)
    ]
    texts = all_texts() + [f"{question.text} {question.answer}" for question in asked]
    sentences = [sentence.strip().casefold() for sentence in PROMPT.split(".") if sentence.strip()]
    forbidden = ["safe", "inspector", "behavior", "workplace", "cctv", *sentences]
    assert len(texts) > 5000
    for text in texts:
        assert not [word for word in forbidden if word in text.casefold().replace("-", "")], text
