"""The small base over batches of pictures of one size: the same computation as transformers', without its loops.

transformers' vision tower attends within one picture after another; pictures of one size fit one attention call. And
what the language model makes of a picture serves all the questions about it: they stand one after the other behind it,
each blind to the others and at the same positions, as if each were alone.
"""

import torch
from torch.nn import functional
from transformers import Qwen2VLForConditionalGeneration, Qwen2VLProcessor
from transformers.models.qwen2_vl.modeling_qwen2_vl import apply_rotary_pos_emb_vision
from transformers.vision_utils import get_vision_position_ids

from recipes.layers.losses import IGNORED
from tiny_base.pictures import Batch

LABEL_SMOOTHING = 0.1


class Pretraining(torch.nn.Module):
    """A base, and the loss of its answers. `before_ids` are the chat's tokens before the picture."""

    def __init__(
        self, base: Qwen2VLForConditionalGeneration, processor: Qwen2VLProcessor, before_ids: list[int]
    ) -> None:
        super().__init__()
        self.base = base
        images = processor.image_processor
        self.register_buffer("_before_ids", torch.tensor(before_ids), persistent=False)
        self.register_buffer("_mean", 255 * torch.tensor(images.image_mean), persistent=False)
        self.register_buffer("_std", 255 * torch.tensor(images.image_std), persistent=False)

    def loss(self, batch: Batch) -> torch.Tensor:
        """Return the mean cross entropy over all answers' tokens.

        Some smoothing keeps words that are never an answer at an even, moderate distance, whatever the picture shows.
        """
        logits, labels = self.answer_logits(batch)
        return functional.cross_entropy(logits.float(), labels, label_smoothing=LABEL_SMOOTHING)

    def correct(self, batch: Batch) -> torch.Tensor:
        """Return, of shape (pictures * questions,), whether every token of an answer was the likeliest one."""
        logits, labels = self.answer_logits(batch)
        questions = batch.labels.flatten(0, 1)
        rows = (questions != IGNORED).nonzero()[:, 0].to(labels.device)
        misses = torch.zeros(len(questions), device=labels.device)
        return misses.index_add(0, rows, (logits.argmax(-1) != labels).float()) == 0

    def answer_logits(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the logits, of shape (answer tokens, vocabulary), that predict the answers' tokens, and those."""
        device = self._before_ids.device
        labels = batch.labels.to(device).flatten(1)
        hidden = self.hidden_states(batch.pixels.to(device), batch.token_ids.to(device))
        after = hidden[:, -labels.shape[1] - 1 : -1]  # the position before each token is the one that predicts it
        wanted = labels != IGNORED
        return self.base.lm_head(after[wanted]), labels[wanted]

    def hidden_states(self, pixels: torch.Tensor, token_ids: torch.Tensor) -> torch.Tensor:
        """Return the last hidden states, of shape (pictures, length, hidden), of chats about the pictures.

        `pixels` is uint8 of shape (pictures, height, width, 3); `token_ids`, of shape (pictures, questions, n), what
        follows each picture. A chat is what comes before the picture, the picture, and its questions in a row.
        """
        features = self.picture_features(pixels)
        embed = self.base.get_input_embeddings()
        before = embed(self._before_ids).to(features.dtype).expand(len(pixels), -1, -1)
        embeddings = torch.cat([before, features, embed(token_ids.flatten(1)).to(features.dtype)], dim=1)
        shared = before.shape[1] + features.shape[1]
        _, questions, length = token_ids.shape
        positions = self._positions(pixels.shape[1:3], questions, length).expand(-1, len(pixels), -1)
        output = self.base.model.language_model(
            inputs_embeds=embeddings,
            position_ids=positions,
            attention_mask={"full_attention": _blind_to_other_questions(shared, questions, length).to(pixels.device)},
            use_cache=False,
        )
        return output.last_hidden_state

    def picture_features(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return the vision tower's features, of shape (pictures, visual tokens, hidden)."""
        visual = self.base.model.visual
        patches = self._patches(pixels)
        pictures, count, _ = patches.shape
        kernel = visual.patch_embed.proj.weight
        hidden = functional.linear(patches, kernel.flatten(1))
        cos, sin = self._vision_rotations(pixels.shape[1:3], hidden)
        for block in visual.blocks:
            hidden = hidden + _attend(block.attn, block.norm1(hidden), cos, sin)
            hidden = hidden + block.mlp(block.norm2(hidden))
        return visual.merger(hidden.flatten(0, 1)).view(pictures, count // visual.spatial_merge_size**2, -1)

    def _grid(self, size: torch.Size) -> tuple[int, int]:
        patch = self.base.config.vision_config.patch_size
        return size[0] // patch, size[1] // patch

    def _patches(self, pixels: torch.Tensor) -> torch.Tensor:
        """Cut pictures into patches, of shape (pictures, patches, values), in the image processor's order."""
        config = self.base.config.vision_config
        rows, columns = self._grid(pixels.shape[1:3])
        merge, patch = config.spatial_merge_size, config.patch_size
        values = (pixels - self._mean) / self._std
        cut = values.view(len(pixels), rows // merge, merge, patch, columns // merge, merge, patch, 3)
        cut = cut.permute(0, 1, 4, 2, 5, 7, 3, 6).unsqueeze(6)  # a still picture is shown for every time step
        return cut.expand(*cut.shape[:6], config.temporal_patch_size, patch, patch).reshape(
            len(pixels), rows * columns, -1
        )

    def _vision_rotations(self, size: torch.Size, hidden: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        visual = self.base.model.visual
        grid = torch.tensor([[1, *self._grid(size)]], device=hidden.device)
        positions = get_vision_position_ids(grid, visual.spatial_merge_size, kwargs={})
        return visual.rotary_pos_emb(hidden[0], positions)

    def _positions(self, size: torch.Size, questions: int, length: int) -> torch.Tensor:
        """Return the three rotary positions, of shape (3, 1, tokens), of chats that hold one picture of `size`.

        As in Qwen2-VL (arXiv 2409.12191): text counts on in all three; a picture's tokens count rows and columns from
        where it stands, and the text after it, each of the questions, goes on after the larger of the two.
        """
        merge = self.base.config.vision_config.spatial_merge_size
        rows, columns = (side // merge for side in self._grid(size))
        start, device = len(self._before_ids), self._before_ids.device
        text = torch.arange(start, device=device).expand(3, -1)
        row, column = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
        picture = torch.stack([torch.zeros_like(row), row, column]).flatten(1).to(device) + start
        rest = torch.arange(length, device=device).repeat(questions).expand(3, -1) + start + max(rows, columns)
        return torch.cat([text, picture, rest], dim=1).unsqueeze(1)


def _blind_to_other_questions(shared: int, questions: int, length: int) -> torch.Tensor:
    """Return which token sees which, of shape (1, 1, tokens, tokens): the `shared` first, and earlier ones of its own.

    Padding stands at each question's end, where no token that counts looks.
    """
    owner = torch.cat([torch.zeros(shared), 1 + torch.arange(questions).repeat_interleave(length)])
    visible = (owner[None] == 0) | (owner[None] == owner[:, None])
    return visible.tril()[None, None]


def _attend(attention: torch.nn.Module, hidden: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Attend within each picture: `hidden` is of shape (pictures, patches, width)."""
    pictures, count, width = hidden.shape
    query, key, value = attention.qkv(hidden).view(pictures, count, 3, attention.num_heads, -1).unbind(2)
    query, key = apply_rotary_pos_emb_vision(query, key, cos, sin)
    query, key, value = (each.transpose(1, 2).to(hidden.dtype) for each in (query, key, value))
    attended = functional.scaled_dot_product_attention(query, key, value)
    return attention.proj(attended.transpose(1, 2).reshape(pictures, count, width))
