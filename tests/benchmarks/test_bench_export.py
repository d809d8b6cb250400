"""bench_export on a small random base; llama.cpp is played by two scripts."""

import json
import stat
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from benchmarks import bench_export
from benchmarks.bench_export import largest_differences
from benchmarks.measuring.exports import differing_layout
from data_prep.errors import InputError

CONVERTER = """
import sys
from pathlib import Path
out = Path(sys.argv[sys.argv.index("--outfile") + 1])
out.write_text("vision" if "--mmproj" in sys.argv else "text")
"""

SERVER = """#!{python}
import json, math, sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
flags = dict(zip(sys.argv[1::2], sys.argv[2::2]))
assert Path(flags["--model"]).read_text() == "text" and Path(flags["--mmproj"]).read_text() == "vision"
assert flags["--image-max-tokens"] == "480"
class Handler(BaseHTTPRequestHandler):
    def answer(self, value):
        content = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
    def do_GET(self):
        self.answer({{"data": [{{"id": "model.gguf"}}]}})
    def do_POST(self):
        ids = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["logprob_token_ids"]
        found = [{{"id": each, "token": "", "logprob": math.log(p)}} for each, p in zip(ids, (0.75, 0.25))]
        self.answer({{"choices": [{{"logprobs": {{"content": [{{**found[0], "top_logprobs": found}}]}}}}]}})
    def log_message(self, *args):
        pass
HTTPServer((flags["--host"], int(flags["--port"])), Handler).serve_forever()
"""


def test_every_way_to_answer_is_held_against_infer(
    true_model_folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:

    (tmp_path / "convert_hf_to_gguf.py").write_text(CONVERTER)
    server = tmp_path / "server"
    server.write_text(SERVER.format(python=sys.executable))
    server.chmod(server.stat().st_mode | stat.S_IXUSR)
    out = tmp_path / "out"
    flags = ["--like", str(true_model_folder), "--size", "small", "--frames", "3", "--repeats", "1"]
    flags += ["--llama-cpp", str(tmp_path), "--llama-server", str(server), "--out", str(out)]
    assert bench_export.main(flags) == 0
    report = json.loads((out / "bench_export.json").read_text())
    assert report["differing_from_base"] == []
    (export,) = report["exports"]
    assert 0.2 < export["own_gib"] < export["peak_gib"] < 8 and export["seconds"] > 1
    found, away = report["p_unsafe"], report["largest_difference"]
    assert set(found) == set(away) == {"infer, adapter", "infer, export", "transformers 5.23.0", "llama.cpp"}
    assert found["llama.cpp"] == pytest.approx([0.25] * 3)
    assert max(found["infer, export"]) - min(found["infer, export"]) > 0.1
    assert away["transformers 5.23.0"]["p_unsafe"] < 1e-4 > away["infer, adapter"]["p_unsafe"]
    assert away["llama.cpp"]["p_unsafe"] > 0.01
    table = capfd.readouterr().out
    assert "other than the base's: none" in table and "llama.cpp" in table


def test_a_layout_that_differs_is_told(small_base: Path, tmp_path: Path) -> None:
    (tmp_path / "stray.json").write_text("{}")
    weights = load_file(small_base / "model.safetensors")
    del weights["lm_head.weight"]
    save_file(weights, tmp_path / "model.safetensors")
    lacking = str(("model.safetensors", "lm_head.weight", (768, 256)))
    assert differing_layout(small_base, tmp_path) == [lacking, "stray.json"]


def test_labels_that_turn_are_counted() -> None:
    found = largest_differences({"infer, export": [0.4, 0.6, 0.9], "other": [0.45, 0.4, 0.9]}, 0.5)
    assert found["other"] == {"p_unsafe": pytest.approx(0.2), "labels": 1}
    assert found["infer, export"] == {"p_unsafe": 0.0, "labels": 0}


def test_flags_that_need_each_other() -> None:
    with pytest.raises(InputError, match="--llama-cpp and --llama-server go together"):
        bench_export.main(["--llama-cpp", "somewhere"])
    with pytest.raises(InputError, match="must be 1 or more"):
        bench_export.main(["--frames", "0"])
