"""The figures in the documents are those that were measured, or are predicted."""

import json
from collections.abc import Iterator
from statistics import mean, median
from typing import Any

import pytest

from benchmarks import bench_report
from benchmarks.bench_operating_point import DEFAULT, as_table
from benchmarks.bench_ranks import as_table as as_table_of_ranks
from benchmarks.bench_ranks import wire_line
from benchmarks.measuring import doubt_tables
from benchmarks.measuring.recipe_arguments import fixed_settings
from data_prep.disk.byte_counts import GIB
from data_prep.files import PROJECT_ROOT
from recipes.machine.cards import CARDS
from recipes.machine.elsewhere import CONTEXT_GIB, HOST_GIB, HOST_SHARE
from recipes.machine.memory import predict_memory
from recipes.machine.plan import Machine
from recipes.machine.planner import plan_run
from recipes.metrics.doubt import STATISTICS
from recipes.training.command_line import read_settings
from tests.project.documents import BENCHMARKS, README
from tests.recipes.machine.test_memory import CONFIG as SIZES_OF_THE_7B
from tests.recipes.machine.test_memory import CONFIG_2B as SIZES_OF_THE_2B

NOT_MEASURED = "\N{EN DASH}"


def results_of(name: str) -> dict[str, Any]:
    results: dict[str, Any] = json.loads((PROJECT_ROOT / f"benchmarks/results/{name}.json").read_text())
    return results


def doc(name: str) -> str:
    return (PROJECT_ROOT / f"docs/{name}.md").read_text()


def in_a_line(text: str) -> str:
    return " ".join(text.split())


def in_gib(run: dict[str, Any]) -> str:
    allocated = run["peak_allocated_gib"]
    return f"{NOT_MEASURED if allocated is None else f'{allocated:.2f}'} / {run['peak_reserved_gib']:.2f}"


def training_rows(arms: dict[str, Any]) -> Iterator[str]:
    stock = {run["micro_batch"]: run["frames_per_second"] for run in arms["stock"]}
    large = arms["80gb"]
    named = [
        *(("TRL's own set-up", run) for run in arms["stock"]),
        ("80 GB recipe", large["computed"]),
        ("the same, one batch over and over", large["computed_fixed_batch"]),
        ("the same, vision features kept", large["cached"]),
        ("80 GB recipe", large["computed_1"]),
        ("the same, `cuda_graphs: true`", large["computed_1_graph"]),
        ("the same, vision features kept as well", large["cached_1_graph"]),
        *(("8 GB recipe", run) for run in arms["8gb"]),
        *(("6 GB recipe, vision features kept", run) for run in arms["6gb"]),
    ]
    for name, run in named:
        least, most = run["frames_per_second_range"]
        speed, frames = run["frames_per_second"], run["micro_batch"]
        times = f"{speed / stock[frames]:.1f}" if run in large.values() else NOT_MEASURED
        yield f"| {name} | {frames} | {speed:.1f} ({least:.1f} to {most:.1f}) | {times} | {in_gib(run)} |"


def test_training_figures_are_those_of_the_run() -> None:
    arms, document = results_of("train_7b_h100")["arms"], BENCHMARKS.read_text()
    assert "\n".join(training_rows(arms)) in document
    for size in (8, 6):
        run = arms[f"{size}gb_capped"]
        assert (run["status"], run["steps"]) == (0, 20)
        assert f"| {size} GB recipe | {run['micro_batch']} | {run['cap_gib']} | {in_gib(run)} |" in document
    shares = [100 * arms["80gb"][name]["share_of_matmul"] for name in ("computed", "cached")]
    assert f"executes {shares[0]:.0f} % of that, {shares[1]:.0f} % with features kept" in in_a_line(document)


def test_training_figures_of_the_readme_are_those_of_the_run() -> None:
    arms, readme = results_of("train_7b_h100")["arms"], README.read_text()
    speed = arms["80gb"]["computed"]["frames_per_second"]
    (stock,) = [run["frames_per_second"] for run in arms["stock"] if run["micro_batch"] == 16]
    assert f"| {speed:.1f}, {speed / stock:.1f} |" in readme


