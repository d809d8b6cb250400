import numpy as np
import pytest

from data_prep.demo.noise import NoiseField


@pytest.mark.parametrize(("right", "down"), [(0, 0), (1, 0), (0, 1), (1, 1), (639, 359), (320, 7)])
def test_noise_is_moved_and_never_wraps_a_colour(right: int, down: int) -> None:
    """Black stays black under negative noise, and white white under positive."""
    rng = np.random.default_rng(0)
    noise = np.clip(rng.normal(0, 60, size=(360, 640)), -128, 127).astype(np.int16)
    picture = rng.integers(0, 256, size=(360, 640, 4), dtype=np.uint8)
    moved = np.roll(noise, (down, right), axis=(0, 1))[..., None]
    noisy = NoiseField(noise).added_to(picture.reshape(360, -1), right=right, down=down).reshape(picture.shape)
    assert np.array_equal(noisy, np.clip(picture + moved, 0, 255))
