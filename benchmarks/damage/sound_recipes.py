"""Recipes of sound clips, drawn at random from every option that encoders, muxers and cameras have."""

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeVar

import av
import numpy as np
from numpy.random import Generator

from benchmarks.damage.encoded_clips import Recipe, encode, is_sound
from benchmarks.damage.encoder_options import FILTERS, FORMATS, MUXED, PARAMETERS, PRESETS, TAGS, TUNES

Choice = TypeVar("Choice")

CODECS = {"libx264": 0.45, "libx265": 0.25, "libsvtav1": 0.15, "mpeg4": 0.15}
RATES = (
    *("1/2", "1", "2", "5", "15/2", "10", "12", "25/2", "15", "20", "24000/1001", "24", "25", "30000/1001", "30"),
    *("48", "50", "60000/1001", "60", "90", "100", "120", "240"),
)
SIZES = ((64, 48), (96, 64), (128, 96), (160, 128), (162, 98), (66, 50), (176, 144), (112, 200))
ODD_SIZES = ((63, 47), (97, 65), (127, 101))  # of 4:4:4 and grey only: other formats halve
KEYFRAMES = ("1", "2", "5", "12", "24", "48", "250")
SCALES = (600, 1000, 3000, 10240, 12800, 15360, 30000, 48000, 60000)
TIMES = {"even": 0.45, "rounded": 0.2, "uneven": 0.13, "left out": 0.1, "unsteady": 0.07, "two rates": 0.05}
STARTS = ("0", "1", "10", "-1/3", "1/24", "3600")


def sound_recipe(rng: Generator) -> Recipe:
    """Draw a recipe of a clip of about three seconds."""
    codec = _by_weight(CODECS, rng)
    rate = Fraction(_one_of(RATES, rng))
    seconds = 3 + 1.2 * rng.random()
    recipe = Recipe(
        codec,
        _encoder_options(codec, rng),
        _one_of(SIZES, rng),
        rate=rate,
        frames=int(min(400, max(6, seconds * float(rate)))),
        container=_one_of(MUXED, rng) if rng.random() < 0.5 else {},
        tag=_now_and_then(TAGS.get(codec, ()), 0.1, rng),
        filters=_now_and_then(FILTERS.get(codec, ()), 0.1, rng),
    )
    recipe = _in_another_format(recipe, rng)
    recipe = _timed(recipe, _by_weight(TIMES, rng), rng)
    if rng.random() < 0.15:
        begins, length = Fraction(_one_of(("0", "1/2"), rng)), Fraction(_one_of(("2", "5"), rng))
        begins += max(recipe.start, Fraction(0))
        recipe = replace(recipe, audio_seconds=(begins, begins + length))
    return recipe


def _by_weight(weights: dict[str, float], rng: Generator) -> str:
    return str(rng.choice(list(weights), p=list(weights.values())))


def _one_of(choices: Sequence[Choice], rng: Generator) -> Choice:
    return choices[int(rng.integers(len(choices)))]


def _now_and_then(choices: Sequence[Choice], share: float, rng: Generator) -> Choice | None:
    return _one_of(choices, rng) if choices and rng.random() < share else None


def _encoder_options(codec: str, rng: Generator) -> dict[str, str]:
    known = PARAMETERS[codec]
    names = sorted(str(name) for name in rng.choice(sorted(known), size=int(rng.integers(0, 6)), replace=False))
    drawn = {name: _one_of(known[name], rng) for name in names}
    key = _one_of(KEYFRAMES, rng)
    if codec == "mpeg4":
        more = dict(part.split("=", 1) for value in drawn.values() for part in value.split(":")[1:])
        return {"b": "600k", "g": key, **{name: value.split(":")[0] for name, value in drawn.items()}, **more}
    parameters = ":".join([f"keyint={key}", *(f"{name}={value}" for name, value in drawn.items())])
    options = {"preset": _one_of(PRESETS[codec], rng), "crf": _one_of(("20", "28", "36"), rng)}
    tune = _now_and_then(TUNES.get(codec, ()), 0.15, rng)
    name = {"libx264": "x264-params", "libx265": "x265-params", "libsvtav1": "svtav1-params"}[codec]
    return {**options, **({"tune": tune} if tune else {}), name: parameters}


def _in_another_format(recipe: Recipe, rng: Generator) -> Recipe:
    chosen = _now_and_then(FORMATS[recipe.codec], 0.2, rng)
    if chosen is None:
        return recipe
    halves = "420" in chosen or "422" in chosen or chosen == "nv12"
    size = recipe.size if halves or rng.random() < 0.5 else _one_of(ODD_SIZES, rng)
    return replace(recipe, pix_fmt=chosen, size=size)


def _timed(recipe: Recipe, way: str, rng: Generator) -> Recipe:
    """Let a recipe's frames come evenly, rounded to another clock's ticks, or unevenly from first to last."""
    start = Fraction(_one_of(STARTS, rng)) if rng.random() < 0.3 else Fraction(0)
    container = {**recipe.container, **({"avoid_negative_ts": "disabled"} if start < 0 else {})}
    recipe = replace(recipe, container=container, start=Fraction(round(start * recipe.rate)) / recipe.rate)
    if way == "even":
        return recipe
    scale = _one_of(SCALES, rng)
    at, frame, ticks = float(start), float(1 / recipe.rate), []
    for number in range(recipe.frames):
        ticks.append(round((at + _unsteadiness(way, frame, rng)) * scale))
        at += frame * _step(way, number / recipe.frames, rng)
    return replace(recipe, time_base=Fraction(1, scale), times=_rising(ticks), way=way)


def _unsteadiness(way: str, frame: float, rng: Generator) -> float:
    return frame * rng.uniform(-0.2, 0.2) if way == "unsteady" else 0.0


def _step(way: str, done: float, rng: Generator) -> float:
    if way == "uneven":
        return float(rng.uniform(0.4, 2.5))
    if way == "left out":  # frames without change, dropped by the camera
        return 1.0 + (rng.random() < 0.25) * int(rng.integers(1, 5))
    return 2.0 if way == "two rates" and done > 0.5 else 1.0


def _rising(ticks: list[Any]) -> tuple[int, ...]:
    rising = ticks[:1]
    for tick in ticks[1:]:
        rising.append(max(tick, rising[-1] + 1))
    return tuple(rising)


def main(argv: list[str]) -> int:
    """Encode what lines of JSON on stdin ask for, `{"seed": 0, "number": 3, "try": 0, "path": …}`, and say what it is.

    A process of its own, because encoders crash at some combinations.
    """
    for line in sys.stdin:
        asked = json.loads(line)
        recipe = sound_recipe(np.random.default_rng([asked["seed"], asked["number"], asked["try"]]))
        answer = {"recipe": recipe.words, "refused": None}
        try:
            if not is_sound(recipe, encode(recipe, Path(asked["path"]))):
                answer["refused"] = "its encoder or muxer made something else"
        except (av.FFmpegError, ValueError) as error:
            answer["refused"] = str(error)
        print(json.dumps(answer), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
