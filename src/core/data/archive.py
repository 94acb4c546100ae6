"""The root of all tiles: a folder, or a .zip that is checked and extracted; region, place and year from file names.

Layout: `<region>/<place>/<year>_<place>.tif|.tiff|.npy`, also `<place>_<year>` and `<place><year>`,
at any depth; the region is the grandparent folder, the place the parent folder.
"""

import re
import shutil
import stat
import tempfile
import unicodedata
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePath, PurePosixPath
from typing import Any

from tqdm import tqdm

from src.core.stage.errors import DataError, StorageError

TILE_SUFFIXES = (".tif", ".tiff", ".npy")
MAX_MEMBERS = 100_000
MAX_RATIO = 100  # tiles shrink at most a few times; DEFLATE reaches 1000 on a bomb's zeros
SMALL_BYTES = 2**30  # below this no ratio is dangerous
NAME_FORMS = (
    r"(?P<year>\d{4})_(?P<place>.+)",
    r"(?P<place>.+)_(?P<year>\d{4})",
    r"(?P<place>.*[^_])(?P<year>\d{4})",
)


@dataclass(frozen=True)
class TileName:
    """One tile file: path, name in error messages, path below the root, and what its name says."""

    path: Path
    name: str
    relative: str
    region: str
    place: str
    year: int


@contextmanager
def opened(root: Path) -> Iterator[Path]:
    """`root` itself if it is a folder, else a temporary folder with the .zip's tiles and sidecars.

    Raises:
        StorageError: `root` does not exist, or there is no room to extract it.
        DataError: not a folder or .zip; a member that is a link, encrypted, doubled or outside the folder; a bomb.
    """
    root = Path(root)
    if root.is_dir():
        yield root
        return
    if not root.exists():
        raise StorageError(f"`root`: {root} does not exist; expected a folder or .zip of tiles")
    with tempfile.TemporaryDirectory(prefix="bandwise-") as name:
        folder = Path(name)
        try:
            with zipfile.ZipFile(root) as archive:
                _extract(archive, root, folder)
        except zipfile.BadZipFile as error:
            raise DataError(
                f"{root}: found no readable .zip ({error}), expected a folder or .zip; zip it again"
            ) from error
        yield folder


def find_tiles(folder: Path, root: Path) -> list[TileName]:
    """Every tile below `folder`, sorted by region, place and year; error messages use names below `root`.

    Raises:
        DataError: there is none; a name has no year or contradicts its folder; two tiles have the same key.
    """
    tiles, problems = [], []
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder)
        if not _is_wanted(relative, TILE_SUFFIXES) or path.is_dir():
            continue
        name = f"{root}/{relative.as_posix()}"
        try:
            tiles.append(TileName(path, name, relative.as_posix(), *_key(relative)))
        except DataError as error:
            problems.append(f"{name}: {error}")
    if not tiles and not problems:
        raise DataError(f"`root`: {root}: found no .tif, .tiff or .npy file, expected tiles; check the path")
    tiles.sort(key=lambda tile: (tile.region, tile.place, tile.year, tile.relative))
    first: dict[tuple[str, str, int], TileName] = {}
    for tile in tiles:
        other = first.setdefault((squeeze(tile.region), squeeze(tile.place), tile.year), tile)
        if other is not tile:
            where = f"{tile.region}/{tile.place} {tile.year}"
            problems.append(f"{tile.name}: a second tile for {where}, beside {other.name}; remove one of them")
    refuse(problems)
    return tiles


def squeeze(name: str) -> str:
    """The form in which names are compared: NFKC, without spaces."""
    return "".join(unicodedata.normalize("NFKC", name).split())


def refuse(problems: list[str]) -> None:
    """Raise one DataError that shows the first 20 problems and counts them all; return if there are none."""
    if problems:
        rest = len(problems) - 20
        more = [f"... and {rest} more ({len(problems)} in all)"] if rest > 0 else []
        raise DataError("\n".join(problems[:20] + more))


def collect(items: Iterable[Any], function: Callable[[Any], Any]) -> list[Any]:
    """`function` of every item; one DataError at the end lists the messages of all that failed."""
    results, problems = [], []
    for item in items:
        try:
            results.append(function(item))
        except DataError as error:
            problems.append(str(error))
    refuse(problems)
    return results


