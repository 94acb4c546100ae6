"""Precision of weights, by the backbone and by what params ask for."""

import torch

from src.core.training.precision import weights_dtype


def test_a_tiny_model_is_float32_and_a_pretrained_one_what_is_asked():
    assert weights_dtype("tiny", "bfloat16") == weights_dtype("base", "float32") == torch.float32
    assert weights_dtype("base", "bfloat16") == torch.bfloat16
