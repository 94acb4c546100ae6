"""Training steps of a 7B model on a GPU: peak memory, samples per second, model FLOPs utilisation (MFU).

    python -m bench.gpu --json                # needs a GPU
    python -m bench.gpu --shape tiny          # the same code on a toy model, on any machine: nothing to go by

Qwen2.5-VL-7B with random bfloat16 weights on 980 px tiles of 64 bands: the steps of sft (LoRA on the language model,
encoder trained whole) and of pretrain (MAE), the MAE's encoder alone on visible and on all tokens, and QLoRA as
experiments/qlora_24gb.sh runs it, in no more memory than its bar. Rates and the LoRA of sft are those of params.yaml.
Each row is the median of some steps after two warm-ups. One that does not fit says "out of memory", and the run goes
on. Samples are made on the GPU: Trainer, disk and validation are in no row.
"""

import argparse

import torch
from torch import nn

from bench import gpu_models as models
from bench.gpu_report import Report
from src.core.models.patches import patchify
from src.core.stage.errors import DependencyError
from src.core.stage.run import finish
from src.core.training import memory_estimate
from src.core.training.parameter_groups import ParameterGroups

BATCHES = (1, 2, 4)
NEW_TOKENS, ANSWERS = 16, (1, 2)  # a generation, and how many at once; the script evaluates 2
MASK_RATIO = {"visible": 0.75, "all": 0.0}  # by the tokens that the encoder then sees
ENCODER_RATIO, ENCODER_MFU = 3, 0.35
QLORA_GB = 22  # what CUDA's context and a desktop leave of 24
SFT, MAE, ENCODER, QLORA = "SFT LoRA step", "MAE step", "MAE encoder", "QLoRA step"


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.gpu", description="Training steps of a 7B model on a GPU.")
    parser.add_argument("--json", action="store_true", help="end with one line of JSON: hardware, rows, ratios, bars")
    parser.add_argument("--shape", choices=models.SHAPES, default="7b", help="tiny runs on a CPU too")
    parser.add_argument("--repetitions", type=int, default=5, help="steps of which the median is taken")
    args = parser.parse_args(argv)
    if args.shape == "7b" and not torch.cuda.is_available():
        raise DependencyError(
            "needs an NVIDIA GPU, and torch finds none here; run it where there is one, or try the code with "
            "--shape tiny"
        )
    torch.manual_seed(0)
    shape = models.SHAPES[args.shape]()
    device = torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    report = Report(device, args.shape, args.repetitions)
    sft_rows(report, shape)
    pretrain_rows(report, shape)
    qlora_rows(report, shape)
    estimates(report, shape)
    ratios_and_bars(report, barred=args.shape == "7b")
    report.finish(args.json)


def sft_rows(report: Report, shape: models.Shape) -> None:
    with report.part("SFT LoRA"):
        model, groups = models.sft(shape, report.device)
        optimizer = groups.optimizer(shape.params.sft.weight_decay)
        for batch in BATCHES:
            with report.row(SFT, batch, checkpointing=True) as row:
                step(report, row, model, groups, optimizer, models.samples(shape, batch, report.device))


def pretrain_rows(report: Report, shape: models.Shape) -> None:
    """Steps as the stage takes them; the encoder also without gradient checkpointing, which computes a third more."""
    with report.part("MAE"):
        model, groups = models.pretraining(shape, report.device)
        optimizer = groups.optimizer(shape.params.pretrain.weight_decay)
        for tokens, ratio in MASK_RATIO.items():
            model.mask_ratio = ratio
            for batch in BATCHES:
                with report.row(MAE, batch, tokens=tokens, checkpointing=True) as row:
                    step(report, row, model, groups, optimizer, models.views(shape, batch, report.device))
        optimizer.state.clear()
        for checkpointing in (True, False):
            if not checkpointing:
                model.mae.visual.activation_checkpointing_disable()
            for tokens, ratio in MASK_RATIO.items():
                for batch in BATCHES:
                    with report.row(ENCODER, batch, tokens=tokens, checkpointing=checkpointing) as row:
                        encode(report, row, model, models.views(shape, batch, report.device), ratio)


def qlora_rows(report: Report, shape: models.Shape) -> None:
    with report.part("QLoRA"):
        with report.at_most(QLORA_GB):
            model, groups = models.qlora(shape, report.device)
        optimizer = groups.optimizer(shape.params.sft.weight_decay, eight_bit=True)
        for limit in (QLORA_GB, None):  # what the limit refuses is measured without one
            with report.row(QLORA, 1, checkpointing=True, limit_gb=limit) as row, report.at_most(limit):
                step(report, row, model, groups, optimizer, models.samples(shape, 1, report.device))
                row["tflop"] = row["tflop_per_second"] = row["mfu"] = None  # matrices in 4 bits are not counted
            model.eval()
            for batch in ANSWERS:
                what = f"QLoRA, {NEW_TOKENS} tokens"
                with report.row(what, batch, limit_gb=limit) as row, report.at_most(limit):
                    answer(report, row, model, models.samples(shape, batch, report.device, answers=False))
            model.train()
            if all(row["status"] == "ok" for row in report.rows if "limit_gb" in row):
                break


