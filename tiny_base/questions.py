"""What the small base is asked while it is pretrained: questions about what a scene shows, one short answer each.

The questions are about things seen, never about whether they are allowed; the demo's own question isn't among them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np

from data_prep.demo.scenes import choose
from data_prep.demo.stage import HALL, PATH_EDGE_METRES, RAIL_Z, WIDTH, Person, Scene

COUNTS = ("none", "one", "two", "three", "four", "five", "six", "seven", "eight")

# A person's shoulders or a bin's side must be this far inside the picture to count as seen.
MARGIN_PIXELS = 4

LEADS = (
    "",
    "",
    "Look at the picture. ",
    "This is a frame of a camera in a metal plant. ",
    "You see one frame of a fixed camera. ",
    "You are a foreman who looks at a picture of the plant. ",
    "You are the operator of a camera on the wall, reviewing its frames. ",
)
TAILS = ("", "", " Answer in one word.", " Answer with one or two words.", " Be brief.", " Name it only.")
IN_CAPITALS = (" Answer in capital letters.", " Answer with one word in capitals.")
SPELLED = (" Spell it.", " Spell the answer in capitals.")
CAPITALS_SHARE, SPELLED_SHARE = 0.2, 0.1

# Now and then a question follows a sentence that means nothing, so that words never met don't upset the base; and once
# a picture it gets a request that it can't make out at all, which it takes for the question what is in view.
BABBLE_SHARE = 0.15
SYLLABLES = ("ba", "cu", "de", "gi", "ko", "lu", "mo", "nar", "pi", "quo", "ris", "tev", "wor", "xa", "yl", "zen")
LETTERS = tuple("abcdefghijklmnopqrtuwxyz")  # without s and v no word comes about that the demo's own question has

ANSWER_WORDS = (
    "yes", "no", "nobody", "hall", "press shop", "dim", "bright", "fresh", "faded", "open", "closed", "no panel",
    "lime vest", "dark jacket", "left", "right", "on the path", "beside the path", "white", "blue", "yellow",
    "no forklift", "near", "far", "forklift", "walker", "vest", "jacket",
)  # fmt: skip


@dataclass(frozen=True)
class Topic:
    """One thing that can be asked of a scene: its phrasings, and its answer at a time, None where it has none."""

    name: str
    phrasings: tuple[str, ...]
    answer: Callable[[Scene, float], str | None]


@dataclass(frozen=True)
class Question:
    """One question about a picture, as it is put, and its answer."""

    topic: str
    text: str
    answer: str


def ask(scene: Scene, seconds: float, rng: np.random.Generator, count: int) -> list[Question]:
    """Return `count` questions about the scene at that time.

    The first is what is in view, the second a request that means nothing and gets the same answer, and the others are
    of different topics.
    """
    answers = [(topic, topic.answer(scene, seconds)) for topic in TOPICS]
    open_topics = [(topic, answer) for topic, answer in answers if answer is not None]
    picked = rng.permutation(len(open_topics))[: count - 2]
    in_view = _in_view(scene, seconds)
    first = [_phrase(IN_VIEW, in_view, rng), _phrase(UNKNOWN, in_view, rng)]
    return [*first, *(_phrase(topic, answer, rng) for topic, answer in (open_topics[index] for index in picked))]


def all_texts() -> list[str]:
    """Return every question as it may be put, and the words of the answers: what a tokenizer is trained on."""
    asked = [lead + text for topic in (IN_VIEW, *TOPICS) for text in topic.phrasings for lead in dict.fromkeys(LEADS)]
    words = [*COUNTS, *ANSWER_WORDS]
    return [*asked, *TAILS, *IN_CAPITALS, *SPELLED, *words, *(word.upper() for word in words)]


def _phrase(topic: Topic, answer: str, rng: np.random.Generator) -> Question:
    """Put a question of that topic, and ask for its answer in one of three ways: as it is, in capitals, or spelled."""
    babbled = topic is not UNKNOWN and rng.random() < BABBLE_SHARE
    lead = _babble(rng) if babbled else choose(rng, LEADS)
    question = choose(rng, topic.phrasings) if topic.phrasings else _babble(rng).strip()
    way = rng.random()
    if way < SPELLED_SHARE:
        return Question(topic.name, lead + question + choose(rng, SPELLED), "-".join(answer.split(",")[0].upper()))
    if way < SPELLED_SHARE + CAPITALS_SHARE:
        return Question(topic.name, lead + question + choose(rng, IN_CAPITALS), answer.upper())
    return Question(topic.name, lead + question + choose(rng, TAILS), answer)


def _babble(rng: np.random.Generator) -> str:
    """Return a sentence that means nothing, with a blank behind it.

    Its words are made up, rows of letters, or taken from questions; some begin with a capital, some are all capitals.
    """
    words = []
    for _ in range(int(rng.integers(3, 9))):
        kind = rng.random()
        if kind < 0.4:
            word = "".join(choose(rng, SYLLABLES) for _ in range(int(rng.integers(1, 4))))
        elif kind < 0.7:
            word = "".join(choose(rng, LETTERS) for _ in range(int(rng.integers(2, 7))))
        else:
            word = choose(rng, _words_of_questions())
        words.append(choose(rng, (word, word, word.capitalize(), word.upper())))
    return f"{' '.join(words)}{choose(rng, ('.', '.', '?', ''))} "


@cache
def _words_of_questions() -> tuple[str, ...]:
    texts = [*LEADS, *(text for topic in (IN_VIEW, *TOPICS) for text in topic.phrasings)]
    return tuple(sorted({word.strip(".,:?") for text in texts for word in text.split()}))


def _yes(truth: bool) -> str:
    return "yes" if truth else "no"


def _people(scene: Scene, seconds: float) -> list[Person]:
    """Everybody who is in the picture then, but for a forklift's driver."""
    counted = scene.person_at(seconds)
    people = (*scene.bystanders, *([counted] if counted else []))
    return [person for person in people if _in_picture(scene, *person.at(seconds))]


