"""Check pairs of radar and optical images, give them roles and a first guess, and write them as one store.

    python -m src.grounding.preprocess --params pipelines/grounding/params.yaml --root data/grounding/simulated \\
        --out data/grounding/store

`--root` holds GeoTIFF pairs (src/grounding/data/geotiff_pairs.py) or NPZ tiles (src/grounding/data/npz_tiles.py).
Radar becomes dB, optical numbers reflectance, both checked against what the params declare. `data.cloud_mask` and
`data.first_guess` are folders below the root, unless they are absolute. A first guess that is given has the numbers of
the optical files; with `degrade` it is made from the truth, by degradation A for scenes of pretrain and B for all
others, and store.json says opt_v2: synthetic. Writes a store (src/grounding/data/scene_store.py) and roles.png.
"""

from collections import Counter
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import pandas as pd
from tqdm import tqdm

from src.core.data import archive
from src.core.stage import files, run
from src.core.stage.errors import DataError, StorageError
from src.grounding.data import (
    companions,
    coregistration,
    geotiff_pairs,
    npz_tiles,
    role_audit,
    roles,
    scene_store,
    units,
)
from src.grounding.data.degradation import degrade
from src.grounding.data.pairs import Pair, check_days
from src.grounding.data.scene_store import ROLES, Scene
from src.grounding.data.sensors import OPTICAL_BANDS, SAR_BANDS
from src.grounding.data.units import Measured
from src.grounding.params import DEGRADE, Data, Degradation, Params

MEANINGS = {
    "shifted": "edges in the radar image lie more than data.max_shift_px off those in the optical one, by the grid "
    "or because trees and buildings lean towards the radar",
    "shift_unknown": "the shift cannot be told: too few edges that both images share",
    "vh_above_vv": "VH exceeds VV almost everywhere: the bands may be swapped",
    "offset_suspect": "dark pixels near 0.1: the offset that is declared may be wrong",
    "date_unknown": "a date is not known",
}


def main(params: Params, inputs, out, dry_run: bool = False) -> None:
    run.set_threads(params.threads)
    data, root = params.data, Path(inputs.root)
    pairs = open_all(root, data)
    require_side(pairs, params.tiles.tile_px)
    table = roles.assign(list(pairs.values()), params.split)
    used = table[table["role"] != roles.BUFFER].reset_index(drop=True)
    counts = Counter(used["role"])
    left_out = f"; {len(table) - len(used)} in the buffer, left out" if len(used) < len(table) else ""
    print(f"preprocess: {len(table)} scenes: " + ", ".join(f"{counts[role]} {role}" for role in ROLES) + left_out)
    overlaps = role_audit.check_ground(pairs, used)
    if dry_run:
        return
    rows, details, prints = [], {}, []
    with files.complete_folder(Path(out.out)) as folder:
        for about in tqdm(list(used.itertuples()), desc="preprocess", unit="scene"):
            scene, row, details[about.name] = prepare(pairs[about.name], about, root, params)
            scene_store.write_scene(folder, scene)
            rows.append(row)
            prints.append([role_audit.fingerprint(image) for image in (scene.sar, scene.optical)])
        used[["sar", "optical"]] = prints
        copies = role_audit.check_copies(used)
        role_audit.check_pixels(folder, rows)
        role_audit.draw(table, folder / "roles.png")
        scene_store.finish(folder, rows, facts(root, params, details), role_audit.report(used, overlaps, copies))
    say(rows, details)
    print(f"preprocess: wrote {out.out}; opt_v2 is {'synthetic' if data.first_guess == DEGRADE else 'given'}")


def open_all(root: Path, data: Data) -> dict[str, Pair]:
    """Scene -> pair below `root`, sorted by name, checked up to headers and dates.

    Raises:
        StorageError: there is no such folder.
        DataError: no pair, pairs of both formats, or as the formats' modules say, of up to 20 scenes at once.
    """
    if not root.is_dir():
        raise StorageError(f"{root}: no such folder; correct `root`")
    beside = [root / name for name in (data.cloud_mask, data.first_guess) if name and name != DEGRADE]
    tiles, rasters = npz_tiles.find(root, beside), geotiff_pairs.find(root, beside)
    if bool(tiles) == bool(rasters):
        found = f"{len(tiles)} NPZ tiles and {len(rasters)} GeoTIFF pairs"
        raise DataError(f"{root}: found {found}, expected scenes of one of the two formats; correct `root`")

    def opened(name: str) -> Pair:
        if tiles:
            pair = npz_tiles.open_tile(tiles[name])
        else:
            pair = geotiff_pairs.open_pair(name, *rasters[name], data.sar.bands, data.optical.bands)
        check_days(pair, data.max_days)
        return pair

    return {pair.name: pair for pair in archive.collect(tiles or rasters, opened)}


def require_side(pairs: dict[str, Pair], side: int) -> None:
    """Raise DataError where a scene is smaller than a window of `side` px."""
    for pair in pairs.values():
        if min(pair.height, pair.width) < side:
            raise DataError(
                f"{pair.optical}: size: found {pair.height} x {pair.width} px, expected at least `tile_px` = {side} a "
                "side; leave the scene out, or lower `tile_px`"
            )