WAYS = {
    "4 bits, adapter on": ("small", "eager"),
    "4 bits, adapter on, as a CUDA graph": ("small", "graph"),
    "merged, bf16": ("large", "eager"),
    "merged, as a graph: infer.py where there is room": ("large", "graph"),
    "merged, compiled, as a graph: `--compile`": ("large", "compiled graph"),
}
BATCHES = {
    "4 bits, adapter on": ("small", "eager"),
    "merged": ("large", "eager"),
    "merged, compiled": ("large", "compiled"),
}


def test_answering_figures_are_those_of_the_run() -> None:
    arms, document = results_of("infer_7b_h100")["arms"], BENCHMARKS.read_text()
    times = {
        (arm, row["what"], row["tokens"], row["batch"]): row
        for arm in ("stock", "small", "large")
        for row in arms[arm]["times"]
    }

    def cell(*of: Any) -> str:
        return f"{times[of]['p50_ms']:.1f} ({times[of]['p95_ms']:.0f})"

    stock = [cell("stock", what, 480, 1) for what in ("generate", "generate, bytes to answer")]
    cells = [*stock, NOT_MEASURED, NOT_MEASURED]
    assert f"| `generate`, the answer and the end of turn | {' | '.join(cells)} |" in document
    assert f"| `generate`, one token | {cell('stock', 'generate, one token', 480, 1)} |" in document
    for name, (arm, way) in WAYS.items():
        cells = [cell(arm, f"{way}, {to}", size, 1) for size in (480, 252) for to in ("model alone", "bytes to label")]
        assert f"| {name} | {' | '.join(cells)} |" in document, name
    for name, (arm, way) in BATCHES.items():
        rates = [32_000 / times[arm, f"{way}, model alone", size, 32]["p50_ms"] for size in (480, 252)]
        assert f"| {name} | {rates[0]:.1f} | {rates[1]:.1f} |" in document, name
    assert f"| 4 bits, embedding and LM head on the host | {in_gib(arms['small'])} |" in document
    assert f"to its end with one frame: {arms['start']['again']:.1f} s on a warm disk" in in_a_line(document)
    label = [times[arm, "graph, bytes to label", 480, 1]["p50_ms"] for arm in ("small", "large")]
    assert f"in 4 bits, merged | {label[0]:.1f}, {label[1]:.1f} ms |" in README.read_text()


RUNS_OF_THE_2B: dict[str, tuple[str, dict[str, Any]]] = {
    "2B, 6gb": ("6gb", {}),
    "2B, 6gb, features kept": ("6gb", {}),
    "2B, 8gb": ("8gb", {}),
    "embedding on the host, head on the card": ("8gb", {"head_on_host": False}),
    "head on the host, embedding on the card": ("8gb", {"embedding_on_host": False}),
    "2B, 80gb": ("80gb", {}),
    "2B in 4 bits, 8gb": ("8gb", {}),
}


def predicted_of_the_2b(run: dict[str, Any]) -> float:
    """Return the GiB that a whole run is predicted to take; features that were kept before aren't computed."""
    recipe, changed = RUNS_OF_THE_2B[run["run"]]
    at_once = {"per_device_train_batch_size": run["frames_at_once"], "per_device_eval_batch_size": 4}
    need = predict_memory({**fixed_settings(recipe), **at_once, **changed}, SIZES_OF_THE_2B)
    return need.training_gib if "kept" in run["run"] else need.card_gib


def test_other_bases_figures_are_those_of_the_run() -> None:
    arms = results_of("bases_2b_h100")["arms"]
    document = BENCHMARKS.read_text()
    rows = [run for arm in arms.values() for run in arm["runs"]]
    assert len(rows) == 7
    for row in rows:
        gib = f"{row['peak_allocated_gib']:.2f} | {predicted_of_the_2b(row):.2f}"
        assert f"| {row['frames_at_once']} | {gib} |" in document, row["run"]
    assert set(arms["packed"]["p_unsafe_off"].values()) == {0.0}
    sizes = arms["packed"]["gigabytes"]
    assert f"{sizes['2b_in_4_bits']:.2f} GB of disk instead of {sizes['2b']:.2f}" in document


def test_p_s_distances_are_those_of_the_run() -> None:
    found = results_of("infer_7b_h100")["arms"]["equality"]
    document = BENCHMARKS.read_text()
    for way in ("plain, bf16", "4-bit, graph", "merged, graph", "merged, compiled graph"):
        assert f"| {found[way]['max']:.3f} | {found[way]['median']:.4f} |" in document, way
    for way in ("4-bit", "merged"):
        each = [found[f"{way}, batches of {size}"] for size in (1, 2, 4, 8, 16, 32, 64)]
        largest, middle = ([row[figure] for row in each] for figure in ("max", "median"))
        bounds = f"{min(largest):.3f} to {max(largest):.3f} | {min(middle):.4f} to {max(middle):.4f}"
        assert f"| {bounds} |" in document, way


