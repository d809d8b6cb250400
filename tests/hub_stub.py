"""A Hub on the loopback interface: what `push_to_hub`, `load_dataset` and downloads ask, and a record of requests."""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit


@dataclass
class Repo:
    """One repository, of a data set unless it is said otherwise; its one revision is whatever was committed last."""

    private: bool
    files: dict[str, bytes] = field(default_factory=dict)
    kind: str = "datasets"

    @property
    def sha(self) -> str:
        """A commit id that follows from the files."""
        digest = hashlib.sha1()
        for path in sorted(self.files):
            digest.update(path.encode() + hashlib.sha256(self.files[path]).digest())
        return digest.hexdigest()


@dataclass
class HubStub:
    """What the stub holds and what it was asked: `requests` are lines such as `POST /api/repos/create`."""

    url: str = ""
    repos: dict[str, Repo] = field(default_factory=dict)
    uploads: dict[str, bytes] = field(default_factory=dict)
    log: Path | None = None
    requests: list[str] = field(default_factory=list)

    def record(self, request: str) -> None:
        """Note a request, also in the log file, where another process can see it."""
        self.requests.append(request)
        if self.log:
            with self.log.open("a") as file:
                file.write(f"{request}\n")


def _entry(repo: Repo, path: str) -> dict[str, Any]:
    content = repo.files[path]
    return {"type": "file", "path": path, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}


class _Handler(BaseHTTPRequestHandler):
    hub: HubStub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        """Keep the requests out of the test's output."""

    def _send(self, status: int, content: bytes = b"", headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _json(self, value: Any, status: int = 200) -> None:
        self._send(status, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _missing(self, code: str) -> None:
        self._send(404, b"{}", {"X-Error-Code": code, "X-Error-Message": code})

    def _handle(self) -> None:
        path = unquote(urlsplit(self.path).path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.hub.record(f"{self.command} {path}")
        if path == "/api/repos/create":
            return self._create(json.loads(body))
        if path == "/api/validate-yaml":
            return self._json({"errors": [], "warnings": []})
        if path.startswith("/upload/"):
            self.hub.uploads[path.removeprefix("/upload/")] = body
            return self._send(200)
        parts = path.strip("/").removeprefix("api/").split("/")
        if parts[0] not in ("datasets", "models"):
            parts = ["models", *parts]  # whose files' addresses don't name the kind
        repo_id = "/".join(parts[1:3]).removesuffix(".git")
        repo = self.hub.repos.get(repo_id)
        if repo is None or parts[0] != repo.kind:
            return self._missing("RepoNotFound")
        return self._answer(repo_id, repo, parts[3:], body)

    do_GET = do_HEAD = do_POST = do_PUT = _handle

    def _create(self, wanted: dict[str, Any]) -> None:
        repo_id = f"{wanted['organization']}/{wanted['name']}"
        url = {"url": f"{self.hub.url}/datasets/{repo_id}"}
        if repo_id in self.hub.repos:
            return self._json({"error": "You already created this dataset repo", **url}, 409)
        self.hub.repos[repo_id] = Repo(private=wanted.get("visibility") == "private")
        return self._json(url)

    def _answer(self, repo_id: str, repo: Repo, route: list[str], body: bytes) -> None:
        match route:
            case [] | ["revision", _]:
                siblings = [{"rfilename": path} for path in repo.files]
                self._json({"id": repo_id, "sha": repo.sha, "private": repo.private, "siblings": siblings, "tags": []})
            case ["preupload", _]:
                paths = [file["path"] for file in json.loads(body)["files"]]
                modes = {path: "lfs" if path.endswith(".parquet") else "regular" for path in paths}
                files = [{"path": path, "uploadMode": mode, "shouldIgnore": False} for path, mode in modes.items()]
                self._json({"files": files})
            case ["info", "lfs", "objects", "batch"]:
                objects = json.loads(body)["objects"]
                for item in objects:
                    item["actions"] = {"upload": {"href": f"{self.hub.url}/upload/{item['oid']}"}}
                self._json({"transfer": "basic", "objects": objects})
            case ["commit", _]:
                self._commit(repo, [json.loads(line) for line in body.splitlines() if line])
                self._json({"commitUrl": f"{self.hub.url}/datasets/{repo_id}/commit/{repo.sha}", "commitOid": repo.sha})
            case ["tree", _, *folder]:
                self._tree(repo, "/".join(folder))
            case ["paths-info", _]:
                wanted = json.loads(body)["paths"]
                self._json([_entry(repo, path) for path in wanted if path in repo.files])
            case ["resolve", _, *file]:
                self._resolve(repo, "/".join(file))
            case _:
                self._missing("EntryNotFound")

    def _commit(self, repo: Repo, lines: list[dict[str, Any]]) -> None:
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                repo.files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                repo.files[value["path"]] = self.hub.uploads[value["oid"]]
            elif line["key"] == "deletedFile":
                del repo.files[value["path"]]

    def _tree(self, repo: Repo, folder: str) -> None:
        start = f"{folder}/" if folder else ""
        entries = [_entry(repo, path) for path in repo.files if path.startswith(start)]
        folders = {path.split("/")[0] for path in repo.files if not folder and "/" in path}
        if not entries:
            return self._missing("EntryNotFound")
        return self._json(entries + [{"type": "directory", "path": name, "oid": "0" * 40} for name in folders])

    def _resolve(self, repo: Repo, path: str) -> None:
        if path not in repo.files:
            return self._missing("EntryNotFound")
        content = repo.files[path]
        etag = hashlib.sha256(content).hexdigest()
        return self._send(200, content, {"X-Repo-Commit": repo.sha, "ETag": f'"{etag}"'})


@contextmanager
def hub_stub(log: Path | None = None) -> Iterator[HubStub]:
    """Serve an empty Hub on a free port of 127.0.0.1 for as long as the context lasts."""
    hub = HubStub(log=log)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
