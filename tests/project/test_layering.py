"""Imports go one way: labels at the bottom, scripts at the top; no script is imported but by its tests."""

import ast
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from data_prep.files import PROJECT_ROOT

# Lower first. A module imports from the layers before its own, or from its own where that is one topic.
LAYERS = [
    {"data_prep.disk.places"},
    {"data_prep.disk.disk_errors"},
    {"data_prep.errors"},
    {
        "data_prep.media.bitstreams.bit_reader",
        "data_prep.media.bitstreams.coded_picture",
        "data_prep.files",
        "data_prep.media.mp4.foreign_files",
        "data_prep.media.frame_format",
        "data_prep.labels",
        "data_prep.disk.litter",
        "data_prep.media.mp4.boxes",
        "data_prep.media.bitstreams.nal_units",
        "data_prep.disk.plain_paths",
        "data_prep.clips.workers",
    },
    {"data_prep.media.mp4.edit_lists", "data_prep.media.mp4.fragments", "data_prep.media.bitstreams.parameter_sets"},
    {"data_prep.media.mp4.opening"},
    {
        "data_prep.media.bitstreams.av1",
        "data_prep.media.bitstreams.av1_headers",
        "data_prep.media.bitstreams.h264",
        "data_prep.media.bitstreams.h264_headers",
        "data_prep.media.bitstreams.h264_numbers",
        "data_prep.media.bitstreams.hevc",
        "data_prep.media.bitstreams.hevc_headers",
        "data_prep.media.bitstreams.mpeg4",
    },
    {"data_prep.media.bitstreams.pictures", "data_prep.media.timeline"},
    {"data_prep.media.survey"},
    {"data_prep.media.images", "data_prep.clips.records", "data_prep.rows.jsonl", "data_prep.demo.scenes"},
    {"data_prep.media.pixels"},
    {"data_prep.media.video"},
    {
        "data_prep.clips.audit_in_words",
        "data_prep.clips.audit",
        "data_prep.clips.names",
        "data_prep.demo.renderer",
        "data_prep.rows.dataset",
        "data_prep.clips.lookalikes",
        "data_prep.disk.parquet_files",
    },
    {"data_prep.hub.pushing"},
    {"data_prep.hub.source", "data_prep.hub.old_versions"},
    {
        "data_prep.make_demo_clips",
        "data_prep.extract_frames",
        "data_prep.audit",
        "data_prep.build_jsonl",
        "data_prep.push_dataset",
    },
    {
        "recipes.model.base_files",
        "recipes.model.base",
        "recipes.training.checkpoints",
        "recipes.model.cuda_graphs",
        "recipes.training.divergence",
        "recipes.machine.memory",
        "recipes.model.forward",
        "recipes.machine.host_system",
        "recipes.layers.joined_linears",
        "recipes.library_messages",
        "recipes.training.library_settings",
        "recipes.layers.fused_lora",
        "recipes.metrics.figures",
        "recipes.metrics.threshold",
        "recipes.metrics.prior_shift",
        "recipes.training.stopping",
        "recipes.metrics.stored_features",
        "recipes.training.curves",
    },
    {
        "recipes.metrics.comparison",
        "recipes.metrics.intervals",
        "recipes.layers.joined_lora",
        "recipes.metrics.judged",
        "recipes.adapter.safety_record",
        "recipes.batches.collator",
    },
    {"recipes.training.settings", "recipes.training.checks"},
    {"recipes.adapter.folder", "recipes.layers.host_weights"},
    {"recipes.metrics.linear_probe", "recipes.model.loading", "recipes.report.plots", "recipes.machine.recipe_choice"},
    {
        "recipes.report.contents",
        "recipes.training.run_folder",
        "recipes.training.command_line",
        "recipes.answering.scoring",
        "recipes.adapter.model_card",
        "recipes.batches.vision_cache",
    },
    {"recipes.answering.adapted_model", "recipes.machine.run_needs", "recipes.report.page", "recipes.training.trainer"},
    {"recipes.training.finishing"},
    {"recipes.serving.answer_page"},
    {"recipes.app", "recipes.doctor", "recipes.sft_qwen2vl", "recipes.eval_qwen2vl", "recipes.infer"},
]
SCRIPTS = next(layer for layer in LAYERS if "data_prep.extract_frames" in layer) | LAYERS[-1]
LAYER_OF = {module: number for number, layer in enumerate(LAYERS) for module in layer}
UNIX_ALONE = {"fcntl", "grp", "pwd", "resource", "syslog", "termios", "tty"}
HEAVY = {"torch", "transformers", "trl", "peft", "bitsandbytes", "accelerate"}


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(PROJECT_ROOT).with_suffix("").parts)


MODULES = {
    module_name(path): path
    for folder in ("data_prep", "recipes")
    for path in sorted((PROJECT_ROOT / folder).rglob("*.py"))
    if path.name != "__init__.py"
}


def imports(path: Path, *, top_level_only: bool = False) -> set[str]:
    """Return the dotted names that a file imports; of `from a import b` both `a` and `a.b`."""
    tree = ast.parse(path.read_text())
    nodes = tree.body if top_level_only else list(ast.walk(tree))
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def test_every_module_has_a_layer() -> None:
    assert set(MODULES) == set(LAYER_OF)


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_one_way(module: str) -> None:
    for imported in imports(MODULES[module]) & set(MODULES):
        assert LAYER_OF[imported] <= LAYER_OF[module], f"{module} imports {imported}"
        assert imported not in SCRIPTS, f"{module} imports the script {imported}"


@pytest.mark.parametrize("module", [name for name in MODULES if name.startswith("data_prep.")])
def test_data_prep_knows_no_model(module: str) -> None:
    roots = {name.split(".")[0] for name in imports(MODULES[module])}
    assert not roots & (HEAVY | {"recipes"})


@pytest.mark.parametrize("module", MODULES)
def test_windows_gets_as_far_as_its_one_line(module: str) -> None:
    """run_script says that this isn't for Windows itself; an import that fails there would come before it."""
    assert not imports(MODULES[module], top_level_only=True) & UNIX_ALONE


@pytest.mark.parametrize("module", sorted(SCRIPTS))
def test_scripts_answer_mistakes_before_loading_torch(module: str) -> None:
    reached, waiting = set(), {module}
    while waiting:
        current = waiting.pop()
        reached.add(current)
        found = imports(MODULES[current], top_level_only=True)
        assert not {name.split(".")[0] for name in found} & HEAVY, f"{current} loads torch when it is imported"
        waiting |= (found & set(MODULES)) - reached


def test_no_file_is_named_like_a_library() -> None:
    libraries = set(sys.stdlib_module_names) | set(packages_distributions())
    assert not {part for name in MODULES for part in name.split(".")[1:]} & (libraries - {"data_prep", "recipes"})
