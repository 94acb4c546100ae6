"""Columns of the label file that may be used beside the tile, as they were some steps of the panel earlier.

What a label's year itself brought is not known when that label is predicted.
"""

import numpy as np
import pandas as pd
from pandas.api.types import is_numeric_dtype

from src.core.data.archive import refuse
from src.core.stage.errors import DataError


def with_earlier(labels: pd.DataFrame, columns: dict[str, str], lag_years: int) -> pd.DataFrame:
    """`labels` with the covariates of their place `lag_years` before their year.

    Args:
        labels: as `labels.read` returns them, and the place that each row means.
        columns: column of the file -> its name in what is returned, where it is float64; NaN in all of them where the
            file has no row of that place and year.

    Raises:
        DataError: a column is missing or holds text, a new name is taken, a cell that is needed is blank, or no row
            has an earlier one.
    """
    if not columns:
        return labels
    file, names = labels.attrs.get("path", "labels"), list(columns)
    if taken := [name for name in columns.values() if name in labels and name not in columns]:
        raise DataError(f"{file}: found a column named {taken[0]}, as the lagged covariate is called; rename it")
    for name in names:
        if name not in labels:
            known = ", ".join(column for column in labels if column not in ("province", "city", "place"))
            raise DataError(f"{file}: data.covariates: no column {name!r}, found {known}; add it or take it out")
        if not is_numeric_dtype(labels[name]):
            cells = labels[name].dropna()
            text = cells[~np.isfinite(pd.to_numeric(cells, errors="coerce"))]
            row, cell = next(pd.concat([text, cells, labels[name]]).items())
            raise DataError(
                f"{file}: row {row}, {name}: found {cell!r}, expected numbers (a leading zero makes a code), "
                "because data.covariates names it; correct the column or take it out"
            )
    keys, earlier = (pd.MultiIndex.from_arrays([labels.place, labels.year - lag]) for lag in (0, lag_years))
    source = keys.get_indexer(earlier)  # -1: no such row
    if (source < 0).all():
        raise DataError(
            f"{file}: year: found {sorted(map(int, labels.year.unique()))}, expected for some place two that are "
            f"{lag_years} apart, because data.covariates are lagged; set data.covariate_lag: 0 if known by then"
        )
    values = labels[names].astype("float64")
    blank = values.iloc[source[source >= 0]].isna().stack()
    refuse(
        [
            f"{file}: row {row}, {name}: blank, expected a number, because data.covariates names it; "
            "fill the cell or delete the row"
            for row, name in blank.index[blank]
        ]
    )
    taken = np.where((source >= 0)[:, None], values.to_numpy()[source], np.nan)
    kept = labels.drop(columns=list(columns.values()), errors="ignore")
    return kept.assign(**dict(zip(columns.values(), taken.T, strict=True)))
