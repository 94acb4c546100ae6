"""Predictions of anyone: scores by hand, baselines that do not know the row, refusals."""

import json

import numpy as np
import pandas as pd
import pytest

from src.core.evaluation import regression_scores
from src.core.stage.errors import DataError
from src.population import score


def panel(places: int = 40, years: int = 4) -> pd.DataFrame:
    """Place and year effects; the prediction knows half of the place effect."""
    generator = np.random.default_rng(5)
    effect, when = generator.normal(0, 3, places), generator.normal(0, 2, years)
    rows = [
        {
            "place": f"p{place:02d}",
            "year": 2018 + year,
            "y": effect[place] + when[year] + generator.normal(0, 1),
            "prediction": 0.5 * effect[place] + when[year],
            "lat": 30 + 0.5 * (place // 8),
            "lon": 100 + 0.5 * (place % 8),
        }
        for place in range(places)
        for year in range(years)
    ]
    return pd.DataFrame(rows)


def write(table: pd.DataFrame, folder, name: str = "predictions.csv"):
    path = folder / name
    table.to_csv(path, index=False)
    return path


def test_baselines_by_hand():
    table = pd.DataFrame(
        {
            "place": ["a", "a", "b", "b", "c"],
            "year": [1, 2, 1, 2, 2],
            "y": [1.0, 3.0, 10.0, 20.0, 6.0],
            "lat": [0.0, 0.0, 1.0, 1.0, 5.0],
            "lon": [0.0] * 5,
        }
    )
    guesses = score.baselines(table, table[["place", "year", "y"]])
    np.testing.assert_allclose(guesses["mean_of_others"], [12, 12, 10 / 3, 10 / 3, 8.5])
    np.testing.assert_allclose(guesses["year_of_others"], [10, 13, 1, 4.5, 11.5])
    np.testing.assert_allclose(guesses["previous_label"], [np.nan, 1, np.nan, 10, np.nan])
    np.testing.assert_allclose(guesses["place_mean"], [np.nan, 1, np.nan, 10, np.nan])
    # two other places each: the mean of their means
    np.testing.assert_allclose(guesses["neighbours"], [10.5, 10.5, 4, 4, 8.5])


def test_no_baseline_of_new_places_knows_the_rows_own_place():
    table = panel(12, 3)
    other = table.copy()
    other.loc[other.place == "p03", "y"] += 1000
    mine = (table.place == "p03").to_numpy()
    for name in ("mean_of_others", "year_of_others", "neighbours"):
        one, two = (score.baselines(part, part[["place", "year", "y"]])[name] for part in (table, other))
        np.testing.assert_allclose(one[mine], two[mine])
        assert not np.allclose(one[~mine], two[~mine])


def test_the_file_is_scored_as_the_metrics_score_it(tmp_path, capsys):
    table = panel()
    result = score.main(write(table, tmp_path), tmp_path / "out")
    assert json.loads((tmp_path / "out" / "score.json").read_text()) == result
    expected = regression_scores.scores(table.y.to_numpy(), table.prediction.to_numpy())
    assert result["prediction"]["r2"] == pytest.approx(expected["r2"], abs=1e-6)
    assert result["baselines"]["mean_of_others"]["r2_oos"] == 0
    # Half of the place effect is worth something between places, the year effect all of it within a place.
    assert 0.5 < result["prediction"]["r2_between_place"] < 0.9
    assert result["prediction"]["r2_change"] > 0.6
    assert result["minus"]["previous_label"]["n"] == 120  # 4 years, the first has none before it
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "score.json", "predicted_vs_actual.png", "residual_map.png",
    }  # fmt: skip
    told = capsys.readouterr().out
    assert "year_of_others" in told and "effective size" in told


def test_row_order_changes_nothing(tmp_path):
    table = panel()
    one = score.main(write(table, tmp_path), tmp_path / "one")
    shuffled = table.sample(frac=1, random_state=1)
    assert score.main(write(shuffled, tmp_path, "other.csv"), tmp_path / "two") == one


def test_more_labels_make_baselines_that_know_more(tmp_path):
    table = panel()
    known = table[table.year < 2021].rename(columns={"place": "city", "y": "growth_rate"})
    test = table[table.year == 2021].drop(columns=["lat", "lon"])
    labels = write(pd.concat([known, test.rename(columns={"place": "city", "y": "growth_rate"})])[
        ["city", "year", "growth_rate"]], tmp_path, "labels.csv")  # fmt: skip
    alone = score.main(write(test, tmp_path), tmp_path / "alone")
    assert "previous_label" not in alone["baselines"] and "year_of_others" not in alone["baselines"]
    with_past = score.main(write(test, tmp_path), tmp_path / "past", labels)
    assert with_past["minus"]["previous_label"]["n"] == 40 and with_past["labels_known"] == 160


