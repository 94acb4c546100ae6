"""Small pairs of radar and optical images that share their edges, written as GeoTIFF or NPZ."""

import json
from pathlib import Path

import numpy as np
import rasterio
from affine import Affine
from ruamel.yaml import YAML
from scipy import ndimage

from src.core.stage.params import validate
from src.grounding.data.sensors import OPTICAL_BANDS, SAR_BANDS
from src.grounding.params import Params

ROOT = Path(__file__).parents[2]
REAL = ROOT.parent / "shared/data"
SIDE = 40
LEVELS = np.array([0.04, 0.07, 0.06, 0.3])  # reflectance of a field: blue, green, red, near infrared


def params(changes: dict | None = None, sar_bands: list[str] | None = None, **data) -> Params:
    """The committed params with dotted keys changed; `data` are keys of its section that no check of params sees."""
    values = YAML(typ="safe", pure=True).load((ROOT / "pipelines/grounding/params.yaml").read_text(encoding="utf-8"))
    for key, value in (changes or {}).items():
        *sections, name = key.split(".")
        target = values
        for section in sections:
            target = target[section]
        target[name] = value
    checked = validate(values, Params, "params.yaml")
    sar = checked.data.sar.model_copy(update={"bands": sar_bands})
    return checked.model_copy(update={"data": checked.data.model_copy(update={"sar": sar} | data)})


def images(seed: int, side: int = SIDE) -> tuple[np.ndarray, np.ndarray]:
    """Radar (2, side, side) in dB and optical (4, side, side) reflectance of fields, float32, with dark water."""
    draw = np.random.default_rng(seed)
    corners = draw.uniform(0, side, (12, 2))
    rows, columns = np.mgrid[:side, :side]
    field = np.hypot(rows[..., None] - corners[:, 0], columns[..., None] - corners[:, 1]).argmin(-1)
    water = field < 2
    sar = np.stack([draw.uniform(-14, -6, 12)[field], draw.uniform(-20, -14, 12)[field]])
    sar[:, water] = [[-22], [-28]]
    sar += draw.normal(0, 0.5, sar.shape)
    optical = LEVELS[:, None, None] * draw.uniform(0.7, 1.3, 12)[field]
    optical[:, water] = np.array([0.03, 0.03, 0.02, 0.01])[:, None]
    optical += ndimage.gaussian_filter(draw.normal(0, 0.02, optical.shape), (0, 1, 1))
    return sar.astype(np.float32), optical.clip(0.002).astype(np.float32)


def write_raster(path: Path, values: np.ndarray, names=None, *, crs="EPSG:32630", transform=None, **options) -> Path:
    """A GeoTIFF of (C, H, W) values, 10 m pixels at (500000, 5000000) unless `transform` says otherwise."""
    tags, scales, offsets = (options.pop(key, None) for key in ("tags", "scales", "offsets"))
    path.parent.mkdir(parents=True, exist_ok=True)
    count, height, width = values.shape
    profile = {"count": count, "height": height, "width": width, "dtype": values.dtype, "crs": crs}
    profile["transform"] = Affine(*(transform or (10, 0, 500_000, 0, -10, 5_000_000)))
    with rasterio.open(path, "w", driver="GTiff", **profile | options) as dataset:
        dataset.write(values)
        if names:
            dataset.descriptions = names
        dataset.update_tags(**tags or {})
        if scales:
            dataset.scales, dataset.offsets = scales, offsets
    return path


def write_pair(
    folder: Path, name: str, seed: int = 0, *, east: float = 0, side: int = SIDE, sar=None, optical=None,
    sar_options: dict | None = None, optical_options: dict | None = None,
) -> tuple[Path, Path]:  # fmt: skip
    """<name>_s1.tif and <name>_s2.tif, `east` m from the first place; reflectance as int16 times 10,000."""
    drawn = images(seed, side)
    sar, optical = drawn[0] if sar is None else sar, drawn[1] if optical is None else optical
    if optical.dtype.kind == "f":
        optical = np.rint(optical * 10_000).astype(np.int16)
    place = {"transform": (10, 0, 500_000 + east, 0, -10, 5_000_000)}
    radar = {"names": SAR_BANDS, "tags": {"datetime": "2021-07-20T08:40:10.000000000"}} | place | (sar_options or {})
    light = {"names": OPTICAL_BANDS, "tags": {"datetime": "2021-07-21T10:00:00"}} | place | (optical_options or {})
    return write_raster(folder / f"{name}_s1.tif", sar, **radar), write_raster(
        folder / f"{name}_s2.tif", optical, **light
    )


def write_tile(folder: Path, name: str, seed: int = 0, *, arrays: dict | None = None, sidecar: dict | None = None):
    """<name>.npz with the document's keys, reflectance as numbers times 10,000, and <name>.json; returns the former."""
    sar, optical = images(seed)
    keys = ("s1_vv", "s1_vh", "s2_b2", "s2_b3", "s2_b4", "s2_b8")
    values = dict(zip(keys, [*sar, *np.rint(optical * 10_000)], strict=True)) | (arrays or {})
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.npz"
    np.savez_compressed(path, **{key: array for key, array in values.items() if array is not None})
    if sidecar is not None:
        path.with_suffix(".json").write_text(json.dumps(sidecar))
    return path


def declare(path: Path, **values) -> None:
    """The JSON that declares what a raster file does not say itself."""
    path.with_name(f"{path.name}.json").write_text(json.dumps(values))
