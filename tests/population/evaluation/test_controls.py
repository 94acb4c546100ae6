"""Wrong, blank and no image: what is left of a model then, and that it never reads names or order."""

import numpy as np
import pandas as pd
import pytest
import torch

from src.core.models import chat
from src.population.data.stage_inputs import read_split
from src.population.evaluation.controls import control_predictions, swapped_tiles
from src.population.models import model_folder, prompts
from src.population.models.inference import NEVER_ANSWERED, Reader, parsed
from src.population.models.model_folder import assemble, load
from tests.population.conftest import begin, small_params
from tests.population.covaried import GDP, with_gdp
from tests.tiles import write_store

FAMILIES = ["qwen2_vl", "qwen2_5_vl", "qwen3_vl"]
EVALUATE = small_params().evaluate
COLUMNS = ["head_swapped", "text_swapped", "head_blank", "text_blank", "head_prompt_only", "text_prompt_only"]


@pytest.fixture
def folder_of(study, tmp_path):
    """`folder_of(changes)` -> model folder with large untrained weights, so that everything matters."""

    def folder_of(changes, study=study):
        start = begin(small_params({"sft.head": "mlp", "seed": 1} | changes), study)
        torch.manual_seed(0)
        model = assemble(start.vlm, start.settings)
        with torch.no_grad():
            for p in model.vlm.parameters():
                if p.ndim > 1:
                    p.mul_(6)
            torch.nn.init.normal_(model.head.net[-1].weight)  # an anchored head would start at zero
        folder = tmp_path / "model"
        folder.mkdir()
        model_folder.save(folder, model, start.tokenizer, start.settings, base=folder)
        return folder

    return folder_of


@pytest.fixture
def rows(split_of):
    """Eight test rows of two years, with an index that is no position."""
    rows = split_of.rows("test").head(8)
    return rows.assign(year=[2020, 2021] * 4).set_index(pd.Index(range(100, 108)))


def panel(places, years):
    rows = pd.DataFrame([{"province": "P", "city": f"C{p}", "year": y} for y in years for p in range(places)])
    return rows.assign(tile=range(len(rows)))


def test_every_place_gets_another_places_tile_of_its_year():
    rows = panel(7, (2000, 2010, 2020))
    donors = swapped_tiles(rows, seed=3)
    assert sorted(donors) == rows.tile.tolist() and (donors != rows.tile).all()
    assert (rows.year.to_numpy() == rows.year[donors].to_numpy()).all()
    by_year = donors.reshape(3, 7) % 7
    assert len({tuple(year) for year in by_year}) > 1, "each year is drawn by itself"
    assert (swapped_tiles(rows, 3) == donors).all() and (swapped_tiles(rows, 4) != donors).any()
    mixed = rows.sample(frac=1, random_state=0)
    assert (swapped_tiles(mixed, 3) == donors[mixed.index]).all(), "whatever the order of rows"
    assert (swapped_tiles(mixed.iloc[:0], 3) == []).all()


def test_a_place_alone_in_its_year_has_nobody_to_swap_with():
    rows = pd.concat([panel(2, (2000,)), panel(1, (2010,)).assign(tile=9)])
    assert swapped_tiles(rows, 0).tolist() == [1, 0, -1]


def ids_without_image(tokenizer, text):
    markers = tokenizer(f"{chat.IM_START}user\n")["input_ids"]
    end = tokenizer(f"{chat.IM_END}\n{chat.IM_START}assistant\n")["input_ids"]
    return [*markers, *chat.encode_text(tokenizer, text), *end]


def greedy(vlm, tokenizer, ids, **vision):
    """Token by token with the whole model, without cache."""
    never, end, answer = tokenizer.convert_tokens_to_ids(NEVER_ANSWERED), tokenizer.eos_token_id, []
    longest = len(chat.encode_answer(tokenizer, prompts.answer(-9999.99, "zh")))
    image = tokenizer.convert_tokens_to_ids(chat.IMAGE_PAD)
    while len(answer) < longest and (not answer or answer[-1] != end):
        read = torch.tensor([ids + answer])
        kinds = {"mm_token_type_ids": (read == image).long()} if vision else {}
        with torch.no_grad():
            scores = vlm(input_ids=read, attention_mask=torch.ones_like(read), **kinds, **vision).logits[0, -1]
        scores[never] = -torch.inf
        answer.append(int(scores.argmax()))
    return tokenizer.decode(answer, skip_special_tokens=True)


