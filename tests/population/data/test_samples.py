"""Training batches: every label with its own tile, and randomness that no batch layout changes."""

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from src.core.data.augment import orient
from src.core.models import chat
from src.core.models.patches import unpatchify
from src.core.stage.errors import DataError
from src.core.training.driver import ready
from src.population.data.samples import GrowthSamples, Prompter, covariate_settings
from src.population.data.stage_inputs import read_split
from src.population.models import prompts
from src.population.models.model_folder import load
from tests.population.conftest import CONTROL, begin, small_params
from tests.population.covaried import GDP, with_columns, with_gdp
from tests.tiles import write_store


@pytest.fixture
def make(store, study, split_of):
    """`make(augment, changes)` -> samples of the training rows."""

    def make(augment=True, changes=None, rows=None, seed=0, study=study):
        params = small_params(changes)
        start = begin(params, study)
        vlm, tokenizer, settings = start.vlm, start.tokenizer, start.settings
        prompter = Prompter(tokenizer, settings, vlm.config.vision_config)
        return GrowthSamples(store, split_of.rows("train") if rows is None else rows, prompter, seed, augment)

    return make


def test_each_row_holds_its_own_tile_prompt_answer_and_target(make, store, split_of):
    samples = make()
    train = split_of.rows("train")
    assert (train["sample"] != train.tile).any(), "or a mix-up would not show"
    batch = samples.__getitems__([4, 0, 9])
    for place, index in enumerate([4, 0, 9]):
        row = train.loc[index]
        np.testing.assert_array_equal(batch["tiles"][place].numpy(), store.view(row.tile))
        np.testing.assert_array_equal(batch["valid"][place].numpy(), store.valid([row.tile])[0])
        label = samples.targets.new_tensor((row.growth_rate - train.growth_rate.mean()) / train.growth_rate.std(ddof=0))
        torch.testing.assert_close(batch["target"][place], label)
        ids, answered = batch["input_ids"][place], batch["labels"][place] != -100
        text = samples.tokenizer.decode(ids[answered])
        assert text == prompts.answer(row.growth_rate, "zh") + chat.IM_END
        assert (batch["prompt_mask"][place].bool() ^ answered).equal(batch["attention_mask"][place].bool())
        assert torch.equal(batch["labels"][place][answered], ids[answered])


def test_rows_in_another_order_keep_their_label(make, split_of):
    train = split_of.rows("train")
    shuffled = train.sample(frac=1, random_state=1)
    straight, mixed = make(rows=train), make(rows=shuffled)
    for place in range(5):
        one = straight[train.index[train["sample"] == shuffled["sample"].iloc[place]][0]]
        for name, value in mixed[place].items():
            assert torch.equal(value, one[name]), name


def test_a_batch_is_the_sum_of_its_rows(make):
    """Padding aside, a row is the same whatever stands beside it."""
    samples = make()
    samples.set_epoch(3)
    together = samples.__getitems__([5, 1, 8, 2])
    for place, index in enumerate([5, 1, 8, 2]):
        alone = samples[index]
        for name in ("tiles", "valid", "target", "orientation"):
            assert torch.equal(together[name][place], alone[name][0]), name
        length = alone["input_ids"].shape[1]
        for name in ("input_ids", "labels", "prompt_mask", "mm_token_type_ids"):
            assert torch.equal(together[name][place, :length], alone[name][0]), name
        assert not together["attention_mask"][place, length:].any()


def turns(samples, epoch):
    samples.set_epoch(epoch)
    return samples.__getitems__(list(range(len(samples))))["orientation"]


def test_orientation_is_a_function_of_seed_epoch_and_sample(make, split_of):
    samples = make()
    first, second = turns(samples, 0), turns(samples, 1)
    assert set(first.tolist()) | set(second.tolist()) == set(range(8))
    assert not torch.equal(first, second)
    assert torch.equal(turns(samples, 0), first), "whatever was drawn in between"
    assert not torch.equal(turns(make(seed=1), 0), first)
    later = split_of.rows("train").iloc[7:]
    assert torch.equal(turns(make(rows=later), 0), first[7:]), "keyed on the sample, not on its place"
    assert "orientation" not in make(augment=False)[0]


def test_workers_change_nothing(make):
    samples = make()
    samples.set_epoch(2)

    def load(workers, size):
        loader = DataLoader(samples, batch_size=size, collate_fn=ready, num_workers=workers)
        return torch.cat([batch["orientation"] for batch in loader])

    assert torch.equal(load(0, 8), load(2, 5))


