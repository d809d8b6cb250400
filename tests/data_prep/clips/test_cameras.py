from pathlib import PurePosixPath

import pytest

from data_prep.clips.cameras import NO_CAMERA, camera_rule, day_of
from data_prep.errors import InputError


@pytest.mark.parametrize(
    ("level", "pattern", "path", "camera"),
    [
        (1, None, "gate 2/blocked/a.mp4", "gate 2"),
        (2, None, "gate 2/blocked/a.mp4", "blocked"),
        (3, None, "gate 2/blocked/a.mp4", None),  # the file itself is no folder
        (None, r"cam(\d+)", "hall/cam12_0815.mp4", "12"),
        (None, r"cam\d+", "hall/cam12_0815.mp4", "cam12"),
        (None, r"(hall|yard)/cam(?P<camera>\d+)", "hall/cam12_0815.mp4", "12"),
        (None, r"cam(\d+)?x", "hall/camx.mp4", None),
        (None, r"cam(\d+)", "hall/0815.mp4", None),
        (None, r"( )", "hall/a b.mp4", None),
    ],
)
def test_camera_of_a_path(level: int | None, pattern: str | None, path: str, camera: str | None) -> None:
    assert camera_rule(level, pattern).camera_of(PurePosixPath(path)) == camera


def test_without_a_rule_no_camera_is_known() -> None:
    assert camera_rule(None, None) == NO_CAMERA
    assert NO_CAMERA.camera_of(PurePosixPath("gate/a.mp4")) is None


def test_rules_that_cannot_be() -> None:
    with pytest.raises(InputError, match="--camera-level 0: the first folder"):
        camera_rule(0, None)
    with pytest.raises(InputError, match=r"--camera-pattern 'cam\(' is no regular expression"):
        camera_rule(None, "cam(")


@pytest.mark.parametrize(
    ("path", "day"),
    [
        ("gate/2026-05-01/a.mp4", "2026-05-01"),
        ("gate/2026/05/01/a.mp4", "2026-05-01"),
        ("gate/ch1_20260501093000.mp4", "2026-05-01"),
        ("gate/ch1_20260501093000123.mp4", "2026-05-01"),
        ("gate/20260501_093000.mp4", "2026-05-01"),
        ("gate/2026_05_01.mp4", "2026-05-01"),
        ("gate/2026.05.01 b.mp4", "2026-05-01"),
        ("2026-02-30/2026-03-02.mp4", "2026-03-02"),  # the first that there is
        ("gate/2026-13-01.mp4", None),
        ("gate/2026-0501.mp4", None),
        ("gate/120260501.mp4", None),  # a number, not a date
        ("gate/202605011.mp4", None),
        ("gate/0_tr12.mp4", None),
    ],
)
def test_day_of_a_path(path: str, day: str | None) -> None:
    assert day_of(path) == day
