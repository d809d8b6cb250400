"""What a run trains with, built as its settings say: base and adapter, collator, kept vision features."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from data_prep.files import from_root
from recipes.training.run import Run

if TYPE_CHECKING:
    from recipes.batches.collator import VisionCollator
    from recipes.batches.vision_cache import VisionCache
    from recipes.training.trainer import SafetyTrainer


def build_trainer(run: Run) -> "SafetyTrainer":
    """Load processor and base, and set up the trainer on the train and validation splits.

    Where vision features are kept, fill_vision_cache comes first.
    """
    import torch
    from transformers.integrations import TensorBoardCallback

    from recipes.adapter.lora import lora_config
    from recipes.model import loading
    from recipes.model.device import compile_layers
    from recipes.model.quantized import unpack_quantized
    from recipes.training.trainer import SafetyTrainer

    recipe, dtype = run.recipe, getattr(torch, run.model.dtype)
    collator = build_collator(run)
    if recipe.cache_vision_features:
        collator.read_features = vision_cache_of(run).read
    model = loading.load_base(
        run.base,
        dtype=dtype,
        load_in_4bit=run.model.load_in_4bit,
        device=run.training.device,
        placement=loading.Placement(
            embedding_on_host=recipe.embedding_on_host,
            head_on_host=recipe.head_on_host,
            without_vision=recipe.cache_vision_features,
        ),
    )
    if recipe.unpack_base:
        unpack_quantized(model, dtype)
    if recipe.compile_layers:
        compile_layers(model)
    trainer = SafetyTrainer(
        model=model,
        optimizer_on_host=recipe.optimizer_on_host,
        cuda_graphs=recipe.cuda_graphs,
        args=run.training,
        train_dataset=run.source.rows("train"),
        eval_dataset=run.source.rows("validation"),
        processing_class=collator.processor,
        data_collator=collator,
        peft_config=lora_config(
            r=run.model.lora_r,
            alpha=run.model.lora_alpha,
            dropout=run.model.lora_dropout,
            target_modules=run.model.lora_target_modules,
            use_rslora=run.model.use_rslora,
        ),
    )
    for callback in trainer.callback_handler.callbacks:
        if isinstance(callback, TensorBoardCallback):
            callback.logging_dir = str(Path(run.training.output_dir) / "tensorboard")
    return trainer


def vision_cache_of(run: Run) -> "VisionCache":
    """Return the folder in which the run's vision features are kept."""
    import torch

    from recipes.batches.vision_cache import VisionCache

    folder, dtype = from_root(run.recipe.vision_cache), getattr(torch, run.model.dtype)
    return VisionCache(folder, run.base, max_pixels=run.recipe.max_pixels, max_side=run.source.max_side, dtype=dtype)


def fill_vision_cache(run: Run) -> None:
    """Compute the vision features that the run's frames lack, where it is to keep them; a second call finds them all.

    Whatever ends it leaves whole entries, so a run started again goes on where this one was.
    """
    if not run.recipe.cache_vision_features:
        return
    from recipes.batches.vision_cache import EncodedFrames, fill

    computed = fill(
        vision_cache_of(run),
        EncodedFrames(run.source, ("train", "validation")),
        build_collator(run),
        run.base,
        device=run.training.device,
        batch_size=run.training.per_device_eval_batch_size,
        num_workers=run.training.dataloader_num_workers,
    )
    print(f"vision features: {computed} computed, the others kept from before", file=sys.stderr)


def build_collator(run: Run) -> "VisionCollator":
    """Return the collator that the run's settings describe; it decodes frames."""
    import torch

    from recipes.batches.collator import VisionCollator, balanced_label_weights
    from recipes.model.loading import load_processor

    responses = run.source.rows("train")["response"][:]
    return VisionCollator(
        load_processor(run.base.folder),
        run.recipe.max_pixels,
        balanced_label_weights(responses) if run.recipe.balance_labels else None,
        max_side=run.source.max_side,
        dtype=getattr(torch, run.model.dtype),
    )
