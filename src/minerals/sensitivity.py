"""Test the map where truth is known by construction: against noise, intimate mixing, and library samples held out.

    python -m src.minerals.sensitivity --params pipelines/minerals/params.yaml --library data/sample/usgs_minerals \\
        --map data/minerals/map --out data/minerals/sensitivity

Simulates small scenes anew with each signal-to-noise ratio and share of intimate mixing, maps them with the thresholds
that `map` chose, and names every spectrum of the library without itself among the references. Minerals of which the
library has one sample are named by it, changed in grain size, noise and share of a pixel. Writes sweeps.json,
library.csv (a row a spectrum), library.json (shares named right, and rightly named none), one_sample.csv (a row a
mineral and change), sweeps.png and one_sample.png.
"""

from collections.abc import Iterator

import numpy as np
import pandas as pd
from matplotlib.lines import Line2D
from sklearn.metrics import f1_score
from tqdm import tqdm

from src.core.report.figures import ACCENT, SECOND, drawing
from src.core.stage import files, run
from src.minerals.data import simulated_geology, simulated_spectra, spectral_library
from src.minerals.data.spectral_library import Library
from src.minerals.evaluation import one_sample
from src.minerals.mapping import thresholds
from src.minerals.mapping.feature_fit import FeatureFit
from src.minerals.mapping.map_classes import COLOURS
from src.minerals.mapping.minerals import NAMES
from src.minerals.mapping.thresholds import classify
from src.minerals.params import Params

SNR = (50, 100, 200, 350, 500)
INTIMATE = (0.0, 0.25, 0.5, 0.75, 1.0)
SCENES, SIDE = 6, 96  # of each setting, px
STREAM = 7919  # scenes here are none of those that `simulate` draws
NO_NOISE = 0.004  # threshold for library spectra, which have no noise: far below those of scenes
# Starts of spectra that hold one of the eight minerals or one of its group: named or not, neither is right or wrong.
RELATED = (
    "Illite", "Halloysite", "Dickite", "Buddingtnt+", "Pyrophyl.25", "Alun366", "Kaol", "Muscov+", "Chlorite+",
    "Calcite.", "Dolomite.5", "Water+Montmor",
)  # fmt: skip


def main(params: Params, inputs, out, dry_run: bool = False) -> None:
    run.set_threads(params.threads)
    library = spectral_library.read(inputs.library)
    nm = simulated_spectra.WAVELENGTHS
    outside = [*params.bands.water_nm, *params.bands.noisy_nm]
    kept = ~np.any([(nm >= low) & (nm <= high) for low, high in outside], axis=0)
    sensed = library.at(nm, simulated_spectra.FWHM)
    fit = FeatureFit(nm, kept, {name: sensed[library.rows(name, "reference")] for name in NAMES})
    limits = thresholds.read(inputs.map / "thresholds.json")
    print(f"sensitivity: {len(SNR) + len(INTIMATE)} settings, {SCENES} scenes each, and {len(sensed)} library spectra")
    if dry_run:
        return
    usual = params.simulate
    settings = [("snr", snr, snr, usual.intimate) for snr in SNR]
    settings += [("intimate", share, usual.snr, share) for share in INTIMATE]
    sweeps = []
    for name, value, snr, intimate in tqdm(settings, desc="sensitivity", unit="setting"):
        truth, guess = map(np.concatenate, zip(*scenes(library, fit, limits, snr, intimate, usual.seed), strict=True))
        scores = f1_score(truth, guess, labels=range(1, len(NAMES) + 1), average=None, zero_division=0)
        sweeps.append({"swept": name, "value": value, "macro_f1": float(scores.mean()), "pixels": len(truth)}
                      | dict(zip(NAMES, scores.tolist(), strict=True)))  # fmt: skip
    named = name_library(library, sensed, nm, kept)
    alone = one_sample.name_all(library, sensed, fit, limits, usual.snr, usual.seed)
    with files.complete_folder(out.out) as folder:
        files.write_json(folder / "sweeps.json", sweeps)
        named.to_csv(folder / "library.csv", index=False, lineterminator="\n", float_format="%.4f")
        files.write_json(folder / "library.json", summary(named))
        one_sample.write(alone, folder)
        draw(folder / "sweeps.png", sweeps)
        draw_one_sample(folder / "one_sample.png", alone)
    print(f"sensitivity: library: {summary(named)}")
    for mineral, kinds in one_sample.summary(alone).items():
        means = ", ".join(f"{kind} {share:.2f}" for kind, share in kinds.items())
        print(f"sensitivity: {mineral} (one sample), share named right by what is changed: {means}")