def _key(relative: Path) -> tuple[str, str, int]:  # region, place, year
    stem, folders = unicodedata.normalize("NFC", relative.stem), relative.parent.parts
    readings = {}
    for form in NAME_FORMS:
        if match := re.fullmatch(form, stem, re.ASCII):
            readings.setdefault(squeeze(match["place"]), (match["place"], int(match["year"])))
    if not readings:
        raise DataError("file name: expected <year>_<`place`>, <`place`>_<year> or <`place`><year>; rename it")
    parent = squeeze(folders[-1]) if folders else ""
    if parent not in readings and len(folders) > 1:
        raise DataError(
            f"`place`: found {next(iter(readings))!r}, expected {folders[-1]!r} as its folder; rename one of them"
        )
    if parent not in readings and len(readings) > 1:
        raise DataError(f"file name: reads as {' or '.join(map(repr, readings))}; put it into <`region`>/<`place`>/")
    place, year = readings.get(parent, next(iter(readings.values())))
    region, place = folders[-2:] if len(folders) > 1 else ("", place)
    return _checked(region), _checked(place), year


def _checked(name: str) -> str:
    """`name` in NFKC, trimmed. It is used in paths and prompts, so path parts and model tokens are refused."""
    name = unicodedata.normalize("NFKC", name).strip()
    if name in (".", "..") or re.search(r"[/\\]|<\||\|>", name) or any(not char.isprintable() for char in name):
        raise DataError(f"found the name {name!r}, expected no path, control character or model token; rename it")
    return name


def _extract(archive: zipfile.ZipFile, root: Path, folder: Path) -> None:
    members = [member for member in archive.infolist() if not member.is_dir()]
    problems = [f"{root}: {member.filename!r}: {fault}" for member in members if (fault := _fault(member))]
    names = [member.filename for member in members]
    if len(set(names)) < len(names):
        doubled = Counter(names).most_common(1)[0][0]
        problems.append(f"{root}: {doubled!r}: found twice; zip it again")
    total, packed = (sum(getattr(member, size) for member in members) for size in ("file_size", "compress_size"))
    if len(members) > MAX_MEMBERS or total > max(SMALL_BYTES, MAX_RATIO * packed):
        problems.append(
            f"{root}: found {len(members)} files of {total} bytes in {packed} packed ones, expected at most "
            f"{MAX_MEMBERS} files and a ratio of {MAX_RATIO} (a bomb?); unzip it yourself and give the folder"
        )
    refuse(problems)
    wanted = [member for member in members if _is_wanted(PurePosixPath(member.filename), (*TILE_SUFFIXES, ".json"))]
    free = shutil.disk_usage(folder).free
    if sum(member.file_size for member in wanted) > free:
        raise StorageError(
            f"{root}: {total} bytes extracted, {free} free in {folder.parent}; set TMPDIR to a larger disk "
            "or give the extracted folder as `root`"
        )
    for member in tqdm(wanted, desc="unzip", unit="file"):
        try:
            archive.extract(member, folder)
        except (zipfile.BadZipFile, zlib.error) as error:
            raise DataError(f"{root}: {member.filename!r}: damaged ({error}); zip it again") from error


def _fault(member: zipfile.ZipInfo) -> str | None:
    path = PurePosixPath(member.filename)
    if path.is_absolute() or ".." in path.parts or "\\" in member.filename or ":" in path.parts[0]:
        return "points outside the archive; zip it again with relative names"
    if stat.S_IFMT(member.external_attr >> 16) not in (0, stat.S_IFREG):
        return "is a link or device, not a file; zip the files themselves"
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return f"found compression method {member.compress_type}, expected deflate; zip it again"
    if member.flag_bits & 1:
        return "is encrypted; zip it without a password"
    return None


def _is_wanted(relative: PurePath, suffixes: tuple[str, ...]) -> bool:
    hidden = any(part.startswith((".", "__MACOSX")) for part in relative.parts)
    return not hidden and relative.suffix.lower() in suffixes
