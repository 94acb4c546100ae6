"""Prompt + image tokens -> token ids in Qwen's chat format, and a small tokenizer for tiny models.

The chat format is written here and not taken from a template because text that comes from data must
stay text: it is encoded apart from the markers, with control tokens split into characters.
"""

from functools import partial

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

IM_START, IM_END, VISION_START, VISION_END = "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>"
IMAGE_PAD, VIDEO_PAD, END = "<|image_pad|>", "<|video_pad|>", "<|endoftext|>"
SPECIAL_TOKENS = [END, IM_START, IM_END, VISION_START, VISION_END, IMAGE_PAD, VIDEO_PAD]


def tiny_tokenizer(corpus: list[str]) -> PreTrainedTokenizerFast:
    """Byte-level BPE trained on `corpus`, with Qwen's markers.

    A number's whole part and its two decimals are one token each where the corpus has them, not one per
    digit as in Qwen: a model this small is slow to learn to count digits (docs/log.md, 2026-11-21).
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\.[0-9]{2}|[0-9]+|[^0-9\p{L}\p{Han}]|[\p{L}\p{Han}]+"), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=768,
        special_tokens=SPECIAL_TOKENS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=IM_END, pad_token=END)


def encode_text(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Ids of `text` in which no control token survives as one."""
    return tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)


def encode_prompt(tokenizer: PreTrainedTokenizerBase, text: str, image_tokens: int, images: int = 1) -> list[int]:
    """One user turn, `images` of `image_tokens` each before the text, up to where the assistant's answer begins."""
    markers = partial(tokenizer.encode, add_special_tokens=False)
    image = tokenizer.convert_tokens_to_ids(IMAGE_PAD)
    return [
        *markers(f"{IM_START}user\n"),
        *[*markers(VISION_START), *[image] * image_tokens, *markers(VISION_END)] * images,
        *encode_text(tokenizer, text),
        *markers(f"{IM_END}\n{IM_START}assistant\n"),
    ]


def encode_answer(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """The assistant's answer and the end of its turn."""
    return [*encode_text(tokenizer, text), tokenizer.convert_tokens_to_ids(IM_END)]


def pad_batch(
    prompts: list[list[int]], answers: list[list[int]] | None, tokenizer: PreTrainedTokenizerBase
) -> dict[str, torch.Tensor]:
    """Ids -> a batch for a Qwen-VL model, padded on the right, or without answers (for generation) on the left.

    Returns:
        `input_ids`, `attention_mask`, `mm_token_type_ids` (1 on image tokens; without it Qwen2.5-VL
        silently falls back to one-dimensional positions), `prompt_mask` (1 on prompt tokens) and,
        with answers, `labels` (-100 outside answers), each (B, L) long.
    """
    side = "right" if answers else "left"

    def padded(rows: list[list[int]], value: int) -> torch.Tensor:
        return pad_sequence([torch.tensor(row) for row in rows], True, value, side)

    answers = answers or [[]] * len(prompts)
    pairs = list(zip(prompts, answers, strict=True))
    ids = padded([prompt + answer for prompt, answer in pairs], tokenizer.pad_token_id)
    batch = {
        "input_ids": ids,
        "attention_mask": padded([[1] * len(prompt + answer) for prompt, answer in pairs], 0),
        "mm_token_type_ids": (ids == tokenizer.convert_tokens_to_ids(IMAGE_PAD)).long(),
        "prompt_mask": padded([[1] * len(prompt) + [0] * len(answer) for prompt, answer in pairs], 0),
    }
    if side == "right":
        batch["labels"] = padded([[-100] * len(prompt) + answer for prompt, answer in pairs], -100)
    return batch
