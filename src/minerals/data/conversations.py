"""Questions and answers about a tile in English and Chinese, and the strict parser from an answer back to what it says.

Three tasks: `alteration` (yes or no, with shares), `minerals` (a list), `analysis` (shares, zone and what it means).
Every number of an answer is computed from the tile's shares. An answer has one form in each language; questions have
several.
"""

import re
from dataclasses import dataclass

import numpy as np

from src.minerals.data.tile_table import is_altered
from src.minerals.mapping.minerals import MINERALS, NAMES

TASKS = ("alteration", "minerals", "analysis")
LANGUAGES = ("en", "zh")
IMAGE = "<image>"
QUESTIONS = {
    ("alteration", "en"): (
        "Does this image show alteration related to copper?",
        "Is there copper-related alteration in this area?",
        "Do minerals of copper-related alteration occur here?",
    ),
    ("alteration", "zh"): (
        "该影像是否显示与铜矿化有关的蚀变？",
        "该区域是否存在与铜有关的蚀变？",
        "分析该区域是否具有铜矿化蚀变特征？",
    ),
    ("minerals", "en"): (
        "Identify the main alteration minerals in this image.",
        "Which alteration minerals does this area hold?",
        "List the minerals that can be mapped here.",
    ),
    ("minerals", "zh"): ("识别该影像中的主要蚀变矿物。", "该区域含有哪些蚀变矿物？", "列出此处可识别的矿物。"),
    ("analysis", "en"): (
        "Analyse the mineralization features of this area and their significance for exploration.",
        "Describe the minerals of this image in detail.",
        "Give a detailed analysis of the alteration in this image.",
    ),
    ("analysis", "zh"): (
        "详细分析该区域的矿化特征及其勘查意义。",
        "详细描述该影像中的矿物。",
        "对该影像的蚀变作详细分析。",
    ),
}
UNKNOWN = {
    "en": "{!r} is none of the questions that the model knows, and it would answer another one; ask one of:",
    "zh": "模型不认识问题{!r}，会答非所问；请从下列问题中选择：",
}
# The zone is that of the mineral with the largest share (Lowell and Guilbert 1970, Economic Geology 65, 373).
ZONES = {
    "alunite": ("advanced argillic alteration", "高级泥化带"),
    "kaolinite": ("argillic alteration", "泥化带"),
    "muscovite": ("phyllic alteration", "绢英岩化带"),
    "montmorillonite": ("intermediate argillic alteration", "中级泥化带"),
    "chlorite": ("propylitic alteration", "青磐岩化带"),
    "epidote": ("propylitic alteration", "青磐岩化带"),
    "buddingtonite": ("ammonium alteration", "铵化带"),
    "calcite": ("carbonate", "碳酸盐"),
    None: ("no alteration", "无蚀变"),
}
CHINESE = {mineral.name: mineral.chinese for mineral in MINERALS}
ENGLISH = {chinese: name for name, chinese in CHINESE.items()}


@dataclass(frozen=True)
class Said:
    """Content of an answer: altered or not, minerals, their shares; None where its task does not ask."""

    altered: bool | None = None
    minerals: frozenset[str] | None = None
    shares: dict[str, float] | None = None


def language_of(question: str) -> str:
    """zh where a Chinese character stands in it, else en."""
    return "zh" if re.search("[\u4e00-\u9fff]", question) else "en"


def known(question: str, languages: list[str]) -> str | None:
    """The question of the annotations in one of `languages` that has the same words, whatever its case, spaces and
    last mark; None where there is none."""

    def words(text: str) -> str:
        return " ".join(text.split()).rstrip(" ?!.？！。").casefold()

    asked = (one for (_, language), some in QUESTIONS.items() if language in languages for one in some)
    return next((one for one in asked if words(one) == words(question)), None)


def unknown(question: str, languages: list[str]) -> str:
    """Lines that say in the question's language that it is none of these, and list those that are, in a language that
    the model knows."""
    language = language_of(question)
    listed = language if language in languages else languages[0]
    asked = [f"  {one}" for task in TASKS for one in QUESTIONS[task, listed]]
    return "\n".join([UNKNOWN[language].format(question), *asked])


