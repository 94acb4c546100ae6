"""The score by which an epoch is kept: form of the answers first, then both growth rates."""

from argparse import Namespace

import numpy as np
import pandas as pd
import pytest

from src.population.models import finetuning


class Net:
    """Stand-in for a Reader with made-up answers, as far as `validation_metrics` reads it."""

    settings = Namespace(label=Namespace(mean=0.0, sd=1.0), language="zh")

    def __init__(self, answers, ce_weight=1.0, mse_weight=1.0):
        self.answers, self.model = answers, Namespace(ce_weight=ce_weight, mse_weight=mse_weight)

    def greedy(self, rows):
        return self.answers


def test_form_comes_first_then_both_growth_rates_decide():
    rows = pd.DataFrame({"growth_rate": [1.0, 2.0, 3.0]})

    def selection(head, answers, cross_entropy, **weights):
        predicted = Namespace(predictions=(np.array(head), np.ones(3), np.full(3, cross_entropy)))
        return finetuning.validation_metrics(predicted, Net(answers, **weights), rows)["selection"]

    exact, words = [1.0, 2.0, 3.0], ["预测值：1.00‰", "预测值：2.00‰", "预测值：2.00‰"]
    formless = [words[0], words[1], "3"]
    assert selection(exact, words, 0.5) == pytest.approx((1.0 + 0.5) / 2)
    # No form yet: a run whose cross-entropy falls is getting better, however the head moves.
    assert selection([3.0, 2.0, 1.0], formless, 1.5) == -11.5 > selection(exact, formless, 2.0)
    assert selection([90.0, 0, 0], words, 0.5) == -10 > selection(exact, formless, 0.1)
    assert selection(exact, formless, 2.0, ce_weight=0.0) == 1.0
    assert selection([9.0, 0, 0], words, 0.5, mse_weight=0.0) == 0.5
