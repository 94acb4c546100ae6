"""Probabilities of every species for every held-out row, as each model leaves them for evaluate."""

from pathlib import Path

import numpy as np
from safetensors.numpy import save

from src.core import files
from src.core.errors import DataError

NAME = "predictions.safetensors"


def write(folder: Path, rows: np.ndarray, groups: dict[str, np.ndarray]) -> None:
    """Write `predictions.safetensors` into `folder`.

    Args:
        rows: (H,) int64, `Task.held_out`.
        groups: name -> (H, C) log-probabilities over `Task.classes`; a row of NaN where a model has no answer because
            its modality is missing.
    """
    arrays = {name: np.ascontiguousarray(values, dtype=np.float32) for name, values in sorted(groups.items())}
    (Path(folder) / NAME).write_bytes(save({"rows": np.asarray(rows, np.int64), **arrays}))


def read(folder: Path, rows: np.ndarray, classes: int) -> dict[str, np.ndarray]:
    """Name -> (H, C) float64 log-probabilities, checked against `Task.held_out` and the number of classes.

    Raises:
        StorageError: there is no such file.
        DataError: it was written for another split.
    """
    path = Path(folder) / NAME
    arrays = files.read_arrays(path)
    found = arrays.pop("rows")
    wrong = [name for name, values in arrays.items() if values.shape != (len(rows), classes)]
    if not np.array_equal(found, rows) or wrong:
        raise DataError(
            f"{path}: rows: found {len(found)}, expected the {len(rows)} that this split holds out and {classes} "
            "species; run the stage that wrote it again"
        )
    return {name: values.astype(np.float64) for name, values in arrays.items()}
