from typing import Any

import pytest

from data_prep.disk.byte_counts import GIB
from recipes.machine.recipe_choice import best_recipe
from tests.recipes.machine.test_memory import CONFIG as SIZES_OF_THE_7B


@pytest.mark.parametrize(
    ("card_gib", "host_gib", "best"),
    [
        (78, 64, "recipes/configs/qwen2vl_7b_80gb.yaml"),
        (23, 64, "recipes/configs/qwen2vl_7b_8gb.yaml"),
        (7.6, 16, "recipes/configs/qwen2vl_7b_8gb.yaml"),
        (4.5, 16, "recipes/configs/qwen2vl_7b_6gb.yaml"),
        (3.5, 16, "recipes/configs/qwen2vl_7b_4gb.yaml"),
        (3.2, 16, "recipes/configs/qwen2vl_7b_4gb.yaml"),
        (1.6, 16, "recipes/configs/qwen2vl_7b_2gb.yaml"),
        (1.0, 16, None),
        (3.5, 8, None),
        (78, 3, None),
    ],
)
def test_best_recipe_is_the_fastest_that_fits(card_gib: float, host_gib: float, best: Any) -> None:
    """A card is called by its whole memory; what it has free is less, on an 8 GB laptop about 7.6 GiB."""
    assert best_recipe(SIZES_OF_THE_7B, card_bytes=card_gib * GIB, host_bytes=host_gib * GIB) == best
