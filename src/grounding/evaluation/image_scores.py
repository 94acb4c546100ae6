"""Scores of a predicted optical image against the true one, one row a scene, and their means over scenes.

Each score is taken over all valid pixels, and apart over those where the first guess went wrong (`degraded_`) and where
it has no data of its own (`missing_`). PSNR and SSIM take reflectance 0 to 1 as the range of the data. Over scenes a
score is the mean of the scenes' scores, with an interval from leaving out whole units: scenes, or the blocks they lie
in.
"""

from collections.abc import Iterable

import numpy as np
import pandas as pd
import torch
from skimage.metrics import structural_similarity

from src.core.evaluation.jackknife import mean_interval
from src.core.stage.errors import DataError
from src.grounding.data.scene_store import Scene
from src.grounding.data.sensors import OPTICAL_BANDS
from src.grounding.evaluation.agreement import agreement, centred, seed_agreement

CHANGED = 0.05
"""Mean over bands of |first guess - truth|, in reflectance, from which a pixel counts as degraded."""
LEAST_MSE = 1e-10
"""PSNR of an exact image is 100 dB, not infinite, so that it has a mean."""
LEAST_SUM = 0.02
"""Red + near infrared of the truth; where they are darker, NDVI is noise and does not count."""
REGIONS = ("", "degraded_", "missing_")
SCORES = ("psnr", "mae", "rmse", "ssim", "sam_deg", "ndvi_mae")
AGREEMENTS = ("agreement", "centred_agreement", "seed_agreement")
_RED, _NIR = OPTICAL_BANDS.index("B04"), OPTICAL_BANDS.index("B08")


def scene_rows(predictor: str, predictions: Iterable[tuple[Scene, np.ndarray, Scene]]) -> list[dict]:
    """One row a scene: predictor, scene, SCORES and errors of each band in REGIONS, AGREEMENTS, shares of pixels.

    Args:
        predictions: scene, (4, H, W) predicted reflectance, and another scene, whose radar image is the null of
            `agreement`.

    Raises:
        DataError: a prediction has another shape, or is not finite in a valid pixel; or a scene has no valid pixel.
    """
    return [
        {"predictor": predictor, "scene": scene.name}
        | scene_scores(scene, _checked(predictor, scene, predicted))
        | scene_agreement(scene, predicted, other)
        for scene, predicted, other in predictions
    ]


def scene_scores(scene: Scene, predicted: np.ndarray) -> dict[str, float | None]:
    """Scores of one (4, H, W) image in all REGIONS, None in a region without pixels; shares of both kinds of pixels."""
    predicted = predicted.astype(np.float64)
    truth, similarity = scene.optical.astype(np.float64), ssim_map(predicted, scene.optical, scene.valid)
    masks = {"": scene.valid, "degraded_": degraded(scene), "missing_": scene.valid & scene.missing}
    row: dict[str, float | None] = {}
    for prefix, mask in masks.items():
        found = scores(predicted[:, mask], truth[:, mask]) | {"ssim": mean(similarity[mask])}
        row |= {prefix + name: value for name, value in found.items()}
    return row | {
        "degraded_share": float(masks["degraded_"].sum() / scene.valid.sum()),
        "missing_share": float(masks["missing_"].sum() / scene.valid.sum()),
    }


def scores(predicted: np.ndarray, truth: np.ndarray) -> dict[str, float | None]:
    """Scores of (4, N) reflectances that need no neighbours; all None without pixels.

    mae, rmse, psnr = 10 log10(1 / MSE), in dB; sam_deg, the mean angle between both spectra (Kruse et al. 1993), in
    degrees, 90 where the prediction is 0 in every band; ndvi_mae; mae_<band>, rmse_<band> and bias_<band>, the mean of
    prediction - truth.
    """
    error = predicted - truth
    mse = mean(error**2)
    found = {
        "mae": mean(np.abs(error)),
        "rmse": None if mse is None else float(np.sqrt(mse)),
        "psnr": None if mse is None else float(-10 * np.log10(max(mse, LEAST_MSE))),
        "sam_deg": mean(spectral_angle(predicted, truth)),
        "ndvi_mae": mean(np.abs(ndvi(predicted) - ndvi(truth))[truth[_RED] + truth[_NIR] >= LEAST_SUM]),
    }
    for band, one in zip(OPTICAL_BANDS, error, strict=True):
        square = mean(one**2)
        found |= {
            f"mae_{band}": mean(np.abs(one)),
            f"rmse_{band}": None if square is None else float(np.sqrt(square)),
            f"bias_{band}": mean(one),
        }
    return found


