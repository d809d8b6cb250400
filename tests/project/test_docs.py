"""The documents show only commands that exist, with flags that exist, and figures that were measured."""

import dataclasses
import json
import os
import re
import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path
from statistics import median

import pytest
import yaml

from benchmarks import bench_report
from benchmarks.bench_operating_point import DEFAULT, as_table
from data_prep.files import PROJECT_ROOT
from recipes.machine.memory import predict_memory
from recipes.training.settings import RecipeArguments
from tests.recipes.machine.test_memory import CONFIG as SIZES_OF_THE_7B

DOCUMENTS = [
    PROJECT_ROOT / "README.md",
    PROJECT_ROOT / "benchmarks" / "README.md",
    PROJECT_ROOT / "tiny_base" / "weights" / "README.md",
]
SFT = "recipes/sft_qwen2vl.py"
NEEDS_A_GPU = {
    "benchmarks/bench_bases.py",
    "benchmarks/bench_infer.py",
    "benchmarks/bench_train.py",
    "tiny_base/pretrain.py",
}
# The demo's training nine times, and evaluations of six of its adapters; their parts have tests of their own.
TAKES_LONG = {"benchmarks/bench_demo.py", "benchmarks/bench_operating_point.py"}
# Run by test_app.py, test_examination.py, test_clip_audit.py, test_bench_*.py and test_demo.py.
OWN_TEST = {
    "recipes/app.py",
    "recipes/doctor.py",
    "benchmarks/bench_infer_cpu.py",
    "data_prep/audit.py",
    "benchmarks/project_card.py",
    "benchmarks/bench_damage.py",
    "benchmarks/bench_frames.py",
    "benchmarks/fuzz_clips.py",
    "benchmarks/bench_start.py",
    "benchmarks/bench_report.py",
}


def commands() -> list[str]:
    """Return every shell command of the documents: lines of bash blocks, and table cells that begin with one."""
    found = []
    for document in DOCUMENTS:
        text = document.read_text()
        blocks = re.findall(r"^[ ]*```bash\n(.*?)```", text, flags=re.DOTALL | re.MULTILINE)
        found += [line.strip() for block in blocks for line in block.splitlines() if line.strip()]
        found += re.findall(r"`((?:python|accelerate launch) [^`]+)`", text)
    return sorted(set(found))


@cache
def help_of(script: str) -> str:
    done = subprocess.run(
        [sys.executable, script, "--help"], cwd=PROJECT_ROOT, capture_output=True, text=True, check=True
    )
    return done.stdout


@cache
def demo_steps() -> str:
    """Return the commands of `make demo`, which another test runs."""
    command = ["make", "--dry-run", "demo", f"VENV={sys.prefix}"]
    done = subprocess.run(command, cwd=PROJECT_ROOT, capture_output=True, text=True, check=True)
    return done.stdout


def setting_names() -> set[str]:
    from trl import ModelConfig, SFTConfig

    return {field.name for part in (RecipeArguments, SFTConfig, ModelConfig) for field in dataclasses.fields(part)}


def check_script(words: list[str]) -> None:
    script, flags = words[0], [word.partition("=")[0] for word in words[1:] if word.startswith("--")]
    assert (PROJECT_ROOT / script).is_file()
    if script == SFT:
        assert {flag[2:] for flag in flags} <= setting_names() | {"config", "help"}
        configs = [words[index + 1] for index, word in enumerate(words) if word == "--config"]
        assert all((PROJECT_ROOT / config).is_file() for config in configs)
    else:
        known = set(re.findall(r"--[a-z][a-z0-9-]*", help_of(script)))
        assert set(flags) <= known
    assert script in NEEDS_A_GPU | TAKES_LONG | OWN_TEST or script in demo_steps(), f"no test runs {script}"


