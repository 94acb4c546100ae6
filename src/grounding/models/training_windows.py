"""Windows of scenes that trainings read: at random places, or on a grid for validation."""

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch

from src.core.stage.errors import DataError
from src.core.training.global_batches import ReadyBatches
from src.grounding.data.scene_store import Scene
from src.grounding.data.sensors import OPTICAL_BANDS

TRIES = 50  # places looked at for one with enough clear pixels


class RandomWindows(ReadyBatches):
    """`count` windows an epoch; scene, place, noise and time step are a function of (seed, epoch, index)."""

    def __init__(self, scenes: Sequence[Scene], side: int, least_valid: float, count: int, seed: int, steps: int):
        self.scenes, self.side, self.least_valid = scenes, side, least_valid
        self.count, self.seed, self.steps = count, seed, steps

    def __len__(self) -> int:
        return self.count

    def __getitems__(self, indices: list[int]) -> dict[str, torch.Tensor]:
        rows = []
        for index in indices:
            generator = np.random.default_rng([self.seed, self.epoch, index])
            scene, top, left = self.place(generator)
            row = window(scene, top, left, self.side)
            row["noise"] = generator.standard_normal(row["truth"].shape, dtype=np.float32)
            row["timestep"] = generator.integers(self.steps)
            rows.append(row)
        return stack(rows)

    def place(self, generator: np.random.Generator) -> tuple[Scene, int, int]:
        """A scene, top and left of a window with enough clear pixels; raises DataError where none is found."""
        for _ in range(TRIES):
            scene = self.scenes[generator.integers(len(self.scenes))]
            height, width = scene.valid.shape
            top, left = generator.integers(height - self.side + 1), generator.integers(width - self.side + 1)
            if scene.valid[top : top + self.side, left : left + self.side].mean() >= self.least_valid:
                return scene, top, left
        raise DataError(
            f"{TRIES} random windows of {self.side} px: found none with {self.least_valid:.0%} clear pixels; lower "
            "`min_valid_ratio` or leave out cloudy scenes"
        )


class GridWindows(ReadyBatches):
    """Windows side by side over scenes, each with another radar image; noise by (seed, index).

    That is of another scene, or of another place where there is one scene alone.
    """

    def __init__(self, scenes: Sequence[Scene], side: int, least_valid: float, seed: int, steps: int):
        self.scenes, self.side, self.least_valid, self.seed, self.steps = scenes, side, least_valid, seed, steps

    @cached_property
    def places(self) -> list[tuple[int, int, int]]:
        """Number of the scene, top and left of each window."""
        side, found = self.side, []
        for number, scene in enumerate(self.scenes):
            height, width = scene.valid.shape
            for top in range(0, height - side + 1, side):
                for left in range(0, width - side + 1, side):
                    if scene.valid[top : top + side, left : left + side].mean() >= self.least_valid:
                        found.append((number, top, left))
        if len(found) < 2:
            raise DataError(
                f"scenes of role validation: found {len(found)} windows of {side} px with {self.least_valid:.0%} clear "
                "pixels, expected two or more, for agreement compares radar images of two places; lower "
                "`min_valid_ratio` or `tile_px`, or bring more scenes"
            )
        return found

    def __len__(self) -> int:
        return len(self.places)

    def __getitems__(self, indices: list[int]) -> dict[str, torch.Tensor]:
        rows = []
        for index in indices:
            number, top, left = self.places[index]
            generator = np.random.default_rng([self.seed, index])
            row = window(self.scenes[number], top, left, self.side)
            row["noise"] = generator.standard_normal(row["truth"].shape, dtype=np.float32)
            # Spread evenly, so that the loss of an epoch does not hang on which steps were drawn.
            row["timestep"] = np.int64((index * 2 + 1) * self.steps // (2 * len(self)) % self.steps)
            after = self.places[index + 1 :] + self.places[:index]
            other = next((place for place in after if place[0] != number), after[0])
            other = window(self.scenes[other[0]], *other[1:], self.side)
            row |= {"other_sar": other["sar"], "other_valid": other["valid"]}
            rows.append(row)
        return stack(rows)


def window(scene: Scene, top: int, left: int, side: int) -> dict[str, np.ndarray]:
    """Arrays of one window: sar, first_guess, missing, valid, truth."""
    rows, columns = slice(top, top + side), slice(left, left + side)
    return {
        "sar": scene.sar[:, rows, columns],
        "first_guess": scene.first_guess[:, rows, columns],
        "missing": scene.missing[rows, columns],
        "valid": scene.valid[rows, columns],
        "truth": scene.optical[:, rows, columns],
    }


def stack(rows: list[dict[str, np.ndarray]]) -> dict[str, torch.Tensor]:
    """Rows -> one batch."""
    return {name: torch.from_numpy(np.stack([row[name] for row in rows])) for name in rows[0]}


def scaling(scenes: Sequence[Scene]) -> dict[str, list[float]]:
    """Means and standard deviations over clear pixels, the fields of `denoiser.Scaling`.

    Raises DataError where a band does not vary, by which nothing could be divided.
    """
    clear = [scene.valid for scene in scenes]
    guess = np.concatenate([s.first_guess[:, v] for s, v in zip(scenes, clear, strict=True)], axis=1).astype(float)
    truth = np.concatenate([s.optical[:, v] for s, v in zip(scenes, clear, strict=True)], axis=1).astype(float)
    radar = np.concatenate([s.sar[:, v] for s, v in zip(scenes, clear, strict=True)], axis=1).astype(float)
    found = {
        "optical_mean": guess.mean(1),
        "optical_sd": guess.std(1),
        "sar_mean": radar.mean(1),
        "sar_sd": radar.std(1),
        "residual_sd": np.sqrt(np.square(truth - guess).mean(1)),
    }
    for name in ("optical_sd", "sar_sd", "residual_sd"):
        if not (found[name] > 0).all():
            bands = OPTICAL_BANDS if len(found[name]) == len(OPTICAL_BANDS) else ("VV", "VH")
            band = bands[int(np.argmin(found[name]))]
            raise DataError(f"scenes to learn from: {band}: {name} is 0, expected variation; check the files")
    return {name: values.tolist() for name, values in found.items()}
