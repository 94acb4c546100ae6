"""Direct preference optimisation of a Qwen-VL model's words with trl, for several processes and exact resume."""

import logging
import math
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import torch
from datasets import Dataset
from datasets import disable_progress_bars as disable_datasets_bars
from peft import get_peft_model
from scipy.stats import binomtest
from transformers import PreTrainedTokenizerBase
from trl import DPOConfig, DPOTrainer

from src.core.evaluation import jackknife, regression_scores
from src.core.models import answers, lora
from src.core.stage import distributed
from src.core.stage.errors import ParamsError
from src.core.stage.model_params import TINY
from src.core.training import checkpoints, driver
from src.core.training.global_batches import GlobalBatchMixin
from src.core.training.parameter_groups import ParameterGroups, adamw8bit, checkpoint_activations
from src.core.training.precision import hold_weights
from src.core.training.sharding import ShardingMixin
from src.core.training.trainer_arguments import Plan, arguments, to
from src.population.data.preference_pairs import REFERENCE, PairCollator
from src.population.models import model_folder
from src.population.models.growth_model import GrowthModel
from src.population.models.model_folder import Settings
from src.population.models.training_setup import weights_dtype
from src.population.params import Params

logger = logging.getLogger(__name__)


def tuned(folder: Path, params: Params, meta: bool) -> tuple[GrowthModel, PreTrainedTokenizerBase, Settings]:
    """The model of the sft stage, ready for trl; `meta`: shapes alone."""
    memory = params.memory
    options = {"meta": True} if meta else {"four_bit": memory.four_bit, "attention": memory.attention}
    model, tokenizer, settings = model_folder.load(folder, dtype=weights_dtype(params), **options)
    if memory.optimizer_8bit:
        adamw8bit()  # said now, not by trl after hours
    if memory.checkpoints_gradients(params.model.backbone):
        checkpoint_activations(model.vlm)  # before trl does, which would do it another way
    return model, tokenizer, settings


def without_trainer(params: Params, model: GrowthModel) -> tuple[ParameterGroups, Callable]:
    """The parameters that train, and a loss of a batch of pairs that needs as much memory as trl's."""
    config = adapter_config(params)
    vlm = get_peft_model(model.vlm, config) if config else model.vlm

    def loss(batch: dict[str, torch.Tensor]) -> torch.Tensor:
        chosen, rejected = answer_log_probs(vlm, batch).chunk(2)
        return (rejected - chosen).mean()

    return word_groups(vlm, params), loss


