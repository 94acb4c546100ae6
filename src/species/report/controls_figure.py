"""Figure of the controls: accuracy of cheap models under our split, under leaking ones, and of shuffled embeddings."""

from pathlib import Path

from src.core.report.figures import ACCENT, FAINT, INK, SECOND, drawing

SETTINGS = {
    "temporal": "our split:\nnew year",
    "spatial": "our split:\nnew places",
    "no_buffer": "new places,\nno buffer",
    "no_buffer_same_size": "no buffer,\nas many rows",
    "random": "random\nrecords",
    "shuffled": "new places,\nshuffled",
}


def describe(setting: dict) -> str:
    if "leaf" in setting:
        return f"random forest, at least {setting['leaf']} in a leaf"
    if "inverse_penalty" in setting:
        return f"logistic regression, C {setting['inverse_penalty']:g}"
    return f"{setting['neighbours']} nearest neighbours"


def draw_controls(path: Path, models: dict[str, dict]) -> None:
    """Accuracy under each split, a panel per model; small points are single draws, dashes the nulls."""
    with drawing(path, 7.5, 2.9 * len(models), font_size=9) as figure:
        panels = figure.subplots(len(models), 1, squeeze=False)[:, 0]
        for axes, (name, scores) in zip(panels, models.items(), strict=True):
            keys = [key for key in SETTINGS if top1(scores, key) is not None]
            for place, key in enumerate(keys):
                value = top1(scores, key)
                axes.bar(place, value, width=0.6, color=ACCENT if key in ("temporal", "spatial") else FAINT)
                drawn = scores["shuffled"]["spatial"] if key == "shuffled" else scores.get(key)
                null = drawn["if_independent"] if key == "shuffled" else _mean(scores["majority"][key])
                axes.hlines(null, place - 0.4, place + 0.4, color=INK, linewidth=1.1, linestyle="--")
                points = drawn["draws"] if isinstance(drawn, dict) else []
                axes.plot([place] * len(points), points, "o", color=SECOND, markersize=3.5)
                top = place, max([value, *points])
                axes.annotate(f"{value:.3f}", top, (0, 4), textcoords="offset points", ha="center")
            axes.set_xticks(range(len(keys)), [SETTINGS[key] for key in keys])
            axes.set(ylim=(0, 1.15 * max(top1(scores, key) for key in keys) + 0.01), ylabel="top-1 accuracy")
            axes.set_title(f"{name.replace('_', ' ')}: {describe(scores)}", fontsize=10)
        figure.supxlabel(
            "grey: what a leak is worth, or nothing to learn from; points: single draws\n"
            "dashes: majority class; of shuffled embeddings what guesses independent of the truth score",
            fontsize=8,
        )


def top1(scores: dict, key: str) -> float | None:
    """Accuracy under one of SETTINGS, of draws the mean; None where it was not measured."""
    if key in ("temporal", "spatial"):
        return scores["split"].get(key)
    if key == "shuffled":
        return scores["shuffled"]["spatial"]["mean"] if "shuffled" in scores else None
    return _mean(scores[key])


def _mean(value: float | dict) -> float:
    return value["mean"] if isinstance(value, dict) else value