def _in_picture(scene: Scene, x: float, z: float) -> bool:
    u, _ = scene.camera.project(x, 0, z)
    half_width = 0.25 * scene.camera.pixels_per_metre(x, z)
    return half_width + MARGIN_PIXELS < u < WIDTH - half_width - MARGIN_PIXELS


def _walkers(scene: Scene, seconds: float) -> list[Person]:
    """Those who walk before the rail, on the path or off it."""
    return [person for person in _people(scene, seconds) if person.walks and person.at(seconds)[1] < RAIL_Z]


def _beside_path(scene: Scene, person: Person, seconds: float) -> float:
    """Return how far the person is beside the path's yellow edges: 0 on the path, negative to its left."""
    metres = scene.camera.metres_beside_path(*person.at(seconds))
    return 0.0 if abs(metres) < PATH_EDGE_METRES else metres


def _place(scene: Scene, seconds: float) -> str:
    return "hall" if scene.camera is HALL else "press shop"


def _light(scene: Scene, seconds: float) -> str | None:
    brightness = scene.light.gains[1]
    return "dim" if brightness < 0.85 else "bright" if brightness > 1.0 else None


def _paint(scene: Scene, seconds: float) -> str | None:
    return "fresh" if scene.paint.fading < 0.12 else "faded" if scene.paint.fading > 0.35 else None


def _sun(scene: Scene, seconds: float) -> str | None:
    if scene.light.sun_x is None:
        return "no"
    return "yes" if -4.0 < scene.light.sun_x < 3.0 else None


def _coil(scene: Scene, seconds: float) -> str:
    return _yes(any(thing.kind == "coil" for thing in scene.clutter))


def _bins_by_wall(scene: Scene, seconds: float) -> str:
    return _yes(any(thing.kind == "bins" and _in_picture(scene, thing.x, thing.z) for thing in scene.clutter))


