"""The settings of TRL's SFTConfig and ModelConfig, sorted by what they do in this recipe. Imports neither.

Each stands in exactly one of three tables, which a test compares with the libraries themselves: USED has an effect,
NO_EFFECT has none, and REFUSED would have a wrong one. So no setting passes for an effect that it doesn't have.
"""

from typing import Any, NamedTuple


class Known(NamedTuple):
    """What a setting's value is, and what it is where neither the YAML nor a flag says otherwise."""

    kind: type
    default: Any


USED = {
    # Where it goes, and how it talks.
    "output_dir": Known(str, None),
    "run_name": Known(str, None),
    "report_to": Known(str, "none"),
    "project": Known(str, "huggingface"),
    "trackio_space_id": Known(str, None),
    "trackio_bucket_id": Known(str, None),
    "trackio_static_space_id": Known(str, None),
    "logging_strategy": Known(str, "steps"),
    "logging_steps": Known(float, 10),
    "logging_first_step": Known(bool, False),
    "logging_nan_inf_filter": Known(bool, True),
    "log_level": Known(str, "passive"),
    "disable_tqdm": Known(bool, None),
    # The base and the adapter.
    "model_name_or_path": Known(str, None),
    "model_revision": Known(str, "main"),
    "dtype": Known(str, "float32"),
    "attn_implementation": Known(str, None),
    "load_in_4bit": Known(bool, False),
    "lora_r": Known(int, 16),
    "lora_alpha": Known(int, 32),
    "lora_dropout": Known(float, 0.05),
    "lora_target_modules": Known(list, None),
    "use_rslora": Known(bool, False),
    # Precision and memory.
    "bf16": Known(bool, None),
    "tf32": Known(bool, None),
    "use_cpu": Known(bool, False),
    "activation_checkpointing": Known(bool, None),
    "activation_checkpointing_kwargs": Known(dict, None),
    "torch_empty_cache_steps": Known(int, None),
    # Optimisation.
    "num_train_epochs": Known(float, 3.0),
    "max_steps": Known(int, -1),
    "per_device_train_batch_size": Known(int, 8),
    "gradient_accumulation_steps": Known(int, 1),
    "learning_rate": Known(float, 2e-5),
    "lr_scheduler_type": Known(str, "linear"),
    "lr_scheduler_kwargs": Known(dict, None),
    "warmup_steps": Known(float, 0),
    "optim": Known(str, "adamw_torch_fused"),
    "optim_args": Known(str, None),
    "weight_decay": Known(float, 0.0),
    "adam_beta1": Known(float, 0.9),
    "adam_beta2": Known(float, 0.999),
    "adam_epsilon": Known(float, 1e-8),
    "max_grad_norm": Known(float, 1.0),
    "seed": Known(int, 42),
    "data_seed": Known(int, None),
    "full_determinism": Known(bool, False),
    # Judging and keeping.
    "eval_strategy": Known(str, "no"),
    "eval_steps": Known(float, None),
    "eval_delay": Known(float, 0),
    "per_device_eval_batch_size": Known(int, 8),
    "save_strategy": Known(str, "steps"),
    "save_steps": Known(float, 500),
    "save_total_limit": Known(int, None),
    "load_best_model_at_end": Known(bool, False),
    "metric_for_best_model": Known(str, None),
    "greater_is_better": Known(bool, None),
    # Feeding.
    "dataloader_drop_last": Known(bool, False),
    "dataloader_num_workers": Known(int, 0),
    "dataloader_pin_memory": Known(bool, True),
    "dataloader_persistent_workers": Known(bool, False),
    "dataloader_prefetch_factor": Known(int, None),
    "dataloader_multiprocessing_context": Known(str, None),
}

# What the libraries make of a line that isn't there, where that isn't their dataclasses' default.
UNSAID = {"bf16": True, "activation_checkpointing": True}

# What is so here whatever the libraries' defaults: no sequence is cut, which would cut its image, and the collator
# reads the data set's own columns.
ALWAYS = {"max_length": None, "remove_unused_columns": False}

