import io
from typing import Any

import pytest
from PIL import Image

from recipes.training.curves import training_plot

LOG: list[dict[str, Any]] = [
    {"step": 10, "loss": 0.7, "grad_norm": None},
    {"step": 20, "loss": 0.4},
    {"step": 20, "eval_loss": 0.5, "eval_macro_f1": 0.8, "eval_recall": 0.9},
    {"step": 40, "eval_loss": 0.3, "eval_macro_f1": 0.9, "eval_recall": 0.95},
    {"step": 40, "train_runtime": 12.0, "train_loss": 0.5},
]


@pytest.mark.parametrize("log", [LOG, [], [{"step": 1, "loss": None}]], ids=["whole", "empty", "without a number"])
def test_any_log_gives_a_picture(log: list[dict[str, Any]]) -> None:
    picture = Image.open(io.BytesIO(training_plot(log, 40)))
    assert (picture.format, picture.size) == ("PNG", (770, 660))


def test_same_log_same_bytes_other_log_others() -> None:
    assert training_plot(LOG, 40) == training_plot(LOG, 40)
    assert training_plot(LOG, 40) != training_plot(LOG, 20)
    assert training_plot(LOG, 40) != training_plot(LOG[:-2], 40)