def spectral_angle(predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """(4, N) spectra twice -> (n,) angles in degrees, of those n whose truth is not 0 in every band."""
    known = (truth != 0).any(0)
    predicted, truth = predicted[:, known], truth[:, known]
    lengths = np.linalg.norm(predicted, axis=0) * np.linalg.norm(truth, axis=0)
    cosine = np.divide((predicted * truth).sum(0), lengths, out=np.zeros(len(lengths)), where=lengths > 0)
    return np.degrees(np.arccos(np.clip(cosine, -1, 1)))


def ndvi(reflectance: np.ndarray) -> np.ndarray:
    """(NIR - red) / (NIR + red) of (4, N) reflectance, what is below 0 taken as 0; 0 where both are 0."""
    reflectance = np.maximum(reflectance, 0)
    total = reflectance[_NIR] + reflectance[_RED]
    return np.divide(reflectance[_NIR] - reflectance[_RED], total, out=np.zeros_like(total), where=total > 0)


def ssim_map(predicted: np.ndarray, truth: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """(H, W) structural similarity, mean over bands, with the Gaussian window of Wang et al. 2004 (sigma 1.5 px).

    Pixels that are not valid are taken as predicted without error, so that only valid ones lower their neighbours.
    """
    predicted = np.where(valid, predicted, truth)
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    return structural_similarity(
        predicted, truth.astype(np.float64), data_range=1.0, channel_axis=0, full=True, **options
    )[1].mean(0)


def degraded(scene: Scene) -> np.ndarray:
    """(H, W) bool: valid pixels that the first guess lacks, or where it is off by CHANGED or more.

    They are chosen by the first guess's error, so that it has the worst pixels of its own here and another predictor
    has not: the gain over the first guess is too large on them. Predictors compared with each other are not affected.
    """
    change = np.abs(scene.first_guess - scene.optical).mean(0)
    return scene.valid & (scene.missing | (change >= CHANGED))


def scene_agreement(scene: Scene, predicted: np.ndarray, other: Scene) -> dict[str, float]:
    """AGREEMENTS of one (4, H, W) image with the scene's radar image."""
    optical, sar, valid, other_sar, other_valid = (
        torch.from_numpy(array)[None]
        for array in (predicted.astype(np.float32), scene.sar, scene.valid, other.sar, other.valid)
    )
    return {
        "agreement": agreement(optical, sar, valid, other_sar, other_valid).item(),
        "centred_agreement": centred(optical, sar, valid).item(),
        "seed_agreement": seed_agreement(optical, sar, valid).item(),
    }


def pooled(rows: pd.DataFrame, unit: str, names: Iterable[str]) -> dict:
    """Means of one predictor's rows: score -> its mean, `_low`, `_high`, and n, n_units, and method of the intervals.

    A score has the rows that have it: scenes without a hole have no `missing_` score.

    Args:
        rows: as from `scene_rows`; several seeds of one scene share its unit.
        unit: column that is left out as a whole: "scene", or the block it lies in.
    """
    found = {name: _interval(rows[name], rows[unit]) for name in names}
    ends = {name + end: one[end] for name, one in found.items() for end in ("", "_low", "_high")}
    return ends | _counts(rows, unit) | {"method": _methods(found)}


def paired(rows: pd.DataFrame, ours: str, theirs: str, unit: str, names: Iterable[str]) -> dict:
    """Means of differences, ours - theirs, in the same scene (and seed), keyed as by `pooled`.

    Raises:
        DataError: the two predictors do not have the same scenes.
    """
    keys, names = [key for key in ("scene", "seed") if key in rows], list(names)
    one, other = (
        rows[rows["predictor"] == name].set_index(keys, drop=False).rename_axis([None] * len(keys)).sort_index()
        for name in (ours, theirs)
    )
    if not one.index.equals(other.index) or one.index.has_duplicates:
        raise DataError(
            f"{ours} and {theirs}: found {len(one)} and {len(other)} scenes, expected the same ones, each once; "
            "predict them again"
        )
    return pooled((one[names].astype(float) - other[names].astype(float)).assign(**{unit: one[unit]}), unit, names)


def mean(values: np.ndarray) -> float | None:
    """Mean, None of nothing."""
    return float(values.mean()) if values.size else None


def _interval(values: pd.Series, units: pd.Series) -> dict:
    values = values.astype(float)
    there = values.notna().to_numpy()
    if not there.any():
        return {"": None, "_low": None, "_high": None, "method": "none: no scene has such pixels"}
    return mean_interval(values[there].to_numpy(), units[there].to_numpy())


def _counts(rows: pd.DataFrame, unit: str) -> dict[str, int]:
    return {"n": len(rows), "n_units": int(rows[unit].nunique())}


def _methods(found: dict[str, dict]) -> str:
    """The method of all scores, once where it is the same."""
    return "; ".join(dict.fromkeys(one["method"] for one in found.values()))


def _checked(predictor: str, scene: Scene, predicted: np.ndarray) -> np.ndarray:
    if predicted.shape != scene.optical.shape:
        raise DataError(
            f"{predictor}, {scene.name}: found an image of shape {predicted.shape}, expected {scene.optical.shape}; "
            "predict it again"
        )
    bad = int((~np.isfinite(predicted[:, scene.valid])).sum())
    if bad or not scene.valid.any():
        raise DataError(
            f"{predictor}, {scene.name}: found {scene.valid.sum()} valid pixels and {bad} values that are not finite "
            "in them, expected some and none; predict it again, or lower the learning rate"
        )
    return predicted
