from recipes.training.finishing import without_nan


def test_figures_that_json_lacks_become_null() -> None:
    history = {"log_history": [{"grad_norm": float("inf"), "step": 1}], "loss": float("nan"), "steps": 2}
    assert without_nan(history) == {"log_history": [{"grad_norm": None, "step": 1}], "loss": None, "steps": 2}
