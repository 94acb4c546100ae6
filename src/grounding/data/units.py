"""Stored numbers as physical ones, checked against what they are declared to be.

Radar: dB = 10 log10(power), clipped. Optical: reflectance = (number + offset) / scale, clipped to 0 to 1; ESA stores
reflectance x 10000 + 1000 since processing baseline 04.00 (January 2022), so that the offset is -1000 there.

Limits are those that no ordinary land scene passes; each error names what the numbers look like instead.
"""

from dataclasses import dataclass

import numpy as np

from src.core.stage.errors import DataError
from src.grounding.data.sensors import OPTICAL_BANDS
from src.grounding.params import Sar

FEW = 0.01  # share of pixels that prove nothing
DB_MEDIAN = (-45, 10)  # backscatter of water to that of a city, with room
POWER_MEDIAN = 10  # the same upper limit in power
BRIGHT = 2  # a median reflectance above it is none
DARK = 0.002  # a scene whose brightest percentile lies below it has no light
NEGATIVE = -0.02  # twentieth part of a scene below it: more than an atmospheric correction leaves
ESA_OFFSET = -1000
FORGOTTEN = (0.09, 0.13)  # darkest percentile of blue and of red where 0.1 was not subtracted; both are near 0 in shade
ABOVE = 0.9  # share of pixels with VH above VV that makes one believe in swapped bands


@dataclass(frozen=True)
class Measured:
    """Physical values of one sensor.

    Attributes:
        values: (C, H, W) float32, NaN without data.
        known: (H, W) bool, data in every band.
        clipped: share of known values that were clipped.
        flags: words for the store.
    """

    values: np.ndarray
    known: np.ndarray
    clipped: float
    flags: tuple[str, ...]


def to_db(stored: np.ndarray, declared: Sar, where: str) -> Measured:
    """Radar numbers (2, H, W), VV and VH, NaN without data, as dB.

    In both bands exactly 0 is no data; so is power that is not above 0.

    Raises:
        DataError: nothing but zeros or no data; linear power declared as dB, or dB as linear; digital numbers.
    """
    stored, known = _without_margin(stored, where)
    values = stored[:, known]
    negative = (values < 0).mean()
    low, high = np.nanpercentile(values, [1, 99])
    found = f"{where}: data.sar.scale: found values from {low:.3g} to {high:.3g} (1st to 99th percentile)"
    if declared.scale == "dB":
        if negative < FEW:
            raise DataError(
                f"{found}, hardly any below 0, expected dB, most of which lie below 0: these are linear (power), or "
                "digital numbers that need calibration; set data.sar.scale: linear for power"
            )
        median = np.median(values)
        if not DB_MEDIAN[0] <= median <= DB_MEDIAN[1]:
            raise DataError(
                f"{found}, median {median:.3g}, expected dB with a median from {DB_MEDIAN[0]} to {DB_MEDIAN[1]}; "
                "divide out a scale (100 is usual) before"
            )
        db = stored.copy()
    else:
        if negative > FEW:
            raise DataError(
                f"{found}, {negative:.0%} of them below 0, expected linear power, which is never negative: these are "
                "dB; set data.sar.scale: dB"
            )
        if np.median(values) > POWER_MEDIAN:
            raise DataError(
                f"{found}, expected linear power, of which land has less than 1 mostly: these are digital numbers; "
                "calibrate them (sigma0 or gamma0)"
            )
        known &= (stored > 0).all(0)
        _require_some(known, where)
        db = 10 * np.log10(np.where(known, stored, 1))
    db[:, ~known] = np.nan
    swapped = (db[1] > db[0])[known].mean() > ABOVE
    db, clipped = _clipped(db, known, *declared.clip_db)
    return Measured(db, known, clipped, ("vh_above_vv",) if swapped else ())


def to_reflectance(
    stored: np.ndarray, scale: float, offset: float, where: str, declared_here: bool = False
) -> Measured:
    """Optical numbers (4, H, W), blue, green, red, near infrared, NaN without data, as reflectance.

    In all bands exactly 0 is no data, as ESA writes it.

    Args:
        declared_here: the offset is declared for this very file; a scene that looks as if it were forgotten is then
            flagged and not refused.

    Raises:
        DataError: nothing but zeros or no data; digital numbers as reflectance or the reverse; ESA's offset forgotten
            or applied twice.
    """
    stored, known = _without_margin(stored, where)
    values = (stored + np.float32(offset)) / np.float32(scale)
    pixels = values[:, known]
    declared = f"with data.optical.scale {scale:g} and offset {offset:g}"
    middle = np.median(pixels)
    if middle > BRIGHT:
        raise DataError(
            f"{where}: reflectance: found a median of {middle:.3g} {declared}, expected 0 to 1: these are digital "
            "numbers; set data.optical.scale (10000 for Sentinel-2)"
        )
    dark, darker, brightest = (
        np.percentile(pixels, 1, axis=1),
        np.percentile(pixels, 5, axis=1),
        np.percentile(pixels, 99),
    )
    if darker.min() < NEGATIVE:
        band = OPTICAL_BANDS[int(darker.argmin())]
        raise DataError(
            f"{where}: reflectance: found a 5th percentile of {darker.min():.3f} in {band} {declared}, expected none "
            f"below {NEGATIVE:g}: an offset is applied twice, or to numbers without one; set "
            "data.optical.offset: 0, or declare the offset in the file's JSON"
        )
    if brightest < DARK:
        raise DataError(
            f"{where}: reflectance: found a 99th percentile of {brightest:.2g} {declared}, expected daylight: these "
            "numbers are reflectance already; set data.optical.scale: 1"
        )
    forgotten = all(FORGOTTEN[0] <= value <= FORGOTTEN[1] for value in (dark[0], dark[2]))
    if forgotten and not declared_here:
        raise DataError(
            f"{where}: reflectance: found the darkest percentile of blue at {dark[0]:.3f} and of red at {dark[2]:.3f} "
            f"{declared}, expected shade near 0: ESA's offset (baseline 04.00 and later) is forgotten; set "
            f"data.optical.offset: {ESA_OFFSET}, or declare the offset in the file's JSON (0 if the scene is so bright)"
        )
    values, clipped = _clipped(values, known, 0, 1)
    return Measured(values, known, clipped, ("offset_suspect",) if forgotten else ())


def _without_margin(stored: np.ndarray, where: str) -> tuple[np.ndarray, np.ndarray]:
    """float32 copy with NaN, and (H, W) bool known: a margin of zeros in all bands is no data."""
    stored = stored.astype(np.float32)
    finite = np.isfinite(stored).all(0)
    _require_some(finite, where)
    flat = [band for band in stored if np.ptp(band[finite]) == 0]
    if flat:
        value = flat[0][finite][0] + 0.0  # no -0
        raise DataError(
            f"{where}: pixels: found {value:g} everywhere in {len(flat)} of {len(stored)} bands, expected an image; "
            "remove the scene, or export it again"
        )
    known = finite & (stored != 0).any(0)
    stored[:, ~known] = np.nan
    return stored, known


def _require_some(known: np.ndarray, where: str) -> None:
    if not known.any():
        raise DataError(f"{where}: pixels: found nothing but no data, expected an image; remove the scene")


def _clipped(values: np.ndarray, known: np.ndarray, low: float, high: float) -> tuple[np.ndarray, float]:
    """`values` within low and high, and the share of known values that were not."""
    found = values[:, known]
    return values.clip(low, high).astype(np.float32), float(((found < low) | (found > high)).mean())