def prepare(pair: Pair, about: Any, root: Path, params: Params) -> tuple[Scene, dict[str, Any], dict[str, Any]]:
    """The scene as the store holds it, its row of the table, and what store.json says about it.

    Args:
        about: row of `roles.assign`.

    Raises:
        DataError: as `units` and `companions`; no pixel is clear and has data in both images.
    """
    data = params.data
    sar, optical = read(pair, data)
    valid = sar.known & optical.known
    if data.cloud_mask:
        valid &= ~companions.read_cloud_mask(root / data.cloud_mask, pair)
    if not valid.any():
        raise DataError(
            f"{pair.optical}: pixels: found none that is clear and has data in both images, expected some; leave the "
            "scene out"
        )
    radar = np.where(sar.known, sar.values, np.float32(data.sar.clip_db[0]))
    truth = np.where(optical.known, optical.values, np.float32(0))
    shift = coregistration.shift_px(radar, truth, valid)
    guess, missing, drawn = first_guess(pair, about.role, truth, valid, root, params)
    flags = [*sar.flags, *optical.flags]
    if not shift <= data.max_shift_px:
        flags.append("shift_unknown" if np.isnan(shift) else "shifted")
    if not (pair.sar_date and pair.optical_date):
        flags.append("date_unknown")
    scene = Scene(pair.name, about.role, radar, truth, guess, valid, missing, pair.crs, pair.transform)
    row = {
        "name": pair.name, "role": about.role, "block": about.block, "height": pair.height, "width": pair.width,
        "crs": pair.crs, "transform": list(map(float, pair.transform)), "sar_date": pair.sar_date,
        "optical_date": pair.optical_date, "shift_px": shift, "valid_share": float(valid.mean()),
        "flags": ",".join(sorted(flags)),
    }  # fmt: skip
    return scene, row, {"sar_clipped": sar.clipped, "optical_clipped": optical.clipped, "degradation": drawn}


def read(pair: Pair, data: Data) -> tuple[Measured, Measured]:
    """Radar in dB and optical reflectance of one pair; raises DataError as the formats and `units`."""
    if pair.sar == pair.optical:
        sar, optical = (npz_tiles.read(pair.sar, keys) for keys in (npz_tiles.SAR_KEYS, npz_tiles.OPTICAL_KEYS))
    else:
        sar = geotiff_pairs.read_bands(pair.sar, SAR_BANDS, data.sar.bands, "data.sar.bands")
        optical = geotiff_pairs.read_bands(pair.optical, OPTICAL_BANDS, data.optical.bands, "data.optical.bands")
    return units.to_db(sar, data.sar, str(pair.sar)), _reflectance(optical, pair, data, str(pair.optical))


def first_guess(
    pair: Pair, role: str, truth: np.ndarray, valid: np.ndarray, root: Path, params: Params
) -> tuple[np.ndarray, np.ndarray, dict[str, float] | None]:
    """First guess (4, H, W), (H, W) bool missing, and what was drawn for it, None where it is given.

    Raises:
        StorageError: it should be given, and is missing.
        DataError: as `companions.read_first_guess`; it is the truth itself.
    """
    if params.data.first_guess == DEGRADE:
        generator = np.random.default_rng([params.degrade.seed, crc32(pair.name.encode())])
        return degrade(truth, valid, degradation(role, params), generator)
    folder = root / params.data.first_guess
    stored = companions.read_first_guess(folder, pair, params.data.optical.bands)
    guess = _reflectance(stored, pair, params.data, f"{folder}/{pair.name}")
    both = valid & guess.known
    if np.array_equal(guess.values[:, both], truth[:, both]):
        raise DataError(
            f"{folder}/{pair.name}: opt_v2: found the optical image itself, expected a first guess of it; give the "
            "output of the method that is to be refined"
        )
    mean = guess.values[:, guess.known].mean(axis=1)  # as `degrade` fills what is missing
    return np.where(guess.known, guess.values, mean[:, None, None]), ~guess.known, None


def degradation(role: str, params: Params) -> Degradation:
    """Degradation A for pretrain, B for all other roles."""
    return params.degrade.pretrain if role == "pretrain" else params.degrade.ground


def facts(root: Path, params: Params, details: dict[str, Any]) -> dict[str, Any]:
    """store.json: origin of the scenes and of the first guess, declared meaning of the numbers, and each scene's."""
    source = root / "source.json"
    about = files.read_json(source) if source.is_file() else {"simulated": False, "description": ""}
    synthetic = params.data.first_guess == DEGRADE
    return {
        "simulated": bool(about.get("simulated")),
        "description": about.get("description", ""),
        "opt_v2": "synthetic" if synthetic else "given",
        "degrade": {role: degradation(role, params).model_dump() for role in ROLES} if synthetic else None,
        "sar": params.data.sar.model_dump(),
        "optical": params.data.optical.model_dump(),
        "max_days": params.data.max_days,
        "scenes": details,
    }


def say(rows: list[dict[str, Any]], details: dict[str, Any]) -> None:
    """Print what was clipped, and each flag with its scenes."""
    clipped = pd.DataFrame(details).T[["sar_clipped", "optical_clipped"]].astype(float).mean()
    print(
        f"preprocess: clipped {clipped['sar_clipped']:.2%} of radar, {clipped['optical_clipped']:.2%} of optical values"
    )
    for flag, meaning in MEANINGS.items():
        if names := [row["name"] for row in rows if flag in row["flags"].split(",")]:
            more = f" and {len(names) - 5} more" if len(names) > 5 else ""
            print(f"preprocess: warning, {flag}: {meaning}: {', '.join(names[:5])}{more}")


def _reflectance(stored: np.ndarray, pair: Pair, data: Data, where: str) -> Measured:
    offset = data.optical.offset if pair.offset is None else pair.offset
    return units.to_reflectance(stored, data.optical.scale, offset, where, pair.offset is not None)


if __name__ == "__main__":
    sources = {"root": "folder of pairs (data.root)"}
    outputs = {"out": "folder of the store"}
    run.stage(main, Params, name="grounding.preprocess", doc=__doc__, inputs={}, sources=sources, outputs=outputs)
