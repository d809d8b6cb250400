"""infer.py --server: an engine's log-probabilities become the answers that infer prints.

The answers are as llama.cpp's server (0c1e570, of llama-cpp-python 0.3.36) gave them to such requests, and as vLLM's
documents describe its own.
"""

import base64
import io
import json
import math
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from data_prep.errors import InputError
from data_prep.files import PROJECT_ROOT
from recipes import infer
from tests.recipes.adapter.test_merging import random_adapter

FRAME = PROJECT_ROOT / "tests" / "data" / "frame.png"

# The small base's first tokens of the two answers: "SAFE" is S, AFE there, "UNSAFE" U, N, SAFE.
SAFE_ID, UNSAFE_ID = 58, 60
LLAMA = [
    {"id": UNSAFE_ID, "token": "U", "bytes": [85], "logprob": -0.47735077142715454},
    {"id": SAFE_ID, "token": "S", "bytes": [83], "logprob": -0.9687027931213379},
    {"id": 435, "token": " Mets", "bytes": [32, 77, 101, 116, 115], "logprob": -25.71630096435547},
]
P_UNSAFE = math.exp(-0.47735077142715454) / (math.exp(-0.47735077142715454) + math.exp(-0.9687027931213379))


def without_ids(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in entry.items() if name != "id"} for entry in entries]


def answer(likeliest: list[dict[str, Any]]) -> dict[str, Any]:
    content = [{**likeliest[0], "top_logprobs": likeliest}]
    message = {"role": "assistant", "content": likeliest[0]["token"]}
    return {"choices": [{"finish_reason": "length", "index": 0, "message": message, "logprobs": {"content": content}}]}


@dataclass
class Server:
    """What a loopback server answers with, by the number of tokens asked for, and what it was asked."""

    url: str = ""
    models: list[str] = field(default_factory=lambda: ["model.gguf"])
    answers: dict[int, tuple[int, Any]] = field(default_factory=dict)
    key: str | None = None
    asked: list[dict[str, Any]] = field(default_factory=list)


@pytest.fixture
def server() -> Iterator[Server]:
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def answer(self, status: int, value: Any) -> None:
            content = value if isinstance(value, bytes) else json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def do_GET(self) -> None:
            if state.key and self.headers["Authorization"] != f"Bearer {state.key}":
                self.answer(401, {"error": "no key"})
            elif self.path == "/v1/models":
                self.answer(200, {"object": "list", "data": [{"id": name} for name in state.models]})
            else:
                self.answer(404, b"not found")

        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            state.asked.append(request)
            assert self.path == "/v1/chat/completions"
            self.answer(*state.answers[request["top_logprobs"]])

        def log_message(self, *_args: Any) -> None:
            pass

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{listening.server_port}/v1"
    thread = threading.Thread(target=listening.serve_forever, daemon=True)
    thread.start()
    yield state
    listening.shutdown()
    listening.server_close()
    thread.join()


@pytest.fixture(scope="module")
def run(small_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "plant"
    random_adapter(small_base, folder, threshold=0.7, threshold_from="fixed")
    return folder


def asked(run: Path, server: Server, *flags: str) -> int:
    return infer.main(["--adapter", str(run), "--server", server.url, "--image", str(FRAME), *flags])


@pytest.mark.parametrize("likeliest", [LLAMA, without_ids(LLAMA), LLAMA[::-1]], ids=["llama.cpp", "texts", "turned"])
def test_p_is_the_softmax_of_the_two_tokens(
    run: Path, server: Server, likeliest: list[dict[str, Any]], capfd: pytest.CaptureFixture[str]
) -> None:
    server.answers[20] = 200, answer(likeliest)
    assert asked(run, server, "--json") == 0
    found = json.loads(capfd.readouterr().out)
    assert found["p_unsafe"] == pytest.approx(P_UNSAFE, abs=1e-12)
    assert (found["label"], found["threshold"]) == ("SAFE", 0.7)
    assert asked(run, server, "--prior", "0.7") == 0
    assert capfd.readouterr().out == "UNSAFE\n"


def test_numbers_written_as_text_are_tokens_too(run: Path, server: Server, capfd: pytest.CaptureFixture[str]) -> None:
    entries = [
        {"token": f"token_id:{UNSAFE_ID}", "logprob": -0.1, "bytes": None},
        {"token": f"token_id:{SAFE_ID}", "logprob": -2.5, "bytes": None},
    ]
    server.answers[20] = 200, answer(entries)
    assert asked(run, server) == 0
    assert capfd.readouterr().out == "UNSAFE\n"


def test_request_is_the_question_that_training_asked(run: Path, server: Server, tmp_path: Path) -> None:
    server.answers[20] = 200, answer(LLAMA)
    file = tmp_path / "frame.png"
    Image.linear_gradient("L").rotate(30).resize((1280, 720)).convert("RGB").save(file)
    assert infer.main(["--adapter", str(run), "--server", server.url, "--image", str(file)]) == 0
    (request,) = server.asked
    picture, question = request["messages"][0]["content"]
    assert question["text"].startswith("You are a workplace safety inspector")
    assert (request["model"], request["max_tokens"], request["temperature"]) == ("model.gguf", 1, 0)
    assert request["logprob_token_ids"] == [SAFE_ID, UNSAFE_ID]
    kind, _, content = picture["image_url"]["url"].partition(",")
    assert kind == "data:image/png;base64"
    with Image.open(io.BytesIO(base64.b64decode(content))) as sent, Image.open(file) as frame:
        assert sent.size == (420, 224)
        assert sent.tobytes() == frame.convert("RGB").resize(sent.size).tobytes()


def test_an_answer_far_down_is_asked_for_once_more(
    run: Path, server: Server, capfd: pytest.CaptureFixture[str]
) -> None:
    server.answers[20] = 200, answer([LLAMA[0], LLAMA[2]])
    server.answers[2000] = 200, answer([LLAMA[0], LLAMA[2], {**LLAMA[1], "logprob": -30.0}])
    assert asked(run, server, "--json") == 0
    assert json.loads(capfd.readouterr().out)["p_unsafe"] == pytest.approx(1.0, abs=1e-12)
    assert [request["top_logprobs"] for request in server.asked] == [20, 2000]


def test_a_server_that_gives_no_more_than_it_gave_is_told_so(run: Path, server: Server, capfd: Any) -> None:
    server.answers[20] = 200, answer([LLAMA[0], LLAMA[2]])
    server.answers[2000] = 400, {"error": {"message": "top_logprobs must be at most 20"}}
    assert asked(run, server) == 2
    assert "gave no probability of 'S'" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ((200, answer([LLAMA[0], LLAMA[2]])), "gave no probability of 'S', so there is no P(UNSAFE)"),
        ((200, answer([LLAMA[0], {**LLAMA[1], "logprob": -9999.0}])), "gave no probability of 'S'"),
        ((200, answer([LLAMA[0], {**LLAMA[1], "logprob": 3.0}])), "gave no probability of 'S'"),
        ((200, {"choices": [{"logprobs": {"content": [{"top_logprobs": ["U", "S"]}]}}]}), "gave no probability of 'S'"),
        ((200, {"choices": [{"message": {"content": "U"}}]}), "gave no probability of 'S'"),
        ((400, {"error": {"message": "top_logprobs must be at most 20"}}), "answered 400: .*must be at most 20"),
        ((500, b"<html>"), "answered 500: <html>"),
        ((200, b"no json"), "answered 200: no json"),
        ((200, [1]), "answered 200"),
    ],
)
def test_what_is_no_answer_is_a_line(
    run: Path, server: Server, found: tuple[int, Any], said: str, capfd: pytest.CaptureFixture[str]
) -> None:
    server.answers = {20: found, 2000: found}
    assert asked(run, server) == 2
    out, err = capfd.readouterr()
    assert out == ""

    assert re.search(said.replace("(UNSAFE)", r"\(UNSAFE\)"), err), err
    assert err.count("\n") == 1 and err.startswith("error: ")


