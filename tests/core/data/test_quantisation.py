import numpy as np
import pytest

from src.core.data.quantisation import NODATA, Quantisation, declared, dequantise, lookup_table
from src.core.stage.errors import DataError

LINEAR = Quantisation("linear", 0.25)


def test_alphaearth_formula_is_the_published_one():
    values = dequantise(np.array([-127, -51, 0, 51, 127], np.int8), Quantisation("alphaearth"))
    assert values.dtype == np.float32
    np.testing.assert_allclose(values, [-((127 / 127.5) ** 2), -0.16, 0, 0.16, (127 / 127.5) ** 2], rtol=1e-6)


def test_linear_and_none_scale_or_keep():
    stored = np.array([[-4, 3]], np.int8)
    np.testing.assert_array_equal(dequantise(stored, LINEAR), np.float32([[-1, 0.75]]))
    np.testing.assert_array_equal(dequantise(np.float16([1.5]), Quantisation("none")), np.float32([1.5]))


@pytest.mark.parametrize("quantisation", [Quantisation("alphaearth"), LINEAR, Quantisation("none")])
def test_lookup_table_equals_the_formula_for_every_int8_but_no_data(quantisation):
    stored = np.arange(-127, 128).astype(np.int8)
    table = lookup_table(quantisation)
    assert table.shape == (256,) and table.dtype == np.float32
    np.testing.assert_array_equal(table[stored.astype(int) + 128], dequantise(stored, quantisation))
    assert table[NODATA + 128] == 0


def test_dict_round_trip():
    assert Quantisation(**LINEAR.as_dict()) == LINEAR


def test_declared_reads_text_tags_and_says_nothing_of_none():
    assert declared({"quantisation": "linear", "scale": "0.25", "AREA_OR_POINT": "Area"}, "a.tif") == LINEAR
    assert declared({"quantisation": "alphaearth"}, "a.tif") == Quantisation("alphaearth")
    assert declared({"AREA_OR_POINT": "Area"}, "a.tif") is None


@pytest.mark.parametrize(
    ("tags", "found"),
    [
        ({"quantisation": "log"}, "'log'"),
        ({"scale": "2"}, "None"),
        ({"quantisation": "linear"}, "None"),
        ({"quantisation": "linear", "scale": "two"}, "'two'"),
        ({"quantisation": "linear", "scale": "-1"}, "'-1'"),
        ({"quantisation": "linear", "scale": "nan"}, "'nan'"),
        ({"quantisation": "alphaearth", "scale": "1"}, "'1'"),
    ],
)
def test_malformed_tags_are_named(tags, found):
    with pytest.raises(DataError, match=r"a\.tif: (quantisation|scale): found " + found):
        declared(tags, "a.tif")
