"""Sentences of the report."""

import pytest

from src.minerals.report.page import no_interval


@pytest.mark.parametrize(
    ("blocks", "said"),
    [(1, "it needs 10 test blocks, and there is 1."), (9, "it needs 10 test blocks, and there are 9."), (10, "")],
)
def test_scores_without_an_interval_come_with_the_number_of_blocks_that_it_needs(blocks, said):
    found = no_interval(blocks)
    assert said in found and bool(found) == bool(said)