def test_small_model_s_figures_are_those_of_the_benchmark() -> None:
    results, document = results_of("infer_small_two_cores"), BENCHMARKS.read_text()
    for name, ours in (("ours", "ours"), ("stock `generate`", "generate")):
        first, p50, p95 = (results[ours][figure] for figure in ("first_ms", "p50_ms", "p95_ms"))
        assert f"| {name} | {first:.0f} | {p50:.0f} | {p95:.0f} |" in document
    least, middle, most = sorted(results["command_seconds"])
    assert f"takes {middle:.1f} s from start to end ({least:.1f} to {most:.1f})" in in_a_line(document)
    assert results["other_answers"] == 0 and "No frame is answered otherwise." in document


EXPORTS = {
    "demo": ("export_two_cores", "the demo's"),
    "small": ("export_two_cores", "a few layers"),
    "2b": ("export_two_cores", "the 2B's shape"),
    "7b": ("export_two_cores", "the 7B, full size"),
    "7b, H100": ("export_7b_h100", "the same on an H100"),
    "7b, H200": ("export_7b_h200", "the same on an H200"),
}
ASKED = ("infer, adapter", "transformers 5.23.0", "transformers 4.57.6", "llama.cpp")


@pytest.mark.parametrize("name", EXPORTS)
def test_exports_figures_are_those_of_the_benchmark(name: str) -> None:
    results, what = EXPORTS[name]
    report, document = results_of(results)[name.partition(",")[0]], BENCHMARKS.read_text()
    seconds, peak = (median(each[figure] for each in report["exports"]) for figure in ("seconds", "peak_gib"))
    away = report["largest_difference"]
    cells = [f"{away[way]['p_unsafe']:.0e}" if way in away else NOT_MEASURED for way in ASKED]
    row = f"| {what} | {report['frames']} | {seconds:.0f} | {peak:.2f} | {' | '.join(cells)} |"
    assert row.replace("e-0", "e-") in document
    assert report["differing_from_base"] == []
    if name in ("demo", "small"):  # in fp32
        assert {way: found["labels"] for way, found in away.items()} == dict.fromkeys(away, 0)
    else:
        assert max(found["p_unsafe"] for found in away.values()) < 0.03
    for each in report["exports"]:
        if "own_gib" in each and name.startswith("7b"):
            assert each["own_gib"] < 4 and f"{each['own_gib']:.2f} GiB were of no file" in in_a_line(document)


FRAMES_ARMS = {
    "ours": "`extract_frames.py`",
    "ffmpeg": "ffmpeg command, `fps=1`",
    "opencv": "OpenCV, grab and retrieve",
    "pyav": "PyAV, every frame decoded",
    "torchcodec": "torchcodec, frames at full seconds",
}


def test_frames_figures_are_those_of_the_benchmark() -> None:
    results, document = results_of("frames_two_cores"), BENCHMARKS.read_text()
    arms = {(each["arm"], each["gop"]): each for each in results["arms"]}
    for arm, name in FRAMES_ARMS.items():
        cells = []
        for figure, digits in (("cpu_seconds_a_clip", 2), ("wall_seconds", 1)):
            for gop in (25, 50, 250):
                ours, seconds = arms["ours", gop][figure], arms[arm, gop][figure]
                cells.append(f"{seconds:.{digits}f} ({seconds / ours:.1f})")
        assert f"| {name} | {' | '.join(cells)} |" in document


def test_damage_figures_are_those_of_the_benchmark() -> None:
    results = results_of("damage_two_cores")
    cells: dict[str, list[str]] = {}
    for row in results["rows"]:
        before, now = (row["noticed"][version]["altered"] for version in ("before", "now"))
        cells.setdefault(row["kind"], []).append(f"{row['altered']}: {before} → {now}")
    text = BENCHMARKS.read_text()
    for kind, each in cells.items():
        if len(each) == 4:
            assert f"| {kind} | {' | '.join(each)} |" in text


