import hashlib
import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from qwen_vl_utils import process_vision_info
from transformers import Qwen2VLConfig, Qwen2VLModel
from transformers.processing_utils import ProcessorMixin

from data_prep.errors import InputError
from data_prep.labels import LABELS, PROMPT, chat_messages
from recipes.answering.scoring import label_token_ids
from recipes.batches import loader
from recipes.batches.collator import PIXELS_VERSION, VisionCollator, balanced_label_weights
from recipes.batches.shrinking import shrunk, shrunk_on, shrunk_size
from recipes.layers.losses import IGNORED
from recipes.model.loading import load_processor
from recipes.ranks.place import Place

MAX_PIXELS = 401408


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def encoded(image: Image.Image) -> dict[str, bytes]:
    held = io.BytesIO()
    image.save(held, "JPEG")
    return {"bytes": held.getvalue()}


@pytest.fixture(scope="module", params=["small", "true"])
def processor(request: pytest.FixtureRequest) -> ProcessorMixin:
    folder: Path = request.getfixturevalue("small_base" if request.param == "small" else "true_model_folder")
    return load_processor(folder)


@pytest.fixture(scope="module")
def batch(processor: ProcessorMixin) -> dict[str, torch.Tensor]:
    sizes = [(640, 360), (300, 300)]
    return VisionCollator(processor, MAX_PIXELS)(
        [
            {"image": picture(*size), "prompt": PROMPT, "response": label}
            for size, label in zip(sizes, LABELS, strict=True)
        ]
    )


def test_loss_is_on_the_answer_and_the_end_of_turn_alone(
    processor: ProcessorMixin, batch: dict[str, torch.Tensor]
) -> None:
    for row, label in enumerate(LABELS):
        answer = batch["input_ids"][row, -batch["labels"].shape[1] :]  # all rows answer from this position on
        supervised = batch["labels"][row] != IGNORED
        assert processor.tokenizer.decode(answer[supervised]) == f"{label}<|im_end|>"
        assert torch.equal(batch["labels"][row][supervised], answer[supervised])
        assert supervised.tolist() == sorted(supervised.tolist(), reverse=True)
        assert torch.equal(batch["loss_weights"][row] > 0, supervised)


def test_row_is_the_chat_template_s_own_text(processor: ProcessorMixin, batch: dict[str, torch.Tensor]) -> None:
    for row, label in enumerate(LABELS):
        text = processor.apply_chat_template(chat_messages(None, PROMPT, label), tokenize=False)
        kept = batch["input_ids"][row][batch["attention_mask"][row] == 1]
        padding = int((batch["labels"][row] == IGNORED).sum())
        kept = kept[: len(kept) - padding]
        images = int((kept == processor.image_token_id).sum())
        expected = text.replace("<|image_pad|>", "<|image_pad|>" * images).removesuffix("\n")
        assert processor.tokenizer.decode(kept) == expected


def test_prompts_are_padded_on_the_left(batch: dict[str, torch.Tensor]) -> None:
    assert batch["attention_mask"][1].tolist() == sorted(batch["attention_mask"][1].tolist())
    assert batch["attention_mask"][1, 0] == 0
    assert batch["attention_mask"][0].all()


def test_prompt_batch_ends_where_the_answer_begins(processor: ProcessorMixin) -> None:
    row = {"image": picture(640, 360), "prompt": PROMPT, "response": "UNSAFE"}
    collator = VisionCollator(processor, MAX_PIXELS)
    prompt, whole = collator.prompts([row]), collator([row])
    length = prompt["input_ids"].shape[1]
    assert torch.equal(prompt["input_ids"][0], whole["input_ids"][0, :length])
    assert whole["input_ids"].shape[1] == length + collator.longest_answer
    assert whole["labels"][0, 0] == label_token_ids(collator)[LABELS.index("UNSAFE")]


def test_frames_of_one_size_need_no_mask(processor: ProcessorMixin) -> None:
    rows = [
        {"image": picture(300, 200, seed), "prompt": PROMPT, "response": label} for seed, label in enumerate(LABELS)
    ]
    assert "attention_mask" not in VisionCollator(processor, MAX_PIXELS)(rows)


def test_positions_are_the_model_s_own(processor: ProcessorMixin, batch: dict[str, torch.Tensor]) -> None:
    config = Qwen2VLConfig(image_token_id=processor.image_token_id)
    with torch.device("meta"):
        model = Qwen2VLModel(config)
    expected, _ = model.get_rope_index(
        batch["input_ids"],
        (batch["input_ids"] == processor.image_token_id).int(),
        batch["image_grid_thw"],
        attention_mask=batch["attention_mask"],
    )
    kept = batch["attention_mask"].bool()
    assert torch.equal(batch["position_ids"][:, kept], expected[:, kept])


