"""dvclive log of a Trainer, without figures such as run times that differ between two equal runs."""

from pathlib import Path

from dvclive import Live
from scmrepo.exceptions import SCMError
from transformers import TrainerCallback

from src.core.stage.errors import StorageError

# Run times and rates belong in logs/, not in a stage's output; Trainer adds the step where only a resumed run reads it.
_UNSTABLE = ("train_loss", "runtime", "per_second", "total_flos", "epoch", "num_tokens", "step")


class LiveLog(TrainerCallback):
    """Writes every logged figure to `folder`, one step an epoch; of several processes the main one has it.

    A resumed training writes its history again, so that the curves are those of an undisturbed run.
    """

    def __init__(self, folder: Path):
        self.folder = folder

    def on_train_begin(self, args, state, control, **kwargs):
        try:
            self.live = Live(dir=str(self.folder), dvcyaml=None, report=None, save_dvc_exp=False)
        except SCMError as error:
            raise StorageError(f"{self.folder}: dvclive cannot log: {error}; make a first git commit") from error
        for entry in state.log_history:
            self._write(entry)

    def on_log(self, args, state, control, logs=None, **kwargs):
        self._write(logs | {"epoch": state.epoch})

    def on_train_end(self, args, state, control, **kwargs):
        self.live.end()

    def _write(self, entry: dict) -> None:
        self.live.step = round(entry.get("epoch") or 0)
        for name, value in sorted(entry.items()):
            if not any(word in name for word in _UNSTABLE) and isinstance(value, int | float):
                group = "validation" if name.startswith("eval_") else "train"
                self.live.log_metric(f"{group}/{name.removeprefix('eval_')}", value)
        self.live.make_summary()