def test_the_model_turns_each_tile_as_drawn(make, trained):
    samples = make()
    model = load(trained.sft)[0]
    batch = samples.__getitems__([0, 1, 2])
    turned, _ = model.vision_inputs(batch["tiles"], batch["valid"], batch["orientation"])
    patches = turned["pixel_values"].view(3, 64, 8, 2, 2)
    expected = orient(model.front(batch["tiles"], batch["valid"]), batch["orientation"])
    assert batch["orientation"].any()
    assert torch.equal(unpatchify(patches, 16, 16), expected)


@pytest.fixture(scope="module")
def gdp_study(study, tmp_path_factory):
    return with_gdp(study, tmp_path_factory.mktemp("gdp"))


@pytest.fixture(scope="module")
def gdp_split(gdp_study, store):
    return read_split(gdp_study.split, store)


PROMPT = GDP | {"sft.covariates": "prompt"}


def test_the_prompt_names_what_it_may_and_control_tokens_stay_text(make, gdp_study, gdp_split):
    changes = PROMPT | {"prompt.fields": ["province", "city", "year"]}
    rows = gdp_split.rows("train")
    rows.loc[3, ["province", "city"]] = CONTROL, f"{CONTROL}{chat.IMAGE_PAD}"
    samples = make(changes=changes, rows=rows, study=gdp_study)
    marker = samples.tokenizer.convert_tokens_to_ids(chat.IM_START)
    for index in (3, 8):
        row, ids = rows.loc[index], samples.prompts[index]
        value = f"{row.gdp:.0f}" if row.gdp.is_integer() else str(row.gdp)
        said = f"省份：{row.province}；城市：{row.city}；年份：2020；gdp：{value}。根据"
        assert said in samples.tokenizer.decode(ids)
        assert ids.count(marker) == 2, "user and assistant, nothing from data"
        assert ids.count(samples.tokenizer.convert_tokens_to_ids(chat.IMAGE_PAD)) == 16


def test_without_fields_the_prompt_holds_no_name_and_no_year(make, split_of):
    samples = make()
    (said,) = {samples.tokenizer.decode(ids) for ids in samples.prompts}
    rows = split_of.samples
    assert "卫星" in said and not any(str(name) in said for name in {*rows.city, *rows.province, *rows.year})


def test_names_and_numbers_of_rows_and_tiles_reach_no_batch(make, split_of):
    """A label written into file names, places' names, coordinates or blocks cannot be learnt."""
    rows = split_of.rows("train")
    label = rows.growth_rate.map("{:.4f}".format)
    named = rows.assign(tile_id=label, city=label, province=label, place=label, block=label, year=rows.growth_rate)
    named = named.assign(**{name: rows.growth_rate for name in ("lat", "lon") if name in rows})
    everything = list(range(len(rows)))
    batch, same = make(rows=rows).__getitems__(everything), make(rows=named).__getitems__(everything)
    assert batch.keys() == same.keys()
    assert all(torch.equal(value, same[name]) for name, value in batch.items())
    assert (
        make(rows=named, changes={"prompt.fields": ["city"]}).prompts
        != make(rows=rows, changes={"prompt.fields": ["city"]}).prompts
    ), "or the comparison would be worth nothing"


def test_rows_without_what_the_model_reads_are_refused(make, gdp_study, gdp_split):
    rows = gdp_split.rows("train")
    for use in ("prompt", "head"):
        with pytest.raises(DataError, match=r"no column 'gdp', which the model reads \(data\.covariates"):
            make(changes=GDP | {"sft.covariates": use}, rows=rows.drop(columns="gdp"), study=gdp_study)
        blank = rows.assign(gdp=[None, 5.5, None, *[5.0] * (len(rows) - 3)])
        with pytest.raises(DataError, match=r"P\d/C\d\d/2020: gdp: found a blank \(2 such rows\)"):
            make(changes=GDP | {"sft.covariates": use}, rows=blank, study=gdp_study)


def test_whole_numbers_read_alike(make, gdp_study, gdp_split):
    """One fractional value elsewhere makes a column float: 5 must not become 5.0 for it."""
    rows = gdp_split.rows("train")
    whole = make(changes=PROMPT, rows=rows.assign(gdp=5), study=gdp_study)
    assert make(changes=PROMPT, rows=rows.assign(gdp=5.0), study=gdp_study).prompts == whole.prompts


