"""Score anyone's predictions with our metrics, baselines and intervals; no model of ours is needed.

    python -m src.population.score --predictions FILE.csv --out scores

FILE (.csv, .xlsx or .parquet) has place, year, y, prediction and, where known, lat, lon (degrees) and block; one row
for each place and year. Writes score.json, predicted_vs_actual.png and, with coordinates, residual_map.png into --out,
and prints what it found. Baselines are made from the labels of the file alone, or of --labels, which should hold
those of the training places too: the more labels a baseline knows, the harder it is to beat.

    mean_of_others       mean label of all other places
    year_of_others       their mean in the row's own year
    neighbours           that of the 5 nearest (with lat and lon, in FILE or for all places of --labels)
    previous_label       the place's own last label before the row's year
    place_mean           the mean of the place's own labels before the row's year

The first three know no label of the row's place: a model of new places should beat them. The last two know some: a
forecast should beat them. A row for which a baseline knows no label is left out of that comparison alone.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.neighbors import NearestNeighbors

from src.core.baselines.regression import past_forecasts
from src.core.data.archive import refuse
from src.core.data.tables import Sheet, read_sheet
from src.core.evaluation import autocorrelation, jackknife, regression_scores
from src.core.geo import distances
from src.core.report import figures
from src.core.report.html_page import cell
from src.core.stage import files, run
from src.core.stage.errors import DataError
from src.population.data import labels
from src.population.data.prediction_tasks import place_names
from src.population.evaluation import group_scores
from src.population.report.page_results import PANEL, score_lines

KINDS = {"place": "place", "year": "year", "y": "number"}  # column -> what labels.read_cell calls it
POSITION = {"lat": "lat", "lon": "lon"}
NEIGHBOURS = 5


def main(predictions: Path, out: Path, known: Path | None = None, block_degrees: float = 5.0) -> dict:
    """Score `predictions` and write the folder `out`; `known` is a file of labels. Returns what score.json holds."""
    table = read_predictions(predictions)
    past = table[["place", "year", "y"]] if known is None else read_known(known, table, predictions)
    unit, units = units_of(table, block_degrees)
    guesses = baselines(table, past)
    reference = guesses["mean_of_others"]
    score = score_rows(table, table.prediction.to_numpy(), units, reference)
    result = {"unit": unit, "labels_known": len(past), "prediction": score, "baselines": {}, "minus": {}}
    for name, guess in guesses.items():
        there = np.isfinite(guess)
        rows, model = table[there], table.prediction[there].to_numpy()
        result["baselines"][name] = score_rows(rows, guess[there], units[there], reference[there])
        result["minus"][name] = jackknife.paired_interval(rows.y.to_numpy(), model, guess[there], units[there])
    result = regression_scores.rounded(result)
    with files.complete_folder(out) as folder:
        files.write_json(folder / "score.json", result)
        draw(folder, table, result)
    show(result)
    return result


def read_predictions(path: Path) -> pd.DataFrame:
    """place (str), year (int64), y, prediction (float64); lat, lon, block where the file has them.

    Raises DataError as `read_rows` does, or if all y are equal, or there is one place, or one in two blocks.
    """
    advice = "expected place, year, y, prediction and, where known, lat, lon, block; add it"
    table = read_rows(read_sheet(path), KINDS | {"prediction": "number"} | POSITION | {"block": "place"}, advice)
    if table.y.nunique() < 2:
        raise DataError(
            f"{path}: y: found {len(table)} rows with {table.y.nunique()} distinct values, "
            "expected at least two, because R² of constant labels means nothing; check the column"
        )
    if table.place.nunique() < 2:
        raise DataError(f"{path}: place: found one, {table.place.iloc[0]!r}, expected several to compare; add some")
    if "block" in table and (table.groupby("place").block.nunique() > 1).any():
        several = table.groupby("place").block.nunique().idxmax()
        raise DataError(f"{path}: block: found several for {several}, expected one for each place; correct the column")
    return table


def read_rows(sheet: Sheet, kinds: dict[str, str], advice: str) -> pd.DataFrame:
    """The columns of `kinds` as `labels.read_columns` reads them; lat, lon and block may be missing.

    Raises DataError if another column is missing, a cell is blank or no number, or a place and year occur twice.
    """
    problems: list[str] = []
    first: dict[tuple, int] = {}
    records = labels.read_columns(sheet, kinds, problems, optional=(*POSITION, "block"), advice=advice)
    if not records:
        raise DataError(
            f"{sheet.path}: found no row below the column names, expected one for each place and year; add them"
        )
    table = pd.DataFrame(records)
    if ("lat" in table) != ("lon" in table):
        raise DataError(f"{sheet.path}: found only one of the columns lat and lon; add the other or remove it")
    for (row, _), record in zip(sheet.rows, records, strict=True):
        key = (record["place"], record["year"])
        if key in first and None not in key:
            problems.append(f"row {row}: {key[0]} {key[1]} is already in row {first[key]}; delete one of them")
        first.setdefault(key, row)
    refuse([f"{sheet.path}: {problem}" for problem in problems])
    return table.astype({name: "float64" for name in table if kinds[name] == "number"} | {"year": "int64"})


def read_known(path: Path, table: pd.DataFrame, predictions: Path) -> pd.DataFrame:
    """place, year, y of a label file, lat and lon where it has them; or of the project's own, by province/city.

    Raises DataError as `read_rows` does, or if a place of `table` is not in it, or has another label there.
    """
    sheet = read_sheet(path)
    if len(sheet.columns(list(KINDS), [])) == len(KINDS):
        known = read_rows(sheet, KINDS | POSITION, "add it")
    else:
        own = labels.read(path)
        own["place"] = own.city.where(own.province == "", place_names(own))
        known = own.rename(columns={"growth_rate": "y"}).filter([*KINDS, *POSITION]).reset_index(drop=True)
    unknown = sorted(set(table.place) - set(known.place))
    if unknown:
        raise DataError(
            f"{predictions}: place: found {unknown[0]!r} ({len(unknown)} places), which {path} does not have, expected "
            f"names such as {known.place.iloc[0]!r}; spell them as there"
        )
    both = table.merge(known, on=["place", "year"], suffixes=("", "_known"))
    differs = both[(both.y - both.y_known).abs() > 1e-6 * (1 + both.y.abs())]
    if len(differs):
        row = differs.iloc[0]
        raise DataError(
            f"{predictions}: y: found {row.y:g} for {row.place} {row.year}, expected {row.y_known:g} as in {path} "
            f"({len(differs)} such rows); use the same labels"
        )
    return known


def units_of(table: pd.DataFrame, block_degrees: float) -> tuple[str, np.ndarray]:
    """The largest correlated unit that the file can tell, and each row's: block, square of the map, or place."""
    if "block" in table:
        return "block", table.block.to_numpy(str)
    if "lat" in table:
        where = table.groupby("place")[["lat", "lon"]].mean()  # a place has one square, wherever its rows say it is
        squares = distances.assign_blocks(where.lat.to_numpy(), where.lon.to_numpy(), block_degrees)
        return f"square of {block_degrees:g} degrees", pd.Series(squares, where.index)[table.place].to_numpy(str)
    return "place", table.place.to_numpy(str)


