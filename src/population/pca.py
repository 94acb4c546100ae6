"""Principal components of the training pixels: bands -> 3.

    python -m src.population.pca --tiles data/population/tiles --split data/population/split --out data/population/pca

Writes pca.safetensors (weight (3, C) and bias (3,) with z = weight @ x + bias for standardised, dequantised bands
x; each component has mean 0 and standard deviation 1 over the training pixels, unclipped), pca.json (explained
variance) and quicklook.png (nine training tiles in false colour; only there are values stretched to 8 bits).
"""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.figure import Figure
from safetensors.numpy import save
from threadpoolctl import threadpool_limits

from src.core.data import band_statistics
from src.core.data.pca import fit_pca, project
from src.core.data.tile_store import Store
from src.core.report import fonts
from src.core.report.figures import save as save_figure
from src.core.splits import spatial_temporal
from src.core.stage import run
from src.core.stage.errors import DataError
from src.core.stage.files import complete_folder, write_json
from src.population.params import Params

N_COMPONENTS = 3
QUICKLOOK_TILES = 9
MASKED_GREY = 217


def main(params, inputs, out, dry_run=False):
    store = Store.open(inputs.tiles)
    split = spatial_temporal.read_split(inputs.split, store.tiles["tile_id"])
    mean, sd = band_statistics.read_statistics(inputs.split / "statistics.safetensors")
    train = split.loc[split["role"] == "train", "tile"].to_numpy()
    if store.bands < N_COMPONENTS:
        raise DataError(
            f"{store.folder}: bands: found {store.bands}, expected at least {N_COMPONENTS} for the principal "
            f"components; bring tiles with more bands"
        )
    if dry_run:
        print(f"pca: would fit {store.bands} -> {N_COMPONENTS} on {len(train)} training tiles")
        return

    with threadpool_limits(params.threads):  # the order of a sum depends on the number of threads
        pixels = band_statistics.standardised_pixels(store, train, mean, sd)
        weight, bias, ratio, count = fit_pca(pixels, N_COMPONENTS)
    with complete_folder(out.out) as folder:
        (folder / "pca.safetensors").write_bytes(save({"weight": weight, "bias": bias}))
        summary = {
            "bands": store.bands,
            "components": N_COMPONENTS,
            "explained_variance_ratio": ratio.tolist(),
            "explained_variance_ratio_sum": float(ratio.sum()),
            "tiles": len(train),
            "pixels": count,
        }
        write_json(folder / "pca.json", summary)
        draw_quicklook(store, train, (mean, sd), (weight, bias), ratio, folder / "quicklook.png")
    print(f"pca: {store.bands} -> {N_COMPONENTS}, explained variance {np.round(ratio, 3).tolist()}")


def draw_quicklook(
    store: Store,
    rows: np.ndarray,
    statistics: tuple[np.ndarray, np.ndarray],
    projection: tuple[np.ndarray, np.ndarray],
    ratio: np.ndarray,
    path: Path,
) -> None:
    """PNG of nine training tiles, components 1 to 3 as red, green and blue.

    One 2-98 % stretch to 8 bits per component over all nine, so that colours mean the same in each.
    """
    chosen = choose_tiles(store.tiles.loc[rows])
    masks = store.valid(chosen["tile"])
    components = []
    for row, valid in zip(chosen["tile"], masks, strict=True):
        values = band_statistics.standardise(store.view(row), valid, store.quantisation, *statistics)
        components.append(project(values, valid, *projection))
    colours = stretch(np.stack(components), masks)

    with rc_context({"font.family": fonts.with_chinese()}):
        figure = Figure(figsize=(8, 9.2), layout="constrained")
        for axes in (grid := figure.subplots(3, 3)).flat:
            axes.set_axis_off()
        for axes, tile, image in zip(grid.flat, chosen.itertuples(), colours, strict=False):
            axes.imshow(image, interpolation="nearest")
            city = fonts.drawable(tile.city, f"tile {tile.tile}")
            province = fonts.drawable(tile.province, "")
            axes.set_title(fonts.verbatim(f"{city}\n{province} {tile.year}"), fontsize=10)
        shares = ", ".join(f"{share:.1%}" for share in ratio)
        figure.suptitle(
            f"{len(chosen)} training tiles in false colour: principal components 1, 2, 3 of {store.bands} bands\n"
            f"as red, green, blue ({shares} of the variance; 2–98 % stretch; grey = no data)",
            fontsize=11,
        )
        save_figure(figure, path, dpi=120)


def choose_tiles(tiles: pd.DataFrame) -> pd.DataFrame:
    """Up to nine tiles of different places, evenly spaced in alphabetical order."""
    places = tiles.sort_values("tile_id").drop_duplicates(["province", "city"])
    count = min(QUICKLOOK_TILES, len(places))
    return places.iloc[np.linspace(0, len(places) - 1, count).round().astype(int)]


def stretch(components: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """(N, 3, H, W) float32 and (N, H, W) bool -> (N, H, W, 3) uint8, grey where masked."""
    images = np.moveaxis(components, 1, -1)
    low, high = np.percentile(images[valid], [2, 98], axis=0)
    scaled = np.clip((images - low) / np.maximum(high - low, np.finfo(np.float32).eps), 0, 1)
    return np.where(valid[..., None], 255 * scaled, MASKED_GREY).round().astype(np.uint8)


if __name__ == "__main__":
    run.stage(
        main,
        Params,
        name="population.pca",
        doc=__doc__,
        inputs={"tiles": "preprocess", "split": "split"},
        outputs={"out": "folder for weight, bias, explained variance and quicklook"},
    )