NO_EFFECT = {
    "max_length": Known(int, ALWAYS["max_length"]),
    "remove_unused_columns": Known(bool, ALWAYS["remove_unused_columns"]),
    # The loss is this project's own.
    "label_smoothing_factor": Known(float, 0.0),
    "loss_type": Known(str, "nll"),
    "completion_only_loss": Known(bool, None),
    "assistant_only_loss": Known(bool, False),
    "average_tokens_across_devices": Known(bool, True),
    "router_aux_loss_coef": Known(float, None),
    "neftune_noise_alpha": Known(float, None),
    "label_names": Known(list, None),
    "prediction_loss_only": Known(bool, False),
    "include_for_metrics": Known(list, []),
    "batch_eval_metrics": Known(bool, False),
    "include_num_input_tokens_seen": Known(str, "no"),
    # So is what makes batches of rows.
    "packing": Known(bool, False),
    "packing_strategy": Known(str, "bfd"),
    "eval_packing": Known(bool, None),
    "padding_free": Known(bool, False),
    "pad_to_multiple_of": Known(str, "auto"),
    "truncation_mode": Known(str, "keep_start"),
    "shuffle_dataset": Known(bool, False),
    "dataset_text_field": Known(str, "text"),
    "dataset_kwargs": Known(dict, None),
    "dataset_num_proc": Known(int, None),
    "chat_template_path": Known(str, None),
    "eos_token": Known(str, None),
    "pad_token": Known(str, None),
    "train_sampling_strategy": Known(str, "random"),
    "length_column_name": Known(str, "length"),
    "accelerator_config": Known(dict, None),
    # And the way the model is loaded, adapted and run.
    "model_init_kwargs": Known(dict, None),
    "use_peft": Known(bool, False),
    "lora_target_parameters": Known(list, None),
    "lora_modules_to_save": Known(list, None),
    "lora_task_type": Known(str, "CAUSAL_LM"),
    "use_dora": Known(bool, False),
    "load_in_8bit": Known(bool, False),
    "bnb_4bit_quant_type": Known(str, "nf4"),
    "use_bnb_nested_quant": Known(bool, False),
    "bnb_4bit_quant_storage": Known(str, None),
    "optim_target_modules": Known(str, None),
    "use_liger_kernel": Known(bool, False),
    "liger_kernel_config": Known(dict, None),
    "use_cache": Known(bool, False),
    "activation_offloading": Known(bool, False),
    "torch_compile_backend": Known(str, None),
    "torch_compile_mode": Known(str, None),
    "bf16_full_eval": Known(bool, False),
    "fp16_full_eval": Known(bool, False),
    "eval_do_concat_batches": Known(bool, True),
    "eval_use_gather_object": Known(bool, False),
    "eval_accumulation_steps": Known(int, None),
    # Each process takes itself to be alone, and the script decides what is done.
    "log_on_each_node": Known(bool, True),
    "log_level_replica": Known(str, "warning"),
    "save_on_each_node": Known(bool, False),
    "ddp_find_unused_parameters": Known(bool, None),
    "ddp_bucket_cap_mb": Known(int, None),
    "ddp_broadcast_buffers": Known(bool, None),
    "ddp_static_graph": Known(bool, None),
    "ddp_backend": Known(str, None),
    "ddp_timeout": Known(int, 1800),
    "fsdp": Known(str, None),
    "fsdp_config": Known(dict, None),
    "deepspeed": Known(dict, None),
    "parallelism_config": Known(dict, None),
    "local_rank": Known(int, -1),
    "debug": Known(str, ""),
    "skip_memory_metrics": Known(bool, True),
    "do_train": Known(bool, False),
    "do_eval": Known(bool, False),
    "do_predict": Known(bool, False),
    "hub_token": Known(str, None),
    "hub_private_repo": Known(bool, None),
    "hub_model_id": Known(str, None),
    "hub_strategy": Known(str, "every_save"),
    "hub_always_push": Known(bool, False),
    "hub_revision": Known(str, None),
}

REFUSED = {
    "fp16": (
        Known(bool, False),
        "would need its losses scaled, which isn't done here; remove it and set dtype to float32",
    ),
    "torch_compile": (Known(bool, False), "has no effect in this recipe; set compile_layers instead"),
    "gradient_checkpointing": (Known(bool, True), "is named activation_checkpointing here; set that"),
    "gradient_checkpointing_kwargs": (Known(dict, None), "is named activation_checkpointing_kwargs here; set that"),
    "trust_remote_code": (Known(bool, False), "is never used here; remove it"),
    "push_to_hub": (Known(bool, False), "is never used here: a run stays on this machine; remove it"),
    "auto_find_batch_size": (
        Known(bool, False),
        "would change what is computed unseen; set per_device_train_batch_size",
    ),
    "resume_from_checkpoint": (
        Known(str, None),
        "is not used here; --resume goes on from the last whole checkpoint",
    ),
    "save_only_model": (Known(bool, False), "would leave checkpoints that can't be gone on from; remove it"),
    "ignore_data_skip": (Known(bool, False), "would have a resumed run see other frames; remove it"),
    "restore_callback_states_from_checkpoint": (Known(bool, False), "has no effect in this recipe; remove it"),
    "dataloader_in_order": (Known(bool, True), "would leave the order of frames to chance; remove it"),
    "eval_on_start": (Known(bool, False), "would judge a resumed run once more; remove it"),
    "enable_jit_checkpoint": (Known(bool, False), "is not needed: SIGTERM saves a checkpoint already; remove it"),
}