@pytest.mark.parametrize("family", FAMILIES)
def test_no_image_and_a_blank_one_are_what_the_whole_model_makes_of_them(folder_of, store, rows, family):
    folder = folder_of({"model.family": family, "prompt.fields": ["city", "year"]})
    rows = rows.assign(city=["a", "a much longer name", "b", "a"] * 2)  # prompts of different lengths, padded
    found = control_predictions(folder, store, rows, EVALUATE, seed=0)
    assert list(found) == COLUMNS and len(found) == len(rows)
    model, tokenizer, settings = load(folder)
    images = torch.zeros(1, 8, 16, 16)
    vision = {"pixel_values": images.reshape(64, 32), "image_grid_thw": torch.tensor([[1, 8, 8]])}
    readers = {image: Reader(*load(folder), store, 3, image) for image in ("none", "blank")}
    for place, row in enumerate(rows.itertuples()):
        text = prompts.fill(settings.prompt, {"city": row.city, "year": row.year})
        with_image = chat.encode_prompt(tokenizer, text, 16)
        for image, ids, seen in (("none", ids_without_image(tokenizer, text), {}), ("blank", with_image, vision)):
            read = torch.tensor([ids])
            marker = tokenizer.convert_tokens_to_ids(chat.IMAGE_PAD)
            kinds = {"mm_token_type_ids": (read == marker).long()} if seen else {}
            with torch.no_grad():
                hidden = model.vlm.model(input_ids=read, **kinds, **seen).last_hidden_state
                value = model.head(hidden, torch.ones_like(read), None, settings.label.mean)[0]
            expected = float(value) * settings.label.sd + settings.label.mean
            name = {"none": "prompt_only", "blank": "blank"}[image]
            assert found[f"head_{name}"][place] == pytest.approx(expected, abs=1e-3)
            words = greedy(model.vlm, tokenizer, ids, **seen)
            assert readers[image].greedy(rows.iloc[[place]]) == [words]
            np.testing.assert_array_equal(found[f"text_{name}"][place], parsed([words], "zh")[0])
    assert found.head_prompt_only.nunique() == found.head_blank.nunique() == 4, "prompts differ by name and year"
    assert (found.head_prompt_only != found.head_blank).all()


def test_a_swapped_row_is_read_with_its_own_prompt_and_anothers_tile(folder_of, store, rows):
    folder = folder_of({"prompt.fields": ["city"]})
    rows.loc[107, "year"] = 1990  # alone
    found = control_predictions(folder, store, rows, EVALUATE, seed=0)
    donors = swapped_tiles(rows, 0)
    reader = Reader(*load(folder), store, 8)
    expected = reader.head(rows.iloc[:7].assign(tile=donors[:7]))
    np.testing.assert_allclose(found.head_swapped[:7], expected, rtol=0, atol=1e-3)
    assert np.isnan(found.head_swapped[7]) and np.isnan(found.text_swapped[7])
    assert np.abs(found.head_swapped[:7] - reader.head(rows)[:7]).min() > 1e-2


@pytest.mark.parametrize("head", ["mlp", "anchored"])
def test_without_a_tile_nothing_tells_rows_apart(trained, folder_of, store, rows, head):
    """The prompt names nothing; an anchored head's ridge is told of no band means."""
    found = control_predictions(folder_of({"sft.head": head}), store, rows, EVALUATE, seed=0)
    for name in ("blank", "prompt_only"):
        assert found[f"head_{name}"].nunique() == 1 and found[f"text_{name}"].nunique(dropna=False) == 1
    assert found.head_swapped.nunique() == 8


def test_the_ridge_adds_nothing_without_a_tile(trained, store, rows):
    found = control_predictions(trained.sft, store, rows, EVALUATE, seed=0)
    model, tokenizer, settings = load(trained.sft)
    blank = Reader(model, tokenizer, settings, store, 4, "blank")
    with torch.no_grad():
        network = next(float(model(**batch)["network"][0]) for _, batch in blank.batches(rows, ""))
    assert found.head_blank[0] == pytest.approx(network * settings.label.sd + settings.label.mean)