def baselines(table: pd.DataFrame, past: pd.DataFrame) -> dict[str, np.ndarray]:
    """(N,) guesses for every row, NaN where the labels `past` (place, year, y) give none."""
    own = past.groupby("place").y.agg(["sum", "count"]).reindex(table.place).fillna(0).to_numpy()
    guesses = {"mean_of_others": (past.y.sum() - own[:, 0]) / (len(past) - own[:, 1])}

    by_year = past.groupby("year").y.agg(["sum", "count"]).reindex(table.year)
    rows = pd.MultiIndex.from_frame(table[["place", "year"]])
    mine = past.groupby(["place", "year"]).y.agg(["sum", "count"]).reindex(rows)
    sums, counts = (by_year.fillna(0).to_numpy() - mine.fillna(0).to_numpy()).T
    if past.year.nunique() > 1:
        guesses["year_of_others"] = np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
    if "lat" in table or "lat" in past:
        guesses["neighbours"] = _neighbours(table, past)
    known, rows = (part.rename(columns={"year": "time", "y": "target"}) for part in (past, table))
    own_past = past_forecasts(known, rows, rows.time.to_numpy())
    guesses["previous_label"] = own_past["last"].to_numpy()
    guesses["place_mean"] = own_past["mean"].to_numpy()
    return {name: guess for name, guess in guesses.items() if np.isfinite(guess).any()}


