"""The service by a real HTTP client over the loopback interface; the model is a stub that can be held."""

import http.client
import io
import json
import re
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
import yaml
from PIL import Image

from data_prep.errors import InputError
from data_prep.files import PROJECT_ROOT
from recipes.serving import connections
from recipes.serving.gate import Rules
from recipes.serving.running import Limits
from tests.project.documents import blocks_of
from tests.recipes.serving.stub_service import LIMITS, PATIENCE, Served, frame, read_until, served, till_closed

TOKEN = "c0ffee-c0ffee"


@pytest.fixture
def service() -> Iterator[Served]:
    with served() as running:
        yield running


@pytest.fixture
def guarded() -> Iterator[Served]:
    with served(Rules(TOKEN.encode(), 1_000_000, 20)) as running:
        yield running


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(64) as pool:
        yield pool


@pytest.mark.parametrize(("red", "answer"), [(255, "UNSAFE"), (0, "SAFE"), (204, "UNSAFE"), (51, "SAFE")])
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_frame_gets_its_answer(service: Served, red: int, answer: str, kind: str) -> None:
    found = service.client.post("/answer", content=frame(red, kind=kind)).json()
    assert list(found) == ["answer", "p_unsafe", "threshold", "latency_ms"]
    assert found["answer"] == answer
    assert found["p_unsafe"] == pytest.approx(red / 255, abs=0.01)
    assert found["threshold"] == 0.5
    assert 0 < found["latency_ms"] < 1000 * PATIENCE


@pytest.mark.parametrize("content_type", ["image/png", "application/octet-stream", "application/x-www-form-urlencoded"])
def test_body_is_a_frame_whatever_it_is_called(service: Served, content_type: str) -> None:
    assert service.ask(255, headers={"Content-Type": content_type}).json()["answer"] == "UNSAFE"


def test_part_of_a_form_is_a_frame_too(service: Served) -> None:
    found = service.client.post("/answer", files={"any": ("name.png", frame(255))}, data={"camera": "Tür 1"}).json()
    assert (found["answer"], found["camera"]) == ("UNSAFE", "Tür 1")


def test_camera_of_the_query_and_the_request_s_name_come_back(service: Served) -> None:
    found = service.ask(0, params={"camera": "Tür 1"}, headers={"X-Request-Id": "a/7 =~"})
    assert (found.json()["camera"], found.headers["X-Request-Id"]) == ("Tür 1", "a/7 =~")
    named_twice = [("X-Request-Id", "7"), ("X-Request-Id", "x" * 1000)]
    assert service.client.get("/health", headers=named_twice).headers["X-Request-Id"] == "7"
    refused = service.client.post("/answer", content=b"words", headers={"X-Request-Id": "8"})
    assert (refused.status_code, refused.headers["X-Request-Id"]) == (422, "8")


def test_frames_of_a_form_are_answered_in_order_the_bad_ones_in_their_place(service: Served) -> None:
    contents = [frame(255), b"words", frame(0), frame(204, kind="JPEG")[:300], frame(51), b""]
    files = [("frame", (f"{number}.png", content)) for number, content in enumerate(contents)]
    found = service.client.post("/answers", files=files, data={"camera": "gate"})
    assert found.status_code == 200
    assert [each.get("answer") for each in found.json()] == ["UNSAFE", None, "SAFE", None, "SAFE", None]
    assert [each.get("error", "").partition(":")[0] for each in found.json()] == [
        "",
        "frame 2",
        "",
        "frame 4",
        "",
        "frame 6",
    ]
    assert {each["camera"] for each in found.json()} == {"gate"}
    assert found.json()[1]["error"] == "frame 2: not a readable image; allowed formats: JPEG, PNG"
    assert service.metric('safe_unsafe_errors_total{status="422"}') == 3


@pytest.mark.parametrize("path", ["/answer", "/answers"])
def test_form_without_a_frame_is_refused(service: Served, path: str) -> None:
    refused = service.client.post(path, files={"camera": (None, "gate")})
    assert refused.status_code == 422 and "frame" in refused.json()["error"]


