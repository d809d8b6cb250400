"""The small base's pretraining: its pictures, its batched computation, and its command."""

import json
import re
import subprocess
import sys
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import Qwen2VLForConditionalGeneration

from data_prep.demo.clips import MAX_SEED
from data_prep.files import PROJECT_ROOT
from data_prep.labels import PROMPT
from recipes.batches.collator import VisionCollator
from recipes.layers.losses import IGNORED
from recipes.model.loading import load_processor
from tiny_base.architecture import make_config, make_processor, train_tokenizer, write_model
from tiny_base.model_in_batches import Pretraining
from tiny_base.pictures import SEED_BASE, ChatEncoder, FreshPictures
from tiny_base.questions import Question, all_texts


@pytest.fixture(scope="module")
def model() -> Pretraining:
    """A base with random weights, as pretraining begins."""
    processor = make_processor(train_tokenizer(all_texts()))
    torch.manual_seed(0)
    base = Qwen2VLForConditionalGeneration(make_config(processor.tokenizer))
    model = Pretraining(base, processor, ChatEncoder(processor).before_ids).eval()
    model.processor = processor
    return model


@pytest.fixture(scope="module")
def pictures(model: Pretraining) -> FreshPictures:
    return FreshPictures(ChatEncoder(model.processor), seed=0, pictures=3, questions=4)


def test_model_is_written_as_qwen_publishes_its_own(model: Pretraining, small_base: Path, tmp_path: Path) -> None:
    write_model(tmp_path / "new", model.base, model.processor)
    written = {path.name for path in (tmp_path / "new").iterdir()}
    added = {"README.md", "pretraining.json", "earlier_revisions.json"}
    assert written == {path.name for path in small_base.iterdir()} - added
    config = json.loads((tmp_path / "new" / "config.json").read_text())
    assert config == {**json.loads((small_base / "config.json").read_text()), "torch_dtype": "float32"}
    again = Qwen2VLForConditionalGeneration.from_pretrained(tmp_path / "new", local_files_only=True)
    for (name, weight), other in zip(model.base.named_parameters(), again.parameters(), strict=True):
        assert torch.equal(weight, other), name
    assert load_processor(tmp_path / "new").tokenizer.get_vocab() == model.processor.tokenizer.get_vocab()


