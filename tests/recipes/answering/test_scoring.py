import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from PIL import Image
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten
from transformers import Qwen2VLForConditionalGeneration

from benchmarks.measuring.held_generation import generate_held, question
from data_prep.demo.renderer import Renderer
from data_prep.demo.scenes import sample_scene
from data_prep.files import PROJECT_ROOT
from data_prep.labels import LABELS, PROMPT, UNSAFE
from recipes.adapter.lora import load_adapter
from recipes.answering import scoring
from recipes.answering.pooling import pooled_features
from recipes.answering.scoring import NoProbabilityError, Scorer, label_token_ids, score_rows, score_split
from recipes.batches.collator import VisionCollator
from recipes.layers.sizes import LLM_LINEARS
from recipes.metrics.linear_probe import LinearProbe
from recipes.metrics.threshold import label_of
from recipes.model import forward, loading
from recipes.model.base import find_base
from recipes.model.quantized import quantized_modules, unpack_quantized
from tests.recipes.answering.asking_at_once import noise_rows, random_adapter
from tests.recipes.model.test_cuda_graphs import Graphs


@pytest.fixture(scope="module")
def collator(small_base: Path) -> VisionCollator:
    return VisionCollator(loading.load_processor(small_base), 100352)


@pytest.fixture(scope="module")
def model(small_base: Path) -> Any:
    return random_adapter(small_base)


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    return noise_rows()


def test_mixed_sizes_score_as_one_frame_at_a_time(
    model: Any, collator: VisionCollator, rows: list[dict[str, Any]]
) -> None:
    together = score_rows(model, collator, rows, batch_size=len(rows))
    alone = score_rows(model, collator, rows, batch_size=1)
    in_threes = score_rows(model, collator, rows, batch_size=3)
    assert np.abs(together - alone).max() < 1e-4
    assert np.abs(in_threes - alone).max() < 1e-4
    assert len(set(alone.round(4))) == len(rows), "frames that differ must score differently, or this shows nothing"