def check_pip(words: list[str]) -> None:
    """The options exist, and so do the files; the pins in them are resolved by tests/project/test_pins.py."""
    done = subprocess.run([sys.executable, "-m", "pip", words[1], "--help"], capture_output=True, text=True, check=True)
    for word, value in zip(words[2:], [*words[3:], ""], strict=True):
        if word.startswith("-"):
            assert re.search(rf"^  .*(?<!\S){word}(?![\w-])", done.stdout, flags=re.MULTILINE), word
        if word in ("-r", "-c") and value != "/dev/stdin":
            assert (PROJECT_ROOT / value).is_file()


@pytest.mark.parametrize("command", commands())
def test_command_exists_and_is_run_by_a_test(command: str) -> None:
    before, _, piped = command.rpartition(" | ")
    assert not before or before.startswith("ls data/frames/") or before == 'grep -v "^-e" requirements.txt'
    words = shlex.split(piped.replace("[", "").replace("]", ""))
    if words[0] == "python":
        check_script(words[1:])
    elif words[:2] == ["accelerate", "launch"]:
        script = words.index(SFT) if SFT in words else None
        launcher = words[2:script]
        assert set(launcher) <= {"--config_file", "accelerate_config.yaml", "--quiet"}
        if script is not None:
            check_script(words[script:])
    elif words[0] == "make":
        done = subprocess.run(["make", "--dry-run", *words[1:]], cwd=PROJECT_ROOT, capture_output=True, check=False)
        assert done.returncode == 0
    elif words[0] == "docker":
        compose = yaml.safe_load((PROJECT_ROOT / "docker-compose.yml").read_text())
        name = compose["services"]["vlm"]["container_name"]
        if words[2] == "--profile":
            assert words[3] in compose["services"][words[-1]]["profiles"]
        assert words[1:] in (
            ["compose", "up", "-d", "--build"],
            ["compose", "up", "-d", "--force-recreate"],
            ["exec", "-it", name, "bash"],
            ["compose", "--profile", "app", "up", "app"],
            ["compose", "--profile", "train", "up", "-d", "train"],
            ["compose", "--profile", "train", "logs", "-f", "train"],
            ["compose", "--profile", "train", "stop", "train"],
        )
    elif words[0] == "printf":
        assert command.endswith(">> .env")
    elif words[0] == "hf":
        assert (Path(sys.executable).parent / "hf").is_file()
        assert words[1:] == ["download", "Qwen/Qwen2-VL-7B-Instruct"]
    elif words[0] == "pip":
        check_pip(words)
    else:
        assert words in (
            ["source", ".venv/bin/activate"],
            ["python3", "-m", "venv", ".venv"],
            ["export", "HF_HOME=$PWD/cache/hf"],
        )


def test_documents_show_the_commands_that_matter() -> None:
    shown = "\n".join(commands())
    for step in ("make demo", "make test", "docker compose", SFT, "eval_qwen2vl.py", "infer.py", "extract_frames.py"):
        assert step in shown


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.parent.name)
def test_links_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", document.read_text()):
        assert (document.parent / target).exists(), target
    headings = {
        re.sub(r"[^a-z0-9 _-]", "", line.lstrip("# ").lower()).replace(" ", "-")
        for line in document.read_text().splitlines()
        if line.startswith("#")
    }
    assert set(re.findall(r"\]\(#([^)]+)\)", document.read_text())) <= headings


def test_compose_is_told_who_the_caller_is(tmp_path: Path) -> None:
    (command,) = [command for command in commands() if command.startswith("printf")]
    (tmp_path / ".env").write_text("CONFIG=recipes/configs/my_run.yaml\n")
    subprocess.run(["bash", "-c", command], cwd=tmp_path, check=True)
    told = f"CONFIG=recipes/configs/my_run.yaml\nUID={os.getuid()}\nGID={os.getgid()}\n"
    assert (tmp_path / ".env").read_text() == told
    assert {"UID", "GID"} <= set(re.findall(r"\$\{(\w+):-", (PROJECT_ROOT / "docker-compose.yml").read_text()))


def pip_command(start: str) -> str:
    (command,) = [command for command in commands() if start in command]
    return command