def test_neighbours_are_those_of_the_label_file(tmp_path):
    """Two test places far apart, each beside a training place whose label only --labels knows."""
    test = pd.DataFrame({"place": ["a", "b"], "year": 2020, "y": [1.0, 9.0], "prediction": 5.0})
    train = pd.DataFrame({"place": [*"cdefgh", *"ijklmn"], "year": 2020, "y": [1.0] * 6 + [9.0] * 6})
    labels = pd.concat([test.drop(columns="prediction"), train])
    labels["lon"] = [10.0, 80.0, *(10.0 + 0.1 * np.arange(1, 7)), *(80.0 + 0.1 * np.arange(1, 7))]
    labels = labels.assign(lat=0.0)
    for known in (labels, labels.rename(columns={"place": "city", "y": "growth_rate"})):
        where = write(known, tmp_path, "labels.csv")
        past = score.read_known(where, test, tmp_path / "predictions.csv")
        assert score.baselines(test, past)["neighbours"].tolist() == [1.0, 9.0]
    alone = test.assign(lat=0.0, lon=[10.0, 80.0])
    assert score.baselines(alone, past)["neighbours"].tolist() == [1.0, 9.0]
    without = past.drop(columns=["lat", "lon"])  # no position of a training place is known: each other's label
    assert score.baselines(alone, without)["neighbours"].tolist() == [9.0, 1.0]
    assert "neighbours" not in score.baselines(test, without)


def test_a_label_file_without_a_row_is_refused(tmp_path):
    labels = write(panel()[["place", "year", "y"]][:0], tmp_path, "labels.csv")
    with pytest.raises(DataError, match=r"labels\.csv: found no row below the column names"):
        score.main(write(panel(), tmp_path), tmp_path / "out", labels)


def test_units_are_blocks_squares_or_places():
    table = panel(12, 2)
    assert score.units_of(table.assign(block="b"), 5)[0] == "block"
    name, squares = score.units_of(table, 0.5)
    assert name == "square of 0.5 degrees" and len(set(squares)) == 12
    assert score.units_of(table.drop(columns=["lat", "lon"]), 5)[0] == "place"


REFUSALS = {
    "duplicate": (lambda t: pd.concat([t, t.iloc[[3]]]), r"row 162: p00 2021 is already in row 5"),
    "no y": (lambda t: t.drop(columns="y"), "no column 'y', found place, year, prediction, lat, lon"),
    "blank": (lambda t: t.assign(prediction=[np.nan, *t.prediction[1:]]), "row 2, prediction: found a blank"),
    "text": (lambda t: t.assign(y=["5 ‰", *t.y[1:]]), "row 2, y: found '5 ‰', expected a plain number"),
    "constant": (lambda t: t.assign(y=3.0), "y: found 160 rows with 1 distinct values"),
    "half a position": (lambda t: t.drop(columns="lon"), "only one of the columns lat and lon"),
    "one place": (lambda t: t[t.place == "p00"], "place: found one, 'p00'"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_refusals_say_where_and_leave_nothing(tmp_path, name):
    spoil, message = REFUSALS[name]
    with pytest.raises(DataError, match=message):
        score.main(write(spoil(panel()), tmp_path), tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["predictions.csv"]


def test_unknown_places_and_other_labels_are_refused(tmp_path):
    table = panel(12, 2)
    known = table.rename(columns={"place": "city", "y": "growth_rate"})[["city", "year", "growth_rate"]]
    labels = write(known[known.city != "p04"], tmp_path, "labels.csv")
    with pytest.raises(DataError, match=r"place: found 'p04' \(1 places\)"):
        score.main(write(table, tmp_path), tmp_path / "out", labels)
    labels = write(known.assign(growth_rate=known.growth_rate + 1), tmp_path, "labels.csv")
    with pytest.raises(DataError, match=r"y: found .* for p00 2018, expected"):
        score.main(write(table, tmp_path), tmp_path / "out", labels)


def test_small_files_are_scored_without_a_traceback(tmp_path):
    table = pd.DataFrame(
        {"place": ["a", "b", "c"], "year": [2000, 2001, 2002], "y": [1.0, 2, 4], "prediction": [1, 1, 1]}
    )
    result = score.main(write(table, tmp_path), tmp_path / "out")
    assert set(result["baselines"]) == {"mean_of_others"} and result["prediction"]["r2_low"] is None
    with pytest.raises(DataError, match="block: found several for a"):
        score.main(
            write(pd.concat([table, table.assign(year=1990)]).assign(block=list("xyzuvw")), tmp_path), tmp_path / "o"
        )
