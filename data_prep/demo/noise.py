"""The grey noise of a camera's sensor."""

from functools import lru_cache
from typing import Any

import numpy as np

from data_prep.demo.stage import HEIGHT, WIDTH

NOISE_FIELDS = 6  # of each strength


class NoiseField:
    """Grey sensor noise of a picture's size, from -128 to 127, held so that adding it takes bytes alone.

    No pixel between `least` and `most` leaves [0, 255] by the noise, so their sum may be taken modulo 256.
    """

    def __init__(self, noise: np.ndarray) -> None:
        of_channels = np.repeat(noise, 4, axis=1)
        self._least = np.maximum(0, -of_channels).astype(np.uint8)
        self._most = np.minimum(255, 255 - of_channels).astype(np.uint8)
        self._noise = (of_channels % 256).astype(np.uint8)

    def added_to(self, pixels: np.ndarray, *, right: int, down: int) -> np.ndarray:
        """Return a picture, of shape (height, 4 width), with the noise moved by so many pixels and wrapped around.

        As one long row of bytes all of it is moved at once, three times as fast as row by row. What wraps around the
        right edge then comes from one row too high, and is done again.
        """
        noisy = np.empty_like(pixels)
        turn = pixels.shape[1] * down + 4 * right
        for here, there in _moved(pixels.size, turn):
            self._add(pixels.ravel(), noisy.ravel(), here, there)
        for here, there in _moved(len(pixels), down):
            self._add(pixels, noisy, (here, slice(4 * right)), (there, slice(pixels.shape[1] - 4 * right, None)))
        return noisy

    def _add(self, pixels: np.ndarray, noisy: np.ndarray, here: Any, there: Any) -> None:
        least, most, noise = (each.reshape(pixels.shape) for each in (self._least, self._most, self._noise))
        part = noisy[here]
        np.maximum(pixels[here], least[there], out=part)  # with minimum, a sixth of the time of np.clip
        np.minimum(part, most[there], out=part)
        part += noise[there]


def _moved(length: int, by: int) -> list[tuple[slice, slice]]:
    """Return the two stretches of an axis that a move wraps into: where each comes to lie, and where it lay."""
    return [(slice(by, length), slice(length - by)), (slice(by), slice(length - by, length))]


@lru_cache
def noise_fields(sigma: float) -> list[NoiseField]:
    """Return NOISE_FIELDS fields of noise of that standard deviation, in grey levels.

    Moved at random, they cost a tenth of fresh noise a frame.
    """
    rng = np.random.default_rng(round(10 * sigma))
    fields = np.clip(rng.normal(128, sigma, size=(NOISE_FIELDS, HEIGHT, WIDTH)), 0, 255).astype(np.int16)
    return [NoiseField(field - 128) for field in fields]
