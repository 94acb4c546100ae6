"""Pairs of radar and optical images before they are read: grid, dates, and what their sidecars declare."""

import math
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from src.core.stage import files
from src.core.stage.errors import DataError

MAX_BYTES = 2**28  # of one file's bands as stored; a header may claim anything, and a scene is read whole
GIVEN = ("train", "val", "validation", "test", "pretrain", "ground")  # roles that a sidecar may give
PIXELS = (1.0, 0.0, 0.0, 0.0, -1.0, 0.0)  # transform of a scene whose place is not known


@dataclass(frozen=True)
class Pair:
    """One scene, checked up to its header.

    Attributes:
        sar, optical: the files, which are the same for an NPZ tile.
        crs: "" where unknown; then `transform` is PIXELS.
        transform: the six numbers of the affine transform, north-up.
        sar_date, optical_date: YYYY-MM-DD, "" where unknown.
        split: one of GIVEN, None where no sidecar says so.
        offset: of the optical numbers, as the sidecar declares it; None: as the params do.
    """

    name: str
    sar: Path
    optical: Path
    height: int
    width: int
    crs: str = ""
    transform: tuple[float, ...] = PIXELS
    sar_date: str = ""
    optical_date: str = ""
    split: str | None = None
    offset: float | None = None


def read_sidecar(path: Path, keys: tuple[str, ...] | None = None) -> dict[str, Any]:
    """The object in a JSON file, without values that are null; empty where there is no file.

    Raises:
        DataError: not an object; a key that is not among `keys`, where they are given.
    """
    if not path.is_file():
        return {}
    values = files.read_json(path)
    if not isinstance(values, dict):
        raise DataError(f"{path}: found {type(values).__name__}, expected an object; write {{...}}")
    if keys and (unknown := sorted(set(values) - set(keys))):
        raise DataError(f"{path}: {unknown[0]}: unknown key, expected {', '.join(keys)}; correct it")
    return {key: value for key, value in values.items() if value is not None}


def day(value: object, where: str) -> str:
    """YYYY-MM-DD of an ISO date or time, or of TIFF's own form with colons; "" stays as it is.

    Raises:
        DataError: it is no date.
    """
    if value == "":
        return ""
    text = str(value)[:10].replace(":", "-")
    try:
        return date.fromisoformat(text).isoformat()
    except ValueError as error:
        raise DataError(f"{where}: found {value!r}, expected a date such as 2021-07-21; correct it") from error


def role_given(sidecar: dict[str, Any], path: Path) -> str | None:
    """The sidecar's `split`; raises DataError where it is none of GIVEN."""
    found = sidecar.get("split")
    if found is not None and found not in GIVEN:
        raise DataError(f"{path}: split: found {found!r}, expected one of {', '.join(GIVEN)}; correct it")
    return found


def offset_given(sidecar: dict[str, Any], path: Path) -> float | None:
    """The sidecar's `offset`; raises DataError where it is no number."""
    found = sidecar.get("offset")
    if found is None or is_number(found):
        return found
    raise DataError(f"{path}: offset: found {found!r}, expected a number such as -1000; correct it")


def is_number(value: object) -> bool:
    """True for a finite int or float, False for all else."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def check_size(shape: tuple[int, ...], itemsize: int, where: str, largest: int | None = None) -> None:
    """Raise DataError where an array would need more bytes than `largest`, MAX_BYTES unless given."""
    largest = largest or MAX_BYTES
    if math.prod(shape) * itemsize > largest:
        found = " x ".join(map(str, shape))
        raise DataError(
            f"{where}: size: found {found} numbers of {itemsize} bytes, expected at most {largest} bytes; cut it "
            "into smaller scenes"
        )


def check_north_up(transform: tuple[float, ...], where: str) -> None:
    """Raise DataError unless rows run from north to south and columns from west to east."""
    a, b, _, d, e, _ = transform
    if b or d or a <= 0 or e >= 0:
        raise DataError(
            f"{where}: transform: found {tuple(transform)}, expected north-up pixels (a > 0, b = d = 0, e < 0); warp it"
        )


def check_days(pair: Pair, max_days: int | None) -> None:
    """Raise DataError where the images are more than `max_days` apart, or a date is not known; None checks nothing."""
    if max_days is None:
        return
    for sensor, path, found in (("sar", pair.sar, pair.sar_date), ("optical", pair.optical, pair.optical_date)):
        if not found:
            key = f"{sensor}_date in {path.stem}.json" if pair.sar == pair.optical else f"date in {path.name}.json"
            raise DataError(
                f"{path}: date: found none of the {sensor} image, expected one, so that no truth of another season is "
                f"taken; declare {key}, or leave `max_days` blank: then dates are not compared"
            )
    apart = abs((date.fromisoformat(pair.sar_date) - date.fromisoformat(pair.optical_date)).days)
    if apart > max_days:
        raise DataError(
            f"{pair.sar}: date: found {pair.sar_date} for the radar image and {pair.optical_date} for the optical one, "
            f"{apart} days apart, expected at most {max_days}; leave the pair out, or raise `max_days`"
        )
