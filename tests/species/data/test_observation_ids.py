"""Ids of observations there and back."""

import pandas as pd
import pytest

from src.core.stage.errors import DataError
from src.species.data.observation_ids import make_ids, parse_id


def test_ids_go_there_and_back():
    ids = make_ids(pd.Series([4171912265, 0]), pd.Series([1, 0]))
    assert ids.tolist() == ["4171912265_1", "0_0"] and [parse_id(one) for one in ids] == [(4171912265, 1), (0, 0)]


@pytest.mark.parametrize(
    "bad", ["", "12", "12_", "_1", "12_1_2", "12-1", "a_1", "012_1", "12_01", "12_1 ", "١٢_1", "-1_1"]
)
def test_another_form_is_refused_by_name(bad):
    with pytest.raises(DataError, match=r"expected \{gbif_id\}_\{image_index\}") as error:
        parse_id(bad)
    assert repr(bad) in str(error.value)
