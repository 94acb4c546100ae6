"""Scenes in memory."""

import numpy as np

from src.grounding.data.scene_store import Scene


def scene(name: str = "one", side: int = 24, seed: int = 0, **changes) -> Scene:
    """Truth around 0.3, the first guess equal to it, everything valid and nothing missing, but for `changes`."""
    random = np.random.default_rng(seed)
    truth = random.uniform(0.2, 0.4, (4, side, side)).astype(np.float32)
    arrays = {
        "sar": random.uniform(-20, -5, (2, side, side)).astype(np.float32),
        "optical": truth,
        "first_guess": truth.copy(),
        "valid": np.ones((side, side), bool),
        "missing": np.zeros((side, side), bool),
    }
    return Scene(name, "test", **(arrays | changes), crs="EPSG:32630", transform=(10.0, 0.0, 0.0, 0.0, -10.0, 0.0))