def test_one_pass_gives_what_three_would(
    model: Any, collator: VisionCollator, rows: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    alone = score_rows(model, collator, rows, batch_size=3)
    with model.disable_adapter():
        without = score_rows(model, collator, rows, batch_size=3)
    pooled = pooled_features(model.get_base_model(), collator, rows, batch_size=3, folder=tmp_path)[:]
    probe = LinearProbe(np.linspace(-1, 1, pooled.shape[1]), np.array(0.1))
    seen: list[int] = []
    tower = forward.image_features

    def counted(module: torch.nn.Module, pixels: torch.Tensor, grids: torch.Tensor) -> torch.Tensor:
        seen.append(len(grids))
        return tower(module, pixels, grids)

    monkeypatch.setattr(forward, "image_features", counted)
    scored = score_split(model, collator, rows, batch_size=3, without_adapter=True, probe=probe)
    np.testing.assert_array_equal(scored.p_unsafe, alone)
    np.testing.assert_array_equal(scored.without_adapter, without)
    assert scored.by_probe is not None
    np.testing.assert_allclose(scored.by_probe, probe.p_unsafe(pooled), atol=1e-12)
    assert seen == [3, 3, 1], "the tower sees each frame once"
    assert np.abs(alone - without).max() > 1e-3


def test_score_is_the_plain_forward_s_softmax_over_the_two_labels(
    model: Any, collator: VisionCollator, rows: list[dict[str, Any]]
) -> None:
    batch = collator.prompts(rows[:2])
    with torch.no_grad():
        logits = model(**batch).logits[:, -1]
    safe, unsafe = (logits[:, token].exp() for token in label_token_ids(collator))
    found = torch.as_tensor(Scorer(model, label_token_ids(collator))(batch))
    torch.testing.assert_close(found, (unsafe / (safe + unsafe)).double(), rtol=1e-5, atol=1e-6)


@pytest.fixture(scope="module")
def saved_adapter(model: Any, small_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("adapter")
    model.save_pretrained(folder, save_embedding_layers=False)
    return folder


@pytest.mark.parametrize("merge", [False, True], ids=["adapter on", "merged"])
@pytest.mark.parametrize("replayed", [False, True], ids=["called", "replayed"])
def test_every_way_to_answer_gives_the_plain_forward_s_score(
    model: Any,
    collator: VisionCollator,
    rows: list[dict[str, Any]],
    small_base: Path,
    saved_adapter: Path,
    monkeypatch: pytest.MonkeyPatch,
    merge: bool,
    replayed: bool,
) -> None:
    """The adapter on 4-bit weights or merged, each called or as a graph, over frames that change; on host and card."""
    monkeypatch.setattr(scoring, "GraphedFunction", Graphs)
    answering = loading.load_base(
        find_base(str(small_base)), dtype=torch.float32, load_in_4bit=True, device=torch.device("cpu")
    )
    if merge:
        unpack_quantized(answering, torch.float32)
    scorer = Scorer(
        load_adapter(answering, saved_adapter, merge=merge), label_token_ids(collator), cuda_graphs=replayed
    )
    for row in (rows[0], rows[5], rows[0], rows[5], rows[1], rows[0]):
        batch = collator.prompts([row])
        with torch.no_grad():
            logits = model(**batch).logits[0, -1, label_token_ids(collator)]
        assert abs(float(scorer(batch)[0]) - float(logits.softmax(0)[LABELS.index(UNSAFE)])) < 1e-4
    graphed = scorer._graphed
    assert isinstance(graphed, Graphs) is replayed
    if isinstance(graphed, Graphs):
        assert graphed.captured == 1


def test_p_is_as_fine_as_fp32_whatever_the_model_computes_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """Logits around 20 come in steps of an eighth in bf16: 2,000 frames would share some 70 values of P."""
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(2000, 1, 3584, generator=generator).bfloat16()
    rows = (0.01 * torch.randn(2, 3584, generator=generator)).bfloat16()
    rows += 20 * hidden.mean(0) / hidden.mean(0).square().sum()  # both logits have a mean of 20
    logits = (hidden[:, 0].double() @ rows.double().t()).numpy()
    assert 18 < logits.mean() < 22
    stand_in: Any = SimpleNamespace(
        model=SimpleNamespace(language_model=SimpleNamespace(norm=SimpleNamespace(weight=torch.ones(1)))),
        lm_head=SimpleNamespace(weight=rows),
    )
    monkeypatch.setattr(scoring, "to_device", lambda *_: {})
    monkeypatch.setattr(scoring, "insert_image_features", lambda *_: {})
    monkeypatch.setattr(scoring, "last_hidden", lambda *_: hidden)
    found = Scorer(stand_in, [0, 1])({"image_grid_thw": torch.zeros(1, 3, dtype=torch.long)})
    expected = 1 / (1 + np.exp(logits[:, 0] - logits[:, 1]))
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5)
    assert len(np.unique(found)) > 1900
    assert ((found >= 0.5) == (expected >= 0.5)).all()


def test_a_p_that_is_no_number_is_never_answered(
    model: Any, collator: VisionCollator, rows: list[dict[str, Any]]
) -> None:
    weight = next(weight for name, weight in model.named_parameters() if "lora_B" in name)
    kept = weight.detach().clone()
    with torch.no_grad():
        weight[0, 0] = torch.nan
    try:
        with pytest.raises(NoProbabilityError, match="is no number, so there is no answer"):
            score_rows(model, collator, rows[:2], batch_size=2)
        with model.disable_adapter():
            assert np.isfinite(score_rows(model, collator, rows[:2], batch_size=2)).all()
    finally:
        with torch.no_grad():
            weight.copy_(kept)


@pytest.fixture(scope="module")
def asked_at_once(small_base: Path) -> dict[str, dict[str, list[float]]]:
    """What asking_at_once.py prints."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.recipes.answering.asking_at_once", str(small_base)],
        cwd=PROJECT_ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, dict[str, list[float]]] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("way", ["called", "replayed"])
def test_threads_that_ask_at_once_each_get_their_own_frame_s_answer(
    asked_at_once: dict[str, dict[str, list[float]]], way: str
) -> None:
    found = asked_at_once[way]
    assert found["at_once"] == pytest.approx(found["one_by_one"], abs=1e-6)
    assert len(found["one_by_one"]) == 32
    assert len(set(found["one_by_one"])) >= 4


class Reads(TorchDispatchMode):
    """Notes the memory that operations read and didn't make themselves."""

    def __init__(self) -> None:
        super().__init__()
        self.made: set[int] = set()
        self.foreign: list[torch.Tensor] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for tensor in tree_flatten((args, kwargs))[0]:
            if isinstance(tensor, torch.Tensor) and tensor.untyped_storage().data_ptr() not in self.made:
                self.foreign.append(tensor)
        result = function(*args, **(kwargs or {}))
        self.made |= {
            tensor.untyped_storage().data_ptr()
            for tensor in tree_flatten(result)[0]
            if isinstance(tensor, torch.Tensor)
        }
        return result


def test_what_is_captured_is_an_input_or_the_scorer_s_own(
    model: Any, collator: VisionCollator, rows: list[dict[str, Any]]
) -> None:
    """A graph reads memory where its capture found it: what anyone else owns may be gone by then."""
    scorer = Scorer(model, label_token_ids(collator))
    batch = collator.prompts(rows)
    inputs = forward.to_device(scorer.base, batch)
    owned = [*inputs.values(), *model.parameters(), *model.buffers(), scorer._rows]
    owned += [
        part
        for module in quantized_modules(model).values()
        for state in (module.weight.quant_state, module.weight.quant_state.state2)
        for part in (state.absmax, state.code, state.offset)
        if part is not None
    ]
    addresses = {tensor.untyped_storage().data_ptr() for tensor in owned}
    with torch.no_grad(), Reads() as reads:
        scorer._p_unsafe(inputs, tuple(map(tuple, batch["image_grid_thw"].tolist())))
    assert reads.foreign
    strangers = [tensor for tensor in reads.foreign if tensor.untyped_storage().data_ptr() not in addresses]
    read_on_the_host = batch["image_grid_thw"]
    assert [tensor for tensor in strangers if not torch.equal(tensor, read_on_the_host)] == []


@pytest.fixture(scope="module")
def scenes(collator: VisionCollator) -> list[Image.Image]:
    """64 drawn frames, eight of each behaviour, of the size that nothing resizes."""
    return [
        Renderer(sample_scene(digit, np.random.default_rng([digit, number]))).frame(1.0).resize((280, 140))
        for number in range(8)
        for digit in range(8)
    ]


def test_labels_are_what_generate_gives_when_held_to_the_two_answers(
    model: Any, collator: VisionCollator, scenes: list[Image.Image]
) -> None:
    """On 64 frames and at every batch size, wherever P is further from the threshold than it differs between them."""
    processor = collator.processor
    text = question(processor, PROMPT)
    inputs = processor(text=[text] * len(scenes), images=scenes, padding=True, return_tensors="pt")
    generated = generate_held(model, inputs, collator.answer_ids, end_id=processor.tokenizer.eos_token_id)
    assert set(generated) == set(LABELS), "both answers must be given, or this shows nothing"
    rows = [{"image": scene, "prompt": PROMPT} for scene in scenes]
    for batch_size in (1, 2, 3, 8, 32, 64):
        p_unsafe = score_rows(model, collator, rows, batch_size=batch_size)
        clear = np.abs(p_unsafe - 0.5) > 1e-4
        assert clear.sum() >= 60
        labels = [label_of(p, 0.5) for p in p_unsafe]
        assert [mine for mine, sure in zip(labels, clear, strict=True) if sure] == [
            theirs for theirs, sure in zip(generated, clear, strict=True) if sure
        ]


@pytest.mark.parametrize(
    "settings",
    [
        {"lora_dropout": 0.05, "target_modules": LLM_LINEARS},
        {"use_rslora": True, "target_modules": ["v_proj", "gate_proj", "up_proj", "down_proj"]},
        {"target_modules": ["q_proj", "up_proj"]},
    ],
    ids=["with dropout", "rank-stabilised", "two linears"],
)
@pytest.mark.parametrize("merge", [False, True], ids=["adapter on", "merged"])
def test_plain_adapter_of_another_trainer_is_answered_as_peft_does(
    collator: VisionCollator,
    rows: list[dict[str, Any]],
    small_base: Path,
    tmp_path: Path,
    settings: dict[str, Any],
    merge: bool,
) -> None:
    def load() -> Any:
        return Qwen2VLForConditionalGeneration.from_pretrained(small_base, dtype=torch.float32)

    torch.manual_seed(0)
    config = LoraConfig(task_type="CAUSAL_LM", r=8, lora_alpha=16, init_lora_weights=False, **settings)
    get_peft_model(load(), config).save_pretrained(tmp_path)
    theirs = PeftModel.from_pretrained(load(), tmp_path).eval()
    base = find_base(str(small_base))
    ours = loading.load_base(base, dtype=torch.float32, load_in_4bit=False, device=torch.device("cpu"))
    found = score_rows(load_adapter(ours, tmp_path, merge=merge), collator, rows, batch_size=1)
    for row, p_unsafe in zip(rows, found, strict=True):
        with torch.no_grad():
            logits = theirs(**collator.prompts([row])).logits[0, -1, label_token_ids(collator)]
        assert abs(p_unsafe - float(logits.softmax(0)[LABELS.index(UNSAFE)])) < 1e-4


def test_an_adapter_is_never_merged_into_4_bits(small_base: Path, saved_adapter: Path) -> None:
    base = loading.load_base(
        find_base(str(small_base)), dtype=torch.float32, load_in_4bit=True, device=torch.device("cpu")
    )
    with pytest.raises(RuntimeError, match="never merged into 4-bit weights"):
        load_adapter(base, saved_adapter, merge=True)


def test_score_sees_the_picture_and_the_adapter(
    model: Any, collator: VisionCollator, rows: list[dict[str, Any]]
) -> None:
    row = rows[0]
    blank = {**row, "image": Image.new("RGB", row["image"].size)}
    seen, unseen = score_rows(model, collator, [row, blank], batch_size=1)
    assert abs(seen - unseen) > 1e-3
    with model.disable_adapter():
        (without,) = score_rows(model, collator, [row], batch_size=1)
    assert abs(seen - without) > 1e-3


def test_scoring_leaves_training_mode_as_it_was(
    model: Any, collator: VisionCollator, rows: list[dict[str, Any]]
) -> None:
    for mode in (True, False):
        model.train(mode)
        score_rows(model, collator, rows[:1], batch_size=1)
        assert model.training is mode


def test_labels_that_begin_alike_are_refused(collator: VisionCollator) -> None:
    alike = VisionCollator(collator.processor, collator.max_pixels)
    alike.answer_ids = {label: [7, 8] for label in LABELS}
    with pytest.raises(ValueError, match="with the same token 7"):
        label_token_ids(alike)


@pytest.mark.parametrize(("p_unsafe", "answer"), [(0.49, "SAFE"), (0.5, "UNSAFE"), (0.51, "UNSAFE")])
def test_threshold_itself_is_unsafe(p_unsafe: float, answer: str) -> None:
    assert label_of(p_unsafe, 0.5) == answer