def test_scenes_come_from_other_seeds_than_the_demos(pictures: FreshPictures, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first word of a seed differs from every one that make_demo_clips.py takes, so no stream is shared."""
    seen: list[object] = []
    make_generator = np.random.default_rng

    def remember(seed: object) -> np.random.Generator:
        seen.append(seed)
        return make_generator(seed)  # type: ignore[arg-type]

    monkeypatch.setattr(np.random, "default_rng", remember)
    pictures.batch(7)
    assert [SEED_BASE, 7] in seen and MAX_SEED < SEED_BASE
    assert [seed for seed in seen if isinstance(seed, list)] == [[SEED_BASE, 7]]


def test_batches_depend_on_seed_and_number_alone(pictures: FreshPictures) -> None:
    assert torch.equal(pictures.batch(1).pixels, pictures.batch(1).pixels)
    assert not torch.equal(pictures.batch(1).pixels, pictures.batch(2).pixels)
    first, second = (batch for batch, _ in zip(pictures, range(2), strict=False))
    assert torch.equal(second.pixels, pictures.batch(1).pixels) and not torch.equal(first.pixels, second.pixels)


def test_pictures_are_shrunk_as_the_collator_does(pictures: FreshPictures, model: Pretraining) -> None:
    assert pictures.batch(0).pixels.shape == (3, 224, 420, 3)
    batch = VisionCollator(model.processor, 100352).prompts([{"image": Image.new("RGB", (640, 360)), "prompt": "?"}])
    assert batch["image_grid_thw"].tolist() == [[1, 224 // 14, 420 // 14]]


def test_only_answers_are_learned(pictures: FreshPictures, model: Pretraining) -> None:
    batch = pictures.batch(0)
    tokenizer = model.processor.tokenizer
    for ids, labels in zip(batch.token_ids.flatten(0, 1), batch.labels.flatten(0, 1), strict=True):
        learned = labels != IGNORED
        assert torch.equal(ids[learned], labels[learned])
        text = tokenizer.decode(ids[: int(learned.nonzero().max()) + 1])
        assert text.endswith(f"<|im_start|>assistant\n{tokenizer.decode(labels[learned])}")
        assert tokenizer.decode(labels[learned]).endswith("<|im_end|>")


def test_chat_is_the_one_that_the_collator_writes(model: Pretraining) -> None:
    encoder = ChatEncoder(model.processor)
    token_ids, labels = encoder.encode([Question("any", PROMPT, "yes")])
    asked = token_ids[0, : int((labels[0] != IGNORED).nonzero().min())]
    row = {"image": Image.new("RGB", (640, 360)), "prompt": PROMPT}
    expected = VisionCollator(model.processor, 100352).prompts([row])["input_ids"][0].tolist()
    picture = [model.base.config.image_token_id] * 120
    assert encoder.before_ids + picture + asked.tolist() == expected


def test_batched_computation_is_the_librarys(pictures: FreshPictures, model: Pretraining) -> None:
    """Every answer's logits are those of transformers' own forward pass over that picture and question alone."""
    batch = pictures.batch(0)
    image_token = model.base.config.image_token_id
    with torch.no_grad():
        logits, _ = model.answer_logits(batch)
        for row in range(12):
            labels, ids = batch.labels.flatten(0, 1)[row], batch.token_ids.flatten(0, 1)[row]
            places = (labels != IGNORED).nonzero()[:, 0]
            before = model._before_ids.tolist()
            input_ids = torch.tensor([before + [image_token] * 120 + ids[: int(places.max()) + 1].tolist()])
            image = Image.fromarray(batch.pixels[row // 4].numpy())
            encoded = model.processor.image_processor(images=[image], do_resize=False, return_tensors="pt")
            alone = model.base(
                input_ids=input_ids, mm_token_type_ids=(input_ids == image_token).int(), **encoded
            ).logits[0]
            start = int((batch.labels.flatten(0, 1)[:row] != IGNORED).sum())
            found = logits[start : start + len(places)]
            assert torch.allclose(found, alone[len(before) + 120 - 1 + places], atol=2e-5)


def test_loss_falls_on_a_batch_that_is_seen_again(model: Pretraining, pictures: FreshPictures) -> None:
    learner, batch = deepcopy(model).train(), pictures.batch(0)
    optimizer = torch.optim.AdamW(learner.parameters(), lr=1e-3)
    losses = []
    for _ in range(8):
        loss = learner.loss(batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.75 * losses[0]


def test_an_answer_is_right_when_all_of_it_is(model: Pretraining, pictures: FreshPictures) -> None:
    batch = pictures.batch(0)
    with torch.no_grad():
        logits, labels = model.answer_logits(batch)
    hits = (logits.argmax(-1) == labels).tolist()
    counts = (batch.labels.flatten(0, 1) != IGNORED).sum(1).tolist()
    expected = [all(hits[sum(counts[:row]) : sum(counts[: row + 1])]) for row in range(len(counts))]
    assert model.correct(batch).tolist() == expected


def run_script(*flags: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "tiny_base/pretrain.py", *flags]
    return subprocess.run(command, cwd=PROJECT_ROOT, capture_output=True, text=True, check=False)


def test_existing_folder_is_refused(tmp_path: Path) -> None:
    done = run_script("--out", str(tmp_path))
    assert done.returncode == 2
    assert re.fullmatch(r"error: --out \S+ exists; remove it or name another folder\n", done.stderr)


def test_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    done = run_script("--out", str(tmp_path / "new"), "--go-on-from", str(tmp_path))
    assert done.returncode == 2
    assert "no model.safetensors there" in done.stderr


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_gpu_is_asked_for(tmp_path: Path) -> None:
    done = run_script("--out", str(tmp_path / "new"))
    assert done.returncode == 2
    assert done.stderr == "error: no CUDA device: pretraining the small base needs one\n"


def test_shipped_processor_is_made_alike(small_base: Path, model: Pretraining) -> None:
    """The weights were trained with this chat template, these special tokens and this picture size."""
    shipped = load_processor(small_base)
    assert shipped.chat_template == model.processor.chat_template
    assert shipped.tokenizer.all_special_tokens == model.processor.tokenizer.all_special_tokens
    assert shipped.image_processor.size == model.processor.image_processor.size
