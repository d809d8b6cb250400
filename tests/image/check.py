"""Build the image and do the whole job in it, as a user who isn't root, with what the compose file mounts.

    python -m tests.image.check

It takes the Docker engine that runs, or starts one of its own as root. Where the Dockerfile's base image isn't there, a
small stand-in is made in its place (tests/image/base.py). Where either can't be had, it says so and does nothing.
"""

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from tests.image.base import check_can_stand_in, mounts, write_stand_in
from tests.image.engine import NoEngine, engine
from tests.image.tree import of_the_image, write_clone

NOBODY = 4321  # a user of no name, where the caller is root
IMAGE, STAND_IN = "safe-unsafe-image-check", "safe-unsafe-stand-in"
NOT_FOR_RUN = {"build", "container_name", "gpus", "ports", "profiles", "command", "stop_grace_period", "healthcheck"}
FLAGS = {"user": "--user", "working_dir": "--workdir", "shm_size": "--shm-size"}
SWITCHES = {"init": "--init", "stdin_open": "--interactive", "tty": "--tty"}
LISTS = {"volumes": "--volume", "environment": "--env"}
CLIPS = ["--train-clips", "40", "--test-clips", "8"]  # two of each behaviour, as validation needs
STEPS = [
    ("clips", ["python", "data_prep/make_demo_clips.py", "--out", "data/demo", *CLIPS]),
    ("frames", ["python", "data_prep/extract_frames.py", "--data", "data/demo"]),
    ("rows", ["python", "data_prep/build_jsonl.py", "--data", "data/demo"]),
    ("push", ["python", "data_prep/push_dataset.py", "--data", "data/demo", "--repo-id", "local/safe-unsafe-demo"]),
    ("doctor", ["python", "recipes/doctor.py", "--config", "recipes/configs/demo_cpu.yaml"]),
]
TWO_UPDATES = ["--max_steps", "2", "--eval_steps", "2", "--save_steps", "2", "--linear_probe", "false"]
# What a GPU's run does beside: torch's compiler asks for a name and a folder, and builds launchers with gcc.
AT_HOME = """\
import pathlib, subprocess, sysconfig
from torch._inductor.runtime.cache_dir_utils import cache_dir
(pathlib.Path.home() / "written").touch()
source = pathlib.Path(cache_dir(), "launcher.c")
source.write_text("#include <Python.h>")
headers = sysconfig.get_path("include")
subprocess.run(["gcc", "-shared", "-fPIC", "-I", headers, "-o", source.with_suffix(".so"), source], check=True)
"""
# Presses the page's first example, over HTTP as a browser does, and prints the answer.
ASK = """\
import json, re
from urllib.request import Request, urlopen
page = "http://127.0.0.1:7860/"
assert "SAFE or UNSAFE?" in urlopen(page).read().decode()
config = json.load(urlopen(page + "config"))
button = next(each["id"] for each in config["components"] if "UNSAFE clip" in str(each["props"].get("value")))
number, event = next((i, each) for i, each in enumerate(config["dependencies"]) if [button, "click"] in each["targets"])
job = json.dumps({"data": [0.5 for _ in event["inputs"]], "fn_index": number, "session_hash": "image"}).encode()
urlopen(Request(page + "gradio_api/queue/join", job, {"Content-Type": "application/json"})).read()
for line in urlopen(page + "gradio_api/queue/data?session_hash=image", timeout=300):
    if found := re.search(r"<b class='(SAFE|UNSAFE)'>", line.decode()):
        print(found[1])
        break
"""


class Fault(Exception):
    """The image isn't as it must be. The message says in which way."""


def interpolated(value: str, variables: Mapping[str, str]) -> str:
    """Put variables into a compose file's value as Compose does: `${NAME:-default}`."""
    return re.sub(r"\$\{(\w+):-([^}]*)\}", lambda found: variables.get(found[1]) or found[2], value)


def run_arguments(service: Mapping[str, Any], folder: Path, variables: Mapping[str, str]) -> list[str]:
    """Return the arguments of `docker run` that a compose file's service in `folder` comes to, without its command.

    Raises Fault for a key that isn't known here, so that none is passed over.
    """
    arguments: list[str] = []
    for key, value in service.items():
        if key in FLAGS:
            arguments += [FLAGS[key], interpolated(value, variables)]
        elif key in SWITCHES:
            arguments += [SWITCHES[key]] if value else []
        elif key in LISTS:
            arguments += [part for each in value for part in (LISTS[key], re.sub(r"^\./", f"{folder}/", each))]
        elif key not in NOT_FOR_RUN:
            raise Fault(f"the compose file's key {key!r} isn't known to this check")
    return arguments


def main() -> int:
    """Check the image; 1 where it has a fault."""
    began = time.monotonic()
    try:
        with engine() as docker, tempfile.TemporaryDirectory(prefix="safe-unsafe-clone-") as folder:
            check(docker, Path(folder))
    except NoEngine as reason:
        print(f"image-check SKIPPED: {reason}")
        return 0
    except (Fault, subprocess.CalledProcessError, subprocess.TimeoutExpired) as fault:
        print(f"image-check FAILED: {fault}")
        return 1
    print(f"image-check passed in {time.monotonic() - began:.0f} s")
    return 0


