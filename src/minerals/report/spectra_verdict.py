"""Lines about single spectra: their minerals, and what their wavelengths left out."""

import numpy as np
import pandas as pd

from src.minerals.data import band_table
from src.minerals.mapping.minerals import NAMES
from src.minerals.mapping.spectra_table import Spectra
from src.minerals.params import Bands

LISTED = 5  # names in a line


def say(table: pd.DataFrame, spectra: Spectra, params: Bands) -> None:
    """Print the minerals of `spectra_names.name`, then each mineral and rule left out with its spectra."""
    named, nm = table["mineral"].isin(NAMES), spectra.bands.wavelengths
    found = ", ".join(f"{count} {name}" for name, count in table.loc[named, "mineral"].value_counts().items())
    some = _number(len(table), "spectrum", "spectra")
    print(f"{spectra.path.name}: {named.sum()} of {some} hold a mineral of the map" + (f": {found}" if found else ""))
    print(f"{len(nm)} wavelengths, {nm[0]:g} to {nm[-1]:g} nm")
    columns = ["name", "mineral", "fit", "depth", "runner_up", "left_out"]
    counted = table.assign(left_out=left_out(table))
    print(counted[columns].to_string(index=False, float_format="%.3f", na_rep=""))
    for column, text in (("not_tried", "mineral not tried"), ("rules_left_out", "rule left out, no values for it")):
        each = table[["name", column]].assign(note=table[column].str.split("; ")).explode("note")
        for note, rows in each[each["note"] != ""].groupby("note", sort=False):
            print(f"{text}: {note} ({_which(rows['name'].tolist(), len(table))})")
    bands = band_table.choose(spectra.bands, np.ones(len(nm), bool), params, str(spectra.path))
    for why, count in bands.loc[~bands["kept"], "why"].value_counts(sort=False).items():
        print(f"{_number(count, 'wavelength')} removed from all spectra, {why}")


def left_out(table: pd.DataFrame) -> list[str]:
    """Numbers of minerals and rules left out of each spectrum, such as "1 mineral, 2 rules", or ""."""
    said = []
    for minerals, rules in table[["not_tried", "rules_left_out"]].itertuples(index=False):
        parts = ((minerals, "mineral"), (rules, "rule"))
        said.append(", ".join(_number(len(text.split("; ")), word) for text, word in parts if text))
    return said


def _number(count: int, one: str, many: str = "") -> str:
    return f"{count} {one if count == 1 else many or one + 's'}"


def _which(names: list[str], total: int) -> str:
    """Spectra of a line: all, or the first names."""
    if len(names) == total:
        return "all spectra" if total > 1 else names[0]
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more