def make_trainer(
    plan: Plan,
    params: Params,
    model: GrowthModel,
    tokenizer: PreTrainedTokenizerBase,
    pairs: dict[str, Dataset],
    collator: PairCollator,
    scratch: Path,
    plots: Path,
) -> tuple[DPOTrainer, ParameterGroups]:
    """trl's trainer of the words of `model` on `pairs` (train and validation), and what trains."""
    disable_datasets_bars()
    # trl asks for the deprecated name at every step.
    warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)
    section, config = params.dpo, adapter_config(params)
    steps = plan.steps(len(pairs["train"]))
    more = {
        "learning_rate": section.lr,
        "lr_scheduler_type": "cosine",
        # The first step of a warm-up has rate 0: of a single step nothing would be left.
        "warmup_steps": min(math.ceil(plan.warmup_ratio * steps), steps // 2),
        "beta": section.beta,
        "loss_type": [section.loss],
        "precompute_ref_log_probs": True,
        "max_length": None,  # truncation could drop image tokens
        "gradient_checkpointing": plan.checkpointing,
        "optim": "adamw_8bit" if plan.optimizer_8bit else "adamw_torch",
    }
    trainer = (LoraTrainer if config else WordsTrainer)(
        model=model.vlm,
        args=DPOConfig(**arguments(plan, scratch, **more)),
        train_dataset=pairs["train"],
        eval_dataset=pairs["validation"],
        data_collator=collator,
        processing_class=tokenizer,
        peft_config=config,
        callbacks=driver.callbacks(plan, plots),
    )
    groups = word_groups(trainer.model, params)
    # trl casts adapters of a 4-bit model to bfloat16
    hold_weights(trainer.model, groups.parameters(), weights_dtype(params))
    trainer.add_callback(groups)
    trainer.create_optimizer()  # now: a resume asks it what trains before Trainer would make it
    return trainer, groups


def word_groups(vlm: torch.nn.Module, params: Params) -> ParameterGroups:
    """The parameters of `vlm` that dpo trains, printed."""
    groups = ParameterGroups({"words": ([p for p in vlm.parameters() if p.requires_grad], params.dpo.lr, 0)})
    logger.info(groups.describe())
    return groups


def adapter_config(params: Params):
    """LoRA on the language model of a pretrained backbone; None where all weights train."""
    if params.model.backbone == TINY or not params.sft.lora.rank:
        return None
    return lora.config(**params.sft.lora.model_dump() | {"encoder": False})


@torch.no_grad()
def reward_accuracy(trainer: DPOTrainer, samples: pd.DataFrame) -> dict:
    """Share of validation pairs whose chosen answer gained on the rejected one, with its interval over blocks.

    Their loss chose the epoch, so the share is a little too good where epochs were to choose from.
    """
    gained = []
    for _, batch in trainer.in_order(trainer.eval_dataset):
        with trainer.accelerator.autocast():  # the precision in which the reference was computed
            chosen, rejected = answer_log_probs(trainer.model, batch).cpu().chunk(2)
        reference = batch["ref_chosen_logps"].cpu() - batch["ref_rejected_logps"].cpu()
        gained.append(chosen - rejected > reference)
    hits = torch.cat(gained).double().numpy()
    rows = samples.loc[trainer.eval_dataset["sample"]]
    interval = jackknife.mean_interval(hits, (rows.block if rows.block.all() else rows.place).to_numpy())
    how = interval.pop("method")
    if interval["_low"] is None:
        exact = binomtest(int(hits.sum()), len(hits)).proportion_ci()
        interval |= {"_low": exact.low, "_high": exact.high}
        how = f"binomial over pairs, so it is too narrow (over blocks {how})"
    facts = {"train_pairs": len(trainer.train_dataset), "validation_pairs": len(hits)}
    facts |= {f"reward_accuracy{part}": value for part, value in interval.items()}
    return regression_scores.rounded(facts | {"reward_accuracy_interval": how})


class LoraTrainer(GlobalBatchMixin, ShardingMixin, DPOTrainer):
    """A DPOTrainer for several processes: trl lets each look for a file that only the first has written, and
    gathers rows as if all processes had equally many."""

    def in_order(
        self, dataset: Dataset, first: int = 0, step: int = 1
    ) -> Iterator[tuple[int, dict[str, torch.Tensor]]]:
        """First row and contents of every `step`-th batch of `dataset`, on the device, as large as in validation."""
        size = self.args.eval_batch_size
        for start in range(first * size, len(dataset), step * size):
            examples = [dataset[i] for i in range(start, min(start + size, len(dataset)))]
            yield start, to(self.data_collator(examples), self.args.device)

    def _precompute_ref_logps(self, dataset: Dataset, name: str, batch_size: int) -> Dataset:
        mine = {}
        for start, batch in self.in_order(dataset, distributed.rank(), distributed.count()):
            mine[start] = [part.float().cpu() for part in self.compute_ref_log_probs(self.model, batch)]
        parts = {start: part for share in distributed.gather(mine) for start, part in share.items()}
        for column, values in zip(REFERENCE, zip(*(parts[start] for start in sorted(parts)), strict=True), strict=True):
            dataset = dataset.add_column(column, torch.cat(values).numpy())
        return dataset

    def compute_loss(self, *args, **kwargs):
        gather = self.accelerator.gather
        self.accelerator.gather = lambda values: torch.cat(distributed.gather(values.cpu().reshape(-1)))
        try:
            return super().compute_loss(*args, **kwargs)
        finally:
            self.accelerator.gather = gather


class WordsTrainer(checkpoints.TrainedWeightsMixin, LoraTrainer):
    """A DPOTrainer of all weights. Qwen's `save_pretrained` writes other names than `load_state_dict` reads, so
    Trainer's own checkpoints come back as the language head alone, without an error."""

    def __init__(self, *args, **kwargs):
        if distributed.sharding():
            # trl computes answers from the language head's weight without calling it: its gradient stays the process's.
            raise ParamsError(
                f"launch: found one that shares out weights ({distributed.sharding()}), expected accelerate/ddp.yaml "
                "or python, because dpo trains all weights here; or train LoRA (a pretrained backbone, sft.lora.rank)"
            )
        super().__init__(*args, **kwargs)


def answer_log_probs(vlm, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Log-probability of each row's answer given its prompt and tile, (B,); token t is predicted at t - 1."""
    inputs = {name: value for name, value in batch.items() if name not in ("completion_mask", *REFERENCE)}
    hidden = answers.hidden_states(vlm, **inputs)
    answered = batch["completion_mask"][:, 1:].bool()
    # Of the answers alone: with a vocabulary of 150 000, logits of whole prompts would be the largest tensor.
    log_probs = lora.core(vlm).lm_head(hidden[:, :-1][answered]).float().log_softmax(-1)
    taken = log_probs.gather(1, inputs["input_ids"][:, 1:][answered][:, None])[:, 0]
    return torch.zeros(len(hidden), device=taken.device).index_add(0, answered.nonzero()[:, 0], taken)
