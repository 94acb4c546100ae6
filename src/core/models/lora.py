"""LoRA on a Qwen-VL model with peft, and adapters that hold all that was trained, LoRA or not."""

from copy import copy
from pathlib import Path

import safetensors.torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from peft.utils.error import NoMatchingPeftModuleError
from torch import nn

from src.core.stage.errors import ParamsError

# Attention and MLP of the vision blocks, as the three families name them.
ENCODER_TARGETS = (
    r".*visual\.blocks\.\d+\.(attn|mlp)\.(qkv|proj|gate_proj|up_proj|down_proj|fc1|fc2|linear_fc1|linear_fc2)"
)


def config(rank: int, alpha: int, dropout: float, targets: str, encoder: bool) -> LoraConfig:
    """LoRA where the regular expression `targets` is a module's whole name; with `encoder` in the vision blocks too."""
    return LoraConfig(
        r=rank,
        lora_alpha=alpha,
        lora_dropout=dropout,
        target_modules=f"({targets})|({ENCODER_TARGETS})" if encoder else targets,
        task_type="CAUSAL_LM",
    )


def wrap(vlm: nn.Module, adapters: LoraConfig) -> PeftModel:
    """`vlm` with `adapters`, all its own weights frozen; raises ParamsError where their targets match nothing."""
    try:
        return get_peft_model(vlm, adapters)
    except NoMatchingPeftModuleError as error:
        linear = [name for name, module in vlm.named_modules() if isinstance(module, nn.Linear)]
        raise ParamsError(
            f"`targets`: found {adapters.target_modules!r}, which is the whole name of no module, expected a "
            f"regular expression for such as {linear[-2]}; correct it"
        ) from error


def core(vlm: nn.Module) -> nn.Module:
    """The Qwen-VL model itself, whether or not peft wraps it."""
    return vlm.get_base_model() if isinstance(vlm, PeftModel) else vlm


def save_adapter(vlm: PeftModel, folder: Path, base: Path) -> None:
    """Write an adapter folder that `PeftModel.from_pretrained(model of base, folder)` reads.

    Weights trained without LoRA (merger, patch embedding) are saved too, as `modules_to_save`; peft would drop them.
    """
    whole = {name: p for name, p in core(vlm).named_parameters() if p.requires_grad and "lora_" not in name}
    weights = get_peft_model_state_dict(vlm, save_embedding_layers=False)
    weights |= {f"base_model.model.{name}": p.detach() for name, p in whole.items()}
    settings = copy(vlm.peft_config["default"])
    settings.modules_to_save = sorted({name.rpartition(".")[0] for name in whole}) or None
    settings.base_model_name_or_path = str(base)
    settings.inference_mode = True
    settings.save_pretrained(folder)
    contiguous = {name: value.cpu().contiguous() for name, value in weights.items()}
    safetensors.torch.save_file(contiguous, Path(folder) / "adapter_model.safetensors", metadata={"format": "pt"})
