"""P(UNSAFE) for another share of UNSAFE frames than training had. Imports no torch.

Where the two classes themselves look the same and only their shares differ, Bayes' rule gives the correction: the odds
are multiplied by how much the prior odds changed (Saerens, Latinne and Decaestecker 2002, "Adjusting the outputs of a
classifier to new a priori probabilities", Neural Computation 14).
"""

import numpy as np
from numpy.typing import ArrayLike

from data_prep.errors import InputError
from data_prep.labels import UNSAFE
from recipes.metrics.class_ids import POSITIVE

# A base that nobody trained on these classes gives no posterior of them under any known prior. Its answers are taken as
# if both were even, which puts nothing into its mouth.
BASE_PRIOR = 0.5


def check_prior(prior: float) -> None:
    """Raise InputError unless a stated prior lies between 0 and 1, both excluded."""
    if not 0.0 < prior < 1.0:
        raise InputError(f"--prior {prior} is not between 0 and 1; give the share of {UNSAFE} frames that is expected")


def at_prior(p_unsafe: ArrayLike, *, training_prior: float, prior: float) -> np.ndarray:
    """Return P(UNSAFE), of any shape, for a share `prior` of UNSAFE frames instead of the training loss's own."""
    ratio = (prior / (1 - prior)) / (training_prior / (1 - training_prior))
    unsafe = ratio * np.asarray(p_unsafe, dtype=float)
    return unsafe / (unsafe + (1 - np.asarray(p_unsafe)))


def weigh(truth: np.ndarray, prior: float | None) -> np.ndarray | None:
    """Return what n rows weigh so that UNSAFE ones weigh `prior` together and SAFE ones the rest; None for no prior."""
    if prior is None:
        return None
    unsafe = int(truth.sum())
    return np.where(truth == POSITIVE, prior / max(unsafe, 1), (1 - prior) / max(len(truth) - unsafe, 1))
