"""Weights and tokenizer of a trained Qwen-VL model as a folder in Hugging Face layout."""

from pathlib import Path

import torch
from peft import PeftModel
from torch import nn
from transformers import PreTrainedTokenizerBase

from src.core.models import lora, qwen_vl
from src.core.training.precision import hold_weights

ADAPTER = "adapter"


def save(folder: Path, vlm: nn.Module, tokenizer: PreTrainedTokenizerBase, base: Path, dtype: torch.dtype) -> None:
    """Write `vlm`, its weights in `dtype`, and its tokenizer; with LoRA `adapter/` beside the merged weights, for the
    model in `base`, from which training started."""
    if isinstance(vlm, PeftModel):
        lora.save_adapter(vlm, folder / ADAPTER, base)
        if getattr(lora.core(vlm), "is_quantized", False):
            # Merged into packed weights, the sum would be rounded to 4 bits again; into those of `base`, it would
            # be another model than the one that was trained and validated. On the CPU: a GPU may have no room for two.
            channels = lora.core(vlm).config.vision_config.in_channels
            rounded = qwen_vl.load(base, channels=channels, dtype=dtype, four_bit=True, device="cpu")
            vlm = PeftModel.from_pretrained(rounded.dequantize(dtype=dtype), folder / ADAPTER)
        vlm = vlm.merge_and_unload()
    hold_weights(vlm, [], dtype)
    vlm.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
