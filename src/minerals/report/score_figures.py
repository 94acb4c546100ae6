"""Figures of the report: maps beside truth, scores with intervals, confusion, spectra of what was mapped."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import rasterio
from sklearn.metrics import confusion_matrix

from src.core.report.figures import ACCENT, FAINT, INK, SECOND, drawing
from src.minerals.data import band_table, blocks, spectral_library
from src.minerals.data.cube_store import SCALE, CubeStore, reflectance
from src.minerals.evaluation.predictors import TITLES, key_end
from src.minerals.mapping.map_classes import CLASSES, COLOURS
from src.minerals.mapping.minerals import NAMES
from src.minerals.params import Annotate
from src.minerals.report.scene_pictures import Picture, contact_sheet, shown_bands, stretched

SHOWN = 6  # test scenes in maps.png
SWIR_NM = 2000, 2470
MOST = 4000  # pixels of a scene, at most, in the mean spectrum of a mineral


def draw_all(plots: Path, store: CubeStore, inputs, scores: dict, library: Path) -> None:
    """Draw every figure into `plots`; those of the split and of the sensitivity stage are copied."""
    table = blocks.read(inputs.split, store)
    tests = list(dict.fromkeys(table.loc[table["role"] == "test", "scene"]))
    mapped = {scene: _classes(inputs.map, scene) for scene in tests}
    draw_maps(plots / "maps.png", store, band_table.read_kept(inputs.bands, store), tests[:SHOWN], mapped)
    known = scores["scored_against"] == "truth"
    kind = "alteration" + key_end(scores["scored_against"])
    draw_scores(plots / "words.png", scores, kind, "balanced_accuracy", "balanced accuracy of yes or no", 0.5)
    if known:
        draw_scores(plots / "methods.png", scores, "map", "macro_f1", "macro-F1 of the dominant mineral", None)
        draw_confusion(plots / "confusion.png", *pixels_of_test_blocks(store, table, mapped))
    draw_spectra(plots / "spectra.png", store, tests, mapped, library)
    copied = (inputs.split, "blocks"), (inputs.sensitivity, "sweeps"), (inputs.sensitivity, "one_sample")
    for folder, name in copied:
        shutil.copyfile(folder / f"{name}.png", plots / f"{name}.png")


def pixels_of_test_blocks(store: CubeStore, table: pd.DataFrame, mapped: dict) -> tuple[np.ndarray, np.ndarray]:
    """(N,) known and mapped classes of the test blocks, without the other blocks of their scenes."""
    tests = [(block.scene, blocks.inside(block)) for block in table[table["role"] == "test"].itertuples()]
    known = [store.truth(scene)[inside].ravel() for scene, inside in tests]
    return np.concatenate(known), np.concatenate([mapped[scene][inside].ravel() for scene, inside in tests])


def _classes(folder: Path, scene: str) -> np.ndarray:
    with rasterio.open(Path(folder) / "minerals" / f"{scene}.tif") as dataset:
        return dataset.read(1)


def draw_maps(path: Path, store: CubeStore, kept: np.ndarray, scenes: list[str], mapped: dict[str, np.ndarray]) -> None:
    """maps.png: natural colour (or grey), known minerals where there are any, and the map, of test scenes."""
    pictures, (shown, colours) = [], shown_bands(store.wavelengths, kept)
    for scene in scenes:
        rgb = stretched(reflectance(store.stored(scene)[..., shown])[0])  # and not all bands as float32
        truth = store.truth(scene)
        classes = [mapped[scene]] if truth is None else [truth, mapped[scene]]
        pictures.append(Picture(scene, rgb, *classes))
    rows = f"{colours}, map" if pictures[0].more is None else f"{colours}, truth, map"
    contact_sheet(pictures, f"test scenes: {rows}", path)


def draw_scores(path: Path, scores: dict, kind: str, name: str, label: str, chance: float | None) -> None:
    """A dot with its interval for every predictor that has this kind of score."""
    rows = [(TITLES[key], scores[key][kind]) for key in TITLES if kind in scores.get(key, {})]
    with drawing(path, 8.5, 0.8 + 0.32 * len(rows)) as figure:
        axes = figure.subplots()
        for at, (_, score) in enumerate(rows):
            if score[name] is None:
                axes.text(0.01, at, "no score: " + score["method"], va="center", fontsize=8)
                continue
            if score.get(f"{name}_low") is not None:
                axes.plot([score[f"{name}_low"], score[f"{name}_high"]], [at, at], color=ACCENT, linewidth=2)
            axes.plot(score[name], at, "o", color=SECOND)
        if chance is not None:
            axes.axvline(chance, color=INK, linestyle="--", linewidth=0.8)
        axes.set_yticks(range(len(rows)), [title for title, _ in rows])
        axes.set(xlabel=f"{label} (95 % interval over blocks)", xlim=(0, 1.02))
        axes.invert_yaxis()


def draw_confusion(path: Path, truth: np.ndarray, guess: np.ndarray) -> None:
    """Share of each known class that the map gives to each class."""
    usable = (truth < len(CLASSES)) & (guess < len(CLASSES))
    counts = confusion_matrix(truth[usable], guess[usable], labels=range(len(CLASSES)))
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    with drawing(path, 6.6, 5.6, 9) as figure:
        axes = figure.subplots()
        axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
        for row, column in np.argwhere(share >= 0.005):
            colour = "white" if share[row, column] > 0.6 else INK
            axes.text(column, row, f"{share[row, column]:.2f}", ha="center", va="center", fontsize=7, color=colour)
        axes.set_xticks(range(len(CLASSES)), CLASSES, rotation=45, ha="right")
        axes.set_yticks(range(len(CLASSES)), CLASSES)
        axes.set(xlabel="map", ylabel="truth")


def draw_spectra(path: Path, store: CubeStore, scenes: list[str], mapped: dict, library: Path) -> None:
    """Mean spectrum of the pixels mapped as each mineral, beside the library's references, between 2000 and 2470 nm."""
    nm = store.wavelengths
    shown = np.flatnonzero((nm >= SWIR_NM[0]) & (nm <= SWIR_NM[1]))
    known = spectral_library.read(library)
    sensed = known.at(nm, store.fwhm)
    with drawing(path, 11, 5, 8) as figure:
        for number, (axes, name) in enumerate(zip(figure.subplots(2, 4, sharex=True).ravel(), NAMES, strict=True)):
            for row in known.rows(name, "reference"):
                axes.plot(nm[shown], _scaled(sensed[row, shown]), color=FAINT, linewidth=2)
            places = {scene: np.argwhere(mapped[scene] == number + 1)[:MOST].T for scene in scenes}
            found = [store.stored(scene)[tuple(place)][:, shown] for scene, place in places.items()]
            pixels = np.concatenate(found)
            if len(pixels):
                mean = pixels.mean(0) / SCALE
                axes.plot(nm[shown], _scaled(mean), color=np.array(COLOURS[name]) / 255, linewidth=1.6)
            axes.set_title(f"{name}, {len(pixels)} px", fontsize=9)
        figure.supxlabel("wavelength (nm)")
        figure.supylabel("reflectance, scaled to its largest; grey: library")


def _scaled(spectrum: np.ndarray) -> np.ndarray:
    return spectrum / np.nanmax(spectrum)


def example_rows(
    answers: dict[str, pd.DataFrame], tested: pd.DataFrame, source: str, count: int, asked: Annotate
) -> list[list[str]]:
    """`source` and the detailed answer of each model, in the first language, about tiles from all over the table."""
    rows = []
    for tile in tested.iloc[:: max(len(tested) // count, 1)].head(count).to_dict("records"):
        truth = ", ".join(
            f"{name} {100 * tile[f'{source}_{name}']:.0f} %"
            for name in NAMES
            if tile[f"{source}_{name}"] >= asked.present
        )
        row = [tile["tile"], truth or "none"]
        for found in answers.values():
            said = found[(found["tile"] == tile["tile"]) & (found["task"] == "analysis")]
            said = said[said["language"] == asked.languages[0]]
            row.append(said["text"].iloc[0] if len(said) else "–")
        rows.append(row)
    return rows