def test_several_frames_are_asked_of_answers(service: Served) -> None:
    files = [("frame", ("a.png", frame(0))), ("frame", ("b.png", frame(0)))]
    refused = service.client.post("/answer", files=files)
    assert (refused.status_code, refused.json()) == (
        422,
        {"error": "2 frames in the form; /answer takes one, /answers several"},
    )
    assert service.client.post("/answers", content=frame(0)).status_code == 415


def oriented() -> bytes:
    """Return a JPEG, red above and black below, that says it is upside down."""
    image = Image.new("RGB", (16, 16))
    image.paste((255, 0, 0), (0, 0, 16, 8))
    exif = Image.Exif()
    exif[0x0112] = 3
    content = io.BytesIO()
    image.save(content, "JPEG", exif=exif)
    return content.getvalue()


def test_frame_is_read_as_infer_reads_it(service: Served) -> None:
    assert service.client.post("/answer", content=oriented()).json()["p_unsafe"] < 0.1


def bomb() -> bytes:
    """Return a PNG of some kilobytes that holds 100 megapixels."""
    content = io.BytesIO()
    Image.new("1", (10_000, 10_000)).save(content, "PNG")
    return content.getvalue()


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"words", "frame: not a readable image; allowed formats: JPEG, PNG"),
        (b"", "frame: not a readable image; allowed formats: JPEG, PNG"),
        (frame(0, kind="GIF"), "frame: not a readable image; allowed formats: JPEG, PNG"),
        (frame(0, kind="JPEG")[:300], "frame: "),
        (frame(0, size=(4000, 4)), "frame: 4000x4 is a strip"),
        (bomb(), "frame: 10000x10000 is 100,000,000 pixels"),
    ],
    ids=["words", "nothing", "gif", "torn", "strip", "bomb"],
)
def test_what_is_no_frame_is_refused_in_a_line(
    service: Served, content: bytes, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    refused = service.client.post("/answer", content=content)
    assert refused.status_code == 422
    assert refused.json()["error"].startswith(line) and "\n" not in refused.json()["error"]
    assert service.model.batches == []
    assert capsys.readouterr().err == "refused: 422 Unprocessable Entity\n"


@pytest.mark.parametrize("header", [{}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {TOKEN}"}])
@pytest.mark.parametrize("path", ["/", "/metrics", "/answer", "/answers", "/nothing"])
def test_without_the_token_nothing_is_told(
    guarded: Served, path: str, header: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    refused = guarded.client.request("POST" if "answer" in path else "GET", path, headers=header)
    assert (refused.status_code, refused.headers["WWW-Authenticate"]) == (401, "Bearer")
    assert refused.json() == {"error": "a token is needed: Authorization: Bearer <token>"}
    assert capsys.readouterr().err == "refused: 401 Unauthorized\n"


def test_health_is_open_and_the_token_opens_the_rest(guarded: Served) -> None:
    assert guarded.client.get("/health").json() == {"status": "ok"}
    guarded.client.headers["Authorization"] = f"Bearer {TOKEN}"
    assert guarded.ask(255).json()["answer"] == "UNSAFE"
    assert "Authorization: Bearer" in guarded.client.get("/").text


@pytest.mark.parametrize(
    "target",
    [
        *(
            b"/health/../metrics",
            b"/health/%2e%2e/metrics",
            b"//metrics",
            b"/health/",
            b"/health%00",
            b"/health;/metrics",
        ),
        *(
            b"http://here/health",
            b"/health?/metrics/../../answer",
            b"/HEALTH",
            b"/health#/metrics",
            b"/.%2fhealth",
            b"*",
        ),
    ],
)
def test_path_tricks_open_nothing(guarded: Served, target: bytes) -> None:
    with guarded.raw() as connection:
        connection.sendall(b"GET %s HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n" % target)
        said = till_closed(connection)
    assert said.startswith((b"HTTP/1.1 401 ", b"HTTP/1.1 400 ")) or said.endswith(b'{"status":"ok"}')
    assert b"safe_unsafe_" not in said


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nothing", 404),
        ("GET", "/answer", 405),
        ("POST", "/health", 405),
        ("GET", "/docs", 404),
        ("GET", "/openapi.json", 404),
        ("POST", "/answer/", 404),
        ("GET", "/../../etc/passwd", 404),
    ],
)
def test_what_is_not_there_is_said_in_a_line(service: Served, method: str, path: str, status: int) -> None:
    refused = service.client.request(method, path)
    assert (refused.status_code, list(refused.json())) == (status, ["error"])


@pytest.mark.parametrize(
    ("how", "status"),
    [
        ({"headers": {"X-Request-Id": "x" * 129}}, 400),
        ({"headers": {"X-Request-Id": b"\xff"}}, 400),
        ({"params": {"camera": "a\nb"}}, 422),
        ({"params": {"camera": "x" * 129}}, 422),
    ],
)
def test_names_that_are_none_are_refused(service: Served, how: dict[str, dict[str, str]], status: int) -> None:
    refused = service.ask(0, **how)
    assert refused.status_code == status and "printable" in refused.json()["error"]
    assert service.model.batches == []


def test_body_that_is_declared_too_large_is_refused_before_it_comes(
    service: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    with service.raw() as connection:
        connection.sendall(b"POST /answer HTTP/1.1\r\nHost: here\r\nContent-Length: 1000000000\r\n\r\n")
        said = read_until(connection, b"}")
    assert said.startswith(b"HTTP/1.1 413 ") and b"more than 1,000,000 bytes" in said
    assert b"connection: close" in said
    assert capsys.readouterr().err == "refused: 413 Request Entity Too Large\n"


def test_body_that_does_not_end_is_refused_when_it_is_too_large(service: Served) -> None:
    def endless() -> Iterator[bytes]:
        while True:
            yield bytes(65536)

    refused = service.client.post("/answer", content=endless())
    assert refused.status_code == 413
    assert service.ask(255).json()["answer"] == "UNSAFE"


def test_header_of_a_megabyte_is_refused(service: Served, caplog: pytest.LogCaptureFixture) -> None:
    with service.raw() as connection:
        sending = threading.Thread(
            target=send_all_of, args=(connection, b"GET /health HTTP/1.1\r\nA: " + b"a" * 1_000_000)
        )
        sending.start()
        said = till_closed(connection)
        sending.join(PATIENCE)
    assert said == b"" or said.startswith(b"HTTP/1.1 400 ")
    assert [record.getMessage() for record in caplog.records if record.name.startswith("uvicorn")] == [
        "Invalid HTTP request received."
    ]
    assert service.ask(255).json()["answer"] == "UNSAFE"


def send_all_of(connection: socket.socket, content: bytes) -> None:
    try:
        connection.sendall(content)
    except ConnectionError:
        return


def test_slow_sender_is_refused_and_gives_its_place_back(capsys: pytest.CaptureFixture[str]) -> None:
    with served(Rules(None, 1_000_000, 0.2), Limits(1, 0.0, 1)) as service, service.raw() as connection:
        connection.sendall(b"POST /answer HTTP/1.1\r\nHost: here\r\nContent-Length: 1000\r\n\r\n" + bytes(500))
        said = till_closed(connection)
        assert said.startswith(b"HTTP/1.1 408 ") and b"wasn't whole after 0.2 s" in said
        assert service.ask(255).json()["answer"] == "UNSAFE"
    assert capsys.readouterr().err.startswith("refused: 408 Request Timeout\n")


def test_sender_that_drips_is_refused_too() -> None:
    """Each byte comes in time; the whole doesn't."""
    with served(Rules(None, 1_000_000, 0.5)) as service, service.raw() as connection:
        connection.sendall(b"POST /answer HTTP/1.1\r\nHost: here\r\nContent-Length: 1000000\r\n\r\n")
        done = threading.Event()

        def drip() -> None:
            while not done.wait(0.05):
                send_all_of(connection, b"a")

        dripping = threading.Thread(target=drip)
        dripping.start()
        said = read_until(connection, b"}")
        done.set()
        dripping.join(PATIENCE)
    assert said.startswith(b"HTTP/1.1 408 ")


def test_caller_that_sends_all_before_it_reads_sees_the_refusal(service: Served) -> None:
    """Closed at once, the connection would break under its hands."""
    connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=PATIENCE)
    connection.request("POST", "/answer", bytes(50_000_000))
    assert connection.getresponse().status == 413
    connection.close()


@pytest.mark.parametrize("begun", [b"", b"POST /ans", b"POST /answer HTTP/1.1\r\nHost: h"])
def test_headers_that_do_not_come_end_the_connection(begun: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "HEADER_SECONDS", 0.2)
    with served() as service, service.raw() as connection:
        connection.sendall(begun)
        assert till_closed(connection) == b""
        with service.raw() as again:
            again.sendall(b"GET /health HTTP/1.1\r\nHost: here\r\n\r\n")
            assert read_until(again, b'{"status":"ok"}').startswith(b"HTTP/1.1 200 ")
            again.sendall(b"GET /hea")
            assert till_closed(again) == b""


def test_connections_have_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "MOST_CONNECTIONS", 2)
    with served() as service, service.raw() as first, service.raw() as second, service.raw() as third:
        assert till_closed(third) == b""
        for connection in (first, second):
            connection.sendall(b"GET /health HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n")
            assert till_closed(connection).startswith(b"HTTP/1.1 200 ")


def test_half_a_body_is_nobody_s_frame(service: Served) -> None:
    with service.raw() as connection:
        connection.sendall(b"POST /answer HTTP/1.1\r\nHost: here\r\nContent-Length: 1000\r\n\r\n" + frame(255))
    service.wait_until("safe_unsafe_gone_total", 1)
    assert service.model.batches == []
    assert service.metric("safe_unsafe_waiting") == 0


def test_caller_that_hangs_up_costs_no_call(service: Served, threads: ThreadPoolExecutor) -> None:
    with service.model.held():
        first = threads.submit(service.ask, 1)
        service.model.wait_for_a_batch()
        with service.raw() as connection:
            body = frame(2)
            head = b"POST /answer HTTP/1.1\r\nHost: here\r\nContent-Length: %d\r\n\r\n" % len(body)
            connection.sendall(head + body)
            service.wait_until("safe_unsafe_waiting", 1)
        service.wait_until("safe_unsafe_gone_total", 1)
        service.wait_until("safe_unsafe_waiting", 0)
    assert first.result(PATIENCE).json()["p_unsafe"] == 1 / 255
    assert service.ask(3).status_code == 200
    assert service.model.batches == [[1], [3]]


def test_what_waits_is_answered_together_and_each_frame_as_itself(service: Served, threads: ThreadPoolExecutor) -> None:
    with service.model.held():
        asked = {0: threads.submit(service.ask, 0)}
        service.model.wait_for_a_batch()
        asked |= {red: threads.submit(service.ask, red) for red in range(1, 13)}
        service.wait_for_frames(12)
        assert service.metric("safe_unsafe_waiting") == 12
    for red, answer in asked.items():
        assert answer.result(PATIENCE).json()["p_unsafe"] == red / 255
    assert [len(batch) for batch in service.model.batches] == [1, 4, 4, 4]
    assert service.metric("safe_unsafe_batch_frames_sum") == 13


def test_who_comes_when_the_queue_is_full_is_told_when_to_ask_again(threads: ThreadPoolExecutor) -> None:
    with served(limits=Limits(1, 0.0, 3)) as service:
        with service.model.held():
            asked = [threads.submit(service.ask, 1)]
            service.model.wait_for_a_batch()
            asked += [threads.submit(service.ask, red) for red in (2, 3, 4)]
            service.wait_until("safe_unsafe_waiting", 3)
            refused = service.ask(5)
            assert (refused.status_code, refused.headers["Retry-After"]) == (503, "1")
            several = [("frame", ("a.png", frame(6))) for _ in range(2)]
            assert service.client.post("/answers", files=several).status_code == 503
        assert [each.result(PATIENCE).status_code for each in asked] == [200] * 4
        assert service.ask(7).status_code == 200
        assert sorted(service.model.batches) == [[1], [2], [3], [4], [7]]


def test_more_frames_than_may_wait_are_refused(service: Served) -> None:
    files = [("frame", ("a.png", frame(1))) for _ in range(LIMITS.max_queue + 1)]
    assert service.client.post("/answers", files=files).status_code == 413
    assert len(service.client.post("/answers", files=files[1:]).json()) == LIMITS.max_queue


@pytest.mark.parametrize("told_by", ["query", "form", "proxy"])
def test_callers_take_turns(threads: ThreadPoolExecutor, told_by: str) -> None:
    with served(limits=Limits(1, 0.0, 32)) as service:

        def ask(camera: str, red: int) -> httpx.Response:
            if told_by == "query":
                return service.ask(red, params={"camera": camera})
            if told_by == "proxy":
                address = {"greedy": "192.0.2.1", "polite": "192.0.2.2"}[camera]
                return service.ask(red, headers={"X-Forwarded-For": address})
            return service.client.post("/answer", files={"f": ("f.png", frame(red))}, data={"camera": camera})

        with service.model.held():
            asked = [threads.submit(ask, "greedy", 0)]
            service.model.wait_for_a_batch()
            asked += [threads.submit(ask, "greedy", 1) for _ in range(8)]
            service.wait_for_frames(8)
            asked += [threads.submit(ask, "polite", 2) for _ in range(2)]
            service.wait_for_frames(10)
        assert {each.result(PATIENCE).status_code for each in asked} == {200}
        order = [red for batch in service.model.batches for red in batch]
        assert order == [0, 2, 1, 2, 1, 1, 1, 1, 1, 1, 1]


def test_model_that_fails_is_said_and_counted(service: Served, capsys: pytest.CaptureFixture[str]) -> None:
    service.model.error = InputError("P(UNSAFE) is no number, so there is no answer")
    refused = service.ask(1)
    assert (refused.status_code, refused.json()["error"]) == (500, "P(UNSAFE) is no number, so there is no answer")
    assert service.client.get("/health").status_code == 200
    service.model.error = RuntimeError("a secret of the machine")
    refused = service.ask(1)
    assert refused.status_code == 500 and "secret" not in refused.text
    assert service.client.get("/health").status_code == 503
    assert service.metric('safe_unsafe_errors_total{status="500"}') == 2
    service.model.error = None
    assert service.ask(255).json()["answer"] == "UNSAFE"
    assert service.client.get("/health").json() == {"status": "ok"}
    assert "RuntimeError" in capsys.readouterr().err


def test_prior_corrects_p_and_answer_as_in_infer() -> None:
    with served(prior=0.02) as service:
        found = service.ask(204).json()
    assert found["answer"] == "SAFE" and found["p_unsafe"] == pytest.approx(4 * 0.02 / 0.98 / (1 + 4 * 0.02 / 0.98))


def test_answers_refusals_and_latencies_are_counted(service: Served) -> None:
    for red in (255, 255, 0):
        service.ask(red)
    service.client.post("/answer", content=b"words")
    found = {
        name: service.metric(name)
        for name in (
            'safe_unsafe_answers_total{answer="UNSAFE"}',
            'safe_unsafe_answers_total{answer="SAFE"}',
            'safe_unsafe_errors_total{status="422"}',
            "safe_unsafe_latency_seconds_count",
            "safe_unsafe_batch_seconds_count",
            "safe_unsafe_waiting",
            "safe_unsafe_gone_total",
        )
    }
    assert list(found.values()) == [2, 1, 1, 3, 3, 0, 0]


def test_documents_name_the_counts_that_there_are(service: Served) -> None:
    service.ask(255)
    service.client.post("/answer", content=b"words")
    text = service.client.get("/metrics").text
    (block,) = [block for block in examples("") if "safe_unsafe_" in block]
    named = re.findall(r'safe_unsafe_\w+(?:\{\w+="\w+"\})?', block)
    assert [name for name in named if name not in text] == [] and len(named) == 7
    kinds = re.findall(r"^# TYPE (\w+) ", text, flags=re.MULTILINE)
    assert {name.partition("{")[0].removesuffix("_total") for name in named} == {
        kind.removesuffix("_total") for kind in kinds
    }


def test_page_says_how_to_ask_and_asks_nobody(service: Served) -> None:
    page = service.client.get("/")
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    assert "a &lt;run&gt;" in page.text and "http://here/answers" in page.text
    assert re.findall(r'(?:src|href|url)\s*[=(]\s*["\']?\w+:', page.text) == []
    assert "Authorization" not in page.text


def test_nothing_of_a_frame_is_written_or_said(
    service: Served, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("mkstemp", "TemporaryFile", "NamedTemporaryFile"):
        monkeypatch.setattr(tempfile, name, pytest.fail)
    noise = Image.effect_noise((400, 400), 100).convert("RGB")
    content = io.BytesIO()
    noise.save(content, "PNG")
    files = [("secret", ("secret.png", content.getvalue())), ("secret", ("secret.txt", b"secret"))]
    found = service.client.post("/answers", files=files, data={"camera": "secret"}, params={"secret": "1"})
    assert (found.status_code, len(content.getvalue()) > 100_000) == (200, True)
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "refused: 422 Unprocessable Entity\n")


def test_end_comes_after_the_answers(threads: ThreadPoolExecutor, capsys: pytest.CaptureFixture[str]) -> None:
    with served() as service:
        asked = [threads.submit(service.ask, red) for red in range(8)]
        assert [each.result(PATIENCE).json()["p_unsafe"] for each in asked] == [red / 255 for red in range(8)]
    assert capsys.readouterr().err == "8 answered, 0 refused, 0 hung up\n"


def examples(language: str) -> list[str]:
    text = (PROJECT_ROOT / "docs" / "answering.md").read_text().partition("\n## Over HTTP\n")[2].partition("\n## ")[0]
    return blocks_of(text, language)


def run_there(command: list[str], service: Served, folder: Path) -> str:
    """Run a command of the documents, asking this service, in a folder with a frame."""
    (folder / "frame.jpg").write_bytes(frame(255, kind="JPEG"))
    here = [word.replace("http://127.0.0.1:8000", f"http://127.0.0.1:{service.port}") for word in command]
    return subprocess.run(here, cwd=folder, capture_output=True, text=True, check=True, timeout=PATIENCE).stdout


def test_documents_show_how_curl_asks(service: Served, tmp_path: Path) -> None:
    if shutil.which("curl") is None:
        pytest.skip("no curl found; on Debian: apt-get install curl")
    commands = [shlex.split(line) for block in examples("sh") for line in block.splitlines()]
    (shown,) = examples("json")
    alone, of_a_camera, several = (json.loads(run_there(command, service, tmp_path)) for command in commands)
    assert list(of_a_camera) == list(json.loads(shown)) and of_a_camera["camera"] == "gate"
    assert [each["answer"] for each in (alone, of_a_camera, *several)] == ["UNSAFE"] * 4


def test_documents_show_how_python_asks(service: Served, tmp_path: Path) -> None:
    (code,) = examples("python")
    assert run_there([sys.executable, "-c", code], service, tmp_path) == "UNSAFE\n"


def test_documents_show_a_sensor_of_home_assistant(service: Served, tmp_path: Path) -> None:
    (shown,) = [yaml.safe_load(block) for block in examples("yaml")]
    (entry,) = shown["command_line"]
    command = [word.replace("/config/gate.jpg", "frame.jpg") for word in shlex.split(entry["sensor"]["command"])]
    assert json.loads(run_there(command, service, tmp_path))["camera"] == "gate"
