"""The one table of records below a folder, under the names that GBIF's downloads are given here."""

from pathlib import Path

from src.core.stage.errors import DataError

NAMES = ("observations.csv", "observations.parquet")


def find(root: Path) -> Path:
    """The one table below `root`; raises DataError where there is none or both."""
    found = [Path(root) / name for name in NAMES if (Path(root) / name).is_file()]
    if len(found) != 1:
        raise DataError(
            f"{root}: table: found {' and '.join(path.name for path in found) or 'none'}, expected one of "
            f"{' or '.join(NAMES)}; bring one"
        )
    return found[0]
