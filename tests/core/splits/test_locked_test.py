"""A lock follows from names alone, and data that changed since are refused."""

import hashlib

import numpy as np
import pandas as pd
import pytest

from src.core.splits import locked_test
from src.core.stage.errors import DataError

COUNTS = {"alpha": 10, "beta": 6, "gamma": 3, "delta": 4, "epsilon": 7}


def make_places():
    rows = [(f"{region}/city {i}", region) for region, count in COUNTS.items() for i in range(count)]
    return pd.DataFrame(rows, columns=["place", "region"])


def by_hash():
    return sorted(COUNTS, key=lambda name: hashlib.sha256(name.encode()).hexdigest())


def test_whole_regions_are_locked_in_the_order_of_their_hashes():
    order = by_hash()
    for share in (0.05, 0.2, 0.5):
        locked = locked_test.draw_locked(make_places(), share)
        assert locked == order[: len(locked)]
        held = [COUNTS[name] for name in locked]
        assert sum(held) >= share * 30 > sum(held[:-1])


def test_exactly_the_share_is_enough():
    """11 of 55 places are 20 %, though 0.2 * 55 is above 11 in floating point."""
    first, *rest = by_hash()
    places = [(f"a{i}", first) for i in range(11)] + [(f"b{i}", rest[0]) for i in range(44)]
    assert locked_test.draw_locked(pd.DataFrame(places, columns=["place", "region"]), 0.2) == [first]


def test_rows_their_order_and_repetition_change_nothing():
    places = make_places()
    # one region with many tiles a place would otherwise weigh more
    repeated = pd.concat([places, places[places["region"] == by_hash()[0]]]).sample(frac=1, random_state=1)
    regions = locked_test.draw_locked(places)
    assert locked_test.draw_locked(repeated) == regions
    assert locked_test.lock_hash(repeated, regions) == locked_test.lock_hash(places, regions)


def test_the_hash_is_that_of_the_sorted_names():
    places = pd.DataFrame({"place": ["r/b", "r/a", "s/c"], "region": ["r", "r", "s"]})
    assert locked_test.lock_hash(places, ["r"]) == hashlib.sha256(b"r/a\nr/b\n").hexdigest()


def test_locked_rows_are_marked_where_the_hash_matches():
    places = make_places().sample(frac=1, random_state=3)
    regions = locked_test.draw_locked(places)
    locked = locked_test.check_lock(places, locked_test.lock_hash(places, regions))
    assert (locked == places["region"].isin(regions)).all()
    assert 0.2 <= locked.mean() < 1


def test_data_that_changed_since_the_lock_are_refused_with_both_hashes():
    places = make_places()
    regions = locked_test.draw_locked(places)
    expected = locked_test.lock_hash(places, regions)
    lost = places.drop(index=places.index[places["region"] == regions[0]][0])
    found = locked_test.lock_hash(lost, locked_test.draw_locked(lost))
    with pytest.raises(DataError) as error:
        locked_test.check_lock(lost, expected)
    for part in (
        "params.yaml: `lock`",
        expected,
        found,
        f"of {', '.join(locked_test.draw_locked(lost))}",
        "leave it blank",
    ):
        assert part in str(error.value)


def test_regions_that_cannot_be_locked_are_refused():
    one = pd.DataFrame({"place": ["a", "b"], "region": "Hebei"})
    with pytest.raises(DataError, match="the region Hebei holds all 2 places"):
        locked_test.draw_locked(one)
    with pytest.raises(DataError, match="takes all 5 regions"):
        locked_test.draw_locked(make_places(), 1.0)
    with pytest.raises(DataError, match="1 places without a region \\(b\\)"):
        locked_test.draw_locked(pd.DataFrame({"place": ["a", "b"], "region": ["Hebei", np.nan]}))
    with pytest.raises(DataError, match="1 places in two regions \\(a: Hebei, Henan\\)"):
        locked_test.draw_locked(pd.DataFrame({"place": ["a", "b", "a"], "region": ["Henan", "Henan", "Hebei"]}))