def test_start_figures_are_those_of_the_benchmark() -> None:
    results = results_of("start_two_cores")
    before, now = ([start["total_seconds"] for start in results[name]] for name in ("starts_at_9264ce6", "starts"))
    row = f"| total | {median(before):.1f} | {now[0]:.1f} | {median(now[1:]):.1f} |"
    assert row in BENCHMARKS.read_text()
    assert max(now) < 30


def test_processes_figures_are_those_of_the_benchmark() -> None:
    processes = results_of("ranks_small_two_cores")["processes"]
    one, two = processes["1"], processes["2"]
    rates = {
        "training, 16 frames a process an update, frames/s of a process": "each",
        "training, 16 frames an update in all, frames/s of a process": "in_all",
        "scoring 160 frames together, frames/s": "scoring",
    }
    for words, name in rates.items():
        row = f"| {words} | {one[name]['frames_per_second']:.2f} | {two[name]['frames_per_second']:.2f} |"
        assert row in BENCHMARKS.read_text()
    sent = f"counted on loopback | 0.00 | {two['sum']['sent_bytes_a_process'] / 1e6:.2f} |"
    assert sent in BENCHMARKS.read_text()
    assert f"| {NOT_MEASURED} | {two['sending_error']:.1e} |" in BENCHMARKS.read_text()
    assert f"a sum over two is {two['sending_error']:.1%} off".replace("%", " %") in in_a_line(doc("machines"))
    assert wire_line() in as_table_of_ranks({"processes": processes})
    assert "6.6 s" in wire_line() and "91% of their speed, 83% where" in wire_line()


def test_cards_figures_are_those_of_the_benchmark() -> None:
    processes, text = results_of("ranks_7b_h200")["processes"], BENCHMARKS.read_text()
    one = processes["1"]["each"]["frames_per_second"]

    def row(words: str, name: str) -> str:
        rates = [processes[count].get(name, {}).get("frames_per_second") for count in ("1", "2", "4")]
        shares = [
            f" ({rate / one:.1%})".replace("%", " %") if rate and number else "" for number, rate in enumerate(rates)
        ]
        cells = [f"{rate:.2f}{share}" if rate else NOT_MEASURED for rate, share in zip(rates, shares, strict=True)]
        return f"| {words} | {' | '.join(cells)} |"

    assert row("training, 16 frames a process an update, frames/s of a process", "each") in text
    assert row("training, 16 frames an update in all, frames/s of a process", "in_all") in text
    assert row("the same, `cuda_graphs: true`", "in_all_graph") in text
    scored = [processes[count]["scoring"]["frames_per_second"] for count in ("1", "2", "4")]
    times = " | ".join(f"{rate:.2f} ({rate / scored[0]:.2f} times)" for rate in scored[1:])
    assert f"| scoring 2,000 frames together, frames/s | {scored[0]:.2f} | {times} |" in text
    by_itself = [processes[count]["alone_at_once"] for count in ("2", "4")]
    ranges = " | ".join(f"{min(rates):.2f} to {max(rates):.2f}" for rates in by_itself)
    assert f"| the same, each by itself at once | {NOT_MEASURED} | {ranges} |" in text
    graphs = " and ".join(f"{processes[count]['in_all_graph']['frames_per_second'] / one:.0%}" for count in ("2", "4"))
    assert f"at 16 in all {graphs.replace('%', '', 1).replace('%', ' %')}" in in_a_line(doc("machines"))


@pytest.mark.parametrize("cap", ["7.2", "1.6"])
def test_whole_runs_by_plans_took_what_is_said(cap: str) -> None:
    run, text = results_of("runs_by_plan_h200")["arms"][f"whole_{cap}"], BENCHMARKS.read_text()
    plan = run["trained"]["plan"]
    cells = [
        cap,
        plan["per_device_train_batch_size"],
        recomputed_of(plan),
        plan["layers_on_host"],
        in_gib(run["trained"]),
    ]
    assert f"| training, from start to linear probe | {' | '.join(map(str, cells))} |" in text
    assert f"| its report | {cap} | | | | {in_gib(run['evaluated'])} |" in text
    assert {"adapter_model.safetensors", "linear_probe.safetensors", "training.png"} <= set(run["trained"]["written"])


