"""Reading answers out of a model: each short cut against the long way round."""

import numpy as np
import pytest
import torch

from src.core.models import chat
from src.population.models import model_folder, prompts
from src.population.models.inference import KeyedSampling, Reader, group_predictions, mean_of_parsed, parsed
from src.population.models.model_folder import assemble
from tests.population.conftest import begin, small_params

FAMILIES = ["qwen2_vl", "qwen2_5_vl", "qwen3_vl"]
CITIES = ["", "coast", "a much longer name, 12 34", "x"]


@pytest.fixture
def rows(split_of):
    """Seven test rows whose names, which the prompt holds, are of different lengths."""
    rows = split_of.rows("test").head(7)
    return rows.assign(city=[CITIES[i % 4] for i in range(7)])


@pytest.fixture
def make(store, study, split_of):
    """`make(family, batch_size)` -> Reader of an untrained model with large weights, so that everything matters."""

    def make(family="qwen2_5_vl", batch_size=4):
        params = small_params(
            {"model.family": family, "sft.head": "mlp", "sft.template": "{city}?", "prompt.fields": ["city"], "seed": 1}
        )
        start = begin(params, study)
        vlm, tokenizer, settings = start.vlm, start.tokenizer, start.settings
        with torch.no_grad():
            for p in vlm.parameters():
                if p.ndim > 1:
                    p.mul_(6)
        torch.manual_seed(0)
        return Reader(assemble(vlm, settings), tokenizer, settings, store, batch_size)

    return make


@torch.no_grad()
def full_forward(reader, row, answer):
    """(L, V) log-probabilities of one row's prompt followed by the ids `answer`, by the whole model without cache."""
    ids = torch.tensor([reader.prompter.prompts(row)[0] + answer])
    tile = row.tile.tolist()
    stored = torch.from_numpy(reader.store.read(tile)), torch.from_numpy(reader.store.valid(tile))
    vision, _ = reader.model.vision_inputs(*stored)
    image = reader.tokenizer.convert_tokens_to_ids(chat.IMAGE_PAD)
    out = reader.model.vlm(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        mm_token_type_ids=(ids == image).long(),
        use_cache=False,
        **vision,
    )
    return out.logits[0].log_softmax(-1)


def test_a_hub_folders_generation_settings_change_no_answer(make, rows):
    reader = make()
    before = reader.greedy(rows)
    reader.model.vlm.generation_config.update(
        repetition_penalty=5.0, no_repeat_ngram_size=2, num_beams=3, max_new_tokens=1
    )
    assert reader.greedy(rows) == before


def suppressed(reader):
    return [reader.tokenizer.convert_tokens_to_ids(name) for name in chat.SPECIAL_TOKENS if name != chat.IM_END]


def step_by_step(reader, row):
    answer, end = [], reader.tokenizer.convert_tokens_to_ids(chat.IM_END)
    longest = len(reader.prompter.answers([-9999.99])[0])
    while len(answer) < longest and (not answer or answer[-1] != end):
        scores = full_forward(reader, row, answer)[-1]
        scores[suppressed(reader)] = -torch.inf
        answer.append(int(scores.argmax()))
    return reader.tokenizer.decode(answer, skip_special_tokens=True)


@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_answers_are_those_of_the_full_model_step_by_step(make, rows, family):
    reader = make(family)
    texts = reader.greedy(rows)
    assert texts == [step_by_step(reader, rows.iloc[[i]]) for i in range(len(rows))]
    assert len(set(texts)) > 1, "or nothing would have been compared"


