"""Words out and strictly back: what is not exactly of the asked form is no number."""

import pytest

from src.core.errors import ParamsError
from src.population import prompts


@pytest.mark.parametrize("language", ["zh", "en"])
@pytest.mark.parametrize(
    ("value", "written"),
    [
        (-12.3, "-12.30"),
        (0.004, "0.00"),
        (-0.004, "0.00"),
        (-0.0, "0.00"),
        (7, "7.00"),
        (-0.25, "-0.25"),
        (-10.001, "-10.00"),
        (1234.567, "1234.57"),
        (-9999.99, "-9999.99"),
    ],
)
def test_an_answer_reads_back_as_its_two_decimals(value, written, language):
    text = prompts.answer(value, language)
    assert text == {"zh": f"预测值：{written}‰", "en": f"Prediction: {written}‰"}[language]
    assert prompts.parse(text, language) == float(written) == pytest.approx(value, abs=0.005)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1.23",
        "预测值：1.23",
        "预测值：1.23%",
        "预测值:1.23‰",
        "1.23‰",
        "预测值：1.2‰",
        "预测值：1.234‰",
        "预测值：1‰",
        "预测值：.23‰",
        "预测值：01.23‰",
        "预测值：+1.23‰",
        "预测值：--1.23‰",
        "预测值：−1.23‰",
        "预测值：- 1.23‰",
        "预测值： 1.23‰",
        "预测值：1.23 ‰",
        "预测值：1.23‰ ",
        "预测值：1.23‰\n",
        "预测值：1.23‰。",
        "答：预测值：1.23‰",
        "预测值：1.23‰预测值：1.23‰",
        "预测值：１.２３‰",
        "预测值：1.２３‰",
        "预测值：1．23‰",
        "预测值：1,23‰",
        "预测值：12345.67‰",
        "预测值：nan‰",
        "预测值：1e2.00‰",
        "Prediction: 1.23‰",
    ],
)
def test_another_form_is_not_a_number(text):
    assert prompts.parse("预测值：1.23‰", "zh") == 1.23
    assert prompts.parse(text, "zh") is None


def test_a_model_may_write_minus_zero():
    """`answer` never does, but a sampled one is a number of the asked form all the same."""
    assert prompts.parse("预测值：-0.00‰", "zh") == 0.0


def test_built_in_prompt_and_own_template(make_params):
    assert prompts.template(make_params().sft) == prompts.PROMPTS["zh"]
    assert prompts.template(make_params({"sft.language": "en"}).sft) == prompts.PROMPTS["en"]
    own = make_params({"sft.template": "{year}: {gdp}?", "sft.covariates": ["gdp"]}).sft
    assert prompts.template(own) == "{year}: {gdp}?"


def test_a_template_field_that_no_column_fills_is_named(make_params):
    for changes in ({"sft.template": "{gdp}"}, {"sft.template": "{year} {gdp}", "sft.covariates": ["area"]}):
        with pytest.raises(ParamsError, match=r"sft\.template: found \{gdp\}.*sft\.covariates"):
            prompts.template(make_params(changes).sft)
    with pytest.raises(ParamsError, match=r"found \{growth_rate\}"):
        prompts.template(make_params({"sft.template": "{growth_rate}"}).sft)


def test_filling_interprets_nothing_but_the_fields():
    row = {"year": 2020, "note": "{year} %s {0} \\1"}
    assert prompts.fill("{note} in {year}, 100 % {{", row) == "{year} %s {0} \\1 in 2020, 100 % {{"