def test_inputs_are_the_processor_s_own(processor: ProcessorMixin) -> None:
    image = picture(300, 200)
    batch = VisionCollator(processor, MAX_PIXELS).prompts([{"image": image, "prompt": PROMPT}])
    text = processor.apply_chat_template(chat_messages(None, PROMPT), tokenize=False, add_generation_prompt=True)
    size = {"shortest_edge": 3136, "longest_edge": MAX_PIXELS}
    expected = processor(images=[image.resize((308, 196))], text=[text], size=size, return_tensors="pt")
    assert torch.equal(batch["input_ids"], expected["input_ids"])
    assert torch.equal(batch["image_grid_thw"], expected["image_grid_thw"])
    assert (batch["pixel_values"] - expected["pixel_values"]).abs().max() < 1e-5


def test_neither_answer_outweighs_the_other(batch: dict[str, torch.Tensor]) -> None:
    weights = batch["loss_weights"]
    assert weights.sum(dim=1).tolist() == pytest.approx([1.0, 1.0])
    assert weights.max(dim=1).values.tolist() == pytest.approx([0.5, 0.5])


def test_labels_are_weighted_as_told(processor: ProcessorMixin) -> None:
    rows = [{"image": picture(56, 56), "prompt": PROMPT, "response": label} for label in LABELS]
    weights = VisionCollator(processor, MAX_PIXELS, {"SAFE": 3.0, "UNSAFE": 0.25})(rows)["loss_weights"]
    assert weights.sum(dim=1).tolist() == pytest.approx([3.0, 0.25])


def test_balanced_weights_give_both_labels_the_same_total() -> None:
    responses = ["UNSAFE"] * 8 + ["SAFE"] * 2
    weights = balanced_label_weights(responses)
    assert weights == {"SAFE": 2.5, "UNSAFE": 0.625}
    assert sum(weights[response] for response in responses) == len(responses)


def test_true_tokenizer_s_labels(true_model_folder: Path) -> None:
    collator = VisionCollator(load_processor(true_model_folder), MAX_PIXELS)
    assert label_token_ids(collator) == [83788, 1861]
    assert collator.answer_ids == {"SAFE": [83788, 151645], "UNSAFE": [1861, 83788, 151645]}


@pytest.mark.parametrize(
    ("size", "max_pixels", "visual_tokens"),
    [
        ((1920, 1080), 401408, 480),
        ((1920, 1080), 200704, 252),
        ((1920, 1080), 100352, 120),
        ((100, 60), 401408, 8),
    ],
)
def test_a_frame_costs_the_visual_tokens_that_the_pixel_limit_says(
    true_model_folder: Path, size: tuple[int, int], max_pixels: int, visual_tokens: int
) -> None:
    collator = VisionCollator(load_processor(true_model_folder), max_pixels)
    batch = collator.prompts([{"image": picture(*size), "prompt": PROMPT}])
    assert int((batch["input_ids"] == collator.processor.image_token_id).sum()) == visual_tokens
    assert len(batch["pixel_values"]) == 4 * visual_tokens