@pytest.mark.parametrize("family", FAMILIES)
def test_expectation_is_that_of_every_answer_read_in_full(make, rows, family):
    reader = make(family)
    # Answers of different lengths in tokens: a padded one must not count its padding.
    grid = np.array([-12.5, -3.0, 0.25, 4.0])
    found = reader.expectation(rows, grid)
    candidates = reader.prompter.answers(grid)
    assert len(set(map(len, candidates))) > 1
    for i in range(len(rows)):
        row, totals = rows.iloc[[i]], []
        start = len(reader.prompter.prompts(row)[0])
        for answer in candidates:
            log_probs = full_forward(reader, row, answer)[start - 1 : -1]
            totals.append(log_probs.gather(1, torch.tensor(answer)[:, None]).sum())
        weight = torch.stack(totals).double().softmax(0).numpy()
        assert found[i] == pytest.approx(weight @ grid, abs=1e-4)
    assert found.std() > 0.01


def test_a_shift_of_the_candidates_positions_would_show(make, rows):
    """The comparison above is worth something only if positions matter to this model."""
    reader = make()
    grid = np.array([-12.5, -3.0, 0.25, 4.0])
    before = reader.expectation(rows, grid)
    inner = reader.model.vlm.model
    forward = inner.forward

    def shifted(*args, position_ids=None, **kwargs):
        return forward(*args, position_ids=None if position_ids is None else position_ids + 3, **kwargs)

    inner.forward = shifted
    assert np.abs(reader.expectation(rows, grid) - before).max() > 1e-3


@pytest.mark.parametrize("family", FAMILIES)
def test_batch_size_changes_nothing(make, rows, family):
    one, many = make(family, 1), make(family, 7)
    np.testing.assert_allclose(one.head(rows), many.head(rows), rtol=0, atol=1e-4)
    assert one.greedy(rows) == many.greedy(rows)
    assert one.sampled(rows, 3, 0.7, 0.9, seed=5) == many.sampled(rows, 3, 0.7, 0.9, seed=5)
    grid = np.linspace(-5, 5, 3)
    np.testing.assert_allclose(one.expectation(rows, grid), many.expectation(rows, grid), rtol=0, atol=1e-4)


def test_samples_are_functions_of_seed_sample_and_draw(make, rows):
    reader = make()
    texts = reader.sampled(rows, 4, 1.0, 1.0, seed=5)
    assert [len(row) for row in texts] == [4] * 7
    assert all(len(set(row)) > 1 for row in texts), "draws of one row differ"
    assert reader.sampled(rows.iloc[::-1], 4, 1.0, 1.0, seed=5) == texts[::-1]
    assert reader.sampled(rows, 2, 1.0, 1.0, seed=5) == [row[:2] for row in texts]
    assert reader.sampled(rows, 4, 1.0, 1.0, seed=6) != texts


def test_little_temperature_is_greedy(make, rows):
    reader = make()
    assert [row[0] for row in reader.sampled(rows, 1, 1e-5, 1.0, seed=0)] == reader.greedy(rows)


def test_no_vision_token_is_ever_produced(make, rows):
    reader = make()
    expected = reader.greedy(rows), reader.sampled(rows, 2, 1.0, 1.0, seed=0)
    never = suppressed(reader)
    inner = reader.model.vlm.lm_head.forward

    def eager(hidden):
        logits = inner(hidden)
        logits[..., never] += 1e4
        return logits

    produced = []
    generate = reader.model.vlm.generate

    def watched(**arguments):
        produced.append(generate(**arguments)[:, arguments["input_ids"].shape[1] :])
        return torch.cat([arguments["input_ids"], produced[-1]], dim=1)

    reader.model.vlm.lm_head.forward, reader.model.vlm.generate = eager, watched
    assert (reader.greedy(rows), reader.sampled(rows, 2, 1.0, 1.0, seed=0)) == expected
    padding = reader.tokenizer.pad_token_id
    vision = torch.tensor([token for token in never if token != padding])
    assert not any(torch.isin(ids, vision).any() for ids in produced)


