"""Pool the out-of-fold test predictions of several runs: one fold says little, all of them say more.

    python -m src.population.folds --variant anchored='runs/anchored-*' --variant mlp='runs/mlp-*' \\
        --out metrics/folds.json

Each variant names files or folders (a quoted pattern) with the predictions.parquet of its folds. Prints
and writes, per variant, R² and MAE pooled and per fold, the paired interval over blocks of head minus
ridge and text minus ridge, and the pooled validation scores, which alone decide between variants. But a
validation place of one fold is a test place of another: `chosen` pools, for each fold, the test predictions
of the variant that is better on that fold's own validation places, and is free of that choice.
"""

import argparse
import sys
from glob import glob
from pathlib import Path

import numpy as np
import pandas as pd

from src.core import files, metrics, run
from src.core.errors import DataError, ParamsError

GROUPS = ("head", "text", "dpo", "text_expectation", "mean", "latlon", "ridge", "forest", "shuffled")
PAIRS = {
    "head_minus_ridge": ("head", "ridge"),
    "text_minus_ridge": ("text", "ridge"),
    "dpo_minus_text": ("dpo", "text"),
}
RESAMPLES = 2000


def main(variants: dict[str, str], out: Path) -> dict:
    """`variants` maps a name to a pattern; writes and returns the comparison."""
    result: dict = {"variants": {}}
    tables = {name: read_variant(name, pattern) for name, pattern in variants.items()}
    check_same_rows(tables)
    for name, table in tables.items():
        result["variants"][name] = summarise(table)
    if len(tables) > 1:
        result["chosen"] = summarise(choose_by_fold(tables))
    head = {name: summary["validation"]["head"]["r2"] for name, summary in result["variants"].items()}
    result["best_head_on_validation"] = max(head, key=head.get)
    result = metrics.rounded(result)
    files.write_json(out, result)
    print_summary(result)
    return result


def read_variant(name: str, pattern: str) -> pd.DataFrame:
    """The prediction rows of all folds of one variant.

    Raises:
        DataError: no file, or a place or block is tested in two folds.
    """
    found = [Path(path) for path in sorted(glob(pattern))]
    found = [path / "predictions.parquet" if path.is_dir() else path for path in found]
    if not found:
        raise DataError(f"--variant {name}={pattern}: found no file, expected predictions.parquet of each fold")
    table = pd.concat([files.read_table(path) for path in found], ignore_index=True)
    test = table[table.split == "test"]
    key = ["province", "city", "year"]
    twice = test[test.duplicated(key)]
    if len(twice):
        raise DataError(
            f"--variant {name}={pattern}: {'/'.join(map(str, twice[key].iloc[0]))}: found in the test rows of two "
            "files, expected one; give one file per fold of one split and one seed"
        )
    for unit, columns in (("block", ["block"]), ("place", ["province", "city"])):
        known = test[test.block != ""] if unit == "block" else test  # without coordinates there is no block
        folds = known.groupby(columns).fold.nunique()
        if (folds > 1).any():
            raise DataError(
                f"--variant {name}={pattern}: {unit} {folds.idxmax()}: found in the test rows of {folds.max()} folds, "
                "expected one; give runs of one split.seed, split by blocks where tiles have coordinates"
            )
    return table.sort_values(["fold", "split", *key], ignore_index=True)


def check_same_rows(tables: dict[str, pd.DataFrame]) -> None:
    """Variants are compared on the same rows only.

    Raises:
        DataError: two variants hold different rows, or different truths.
    """
    columns = ["fold", "split", "province", "city", "year", "y"]
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
    """Pooled and per-fold scores of one variant; blocks (or places without coordinates) stay whole when resampled."""
    table = table.copy()
    groups = [group for group in GROUPS if group in table]
    for group in groups:
        # `mean` is the training mean of the row's own fold.
        table[group] = table[group].fillna(table["mean"])
    test, validation = (table[table.split == split] for split in ("test", "validation"))
    place = test.province + "/" + test.city
    y, blocks = test.y.to_numpy(), (test.block if test.block.all() else place).to_numpy()
    pooled = {}
    for group in groups:
        values = metrics.scores(y, test[group].to_numpy())
        bounds = metrics.intervals(y, test[group].to_numpy(), blocks, RESAMPLES, seed=0)
        pooled[group] = {
            key: (values | bounds)[key] for key in ("r2", "r2_low", "r2_high", "mae", "mae_low", "mae_high")
        }
    paired = {
        name: metrics.paired_interval(y, test[a].to_numpy(), test[b].to_numpy(), blocks, RESAMPLES, seed=0)
        | {"sd": float(np.std(test[a] - test[b]))}
        for name, (a, b) in PAIRS.items()
    }
    per_fold = {
        str(fold): {group: _short(rows.y, rows[group]) for group in groups} for fold, rows in test.groupby("fold")
    }
    return {
        "n": len(test),
        "n_blocks": len(np.unique(blocks)),
        "pooled": pooled,
        "paired": paired,
        "per_fold": per_fold,
        "validation": {group: _short(validation.y, validation[group]) for group in groups},
    }


def print_summary(result: dict) -> None:
    """What a person wants to see of it."""
    chosen = {"chosen": result["chosen"]} if "chosen" in result else {}
    for name, summary in (result["variants"] | chosen).items():
        print(f"\n{name}: {summary['n']} test labels in {summary['n_blocks']} blocks, {len(summary['per_fold'])} folds")
        print(f"  {'group':<17}{'R² pooled [95 %]':<26}{'MAE':>7}  {'R² per fold'}")
        for group, score in summary["pooled"].items():
            folds = " ".join(f"{_signed(fold[group]['r2'])}" for fold in summary["per_fold"].values())
            print(f"  {group:<17}{_interval(score, 'r2'):<26}{score['mae']:>7.3f}  {folds}")
        for pair, score in summary["paired"].items():
            print(f"  {pair:<17} R² {_interval(score, 'r2')}  MAE {_interval(score, 'mae')}  sd {score['sd']:.3f}")
        head = summary["validation"]["head"]
        print(f"  validation head   R² {_signed(head['r2'])}  MAE {head['mae']:.3f}  n {head['n']}")
    print(f"\nbest head on validation: {result['best_head_on_validation']}")


def _short(y: pd.Series, prediction: pd.Series) -> dict:
    values = metrics.scores(y.to_numpy(), prediction.to_numpy())
    return {key: values[key] for key in ("r2", "mae", "n")}


def _signed(value: float | None) -> str:
    return "–" if value is None else f"{value:+.3f}"


def _interval(score: dict, name: str) -> str:
    low, high = score[f"{name}_low"], score[f"{name}_high"]
    return _signed(score[name]) + ("" if low is None else f" [{_signed(low)}, {_signed(high)}]")


def _variants(texts: list[str]) -> dict[str, str]:
    variants = {}
    for text in texts:
        name, separator, pattern = text.partition("=")
        if not (name and separator and pattern) or name in variants:
            raise ParamsError(f"--variant {text}: expected a new NAME=PATTERN, for example anchored='runs/anchored-*'")
        variants[name] = pattern
    return variants


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        prog="python -m src.population.folds", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--variant", action="append", required=True, metavar="NAME=PATTERN")
    parser.add_argument("--out", type=Path, required=True, help="JSON of the comparison")
    arguments = parser.parse_args()
    code, _ = run.outcome(lambda: main(_variants(arguments.variant), arguments.out), "population.folds")
    sys.exit(code)
