"""Simulated panels with known truth, and how often intervals cover it: `python -m tests.panels` prints the table."""

from dataclasses import dataclass

import numpy as np

from src.core.evaluation import jackknife, regression_scores

UNITS, ICCS = (10, 22, 45, 110), (0.0, 0.4, 0.8)
PAIRED = ("paired_r2", "paired_mae")
TRAIN_MEAN = 0.1  # of the simulated folds; the population's mean is 0
LARGE = 40_000  # units that stand for the population


@dataclass(frozen=True)
class Panel:
    """Rows of a panel, (N,) each: the truth, two predictions of it, and whose rows they are."""

    y: np.ndarray
    a: np.ndarray
    b: np.ndarray
    unit: np.ndarray
    place: np.ndarray
    year: np.ndarray


def clustered(generator: np.random.Generator, units: int, icc: float, signal_icc: float = 0.5) -> Panel:
    """Units of 1 to 12 rows (places of up to 4 years). R² of `a` is about 0.3, of `b` 0.2.

    y = s + t + e with variances 0.2, 0.1, 0.7; a = s + t, b = s. Each is the sum of a normal effect of
    the unit, with the share `icc` (of e) or `signal_icc` (of s and t) of its variance, and one of the row.
    """
    size = generator.integers(1, 13, units)
    unit = np.repeat(np.arange(units), size)
    within = np.arange(len(unit)) - np.repeat(np.cumsum(size) - size, size)

    def part(variance: float, share: float) -> np.ndarray:
        shared = generator.normal(0, np.sqrt(variance * share), units)
        return shared[unit] + generator.normal(0, np.sqrt(variance * (1 - share)), len(unit))

    s, t, e = part(0.2, signal_icc), part(0.1, signal_icc), part(0.7, icc)
    return Panel(s + t + e, s + t, s, unit, unit * 3 + within // 4, within % 4)


def panel(
    generator: np.random.Generator, places: int, years: np.ndarray, present: float, sd: dict[str, float]
) -> dict[str, np.ndarray]:
    """Rows of y = place + year + tile + noise, each year of a place there with probability `present`.

    `years` (T,) are the fixed effects of the years; place, tile and noise are normal with `sd`, a tile's
    anew each year. Columns place, year, y, and the effects place_effect, year_effect, tile_effect.
    """
    place, year = np.nonzero(generator.random((places, len(years))) < present)
    effects = {
        "place_effect": generator.normal(0, sd["place"], places)[place],
        "year_effect": years[year],
        "tile_effect": generator.normal(0, sd["tile"], len(place)),
    }
    y = sum(effects.values()) + generator.normal(0, sd["noise"], len(place))
    return {"place": place, "year": year, "y": y} | effects


def true_scores(icc: float, signal_icc: float) -> dict[str, float]:
    """Scores of `clustered` in the population that its units are drawn from."""
    drawn = clustered(np.random.default_rng(7), LARGE, icc, signal_icc)
    reference = np.full(len(drawn.y), TRAIN_MEAN)
    a, b = regression_scores.scores(drawn.y, drawn.a), regression_scores.scores(drawn.y, drawn.b)
    panel_scores = regression_scores.panel_scores(drawn.y, drawn.a, drawn.year, drawn.place, reference)
    return a | panel_scores | {f"paired_{name}": a[name] - b[name] for name in ("r2", "mae")}


def coverage(
    units: int, icc: float, signal_icc: float = 0.5, simulations: int = 500, seed: int = 0
) -> dict[str, float]:
    """Share of simulated panels whose interval of each score holds the population's value."""
    truth = true_scores(icc, signal_icc)
    names = (*regression_scores.SCORES, *regression_scores.PANEL_SCORES, *PAIRED)
    hits = dict.fromkeys(names, 0)
    generator = np.random.default_rng([seed, units, round(100 * icc), round(100 * signal_icc)])
    for _ in range(simulations):
        drawn = clustered(generator, units, icc, signal_icc)
        reference = np.full(len(drawn.y), TRAIN_MEAN)
        found = jackknife.score_panel(drawn.y, drawn.a, drawn.unit, drawn.year, drawn.place, reference)
        found |= {f"paired_{key}": value for key, value in paired_of(drawn).items()}
        for name in names:
            low, high = found[f"{name}_low"], found[f"{name}_high"]
            hits[name] += low is not None and low <= truth[name] <= high
    return {name: count / simulations for name, count in hits.items()}


def paired_of(drawn: Panel) -> dict:
    return jackknife.paired_interval(drawn.y, drawn.a, drawn.b, drawn.unit)


if __name__ == "__main__":
    import sys

    number = int(sys.argv[1]) if len(sys.argv) > 1 else 500
    for signal in (0.5, 0.9):
        for count in UNITS:
            for share in ICCS:
                row = coverage(count, share, signal, number)
                print(signal, count, share, " ".join(f"{key} {value:.3f}" for key, value in row.items()), flush=True)
