"""Models and batches of bench.gpu, put together from the stages' own parts as the stages do."""

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from peft import get_peft_model
from transformers import AutoModelForImageTextToText, PreTrainedModel, PreTrainedTokenizerBase

from bench import published
from src.core.data.augment import VIEW, draw_box, generator
from src.core.data.quantisation import Quantisation
from src.core.models import chat, lora, qwen_vl
from src.core.models.mae import MaskedAutoencoder
from src.core.models.more_bands import RGB, widen
from src.core.models.patches import BandFrontEnd
from src.core.stage.params import read
from src.core.training.parameter_groups import ParameterGroups, adamw8bit
from src.core.training.precision import hold_weights
from src.population.models import prompts
from src.population.models.growth_model import GrowthModel, RegressionHead
from src.population.models.pretraining import Pretraining
from src.population.models.trained_groups import pretrain_groups, sft_groups
from src.population.params import Params

BANDS, DTYPE = 64, torch.bfloat16
QLORA = {"rank": 64, "alpha": 128, "encoder": True}  # experiments/qlora_24gb.sh
PROMPT, ANSWER = prompts.PROMPTS["zh"], prompts.answer(1.23, "zh")
SHARED_MEMORY = Path("/dev/shm")

Batch = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Shape:
    """`config()` of a model for RGB, px of the tiles, (depth, width, heads) of the MAE's decoder."""

    config: Callable
    side: int
    decoder: tuple[int, int, int]
    tokenizer: PreTrainedTokenizerBase
    params: Params


def seven_b() -> Shape:
    """Qwen2.5-VL-7B; a small tokenizer's ids stand for image and padding, the vocabulary stays as large as it is."""
    tokenizer = chat.tiny_tokenizer([PROMPT, ANSWER])

    def config():
        made = published.config("Qwen2.5-VL-7B")
        made.image_token_id, made.video_token_id, made.vision_start_token_id, made.vision_end_token_id = (
            tokenizer.convert_tokens_to_ids([chat.IMAGE_PAD, chat.VIDEO_PAD, chat.VISION_START, chat.VISION_END])
        )
        return made

    return Shape(config, 980, (4, 512, 8), tokenizer, _params())


def tiny() -> Shape:
    """Four windows and two blocks: every line runs, in seconds on a CPU."""
    tokenizer = chat.tiny_tokenizer([PROMPT, ANSWER])

    def config():
        return qwen_vl.tiny_config(
            "qwen2_5_vl", channels=RGB, patch_size=14, side=112, vision=(2, 64, 4), text=(2, 64, 4), tokenizer=tokenizer
        )

    return Shape(config, 112, (2, 32, 4), tokenizer, _params())


SHAPES = {"7b": seven_b, "tiny": tiny}


def random_model(shape: Shape, device: torch.device) -> PreTrainedModel:
    """A bfloat16 model drawn where it is to stay (a host would take minutes for 7B), reading BANDS bands."""
    with torch.device(device):
        vlm = AutoModelForImageTextToText.from_config(shape.config(), attn_implementation="sdpa", dtype=DTYPE)
    vlm.generation_config.pad_token_id = shape.tokenizer.pad_token_id
    return widen(qwen_vl.quicken(vlm), BANDS, "copy", seed=0)


def sft(shape: Shape, device: torch.device) -> tuple[GrowthModel, ParameterGroups]:
    """As the stage trains a pretrained backbone, its encoder unfrozen."""
    return growth(shape, random_model(shape, device))


def qlora(shape: Shape, device: torch.device) -> tuple[GrowthModel, ParameterGroups]:
    """As experiments/qlora_24gb.sh: the language model in 4 bits, written to a folder and loaded as the stage does.

    Raises:
        DependencyError: bitsandbytes is not installed.
    """
    adamw8bit()  # before 16 GB are written
    whole = random_model(shape, device)
    size = sum(p.nbytes for p in whole.parameters())
    roomy = SHARED_MEMORY.is_dir() and shutil.disk_usage(SHARED_MEMORY).free > 1.2 * size
    with tempfile.TemporaryDirectory(dir=SHARED_MEMORY if roomy else None) as folder:
        whole.save_pretrained(folder)
        del whole
        if device.type == "cuda":
            torch.cuda.empty_cache()
        return growth(shape, qwen_vl.load(folder, channels=BANDS, dtype=DTYPE, four_bit=True), **QLORA)