def test_covariates_of_the_head_stay_without_a_tile(study, folder_of, store, tmp_path):
    gdp_study = with_gdp(study, tmp_path)
    folder = folder_of(GDP | {"sft.covariates": "head"}, gdp_study)
    rows = read_split(gdp_study.split, store).rows("test")
    found = control_predictions(folder, store, rows, EVALUATE, seed=0)
    assert found.head_prompt_only.nunique() == found.head_blank.nunique() == rows.gdp.nunique() > 4
    assert found.text_prompt_only.nunique(dropna=False) == 1, "the words do not read them"


def test_twice_the_same_and_whatever_the_order(folder_of, store, rows):
    folder = folder_of({"prompt.fields": ["year"]})
    first = control_predictions(folder, store, rows, EVALUATE, seed=0)
    assert control_predictions(folder, store, rows, EVALUATE, seed=0).equals(first)
    reverse = control_predictions(folder, store, rows[::-1], EVALUATE, seed=0)[::-1].reset_index(drop=True)
    pd.testing.assert_frame_equal(reverse, first, rtol=0, atol=1e-3)


def test_words_after_a_tile_and_before_it_are_the_same(folder_of, store, rows):
    """Qwen keeps position offsets of the last image it saw."""
    loaded = load(folder_of({"model.family": "qwen2_5_vl"}))
    seeing, blind = Reader(*loaded, store, 3), Reader(*loaded, store, 5, "none")
    fresh, fresh_head = blind.greedy(rows), blind.head(rows)
    texts = seeing.greedy(rows)
    assert blind.greedy(rows) == fresh and (blind.head(rows) == fresh_head).all()
    assert seeing.greedy(rows) == texts


def leaky(rows):
    """`rows` whose every name, number and coordinate is the label, beside which only the tile is left as it was."""
    label = rows.growth_rate.map("{:.4f}".format)
    named = rows.assign(tile_id=label, province=label, city=label, place=label, block=label, lat=rows.growth_rate)
    return named.assign(year=(rows.growth_rate * 1000).astype(int), sample=rows.growth_rate.rank().astype(int))


def test_a_label_in_names_and_numbers_is_not_read(folder_of, store, split_of):
    rows = split_of.rows("test")
    reader = Reader(*load(folder_of({})), store, 4)
    head, words = reader.head(rows), reader.greedy(rows)
    assert (reader.head(leaky(rows)) == head).all() and reader.greedy(leaky(rows)) == words
    grid = np.linspace(-5, 5, 3)
    assert (reader.expectation(leaky(rows), grid) == reader.expectation(rows, grid)).all()


def test_a_label_in_the_order_of_rows_and_tiles_is_not_read(folder_of, store, split_of, tmp_path):
    """Sorted by label, as rows and as tiles of the store, and in other batches."""
    rows = split_of.rows("test")
    loaded = load(folder_of({}))
    head, words = (getattr(Reader(*loaded, store, 4), name)(rows) for name in ("head", "greedy"))
    by_label = np.argsort(rows.growth_rate.to_numpy())
    order = [*rows.tile.iloc[by_label], *sorted(set(range(len(store))) - set(rows.tile))]
    moved = write_store(
        tmp_path / "moved", store.read(order), valid=store.valid(order), quantisation=store.quantisation
    )
    found = rows.iloc[by_label].assign(tile=range(len(rows)))
    for size in (1, 3, len(rows)):
        reader = Reader(*loaded, moved, size)
        np.testing.assert_allclose(reader.head(found), head[by_label], rtol=0, atol=1e-3)
        assert reader.greedy(found) == [words[place] for place in by_label]


def test_a_name_in_the_prompt_is_read(folder_of, store, split_of):
    """The comparisons above are worth something only if a name would show."""
    rows = split_of.rows("test")
    reader = Reader(*load(folder_of({"prompt.fields": ["city"]})), store, 4)
    assert (reader.head(leaky(rows)) != reader.head(rows)).all()
