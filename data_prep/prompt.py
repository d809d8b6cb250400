"""The question that rows ask: read from a file, within what a chat template bears."""

import re
import sys
from pathlib import Path

from data_prep.errors import InputError
from data_prep.labels import LABELS

MOST_CHARACTERS = 600  # some 150 tokens beside a frame's hundreds

# Tokens that a chat template or a tokenizer gives a meaning of their own, <|im_end|> and <|image_pad|> among them.
_SPECIAL = re.compile(r"<\|[^|<>]*\|>|<\||\|>")
_CONTROLS = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\ufeff\ufffd]")


def check_prompt(prompt: str, name: str) -> None:
    """Raise InputError, beginning with `name`, for a prompt that a chat template wouldn't pass on as it stands.

    It is empty, too long, holds control characters, or a part of what tokenizers take for a special token.
    """
    if not prompt.strip():
        raise InputError(f"{name}: the prompt is empty; write the question that is to be asked of each frame")
    if len(prompt) > MOST_CHARACTERS:
        raise InputError(
            f"{name}: the prompt has {len(prompt)} characters; at most {MOST_CHARACTERS}, write it shorter"
        )
    if special := _SPECIAL.search(prompt):
        raise InputError(
            f"{name}: the prompt holds {special[0]!r}, which means something to the chat template; remove it"
        )
    if control := _CONTROLS.search(prompt):
        raise InputError(f"{name}: the prompt holds the control character {control[0]!r}; remove it")


def read_prompt(path: Path) -> str:
    """Return the question that a text file holds, without the white space around it.

    That it doesn't name both answers is said on stderr: the base would be asked it without knowing them. Raises
    InputError for a file that is missing or no UTF-8 text, and as check_prompt does.
    """
    try:
        prompt = path.read_text(encoding="utf-8-sig").strip()
    except (FileNotFoundError, IsADirectoryError):
        raise InputError(f"--prompt {path}: no such file") from None
    except UnicodeDecodeError as error:
        raise InputError(f"--prompt {path}: not UTF-8 text ({error.reason} at byte {error.start})") from None
    check_prompt(prompt, f"--prompt {path}")
    if unnamed := [label for label in LABELS if not re.search(rf"\b{label}\b", prompt)]:
        print(
            f"warning: the prompt doesn't name {' and '.join(unnamed)}; the answers are {' and '.join(LABELS)} all "
            "the same, and a model that wasn't trained on it can't know",
            file=sys.stderr,
        )
    return prompt