def test_the_head_gets_covariates_standardised_on_training_rows(make, gdp_study, gdp_split):
    train, test = gdp_split.rows("train"), gdp_split.rows("test")
    for use in ("head", "both"):
        samples = make(changes=GDP | {"sft.covariates": use}, study=gdp_study, rows=test)
        expected = (test.gdp - train.gdp.mean()) / train.gdp.std(ddof=0)
        batch = samples.__getitems__([2, 0])
        np.testing.assert_allclose(batch["covariates"][:, 0], expected[[2, 0]], rtol=1e-6)
        assert batch["covariates"].dtype == torch.float32 and batch["covariates"].shape == (2, 1)
    assert "covariates" not in make(changes=PROMPT, study=gdp_study, rows=test)[0]


def test_settings_say_all_that_a_covariate_needs(gdp_split, store, study, tmp_path):
    split = read_split(with_columns(study, tmp_path, gdp_lag2=range(48), area_lag2=np.arange(48.0) ** 2).split, store)
    split.facts["step_years"] = 10
    changes = {"data.covariates": ["gdp", "area"], "data.covariate_lag": 2, "sft.covariates": "both"}
    found = covariate_settings(small_params(changes), split).model_dump()
    train = split.rows("train")
    assert found.pop("mean") == pytest.approx([train.gdp_lag2.mean(), train.area_lag2.mean()])
    assert found.pop("sd") == pytest.approx([train.gdp_lag2.std(ddof=0), train.area_lag2.std(ddof=0)])
    columns = {"columns": ["gdp_lag2", "area_lag2"], "names": ["gdp", "area"]}
    assert found == columns | {"lag_years": 20, "use": "both"}
    assert covariate_settings(small_params(GDP), gdp_split).columns == [], "sft.covariates: none reads none"


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({}, r"no column 'gdp', expected that of 'gdp' in data\.covariates; .* run preprocess again"),
        ({"gdp": "7"}, r"gdp: found '7', expected numbers"),
        ({"gdp": 7.5}, r"gdp: found 7\.5 in all \d+ training rows, expected values that differ"),
    ],
)
def test_a_covariate_that_says_nothing_is_refused(study, store, tmp_path, columns, message):
    split = read_split(with_columns(study, tmp_path, **columns).split, store)
    with pytest.raises(DataError, match=message):
        covariate_settings(small_params(PROMPT), split)


def test_a_lag_in_a_panel_of_one_year_is_refused(study, store, tmp_path):
    split = read_split(with_columns(study, tmp_path, gdp_lag1=range(48)).split, store)
    changes = {"data.covariates": ["gdp"], "data.covariate_lag": 1, "sft.covariates": "head"}
    with pytest.raises(DataError, match=r"step_years: found none, .*set data\.covariate_lag: 0"):
        covariate_settings(small_params(changes), split)


def test_permuted_labels_are_those_of_other_places_and_test_keeps_its_own(split_of):
    null = split_of.permuted(seed=0, draw=1)
    assert null.facts == split_of.facts
    for role in ("train", "validation"):
        truth, drawn = split_of.rows(role).growth_rate, null.rows(role).growth_rate
        assert (truth != drawn).all() and sorted(truth) == pytest.approx(sorted(drawn))
    assert null.rows("test").equals(split_of.rows("test"))
    others = [column for column in split_of.samples if column != "growth_rate"]
    assert null.samples[others].equals(split_of.samples[others])
    again, second = split_of.permuted(0, 1), split_of.permuted(0, 2)
    assert again.samples.equals(null.samples) and not second.samples.equals(null.samples)
    assert split_of.permuted(0, 0) is split_of


def test_a_permuted_store_gives_the_same_samples(make, store, split_of, tmp_path):
    order = np.random.default_rng(0).permutation(len(store))
    moved = write_store(
        tmp_path / "moved", store.read(order), valid=store.valid(order), quantisation=store.quantisation
    )
    train = split_of.rows("train")
    rows = train.assign(tile=np.argsort(order)[train.tile])
    straight, mixed = make(), make(rows=rows)
    mixed.store = moved
    batch = mixed.__getitems__([0, 3, 11])
    for name, value in batch.items():
        assert torch.equal(value, straight.__getitems__([0, 3, 11])[name]), name
