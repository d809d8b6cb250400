"""The tokens that the two answers begin with, read from a folder's tokenizer.json alone. Imports no torch."""

from pathlib import Path
from typing import NamedTuple

from tokenizers import Tokenizer

from data_prep.errors import InputError
from data_prep.labels import LABELS


class LabelToken(NamedTuple):
    """The first token of an answer: its number, and what it stands for."""

    id: int
    text: str


def label_tokens(folder: Path) -> dict[str, LabelToken]:
    """Return the first token of each label. Raises InputError where the tokenizer is missing, damaged or can't tell."""
    file = folder / "tokenizer.json"
    if not file.is_file():
        raise InputError(f"{file}: no such file; name the folder of a finished run or an export")
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:  # tokenizers raises nothing more special
        raise InputError(f"{file} is damaged ({error}); fetch it again") from None
    first = {label: tokenizer.encode(label, add_special_tokens=False).ids[0] for label in LABELS}
    if len(set(first.values())) != len(first):
        raise InputError(f"{file}: both answers begin with the same token, which can't tell them")
    return {label: LabelToken(number, tokenizer.decode([number])) for label, number in first.items()}
