"""An export that another engine serves, asked in OpenAI's chat form: P(UNSAFE) from the two tokens' log-probabilities.

vLLM gives those of any token that is named (`logprob_token_ids`, from 0.30 on), llama.cpp's server and others those of
the likeliest; none of them changes P, which is the softmax of the two.
"""

import base64
import contextlib
import io
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from huggingface_hub.utils import httpx
from PIL import Image

from data_prep.errors import InputError
from data_prep.labels import LABELS, SAFE, UNSAFE
from data_prep.media.frame_format import shrunk_to
from recipes.adapter.label_tokens import LabelToken
from recipes.adapter.safety_record import SafetyRecord
from recipes.batches.shrinking import shrunk_size
from recipes.layers.sizes import TOKEN_SIDE

SECONDS_TO_CONNECT, SECONDS_TO_ANSWER = 5.0, 600.0  # a 7B on a host's cores takes minutes a frame
LIKELIEST, MANY = 20, 2000  # tokens asked for: what every server gives, and what some do
_LEAST, _MOST = -1000.0, 1e-3  # below lies what servers put for one that they don't know; above, only rounding
_KEY = "OPENAI_API_KEY"


@dataclass(frozen=True)
class ServedModel:
    """A model that a server at `url` answers for under a `name`, asked as `record` says.

    `tokens` are the labels' first ones. The frames are sent at the size that the model is to see them at, so that it
    doesn't depend on the server's own limits.
    """

    url: str
    name: str
    record: SafetyRecord
    tokens: Mapping[str, LabelToken]
    client: httpx.Client

    def p_unsafe(self, images: Sequence[Image.Image]) -> list[float]:
        """Return P(UNSAFE) of each RGB image, asked one by one.

        Raises InputError where the server can't be reached, refuses, or gives no log-probabilities of both tokens.
        """
        return [self._ask(image) for image in images]

    def _ask(self, image: Image.Image) -> float:
        url = as_png_url(image, self.record)
        found = self._log_probabilities(url, LIKELIEST)
        if len(found) < len(LABELS):
            with contextlib.suppress(InputError):  # what a server says that gives no more than it gave
                found = self._log_probabilities(url, MANY)
        if len(found) == len(LABELS):
            return 1 / (1 + math.exp(min(found[SAFE] - found[UNSAFE], 700.0)))
        lacking = next(self.tokens[label] for label in LABELS if label not in found)
        raise InputError(
            f"--server {self.url} gave no probability of {lacking.text!r}, so there is no P({UNSAFE}); one that gives "
            "logprobs of named tokens, or of many, is needed: vLLM from 0.30 on, or llama.cpp's"
        )

    def _log_probabilities(self, image_url: str, likeliest: int) -> dict[str, float]:
        """Return the labels' log-probabilities, but for those that the server doesn't give."""
        content = [{"type": "image_url", "image_url": {"url": image_url}}, {"type": "text", "text": self.record.prompt}]
        request = {
            "model": self.name,
            "messages": [{"role": "user", "content": content}],
            "max_tokens": 1,
            "temperature": 0,
            "logprobs": True,
            "top_logprobs": likeliest,
            "logprob_token_ids": [self.tokens[label].id for label in LABELS],
        }
        answer = asked(self.client, self.url, "POST", "/chat/completions", request)
        try:
            position = answer["choices"][0]["logprobs"]["content"][0]
            given = [position, *position["top_logprobs"]]
            by_token = [(entry.get("id"), entry["token"], float(entry["logprob"])) for entry in given]
        except (KeyError, IndexError, TypeError, ValueError, AttributeError):
            return {}
        return {
            label: value
            for label, token in self.tokens.items()
            for number, text, value in by_token
            if _is(token, number, text) and _LEAST < value <= _MOST
        }


def _is(token: LabelToken, number: Any, text: str) -> bool:
    """Say whether a server means a token: by its number where it gives that, else by what it stands for."""
    return token.id == number if isinstance(number, int) else text in (token.text, f"token_id:{token.id}")


def as_png_url(image: Image.Image, record: SafetyRecord) -> str:
    """Return an RGB image as a data URL, shrunk as training's frames were and to the size that the model sees."""
    image = shrunk_to(image, record.max_side)
    height, width = shrunk_size(image, record.max_pixels, TOKEN_SIDE)
    content = io.BytesIO()
    image.convert("RGB").resize((width, height)).save(content, format="PNG")
    return f"data:image/png;base64,{base64.b64encode(content.getvalue()).decode()}"


def reach_server(url: str, name: str | None, record: SafetyRecord, tokens: Mapping[str, LabelToken]) -> ServedModel:
    """Return the model that a server answers for: the one of that name, or its only one.

    A key that the server wants is taken from OPENAI_API_KEY. Raises InputError where the server can't be reached, and
    where it has no such model, or several and none is named.
    """
    url = url.rstrip("/")
    key = os.environ.get(_KEY, "").strip()
    if not (key.isascii() and (key.isprintable() or not key)):
        raise InputError(f"{_KEY} holds characters that no key has; set it anew")
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    try:
        client = httpx.Client(headers=headers, timeout=httpx.Timeout(SECONDS_TO_ANSWER, connect=SECONDS_TO_CONNECT))
    except (ImportError, ValueError) as error:
        raise InputError(f"the proxy in HTTP_PROXY, HTTPS_PROXY or ALL_PROXY can't be used: {error}") from None
    listed = asked(client, url, "GET", "/models")
    try:
        names = [str(model["id"]) for model in listed["data"]]
    except (KeyError, TypeError):
        names = []
    if name is None and len(names) != 1:
        raise InputError(
            f"--server {url} answers for {len(names)} models ({', '.join(names)}); name one with --server-model"
        )
    if name is not None and name not in names:
        raise InputError(f"--server {url} has no model {name!r}, but {', '.join(names) or 'none'}")
    return ServedModel(url, name or names[0], record, tokens, client)


def asked(client: httpx.Client, url: str, method: str, path: str, request: Any = None) -> dict[str, Any]:
    """Return the object that a server answers with. Raises InputError where it gives none."""
    try:
        response = client.request(method, url + path, json=request)
    except httpx.ReadTimeout:
        raise InputError(f"--server {url} hasn't answered within {SECONDS_TO_ANSWER:.0f} s") from None
    except (httpx.RequestError, httpx.InvalidURL, UnicodeError) as error:
        reason = " ".join(f"{type(error).__name__} {error}".split())
        raise InputError(f"--server {url} can't be reached ({reason}); is it running? its URL ends in /v1") from None
    if response.status_code == httpx.codes.UNAUTHORIZED:
        raise InputError(f"--server {url} wants a key; put it into {_KEY}")
    try:
        found = response.json()
    except ValueError:
        found = None
    if response.status_code != httpx.codes.OK or not isinstance(found, dict):
        reason = " ".join(response.text.split())[:200]
        raise InputError(f"--server {url}{path} answered {response.status_code}: {reason}")
    return found
