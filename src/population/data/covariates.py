"""Columns of the label file that may be used beside the tile, as they were some steps of the panel earlier.

What a label's year itself brought is not known when that label is predicted, so a label of year t takes the
columns of its place's row of year t - lag.
"""

import numpy as np
import pandas as pd
from pandas.api.types import is_numeric_dtype

from src.core.data.archive import refuse
from src.core.stage.errors import DataError


def lagged(labels: pd.DataFrame, places: list, names: list[str], lag_years: int) -> pd.DataFrame:
    """The columns `names` of each label's place, `lag_years` before the label's year.

    Args:
        labels: as `labels.read` returns them: year, the columns, the spreadsheet's row as index.
        places: (len(labels),) the place each row means.

    Returns:
        DataFrame with the index of `labels` and a float64 column for each name; NaN in all of them where the
        file has no row of that place and year.

    Raises:
        DataError: a column is missing or holds text, a cell that is needed is blank, or no row has an earlier one.
    """
    file = labels.attrs.get("path", "labels")
    for name in names:
        if name not in labels:
            known = ", ".join(column for column in labels if column not in ("province", "city"))
            raise DataError(f"{file}: data.covariates: no column {name!r}, found {known}; add it or take it out")
        if not is_numeric_dtype(labels[name]):
            cells = labels[name].dropna()
            row = next((row for row, cell in cells.items() if not _is_number(cell)), cells.index[0])
            raise DataError(
                f"{file}: row {row}, {name}: found {cells[row]!r}, expected numbers (a leading zero makes a code), "
                "because data.covariates names it; correct the column or take it out"
            )
    at = {key: position for position, key in enumerate(zip(places, labels.year, strict=True))}
    found = [at.get((place, year - lag_years), -1) for place, year in zip(places, labels.year, strict=True)]
    source = np.array(found)  # (labels,) position of the earlier row, -1: none
    if (source < 0).all():
        raise DataError(
            f"{file}: year: found {sorted(map(int, labels.year.unique()))}, expected for some place two that are "
            f"{lag_years} apart, because data.covariates are lagged; set data.covariate_lag: 0 if known by then"
        )
    values = labels[names].astype("float64").to_numpy()
    blank = np.argwhere(np.isnan(values[source[source >= 0]]))
    rows = labels.index[source[source >= 0]]
    refuse(
        [
            f"{file}: row {rows[row]}, {names[column]}: blank, expected a number, because data.covariates names it; "
            "fill the cell or delete the row"
            for row, column in blank
        ]
    )
    taken = np.where((source >= 0)[:, None], values[source], np.nan)
    return pd.DataFrame(taken, index=labels.index, columns=names)


def _is_number(cell: object) -> bool:
    try:
        return np.isfinite(float(cell))
    except (TypeError, ValueError):
        return False