def answer(task: str, language: str, shares: np.ndarray, altered: float, present: float) -> str:
    """The answer about a tile whose minerals cover `shares` (M,).

    Args:
        altered: share of copper-related minerals from which a tile is altered.
        present: share from which a mineral is named.
    """
    # In the order of the classes: in that of shares the tiny model named one mineral twice in a quarter of its answers.
    found = [(name, share) for name, share in zip(NAMES, shares, strict=True) if share >= present]
    english, yes = language == "en", is_altered(shares, altered)
    named = [name if english else CHINESE[name] for name, _ in found]
    if task == "minerals":
        if english:
            return (", ".join(named) or "none") + "."
        return ("、".join(named) or "无") + "。"
    with_shares = [f"{name} {100 * share:.0f} %" for name, (_, share) in zip(named, found, strict=True)]
    listed = (", " if english else "、").join(with_shares) or ("none" if english else "无")
    if task == "alteration":
        total = 100 * sum(share for mineral, share in zip(MINERALS, shares, strict=True) if mineral.copper)
        if english:
            return f"{'Yes' if yes else 'No'}. Copper-related minerals cover {total:.0f} %."
        return f"{'是' if yes else '否'}。与铜有关的矿物占{total:.0f} %。"
    absent = [name if english else CHINESE[name] for name in NAMES if name not in dict(found)]
    zone = ZONES[max(found, key=lambda pair: pair[1])[0] if found else None][0 if english else 1]
    missing = (", " if english else "、").join(absent) or ("none" if english else "无")
    if english:
        value = "worth a closer look for copper" if yes else "no sign of copper"
        return f"Minerals: {listed}. Not found: {missing}. Main zone: {zone}; {value}."
    value = "具有铜矿勘查价值" if yes else "无铜矿化迹象"
    return f"矿物：{listed}。未见：{missing}。主要分带：{zone}；{value}。"


_YES_NO = {
    "en": re.compile(r"(Yes|No)\. Copper-related minerals cover (\d{1,3}) %\."),
    "zh": re.compile(r"(是|否)。与铜有关的矿物占(\d{1,3}) %。"),
}
_LIST = {"en": re.compile(r"([a-z, ]+)\."), "zh": re.compile(r"([^。]+)。")}
_ANALYSIS = {
    "en": re.compile(r"Minerals: ([^.]+)\. Not found: ([^.]+)\. Main zone: [^;.]+; (worth|no)[a-z ]+\."),
    "zh": re.compile(r"矿物：([^。]+)。未见：([^。]+)。主要分带：[^；。]+；(具有|无)[^。]+。"),
}


def parse(text: str, task: str, language: str) -> Said | None:
    """Content of an answer of exactly the asked form, else None."""
    match = {"alteration": _YES_NO, "minerals": _LIST, "analysis": _ANALYSIS}[task][language].fullmatch(text)
    if match is None:
        return None
    if task == "alteration":
        return Said(altered=match[1] in ("Yes", "是")) if int(match[2]) <= 100 else None
    if task == "minerals":
        names = _names(match[1], language)
        return None if names is None else Said(minerals=frozenset(names))
    shares = {}
    for part in [] if match[1] in ("none", "无") else re.split(", |、", match[1]):
        name, _, number = part.partition(" ")
        name = name if language == "en" else ENGLISH.get(name)
        if name not in NAMES or name in shares or not re.fullmatch(r"(\d{1,2}|100) %", number):
            return None
        shares[name] = int(number.partition(" ")[0]) / 100
    absent = _names(match[2], language)
    if absent is None or set(absent) & set(shares):
        return None
    return Said(match[3] in ("worth", "具有"), frozenset(shares), shares)


def _names(text: str, language: str) -> list[str] | None:
    """Names of a list, each once; None where one is no mineral of the map."""
    if text in ("none", "无"):
        return []
    names = text.split(", ") if language == "en" else [ENGLISH.get(name, "") for name in text.split("、")]
    return names if set(names) <= set(NAMES) and len(set(names)) == len(names) else None