def step(
    report: Report,
    row: dict,
    model: nn.Module,
    groups: ParameterGroups,
    optimizer: torch.optim.Optimizer,
    batch: dict[str, torch.Tensor],
) -> None:
    """Forward, backward, clipping and update, as Trainer takes them."""

    def loss() -> torch.Tensor:
        with torch.autocast(report.device.type, torch.bfloat16):
            return model(**batch)["loss"]

    def update() -> None:
        nn.utils.clip_grad_norm_(groups.parameters(), 1.0)
        optimizer.step()
        model.zero_grad()

    model.zero_grad()  # a step that ran out of memory leaves gradients
    report.measure(row, loss, update)


def encode(report: Report, row: dict, model: nn.Module, batch: dict[str, torch.Tensor], mask_ratio: float) -> None:
    """Forward and backward of the encoder alone."""
    mae = model.mae
    with torch.no_grad():
        images, _ = model.images(batch["tiles"], batch["valid"])
        patches = patchify(images, mae.patch_size, mae.merge_size)
    keep = mae.random_masking(batch["noise"], mask_ratio)
    del images

    def loss() -> torch.Tensor:
        with torch.autocast(report.device.type, torch.bfloat16):
            latent, _ = mae.forward_encoder(patches, keep)
            return latent.float().square().mean()

    model.zero_grad()
    report.measure(row, loss, model.zero_grad)


def answer(report: Report, row: dict, model: nn.Module, batch: dict[str, torch.Tensor]) -> None:
    """A greedy generation from tiles and prompts, as population.inference does it."""

    @torch.no_grad()
    def generate() -> None:
        with torch.autocast(report.device.type, torch.bfloat16):
            vision, _ = model.vision_inputs(batch["tiles"], batch["valid"])
            prompts = {name: batch[name] for name in ("input_ids", "attention_mask", "mm_token_type_ids")}
            ids = model.vlm.generate(
                **prompts, **vision, do_sample=False, min_new_tokens=NEW_TOKENS, max_new_tokens=NEW_TOKENS
            )
        assert ids.shape[1] == prompts["input_ids"].shape[1] + NEW_TOKENS

    model.zero_grad()
    report.observe(row, generate)


def estimates(report: Report, shape: models.Shape) -> None:
    """Memory that `--dry-run` estimates for each step, from shapes alone, beside the memory that it took."""
    meta, cpu = torch.device("meta"), torch.device("cpu")
    whole = lambda: models.growth(shape, models.random_model(shape, meta), **models.QLORA)  # noqa: E731
    for what, build, batches, options in (
        (SFT, lambda: models.sft(shape, meta), models.samples, {}),
        (MAE, lambda: models.pretraining(shape, meta), models.views, {}),
        (QLORA, whole, models.samples, {"optimizer_8bit": True, "four_bit": True}),
    ):
        with report.part(f"estimate, {what}"):
            model, groups = build()
            loss = lambda batch, model=model: model(**batch)["loss"]  # noqa: E731
            sample = batches(shape, 1, cpu)
            needed = memory_estimate.estimate(model, groups.parameters(), loss, sample, dtype=torch.bfloat16, **options)
            for row in report.rows:
                if row["what"] == what and row.get("tokens") != "all":
                    row["estimated_gb"] = round(needed.total(row["batch"], checkpointing=True) / 1e9, 2)


def ratios_and_bars(report: Report, barred: bool) -> None:
    """All tokens over visible ones at each batch, and the bars; a toy has none.

    The encoder's ratio is barred as pretrain runs it, its MFU where nothing is computed twice: recomputation counts
    as time and not as FLOPs.
    """
    ratio = None  # of the encoder, at the largest batch that fits
    for batch in BATCHES:
        for what, checkpointing in ((MAE, True), (ENCODER, False), (ENCODER, True)):
            every, visible = (
                report.find(what, batch, tokens=tokens, checkpointing=checkpointing) for tokens in ("all", "visible")
            )
            if every and visible:
                ratio = every["seconds"] / visible["seconds"]
                how = "" if checkpointing else ", not checkpointed"
                report.ratios[f"all/visible, {what}{how}, batch {batch}"] = ratio
    if not barred:
        return
    report.bar("all/visible, MAE encoder", ratio, at_least=ENCODER_RATIO)
    plain = [report.find(ENCODER, batch, tokens="visible", checkpointing=False) for batch in BATCHES]
    reached = [row["mfu"] for row in plain if row and row["mfu"] is not None]
    report.bar("MFU, MAE encoder", max(reached, default=None), at_least=ENCODER_MFU)
    taken = {(row["what"], row["batch"]): row for row in report.rows if "limit_gb" in row}  # the last of each
    complete = len(taken) == 1 + len(ANSWERS) and all(row["status"] == "ok" for row in taken.values())
    peak = max(row["reserved_gb"] for row in taken.values()) if complete else None
    report.bar("GB reserved, QLoRA", peak, at_most=QLORA_GB)


if __name__ == "__main__":
    finish(main, "bench.gpu")
