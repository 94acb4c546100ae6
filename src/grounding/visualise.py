"""Draw what `infer` wrote: a picture of each scene, radar, first guess, refined image, truth, error and spread.

    python -m src.grounding.visualise --results refined --out pictures

--results is the --out of `infer`, of one scene or of many. Writes <scene>.png for each; truth and error are left out
where `infer` knew no truth, and spread where it drew one sample. Large scenes are thinned to 400 px. Error and spread
share a scale: where the spread is honest, they look alike on average.
"""

from pathlib import Path

import numpy as np

from src.core.stage import files, run
from src.core.stage.errors import DataError, StorageError
from src.grounding.data.pairs import PIXELS
from src.grounding.data.scene_store import Scene
from src.grounding.data.sensors import OPTICAL_BANDS
from src.grounding.inference import images, results
from src.grounding.report import panels
from src.grounding.report.panels import Refined

PARSER = run.command_line("grounding.visualise", __doc__)
PARSER.add_argument("--results", type=Path, required=True, help="folder that infer wrote")
PARSER.add_argument("--out", type=Path, required=True, help="folder for pictures")


def main(found: Path, out: Path) -> None:
    """Draw each scene below `found` into the folder `out`.

    Raises:
        StorageError: there is no such folder.
        DataError: no result of infer in it, or a damaged one.
    """
    folders = scenes(found)
    for name, folder in folders.items():
        panels.draw_panels(out / f"{name}.png", [read(name, folder)])
    print(f"visualise: {len(folders)} {'picture' if len(folders) == 1 else 'pictures'} in {out}")


def scenes(found: Path) -> dict[str, Path]:
    """Name of a scene -> folder that infer wrote of it, sorted."""
    if not found.is_dir():
        raise StorageError(f"{found}: no such folder; correct --results")
    paths = sorted([*found.glob(results.SUMMARY), *found.glob(f"*/{results.SUMMARY}")])
    if not paths:
        raise DataError(
            f"{found}: found no {results.SUMMARY} in it nor below, expected results of infer; correct --results"
        )
    return {files.read_json(path)["scene"] or Path(found).resolve().name: path.parent for path in paths}


def read(name: str, folder: Path) -> Refined:
    """Thinned images of one scene; raises DataError where they are not of one size."""
    arrays = files.read_arrays(folder / results.PREVIEW)
    numbers = [index + 1 for index in range(len(OPTICAL_BANDS))]
    mean = images.thinned(folder / results.REFINED, numbers)
    spread = folder / results.SPREAD
    spread = images.thinned(spread, numbers) if spread.is_file() else None
    guess = arrays["first_guess"]
    if mean.shape != guess.shape:
        raise DataError(f"{folder}: found {mean.shape} and {guess.shape}, expected images of one size; run infer again")
    shown = np.isfinite(mean).all(0)
    truth = arrays.get("truth")
    valid = shown if truth is None else shown & np.isfinite(truth).all(0)
    if not valid.any():
        raise DataError(f"{folder}: found nothing but no data in all images together, expected some; look at its files")
    missing = ~np.isfinite(guess).all(0)
    scene = Scene(name, "", arrays["sar"], truth, guess, valid, missing, crs="", transform=PIXELS)
    return Refined(scene, mean, spread)


if __name__ == "__main__":
    given = PARSER.parse_args()
    run.finish(lambda: main(given.results, given.out), "grounding.visualise")
