"""Answers: computed from the tile, and parsed back to what they say."""

import numpy as np
import pytest

from src.minerals.data.conversations import LANGUAGES, QUESTIONS, TASKS, answer, known, parse, unknown
from src.minerals.data.tile_table import is_altered
from src.minerals.mapping.minerals import NAMES


def drawn(seed: int) -> np.ndarray:
    generator = np.random.default_rng(seed)
    shares = generator.dirichlet([0.2] * 8) * generator.uniform(0, 1)
    return shares * (generator.random(8) < 0.5)


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("task", TASKS)
def test_every_answer_is_parsed_back_to_the_tile(task, language):
    for seed in range(200):
        shares = drawn(seed)
        said = parse(answer(task, language, shares, 0.1, 0.02), task, language)
        names = frozenset(name for name, share in zip(NAMES, shares, strict=True) if share >= 0.02)
        if task != "minerals":
            assert said.altered == is_altered(shares, 0.1)
        if task != "alteration":
            assert said.minerals == names
        if task == "analysis":
            assert said.shares == {name: pytest.approx(shares[NAMES.index(name)], abs=0.0051) for name in names}


def test_the_wording_of_answers():
    shares = np.zeros(8)
    shares[[2, 1]] = 0.2, 0.146
    assert answer("alteration", "en", shares, 0.1, 0.02) == "Yes. Copper-related minerals cover 35 %."
    assert answer("minerals", "zh", shares, 0.1, 0.02) == "高岭石、白云母。"
    assert answer("analysis", "en", shares, 0.1, 0.02) == (
        "Minerals: kaolinite 15 %, muscovite 20 %. Not found: alunite, montmorillonite, buddingtonite, calcite, "
        "chlorite, epidote. Main zone: phyllic alteration; worth a closer look for copper."
    )
    nothing = np.zeros(8)
    assert answer("minerals", "en", nothing, 0.1, 0.02) == "none."
    assert answer("alteration", "zh", nothing, 0.1, 0.02) == "否。与铜有关的矿物占0 %。"


@pytest.mark.parametrize(
    ("text", "task", "language"),
    [
        ("", "alteration", "en"),
        ("Yes", "alteration", "en"),
        ("Yes. Copper-related minerals cover 135 %.", "alteration", "en"),
        ("Yes. Copper-related minerals cover 35 %. And more.", "alteration", "en"),
        ("yes. Copper-related minerals cover 35 %.", "alteration", "en"),
        ("是。与铜有关的矿物占35 %。", "alteration", "en"),
        ("quartz.", "minerals", "en"),
        ("kaolinite, kaolinite.", "minerals", "en"),
        ("kaolinite", "minerals", "en"),
        ("none, kaolinite.", "minerals", "en"),
        ("高岭石，明矾石。", "minerals", "zh"),
        ("Minerals: kaolinite 20 %. Not found: kaolinite. Main zone: x; no sign of copper.", "analysis", "en"),
        ("Minerals: quartz 20 %. Not found: none. Main zone: x; no sign of copper.", "analysis", "en"),
        ("Minerals: kaolinite. Not found: none. Main zone: x; no sign of copper.", "analysis", "en"),
    ],
)
def test_an_answer_of_another_form_says_nothing(text, task, language):
    assert parse(text, task, language) is None


def test_every_task_has_several_questions_in_each_language():
    for task in TASKS:
        for language in LANGUAGES:
            assert len(set(QUESTIONS[task, language])) >= 3


def test_a_question_is_known_whatever_its_case_spaces_and_last_mark():
    for (_, language), asked in QUESTIONS.items():
        for question in asked:
            for form in (question, question.upper(), f"  {question.rstrip('?？.。')} ", question.replace(" ", "  ")):
                assert known(form, ["en", "zh"]) == known(form, [language]) == question
            assert known(question, [one for one in LANGUAGES if one != language]) is None
    for other in ("", "?", "minerals", "Which alteration minerals does this area hold? And where?"):
        assert known(other, ["en", "zh"]) is None


@pytest.mark.parametrize(
    ("question", "languages", "first", "listed"),
    [("Gold?", ["en", "zh"], "'Gold?' is none", "en"), ("金？", ["en", "zh"], "模型不认识", "zh"),
     ("金？", ["en"], "模型不认识", "en"), ("Gold?", ["zh"], "'Gold?' is none", "zh")],
)  # fmt: skip
def test_what_can_be_asked_is_listed_in_the_questions_language_where_the_model_knows_it(
    question, languages, first, listed
):
    head, *lines = unknown(question, languages).splitlines()
    assert head.startswith(first)
    assert lines == [f"  {one}" for task in TASKS for one in QUESTIONS[task, listed]]