def growth(shape: Shape, vlm: PreTrainedModel, **settings) -> tuple[GrowthModel, ParameterGroups]:
    """`vlm` under params.yaml's LoRA, with `settings` instead of it, as sft makes it ready."""
    sft, device = shape.params.sft, vlm.device
    vlm.activation_checkpointing_enable()
    vlm = get_peft_model(vlm, lora.config(**sft.lora.model_dump() | settings))
    width = vlm.config.get_text_config().hidden_size
    head = RegressionHead(width, sft.head_width, sft.head_dropout, None, 1.0)
    model = GrowthModel(vlm, _front(shape), head, 0.0, (sft.ce_weight, sft.mse_weight))
    groups = sft_groups(model, sft.lr.pretrained, freeze_encoder_epochs=0)
    hold_weights(model, groups.parameters(), DTYPE)
    if device.type != "meta":
        model.head.to(device), model.front.to(device)  # a model in 4 bits stays where it was loaded
    return model.train(), groups


def pretraining(shape: Shape, device: torch.device) -> tuple[Pretraining, ParameterGroups]:
    """As the stage makes it ready; its language model, which the stage leaves on the host, is dropped."""
    vlm = random_model(shape, device)
    mae = MaskedAutoencoder(vlm.model.visual, shape.side, "full", shape.decoder, norm_pix_loss=True)
    groups = pretrain_groups(mae, shape.params.pretrain.lr.pretrained)
    hold_weights(mae, groups.parameters(), DTYPE)
    vlm.activation_checkpointing_enable()
    model = Pretraining(_front(shape), mae, shape.params.pretrain.mask_ratio)
    return (model if device.type == "meta" else model.to(device)).train(), groups


def samples(shape: Shape, batch: int, device: torch.device, answers: bool = True) -> Batch:
    """Inputs of sft: tiles, prompts with image tokens and, for training, answers and targets."""
    vision = shape.config().vision_config
    image_tokens = (shape.side // (vision.patch_size * vision.spatial_merge_size)) ** 2
    prompt = [chat.encode_prompt(shape.tokenizer, PROMPT, image_tokens)] * batch
    answer = [chat.encode_answer(shape.tokenizer, ANSWER)] * batch if answers else None
    made = chat.pad_batch(prompt, answer, shape.tokenizer) | _tiles(shape, batch)
    if answers:
        made |= {"target": torch.zeros(batch), "orientation": torch.arange(batch) % 8}
    return {name: value.to(device) for name, value in made.items()}


def views(shape: Shape, batch: int, device: torch.device) -> Batch:
    """Inputs of pretrain: tiles, noise that draws the masks, boxes to crop and orientations."""
    vision = shape.config().vision_config
    units = (shape.side // (vision.patch_size * vision.spatial_merge_size)) ** 2
    scales = shape.params.pretrain.scales
    boxes = [draw_box(generator(0, 0, index, VIEW), shape.side, scales) for index in range(batch)]
    noise = np.random.default_rng(0).random((batch, units), dtype=np.float32)
    made = {"noise": torch.from_numpy(noise), "boxes": torch.tensor(boxes), "orientation": torch.arange(batch) % 8}
    return {name: value.to(device) for name, value in (made | _tiles(shape, batch)).items()}


def _tiles(shape: Shape, batch: int) -> Batch:
    """(B, BANDS, side, side) int8 as AlphaEarth stores them, all pixels valid."""
    random = torch.Generator().manual_seed(0)
    shape_of = (batch, BANDS, shape.side, shape.side)
    tiles = torch.randint(-127, 128, shape_of, generator=random, dtype=torch.int8)
    return {"tiles": tiles, "valid": torch.ones(batch, shape.side, shape.side, dtype=torch.bool)}


def _front(shape: Shape) -> BandFrontEnd:
    return BandFrontEnd(Quantisation("alphaearth", None), torch.zeros(BANDS), torch.ones(BANDS), shape.side)


def _params() -> Params:
    return read(Path(__file__).parents[1] / "params.yaml", Params)
