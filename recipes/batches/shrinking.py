"""The size at which the model sees a frame, and frames shrunk to it, on the CPU or on another device."""

import numpy as np
import torch
from PIL import Image
from qwen_vl_utils import smart_resize
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2.functional import resize


def shrunk_size(image: Image.Image, max_pixels: int, multiple: int) -> tuple[int, int]:
    """Return the height and width, multiples of `multiple`, at which the model sees an image: qwen-vl-utils' size.

    That has at most `max_pixels`. Of a strip so narrow that qwen-vl-utils leaves nothing of a side, one multiple stays,
    and of its length what the limit allows.
    """
    height, width = smart_resize(image.height, image.width, multiple, max_pixels=max_pixels)
    longest = max_pixels // multiple**2 * multiple if 0 in (height, width) else max(height, width)
    return min(max(height, multiple), longest), min(max(width, multiple), longest)


def shrunk(image: Image.Image, size: tuple[int, int]) -> torch.Tensor:
    """Return an RGB image as uint8 of shape (3, height, width), resized to `size` as qwen-vl-utils does."""
    height, width = size
    return torch.from_numpy(np.array(image.convert("RGB").resize((width, height)))).permute(2, 0, 1)


def shrunk_on(device: torch.device, image: Image.Image, size: tuple[int, int]) -> torch.Tensor:
    """Return the same computed on `device`, no value of a frame wider than high further from it than 2 of 255.

    Like Pillow it goes first over rows and then over columns, and rounds to whole values after either. Pillow itself
    begins with the columns of some frames that are higher than wide.
    """
    frame = torch.from_numpy(np.array(image)).to(device).permute(2, 0, 1).float()
    for sides in ([image.height, size[1]], [*size]):
        frame = resize(frame, sides, InterpolationMode.BICUBIC, antialias=True).round_().clamp_(0, 255)
    return frame.to(torch.uint8)
