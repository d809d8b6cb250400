"""The project's documents, and what they show: commands, words set as code, headings."""

import re
import subprocess
from functools import cache
from pathlib import Path

from data_prep.files import PROJECT_ROOT

README = PROJECT_ROOT / "README.md"
DOCS = sorted((PROJECT_ROOT / "docs").glob("*.md"))
BENCHMARKS = PROJECT_ROOT / "benchmarks" / "README.md"
SMALL_BASE = PROJECT_ROOT / "tiny_base" / "weights" / "README.md"
CHANGELOG = PROJECT_ROOT / "CHANGELOG.md"
DOCUMENTS = [README, *DOCS, BENCHMARKS, SMALL_BASE, CHANGELOG]


def name_of(document: Path) -> str:
    """Return a document's path from the project's root."""
    return document.relative_to(PROJECT_ROOT).as_posix()


@cache
def tracked_folders() -> set[str]:
    """Return every folder of which git keeps a file, from the project's root."""
    done = subprocess.run(["git", "ls-files"], cwd=PROJECT_ROOT, capture_output=True, text=True, check=True)
    parents = {parent.as_posix() for name in done.stdout.splitlines() for parent in Path(name).parents}
    return parents - {"."}


def without_blocks(text: str) -> str:
    """Return a document's text without its blocks of code."""
    return re.sub(r"^ *```.*?^ *```$", "", text, flags=re.DOTALL | re.MULTILINE)


def blocks_of(text: str, language: str) -> list[str]:
    """Return the content of a document's blocks of code of a language, '' for those that name none."""
    blocks = re.findall(r"^ *```(\w*)\n(.*?)^ *```$", text, flags=re.DOTALL | re.MULTILINE)
    return [content for named, content in blocks if named == language]


def code_of(document: Path) -> list[str]:
    """Return what a document sets as code within its lines, each in one line."""
    paragraphs = without_blocks(document.read_text()).split("\n\n")
    return [" ".join(code.split()) for paragraph in paragraphs for code in re.findall(r"`([^`]+)`", paragraph)]


def commands_of(document: Path) -> list[str]:
    """Return a document's shell commands: lines of bash blocks, and code within lines that begins with one."""
    lines = [line.strip() for block in blocks_of(document.read_text(), "bash") for line in block.splitlines()]
    return [line for line in lines if line] + [
        code for code in code_of(document) if code.startswith(("python ", "accelerate launch "))
    ]


def anchors_of(document: Path) -> list[str]:
    """Return what GitHub makes of a document's headings for links."""
    headings = re.findall(r"^#+ (.*)$", without_blocks(document.read_text()), flags=re.MULTILINE)
    return [re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings]


def links_of(document: Path) -> list[str]:
    """Return where a document's links and pictures lead, but for those to other sites."""
    targets = re.findall(r"\]\(([^)\s]+)\)", without_blocks(document.read_text()))
    return [target for target in targets if "://" not in target]
