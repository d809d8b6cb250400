"""Names that are each clip's own on any file system, and the same in every run."""

import pytest

from data_prep.clips.archive import Source
from data_prep.clips.names import MOST_BYTES, assign_video_ids, folder_key, folder_name
from data_prep.labels import source_class_of_folder

COMPOSED, DECOMPOSED = "caf\u00e9", "cafe\u0301"


def sources(*paths: str) -> list[Source]:
    return [Source(path, path.split("/")[0], source_class_of_folder(path.split("/")[1])) for path in paths]


A, B = "0_safe_walkway_violation", "4_safe_walkway"


@pytest.mark.parametrize(
    ("paths", "known", "expected"),
    [
        ([f"train/{A}/x.mp4", f"train/{B}/y.mp4"], {}, ["x", "y"]),
        ([f"test/{A}/x.mp4", f"train/{A}/x.mp4"], {}, ["x", "x"]),
        ([f"train/{A}/x.mp4", f"train/{B}/x.mp4"], {}, ["x", f"{B}__x"]),
        ([f"train/{A}/x.MP4", f"train/{A}/x.mp4"], {}, ["x", f"{A}__x"]),
        ([f"train/{A}/x.MP4", f"train/{A}/x.Mp4", f"train/{A}/x.mp4"], {}, ["x", f"{A}__x", f"{A}__x__2"]),
        ([f"train/{A}/x.mp4", f"train/{B}/x.mp4"], {f"train/{B}/x.mp4": "x"}, [f"{A}__x", "x"]),
        ([f"train/{B}/x.mp4"], {f"train/{A}/x.mp4": "x", f"train/{B}/x.mp4": f"{B}__x"}, [f"{B}__x"]),
    ],
)
def test_video_ids(paths: list[str], known: dict[str, str], expected: list[str]) -> None:
    ids = assign_video_ids(sources(*paths), known)
    assert [ids[path] for path in paths] == expected


def test_names_that_are_one_folder_somewhere() -> None:
    assert folder_key("X") == folder_key("x") != folder_key("x_")
    assert folder_key(COMPOSED) == folder_key(DECOMPOSED) == folder_key("CAF\u00c9") != folder_key("cafe")
    assert folder_key("stra\u00dfe") == folder_key("STRASSE")


@pytest.mark.parametrize(
    ("paths", "known", "expected"),
    [
        ([f"train/{A}/X.mp4", f"train/{A}/x.mp4"], {}, ["X", f"{A}__x"]),
        ([f"test/{A}/X.mp4", f"train/{A}/x.mp4"], {}, ["X", "x"]),
        ([f"train/{A}/X.mp4", f"train/{B}/x.mp4", f"train/{B}/X.MP4"], {}, ["X", f"{B}__x", f"{B}__X__2"]),
        (
            [f"train/{A}/{DECOMPOSED}.mp4", f"train/{A}/{COMPOSED}.mp4"],
            {},
            [DECOMPOSED, f"{A}__{COMPOSED}"],
        ),
        ([f"train/{A}/X.mp4", f"train/{A}/x.mp4"], {f"train/{A}/x.mp4": "x"}, [f"{A}__X", "x"]),
        # Names that were given once and collide: the first stays.
        (
            [f"train/{A}/X.mp4", f"train/{A}/x.mp4"],
            {f"train/{A}/X.mp4": "X", f"train/{A}/x.mp4": "x"},
            ["X", f"{A}__x"],
        ),
        ([f"train/{A}/a\\b.mp4", f"train/{A}/a_b.mp4"], {}, ["a_b", f"{A}__a_b"]),
        ([f"train/{A}/12:00.mp4"], {f"train/{A}/12:00.mp4": "12:00"}, ["12:00"]),
    ],
)
def test_video_ids_never_share_a_folder(paths: list[str], known: dict[str, str], expected: list[str]) -> None:
    ids = assign_video_ids(sources(*paths), known)
    assert [ids[path] for path in paths] == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("0_tr1", "0_tr1"),
        ("caf\u00e9 [x] #1 100% ~ (2)", "caf\u00e9 [x] #1 100% ~ (2)"),
        ("a\\b", "a_b"),
        ("2026-11-27T12:00:00", "2026-11-27T12_00_00"),
        ('a*b?c"d<e>f|g', "a_b_c_d_e_f_g"),
        ("two\nlines\x1b\u2028", "two_lines__"),
        ("dots...", "dots"),
        ("space ", "space"),
        (" ", "__"),
        ("CON", "_CON_"),
        ("com7.left", "_com7.left_"),
        ("console", "console"),
        ("lost+found", "_lost+found_"),
        ("@eaDir", "_@eaDir_"),
        ("x.part", "_x.part_"),
        ("x" * 143, "x" * 143),
        ("x" * 144, "x" * 133 + "__" + "0c862f30"),
        ("\u4e2d" * 83, "\u4e2d" * 44 + "__" + "ddd62ad9"),
    ],
    ids=lambda name: ascii(name)[:24],
)
def test_folder_names(name: str, expected: str) -> None:
    assert folder_name(name) == expected
    assert len(expected.encode()) <= MOST_BYTES


def test_names_that_are_cut_stay_apart() -> None:
    long = "l" * 251
    paths = [f"train/{A}/{long}.MP4", f"train/{A}/{long}.mp4", f"train/{B}/{long}.mp4", f"train/{B}/{long[:-1]}m.mp4"]
    ids = assign_video_ids(sources(*paths), {})
    assert len({folder_key(name) for name in ids.values()}) == 4
    assert max(len(name) for name in ids.values()) == MOST_BYTES
    assert assign_video_ids(sources(*paths[1:]), {})[paths[3]] == ids[paths[3]]