def check(docker: str, folder: Path) -> None:
    """Build the image from a clean clone in `folder`, and do the whole job in it."""
    uid, gid = (os.getuid(), os.getgid()) if os.getuid() else (NOBODY, NOBODY)
    write_clone(folder, uid, gid)
    before = {path.relative_to(folder).as_posix() for path in folder.rglob("*")}
    services = yaml.safe_load((folder / "docker-compose.yml").read_text())["services"]
    variables = {"UID": str(uid), "GID": str(gid), "CONFIG": "recipes/configs/demo_cpu.yaml", "ADAPTER": "outputs/demo"}
    with built(docker, folder) as (image, extra):
        check_content(docker, image)

        def arguments(name: str) -> list[str]:
            return [*run_arguments(services[name], folder, variables), *extra, "--network", "none"]

        def command(name: str) -> list[str]:
            return [interpolated(word, variables) for word in services[name]["command"]]

        with running(docker, [*arguments("vlm"), image]) as shell:
            for what, words in STEPS:
                step(what, [docker, "exec", shell, *words])
            step("home", [docker, "exec", shell, "python", "-c", AT_HOME])
            training = [*command("train"), *TWO_UPDATES]
            step("train", [docker, "run", "--rm", *arguments("train"), image, *training])
            frame = min((folder / "data/demo/frames/test/unsafe").glob("*/0000.jpg")).relative_to(folder)
            asking = ["python", "recipes/infer.py", "--adapter", "outputs/demo", "--image", frame.as_posix()]
            check_answer(step("answer", [docker, "exec", shell, *asking]))
        with running(docker, [*arguments("app"), image, *command("app")]) as page:
            wait_for_page(docker, page)
            check_answer(step("page", [docker, "exec", page, "python", "-c", ASK]))
    check_files(folder, before, uid)


@contextmanager
def built(docker: str, folder: Path) -> Iterator[tuple[str, list[str]]]:
    """Build the image, and give its name and what `docker run` needs beside; both images are removed afterwards."""
    dockerfile = (folder / "Dockerfile").read_text()
    base = re.findall(r"^FROM (\S+)$", dockerfile, flags=re.MULTILINE)[-1]
    extra: list[str] = []
    made = [IMAGE]
    if subprocess.run([docker, "image", "inspect", base], capture_output=True, check=False).returncode:
        check_can_stand_in()
        stand_in = f"{STAND_IN}:{base.partition(':')[2]}"
        timed("stand-in for the base image", lambda: write_stand_in(docker, stand_in))
        made.append(stand_in)
        extra, dockerfile = mounts(), dockerfile.replace(f"FROM {base}", f"FROM {stand_in}")
    try:
        building = [docker, "build", "--network", "host", "--tag", IMAGE, "--file", "-", str(folder)]
        step("build", building, input=dockerfile, env={**os.environ, "DOCKER_BUILDKIT": "1"})
        yield IMAGE, extra
    finally:
        subprocess.run([docker, "rmi", "--force", *made], capture_output=True, check=False)


@contextmanager
def running(docker: str, arguments: list[str]) -> Iterator[str]:
    """Have a container run, and give its id."""
    found = subprocess.run([docker, "run", "--detach", *arguments], capture_output=True, text=True, check=False)
    if found.returncode:
        raise Fault(found.stderr)
    try:
        yield found.stdout.strip()
    finally:
        subprocess.run([docker, "rm", "--force", found.stdout.strip()], capture_output=True, check=False)


def timed(what: str, work: Any) -> Any:
    """Do a piece of work and print how long it took."""
    began = time.monotonic()
    done = work()
    print(f"{what}: {time.monotonic() - began:.0f} s", flush=True)
    return done


def step(what: str, command: list[str], **how: Any) -> str:
    """Run a command and return its stdout. Raises Fault, with the end of what it said, where it fails."""
    done = timed(what, lambda: subprocess.run(command, capture_output=True, text=True, check=False, timeout=900, **how))
    if done.returncode:
        raise Fault(f"{what} ended with status {done.returncode}:\n{(done.stdout + done.stderr)[-4000:]}")
    return done.stdout


def wait_for_page(docker: str, container: str) -> None:
    """Return once the page says where it is."""
    until = time.monotonic() + 300
    while time.monotonic() < until:
        said = subprocess.run([docker, "logs", container], capture_output=True, text=True, check=True)
        if "http://" in said.stdout:
            return
        state = subprocess.check_output([docker, "inspect", "--format", "{{.State.Running}}", container], text=True)
        if state.strip() != "true":
            break
        time.sleep(1)
    raise Fault(f"the page doesn't start:\n{said.stdout}{said.stderr}")


def check_answer(said: str) -> None:
    """Raise Fault unless that is one answer."""
    if said not in ("SAFE\n", "UNSAFE\n"):
        raise Fault(f"one answer was asked for, and {said!r} came")


def check_content(docker: str, image: str) -> None:
    """Raise Fault unless the image holds of the project's folder what runs, and nothing else."""
    listing = [docker, "run", "--rm", "--network", "none", image, "find", ".", "-type", "f", "-printf", "%P\\n"]
    found, expected = set(step("content", listing).splitlines()), of_the_image()
    if found != expected:
        raise Fault(f"the image has {sorted(found - expected)} too much and lacks {sorted(expected - found)}")


def check_files(folder: Path, before: set[str], uid: int) -> None:
    """Raise Fault unless all that was written is the user's, and lies where work belongs."""
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.lstat().st_uid != uid:
            raise Fault(f"{name} is the user's no longer, but {path.lstat().st_uid}'s")
        if name not in before and not name.startswith(("data/", "outputs/", "exports/", "cache/")):
            raise Fault(f"{name} was left in the mounted code")


if __name__ == "__main__":
    sys.exit(main())
