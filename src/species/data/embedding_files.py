"""Embedding files: their layout on disk, checks of every header and value, and reading chunk by chunk.

Below `embeddings/` a modality is a folder with one file an observation (`language/4171912265_1.npy` or
`.safetensors`, whose one tensor is called as the modality), or a pack: `language.npy` (N, *shape) with
`language.ids.txt`, one observation id a line. Nothing is ever unpickled.
"""

import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file
from tqdm import tqdm

from src.core.data.npy import read_array_header
from src.core.stage.errors import DataError
from src.species.data.observation_ids import parse_id, some

SHAPES = {"language": (7168,), "vision_pooled": (1408,), "vision": (8, 24, 24, 1408)}
SUFFIXES = ".npy", ".safetensors"
CHUNK_BYTES = 64 * 2**20  # read before the scratch is synced and marked; an embedding of vision is 13 MB
MAX_ID_BYTES = 2**28
LARGEST = float(np.finfo(np.float16).max)
ROUNDING = 1e-2  # float16 keeps three digits; a mean of other tokens differs by far more


@dataclass(frozen=True)
class Source:
    """The checked files of one modality: one for each of `ids`, in the order of reading, or a pack and its ids file."""

    modality: str
    ids: tuple[str, ...]
    files: tuple[Path, ...]
    packed: bool = False

    def chunks(self) -> list[slice]:
        """Ranges of `ids` that are read at once."""
        step = max(1, CHUNK_BYTES // (4 * math.prod(SHAPES[self.modality])))
        return [slice(start, start + step) for start in range(0, len(self.ids), step)]


def find(root: Path, modalities: list[str]) -> tuple[list[Source], list[str]]:
    """Sources of the declared modalities with every header checked, and names of what else `embeddings/` holds.

    Raises:
        DataError: a modality is absent, or there in two forms; a file is no embedding of its modality, is cut short,
            holds objects, or is not called by an observation id; a pack's ids do not fit it.
    """
    folder = Path(root) / "embeddings"
    present = {path.name for path in folder.iterdir() if not path.name.startswith(".")} if folder.is_dir() else set()
    sources = [_source(folder, name) for name in modalities]
    used = {name for modality in modalities for name in (modality, f"{modality}.npy", f"{modality}.ids.txt")}
    return sources, sorted(present - used)


def read(source: Source, chunk: slice) -> np.ndarray:
    """(B, *shape) float16 or float32 embeddings of `source.ids[chunk]`.

    Raises:
        DataError: a file changed since `find`.
    """
    try:
        if source.packed:
            return np.array(np.load(source.files[0], mmap_mode="r", allow_pickle=False)[chunk])
        return np.stack([
            np.load(path, allow_pickle=False) if path.suffix == ".npy" else load_file(path)[source.modality]
            for path in source.files[chunk]
        ])  # fmt: skip
    except (ValueError, EOFError, KeyError, SafetensorError) as error:
        raise DataError(f"{source.files[0]}: found {error}, not what it was a moment ago; start again") from error


def check_values(source: Source, ids: tuple[str, ...], values: np.ndarray) -> np.ndarray:
    """`values` (B, *shape) as float16.

    Raises:
        DataError: a number is not finite or beyond the range of float16, or an embedding is zeros alone, which the
            store has where one is missing.
    """
    with np.errstate(over="ignore"):
        stored = values.astype(np.float16)
    each = stored.reshape(len(stored), -1)
    finite = np.isfinite(each).all(axis=1)
    for row in np.flatnonzero(~finite | ~each.any(axis=1)):
        fault = "zeros alone (as float16), expected an embedding"
        if not finite[row]:
            number = values[row].ravel()[~np.isfinite(each[row])][0]
            fault = f"{number}, expected finite numbers within ±{LARGEST:g}, the range of float16"
        path = source.files[0 if source.packed else source.ids.index(ids[row])]
        raise DataError(f"{path}: {source.modality} of {ids[row]}: found {fault}; embed it again or leave it out")
    return stored


def require_agreement(observation: str, given: np.ndarray, pooled: np.ndarray) -> None:
    """Raise DataError if the (D,) `given` pooled embedding is not the mean of the tokens, but for rounding."""
    difference = np.linalg.norm(given.astype(np.float32) - pooled)
    if difference > ROUNDING * np.linalg.norm(pooled):
        raise DataError(
            f"embeddings: vision_pooled of {observation}: found a vector that differs by {difference:.3g} from the "
            f"mean of its vision tokens, whose length is {np.linalg.norm(pooled):.3g}; expected that mean: remove "
            "vision_pooled, which is then computed, or bring both from one model"
        )


def _source(folder: Path, modality: str) -> Source:
    pack, files = folder / f"{modality}.npy", folder / modality
    if pack.exists() == files.is_dir():
        found = f"both {pack.name} and" if pack.exists() else f"neither {pack.name} nor"
        raise DataError(
            f"{folder}: {modality}: found {found} {modality}/, expected one of them; data.modalities says which "
            "modalities there are"
        )
    return _pack(pack, modality) if pack.exists() else _files(files, modality)


def _pack(path: Path, modality: str) -> Source:
    _, shape, _, dtype = read_array_header(path, str(path))
    _check_shape(path, modality, shape[1:], dtype)
    rows = shape[0]
    beside = path.with_suffix(".ids.txt")
    if not beside.is_file():
        raise DataError(f"{beside}: missing, expected an observation id for each of the {rows} rows; write it")
    if beside.stat().st_size > MAX_ID_BYTES:
        raise DataError(f"{beside}: found {beside.stat().st_size} bytes, expected at most {MAX_ID_BYTES}")
    try:
        ids = tuple(beside.read_text(encoding="utf-8").splitlines())
    except UnicodeDecodeError as error:
        raise DataError(f"{beside}: found bytes that are not UTF-8 ({error}), expected ids; write it again") from error
    if len(ids) != rows:
        raise DataError(f"{beside}: found {len(ids)} lines, expected one for each of the {rows} rows of {path}")
    for number, name in enumerate(ids, start=1):
        parse_id(name, f"{beside}: line {number}: observation id")
    _require_once(beside, ids)
    return Source(modality, ids, (path, beside), packed=True)


def _files(folder: Path, modality: str) -> Source:
    paths = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    for path in paths:
        if path.suffix not in SUFFIXES or not path.is_file():
            raise DataError(f"{path}: found neither .npy nor .safetensors, expected embeddings alone; move it away")
    if not paths:
        raise DataError(
            f"{folder}: found no files, expected one an observation; take {modality} out of data.modalities"
        )
    paths.sort(key=lambda path: parse_id(path.stem, f"{path}: observation id"))
    ids = tuple(path.stem for path in paths)
    _require_once(folder, ids)
    for path in tqdm(paths, desc=f"check {modality}", unit="file"):
        if path.suffix == ".safetensors":
            shape, dtype = _safetensors_header(path, modality)
        else:
            _, shape, _, dtype = read_array_header(path, str(path))
        _check_shape(path, modality, shape, dtype)
    return Source(modality, ids, tuple(paths))


def _require_once(where: Path, ids: tuple[str, ...]) -> None:
    if twice := [name for name, count in Counter(ids).items() if count > 1]:
        raise DataError(f"{where}: id: found {some(twice)} twice, expected each once; leave one embedding of each")


def _safetensors_header(path: Path, modality: str) -> tuple[tuple[int, ...], str]:
    try:
        with safe_open(path, framework="numpy") as file:
            if (names := sorted(file.keys())) != [modality]:
                raise DataError(f"{path}: tensors: found {some(names) or 'none'}, expected {modality} alone; rename it")
            tensor = file.get_slice(modality)
            dtype = tensor.get_dtype()
            return tuple(tensor.get_shape()), {"F16": "float16", "F32": "float32"}.get(dtype, dtype)
    except SafetensorError as error:
        raise DataError(
            f"{path}: found {path.stat().st_size} bytes that are no whole safetensors file ({error}), expected one "
            f"with the tensor {modality}; copy it again, it may be cut short"
        ) from error


def _check_shape(path: Path, modality: str, shape: tuple[int, ...], dtype: np.dtype | str) -> None:
    if tuple(shape) != SHAPES[modality]:
        raise DataError(
            f"{path}: shape: found {tuple(shape)}, expected {SHAPES[modality]} of {modality}; embed it again"
        )
    if str(dtype) not in ("float16", "float32"):
        raise DataError(f"{path}: dtype: found {dtype}, expected float16 or float32; convert it")
