"""The settings that may differ between a run and its continuation."""

# What may differ between a run and its continuation, because the adapter doesn't depend on it: where the run lies and
# its inputs are found (their hashes decide), how it feeds, logs and keeps, and what is done once it is trained.
# What changes no more than the rounding, such as what is unpacked, is not free; what is streamed or recomputed changes
# nothing at all.
FREE_SETTINGS = {
    "dataloader_multiprocessing_context",
    "dataloader_num_workers",
    "dataloader_persistent_workers",
    "dataloader_pin_memory",
    "dataloader_prefetch_factor",
    "dataset",
    "dataset_revision",
    "disable_tqdm",
    "fit_check",
    "frames_an_update",
    "frames_times_processes",
    "layers_on_host",
    "linear_probe",
    "log_level",
    "logging_first_step",
    "logging_nan_inf_filter",
    "logging_steps",
    "logging_strategy",
    "model_name_or_path",
    "model_revision",
    "output_dir",
    "project",
    "recomputed_layers",
    "report_to",
    "resume",
    "run_name",
    "save_total_limit",
    "threshold",
    "torch_empty_cache_steps",
    "trackio_bucket_id",
    "trackio_space_id",
    "trackio_static_space_id",
    "vision_blocks_on_host",
    "vision_cache",
}
# Where lines are planned for the machine, a run may go on on another one: of what is planned it keeps but how its
# optimizer's state is written.
KEPT_BY_A_RUN = ("optimizer_on_host",)
MIRRORED = ("gradient_checkpointing",)  # transformers' older name, which it sets as activation_checkpointing
# Of FREE_SETTINGS, what a finished run's files were made with.
FIXED_AT_THE_END = {"threshold"}
