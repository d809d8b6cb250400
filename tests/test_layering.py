"""Imports go one way: labels at the bottom, scripts at the top; no script is imported but by its tests."""

import ast
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from data_prep.files import PROJECT_ROOT

# Lower first. A module imports from the layers before its own, or from its own where that is one topic.
LAYERS = [
    {"data_prep.places"},
    {"data_prep.disk_errors"},
    {"data_prep.errors"},
    {
        "data_prep.bit_reader",
        "data_prep.coded_picture",
        "data_prep.files",
        "data_prep.foreign_files",
        "data_prep.frame_format",
        "data_prep.labels",
        "data_prep.litter",
        "data_prep.mp4_boxes",
        "data_prep.nal_units",
        "data_prep.plain_paths",
        "data_prep.workers",
    },
    {"data_prep.edit_lists", "data_prep.mp4_fragments", "data_prep.parameter_sets"},
    {"data_prep.mp4_opening"},
    {
        "data_prep.av1",
        "data_prep.av1_headers",
        "data_prep.h264",
        "data_prep.h264_headers",
        "data_prep.h264_numbers",
        "data_prep.hevc",
        "data_prep.hevc_headers",
        "data_prep.mpeg4",
    },
    {"data_prep.pictures", "data_prep.timeline"},
    {"data_prep.survey"},
    {"data_prep.images", "data_prep.clips", "data_prep.rows", "data_prep.demo_scenes"},
    {"data_prep.pixels"},
    {"data_prep.video"},
    {
        "data_prep.audit_in_words",
        "data_prep.clip_audit",
        "data_prep.clip_names",
        "data_prep.demo_renderer",
        "data_prep.frames_dataset",
        "data_prep.lookalikes",
        "data_prep.parquet_files",
    },
    {"data_prep.hub_cache"},
    {"data_prep.frames_source", "data_prep.old_versions"},
    {
        "data_prep.make_demo_clips",
        "data_prep.extract_frames",
        "data_prep.audit",
        "data_prep.build_jsonl",
        "data_prep.push_dataset",
    },
    {
        "recipes.base_files",
        "recipes.base_model",
        "recipes.checkpoints",
        "recipes.cuda_graphs",
        "recipes.divergence",
        "recipes.fit",
        "recipes.forward",
        "recipes.host_system",
        "recipes.joined_linears",
        "recipes.library_messages",
        "recipes.library_settings",
        "recipes.lora_linear",
        "recipes.metrics",
        "recipes.operating_point",
        "recipes.prior_shift",
        "recipes.signals",
        "recipes.stored_features",
        "recipes.training_plot",
    },
    {
        "recipes.comparison",
        "recipes.intervals",
        "recipes.joined_lora",
        "recipes.judged",
        "recipes.safety_record",
        "recipes.collator",
    },
    {"recipes.run_settings", "recipes.training_checks"},
    {"recipes.adapter_files", "recipes.host_memory"},
    {"recipes.linear_probe", "recipes.modeling", "recipes.report_plots", "recipes.room"},
    {
        "recipes.report",
        "recipes.run_folder",
        "recipes.command_line",
        "recipes.scoring",
        "recipes.model_card",
        "recipes.vision_cache",
    },
    {"recipes.adapted_model", "recipes.checkup", "recipes.report_page", "recipes.trainer"},
    {"recipes.finishing"},
    {"recipes.answer_page"},
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
    for path in sorted((PROJECT_ROOT / folder).glob("*.py"))
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
    assert not {name.split(".")[1] for name in MODULES} & (libraries - {"data_prep", "recipes"})
