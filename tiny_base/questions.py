"""What the small base is asked while it is pretrained: questions about what a scene shows, one short answer each.

The questions are about things seen, never about whether they are allowed; the demo's own question isn't among them.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np

from data_prep.demo.scenes import choose
from data_prep.demo.stage import Scene
from tiny_base.answers import ANSWER_WORDS, COUNTS, Topic
from tiny_base.topics import IN_VIEW, TOPICS, UNKNOWN, in_view

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
    seen = in_view(scene, seconds)
    first = [_phrase(IN_VIEW, seen, rng), _phrase(UNKNOWN, seen, rng)]
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
