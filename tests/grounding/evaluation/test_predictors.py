"""The list of predictors is complete and its comparisons can tell what they claim."""

import pytest

from src.core.stage.errors import DataError
from src.grounding.evaluation.predictors import COMPARISONS, PREDICTORS, SHUFFLED, TITLES, ZEROED, require_listed


def test_controls_differ_from_what_they_control_in_one_thing():
    named = {one.name: one for one in PREDICTORS}
    assert len(named) == len(PREDICTORS)
    ours = named["opt_v3"]
    for control, radar in (("shuffled_sar", SHUFFLED), ("zeroed_sar", ZEROED)):
        assert (named[control].weights, named[control].radar) == (ours.weights, radar)
    assert named["no_lora"].radar == ours.radar and named["no_lora"].weights != ours.weights
    assert {name for name, one in named.items() if one.kind == "closed form"} == {"opt_v2", "bicubic", "telea"}


def test_every_predictor_is_compared_with_ours():
    assert {one.theirs for one in COMPARISONS} == set(TITLES) - {"opt_v3"}
    assert len({one.key for one in COMPARISONS}) == len(COMPARISONS)


def test_unknown_and_absent_predictors_are_named():
    require_listed(TITLES, "evaluate")
    with pytest.raises(DataError, match="evaluate: found predictions of opt_v4"):
        require_listed([*TITLES, "opt_v4"], "evaluate")
    with pytest.raises(DataError, match="evaluate: found no predictions of telea"):
        require_listed([name for name in TITLES if name != "telea"], "evaluate")
