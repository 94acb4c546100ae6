"""What is asked and answered, in Chinese or English, and the strict way back from words to a number."""

import re

from src.core.errors import ParamsError
from src.population.params import Sft

PROMPTS = {
    "zh": "根据这幅卫星嵌入影像，预测该地区的人口增长率，按“预测值：X.XX‰”的格式回答。",
    "en": "Predict the population growth rate of this place from its satellite embedding. "
    "Answer as “Prediction: X.XX‰”.",
}
_AROUND = {"zh": ("预测值：", "‰"), "en": ("Prediction: ", "‰")}
_NUMBER = re.compile(r"-?(0|[1-9]\d{0,3})\.\d\d", re.ASCII)


def template(sft: Sft) -> str:
    """The prompt of these params; raises ParamsError if it names a field outside year and covariates."""
    text = sft.template or PROMPTS[sft.language]
    allowed = {"year", *sft.covariates}
    for field in re.findall(r"{([^{}]*)}", text):
        if field not in allowed:
            raise ParamsError(
                f"sft.template: found {{{field}}}, expected year or one of sft.covariates {sorted(sft.covariates)}; "
                "list the column in sft.covariates or take it out of the template"
            )
    return text


def fill(text: str, row: dict) -> str:
    """`text` with {field} replaced from `row`; nothing else in it is interpreted."""
    return re.sub(r"{([^{}]*)}", lambda match: _shown(row[match[1]]), text)


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
    if not (text.startswith(before) and text.endswith(after)):
        return None
    number = text[len(before) : len(text) - len(after)]
    return float(number) if _NUMBER.fullmatch(number) else None
