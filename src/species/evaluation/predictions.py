"""Probabilities of every species for every held-out row, as each model leaves them for evaluate."""

import hashlib
from pathlib import Path

import numpy as np
from safetensors.numpy import save

from src.core.stage import files
from src.core.stage.errors import DataError
from src.species.data.task import Task
from src.species.evaluation import predictors

NAME = "predictions.safetensors"
DIGEST = "split_sha256"


def write(folder: Path, task: Task, groups: dict[str, np.ndarray]) -> None:
    """Write `predictions.safetensors` into `folder`: the groups, and a digest of training rows, held-out rows and
    species.

    Args:
        groups: name -> (H, C) log-probabilities of `Task.held_out` over `Task.classes`; a row of NaN where a model has
            no answer because its modality is missing.

    Raises:
        DataError: `predictors.PREDICTORS` does not list a group.
    """
    predictors.require_listed(groups, str(Path(folder) / NAME))
    arrays = {name: np.ascontiguousarray(values, dtype=np.float32) for name, values in sorted(groups.items())}
    (Path(folder) / NAME).write_bytes(save({DIGEST: _digest(task), **arrays}))


def read(folder: Path, task: Task) -> dict[str, np.ndarray]:
    """Name -> (H, C) float32 log-probabilities.

    Raises:
        StorageError: there is no such file.
        DataError: they are of another split or other species, so that their model may have learned from these rows;
            or `predictors.PREDICTORS` does not list a group.
    """
    path = Path(folder) / NAME
    arrays = files.read_arrays(path)
    if not np.array_equal(arrays.pop(DIGEST, None), _digest(task)):
        raise DataError(
            f"{path}: {DIGEST}: found another one than of this split's {len(task.train)} training rows, "
            f"{len(task.held_out)} held-out ones and {len(task.classes)} species; run the stage that wrote it again"
        )
    predictors.require_listed(arrays, str(path))
    return arrays


def _digest(task: Task) -> np.ndarray:
    """(32,) uint8 sha256 of the ids that train, those that are held out, and the species."""
    ids = task.observations["id"].to_numpy(dtype=str)
    parts = ("\n".join(values) for values in (ids[task.train], ids[task.held_out], task.classes))
    return np.frombuffer(hashlib.sha256("\0".join(parts).encode()).digest(), np.uint8)
