"""Ids of observations there and back."""

import pytest

from src.core.stage.errors import DataError
from src.species.data.observation_ids import make_id, parse_id


def test_ids_go_there_and_back():
    assert make_id(4171912265, 1) == "4171912265_1"
    assert parse_id("4171912265_1") == (4171912265, 1)
    assert parse_id(make_id(0, 0)) == (0, 0)


@pytest.mark.parametrize(
    "bad", ["", "12", "12_", "_1", "12_1_2", "12-1", "a_1", "012_1", "12_01", "12_1 ", "١٢_1", "-1_1"]
)
def test_another_form_is_refused_by_name(bad):
    with pytest.raises(DataError, match=r"expected \{gbif_id\}_\{image_index\}") as error:
        parse_id(bad)
    assert repr(bad) in str(error.value)


def test_negative_numbers_make_no_id():
    with pytest.raises(ValueError, match="no negative number"):
        make_id(-1, 0)
