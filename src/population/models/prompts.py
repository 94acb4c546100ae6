"""Prompts and answers in Chinese or English, and the strict parser from an answer to its number."""

import re

from src.core.stage.errors import ParamsError
from src.population.params import Params

PROMPTS = {
    "zh": "根据这幅卫星嵌入影像，预测该地区的人口增长率，按“预测值：X.XX‰”的格式回答。",
    "en": "Predict the population growth rate of this place from its satellite embedding. "
    "Answer as “Prediction: X.XX‰”.",
}
# Fields of a row in the order in which the prompt names them, and the marks around their values.
_NAMES = {
    "zh": ({"province": "省份", "city": "城市", "year": "年份"}, "：", "；", "。"),
    "en": ({"province": "Province", "city": "City", "year": "Year"}, ": ", "; ", ". "),
}
_FIELD = re.compile(r"{([^{}]*)}")
_AROUND = {"zh": ("预测值：", "‰"), "en": ("Prediction: ", "‰")}
_NUMBER = r"(-?(0|[1-9]\d{0,3})\.\d\d)"


def template(params: Params) -> str:
    """The prompt of these params, with {field} where a row's value goes.

    Without a template it is the built-in one after the named fields and covariates. Raises ParamsError where a template
    names a field that neither prompt.fields nor the covariates of the prompt have, or none of these covariates.
    """
    sft, fields = params.sft, params.prompt.fields
    known = params.data.covariate_columns
    columns = known if sft.covariates in ("prompt", "both") else []
    if sft.template is None:
        return _beginning(fields, columns, sft.language) + PROMPTS[sft.language]
    for field in named(sft.template):
        if field not in (*fields, *columns):
            raise ParamsError(
                f"sft.template: found {{{field}}}, {_remedy(field, fields, columns, known, sft.covariates)}"
            )
    if columns and not set(columns) & set(named(sft.template)):
        raise ParamsError(
            f"sft.covariates: found {sft.covariates}, but sft.template names none of {columns}; name them in it, or "
            "set sft.covariates: none or head"
        )
    return sft.template


def named(text: str) -> list[str]:
    """The fields that `text` names, each once, in its order."""
    return list(dict.fromkeys(_FIELD.findall(text)))


def _beginning(fields: list[str], columns: list[str], language: str) -> str:
    for column in columns:
        if set(column) & set("{}"):
            raise ParamsError(f"data.covariates: found {column!r}, expected no brace, which would end a field of the "
                              "prompt; rename the column")  # fmt: skip
    titles, colon, semicolon, stop = _NAMES[language]
    parts = [f"{title}{colon}{{{field}}}" for field, title in titles.items() if field in fields]
    parts += [f"{column}{colon}{{{column}}}" for column in columns]
    return semicolon.join(parts) + stop if parts else ""


def _remedy(field: str, fields: list[str], columns: list[str], known: list[str], use: str) -> str:
    if field in _NAMES["en"][0]:
        return f"which is not among prompt.fields {fields}; list it there or take it out of the template"
    if field in known:
        return f"but sft.covariates is {use}; set it to prompt or both, or take {{{field}}} out of the template"
    return (
        f"expected one of prompt.fields and data.covariates {[*fields, *columns]}; list it there (a covariate by its "
        "column's name, lag included) or take it out of the template"
    )


def fill(text: str, row: dict) -> str:
    """`text` with {field} replaced from `row`; nothing else in it is interpreted."""
    return _FIELD.sub(lambda match: _shown(row[match[1]]), text)


def _shown(value: object) -> str:
    """5.0 is shown as 5: whether a column is read as int or float depends on its other rows."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def answer(value: float, language: str) -> str:
    """A growth rate in per mille per year as the answer's text, two decimals."""
    before, after = _AROUND[language]
    return f"{before}{value + 0.0:.2f}{after}".replace("-0.00", "0.00")


def parse(text: str, language: str) -> float | None:
    """The number in an answer of exactly the asked form, else None."""
    before, after = _AROUND[language]
    found = re.fullmatch(re.escape(before) + _NUMBER + re.escape(after), text, re.ASCII)
    return float(found[1]) if found else None
