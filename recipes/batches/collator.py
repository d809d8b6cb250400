"""The vision collator: rows to a batch, loss on the answer alone."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from PIL import Image
from transformers.processing_utils import ProcessorMixin

from data_prep.labels import LABELS, chat_messages
from data_prep.media.frame_format import shrunk_to
from data_prep.media.images import read_image
from recipes.batches.loader import Row, encoded_image, threads_to_decode
from recipes.batches.shrinking import shrunk, shrunk_on, shrunk_size
from recipes.layers.losses import IGNORED

DECISION_SHARE = 0.5
PIXELS_VERSION = 2  # raised with every change in what `pixels` gives for a frame: kept vision features come from it
ROW = "row"  # the column of a training row's number, which a batch carries along for whoever notes what became of it
CPU = torch.device("cpu")


class VisionCollator:
    """Turn rows of the frames data set into a batch for recipes/model/forward.py, on the CPU.

    A row holds `image` (`{"bytes": …}` or an RGB image of read_image), `prompt` and `response`. Frames are shrunk once,
    here, to at most `max_pixels`, and their patches are given in `dtype`, the vision tower's own. A frame of more than
    `max_side` pixels a side is shrunk to that before, as extraction shrank those that training gets. Prompts are padded
    on the left and answers on the right, to the longest answer, so that all rows answer from the same position on;
    where frames have one size nothing needs a mask. `read_features` gives a frame's features and grid from its encoded
    bytes where the tower has seen it before (vision_cache.py); no image is decoded then. Patches are cut on `device`,
    and stay there; on the CPU, which workers need, by default. Another device shrinks frames, too, a little
    differently.

    The answer is all that is learned: its tokens and the end of turn. Half of a row's weight lies on the first of
    them, which alone tells SAFE from UNSAFE, and half is spread over the rest; so an answer of more tokens weighs no
    more, and its decision no less. `label_weights` scales whole rows by their label.
    """

    def __init__(
        self,
        processor: ProcessorMixin,
        max_pixels: int,
        label_weights: Mapping[str, float] | None = None,
        *,
        max_side: int | None = None,
        dtype: torch.dtype = torch.float32,
        read_features: Callable[[bytes], tuple[torch.Tensor, torch.Tensor]] | None = None,
        device: torch.device = CPU,
    ) -> None:
        self.processor = processor
        self.max_pixels = max_pixels
        self.max_side = max_side
        self.label_weights = label_weights or dict.fromkeys(LABELS, 1.0)
        self.dtype = dtype
        self.read_features = read_features
        self.device = device
        self.answer_ids = {label: self._answer_ids(label) for label in LABELS}
        self.rival_ids = {label: self.answer_ids[other][0] for label, other in zip(LABELS, LABELS[::-1], strict=True)}
        self.longest_answer = max(len(ids) for ids in self.answer_ids.values())
        self._prompt_ids: dict[str, list[int]] = {}

    def _answer_ids(self, label: str) -> list[int]:
        tokenizer = self.processor.tokenizer
        return tokenizer.encode(label + tokenizer.eos_token, add_special_tokens=False)

    def __call__(self, rows: Sequence[Row]) -> dict[str, torch.Tensor]:
        """Build a training batch: the model's inputs, `labels`, `loss_weights`, `rivals`, and `row` of numbered rows.

        Labels and weights have shape (batch, longest_answer): the answers alone, which are a row's last tokens.
        `rivals`, of shape (batch,), is the first token of the other answer; `row`, likewise, each row's number.
        """
        answers = [row["response"] for row in rows]
        batch = self._inputs(rows, [self.answer_ids[answer] for answer in answers], self.longest_answer)
        batch["labels"] = torch.full((len(rows), self.longest_answer), IGNORED)
        batch["loss_weights"] = torch.zeros(len(rows), self.longest_answer)
        batch["rivals"] = torch.tensor([self.rival_ids[answer] for answer in answers])
        if ROW in rows[0]:
            batch[ROW] = torch.tensor([row[ROW] for row in rows])
        for row, answer in enumerate(answers):
            ids = self.answer_ids[answer]
            batch["labels"][row, : len(ids)] = torch.tensor(ids)
            batch["loss_weights"][row, : len(ids)] = self.label_weights[answer] * _token_shares(len(ids))
        return batch

    def prompts(self, rows: Sequence[Row]) -> dict[str, torch.Tensor]:
        """Build a batch that ends where the answer begins, ready to be scored. `response` isn't read."""
        return self._inputs(rows, [[]] * len(rows), 0)

    def vision(self, rows: Sequence[Row]) -> dict[str, torch.Tensor]:
        """Return what there is to see in the rows' frames: their features where those are kept, else pixels."""
        return self.pixels(rows) if self.read_features is None else self._features(rows)

    def pixels(self, rows: Sequence[Row]) -> dict[str, torch.Tensor]:
        """Decode and shrink the rows' frames: `pixel_values` (patches, 1176) and `image_grid_thw` (batch, 3).

        On the CPU by as many threads as have cores: a worker's first batch is what a card waits for.
        """
        threads = min(len(rows), threads_to_decode()) if self.device.type == "cpu" else 1
        if threads == 1:
            frames = [self._frame(row) for row in rows]
        else:
            with ThreadPoolExecutor(threads) as pool:
                frames = list(pool.map(self._frame, rows))
        patches, grids = zip(*map(self._patches, frames), strict=True)
        return {"pixel_values": torch.cat(patches), "image_grid_thw": torch.cat(grids)}

    def _frame(self, row: Row) -> Image.Image | torch.Tensor:
        """Return a row's frame, decoded and shrunk."""
        image = row["image"]
        if not isinstance(image, Image.Image):
            image = read_image(image["bytes"], image.get("path"))
        image = shrunk_to(image, self.max_side)
        images = self.processor.image_processor
        size = shrunk_size(image, self.max_pixels, images.patch_size * images.merge_size)
        return shrunk(image, size) if self.device.type == "cpu" else shrunk_on(self.device, image, size)

    def _patches(self, frame: Image.Image | torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return one frame's patches and grid: frame by frame they stay in the processor's cache, a batch doesn't."""
        # The frame comes resized; a second resize would blur it and break the one pixel limit.
        pixels = self.processor.image_processor(images=[frame], do_resize=False, return_tensors="pt")
        return pixels["pixel_values"].to(self.dtype), pixels["image_grid_thw"].cpu()

    def _features(self, rows: Sequence[Row]) -> dict[str, torch.Tensor]:
        assert self.read_features is not None
        features, grids = zip(*(self.read_features(encoded_image(row)) for row in rows), strict=True)
        return {"image_features": torch.cat(features), "image_grid_thw": torch.stack(grids)}

    def _inputs(self, rows: Sequence[Row], endings: Sequence[Sequence[int]], width: int) -> dict[str, torch.Tensor]:
        """Lay prompts out to the left and `endings`, padded to `width`, to the right of one common position."""
        batch = self.vision(rows)
        merge = self.processor.image_processor.merge_size
        laid_out = [
            self._with_image(self.prompt_ids(row["prompt"]), (grid[1] // merge, grid[2] // merge), width)
            for row, grid in zip(rows, batch["image_grid_thw"].tolist(), strict=True)
        ]
        longest = max(len(ids) for ids, _ in laid_out)
        pad = self.processor.tokenizer.pad_token_id
        batch["input_ids"] = torch.full((len(rows), longest + width), pad)
        batch["position_ids"] = torch.zeros(3, len(rows), longest + width, dtype=torch.long)
        for row, ((ids, positions), ending) in enumerate(zip(laid_out, endings, strict=True)):
            batch["input_ids"][row, longest - len(ids) : longest] = torch.tensor(ids)
            batch["input_ids"][row, longest : longest + len(ending)] = torch.tensor(ending, dtype=torch.long)
            batch["position_ids"][:, row, longest - len(ids) :] = positions
        lengths = torch.tensor([len(ids) for ids, _ in laid_out])
        if (lengths < longest).any():  # what stands to the right is kept out by causal attention alone
            batch["attention_mask"] = (torch.arange(longest + width) >= longest - lengths[:, None]).long()
        return batch

    def prompt_ids(self, prompt: str) -> list[int]:
        """Return the tokens of a conversation that asks `prompt` of one image, up to where the answer begins."""
        if prompt not in self._prompt_ids:
            text = self.processor.apply_chat_template(
                chat_messages(None, prompt), tokenize=False, add_generation_prompt=True
            )
            self._prompt_ids[prompt] = self.processor.tokenizer.encode(text, add_special_tokens=False)
        return self._prompt_ids[prompt]

    def _with_image(self, ids: Sequence[int], size: tuple[int, int], following: int) -> tuple[list[int], torch.Tensor]:
        """Return the prompt with its image mark repeated for `size` (height, width) visual tokens, and the positions.

        Positions have shape (3, length + following): M-RoPE's time, height and width (arXiv 2409.12191).
        """
        before, (height, width) = ids.index(self.processor.image_token_id), size
        expanded = [*ids[:before], *[self.processor.image_token_id] * (height * width), *ids[before + 1 :]]
        rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        image = torch.stack([torch.zeros_like(rows), rows, columns]).flatten(1) + before
        text = torch.arange(len(ids) - before - 1 + following) + before + max(height, width)
        return expanded, torch.cat([torch.arange(before).expand(3, -1), image, text.expand(3, -1)], dim=1)


def _token_shares(count: int) -> torch.Tensor:
    """Return the shares, of shape (count,) and summing to 1, that an answer's tokens have of its row's weight."""
    if count == 1:
        return torch.ones(1)
    shares = torch.full((count,), (1 - DECISION_SHARE) / (count - 1))
    shares[0] = DECISION_SHARE
    return shares


def balanced_label_weights(responses: Sequence[str]) -> dict[str, float]:
    """Return a weight per label such that both labels have the same total and the mean over `responses` is 1."""
    return {label: len(responses) / (len(LABELS) * responses.count(label)) for label in LABELS}
