"""TRL's own set-up on the benchmark's base and frames: the choices of its vision example, its collator, its trainer."""

from pathlib import Path

import torch
from datasets import Dataset, Features, Image, List, Value
from peft import LoraConfig
from transformers import AutoProcessor, BitsAndBytesConfig, Qwen2VLForConditionalGeneration
from trl import SFTConfig, SFTTrainer

from data_prep.rows.jsonl import read_rows


def stock_trainer(out: Path, *, max_pixels: int, workers: int) -> SFTTrainer:
    """Build the trainer for the base and data in the benchmark's folder."""
    quantization = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
    model = Qwen2VLForConditionalGeneration.from_pretrained(
        out / "base", dtype=torch.bfloat16, quantization_config=quantization, device_map={"": 0}
    )
    return SFTTrainer(
        model=model,
        args=SFTConfig(
            output_dir=str(out / "runs" / "stock"),
            bf16=True,
            max_length=None,
            dataloader_num_workers=workers,
            disable_tqdm=True,
            report_to="none",
            save_strategy="no",
        ),
        train_dataset=rows_for_trl(out / "data"),
        processing_class=AutoProcessor.from_pretrained(out / "base", max_pixels=max_pixels),
        peft_config=LoraConfig(r=16, lora_alpha=32, target_modules="all-linear"),
    )


def rows_for_trl(data: Path) -> Dataset:
    """Return the training rows in TRL's prompt-completion form with an image."""

    def message(role: str, text: str) -> list[dict[str, str]]:
        return [{"role": role, "content": text}]

    rows = [
        {
            "images": [str(data / row.image)],
            "prompt": message("user", row.prompt),
            "completion": message("assistant", row.response),
        }
        for row in read_rows(data / "train.jsonl")
    ]
    turns = List({"role": Value("string"), "content": Value("string")})
    return Dataset.from_list(rows, features=Features({"images": List(Image()), "prompt": turns, "completion": turns}))
