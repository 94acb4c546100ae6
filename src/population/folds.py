"""Pool the test predictions of several folds, and compare variants of a run on them.

    python -m src.population.folds --variant anchored='runs/anchored-*' --variant mlp='runs/mlp-*' \\
        --out metrics/folds.json --plots plots/population/folds

Each variant names files or folders (a quoted pattern) with the predictions.parquet of its folds. Where runs differ in
split.seed or seed, pooled scores are those of the first, and the others show how much scores vary.
Prints and writes, per variant: scores pooled and per fold; paired differences with the interval over blocks, with
Nadeau and Bengio's corrected interval over all splits, and their variance from data, seed and split; coverage of the
prediction intervals; and the pooled validation scores, by which variants are to be compared. A validation place of one
fold is a test place of another, so that choice has seen test labels: `chosen` takes, for each fold, the variant that is
better on that fold's own validation places, and pools their test predictions. All scores are exploratory.
"""

from glob import glob
from pathlib import Path

import numpy as np
import pandas as pd

from src.core.evaluation import interval_coverage, regression_scores, repeated_splits
from src.core.report.html_page import cell, cell_interval
from src.core.stage import files, run
from src.core.stage.errors import DataError, ParamsError
from src.population.evaluation import group_scores
from src.population.evaluation.group_scores import units_of
from src.population.evaluation.prediction_intervals import calibrated, coverage
from src.population.evaluation.predictors import BASELINES, BY_NAME, CHOSEN, INTERVALS, PAIRS, in_table
from src.population.report.page_results import score_lines

POOLED = (*CHOSEN, BY_NAME["text_expectation"], *BASELINES)
DRAW = ["split_seed", "seed"]
SHOWN = ("r2", "mae", "r2_within_year", "r2_between_place", "r2_change", "r2_oos")


def main(variants: dict[str, str], out: Path, plots: Path | None = None) -> dict:
    """`variants` maps a name to a pattern; writes and returns the comparison."""
    tables = {name: read_variant(name, pattern) for name, pattern in variants.items()}
    check_same_rows(tables)
    result = {"kind": "exploratory", "variants": {name: summarise(table) for name, table in tables.items()}}
    if len(tables) > 1:
        result["chosen"] = summarise(choose_by_fold({name: first_draw(table) for name, table in tables.items()}))
    variants = result["variants"]
    result["best_head_on_validation"] = max(variants, key=lambda name: variants[name]["validation"]["head"]["r2"])
    result = regression_scores.rounded(result)
    if plots is not None:
        with files.complete_folder(plots) as folder:
            for name, table in tables.items():
                drawn = {f"head, {name}": reliability_of(first_draw(table))}
                note = "pooled over folds; calibrated on each fold's validation places, elsewhere: no guarantee"
                interval_coverage.draw_reliability(folder / f"reliability_{name}.png", drawn, note)
    files.write_json(out, result)
    show(result)
    return result


def read_variant(name: str, pattern: str) -> pd.DataFrame:
    """The prediction rows of all folds; DataError if none is found, or two folds of one draw test the same place."""
    where = f"--variant {name}={pattern}"
    paths = map(Path, sorted(glob(pattern)))
    found = [path / "predictions.parquet" if path.is_dir() else path for path in paths]
    if not found:
        raise DataError(f"{where}: found no file, expected predictions.parquet of each fold")
    table = pd.concat([files.read_table(path) for path in found], ignore_index=True)
    key = ["province", "city", "year"]
    if missing := {*DRAW, *key, "task", "unit", "fold", "n_train", "n_test"} - set(table):
        raise DataError(
            f"{where}: no column {min(missing)!r}; give the predictions.parquet that evaluate writes now: run it again"
        )
    table = table.sort_values([*DRAW, "fold", "split", *key], ignore_index=True)
    test = table[table.split == "test"]
    if test.empty:
        raise DataError(
            f"{where}: split: found {', '.join(sorted(table.split.unique()))}, expected test rows; the predictions of "
            "evaluate --final are no fold"
        )
    twice = test[test.duplicated([*DRAW, *key])]
    if len(twice):
        raise DataError(
            f"{where}: {'/'.join(map(str, twice[key].iloc[0]))}: found in the test rows of two files of one "
            "split.seed and seed, expected one; give one file per fold"
        )
    if (test.task == "next_year").all():  # places and blocks are shared by design
        return table
    located = test[test.block != ""]
    for unit, columns, rows in (("block", ["block"], located), ("place", ["province", "city"], test)):
        folds = rows.groupby([*DRAW, *columns]).fold.nunique().droplevel(DRAW)
        if (folds > 1).any():
            raise DataError(
                f"{where}: {unit} {folds.idxmax()}: found in the test rows of {folds.max()} folds, expected one; give "
                "runs of one split.method and task, split by blocks where tiles have coordinates"
            )
    return table


