"""Quantisation and no data: how stored numbers become physical values.

AlphaEarth Foundations publishes its 64 unit-length components as int8 with
value = sign(x) * (x / 127.5)**2 and no data -128 (Google Earth Engine catalogue,
GOOGLE/SATELLITE_EMBEDDING/V1/ANNUAL).
"""

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import numpy as np

from src.core.stage.errors import DataError

NODATA = -128
Kind = Literal["alphaearth", "linear", "none"]


@dataclass(frozen=True)
class Quantisation:
    """Rule by which stored values become physical ones; only `linear` has a `scale`."""

    kind: Kind
    scale: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """`{"kind", "scale"}` for JSON; `Quantisation(**values)` is the inverse."""
        return asdict(self)

    def __str__(self) -> str:
        return f"{self.kind} with scale {self.scale:g}" if self.kind == "linear" else self.kind


def declared(tags: dict[str, Any], where: str) -> Quantisation | None:
    """Quantisation that a file's GeoTIFF tags (text) or a sidecar's JSON values declare, or None.

    Raises:
        DataError: an unknown kind, or a scale that is missing, superfluous or not a positive number.
    """
    kind, scale = tags.get("quantisation"), tags.get("scale")
    if kind is None and scale is None:
        return None
    if kind not in get_args(Kind):
        expected = ", ".join(get_args(Kind))
        raise DataError(f"{where}: quantisation: found {kind!r}, expected one of {expected}; correct the tag")
    if kind != "linear":
        if scale is not None:
            raise DataError(f"{where}: scale: found {scale!r} beside quantisation {kind}; remove the scale")
        return Quantisation(kind)
    try:
        number = float(scale)
    except (TypeError, ValueError):
        number = math.nan
    if not (math.isfinite(number) and number > 0):
        raise DataError(f"{where}: scale: found {scale!r}, expected a positive number; correct the tag")
    return Quantisation("linear", number)


def dequantise(values, quantisation: Quantisation):
    """Stored values, a numpy array or a torch tensor -> float32 of the same shape and kind; no data is not masked."""
    values = values.astype(np.float32) if isinstance(values, np.ndarray) else values.float()
    if quantisation.kind == "alphaearth":
        values = values / 127.5
        return values * abs(values)
    return values * quantisation.scale if quantisation.kind == "linear" else values


def lookup_table(quantisation: Quantisation) -> np.ndarray:
    """(256,) float32: `table[int8 value + 128]` is the dequantised value, and 0 for no data."""
    table = dequantise(np.arange(-128, 128, dtype=np.int16), quantisation)
    table[NODATA + 128] = 0.0
    return table
