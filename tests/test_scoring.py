from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import get_peft_model
from PIL import Image

from benchmarks.held_generation import generate_held, question
from data_prep.demo_renderer import Renderer
from data_prep.demo_scenes import draw_scene
from data_prep.labels import LABELS, PROMPT, UNSAFE
from recipes import forward, modeling, scoring
from recipes.base_model import find_base
from recipes.collator import VisionCollator
from recipes.linear_probe import pooled_features
from recipes.scoring import Scorer, label_of, label_token_ids, score_in_ways, score_rows
from tests.test_cuda_graphs import Graphs

SIZES = [(640, 360), (360, 640), (200, 200), (1280, 720), (57, 90), (640, 360), (28, 28)]


@pytest.fixture(scope="module")
def collator(small_base: Path) -> VisionCollator:
    return VisionCollator(modeling.load_processor(small_base), 100352)


@pytest.fixture(scope="module")
def model(small_base: Path) -> Any:
    """An adapter whose weights are all random, so that it changes every answer."""
    base = modeling.load_base(
        find_base(str(small_base)), dtype=torch.float32, load_in_4bit=True, device=torch.device("cpu")
    )
    torch.manual_seed(0)
    config = modeling.lora_config(r=4, alpha=8, dropout=0.0, target_modules=modeling.LLM_LINEARS, use_rslora=False)
    config.init_lora_weights = False
    return get_peft_model(base, config)


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    random = np.random.default_rng(0)
    frames = [  # each brighter than the one before: noise of one size looks much the same to the base
        random.integers(30 * number, 256, (height, width, 3), dtype=np.uint8)
        for number, (width, height) in enumerate(SIZES)
    ]
    return [{"image": Image.fromarray(frame), "prompt": PROMPT} for frame in frames]


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
    model: Any, collator: VisionCollator, rows: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = score_rows(model, collator, rows, batch_size=3)
    with model.disable_adapter():
        without = score_rows(model, collator, rows, batch_size=3)
    pooled = pooled_features(model.get_base_model(), collator, rows, batch_size=3)
    seen: list[int] = []
    tower = forward.frame_features

    def counted(module: torch.nn.Module, pixels: torch.Tensor, grids: torch.Tensor) -> torch.Tensor:
        seen.append(len(grids))
        return tower(module, pixels, grids)

    monkeypatch.setattr(forward, "frame_features", counted)
    scored = score_in_ways(model, collator, rows, batch_size=3, without_adapter=True, pooled=True)
    np.testing.assert_array_equal(scored.p_unsafe, alone)
    np.testing.assert_array_equal(scored.without_adapter, without)
    np.testing.assert_array_equal(scored.pooled, pooled)
    assert seen == [3, 3, 1], "the tower sees each frame once"
    assert np.abs(alone - without).max() > 1e-3


def test_score_is_the_plain_forward_s_softmax_over_the_two_labels(
    model: Any, collator: VisionCollator, rows: list[dict[str, Any]]
) -> None:
    batch = collator.prompts(rows[:2])
    with torch.no_grad():
        logits = model(**batch).logits[:, -1]
    safe, unsafe = (logits[:, token].exp() for token in label_token_ids(collator))
    torch.testing.assert_close(Scorer(model, label_token_ids(collator))(batch), unsafe / (safe + unsafe))


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
    answering = modeling.load_base(
        find_base(str(small_base)), dtype=torch.float32, load_in_4bit=True, device=torch.device("cpu")
    )
    if merge:
        modeling.unpack_quantized(answering, torch.float32)
    scorer = Scorer(
        modeling.load_adapter(answering, saved_adapter, merge=merge), label_token_ids(collator), cuda_graphs=replayed
    )
    for row in (rows[0], rows[5], rows[0], rows[5], rows[1], rows[0]):
        batch = collator.prompts([row])
        with torch.no_grad():
            logits = model(**batch).logits[0, -1, label_token_ids(collator)]
        assert abs(float(scorer(batch)) - float(logits.softmax(0)[LABELS.index(UNSAFE)])) < 1e-4
    graphed = scorer._graphed
    assert isinstance(graphed, Graphs) is replayed
    if isinstance(graphed, Graphs):
        assert graphed.captured == 1


@pytest.fixture(scope="module")
def scenes(collator: VisionCollator) -> list[Image.Image]:
    """64 drawn frames, eight of each behaviour, of the size that nothing resizes."""
    return [
        Renderer(draw_scene(digit, np.random.default_rng([digit, number]))).frame(1.0).resize((420, 224))
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


def test_an_adapter_is_never_merged_into_4_bits(small_base: Path, saved_adapter: Path) -> None:
    base = modeling.load_base(
        find_base(str(small_base)), dtype=torch.float32, load_in_4bit=True, device=torch.device("cpu")
    )
    with pytest.raises(RuntimeError, match="never merged into 4-bit weights"):
        modeling.load_adapter(base, saved_adapter, merge=True)


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
