"""One batch split over processes and micro-batches, with the same samples and loss as in a single process."""

from collections.abc import Iterator
from typing import Any

import torch
from accelerate.data_loader import prepare_data_loader
from accelerate.utils import recursively_apply
from torch.utils.data import DataLoader, Dataset, Sampler

from src.core.stage import distributed


class ReadyBatches(Dataset):
    """Samples that come in batches made already (`__getitems__`), the arguments of a model, so that its Trainer's
    collator has nothing to do. What is drawn at random is a function of (seed, epoch, index)."""

    epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return self.__getitems__([index])


def ready(batch: Any) -> Any:
    """Return a ready batch unchanged: the collator of `ReadyBatches`."""
    return batch


class GlobalBatches(Sampler[list[int]]):
    """Micro-batches of one process. Step by step their union over all processes is the batch of a single one.

    The order is a function of (seed, epoch). The last batch of an epoch is split as evenly as possible; a process that
    gets no sample repeats the first one, which `rows` counts as 0.
    """

    def __init__(self, samples: int, micro_batch: int, accumulate: int, seed: int):
        self.samples, self.accumulate, self.seed = samples, accumulate, seed
        self.parts = accumulate * distributed.count()
        self.batch_size = micro_batch * self.parts
        self.steps = -(-samples // self.batch_size)
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self.steps * self.accumulate

    def __iter__(self) -> Iterator[list[int]]:
        order = torch.randperm(self.samples, generator=torch.Generator().manual_seed(self.seed + self.epoch))
        for batch in order.split(self.batch_size):
            for part in self._mine(batch.tensor_split(self.parts)):
                yield (part if len(part) else batch[:1]).tolist()

    def rows(self, step: int) -> tuple[list[int], int]:
        """Samples in each micro-batch of this process and in the whole batch, at a step of the training."""
        first = step % self.steps * self.batch_size
        whole = torch.arange(first, min(first + self.batch_size, self.samples))
        return [len(part) for part in self._mine(whole.tensor_split(self.parts))], len(whole)

    def _mine(self, parts: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        return parts[distributed.rank() :: distributed.count()]


class GlobalBatchMixin:
    """For `Trainer`s whose model's loss is a mean over the rows of its batch: training with several processes or
    micro-batches takes the steps of one process with whole batches.

    Each micro-batch counts by its share of the rows; what is a mean over answer tokens (batches with `labels`)
    is handed `answer_share`, by which to count beside that. Every process evaluates all samples, so that all see
    the same figures; those of the main one hold.
    """

    def __init__(self, *args, **kwargs):
        # Or one process would spread its batch over all GPUs in sight (DataParallel).
        kwargs["args"]._n_gpu = min(kwargs["args"].n_gpu, 1)
        super().__init__(*args, **kwargs)

    def get_train_dataloader(self) -> DataLoader:
        args = self.args
        self.batches = GlobalBatches(
            len(self.train_dataset), args.per_device_train_batch_size, args.gradient_accumulation_steps, args.seed
        )
        return DataLoader(
            self.train_dataset,
            batch_sampler=self.batches,
            collate_fn=self.data_collator,
            num_workers=args.dataloader_num_workers,
            pin_memory=args.dataloader_pin_memory,
        )

    def get_batch_samples(self, epoch_iterator, num_batches, device):
        samples, items = super().get_batch_samples(epoch_iterator, num_batches, device)
        if self.batches.parts > 1:
            rows, whole = self.batches.rows(self.state.global_step)
            for batch, count in zip(samples, rows, strict=True):
                batch["share"] = self.batches.parts * count / whole
            if "labels" in samples[0]:
                self._share_answers(samples)
        return samples, items

    def _share_answers(self, samples: list[dict]) -> None:
        tokens = [int((batch["labels"][:, 1:] != -100).sum()) if batch["share"] else 0 for batch in samples]
        whole = sum(distributed.gather(sum(tokens)))
        for batch, count in zip(samples, tokens, strict=True):
            batch["answer_share"] = self.batches.parts * count / whole / batch["share"] if count else 0.0

    def compute_loss(self, model, inputs, *args, **kwargs):
        share = inputs.pop("share", 1)
        loss = super().compute_loss(model, inputs, *args, **kwargs)
        return loss if share == 1 else loss * share

    def get_eval_dataloader(self, eval_dataset=None) -> DataLoader:
        if distributed.count() == 1:
            return super().get_eval_dataloader(eval_dataset)
        dataset = self.eval_dataset if eval_dataset is None else eval_dataset
        loader = DataLoader(dataset, batch_size=self.args.eval_batch_size, collate_fn=self.data_collator)
        return prepare_data_loader(loader, num_processes=1, process_index=0)

    def evaluation_loop(self, *args, **kwargs):
        if distributed.count() > 1:
            self.gather_function = self._own_rows
        found = super().evaluation_loop(*args, **kwargs)
        return found._replace(metrics=distributed.from_main(lambda: found.metrics))

    def _own_rows(self, values):
        """Values of one process, cut to the size of the last batch: Trainer repeats a batch's loss too often there."""
        state = self.accelerator.gradient_state
        last = state.end_of_dataloader and state.remainder > 0
        return recursively_apply(lambda value: value[: state.remainder], values) if last else values
