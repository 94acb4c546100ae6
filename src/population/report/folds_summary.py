"""The summary that `folds` prints."""

from src.core.report.html_page import cell, cell_interval


def print_summary(result: dict) -> None:
    """Print pooled scores, differences and coverage of each variant."""
    chosen = {"chosen": result["chosen"]} if "chosen" in result else {}
    for name, summary in (result["variants"] | chosen).items():
        print(
            f"\n{name}: {summary['n']} test labels in {summary['n_units']} {summary['unit']}s, "
            f"{len(summary['per_fold'])} folds, {summary['draws']} draws; exploratory"
        )
        print(f"  {'group':<17}{'R² pooled [95 %]':<26}{'MAE':>7}  {'R² oos':>7}  R² oos per fold")
        for group, score in summary["pooled"].items():
            folds = " ".join(cell(value, 3) for value in score["r2_oos_per_fold"])
            print(
                f"  {group:<17}{cell_interval(score, 'r2', 3):<26}{cell(score['mae'], 3):>7}  "
                f"{cell(score['r2_oos'], 3):>7}  {folds}"
            )
        for pair, score in summary["paired"].items():
            differences = f"R² {cell_interval(score, 'r2', 3)}  MAE {cell_interval(score, 'mae', 3)}"
            print(f"  {pair:<17} {differences}  sd {score['sd']:.3f}")
            splits, variance = score["splits"], score["variance"]
            bounds = splits["reason"] or f"[{cell(splits['low'], 3)}, {cell(splits['high'], 3)}], p {splits['p']:.2f}"
            print(f"    over {splits['J']} splits: R² oos {cell(splits['mean'], 3)} {bounds}")
            parts = ", ".join(f"{part} {cell(variance.get(part), 4)}" for part in ("data", "seed", "split"))
            print(f"    variance from {parts}" + (f" ({variance['reason']})" if variance["reason"] else ""))
        for group, found in summary["prediction_intervals"].items():
            print(f"  {group:<17} prediction intervals cover {cell_interval(found, 'coverage', 3)}")
        head = summary["validation"]["head"]
        print(f"  validation head   R² {cell(head['r2'], 3)}  MAE {head['mae']:.3f}  n {head['n']}")
    print(f"\nbest head on validation: {result['best_head_on_validation']}")
