from typing import Any

import pytest

from recipes.machine.memory import GIB, MemoryNeed
from recipes.machine.recipe_choice import PROCESS_BYTES, RESERVED, best_recipe, shortages
from tests.recipes.machine.test_memory import CONFIG as SIZES_OF_THE_7B

NEEDED = MemoryNeed(card={"weights": 3 * GIB, "rest": 1 * GIB}, host={"embedding": 2 * GIB}, disk_bytes_a_frame=0)


@pytest.mark.parametrize(
    ("card_gib", "host_gib", "said"),
    [
        (4 * RESERVED, 2 + PROCESS_BYTES / GIB, []),
        (4.1, 64, ["the card has 4.1 GiB free, and about 4.2 are needed"]),
        (64, 5, ["host memory has 5.0 GiB free, and about 6.0 are needed"]),
        (1, 1, ["the card has 1.0 GiB free, and about 4.2", "host memory has 1.0 GiB free, and about 6.0"]),
    ],
)
def test_what_is_short_is_named_with_both_figures(card_gib: float, host_gib: float, said: list[str]) -> None:
    found = shortages(NEEDED, card_bytes=card_gib * GIB, host_bytes=host_gib * GIB)
    assert len(found) == len(said)
    assert all(text.startswith(beginning) for text, beginning in zip(found, said, strict=True))


@pytest.mark.parametrize(
    ("card_gib", "host_gib", "best"),
    [
        (78, 64, "recipes/configs/qwen2vl_7b_80gb.yaml"),
        (23, 64, "recipes/configs/qwen2vl_7b_8gb.yaml"),
        (7.6, 16, "recipes/configs/qwen2vl_7b_8gb.yaml"),
        (4.5, 16, "recipes/configs/qwen2vl_7b_6gb.yaml"),
        (3.5, 16, None),
        (78, 3, None),
    ],
)
def test_best_recipe_is_the_fastest_that_fits(card_gib: float, host_gib: float, best: Any) -> None:
    """A card is called by its whole memory; what it has free is less, on an 8 GB laptop about 7.6 GiB."""
    assert best_recipe(SIZES_OF_THE_7B, card_bytes=card_gib * GIB, host_bytes=host_gib * GIB) == best