def first_draw(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of the lowest split.seed and seed."""
    keys = table[DRAW].drop_duplicates().sort_values(DRAW).iloc[0]
    return table[(table[DRAW] == keys).all(axis=1)].reset_index(drop=True)


def check_same_rows(tables: dict[str, pd.DataFrame]) -> None:
    """Raise DataError if variants hold different rows or truths: they are compared on the same rows only."""
    columns = [*DRAW, "fold", "split", "province", "city", "year", "y"]
    first, *rest = tables
    for name in rest:
        if not tables[name][columns].equals(tables[first][columns]):
            raise DataError(
                f"--variant {name}: found {len(tables[name])} rows in folds {sorted(tables[name].fold.unique())}, "
                f"expected the {len(tables[first])} rows of {first} in folds "
                f"{sorted(tables[first].fold.unique())}; run the same folds of the same split for both"
            )


def choose_by_fold(tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """For each fold the rows of the variant whose head has the least squared error on its validation rows."""
    chosen = []
    for fold in sorted(next(iter(tables.values())).fold.unique()):
        parts = [table[table.fold == fold] for table in tables.values()]
        held = [part[part.split == "validation"] for part in parts]
        chosen.append(parts[int(np.argmin([((part["head"] - part.y) ** 2).mean() for part in held]))])
    return pd.concat(chosen, ignore_index=True)


def summarise(table: pd.DataFrame) -> dict:
    """Pooled and per-fold scores of one variant; the largest correlated units stay whole."""
    table = table.copy()
    known = in_table(table, "predictions.parquet")
    groups = [group for group in POOLED if group in known and table[group.name].notna().any()]
    for group in groups:
        name = group.name
        if group.parsed:  # an answer that does not parse; `mean` is the training mean of the row's own fold
            table[name] = table[name].fillna(table["mean"])
        elif table[name].isna().any():
            folds = sorted(table.fold[table[name].isna()].unique())
            raise DataError(
                f"predictions.parquet: {name}: found no number in fold {folds[0]}, expected one in every row; run all "
                "folds with the same baselines.networks and covariates"
            )
    names = [group.name for group in groups]
    draw = first_draw(table)
    test, validation = (draw[draw.split == split] for split in ("test", "validation"))
    unit = test.unit.iloc[0]
    best = group_scores.best_on_validation(validation, [group for group in groups if group in BASELINES])
    pairs = {name: pair for name, pair in PAIRS.items() if set(pair) <= set(names)}
    pairs |= {f"head_minus_{best}": ("head", best)}

    def briefly(rows: pd.DataFrame) -> dict[str, dict]:
        return {name: group_scores.score_briefly(rows, name, np.nan) for name in names}  # none is missing any more

    return {
        "n": len(test),
        "unit": unit,
        "n_units": len(np.unique(units_of(test, unit))),
        "draws": len(table[DRAW].drop_duplicates()),
        "pooled": {name: pooled(test, name, unit) for name in names},
        "paired": {name: compare(table, pair, unit) for name, pair in pairs.items()},
        "best_baseline_on_validation": best,
        "per_fold": {str(fold): briefly(rows) for fold, rows in test.groupby("fold")},
        "prediction_intervals": coverage_of(test),
        "validation": briefly(validation),
    }


def pooled(test: pd.DataFrame, group: str, unit: str) -> dict:
    """SHOWN with their intervals, and the R² oos of each fold (against the fold's own training mean)."""
    units = units_of(test, unit), units_of(test, "place")
    scores = group_scores.score_rows(test, test[group].to_numpy(), *units, test["mean"].to_numpy())
    shown = {name: scores[name] for score in SHOWN for name in (score, f"{score}_low", f"{score}_high")}
    folds = [r2_oos(rows, group) for _, rows in test.groupby("fold")]
    return shown | {"r2_oos_per_fold": folds, "method": scores["method"], "label": scores["label"]}


def compare(table: pd.DataFrame, pair: tuple[str, str], unit: str) -> dict:
    """The difference a - b with its intervals over units and over repeated splits, and its variance components."""
    a, b = pair
    draw = first_draw(table)
    test = draw[draw.split == "test"]
    paired = group_scores.compare(test, a, b, units_of(test, unit))
    every = table[table.split == "test"]
    runs = every.groupby([*DRAW, "fold"])
    difference = runs.apply(lambda rows: r2_oos(rows, a) - r2_oos(rows, b))
    data_variance = runs.apply(lambda rows: variance_of(rows, pair, unit))
    differences = pd.DataFrame({"difference": difference, "data_variance": data_variance}).reset_index()
    # Seeds of one split are no new splits: they are averaged first.
    by_split = differences.groupby(["split_seed", "fold"]).difference.mean().to_numpy()
    counts = runs[["n_train", "n_test"]].first().mean()
    paired["splits"] = repeated_splits.corrected_interval(by_split, *counts)
    if differences.data_variance.isna().any():
        paired["variance"] = {"reason": f"a fold has a single test {unit}, which does not vary"}
    else:
        paired["variance"] = repeated_splits.variance_components(differences)
    return paired


def variance_of(rows: pd.DataFrame, pair: tuple[str, str], unit: str) -> float:
    """Squared standard error of the difference in R² oos: of a ratio of sums over units (Cochran 1977, ch. 6)."""
    a, b = pair
    reference = (rows.y - rows["mean"]) ** 2
    gain = (rows[b] - rows.y) ** 2 - (rows[a] - rows.y) ** 2
    sums = pd.DataFrame({"gain": gain, "reference": reference}).groupby(units_of(rows, unit)).sum()
    count = len(sums)
    if count < 2:
        return float("nan")
    residual = sums.gain - sums.gain.sum() / sums.reference.sum() * sums.reference
    return float(count / (count - 1) * (residual**2).sum() / sums.reference.sum() ** 2)


def r2_oos(rows: pd.DataFrame, group: str) -> float:
    """1 - SSE / squared distance from the training mean, which is 0 for the training mean."""
    return float(1 - ((rows[group] - rows.y) ** 2).sum() / ((rows["mean"] - rows.y) ** 2).sum())


def coverage_of(test: pd.DataFrame) -> dict:
    """Coverage of the prediction intervals over all folds, and by province where there are enough places."""
    found = {}
    for group in INTERVALS:
        if f"{group}_low" in test and test[f"{group}_low"].notna().all():
            low, high = (test[f"{group}_{end}"].to_numpy() for end in ("low", "high"))
            found[group] = coverage(test, low, high, test.unit.iloc[0])
    return found


def reliability_of(draw: pd.DataFrame) -> pd.DataFrame:
    """Nominal and observed coverage of the head's intervals, each fold calibrated on its own validation places."""
    parts = [(rows[rows.split == "validation"], rows[rows.split == "test"]) for _, rows in draw.groupby("fold")]
    test = pd.concat([scored for _, scored in parts])

    def bounds(level: float) -> tuple[np.ndarray, np.ndarray]:
        means = [float(scored["mean"].iloc[0]) for _, scored in parts]
        ends = [calibrated("head", *part, level, mean, 0)[1:] for part, mean in zip(parts, means, strict=True)]
        return tuple(np.concatenate(end) for end in zip(*ends, strict=True))

    fewest = min(len(np.unique(units_of(calibration, "place"))) for calibration, _ in parts)
    return interval_coverage.reliability(test.y.to_numpy(), units_of(test, "place"), bounds, fewest)


def show(result: dict) -> None:
    """Print pooled scores, differences and coverage of each variant."""
    chosen = {"chosen": result["chosen"]} if "chosen" in result else {}
    for name, summary in (result["variants"] | chosen).items():
        print(
            f"\n{name}: {summary['n']} test labels in {summary['n_units']} {summary['unit']}s, "
            f"{len(summary['per_fold'])} folds, {summary['draws']} draws; exploratory"
        )
        rows = {
            group: score | dict(zip(summary["per_fold"], score["r2_oos_per_fold"], strict=True))
            for group, score in summary["pooled"].items()
        }
        print(score_lines(rows, {"r2_oos": "R² oos"} | {fold: f"in fold {fold}" for fold in summary["per_fold"]}))
        print(score_lines(summary["paired"], {"sd": "sd"}))
        for pair, score in summary["paired"].items():
            splits, variance = score["splits"], score["variance"]
            bounds = splits["reason"] or f"[{cell(splits['low'], 3)}, {cell(splits['high'], 3)}], p {splits['p']:.2f}"
            parts = ", ".join(f"{part} {cell(variance.get(part), 4)}" for part in ("data", "seed", "split"))
            print(f"{pair}: R² oos over {splits['J']} splits {cell(splits['mean'], 3)} {bounds}")
            print(f"    variance from {parts}" + (f" ({variance['reason']})" if variance["reason"] else ""))
        for group, found in summary["prediction_intervals"].items():
            print(f"{group}: prediction intervals cover {cell_interval(found, 'coverage', 3)}")
        head = summary["validation"]["head"]
        print(f"validation head: R² {cell(head['r2'], 3)}  MAE {head['mae']:.3f}  n {head['n']}")
    print(f"\nbest head on validation: {result['best_head_on_validation']}")


def _variants(texts: list[str]) -> dict[str, str]:
    variants = {}
    for text in texts:
        name, separator, pattern = text.partition("=")
        if not (name and separator and pattern) or name in variants:
            raise ParamsError(f"--variant {text}: expected a new NAME=PATTERN, for example anchored='runs/anchored-*'")
        variants[name] = pattern
    return variants


if __name__ == "__main__":
    parser = run.command_line("population.folds", __doc__)
    parser.add_argument("--variant", action="append", required=True, metavar="NAME=PATTERN")
    parser.add_argument("--out", type=Path, required=True, help="JSON of the comparison")
    parser.add_argument("--plots", type=Path, help="folder for reliability plots")
    given = parser.parse_args()
    run.finish(lambda: main(_variants(given.variant), given.out, given.plots), "population.folds")
