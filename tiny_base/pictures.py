"""Freshly drawn pictures with questions about them, as batches of arrays for the small base's pretraining."""

import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import count

import numpy as np
import torch
from PIL import Image
from qwen_vl_utils import fetch_image
from torch.utils.data import IterableDataset, get_worker_info
from transformers import Qwen2VLProcessor

from data_prep.demo.renderer import Renderer
from data_prep.demo.scenes import sample_scene
from data_prep.demo.stage import SECONDS_IN_VIEW
from data_prep.labels import chat_messages
from recipes.layers.losses import IGNORED
from tiny_base.architecture import MAX_PIXELS
from tiny_base.questions import Question, ask

# The first word of every seed drawn from here. The demo's seeds stay below it, so that no scene is drawn twice.
SEED_BASE = 2**31

PICTURES_PER_SCENE = 5
SCENES = (0, 1, 2, 3, 3, 3, 4, 5, 6, 7, 7, 7)  # class digits; bins are the hardest to count


@dataclass(frozen=True)
class Batch:
    """Pictures and, for each of them, the same number of questions.

    `pixels` is uint8 of shape (pictures, height, width, 3). `token_ids` and `labels` are int64 of shape
    (pictures, questions, length): what follows the picture in the chat, padded on the right, and the same with
    everything but the answers ignored. `topics` names each question's topic, picture by picture.
    """

    pixels: torch.Tensor
    token_ids: torch.Tensor
    labels: torch.Tensor
    topics: list[str]


class ChatEncoder:
    """Puts questions and answers into the chat template, as token ids before and after the picture."""

    def __init__(self, processor: Qwen2VLProcessor) -> None:
        self.tokenizer = processor.tokenizer
        template = processor.apply_chat_template(chat_messages(None, "{}"), tokenize=False, add_generation_prompt=True)
        before, self._after = template.split("<|image_pad|>")
        self.before_ids: list[int] = self.tokenizer.encode(before, add_special_tokens=False)

    def encode(self, questions: Iterable[Question]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return token ids and labels of what follows the picture, both of shape (questions, length)."""
        questions = list(questions)
        prompts = [self._after.replace("{}", question.text) for question in questions]
        answers = [question.answer + self.tokenizer.eos_token for question in questions]
        prompt_ids = self.tokenizer(prompts, add_special_tokens=False)["input_ids"]
        answer_ids = self.tokenizer(answers, add_special_tokens=False)["input_ids"]
        length = max(len(prompt) + len(answer) for prompt, answer in zip(prompt_ids, answer_ids, strict=True))
        length += -length % 8  # the attention kernels like it
        token_ids = torch.full((len(questions), length), self.tokenizer.pad_token_id)
        labels = torch.full((len(questions), length), IGNORED)
        for row, (prompt, answer) in enumerate(zip(prompt_ids, answer_ids, strict=True)):
            end = len(prompt) + len(answer)
            token_ids[row, :end] = torch.tensor(prompt + answer)
            labels[row, len(prompt) : end] = torch.tensor(answer)
        return token_ids, labels


class FreshPictures(IterableDataset):
    """An endless stream of batches. Batch k is decided by `seed` and k alone, however many workers draw."""

    def __init__(self, encoder: ChatEncoder, *, seed: int, pictures: int, questions: int) -> None:
        self._encoder = encoder
        self._seed = seed
        self._pictures = pictures
        self._questions = questions

    def __iter__(self) -> Iterator[Batch]:
        worker = get_worker_info()
        first, step = (worker.id, worker.num_workers) if worker else (0, 1)
        return (self.batch(index) for index in count(first, step))

    def batch(self, index: int) -> Batch:
        """Draw batch number `index`."""
        rng = np.random.default_rng([SEED_BASE + self._seed, index])
        pixels: list[np.ndarray] = []
        questions: list[Question] = []
        while len(pixels) < self._pictures:
            scene = sample_scene(int(rng.choice(SCENES)), rng)
            renderer = Renderer(scene)
            for _ in range(min(PICTURES_PER_SCENE, self._pictures - len(pixels))):
                seconds = float(rng.uniform(0, SECONDS_IN_VIEW))
                pixels.append(_as_seen(renderer.frame(seconds), rng))
                questions += ask(scene, seconds, rng, self._questions)
        token_ids, labels = (ids.view(self._pictures, self._questions, -1) for ids in self._encoder.encode(questions))
        return Batch(torch.from_numpy(np.stack(pixels)), token_ids, labels, [each.topic for each in questions])


def _as_seen(picture: Image.Image, rng: np.random.Generator) -> np.ndarray:
    """Compress a picture, more or less, and shrink it as the collator does: uint8 of shape (height, width, 3)."""
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=int(rng.integers(25, 95)))
    return np.asarray(fetch_image({"image": Image.open(file), "max_pixels": MAX_PIXELS}))
