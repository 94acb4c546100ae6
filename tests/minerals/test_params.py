"""Mistakes in params.yaml of minerals, and their messages."""

import pytest

from src.core.stage.errors import ParamsError
from tests.conftest import minerals_params


def test_the_committed_params_are_valid():
    assert minerals_params().simulate.snr == 200


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bands.water_nm": [[1450, 1350]]}, r"bands\.water_nm: found \[1450, 1350\], expected the smaller first"),
        ({"bands.noisy_nm": [[1, 2, 3]]}, r"bands\.noisy_nm"),
        ({"bands.stretch": [98, 2]}, r"bands\.stretch: found \[98.*\], expected two ascending percentiles"),
        ({"split.test": 0.5, "split.validation": 0.5}, r"split\.test: found 0\.5 beside validation 0\.5"),
        ({"split.block_px": 200, "split.gap_px": 63}, r"split\.gap_px: found 63, expected at least tiles\.tile_px 64"),
        ({"split.block_px": 127}, r"split\.block_px: found 127, expected at least the sum of split\.gap_px 64"),
        ({"annotate.composite": "swir"}, r"annotate\.composite"),
        ({"annotate.languages": []}, r"annotate\.languages"),
        ({"sft.accumulate": 3}, r"sft\.accumulate: found 3; .*batch_size 16 is no multiple of accumulate 3"),
        ({"sft.lora.rank": 0}, r"sft\.lora\.rank: found 0"),
        ({"sft.lora.targets": "(("}, r"sft\.lora\.targets: found .* is no regular expression"),
        ({"sft.lr.tiny": 2.0}, r"sft\.lr\.tiny: found 2\.0"),
        ({"simulate.snr": 0.0}, r"simulate\.snr"),
        ({"tiles.tile": 64}, r"tiles\.tile: unknown parameter"),
    ],
)
def test_what_is_refused(change, message):
    with pytest.raises(ParamsError, match=message):
        minerals_params(change)


def test_blocks_as_wide_as_gap_and_tile_are_enough():
    assert minerals_params({"split.block_px": 128}).split.block_px == 128
