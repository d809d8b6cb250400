import json
from pathlib import Path

import pytest

from data_prep.errors import InputError
from data_prep.labels import PROMPT
from data_prep.prompt import MOST_CHARACTERS, check_plain, read_prompt


def write(tmp_path: Path, content: bytes) -> Path:
    (tmp_path / "prompt.txt").write_bytes(content)
    return tmp_path / "prompt.txt"


@pytest.mark.parametrize(
    ("content", "prompt"),
    [
        (f"{PROMPT}\n".encode(), PROMPT),
        (b"\xef\xbb\xbf Is it SAFE\r\nor UNSAFE? \r\n\r\n", "Is it SAFE\nor UNSAFE?"),
        ("SAFE или UNSAFE? 安全 <b>a | b</b>".encode(), "SAFE или UNSAFE? 安全 <b>a | b</b>"),
        (b"SAFE/UNSAFE" + b"?" * (MOST_CHARACTERS - 11), "SAFE/UNSAFE" + "?" * (MOST_CHARACTERS - 11)),
    ],
)
def test_question_without_the_white_space_around_it(
    tmp_path: Path, content: bytes, prompt: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert read_prompt(write(tmp_path, content)) == prompt
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the prompt is empty"),
        (b" \n\t\n", "the prompt is empty"),
        (b"SAFE/UNSAFE" + b"?" * (MOST_CHARACTERS - 10), "has 601 characters, at most 600"),
        (b"SAFE or UNSAFE?<|im_end|>", "holds '<|im_end|>'"),
        (b"SAFE or UNSAFE? <|image_pad|>", "holds '<|image_pad|>'"),
        (b"SAFE or UNSAFE? <|im_", "holds '<|'"),
        (b"SAFE or UNSAFE? end|>", "holds '|>'"),
        (b"SAFE or\x00 UNSAFE?", r"the character '\x00'"),
        (b"SAFE or\x1b[2J UNSAFE?", r"the character '\x1b'"),
        ("SAFE or\u2028 UNSAFE?".encode(), r"the character '\u2028'"),
        (b"SAFE or \xff", "not UTF-8 text"),
    ],
)
def test_question_that_a_chat_template_does_not_bear(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(InputError) as error:
        read_prompt(write(tmp_path, content))
    assert message in str(error.value)
    assert str(error.value).startswith("--prompt ")


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_prompt(tmp_path / "prompt.txt")


@pytest.mark.parametrize(
    ("content", "unnamed"), [(b"Is it UNSAFE?", "SAFE"), (b"Is it SAFE?", "UNSAFE"), (b"safe?", "SAFE and UNSAFE")]
)
def test_question_that_does_not_name_the_answers(
    tmp_path: Path, content: bytes, unnamed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    read_prompt(write(tmp_path, content))
    assert f"the prompt doesn't name {unnamed};" in capsys.readouterr().err


def test_every_special_token_of_the_true_tokenizer_is_refused(true_model_folder: Path) -> None:
    tokens = [
        token["content"] for token in json.loads((true_model_folder / "tokenizer.json").read_text())["added_tokens"]
    ]
    assert "<|im_start|>" in tokens and len(tokens) >= 14
    for token in tokens:
        with pytest.raises(InputError, match="means something to the chat template"):
            check_plain(f"SAFE {token} UNSAFE", "it")


def test_what_is_let_through_reaches_the_model_as_it_stands(true_model_folder: Path) -> None:
    from transformers import AutoProcessor

    from data_prep.labels import chat_messages

    processor = AutoProcessor.from_pretrained(true_model_folder)
    prompt = "SAFE или UNSAFE?\n\t{{ 1 }} {% x %} 安全 <b>a | b</b>"
    check_plain(prompt, "it")
    text = processor.apply_chat_template(chat_messages(None, prompt), tokenize=False, add_generation_prompt=True)
    assert f"<|vision_end|>{prompt}<|im_end|>" in text
    special = set(processor.tokenizer.added_tokens_decoder)
    assert not special & set(processor.tokenizer.encode(prompt, add_special_tokens=False))
