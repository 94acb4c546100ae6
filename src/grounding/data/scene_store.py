"""Checked scenes of radar and optical images as one folder, which all later stages read.

A store is a folder:

    scenes.parquet              one row a scene, see `SceneStore.table`
    scenes/<name>.safetensors   sar, optical, first_guess (float32), valid, missing (uint8), see `Scene`
    audit.json                  what the roles share: nothing, and how far they lie apart
    store.json                  facts: where the first guess is from, the degradations, what the radar images are
    manifest.json               format, sha256 of every file; written last
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import safetensors.numpy

from src.core.stage import files
from src.core.stage.errors import DataError
from src.grounding.data.sensors import OPTICAL_BANDS, SAR_BANDS

FORMAT = "scenes 1"
ROLES = ("pretrain", "ground", "validation", "test")
COLUMNS = (
    "name", "role", "block", "height", "width", "crs", "transform", "sar_date", "optical_date", "shift_px",
    "valid_share", "flags",
)  # fmt: skip


@dataclass(frozen=True)
class Scene:
    """One scene, all arrays on one grid, row 0 north.

    Attributes:
        sar: (2, H, W) float32 dB, VV and VH; the lower end of the clip where there is no data.
        optical: (4, H, W) float32 reflectance, blue, green, red, near infrared: the truth; 0 where there is no data.
        first_guess: (4, H, W) float32 reflectance, the optical image to be refined (`opt_v2`).
        valid: (H, W) bool, clear and with data in every sensor; scores and losses see these pixels alone.
        missing: (H, W) bool, where the first guess has no data of its own; nowhere where that is not known.
        crs: "" where unknown.
        transform: the six numbers of the affine transform, north-up; pixels from (0, 0) where unknown.
    """

    name: str
    role: str
    sar: np.ndarray
    optical: np.ndarray
    first_guess: np.ndarray
    valid: np.ndarray
    missing: np.ndarray
    crs: str
    transform: tuple[float, float, float, float, float, float]


class SceneStore:
    """A complete store, read-only. Open it with `SceneStore.open`.

    Attributes:
        table: DataFrame, one row a scene in order of name: name, role, block (of the split, "" where the place is
            unknown), height, width (px), crs, transform (six floats), sar_date and optical_date (YYYY-MM-DD, ""
            where unknown), shift_px (of the radar image against the optical one, NaN where it cannot be told),
            valid_share (of pixels), flags (words with a comma between).
        facts: contents of store.json.
    """

    def __init__(self, folder: Path, manifest: dict[str, Any]):
        self.folder, self.manifest = folder, manifest
        self.table = files.read_table(folder / "scenes.parquet")
        self.facts = files.read_json(folder / "store.json")
        self._rows = {row.name: row for row in self.table.itertuples(index=False)}

    @classmethod
    def open(cls, folder: Path) -> "SceneStore":
        """Open a complete store; no pixel is read. Raises as `files.read_manifest`."""
        folder = Path(folder)
        return cls(folder, files.read_manifest(folder, FORMAT))

    def names(self, role: str) -> list[str]:
        """Scenes of a role, sorted."""
        return self.table.loc[self.table["role"] == role, "name"].tolist()

    def read(self, name: str) -> Scene:
        """One scene, read whole; raises DataError where its arrays are not of the size that the table says."""
        row, path = self._rows[name], self.folder / scene_file(name)
        arrays, shape = files.read_arrays(path), (row.height, row.width)
        bands = {"sar": len(SAR_BANDS), "optical": len(OPTICAL_BANDS), "first_guess": len(OPTICAL_BANDS)}
        expected = {key: (count, *shape) for key, count in bands.items()} | {"valid": shape, "missing": shape}
        found = {key: array.shape for key, array in arrays.items()}
        if found != expected:
            raise DataError(f"{path}: found {found}, expected {expected}; run the stage that wrote it again")
        masks = {key: arrays.pop(key).astype(bool) for key in ("valid", "missing")}
        return Scene(name, row.role, **arrays, **masks, crs=row.crs, transform=tuple(map(float, row.transform)))

    def verify(self) -> None:
        """Hash every file again; raises DataError if one differs from the manifest."""
        files.verify(self.folder, self.manifest)


def write_scene(folder: Path, scene: Scene) -> None:
    """Write the arrays of one scene into a store that `finish` completes."""
    arrays = {
        "sar": scene.sar.astype(np.float32),
        "optical": scene.optical.astype(np.float32),
        "first_guess": scene.first_guess.astype(np.float32),
        "valid": scene.valid.astype(np.uint8),
        "missing": scene.missing.astype(np.uint8),
    }
    path = Path(folder) / scene_file(scene.name)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(safetensors.numpy.save({key: np.ascontiguousarray(array) for key, array in arrays.items()}))


def finish(folder: Path, rows: Sequence[dict[str, Any]], facts: dict[str, Any], audit: dict[str, Any]) -> None:
    """Write the table, of one mapping of COLUMNS a scene, then facts and audit, and the manifest last."""
    folder = Path(folder)
    table = pd.DataFrame(rows, columns=COLUMNS).sort_values("name", ignore_index=True)
    files.write_table(folder / "scenes.parquet", table)
    files.write_json(folder / "store.json", facts)
    files.write_json(folder / "audit.json", audit)
    written = ["scenes.parquet", "store.json", "audit.json", *map(scene_file, table["name"])]
    manifest = {"format": FORMAT, "files": {name: files.sha256(folder / name) for name in written}}
    files.write_json(folder / "manifest.json", manifest)


def scene_file(name: str) -> str:
    """Path of a scene's arrays below the store's folder."""
    return f"scenes/{name}.safetensors"