def test_keyed_noise_draws_from_the_filtered_softmax():
    logits = torch.tensor([2.0, 1.0, 0.5, -1.0])
    draws = 6000
    sampler = KeyedSampling(0, [(0, draw) for draw in range(draws)], temperature=0.8, top_p=0.9)
    taken = sampler(torch.zeros(draws, 1, dtype=torch.long), logits.repeat(draws, 1)).argmax(1)
    share = (logits / 0.8).softmax(0)
    assert share[:2].sum() < 0.9 < share[:3].sum(), "the nucleus is the first three"
    expected = torch.cat([share[:3] / share[:3].sum(), torch.zeros(1)])
    found = torch.bincount(taken, minlength=4) / draws
    torch.testing.assert_close(found, expected, rtol=0, atol=0.02)  # 3 standard errors
    assert found[3] == 0


def test_each_token_has_noise_of_its_own():
    sampler = KeyedSampling(0, [(0, 0), (1, 0)], temperature=1.0, top_p=1.0)
    flat = torch.zeros(2, 50)
    first, second = sampler(torch.zeros(2, 1, dtype=torch.long), flat), sampler(torch.zeros(2, 2).long(), flat)
    assert not torch.equal(first[0], first[1]) and not torch.equal(first, second)


def test_parsed_and_their_mean():
    good, bad = prompts.answer(2.5, "zh"), "about 3"
    np.testing.assert_array_equal(parsed([good, bad], "zh"), [2.5, np.nan])
    means = mean_of_parsed([[good, bad], [bad, bad], [good, prompts.answer(-0.5, "zh")]], "zh")
    np.testing.assert_array_equal(means, [2.5, np.nan, 1.0])


def test_every_group_is_that_of_its_model_and_keeps_the_order(trained, store, split_of, tmp_path):
    model, tokenizer, settings = model_folder.load(trained.sft)
    with torch.no_grad():
        for p in model.vlm.model.language_model.parameters():
            p.add_(0.3 * p.std().nan_to_num() * torch.randn(p.shape, generator=torch.Generator().manual_seed(0)))
    (tmp_path / "dpo").mkdir()
    model_folder.save(tmp_path / "dpo", model, tokenizer, settings, trained.sft)
    rows = split_of.rows("test")
    rows.index += 100
    params = small_params({"prefs.temperature": 1.5, "prefs.top_p": 0.8})
    evaluate, asked = params.evaluate, (params.evaluate, params.prefs)
    table = group_predictions(trained.sft, tmp_path / "dpo", store, rows, *asked, seed=0)
    groups = {"head", "head_after_dpo", "text", "dpo", "text_sampled", "dpo_sampled", "text_expectation"}
    assert set(table) == groups | {"dpo_expectation", "answer_text", "answer_dpo", "text_samples", "dpo_samples"}
    assert len(table) == len(rows)
    for head, answer, folder in (
        ("head", "answer_text", trained.sft),
        ("head_after_dpo", "answer_dpo", tmp_path / "dpo"),
    ):
        reader = Reader(*model_folder.load(folder), store, 64)
        np.testing.assert_array_equal(table[head], reader.head(rows))
        assert table[answer].tolist() == reader.greedy(rows)
        words = answer.removeprefix("answer_")
        drawn = reader.sampled(rows, evaluate.text_samples, 1.5, 0.8, seed=0)
        assert drawn != reader.sampled(rows, evaluate.text_samples, 0.7, 0.9, seed=0)
        numbers = np.array(table[f"{words}_samples"].tolist())
        np.testing.assert_array_equal(numbers, [parsed(texts, "zh") for texts in drawn])
        assert numbers.shape == (len(rows), evaluate.text_samples)
    assert (table["head"] != table["head_after_dpo"]).all()
    reverse = group_predictions(trained.sft, tmp_path / "dpo", store, rows[::-1], *asked, seed=0)
    np.testing.assert_allclose(reverse["text_expectation"][::-1], table["text_expectation"], rtol=0, atol=1e-4)
    assert reverse["answer_text"][::-1].tolist() == table["answer_text"].tolist()