def _panel(scene: Scene, seconds: float) -> str:
    return "no panel" if scene.camera is HALL else "open" if scene.panel_open else "closed"


def _panel_is_open(scene: Scene, seconds: float) -> str:
    return _yes(scene.camera is not HALL and scene.panel_open)


def _someone_at_press(scene: Scene, seconds: float) -> str:
    return _yes(scene.camera is not HALL and scene.person_at(seconds) is not None)


def _clothes_at_press(scene: Scene, seconds: float) -> str:
    worker = scene.person_at(seconds)
    if scene.camera is HALL or worker is None:
        return "nobody"
    return "lime vest" if worker.vest else "dark jacket"


def _people_count(scene: Scene, seconds: float) -> str:
    return COUNTS[len(_people(scene, seconds))]


def _vest_count(scene: Scene, seconds: float) -> str:
    return COUNTS[sum(person.vest for person in _people(scene, seconds))]


def _seated_count(scene: Scene, seconds: float) -> str:
    return COUNTS[sum(person.seated for person in _people(scene, seconds))]


def _on_path_count(scene: Scene, seconds: float) -> str:
    return COUNTS[sum(_beside_path(scene, person, seconds) == 0 for person in _walkers(scene, seconds))]


def _walks_beside_path(scene: Scene, seconds: float) -> str:
    return _yes(any(_beside_path(scene, person, seconds) for person in _walkers(scene, seconds)))


def _side_of_path(scene: Scene, seconds: float) -> str:
    beside = [metres for person in _walkers(scene, seconds) if (metres := _beside_path(scene, person, seconds))]
    return "nobody" if not beside else "left" if beside[0] < 0 else "right"


def _walker_place(scene: Scene, seconds: float) -> str | None:
    walkers = _walkers(scene, seconds)
    if len(walkers) != 1:
        return None if walkers else "nobody"
    return "beside the path" if _beside_path(scene, walkers[0], seconds) else "on the path"


def _walker_clothes(scene: Scene, seconds: float) -> str | None:
    walkers = _walkers(scene, seconds)
    if len(walkers) != 1:
        return None if walkers else "nobody"
    return "lime vest" if walkers[0].vest else "dark jacket"


def _helmet(scene: Scene, seconds: float) -> str | None:
    person = scene.person_at(seconds)
    return person.helmet if person and person.at(seconds)[1] < 9 else None


def _behind_rail_count(scene: Scene, seconds: float) -> str:
    return COUNTS[sum(person.at(seconds)[1] > RAIL_Z for person in _people(scene, seconds))]


def _forklift(scene: Scene, seconds: float) -> str:
    return _yes(scene.forklift_at(seconds) is not None)


def _bins(scene: Scene, seconds: float) -> str:
    forklift = scene.forklift_at(seconds)
    return "no forklift" if forklift is None else COUNTS[forklift.bins]


def _stacks(scene: Scene, seconds: float) -> str | None:
    forklift = scene.forklift_at(seconds)
    if forklift is None:
        return "no forklift"
    return None if forklift.bins < 2 else COUNTS[forklift.stacks]


def _heading(scene: Scene, seconds: float) -> str:
    forklift = scene.forklift_at(seconds)
    return "no forklift" if forklift is None else "right" if forklift.x_metres_per_second > 0 else "left"


def _distance(scene: Scene, seconds: float) -> str | None:
    forklift = scene.forklift_at(seconds)
    if forklift is None:
        return "no forklift"
    return "near" if forklift.z < 9.5 else "far" if forklift.z > 10.5 else None


