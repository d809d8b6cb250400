import numpy as np
import pytest
from scipy.stats import norm

from data_prep.errors import InputError
from recipes.metrics.prior_shift import at_prior, check_prior


def posterior(x: np.ndarray, prior: float) -> np.ndarray:
    """P(UNSAFE | x) where UNSAFE is drawn around 1 and SAFE around 0, by Bayes' rule."""
    unsafe, safe = prior * norm.pdf(x, 1), (1 - prior) * norm.pdf(x, 0)
    return unsafe / (unsafe + safe)


@pytest.mark.parametrize(("trained", "stated"), [(0.8, 0.5), (0.5, 0.02), (0.3, 0.9)])
def test_correction_is_bayes_rule(trained: float, stated: float) -> None:
    x = np.linspace(-4, 5, 50)
    corrected = at_prior(posterior(x, trained), training_prior=trained, prior=stated)
    np.testing.assert_allclose(corrected, posterior(x, stated), atol=1e-12)


def test_same_prior_changes_nothing_and_certainty_stays() -> None:
    p_unsafe = np.array([0.0, 0.2, 0.5, 1.0])
    np.testing.assert_allclose(at_prior(p_unsafe, training_prior=0.8, prior=0.8), p_unsafe)
    assert at_prior(p_unsafe, training_prior=0.8, prior=0.1)[[0, 3]].tolist() == [0.0, 1.0]


@pytest.mark.parametrize("prior", [0.0, 1.0, -1.0, float("nan")])
def test_prior_that_is_none_is_refused(prior: float) -> None:
    with pytest.raises(InputError, match="is not between 0 and 1; give the share of UNSAFE frames"):
        check_prior(prior)
