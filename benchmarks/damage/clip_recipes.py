"""Recipes of the clips that are damaged: what their packets are taken from, and what their headers."""

from dataclasses import replace
from fractions import Fraction
from typing import Any

from benchmarks.damage.encoded_clips import Recipe

X264 = {
    "B-frames": "keyint=30:bframes=3",
    "no B-frames": "keyint=30:bframes=0",
    "strict pyramid": "keyint=36:bframes=4:b-pyramid=strict:b-adapt=0",
    "one reference, CAVLC": "keyint=48:bframes=0:ref=1:cabac=0:weightp=0",
    "four slices": "keyint=30:slices=4",
    "open groups": "keyint=30:open-gop=1:bframes=3",
    "intra refresh": "keyint=30:intra-refresh=1:bframes=0",
    "one group": "keyint=250:scenecut=0:bframes=2",
    "interlaced": "keyint=30:tff=1",
}
X265 = {
    "B-frames": "keyint=30:min-keyint=30",
    "no B-frames": "keyint=30:min-keyint=30:bframes=0",
    "closed groups": "keyint=30:min-keyint=30:open-gop=0:bframes=4",
    "three slices": "keyint=30:min-keyint=30:slices=3:ctu=16",
    "one reference": "keyint=48:ref=1:bframes=0",
    "one group": "keyint=250:scenecut=0",
}
SVT_AV1 = {
    "random access": "keyint=30",
    "low delay": "keyint=30:pred-struct=1",
    "one group": "keyint=250:scd=0",
    "four tiles": "keyint=30:tile-columns=1:tile-rows=1",
}
MPEG4 = {
    "no B-frames": {"g": "30"},
    "B-frames": {"g": "30", "bf": "2"},
    "packets for the network": {"g": "30", "ps": "200"},
    "quarter pixels": {"g": "30", "flags": "+qpel", "bf": "1"},
}
DAMAGED_SIZE = (160, 128)


def recipes_to_damage() -> dict[str, dict[str, Recipe]]:
    """Return what packets are taken from, by codec and in words: 121 frames of 24 a second, the last one a sample.

    Keyframes lie at other distances than samples, so that most samples lean on others.
    """
    options = {
        "libx264": {name: {"preset": "veryfast", "crf": "20", "x264-params": each} for name, each in X264.items()},
        "libx265": {name: {"preset": "veryfast", "crf": "24", "x265-params": each} for name, each in X265.items()},
        "libsvtav1": {name: {"preset": "9", "crf": "32", "svtav1-params": each} for name, each in SVT_AV1.items()},
        "mpeg4": {name: {"b": "900k", **each} for name, each in MPEG4.items()},
    }
    return {
        codec: {name: Recipe(codec, each, DAMAGED_SIZE, frames=121) for name, each in named.items()}
        for codec, named in options.items()
    }


def recipes_with_headers() -> dict[str, Recipe]:
    """Return what headers are damaged of: each codec, whole and in fragments, with and without sound."""
    of_codec = {codec: next(iter(named.values())) for codec, named in recipes_to_damage().items()}
    short = {codec: replace(recipe, size=(64, 48), frames=72) for codec, recipe in of_codec.items()}
    plain = short["libx264"]
    muxed: dict[str, dict[str, str]] = {
        "moov in front": {"movflags": "faststart"},
        "fragments": {"movflags": "frag_keyframe+empty_moov"},
        "fragments, their own base": {"movflags": "frag_keyframe+empty_moov+default_base_moof"},
        "a fragment a frame": {"movflags": "frag_every_frame+empty_moov"},
        "first fragment in moov": {"movflags": "frag_keyframe"},
        "cmaf": {"movflags": "cmaf+frag_keyframe"},
        "dash": {"movflags": "dash+frag_keyframe+global_sidx"},
    }
    uneven = tuple(number * 40 + number % 5 * 7 for number in range(72))
    fragments, sound = muxed["fragments"], (Fraction(0), Fraction(3))
    negative = {"avoid_negative_ts": "disabled"}
    changed: dict[str, dict[str, Any]] = {
        **{name: {"container": each} for name, each in muxed.items()},
        "sound": {"audio_seconds": sound},
        "fragments, sound": {"audio_seconds": sound, "container": fragments},
        "uneven times": {"time_base": Fraction(1, 1000), "times": uneven},
        "begins before 0": {"time_base": Fraction(1, 1000), "start": Fraction(-1, 3), "container": negative},
    }
    return {
        **short,
        **{f"{codec}, fragments": replace(recipe, container=fragments) for codec, recipe in short.items()},
        **{f"libx264, {name}": replace(plain, **each) for name, each in changed.items()},
    }
