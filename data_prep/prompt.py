"""The question that rows ask: read from a file, within what a chat template bears."""

import re
import sys
from pathlib import Path

from data_prep.errors import InputError
from data_prep.files import read_text
from data_prep.labels import LABELS

MOST_CHARACTERS = 600  # some 150 tokens beside a frame's hundreds

# Tokens that a chat template or a tokenizer gives a meaning of their own, <|im_end|> and <|image_pad|> among them.
_SPECIAL = re.compile(r"<\|[^|<>]*\|>|<\||\|>")
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ufeff\ufffd]")


def check_plain(prompt: str, name: str) -> None:
    """Raise InputError, beginning with `name`, for a prompt that holds what tokenizers take for a special token."""
    if special := _SPECIAL.search(prompt):
        raise InputError(
            f"{name}: the prompt holds {special[0]!r}, which means something to the chat template; remove it"
        )


def _check_written(prompt: str, name: str) -> None:
    if not prompt:
        raise InputError(f"{name}: the prompt is empty; write the question that is to be asked of each frame")
    if len(prompt) > MOST_CHARACTERS:
        raise InputError(f"{name}: the prompt has {len(prompt)} characters, at most {MOST_CHARACTERS} do; shorten it")
    if control := _CONTROLS.search(prompt):
        raise InputError(f"{name}: the prompt holds the character {control[0]!r}, which isn't text; remove it")
    check_plain(prompt, name)


def read_prompt(path: Path) -> str:
    """Return the question that a text file holds, without the white space around it.

    That it doesn't name both answers is said on stderr: the base would be asked it without knowing them. Raises
    InputError for a file that is missing or no UTF-8 text, and for a prompt that is empty, too long, or holds control
    characters or what tokenizers take for a special token.
    """
    prompt = read_text(path, "--prompt").strip()
    _check_written(prompt, f"--prompt {path}")
    if unnamed := [label for label in LABELS if not re.search(rf"\b{label}\b", prompt)]:
        print(
            f"warning: the prompt doesn't name {' and '.join(unnamed)}; the answers are {' and '.join(LABELS)} all "
            "the same, and a model that wasn't trained on it can't know",
            file=sys.stderr,
        )
    return prompt
