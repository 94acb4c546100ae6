"""What `folds` prints."""


def print_summary(result: dict) -> None:
    """What a person wants to see of it."""
    chosen = {"chosen": result["chosen"]} if "chosen" in result else {}
    for name, summary in (result["variants"] | chosen).items():
        print(
            f"\n{name}: {summary['n']} test labels in {summary['n_units']} {summary['unit']}s, "
            f"{len(summary['per_fold'])} folds, {summary['draws']} draws; exploratory"
        )
        print(f"  {'group':<17}{'R² pooled [95 %]':<26}{'MAE':>7}  {'R² oos':>7}  R² oos per fold")
        for group, score in summary["pooled"].items():
            folds = " ".join(map(_signed, score["r2_oos_per_fold"]))
            print(
                f"  {group:<17}{_interval(score, 'r2'):<26}{score['mae']:>7.3f}  {_signed(score['r2_oos']):>7}  {folds}"
            )
        for pair, score in summary["paired"].items():
            print(f"  {pair:<17} R² {_interval(score, 'r2')}  MAE {_interval(score, 'mae')}  sd {score['sd']:.3f}")
            splits, variance = score["splits"], score["variance"]
            said = splits["reason"] or f"[{_signed(splits['low'])}, {_signed(splits['high'])}], p {splits['p']:.2f}"
            print(f"    over {splits['J']} splits: R² oos {_signed(splits['mean'])} {said}")
            parts = ", ".join(f"{part} {_variance(variance.get(part))}" for part in ("data", "seed", "split"))
            print(f"    variance from {parts}" + (f" ({variance['reason']})" if variance["reason"] else ""))
        for group, found in summary["prediction_intervals"].items():
            print(f"  {group:<17} prediction intervals cover {_interval(found, 'coverage')}")
        head = summary["validation"]["head"]
        print(f"  validation head   R² {_signed(head['r2'])}  MAE {head['mae']:.3f}  n {head['n']}")
    print(f"\nbest head on validation: {result['best_head_on_validation']}")


def _variance(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def _signed(value: float | None) -> str:
    return "–" if value is None else f"{value:+.3f}"


def _interval(score: dict, name: str) -> str:
    low, high = score[f"{name}_low"], score[f"{name}_high"]
    return _signed(score[name]) + ("" if low is None else f" [{_signed(low)}, {_signed(high)}]")