def _in_view(scene: Scene, seconds: float) -> str:
    """What there is, in a few words, the most telling first: a load, somebody's place or clothes, the panel."""
    person = scene.person_at(seconds)
    if forklift := scene.forklift_at(seconds):
        return f"{COUNTS[forklift.bins]}, forklift"
    if scene.camera is HALL:
        walkers = [_beside_path(scene, walker, seconds) for walker in _walkers(scene, seconds)]
        return "beside the path" if any(walkers) else "on the path" if walkers else "nobody, hall"
    if person:
        return f"{'lime vest' if person.vest else 'dark jacket'}, panel {_panel(scene, seconds)}"
    return f"{_panel(scene, seconds)} panel"


IN_VIEW = Topic(
    "in view",
    ("What is in view?", "Describe the picture.", "What happens here?", "Classify what the camera shows."),
    _in_view,
)
UNKNOWN = Topic("unknown request", (), _in_view)

TOPICS = (
    Topic("place", ("Which part of the plant is this?", "Where is the camera?", "What room is seen?"), _place),
    Topic("light", ("How is the light?", "Is it bright or dim?", "What is the light like in this picture?"), _light),
    Topic("paint", ("How is the paint of the green path?", "Is the path's paint fresh or faded?"), _paint),
    Topic("sun", ("Does the sun shine on the floor?", "Is there a sunlit stretch of floor?"), _sun),
    Topic("coil", ("Is there a coil on the floor?", "Does a steel coil lie about?", "A coil: yes or no?"), _coil),
    Topic("bins by the wall", ("Do orange bins stand by the wall?", "Are bins on the floor?"), _bins_by_wall),
    Topic(
        "panel",
        ("How is the panel of the press?", "Is the panel open or closed?", "State of the press panel?"),
        _panel,
    ),
    Topic(
        "panel is open",
        ("Is the panel open?", "Does the press show a dark cavity?", "Has somebody opened the cover?"),
        _panel_is_open,
    ),
    Topic(
        "someone at the press",
        ("Does somebody stand at the press?", "Is a worker at the press board?", "Is anyone working at the press?"),
        _someone_at_press,
    ),
    Topic(
        "clothes at the press",
        ("What does the worker at the press wear?", "Who stands at the press?", "Clothes of the worker at the board?"),
        _clothes_at_press,
    ),
    Topic("people", ("How many people are there?", "Count the people.", "How many persons do you see?"), _people_count),
    Topic("vests", ("How many people wear a lime vest?", "Count the lime vests.", "How many vests?"), _vest_count),
    Topic("seated", ("How many people are seated?", "How many sit?", "Count those on chairs."), _seated_count),
    Topic("on the path", ("How many people walk on the green path?", "Count those on the path."), _on_path_count),
    Topic(
        "walks beside the path",
        (
            "Does somebody walk beside the path?",
            "Is a walker off the green path?",
            "Has anyone on foot left the green path?",
        ),
        _walks_beside_path,
    ),
    Topic(
        "side of the path",
        ("On which side of the path does somebody walk?", "Left or right of the path?"),
        _side_of_path,
    ),
    Topic(
        "walker", ("Where does the person walk?", "Where is the walker?", "Where do you see a walker?"), _walker_place
    ),
    Topic("walker's clothes", ("What does the walker wear?", "How is the walker dressed?"), _walker_clothes),
    Topic("helmet", ("What colour is the helmet?", "Which helmet does the walker or worker wear?"), _helmet),
    Topic(
        "behind the rail", ("How many people are behind the rail?", "Count those behind the rail."), _behind_rail_count
    ),
    Topic("forklift", ("Is there a forklift?", "Do you see a forklift?", "A forklift: yes or no?"), _forklift),
    Topic(
        "bins",
        ("How many bins does the forklift carry?", "Count the bins on the fork.", "How many orange bins are carried?"),
        _bins,
    ),
    Topic("stacks", ("In how many stacks are the bins?", "How many stacks does the forklift carry?"), _stacks),
    Topic("heading", ("Which way does the forklift drive?", "Does the forklift face left or right?"), _heading),
    Topic("distance", ("Is the forklift near or far?", "How far away is the forklift?"), _distance),
)
