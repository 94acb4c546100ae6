"""Minerals of which the library has one sample, named at other grain sizes, noise and mixtures.

No other sample of them can be held out. So each is named by itself, changed as the scenes of `simulate` change it; this
says less than a sample from elsewhere would, and stands apart from the samples that were held out.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from src.core.stage.errors import StorageError
from src.minerals.data.simulated_geology import MATERIALS, OTHERS, Ground
from src.minerals.data.simulated_spectra import GRAINS, endmembers, extend, measure
from src.minerals.data.spectral_library import Library
from src.minerals.mapping.feature_fit import FeatureFit
from src.minerals.mapping.minerals import BACKGROUND, NAMES
from src.minerals.mapping.thresholds import classify

TABLE = "one_sample.csv"
TITLES = {
    "grain_size": "size of grains (1: the sample's)", "snr": "signal-to-noise ratio",
    "areal_share": "share of a pixel, side by side", "intimate_share": "share of a pixel, grains mixed",
}  # fmt: skip
LEVELS = {
    "grain_size": (0.5, 0.75, 1.0, 1.5, 2.0),  # of the sample's: as exponent of its reflectance (Beer's law)
    "snr": (50, 100, 200, 500),  # at a reflectance of 0.5
    "areal_share": (0.2, 0.4, 0.6, 0.8, 1.0),  # of a pixel, beside rock, playa and plants
    "intimate_share": (0.2, 0.4, 0.6, 0.8, 1.0),
}
DRAWN = 20  # times that materials are drawn anew
PIXELS = 25  # of each draw, with shares of the other materials, iron oxide and light of their own
IRON, LIGHT = (0, 0.4), (0.6, 1.2)  # ranges of them, about those of `simulate`
STREAM = 104729  # materials here are none of those that scenes are made of


def minerals(library: Library) -> list[str]:
    """Those of the map's minerals of which the library has one sample."""
    counts = library.table["mineral"].value_counts()
    return [name for name in NAMES if counts.get(name, 0) == 1]


def name_all(
    library: Library, sensed: np.ndarray, fit: FeatureFit, limits: np.ndarray, snr: float, seed: int
) -> pd.DataFrame:
    """One row a mineral, kind and level of `LEVELS`: mineral, kind, level, n, right, none, other (shares), most_other.

    Where another thing is varied, a pixel is pure, has the signal-to-noise ratio `snr`, and grains are drawn as for
    scenes. Levels of one mineral see the same draws. `most_other` is the commonest wrong name, blank if there is none.

    Args:
        sensed: (S, B) the library's spectra, as the simulated sensor measures them.
        limits: (M,) thresholds of fit times depth.
    """
    draws = [np.random.default_rng([seed, STREAM, number]) for number in range(DRAWN)]
    materials = [endmembers(library, generator) for generator in draws]
    rows = []
    for mineral in minerals(library):
        sample = extend(sensed[np.flatnonzero(library.table["mineral"] == mineral)[0]])
        for kind, levels in LEVELS.items():
            for level in levels:
                pixels = [
                    spectra(
                        mineral, sample, {kind: level}, snr, drawn, np.random.default_rng([seed, STREAM, number, 1])
                    )
                    for number, drawn in enumerate(materials)
                ]
                classes = classify(np.multiply(*fit(np.concatenate(pixels))), limits)
                rows.append({"mineral": mineral, "kind": kind, "level": level} | counted(classes, mineral))
    return pd.DataFrame(rows, columns=["mineral", "kind", "level", "n", "right", "none", "other", "most_other"])


def spectra(
    mineral: str, sample: np.ndarray, varied: dict[str, float], snr: float, materials: np.ndarray,
    generator: np.random.Generator,
) -> np.ndarray:  # fmt: skip
    """(PIXELS, B) reflectance of pixels that hold `mineral` as `sample` (B,), with one entry of `LEVELS` varied.

    Args:
        materials: (len(MATERIALS), B) of one draw, see `endmembers`; of the minerals none is used.
    """
    grain = generator.uniform(*GRAINS)  # drawn in any case, so that levels see the same
    changed = materials.copy()
    changed[NAMES.index(mineral)] = sample ** varied.get("grain_size", grain)
    share = varied.get("areal_share", varied.get("intimate_share", 1))
    abundance = np.zeros((1, PIXELS, len(MATERIALS)), np.float32)
    abundance[..., NAMES.index(mineral)] = share
    abundance[..., len(NAMES) :] = (1 - share) * generator.dirichlet(np.ones(len(OTHERS)), PIXELS)
    iron, light = (generator.uniform(*ends, (1, PIXELS)).astype(np.float32) for ends in (IRON, LIGHT))
    intimate = float("intimate_share" in varied)
    return measure(Ground(abundance, iron, light), changed, intimate, varied.get("snr", snr), generator)[0]


def counted(classes: np.ndarray, mineral: str) -> dict:
    """n, right, none, other and most_other of `classes` (N,)."""
    counts = np.bincount(classes, minlength=len(NAMES) + 1) / len(classes)
    right, none = counts[NAMES.index(mineral) + 1], counts[BACKGROUND]
    others = np.delete(counts, [BACKGROUND, NAMES.index(mineral) + 1])
    names = [name for name in NAMES if name != mineral]
    most = names[others.argmax()] if others.any() else ""
    return {"n": len(classes), "right": right, "none": none, "other": others.sum(), "most_other": most}


def write(table: pd.DataFrame, folder: Path) -> None:
    """`folder`/one_sample.csv."""
    table.to_csv(Path(folder) / TABLE, index=False, lineterminator="\n", float_format="%.4f")


def read(folder: Path) -> pd.DataFrame:
    """The table that the stage `sensitivity` wrote; raises StorageError where there is none."""
    path = Path(folder) / TABLE
    if not path.is_file():
        raise StorageError(f"{path}: no such file; run sensitivity again")
    return pd.read_csv(path, keep_default_na=False)


def summary(table: pd.DataFrame) -> dict[str, dict[str, float]]:
    """Mineral -> kind -> mean share named right over its levels."""
    means = table.groupby(["mineral", "kind"], sort=False)["right"].mean()
    return {mineral: means[mineral].to_dict() for mineral in table["mineral"].unique()}
