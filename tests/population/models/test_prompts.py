"""Words out and strictly back: what is not exactly of the asked form is no number."""

import pytest

from src.core.stage.errors import ParamsError
from src.population.models import prompts


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


def test_the_built_in_prompt_names_nothing_by_itself(make_params):
    assert prompts.template(make_params()) == prompts.PROMPTS["zh"]
    assert prompts.template(make_params({"sft.language": "en"})) == prompts.PROMPTS["en"]
    assert prompts.named(prompts.PROMPTS["zh"] + prompts.PROMPTS["en"]) == []


COVARIATES = {"data.covariates": ["gdp", "area"], "data.covariate_lag": 1}


@pytest.mark.parametrize(
    ("changes", "beginning"),
    [
        ({"prompt.fields": ["year"]}, "年份：{year}。"),
        ({"prompt.fields": ["year", "city", "province"]}, "省份：{province}；城市：{city}；年份：{year}。"),
        (COVARIATES | {"sft.covariates": "prompt"}, "gdp_lag1：{gdp_lag1}；area_lag1：{area_lag1}。"),
        (
            COVARIATES | {"sft.covariates": "both", "prompt.fields": ["city"], "sft.language": "en"},
            "City: {city}; gdp_lag1: {gdp_lag1}; area_lag1: {area_lag1}. ",
        ),
        (
            {"prompt.fields": ["province", "year"], "sft.language": "en"},
            "Province: {province}; Year: {year}. ",
        ),
        (COVARIATES | {"sft.covariates": "head"}, ""),
        (COVARIATES, ""),
    ],
)
def test_fields_and_covariates_stand_before_the_built_in_prompt(make_params, changes, beginning):
    params = make_params(changes)
    assert prompts.template(params) == beginning + prompts.PROMPTS[params.sft.language]


def test_an_own_template_is_taken_as_it_is(make_params):
    changes = COVARIATES | {"sft.covariates": "prompt", "prompt.fields": ["year"]}
    own = "{year}: {gdp_lag1}? {year}"
    assert prompts.template(make_params(changes | {"sft.template": own})) == own
    assert prompts.named(own) == ["year", "gdp_lag1"]
    assert prompts.template(make_params(changes | {"sft.template": "{area_lag1}"})) == "{area_lag1}"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sft.template": "{year}?"}, r"found \{year\}, which is not among prompt\.fields \[\]; list it there"),
        ({"sft.template": "{city}", "prompt.fields": ["year"]}, r"\{city\}, which is not among .*\['year'\]"),
        ({"sft.template": "{gdp_lag1}"} | COVARIATES, r"\{gdp_lag1\}, but sft\.covariates is none; set it"),
        ({"sft.template": "{gdp_lag1}", "sft.covariates": "head"} | COVARIATES, r"but sft\.covariates is head"),
        ({"sft.template": "{gdp}", "sft.covariates": "prompt"} | COVARIATES,
         r"found \{gdp\}, expected one of .*\['gdp_lag1', 'area_lag1'\].*lag included"),
        ({"sft.template": "{growth_rate}"}, r"found \{growth_rate\}, expected one of"),
        ({"sft.template": "?", "sft.covariates": "both"} | COVARIATES, r"found both, but sft\.template names none of"),
        ({"sft.covariates": "prompt", "data.covariates": ["a{b"]}, r"data\.covariates: found 'a\{b_lag1', expected no"),
    ],
)  # fmt: skip
def test_what_the_prompt_cannot_name_is_refused_with_the_remedy(make_params, changes, message):
    with pytest.raises(ParamsError, match=message):
        prompts.template(make_params(changes))


def test_filling_interprets_nothing_but_the_fields():
    row = {"year": 2020, "note": "{year} %s {0} \\1"}
    assert prompts.fill("{note} in {year}, 100 % {{", row) == "{year} %s {0} \\1 in 2020, 100 % {{"