def scenes(
    library: Library, fit: FeatureFit, limits: np.ndarray, snr: float, intimate: float, seed: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Known and mapped class of every pixel, (N,) each, of altered scenes that differ in these two settings alone."""
    for number in range(SCENES):
        generator = np.random.default_rng([seed, STREAM, number])
        ground = simulated_geology.draw(generator, SIDE, barren=False)
        spectra = simulated_spectra.endmembers(library, generator)
        cube = simulated_spectra.measure(ground, spectra, intimate, snr, generator)
        scores = np.multiply(*fit(cube.reshape(-1, cube.shape[-1])))
        yield simulated_geology.dominant(ground).ravel(), classify(scores, limits)


def name_library(library: Library, sensed: np.ndarray, nm: np.ndarray, kept: np.ndarray) -> pd.DataFrame:
    """One row a spectrum: spectrum, mineral (blank: none of the eight), samples of it, related, named, fit, depth.

    A sample is named by the other samples of its mineral; where it is the only one, by itself.
    """
    mineral, rows = library.table["mineral"].to_numpy(), []
    for number, title in enumerate(library.table["spectrum"]):
        others = {name: [row for row in np.flatnonzero(mineral == name) if row != number] for name in NAMES}
        references = {name: sensed[chosen or [number]] for name, chosen in others.items()}
        fit, depth = FeatureFit(nm, kept, references)(sensed[number][None])
        best = int((fit * depth)[0].argmax())
        said = (fit * depth)[0, best] >= NO_NOISE
        rows.append({
            "spectrum": title, "mineral": mineral[number], "samples": int((mineral == mineral[number]).sum()),
            "related": title.startswith(RELATED), "named": NAMES[best] if said else "none",
            "fit": fit[0, best], "depth": depth[0, best],
        })  # fmt: skip
    return pd.DataFrame(rows)


def summary(named: pd.DataFrame) -> dict:
    """Samples of minerals with two or more that are named right, and materials that are rightly none."""
    held = named[(named["mineral"] != "") & (named["samples"] > 1)]
    strangers = named[(named["mineral"] == "") & ~named["related"]]
    return {
        "held_out_samples": len(held),
        "named_right": float((held["named"] == held["mineral"]).mean()),
        "other_materials": len(strangers),
        "named_none": float((strangers["named"] == "none").mean()),
    }


def draw(path, sweeps: list[dict]) -> None:
    """sweeps.png: macro-F1, and F1 of each mineral behind it, by noise and by mixing."""
    titles = {"snr": "signal-to-noise ratio", "intimate": "share of intimate mixing"}
    with drawing(path, 9.5, 3.8) as figure:
        for axes, (name, title) in zip(figure.subplots(1, 2, sharey=True), titles.items(), strict=True):
            rows = pd.DataFrame([row for row in sweeps if row["swept"] == name])
            for mineral in NAMES:
                axes.plot(rows["value"], rows[mineral], color=ACCENT, alpha=0.3, linewidth=1)
            axes.plot(rows["value"], rows["macro_f1"], color=SECOND, marker="o", label="mean of eight minerals")
            axes.set(xlabel=title, ylim=(0, 1))
        axes.legend(frameon=False, loc="lower right")
        figure.axes[0].set_ylabel("F1 of the dominant mineral")


def draw_one_sample(path, table: pd.DataFrame) -> None:
    """one_sample.png: share named right of each mineral that has one sample, by what is changed."""
    with drawing(path, 11, 3.4, 9) as figure:
        for axes, (kind, title) in zip(figure.subplots(1, 4, sharey=True), one_sample.TITLES.items(), strict=True):
            for mineral, rows in table[table["kind"] == kind].groupby("mineral", sort=False):
                axes.plot(rows["level"], rows["right"], color=np.array(COLOURS[mineral]) / 255, marker="o")
            axes.set(xlabel=title, ylim=(-0.03, 1.03))
        figure.axes[0].set_ylabel("share named right")
        lines = [Line2D([], [], color=np.array(COLOURS[name]) / 255, label=name) for name in table["mineral"].unique()]
        figure.legend(handles=lines, loc="outside lower center", ncols=3, frameon=False)


if __name__ == "__main__":
    run.stage(
        main,
        Params,
        name="minerals.sensitivity",
        doc=__doc__,
        inputs={"map": "map"},
        sources={"library": "folder of the spectral library (data.library)"},
        outputs={"out": "folder for the tables and the figure"},
    )
