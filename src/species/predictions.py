"""Probabilities of every species for every held-out row, as each model leaves them for evaluate."""

from pathlib import Path

import numpy as np
from safetensors.numpy import save

from src.core import files
from src.core.errors import DataError
from src.species.task import Task

NAME = "predictions.safetensors"


def write(folder: Path, task: Task, groups: dict[str, np.ndarray]) -> None:
    """Write `predictions.safetensors` into `folder`: the groups, and the rows that trained and that are held out.

    Args:
        groups: name -> (H, C) log-probabilities of `Task.held_out` over `Task.classes`; a row of NaN where a model has
            no answer because its modality is missing.
    """
    arrays = {name: np.ascontiguousarray(values, dtype=np.float32) for name, values in sorted(groups.items())}
    (Path(folder) / NAME).write_bytes(save({"trained": task.train, "rows": task.held_out, **arrays}))


def read(folder: Path, task: Task) -> dict[str, np.ndarray]:
    """Name -> (H, C) float64 log-probabilities.

    Raises:
        StorageError: there is no such file.
        DataError: they are of another split, whose training may have seen these rows.
    """
    path = Path(folder) / NAME
    arrays = files.read_arrays(path)
    trained, rows = arrays.pop("trained"), arrays.pop("rows")
    shape = len(task.held_out), len(task.classes)
    if not (np.array_equal(trained, task.train) and np.array_equal(rows, task.held_out)):
        raise DataError(
            f"{path}: trained, rows: found {len(trained)} and {len(rows)}, expected the {len(task.train)} that this "
            f"split trains on and the {len(task.held_out)} it holds out; run the stage that wrote it again"
        )
    if wrong := [name for name, values in arrays.items() if values.shape != shape]:
        raise DataError(f"{path}: {wrong[0]}: found {arrays[wrong[0]].shape}, expected {shape}; run its stage again")
    return {name: values.astype(np.float64) for name, values in arrays.items()}