def test_frames_are_resized_once(small_base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    resize = Image.Image.resize

    def counting(image: Image.Image, size: tuple[int, int], *args: object, **kwargs: object) -> Image.Image:
        sizes.append(size)
        return resize(image, size, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(Image.Image, "resize", counting)
    collator = VisionCollator(load_processor(small_base), 100352)
    batch = collator.prompts([{"image": picture(640, 360), "prompt": PROMPT}])
    assert sizes == [(420, 224)]
    # Undoing the processor's normalisation gives back the resized picture, so nothing touched it in between.
    patches = batch["pixel_values"].reshape(8, 15, 2, 2, 3, 2, 14, 14)[:, :, :, :, :, 0]
    pixels = patches.permute(0, 2, 5, 1, 3, 6, 4).reshape(224, 420, 3)
    processor = collator.processor.image_processor
    restored = (pixels * torch.tensor(processor.image_std) + torch.tensor(processor.image_mean)) * 255
    expected = torch.from_numpy(np.array(resize(picture(640, 360), (420, 224)))).float()
    assert (restored - expected).abs().max() < 0.01


@pytest.mark.parametrize("side", [300, 640, None])
def test_larger_frame_is_shrunk_as_extraction_shrank_training_s(small_base: Path, side: int | None) -> None:
    """And one that is no larger is left as it is, as is the caller's own image."""
    image, extracted = picture(640, 360), picture(640, 360)
    if side == 300:
        extracted.thumbnail((300, 300), Image.Resampling.BICUBIC)
        assert extracted.size == (300, 169)
    asked = VisionCollator(load_processor(small_base), 100352, max_side=side).pixels([{"image": image}])
    trained = VisionCollator(load_processor(small_base), 100352).pixels([{"image": extracted}])
    assert torch.equal(asked["image_grid_thw"], trained["image_grid_thw"])
    assert torch.equal(asked["pixel_values"], trained["pixel_values"])
    assert image == picture(640, 360)


def test_shrunk_frames_are_those_of_their_version() -> None:
    """Where this digest changes PIXELS_VERSION goes up, or vision features kept from before are taken for today's."""
    digest = hashlib.sha256(shrunk(picture(640, 360), (224, 420)).numpy().tobytes()).hexdigest()
    assert (PIXELS_VERSION, digest[:16]) == (2, "c1385206cb5e3bd9")


@pytest.mark.parametrize("threads", [2, 5])
def test_frames_decoded_by_several_threads_are_those_of_one_in_order(
    small_base: Path, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    collator = VisionCollator(load_processor(small_base), MAX_PIXELS)
    rows = [{"image": encoded(picture(320 + 40 * number, 240, number)), "prompt": PROMPT} for number in range(5)]
    found = []
    for count in (1, threads):
        monkeypatch.setattr("recipes.batches.collator.threads_to_decode", lambda count=count: count)
        found.append(collator.pixels(rows))
    one, several = found
    assert torch.equal(one["pixel_values"], several["pixel_values"])
    assert torch.equal(one["image_grid_thw"], several["image_grid_thw"])


def test_broken_frame_among_others_is_told_of(small_base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recipes.batches.collator.threads_to_decode", lambda: 2)
    rows: list[dict[str, Any]] = [{"image": encoded(picture(320, 240))}, {"image": {"bytes": b"torn", "path": "b.jpg"}}]
    with pytest.raises(InputError, match=r"b\.jpg"):
        VisionCollator(load_processor(small_base), MAX_PIXELS).pixels(rows)


@pytest.mark.parametrize(("workers", "processes", "threads"), [(0, 1, 8), (4, 1, 2), (3, 2, 1), (16, 1, 1)])
def test_cores_are_shared_by_workers_and_processes(
    workers: int, processes: int, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = SimpleNamespace(num_workers=workers) if workers else None
    monkeypatch.setattr(loader, "get_worker_info", lambda: info)
    monkeypatch.setattr(loader, "cpu_count", lambda: 8)
    monkeypatch.setattr(loader, "here", lambda: Place(local_ranks=processes))
    assert loader.threads_to_decode() == threads


def test_encoded_and_decoded_frames_give_the_same_batch(small_base: Path, tmp_path: Path) -> None:
    path = tmp_path / "frame.png"
    picture(64, 64).save(path)
    collator = VisionCollator(load_processor(small_base), 100352)
    encoded = collator.prompts([{"image": {"bytes": path.read_bytes(), "path": "frame.png"}, "prompt": PROMPT}])
    decoded = collator.prompts([{"image": picture(64, 64), "prompt": PROMPT}])
    assert torch.equal(encoded["pixel_values"], decoded["pixel_values"])


@pytest.mark.parametrize("size", [(1920, 1080), (640, 360), (799, 301), (30, 20), (7, 7), (1, 150)])
@pytest.mark.parametrize("max_pixels", [401408, 100352])
def test_frames_are_shrunk_as_qwen_vl_utils_does(small_base: Path, size: tuple[int, int], max_pixels: int) -> None:
    image = picture(*size)
    messages = chat_messages(image, "")
    messages[0]["content"][0]["max_pixels"] = max_pixels
    (expected,), _ = process_vision_info([messages])
    batch = VisionCollator(load_processor(small_base), max_pixels).pixels([{"image": image}])
    processor = load_processor(small_base).image_processor
    theirs = processor(images=[expected], do_resize=False, return_tensors="pt")
    assert torch.equal(batch["pixel_values"], theirs["pixel_values"])
    assert torch.equal(batch["image_grid_thw"], theirs["image_grid_thw"])


@pytest.mark.parametrize(("size", "seen"), [((4000, 21), (28, 3584)), ((21, 4000), (3584, 28))])
def test_strip_of_which_nothing_would_be_left_keeps_a_row_of_tokens(
    small_base: Path, size: tuple[int, int], seen: tuple[int, int]
) -> None:
    assert shrunk_size(Image.new("RGB", size), 100352, 28) == seen
    batch = VisionCollator(load_processor(small_base), 100352).pixels([{"image": Image.new("RGB", size)}])
    assert batch["image_grid_thw"].tolist() == [[1, seen[0] // 14, seen[1] // 14]]


@pytest.mark.parametrize("size", [(1920, 1080), (640, 360), (799, 301), (30, 20)])
def test_frames_shrunk_on_the_card_are_pillow_s_within_2_of_255(size: tuple[int, int]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    image = Image.fromarray(noise)
    on_card = shrunk_on(torch.device("cpu"), image, shrunk_size(image, 100352, 28))
    messages = chat_messages(image, "")
    messages[0]["content"][0]["max_pixels"] = 100352
    (expected,), _ = process_vision_info([messages])
    assert on_card.dtype == torch.uint8
    difference = on_card.permute(1, 2, 0).int() - torch.from_numpy(np.array(expected)).int()
    assert difference.abs().max() <= 2
    assert (difference != 0).float().mean() < 0.01