@pytest.fixture
def small_project(tmp_path: Path) -> Path:
    """The project with few requirements and no code, whose build is pinned to what isn't the newest."""
    project = tmp_path / "project"
    for package in ("data_prep", "recipes"):
        (project / package).mkdir(parents=True)
        (project / package / "__init__.py").touch()
    for name in ("pyproject.toml", "requirements-build.txt"):
        text = (PROJECT_ROOT / name).read_text()
        assert "hatchling==1.33.0" in text
        (project / name).write_text(text.replace("hatchling==1.33.0", "hatchling==1.32.4"))
    (project / "requirements.txt").write_text("idna==3.20\n-e .\n")
    (project / "requirements-app.txt").write_text("groovy==0.1.2\n")
    (project / "constraints.txt").touch()
    return project


def test_packages_to_carry_along_are_enough_to_install_from_without_an_index(small_project: Path) -> None:
    """The build's own needs included. pip would pack this folder, data and all, for requirements.txt's last line."""
    download = pip_command("pip download").replace("pip download", f"{sys.executable} -m pip download")
    done = subprocess.run(["bash", "-c", download], cwd=small_project, capture_output=True, text=True, check=False)
    if "No matching distribution found" in done.stderr:
        pytest.skip("no package registry can be reached: nothing to download")
    assert done.returncode == 0, done.stderr
    assert not any(path.name.startswith("safe") for path in (small_project / "wheels").iterdir())
    subprocess.run([sys.executable, "-m", "venv", ".venv"], cwd=small_project, check=True)
    python = small_project / ".venv" / "bin" / "python"
    install = pip_command("pip install --no-index").replace("pip install", f"{python} -m pip install")
    alone = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "PYTHONPATH"))}
    done = subprocess.run(
        ["bash", "-c", install],
        cwd=small_project,
        env={**alone, "PIP_CONFIG_FILE": os.devnull},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    listed = subprocess.run([python, "-m", "pip", "list"], env=alone, capture_output=True, text=True, check=True).stdout
    assert set(re.findall(r"^(groovy|idna|safe-unsafe) ", listed, re.MULTILINE)) == {"groovy", "idna", "safe-unsafe"}


def test_training_figures_are_those_of_the_run() -> None:
    arms = json.loads((PROJECT_ROOT / "benchmarks/results/train_7b_h100.json").read_text())["arms"]
    readme = DOCUMENTS[0].read_text()
    for name in ("8gb_capped", "6gb_capped"):
        run = arms[name]
        assert (run["status"], run["steps"]) == (0, 20)
        assert f"| {run['peak_allocated_gib']:.2f} / {run['peak_reserved_gib']:.2f} GiB |" in readme
        assert f"no more than {run['cap_gib']} GiB" in readme
    for name in ("8gb", "6gb"):
        one, four = (figures["peak_allocated_gib"] for figures in arms[name])
        assert f"| {one:.2f}, {four:.2f} GiB |" in readme
    stock = {figures["micro_batch"]: figures["frames_per_second"] for figures in arms["stock"]}
    for name in ("computed", "cached"):
        speed, share = arms["80gb"][name]["frames_per_second"], 100 * arms["80gb"][name]["share_of_matmul"]
        assert f"| {speed:.1f}, {share:.0f} %, {speed / stock[16]:.1f} |" in readme
    graphed = arms["80gb"]["computed_1_graph"]["frames_per_second"]
    assert f"| {graphed:.1f}, {graphed / stock[1]:.1f} |" in readme


def test_answering_figures_are_those_of_the_run() -> None:
    arms = json.loads((PROJECT_ROOT / "benchmarks/results/infer_7b_h100.json").read_text())["arms"]
    times = {
        (arm, row["what"], row["tokens"], row["batch"]): row["p50_ms"]
        for arm in ("stock", "small", "large")
        for row in arms[arm]["times"]
    }
    ways = (("small", "graph"), ("large", "graph"), ("large", "compiled graph"))
    readme = DOCUMENTS[0].read_text()
    for tokens in (480, 252):
        label = [times[arm, f"{way}, bytes to label", tokens, 1] for arm, way in ways]
        assert f"| {', '.join(f'{each:.1f}' for each in label)} ms |" in readme
    alone, stock = times["large", "compiled graph, model alone", 480, 1], times["stock", "generate", 480, 1]
    assert f"| {alone:.1f} ms; {stock:.1f} ms |" in readme
    rates = [32_000 / times["large", "compiled, model alone", tokens, 32] for tokens in (480, 252)]
    assert f"| {rates[0]:.1f}, {rates[1]:.1f} frames/s |" in readme
    assert f"| {arms['small']['peak_allocated_gib']:.2f} GiB; {arms['start']['again']:.1f} s |" in readme


def test_other_bases_figures_are_those_of_the_run() -> None:
    arms = json.loads((PROJECT_ROOT / "benchmarks/results/bases_2b_h100.json").read_text())["arms"]
    document = (PROJECT_ROOT / "benchmarks/README.md").read_text()
    rows = [run for arm in arms.values() for run in arm["runs"]]
    assert len(rows) == 7
    for row in rows:
        gib = f"{row['peak_allocated_gib']:.2f} | {row['predicted_gib']:.2f}"
        assert f"| {row['frames_at_once']} | {gib} |" in document, row["run"]
    assert set(arms["packed"]["p_unsafe_off"].values()) == {0.0}
    sizes = arms["packed"]["gigabytes"]
    assert f"{sizes['2b_in_4_bits']:.2f} GB of disk instead of {sizes['2b']:.2f}" in document


def test_p_s_distances_are_those_of_the_run() -> None:
    found = json.loads((PROJECT_ROOT / "benchmarks/results/infer_7b_h100.json").read_text())["arms"]["equality"]
    document = (PROJECT_ROOT / "benchmarks/README.md").read_text()
    for way in ("plain, bf16", "4-bit, graph", "merged, graph", "merged, compiled graph"):
        assert f"| {found[way]['max']:.3f} | {found[way]['median']:.4f} |" in document, way
    for way in ("4-bit", "merged"):
        each = [found[f"{way}, batches of {size}"] for size in (1, 2, 4, 8, 16, 32, 64)]
        largest, middle = ([row[figure] for row in each] for figure in ("max", "median"))
        bounds = f"{min(largest):.3f} to {max(largest):.3f} | {min(middle):.4f} to {max(middle):.4f}"
        assert f"| {bounds} |" in document, way


def test_small_model_s_figures_are_those_of_the_benchmark() -> None:
    results = json.loads((PROJECT_ROOT / "benchmarks/results/infer_small_two_cores.json").read_text())
    ours, command = results["ours"], sorted(results["command_seconds"])[1]
    assert f"| {ours['first_ms']:.0f}, {ours['p50_ms']:.0f} ms; {command:.1f} s |" in DOCUMENTS[0].read_text()


def test_frames_figures_are_those_of_the_benchmark() -> None:
    results = json.loads((PROJECT_ROOT / "benchmarks/results/frames_two_cores.json").read_text())
    cpu = {(each["arm"], each["gop"]): each["cpu_seconds_a_clip"] for each in results["arms"]}
    ratios = ", ".join(f"1/{cpu['ffmpeg', gop] / cpu['ours', gop]:.1f}" for gop in (25, 50, 250))
    assert f"| {ratios} |" in DOCUMENTS[0].read_text()


def test_damage_figures_are_those_of_the_benchmark() -> None:
    results = json.loads((PROJECT_ROOT / "benchmarks/results/damage_two_cores.json").read_text())
    cells: dict[str, list[str]] = {}
    for row in results["rows"]:
        before, now = (row["noticed"][version]["altered"] for version in ("before", "now"))
        cells.setdefault(row["kind"], []).append(f"{row['altered']}: {before} → {now}")
    text = (PROJECT_ROOT / "benchmarks/README.md").read_text()
    for kind, each in cells.items():
        if len(each) == 4:
            assert f"| {kind} | {' | '.join(each)} |" in text


def test_start_figures_are_those_of_the_benchmark() -> None:
    results = json.loads((PROJECT_ROOT / "benchmarks/results/start_two_cores.json").read_text())
    before, now = ([start["total_seconds"] for start in results[name]] for name in ("starts_at_9264ce6", "starts"))
    row = f"| total | {median(before):.1f} | {now[0]:.1f} | {median(now[1:]):.1f} |"
    assert row in DOCUMENTS[1].read_text()
    assert max(now) < 30


@pytest.mark.parametrize("recipe", ["8gb", "6gb"])
def test_predicted_figures_are_those_of_the_prediction(recipe: str) -> None:
    settings = yaml.safe_load((PROJECT_ROOT / f"recipes/configs/qwen2vl_7b_{recipe}.yaml").read_text())
    peaks = [
        predict_memory({**settings, "per_device_train_batch_size": frames}, SIZES_OF_THE_7B).card_gib
        for frames in (1, 2, 4, 8)
    ]
    row = f"| {recipe[0]} GB recipe, GiB | " + " | ".join(f"{peak:.2f}" for peak in peaks) + " |"
    assert row in DOCUMENTS[0].read_text()


def test_demo_figures_are_those_of_the_benchmark() -> None:
    results = json.loads((PROJECT_ROOT / "benchmarks/results/demo_two_cores.json").read_text())
    arms, baselines = results["summary"]["arms"], results["runs"][0]["baselines"]
    assert results["recipe_arm"] == "weighted" and results["seeds"] == [0, 1, 2]

    def cell(arm: str, figure: str) -> str:
        values = arms[arm][figure]
        return f"{values['median']:.3f} ({', '.join(f'{value:.3f}' for value in values['by_seed'].values())})"

    learned = {
        "weighted": "the adapter, labels balanced",
        "unweighted": "the adapter, labels as they are",
        "shuffled": "control: trained on shuffled labels",
    }
    rows = [f"| {learned[arm]} | {cell(arm, 'frame_macro_f1')} | {cell(arm, 'clip_macro_f1')} |" for arm in learned]
    for name, baseline in (("the base without an adapter", "base_model"), ("always UNSAFE", "always_unsafe")):
        figures = baselines[baseline]
        rows.append(f"| {name} | {figures['frame']['macro_f1']:.3f} | {figures['clip']['macro_f1']:.3f} |")
    readme = DOCUMENTS[0].read_text()
    assert "\n".join(rows) in readme
    assert f"balanced accuracy {baselines['base_model']['frame']['balanced_accuracy']:.3f}" in readme


def test_operating_points_are_those_of_the_benchmark() -> None:
    results = json.loads((PROJECT_ROOT / "benchmarks/results/operating_point_two_cores.json").read_text())
    assert results["seeds"] == [0, 1, 2]
    assert as_table(results["ways"]) in DOCUMENTS[1].read_text()
    best = max(results["ways"], key=lambda way: way["frame"]["macro_f1"]["mean"])
    assert best["name"] == DEFAULT.name, "the recipes' default is what wins"


def test_report_s_figures_are_those_of_the_benchmark() -> None:
    results = json.loads((PROJECT_ROOT / "benchmarks/results/report_two_cores.json").read_text())
    assert bench_report.as_table(results) in DOCUMENTS[1].read_text()
    arms = {(arm["what"], arm["version"], arm["frames"]): arm for arm in results["arms"]}
    report, probe = arms["report", "now", 100_000], arms["probe", "now", 500_000]
    assert report["whole_seconds"]["most"] < 60 and report["peak_gb"] < 2
    assert probe["peak_gb"] < 4
    for arm in (report, probe):
        assert f"| {arm['whole_seconds']['median']:.0f} s; {arm['peak_gb']:.1f} GB |" in DOCUMENTS[0].read_text()


def test_nothing_in_the_tree_names_a_machine() -> None:
    done = subprocess.run(["git", "ls-files"], cwd=PROJECT_ROOT, capture_output=True, text=True, check=True)
    for name in done.stdout.split("\n"):
        path = PROJECT_ROOT / name
        if path.is_file() and path.suffix in (".py", ".md", ".yaml", ".yml", ".toml", ".txt", ".json", ""):
            assert str(PROJECT_ROOT) + "/" not in path.read_text(errors="replace"), name
