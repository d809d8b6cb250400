"""A model's layers, compiled."""

import torch
from transformers.models.qwen2_vl.modeling_qwen2_vl import Qwen2VLDecoderLayer, Qwen2VLVisionBlock

from data_prep.errors import InputError
from recipes.model.quantized import quantized_modules

COMPILED_SHAPES = 64  # of a layer's inputs: frame sizes times batch sizes, in training and in answering


def compile_layers(model: torch.nn.Module) -> None:
    """Have torch.compile fuse each decoder layer's and each vision block's kernels, at the first batch of each shape.

    All layers of a kind share one compilation. Layers in 4 bits stay as they are: what is slow in them has kernels of
    its own (recipes/layers/gpu_kernels.py). Raises InputError where there is no GPU.
    """
    if not torch.cuda.is_available():
        raise InputError("compile_layers needs a GPU; set it to false")
    torch._dynamo.config.recompile_limit = COMPILED_SHAPES  # beyond it, a shape would run uncompiled in silence
    for module in model.modules():
        if isinstance(module, Qwen2VLDecoderLayer | Qwen2VLVisionBlock) and not quantized_modules(module):
            module.compile(dynamic=False)