def test_server_s_models_are_chosen_from(run: Path, server: Server) -> None:
    server.answers[20] = 200, answer(LLAMA)
    server.models = ["base", "plant"]
    with pytest.raises(InputError, match=r"answers for 2 models \(base, plant\); name one with --server-model"):
        asked(run, server)
    assert asked(run, server, "--server-model", "plant") == 0
    assert server.asked[-1]["model"] == "plant"
    with pytest.raises(InputError, match=r"has no model 'other', but base, plant"):
        asked(run, server, "--server-model", "other")


def test_key_is_the_environment_s(run: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    server.answers[20] = 200, answer(LLAMA)
    server.key = "secret"
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(InputError, match=r"wants a key; put it into OPENAI_API_KEY"):
        asked(run, server)
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    assert asked(run, server) == 0


@pytest.mark.parametrize("key", ["geheim\x00", "schlüssel"])
def test_key_that_is_none_is_not_printed(run: Path, server: Server, monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", key.replace("\x00", "\x7f"))
    with pytest.raises(InputError, match=r"^OPENAI_API_KEY holds characters that no key has; set it anew$"):
        asked(run, server)


def test_proxy_that_is_none_is_a_line(run: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "gopher://127.0.0.1:9")
    with pytest.raises(InputError, match=r"the proxy in HTTP_PROXY, HTTPS_PROXY or ALL_PROXY can't be used"):
        asked(run, server)


def test_a_server_elsewhere_is_reached_through_the_proxy_that_is_set(
    run: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loopback server stands for the proxy: it sees a request for another machine, whole address and all."""
    monkeypatch.setenv("HTTP_PROXY", server.url.removesuffix("/v1"))
    monkeypatch.setenv("http_proxy", server.url.removesuffix("/v1"))
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    server.url = "http://engine.plant.example/v1"
    with pytest.raises(InputError, match=r"http://engine\.plant\.example/v1/models answered 404: not found"):
        asked(run, server)


def test_no_server_is_a_line(run: Path, server: Server) -> None:
    server.url = server.url.removesuffix("/v1")
    with pytest.raises(InputError, match=r"/models answered 404"):
        asked(run, server)
    server.url = "http://127.0.0.1:9/v1"
    with pytest.raises(InputError, match=r"can't be reached \(ConnectError"):
        asked(run, server)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--server", "http://127.0.0.1:9/v1", "--compile"], "the server loads the model"),
        (["--server", "http://127.0.0.1:9/v1", "--layers-on-host", "all"], "the server loads the model"),
        (["--server", "http://[::1/v1"], "is no http:// or https:// address"),
        (["--server", "127.0.0.1:9"], "is no http:// or https:// address"),
        (["--server-model", "plant"], "--server-model is for --server"),
    ],
)
def test_flags_that_contradict_are_refused(run: Path, flags: list[str], said: str) -> None:
    with pytest.raises(InputError, match=said):
        infer.main(["--adapter", str(run), "--image", str(FRAME), *flags])
