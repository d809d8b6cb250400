"""What a run trains with, built as its settings say: base and adapter, collator, kept vision features."""

import sys
from typing import TYPE_CHECKING, Any

from transformers import EarlyStoppingCallback
from transformers.integrations import TensorBoardCallback

from data_prep.files import from_root
from data_prep.labels import TRAIN, VALIDATION
from recipes.adapter.lora import lora_config
from recipes.batches.collator import ROW, VisionCollator, balanced_label_weights
from recipes.batches.vision_cache import EncodedFrames, VisionCache, fill_cache
from recipes.layers.sizes import counted, layers_of, vision_blocks_of
from recipes.model.compiling import compile_layers
from recipes.model.device import memory_told
from recipes.model.loading import Placement, load_base, load_processor
from recipes.model.quantized import unpack_quantized
from recipes.ranks.group import gathered
from recipes.training.callbacks import RecomputeFirst
from recipes.training.run import Run
from recipes.training.trainer import SafetyTrainer

if TYPE_CHECKING:
    from datasets import Dataset


def build_trainer(run: Run) -> SafetyTrainer:
    """Load processor and base, and set up the trainer on the train and validation splits.

    Where vision features are kept, fill_vision_cache comes first.
    """
    recipe, lora, collator = run.recipe, run.model, build_collator(run)
    if recipe.cache_vision_features:
        collator.read_features = vision_cache_of(run).read
    trainer = SafetyTrainer(
        model=build_base(run),
        optimizer_on_host=recipe.optimizer_on_host,
        cuda_graphs=recipe.cuda_graphs,
        args=run.training,
        train_dataset=numbered(run.source.rows(TRAIN)),
        eval_dataset=run.source.rows(VALIDATION),
        processing_class=collator.processor,
        data_collator=collator,
        peft_config=lora_config(
            r=lora.lora_r,
            alpha=lora.lora_alpha,
            dropout=lora.lora_dropout,
            target_modules=lora.lora_target_modules,
            use_rslora=lora.use_rslora,
        ),
    )
    for callback in trainer.callback_handler.callbacks:
        if isinstance(callback, TensorBoardCallback):
            callback.logging_dir = str(run.folder.tensorboard)
    trainer.add_callback(RecomputeFirst(counted(recipe.recomputed_layers, layers_of(run.base.read_config()))))
    if recipe.early_stopping_patience is not None:
        trainer.add_callback(EarlyStoppingCallback(recipe.early_stopping_patience))
    return trainer


def numbered(rows: "Dataset") -> "Dataset":
    """Return a split's rows with their numbers, from 0 on, in a column of their own; pictures aren't copied."""
    return rows.add_column(ROW, list(range(len(rows))))


def build_base(run: Run) -> Any:
    """Load the base, each part of it where the settings place it, its layers unpacked or compiled where they say so."""
    recipe, config = run.recipe, run.base.read_config()
    model = load_base(
        run.base,
        dtype=run.dtype,
        load_in_4bit=run.model.load_in_4bit,
        device=run.training.device,
        placement=Placement(
            embedding_on_host=recipe.embedding_on_host,
            head_on_host=recipe.head_on_host,
            without_vision=recipe.cache_vision_features,
            layers_on_host=counted(recipe.layers_on_host, layers_of(config)),
            vision_blocks_on_host=counted(recipe.vision_blocks_on_host, vision_blocks_of(config)),
        ),
    )
    if recipe.unpack_base:
        unpack_quantized(model, run.dtype)
    if recipe.compile_layers:
        compile_layers(model)
    return model


def build_collator(run: Run) -> VisionCollator:
    """Return the collator that the run's settings describe; it decodes frames."""
    return VisionCollator(
        load_processor(run.base.folder),
        run.recipe.max_pixels,
        balanced_label_weights(run.responses) if run.recipe.balance_labels else None,
        max_side=run.source.max_side,
        dtype=run.dtype,
    )


def vision_cache_of(run: Run) -> VisionCache:
    """Return the folder in which the run's vision features are kept."""
    return VisionCache(
        from_root(run.recipe.vision_cache),
        run.base,
        max_pixels=run.recipe.max_pixels,
        max_side=run.source.max_side,
        dtype=run.dtype,
    )


def fill_vision_cache(run: Run) -> None:
    """Compute the vision features that the run's frames lack, where it is to keep them; a second call finds them all.

    Whatever ends it leaves whole entries, so a run started again goes on where this one was. Processes of a job that
    keep them in one folder compute a part each, wherever that folder is.
    """
    if not run.recipe.cache_vision_features:
        return
    at_once = run.training.per_device_eval_batch_size
    with memory_told(at_once):
        computed = fill_cache(
            vision_cache_of(run),
            EncodedFrames(run.source, (TRAIN, VALIDATION)),
            build_collator(run),
            run.base,
            device=run.training.device,
            batch_size=at_once,
            num_workers=run.training.dataloader_num_workers,
            blocks_on_host=counted(run.recipe.vision_blocks_on_host, vision_blocks_of(run.base.read_config())),
        )
    computed = sum(gathered(computed))  # which waits for all to be there, too
    print(f"vision features: {computed} computed, the others kept from before", file=sys.stderr)
