"""Files that are either complete or absent: write aside, sync, rename."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import safetensors.numpy
from safetensors import SafetensorError
from tqdm import tqdm

from src.core.stage import distributed
from src.core.stage.errors import DataError, StorageError


@contextmanager
def complete_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder beside `path`; on success it is synced and renamed to `path`.

    On any exception the folder is removed and `path` is left as it was. Of several processes the main one does
    that, when all have come to the end, and the others get the name of a folder that is not there.
    """
    if path.exists() and not path.is_dir():  # said before hours of work, not after
        raise StorageError(f"{path}: found a file, expected a folder or nothing; remove it or choose another folder")
    aside = _aside(path)
    if not distributed.is_main():
        yield aside
        distributed.wait()  # for all, before the main process renames
        distributed.wait()  # for the main process, which has renamed
        return
    try:
        aside.mkdir(parents=True)
        yield aside
        distributed.wait()
        for file in sorted(aside.rglob("*")):
            if file.is_file():
                sync(file)
        if path.is_dir():
            shutil.rmtree(path)
        os.replace(aside, path)
        distributed.wait()
    except OSError as error:
        raise _storage_error(path, error) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


@contextmanager
def complete_file(path: Path) -> Iterator[Path]:
    """Yield a file name beside `path` with the same suffix; on success what was written there becomes `path`."""
    aside = _aside(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield aside
        sync(aside)
        os.replace(aside, path)
    except OSError as error:
        raise _storage_error(path, error) from error
    finally:
        with suppress(OSError):  # a parent that is a file: the error above says so
            aside.unlink()


def write_json(path: Path, value: Any) -> None:
    """`value` as indented UTF-8 JSON with the key order given; NaN and infinity are refused."""
    with complete_file(Path(path)) as aside:
        aside.write_text(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """Parse `path`; raises StorageError if it cannot be read and DataError if it is not JSON."""
    with _reading(path, "JSON"):
        return json.loads(Path(path).read_text(encoding="utf-8"))


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a .safetensors file; raises StorageError or DataError as `read_json` does."""
    with _reading(path, "safetensors"):
        return safetensors.numpy.load_file(path)


def read_table(path: Path) -> pd.DataFrame:
    """The rows of a .parquet file; raises StorageError or DataError as `read_json` does."""
    with _reading(path, "Parquet"), Path(path).open("rb") as file:
        return pd.read_parquet(file)


@contextmanager
def _reading(path: Path, kind: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageError(f"{path}: cannot read: {error.strerror or error}") from error
    except (ValueError, SafetensorError) as error:  # pyarrow's ArrowInvalid is a ValueError
        raise DataError(f"{path}: found something that is not {kind} ({error})") from error


def sha256(path: Path) -> str:
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def tree_sha256(paths: Iterable[Path]) -> str:
    """One digest over files and folders: names below each path and contents, in sorted order."""
    digest = hashlib.sha256()
    for path in map(Path, paths):
        for file in [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file()):
            name = file.name if file == path else file.relative_to(path).as_posix()
            digest.update(f"{name}\0{sha256(file)}\n".encode())
    return digest.hexdigest()


def write_table(path: Path, frame: pd.DataFrame) -> None:
    """`frame` as Parquet, without its index and without `attrs`, which may hold paths of this machine."""
    frame = frame.copy(deep=False)
    frame.attrs = {}
    with complete_file(path) as aside:
        frame.to_parquet(aside, index=False)


def read_manifest(folder: Path, form: int | str) -> dict[str, Any]:
    """manifest.json of a folder that is complete; its `files` are name -> sha256.

    Raises:
        StorageError: there is no such folder, or it has no manifest.
        DataError: the manifest's format is not `form`, or it names a file that is not there.
    """
    manifest, again = read_json(folder / "manifest.json"), "run the stage that wrote the folder again"
    found = manifest.get("format") if isinstance(manifest, dict) else type(manifest).__name__
    if found != form:
        raise DataError(f"{folder}/manifest.json: format: found {found!r}, expected {form!r}; {again}")
    if missing := [name for name in manifest["files"] if not (folder / name).is_file()]:
        raise DataError(f"{folder}: {missing[0]} is missing, the manifest names it; {again}")
    return manifest


def verify(folder: Path, manifest: dict[str, Any]) -> None:
    """Hash every file of `folder` again; raises DataError if one differs from the manifest."""
    for name, expected in tqdm(manifest["files"].items(), desc="verify", unit="file"):
        if (found := sha256(folder / name)) != expected:
            raise DataError(
                f"{folder / name}: sha256: found {found}, the manifest says {expected}; the file changed after it was "
                "written: delete the folder and run the stage that wrote it again"
            )


def _aside(path: Path) -> Path:
    return path.with_name(f".{path.stem}.{os.getpid()}.partial{path.suffix}")


def sync(path: Path) -> None:
    """Wait until the file's bytes are on the disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _storage_error(path: Path, error: OSError) -> StorageError:
    why = f"{error.filename or path}: {error.strerror or error}"
    return StorageError(f"{path}: cannot write ({why}); free some space or choose another folder")
