"""The small base that ships with the project: its size, its parts, what it can do, and what its card says."""

import json
import re
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from transformers import AutoTokenizer, Qwen2VLForConditionalGeneration

from data_prep.labels import LABELS, PROMPT, chat_messages
from recipes.answering.scoring import label_token_ids
from recipes.batches.collator import VisionCollator
from recipes.model.loading import load_processor
from tiny_base.model_in_batches import Pretraining
from tiny_base.pictures import ChatEncoder, FreshPictures

CARD = Path("README.md")


@pytest.fixture(scope="module")
def record(small_base: Path) -> dict:
    return json.loads((small_base / "pretraining.json").read_text())


def test_base_is_small(small_base: Path, record: dict) -> None:
    with safe_open(small_base / "model.safetensors", framework="pt") as file:
        tensors = [file.get_slice(name) for name in file.keys()]  # noqa: SIM118  # no mapping
        sizes = [torch.Size(tensor.get_shape()).numel() for tensor in tensors]
        assert {tensor.get_dtype() for tensor in tensors} == {"BF16"}
    assert sum(sizes) == record["parameters"] <= 8_000_000
    assert (small_base / "model.safetensors").stat().st_size <= 16_000_000
    config = json.loads((small_base / "config.json").read_text())
    assert config["architectures"] == ["Qwen2VLForConditionalGeneration"]
    assert config["hidden_size"] % 128 == 0


def test_folder_holds_no_code_and_no_pickle(small_base: Path) -> None:
    assert {path.suffix for path in small_base.iterdir()} == {".json", ".jinja", ".safetensors", ".txt", ".md"}
    for file in small_base.glob("*.json"):
        assert "auto_map" not in file.read_text()


def test_tokenizer_is_its_own_and_knows_neither_answer(small_base: Path) -> None:
    tokenizer = load_processor(small_base).tokenizer
    assert len(tokenizer) < 1000
    assert not [token for token in tokenizer.get_vocab() if "safe" in token.casefold()]
    for text in (PROMPT, *LABELS, "für 100 %, 安全"):
        assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text


def test_answers_begin_with_different_tokens(small_base: Path) -> None:
    assert len(set(label_token_ids(VisionCollator(load_processor(small_base), 100352)))) == 2


def test_chat_reads_as_qwens(small_base: Path, true_model_folder: Path) -> None:
    messages = chat_messages(None, PROMPT, "SAFE")
    texts = [
        AutoTokenizer.from_pretrained(folder, local_files_only=True).apply_chat_template(
            messages,
            chat_template=(folder / "chat_template.jinja").read_text(),
            tokenize=False,
        )
        for folder in (small_base, true_model_folder)
    ]
    assert texts[0] == texts[1]


def test_it_sees_what_its_card_says(small_base: Path) -> None:
    """On 60 pictures that neither training nor the card's figures came from; the bounds are far below the card's."""
    processor = load_processor(small_base)
    encoder = ChatEncoder(processor)
    base = Qwen2VLForConditionalGeneration.from_pretrained(small_base, dtype=torch.float32, local_files_only=True)
    model = Pretraining(base, processor, encoder.before_ids).eval()
    pictures = FreshPictures(encoder, seed=2_000_000, pictures=20, questions=12)
    right: dict[str, list[bool]] = {}
    for number in range(3):
        batch = pictures.batch(number)
        with torch.no_grad():
            for topic, hit in zip(batch.topics, model.correct(batch).tolist(), strict=True):
                right.setdefault(topic, []).append(hit)
    for topic in ("panel", "forklift", "clothes at the press", "walks beside the path", "on the path"):
        assert sum(right[topic]) / len(right[topic]) >= 0.85, topic
    everything = [hit for topic, hits in right.items() if topic != "coil" for hit in hits]
    assert sum(everything) / len(everything) >= 0.9


def test_card_gives_the_figures_of_the_record(small_base: Path, record: dict) -> None:
    card = (small_base / CARD).read_text()
    assert card.startswith("---\nlicense: apache-2.0\n")
    assert f"{record['parameters']:,} parameters" in card
    rows = re.findall(r"^\| ([a-z' ]+) \| ([0-9,]+) \| ([0-9.]+) \|$", card, flags=re.MULTILINE)
    accuracy = record["stages"][-1]["accuracy"]
    expected = [(topic, f"{each['asked']:,}", f"{each['accuracy']:.3f}") for topic, each in accuracy.items()]
    assert rows == expected
    for stage in record["stages"]:
        minutes, seconds = divmod(round(stage["training_seconds"]), 60)
        row = f"| {minutes} min {seconds} s | {stage['pictures']:,} | {stage['questions']:,} |"
        assert row in card
