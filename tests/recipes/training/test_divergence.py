import pytest
import torch

from data_prep.errors import InputError
from recipes.training.divergence import GradientWatch


@pytest.mark.parametrize("norm", ["nan", "inf"])
def test_norm_that_is_no_number_is_told_with_its_update(norm: str) -> None:
    watch = GradientWatch(1e-4)
    watch.check()
    watch.note(torch.tensor(2.0), 1)
    with pytest.raises(InputError, match=rf"the gradient of update 2 is no number \({norm}\); .* below 0\.0001"):
        watch.note(torch.tensor(float(norm)), 2)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_norm_on_a_gpu_is_told_an_update_later() -> None:
    watch = GradientWatch(1e-4)
    watch.note(torch.tensor(2.0, device="cuda"), 1)
    watch.note(torch.tensor(float("nan"), device="cuda"), 2)
    with pytest.raises(InputError, match="the gradient of update 2 is no number"):
        watch.note(torch.tensor(2.0, device="cuda"), 3)