def test_demo_figures_are_those_of_the_benchmark() -> None:
    results = results_of("demo_two_cores")
    arms, baselines = results["summary"]["arms"], results["runs"][0]["baselines"]
    assert results["recipe_arm"] == "weighted" and results["seeds"] == [0, 1, 2]
    rows = []
    for name in ("frame_macro_f1", "clip_macro_f1", "frame_balanced_accuracy", "clip_balanced_accuracy"):
        cells = []
        for arm in ("weighted", "unweighted", "shuffled"):
            values = [f"{value:.3f}" for value in arms[arm][name]["by_seed"].values()]
            cells.append(f"{arms[arm][name]['median']:.3f} ({', '.join(values)})")
        unit, _, figure = name.partition("_")
        cells += [f"{baselines[other][unit][figure]:.3f}" for other in ("base_model", "always_unsafe")]
        rows.append(f"| {name.replace('_', ' ').replace('macro f1', 'macro-F1')} | {' | '.join(cells)} |")
    seconds = [arms[arm]["wall_seconds"]["by_seed"].values() for arm in ("weighted", "unweighted", "shuffled")]
    cells = [*(", ".join(f"{value:.0f}" for value in each) for each in seconds), NOT_MEASURED, NOT_MEASURED]
    rows.append(f"| training command, s | {' | '.join(cells)} |")
    assert "\n".join(rows) in BENCHMARKS.read_text()


def test_demo_figures_elsewhere_are_those_of_the_benchmark() -> None:
    results = results_of("demo_two_cores")
    frames, clips = (results["summary"]["arms"]["weighted"][name] for name in ("frame_macro_f1", "clip_macro_f1"))
    base = results["runs"][0]["baselines"]["base_model"]["frame"]["macro_f1"]
    probe = "A linear probe on the same tower has a frame macro-F1 of 0.668 (95 % interval 0.540 to 0.781)"
    assert probe in in_a_line(BENCHMARKS.read_text())
    assert f"| {frames['median']:.3f}, {clips['median']:.3f}; {base:.3f}, 0.668 |" in README.read_text()
    seed_0 = f"a macro-F1 of {frames['by_seed']['0']:.3f} on frames and {clips['by_seed']['0']:.3f} on clips"
    assert seed_0 in in_a_line(doc("evaluation"))


def test_operating_points_are_those_of_the_benchmark() -> None:
    results = results_of("operating_point_two_cores")
    assert results["seeds"] == [0, 1, 2]
    assert as_table(results["ways"]) in BENCHMARKS.read_text()
    best = max(results["ways"], key=lambda way: way["frame"]["macro_f1"]["mean"])
    assert best["name"] == DEFAULT.name, "the recipes' default is what wins"


def test_service_s_rates_are_those_of_the_benchmark() -> None:
    document = BENCHMARKS.read_text()
    for row in results_of("serve_small_two_cores")["rates"]:
        least, _, most = (100 * share for share in row["shares"])
        cells = [
            f"{row['clients']} | {row['frames_per_second']:.2f} | {row['own_calls']:.2f}",
            f"{100 * row['share']:.1f} % ({least:.0f} to {most:.0f})",
            f"{row['p50_ms']:.0f}, {row['p95_ms']:.0f} | {row['frames_a_batch']:.1f}",
        ]
        assert f"| {' | '.join(cells)} |" in document
        assert row["other_labels"] == 0 and row["largest_difference"] < 1.45e-6
    first, second, third = (100 * row["share"] for row in results_of("serve_small_two_cores")["another_run"])
    assert f"another whole run gave {first:.1f}, {second:.1f} and {third:.1f} %" in in_a_line(document)


def test_service_of_the_7b_was_as_fast_as_is_said() -> None:
    (row,), document = results_of("serve_7b_h100")["rates"], in_a_line(BENCHMARKS.read_text())
    least, _, most = (100 * share for share in row["shares"])
    assert (
        f"{row['clients']} clients got {row['frames_per_second']:.1f} frames/s, {100 * row['share']:.1f} % "
        f"({least:.0f} to {most:.0f}) of what one process reaches"
    ) in document
    assert (
        f"p50 {row['p50_ms']:.0f} ms and p95 {row['p95_ms']:.0f}, in batches of {row['frames_a_batch']:.1f}" in document
    )
    assert row["other_labels"] == 0 and row["largest_difference"] < 0.0375


