import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from data_prep.errors import InputError
from data_prep.labels import PROMPT
from recipes.answering.pooling import pool, pooled_features
from recipes.batches.collator import VisionCollator
from recipes.metrics import linear_probe
from recipes.metrics.linear_probe import FILE_NAME, PENALTIES, LinearProbe, fit_probe, read_probe
from recipes.metrics.stored_features import store
from recipes.model import loading
from recipes.model.base import find_base
from tests.tiny_data import write_frame


def drawn(frames: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Features of 9 columns: two tell the label, the last is constant, the others have a mean and a spread each."""
    random = np.random.default_rng(seed)
    truth = (random.random(frames) < 0.7).astype(int)
    features = random.normal(size=(frames, 8))
    features[:, :2] += 1.2 * truth[:, None]
    spread = np.arange(1, 9) * features + 5
    return np.c_[spread, np.full(frames, 0.1)].astype(np.float32), truth


def test_pool_is_each_frame_s_mean() -> None:
    """A frame of 4 x 2 patches makes two tokens, one of 4 x 4 four."""
    features = torch.arange(12, dtype=torch.float32).reshape(6, 2)
    pooled = pool(features, torch.tensor([[1, 4, 2], [1, 4, 4]]), 2)
    assert pooled.tolist() == [[1.0, 2.0], [7.0, 8.0]]


@pytest.mark.parametrize("stored", [True, False])
@pytest.mark.parametrize("balanced", [True, False])
def test_probe_is_scikit_learn_s_at_the_best_penalty(
    balanced: bool, stored: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Read from the disk 20 frames at a time, too, the last block a short one."""
    train, validation = drawn(210, 0), drawn(70, 1)
    if stored:
        monkeypatch.setattr(linear_probe, "_BLOCK", 20 * 9)
        monkeypatch.setattr(linear_probe, "_KEPT", 0)
    given = [(store(np.array_split(x, 7), tmp_path) if stored else x, truth) for x, truth in (train, validation)]
    probe, said = fit_probe(*given, balance_labels=balanced)
    expected, macro_f1 = np.empty(0), -1.0
    for penalty in PENALTIES:
        learner = LogisticRegression(C=penalty, class_weight="balanced" if balanced else None, max_iter=1000)
        fitted = make_pipeline(StandardScaler(), learner).fit(*train)
        found = f1_score(validation[1], fitted.predict(validation[0]), average="macro")
        if found > macro_f1:
            expected, macro_f1, chosen = fitted.predict_proba(validation[0])[:, 1], found, penalty
    np.testing.assert_allclose(probe.p_unsafe(validation[0]), expected, atol=1e-5)
    assert macro_f1 > 0.7
    assert said == f"linear probe on 210 frames: C {chosen:g}, validation macro-F1 {macro_f1:.3f}"


def test_stored_features_are_what_was_written(tmp_path: Path) -> None:
    features = np.arange(35, dtype=np.float32).reshape(7, 5)
    found = store((features[:3], features[3:4], features[4:]), tmp_path)
    assert (len(found), found.shape) == (7, (7, 5))
    for frames in (slice(None), slice(2, 5), slice(6, 60), slice(7, 9), slice(0, 1)):
        np.testing.assert_array_equal(found[frames], features[frames])


def test_full_disk_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Path("/dev/full").open("r+b", buffering=0) as full:
        monkeypatch.setattr("tempfile.TemporaryFile", lambda dir: full)
        with pytest.raises(InputError, match=r"no room for 0\.1 GiB .*No space left on device.*go on with --resume"):
            store([np.ones((5000, 3584), np.float32)], tmp_path)


def test_fit_holds_a_small_part_of_the_features(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 10 MB a tenth, with all that the solver works with."""
    monkeypatch.setattr(linear_probe, "_BLOCK", 2**14)
    monkeypatch.setattr(linear_probe, "_KEPT", 0)
    truth = np.arange(4000) % 2

    def parts() -> Iterator[np.ndarray]:
        random = np.random.default_rng(0)
        for start in range(0, 4000, 50):
            yield (random.normal(size=(50, 640)) + truth[start : start + 50, None]).astype(np.float32)

    tracemalloc.start()
    stored = store(parts(), tmp_path)
    fit_probe((stored, truth), (stored, truth), balance_labels=True)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4000 * 640 * 4 / 10


def test_probe_survives_the_disk(tmp_path: Path) -> None:
    train = drawn(50, 0)
    probe, _ = fit_probe(train, train, balance_labels=True)
    assert read_probe(tmp_path) is None
    probe.write(tmp_path)
    found = read_probe(tmp_path)
    assert found is not None
    np.testing.assert_array_equal(found.p_unsafe(train[0]), probe.p_unsafe(train[0]))
    LinearProbe(np.array([1.0, np.nan]), np.array(0.0)).write(tmp_path)
    with pytest.raises(InputError, match=r"linear_probe\.safetensors: damaged; remove it"):
        read_probe(tmp_path)
    (tmp_path / FILE_NAME).write_bytes(b"torn")
    with pytest.raises(InputError, match=r"linear_probe\.safetensors: damaged; remove it"):
        read_probe(tmp_path)


def test_certain_features_give_no_overflow() -> None:
    train = drawn(50, 0)
    probe, _ = fit_probe(train, train, balance_labels=True)
    with np.errstate(all="raise"):
        assert set(probe.p_unsafe(np.array([[1e6] * 9, [-1e6] * 9])).round(6)) <= {0.0, 1.0}


def test_pooled_features_are_those_of_transformers_own_tower(small_base: Path, tmp_path: Path) -> None:
    model = loading.load_base(
        find_base(str(small_base)), dtype=torch.float32, load_in_4bit=False, device=torch.device("cpu")
    )
    collator = VisionCollator(loading.load_processor(small_base), 100352)
    rows: list[dict[str, Any]] = []
    for number in range(3):
        write_frame(tmp_path / f"{number}.jpg", f"frame {number}")
        rows.append({"image": {"bytes": (tmp_path / f"{number}.jpg").read_bytes()}, "prompt": PROMPT})
    found = pooled_features(model, collator, rows, batch_size=2, folder=tmp_path)[:]
    assert not {path.suffix for path in tmp_path.iterdir()} - {".jpg"}, "the file has no name"
    batch = collator.pixels(rows)
    with torch.no_grad():
        tokens = model.get_image_features(batch["pixel_values"], batch["image_grid_thw"]).pooler_output
    expected = np.stack([frame.mean(0).numpy() for frame in tokens])
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert len(np.unique(found.round(4), axis=0)) == len(rows)
    kept = {row["image"]["bytes"]: (tokens[k], batch["image_grid_thw"][k]) for k, row in enumerate(rows)}
    cached = VisionCollator(collator.processor, 100352, read_features=kept.__getitem__)
    found = pooled_features(model, cached, rows, batch_size=2, folder=tmp_path)[:]
    np.testing.assert_allclose(found, expected, atol=1e-6)
