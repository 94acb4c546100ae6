"""Training batches: every label with its own tile, and randomness that no batch layout changes."""

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from src.core import chat
from src.core.augment import orient
from src.core.errors import DataError
from src.core.patches import unpatchify
from src.population import prompts
from src.population.model import load
from src.population.samples import GrowthSamples, Prompter, identity
from tests.population.conftest import CONTROL, begin, small_params
from tests.tiles import write_store


@pytest.fixture
def make(store, study, split_of):
    """`make(augment, changes)` -> samples of the training rows."""

    def make(augment=True, changes=None, rows=None, seed=0):
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
        loader = DataLoader(samples, batch_size=size, collate_fn=identity, num_workers=workers)
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


def test_the_prompt_names_year_and_covariate_and_control_tokens_stay_text(make, split_of):
    changes = {"sft.template": "{year}年，{note}，多少？", "sft.covariates": ["note"]}
    samples = make(changes=changes)
    rows = split_of.rows("train")
    marker = samples.tokenizer.convert_tokens_to_ids(chat.IM_START)
    for index in (int((rows.note == CONTROL).argmax()), int((rows.note == "coast").argmax())):
        ids = samples.prompts[index]
        assert f"2020年，{rows.note[index]}，多少？" in samples.tokenizer.decode(ids)
        assert ids.count(marker) == 2, "user and assistant, nothing from data"
        assert ids.count(samples.tokenizer.convert_tokens_to_ids(chat.IMAGE_PAD)) == 16


def test_rows_without_the_covariate_are_refused(make, split_of):
    changes = {"sft.template": "{note}", "sft.covariates": ["note"]}
    with pytest.raises(DataError, match=r"no column 'note', which sft\.covariates names; found"):
        make(changes=changes, rows=split_of.rows("train").drop(columns="note"))


def test_a_blank_covariate_is_refused_and_whole_numbers_read_alike(make, split_of):
    rows = split_of.rows("train")
    changes = {"sft.template": "{gdp}", "sft.covariates": ["gdp"]}
    with pytest.raises(DataError, match=r"P\d/C\d\d/2020: gdp: found a blank \(2 such rows\)"):
        make(changes=changes, rows=rows.assign(gdp=[None, 5.5, None, *[5.0] * (len(rows) - 3)]))
    # One fractional value elsewhere makes a column float: 5 must not become 5.0 for it.
    whole = make(changes=changes, rows=rows.assign(gdp=5))
    assert make(changes=changes, rows=rows.assign(gdp=5.0)).prompts == whole.prompts


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
    assert batch.pop("tile").tolist() == rows.tile.iloc[[0, 3, 11]].tolist()
    for name, value in batch.items():
        assert torch.equal(value, straight.__getitems__([0, 3, 11])[name]), name