def _neighbours(table: pd.DataFrame, past: pd.DataFrame) -> np.ndarray:
    """Mean over the nearest other places of their mean label; positions are those of either table."""
    known = [part.groupby("place")[["lat", "lon"]].mean() for part in (table, past) if "lat" in part]
    places = known[0].combine_first(known[-1])
    mean = past.groupby("place").y.mean().reindex(places.index).to_numpy()
    where = distances.to_cartesian(places.lat.to_numpy(), places.lon.to_numpy())
    count = min(NEIGHBOURS, len(places) - 1)
    _, near = NearestNeighbors(n_neighbors=count + 1).fit(where).kneighbors(where)
    # A place is its own nearest one; another may share its position, so it is taken out by number.
    guess = [mean[[other for other in row if other != place][:count]].mean() for place, row in enumerate(near)]
    return pd.Series(guess, places.index)[table.place].to_numpy()


def score_rows(table: pd.DataFrame, guess: np.ndarray, units: np.ndarray, reference: np.ndarray) -> dict:
    """Scores, intervals and the dependence of residuals."""
    place, where = table.place.to_numpy(str), table.reindex(columns=list(POSITION)).to_numpy(np.float64).T
    scores = group_scores.score_rows(table, guess, units, place, reference)
    return scores | autocorrelation.describe(table.y.to_numpy(), guess, place, units, *where, 0)


def draw(folder: Path, table: pd.DataFrame, result: dict) -> None:
    """Write predicted_vs_actual.png, and residual_map.png where the file has coordinates."""
    y, prediction = table.y.to_numpy(), table.prediction.to_numpy()
    panels = {"prediction": (prediction, result["prediction"])}
    figures.predicted_vs_actual(folder / "predicted_vs_actual.png", y, panels, "unit of y")
    if "lat" in table:
        nowhere = np.empty(0), np.empty(0)
        where = table.lat.to_numpy(), table.lon.to_numpy()
        title = "Where the predictions are wrong (one dot per row)"
        figures.residual_map(folder / "residual_map.png", *where, prediction - y, nowhere, title, "unit of y")


def show(result: dict) -> None:
    """Print the scores beside those of baselines, the differences, and the correlation of residuals."""
    score = result["prediction"]
    print(f"{score['n']} rows, {score['n_units']} units ({result['unit']}); intervals: {score['method']}")
    if score.get("label"):
        print(f"  {score['label']}")
    print(score_lines({"prediction": score, **result["baselines"]}, PANEL | {"n": "n"}))
    print("prediction minus (better: R² above 0, MAE below 0)")
    print(score_lines(result["minus"], {"n": "n"}))
    print(
        f"  residuals: Moran's I {cell(score['morans_i'], 3)}, intraclass correlation by place "
        f"{cell(score['icc_place'], 3)} and by unit {cell(score['icc_block'], 3)}, "
        f"effective size {cell(score['n_effective'], 3)}"
    )


def _positive(text: str) -> float:
    if not float(text) > 0:
        raise argparse.ArgumentTypeError(f"found {text}, expected degrees above 0")
    return float(text)


if __name__ == "__main__":
    parser = run.command_line("population.score", __doc__)
    parser.add_argument("--predictions", type=Path, required=True, help=".csv or .xlsx: place, year, y, prediction")
    parser.add_argument(
        "--labels",
        type=Path,
        help="labels that baselines may know: place, year, y, or the "
        "project's own label file, whose places are province/city; default: those of --predictions",
    )
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument(
        "--block-degrees", type=_positive, default=5.0, help="squares of the map that are resampled whole"
    )
    given = parser.parse_args()
    run.finish(lambda: main(given.predictions, given.out, given.labels, given.block_degrees), "population.score")