def test_mixture_of_requests_ended_as_it_is_told() -> None:
    results, document = results_of("serve_small_two_cores")["soak"], in_a_line(BENCHMARKS.read_text())
    assert results["requests"] == sum(service["sent"] for service in results["services"]) == 10_000
    for service in results["services"]:
        assert (service["wrong"], service["status"]) == ([], 0)
        counts = service["outcomes"]
        answered = counts["good: 200"] + 2 * counts["several: 200"]
        assert service["last_line"].startswith(f"{answered} answered, ")
        assert f"{service['sent']:,} requests, {answered:,} frames answered" in document
        level = service["resident_mb"][len(service["resident_mb"]) // 4 :]
        middle, most = sorted(level)[len(level) // 2], max(level)
        assert f"{min(level):,.0f} MB, {middle:,.0f} in the middle, {most:,.0f} at most" in document


def test_doubts_are_found_as_the_benchmark_says() -> None:
    results = results_of("doubts_two_cores")
    document, summary = BENCHMARKS.read_text(), results["summary"]
    assert doubt_tables.as_table(summary) in document
    assert f"takes {100 * results['cost']['share']:.3f} % of a training step" in in_a_line(document)
    first = next(iter(STATISTICS))
    found = {arm: mean(summary["rankings"][arm][first].values()) for arm in ("flipped_20", "late")}
    assert f"late clips' hidden seconds | {found['flipped_20']:.2f}, {found['late']:.2f} |" in README.read_text()


def test_report_s_figures_are_those_of_the_benchmark() -> None:
    results = results_of("report_two_cores")
    assert bench_report.as_table(results) in BENCHMARKS.read_text()
    arms = {(arm["what"], arm["version"], arm["frames"]): arm for arm in results["arms"]}
    report, probe = arms["report", "now", 100_000], arms["probe", "now", 500_000]
    assert report["whole_seconds"]["most"] < 60 and report["peak_gb"] < 2
    assert probe["peak_gb"] < 4


SMALL_CARD_ROWS = {
    "8 GB recipe": ("speed_computed", "all"),
    "8 GB recipe, all layers on the host": ("speed_computed_streamed", "all"),
    "6 GB recipe, features kept": ("speed_kept", "all"),
}
SAME_ROWS = [
    ("all layers on the host", "speed_kept_streamed", "all"),
    ("14 layers recomputed", "speed_kept_streamed", "14"),
    ("all layers on the host in 16 bits", "sixteen_bits_part", "all"),
]


def cells_of(arm: dict[str, Any], recomputed: str, figure: str) -> str:
    """Return the cells of a row of 1, 2, 3, 4 and 8 frames at once, to two places."""
    found = {row["micro_batch"]: row[figure] for row in arm["rows"] if row["recomputed"] == recomputed}
    return " | ".join(f"{found[frames]:.2f}" if frames in found else NOT_MEASURED for frames in (1, 2, 3, 4, 8))


@pytest.mark.parametrize("figure", ["seconds_a_frame", "peak_allocated_gib"])
def test_small_card_s_figures_are_those_of_the_benchmark(figure: str) -> None:
    arms, document = results_of("small_card_7b_h100")["arms"], BENCHMARKS.read_text()
    for name, (arm, recomputed) in SMALL_CARD_ROWS.items():
        assert f"| {name} | {cells_of(arms[arm], recomputed, figure)} |" in document
    for name, arm, recomputed in SAME_ROWS:
        assert f"| the same, {name} | {cells_of(arms[arm], recomputed, figure)} |" in document
    for arm in ("speed_computed_streamed", "speed_kept_streamed"):
        assert f"| the same, nothing recomputed | {cells_of(arms[arm], '0', figure)} |" in document


RECIPE_UNDER_CAP = {
    "1.0": "2 GB recipe, validating 2 frames at once",
    "1.6": "2 GB recipe",
    "3.2": "4 GB recipe",
    "5.2": "6 GB recipe",
    "7.2": "8 GB recipe",
}


def test_peaks_under_caps_are_those_of_the_benchmark() -> None:
    arms, document = results_of("small_card_7b_h100")["arms"], BENCHMARKS.read_text()
    for cap, recipe in RECIPE_UNDER_CAP.items():
        run, answered = arms[f"capped_{cap}"], arms[f"answered_{cap}"]
        assert (run["status"], run["steps"], answered["frames"]) == (0, 20, 2)
        assert f"| {recipe} | {run['micro_batch']} | {cap} | {in_gib(run)} |" in document
        assert f" | {cap} | {in_gib(answered)} |" in document


PLANS = {
    "planned_7.2_computed": "8, half the bus",
    "planned_7.2": "8, half the bus",
    "planned_5.2": "8, half the bus",
    "planned_3.2": "8, half the bus",
    "planned_1.6": "8, half the bus",
    "planned_32_7.2": "32",
    "planned_32_15.2": "32",
    "planned_2b": "8, half the bus; the 2B",
}


def recomputed_of(plan: dict[str, Any]) -> str:
    return plan["recomputed_layers"] if plan["activation_checkpointing"] else "0"


def planned_row(what: str, run: dict[str, Any]) -> str:
    plan, (least, most) = run["plan"], run["seconds_range"]
    cells = [
        what,
        run["cap_gib"] or NOT_MEASURED,
        "kept" if plan["cache_vision_features"] else "computed",
        plan["per_device_train_batch_size"],
        recomputed_of(plan),
        plan["layers_on_host"],
        f"{run['seconds_a_frame']:.3f} ({least:.3f} to {most:.3f})",
        f"{run['predicted_seconds']:.3f}",
        in_gib(run),
        f"{run['predicted_gib']:.2f}",
    ]
    return f"| {' | '.join(map(str, cells))} |"


def test_plans_are_those_of_the_benchmark() -> None:
    arms, document = results_of("plan_h100")["arms"], BENCHMARKS.read_text()
    ((now,), (before,)) = (arms["whole_card"][name] for name in ("now", "before"))
    assert all(planned_row(what, arms[arm]) in document for arm, what in PLANS.items())
    assert planned_row("all 132", now) in document
    rates = (
        f"reached {now['frames_per_second']:.1f} frames/s and the version of 9264ce6 {before['frames_per_second']:.1f}"
    )
    assert rates in in_a_line(document)
    assert now["frames_per_second"] > 0.97 * before["frames_per_second"]
    small = [arms[name] for name in PLANS]
    assert all(abs(run["predicted_seconds"] / run["seconds_a_frame"] - 1) < 0.15 for run in [*small, now])
    assert all(abs(run["predicted_gib"] / run["peak_allocated_gib"] - 1) < 0.025 for run in [*small, now])


@pytest.mark.parametrize("arm", ["planned_1.6", "planned_3.2", "planned_5.2", "planned_7.2", "planned_7.2_computed"])
def test_plans_of_small_cards_are_told_as_they_were_measured(arm: str) -> None:
    run = results_of("plan_h100")["arms"][arm]
    plan = run["plan"]
    cells = [
        run["cap_gib"],
        "kept" if plan["cache_vision_features"] else "at each use",
        plan["per_device_train_batch_size"],
        recomputed_of(plan),
        plan["layers_on_host"],
        *(f"{run[name]:.3f}" for name in ("seconds_a_frame", "predicted_seconds")),
        *(f"{run[name]:.2f}" for name in ("peak_allocated_gib", "predicted_gib")),
    ]
    assert f"| {' | '.join(map(str, cells))} |" in doc("machines")


def test_small_card_s_figures_of_the_readme_are_those_of_the_runs() -> None:
    runs = [results_of("plan_h100")["arms"][f"planned_{cap}"] for cap in ("7.2", "5.2", "3.2", "1.6")]
    seconds, peaks = (", ".join(f"{run[name]:{places}}" for run in runs) for name, places in FIGURES_OF_PLANS.items())
    readme = README.read_text()
    assert f"may have 7.2, 5.2, 3.2, 1.6 GiB, vision features kept before: seconds a frame | {seconds} |" in readme
    assert f"| the same: peak allocated | {peaks} GiB |" in readme


FIGURES_OF_PLANS = {"seconds_a_frame": ".3f", "peak_allocated_gib": ".2f"}


@pytest.mark.parametrize(
    ("what", "kernel"),
    [("unpacking NF4, all seven linears", "unpack"), ("an MLP's gated product, 8 frames", "gated product, 8")],
)
def test_kernels_are_as_fast_as_is_said(what: str, kernel: str) -> None:
    arms, cells = results_of("plan_h100")["arms"], []
    for arm in ("kernels", "kernels_whole"):
        rows = [row for row in arms[arm]["kernels"] if row["what"].startswith(kernel)]
        cells += [f"{sum(row[f'{which}_pass_ms'] for row in rows):.1f}" for which in ("library", "kernel")]
        assert kernel != "unpack" or all(row["equal"] for row in rows)
    assert f"| {what} | {' | '.join(cells)} |" in BENCHMARKS.read_text()


def test_answers_on_a_small_card_took_as_long_as_is_said() -> None:
    arms, document = results_of("plan_h100")["arms"], BENCHMARKS.read_text()
    for cap, how, through in (
        ("7.2", "eager", "nothing"),
        ("7.2", "compiled", "nothing"),
        ("1.6", "eager", "28 decoder layers, 11 vision blocks"),
    ):
        found = arms[f"answers_{cap}"]
        times = [f"{row['p50_ms']:.0f}" for row in found["answers"] if row["what"].startswith(how)]
        assert f"| {cap} | {through} | {how} | {' | '.join(times)} | {found['peak_allocated_gib']:.2f} |" in document


def test_whole_card_s_rates_are_those_of_the_benchmark() -> None:
    arms, document = results_of("small_card_7b_h100")["arms"], BENCHMARKS.read_text()
    for name, size, turns in (("80gb", 80, ""), ("8gb", 8, ", three turns"), ("6gb", 6, "")):
        arm = arms[f"whole_card_{name}"]
        rates = [
            ", ".join(f"{turn['frames_per_second']:.1f}" for turn in arm[version]) for version in ("now", "before")
        ]
        assert f"| {size} GB recipe{turns} | {arm['frames']} | {' | '.join(rates)} |" in document
    large = arms["whole_card_80gb"]
    assert large["now"][0]["frames_per_second"] > 0.99 * large["before"][0]["frames_per_second"]


def test_what_is_said_of_streamed_gradients_is_what_was_measured() -> None:
    arms, document = results_of("small_card_7b_h100")["arms"], in_a_line(BENCHMARKS.read_text())
    pairs, ways = arms["exactness"]["pairs"], arms["exactness"]["ways"]
    usual, plain_attention = pairs["usual kernels"], pairs["attention by MATH"]
    said = f"Of ten plain pairs at 4 frames {usual['equal']} were equal to the bit, and the others up to"
    assert f"{said} {usual['largest']:.1e}".replace("e-0", "e-") in document
    assert plain_attention["equal"] == plain_attention["pairs"] == 10
    assert f"as it is: {pairs['deterministic kernels but for attention']['equal']} of 10" in document
    streamed = [way for way in ways if way["model"] != "plain"]
    assert len([way for way in streamed if way["deterministic"]["equal"]]) == len(streamed) == 18
    assert len([way for way in streamed if way["frames"] == 1 and way["usual"]["equal"]]) == 6
    assert all(way["usual"]["loss"] == 0 for way in ways)
    apart = [max(way["usual"]["gradients"] for way in streamed if way["frames"] == frames) for frames in (4, 8)]
    noise = [max(way["plain_pairs"]["largest"] for way in ways if way["frames"] == frames) for frames in (4, 8)]
    told = [f"{figure:.1e}".replace("e-0", "e-") for figure in (*apart, *noise)]
    assert (
        f"gradients up to {told[0]} and {told[1]} apart, those of thirty plain pairs {told[2]} and {told[3]}"
        in document
    )
    assert all(found <= most for found, most in zip(apart, noise, strict=True))


@pytest.mark.parametrize("name", ["RTX A1000", "RTX A1000 Laptop 6 GB", "RTX A1000 Laptop 4 GB"])
def test_projected_plans_are_those_that_are_made(name: str) -> None:
    settings, card = read_settings(["--config", "recipes/configs/qwen2vl_7b.yaml"]).values, CARDS[name]
    on = Machine(card, (card.gib - CONTEXT_GIB) * GIB, HOST_SHARE * HOST_GIB * GIB, disk_bytes=float("inf"))
    plan = plan_run(settings, {}, SIZES_OF_THE_7B, on, frames=5000)
    recomputed = plan.values["recomputed_layers"] if plan.values["activation_checkpointing"] else 0
    cells = [
        name,
        plan.values["per_device_train_batch_size"],
        recomputed,
        f"{plan.values['layers_on_host']} layers",
        f"{plan.need.card_gib:.1f}",
        f"{plan.time.frame:.2f}",
        f"{plan.time.run(5000, 2) / 3600:.1f}",
    ]
    assert plan.values["cache_vision_features"]
    assert f"| {' | '.join(map(str, cells))} |" in doc("machines")
