"""The regression head and the loss: what reaches them and what must not."""

import numpy as np
import pytest
import torch

from src.core.baselines import regression
from src.core.data.augment import orient
from src.core.models import chat
from src.core.models.patches import band_means
from src.population.data.samples import GrowthSamples, Prompter
from src.population.data.stage_inputs import read_split
from src.population.models.growth_model import RegressionHead, Ridge
from src.population.models.model_folder import assemble
from tests.population.conftest import begin, small_params
from tests.population.covaried import GDP, with_gdp

FAMILIES = ["qwen2_vl", "qwen2_5_vl", "qwen3_vl"]


@pytest.fixture
def make(store, study):
    """`make(head, family, weights)` -> model at its start, training samples and prompter, nothing trained."""

    def make(head="anchored", family="qwen2_5_vl", weights=(1.0, 1.0), changes=None, study=study):
        params = small_params({"sft.head": head, "model.family": family} | (changes or {}))
        start = begin(params, study)
        vlm, tokenizer, settings = start.vlm, start.tokenizer, start.settings
        torch.manual_seed(0)
        model = assemble(vlm, settings, weights).eval()
        prompter = Prompter(tokenizer, settings, vlm.config.vision_config)
        rows = read_split(study.split, store).rows("train")
        return model, GrowthSamples(store, rows, prompter, seed=0, augment=False), settings

    return make


@pytest.mark.parametrize("family", FAMILIES)
def test_the_answer_does_not_reach_the_head(make, family):
    model, samples, _ = make("mlp", family)
    batch = samples.__getitems__([0, 1, 2])
    with torch.no_grad():
        before = model(**batch)
        answered = batch["labels"] != -100
        assert answered.sum(1).min() > 3
        batch["input_ids"] = torch.where(answered, (batch["input_ids"] + 7) % 200 + 10, batch["input_ids"])
        after = model(**batch)
        assert torch.equal(before["prediction"], after["prediction"])
        assert not torch.equal(before["cross_entropy"], after["cross_entropy"])
        prompted = batch["input_ids"].clone()
        prompted[:, -1 - int(answered.sum(1).max())] += 1  # the last prompt token
        assert not torch.equal(model(**batch | {"input_ids": prompted})["prediction"], after["prediction"])


def test_the_anchored_head_starts_at_the_baseline(make, store, split_of):
    model, samples, settings = make("anchored")
    train, validation = split_of.rows("train"), split_of.rows("validation")
    means = {role: regression.band_summaries(store, part.tile.to_numpy(), 16)[:, 0] for role, part in
             (("train", train), ("validation", validation))}  # fmt: skip
    y = {"train": train.growth_rate.to_numpy(), "validation": validation.growth_rate.to_numpy()}
    checked = means["validation"], y["validation"]
    ridge = regression.fit_ridge(means["train"], y["train"], checked)
    assert settings.head.ridge.alpha == ridge.alpha
    with torch.no_grad():
        out = model(**samples.__getitems__(list(range(len(train)))))
    assert not out["network"].any()
    predicted = out["prediction"].double().numpy() * settings.label.sd + settings.label.mean
    expected = ridge.predict(means["train"])
    assert expected.std() > 3
    np.testing.assert_allclose(predicted, expected, rtol=0, atol=1e-6)


def test_the_network_of_an_anchored_head_gets_gradient_and_adds_up(make):
    model, samples, settings = make("anchored")
    batch = samples.__getitems__([3, 4])
    model(**batch)["loss"].backward()
    assert model.head.net[-1].weight.grad.any(), "the zero layer must be able to leave zero"
    with torch.no_grad():
        start = model(**batch)["prediction"]
        model.head.net[-1].bias.fill_(0.5)
        out = model(**batch)
    torch.testing.assert_close(out["network"], torch.full((2,), 0.5))
    torch.testing.assert_close(out["prediction"], start + 0.5)
    assert settings.head.kind == "anchored"


def test_an_mlp_head_knows_no_ridge(make):
    model, samples, settings = make("mlp")
    assert settings.head.ridge is None
    with torch.no_grad():
        out = model(**samples.__getitems__([0, 1, 2, 3]))
    assert out["network"].any() and torch.equal(out["network"], out["prediction"])


def test_flips_and_rotations_leave_the_band_means_alone(make, store):
    model, _, _ = make()
    tiles, valid = torch.from_numpy(store.read([0, 5, 7])), torch.from_numpy(store.valid([0, 5, 7]))
    assert not valid[:2].all(), "with no data in view"
    straight, means = model.vision_inputs(tiles, valid)
    for k in range(8):
        turns = torch.tensor([k, 0, k])
        turned, same = model.vision_inputs(tiles, valid, turns)
        assert torch.equal(same, means)
        assert torch.equal(turned["pixel_values"], straight["pixel_values"]) == (k == 0)
        values = orient(model.front.dequantise(tiles, valid)[0], turns)
        torch.testing.assert_close(band_means(values, orient(valid, turns)), means)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_loss_is_transformers_own_beside_the_squared_error(make, family):
    model, samples, _ = make("mlp", family, weights=(0.7, 0.2))
    batch = samples.__getitems__([0, 1, 2, 3, 4])
    with torch.no_grad():
        out = model(**batch)
        vision, _ = model.vision_inputs(batch["tiles"], batch["valid"])
        names = ("input_ids", "attention_mask", "mm_token_type_ids", "labels")
        theirs = model.vlm(**{name: batch[name] for name in names}, **vision)
    squared = ((out["prediction"] - batch["target"]) ** 2).mean()
    torch.testing.assert_close(out["loss"], 0.7 * theirs.loss + 0.2 * squared)
    log_probs = theirs.logits.log_softmax(-1)
    for row in range(5):
        at = (batch["labels"][row] != -100).nonzero()[:, 0]
        own = -log_probs[row, at - 1, batch["labels"][row, at]].mean()
        torch.testing.assert_close(out["cross_entropy"][row], own)


def test_a_batch_without_an_answer_has_a_prediction_and_no_loss(make):
    model, samples, _ = make("mlp")
    indices = [0, 1]
    batch = chat.pad_batch([samples.prompts[i] for i in indices], None, samples.tokenizer)
    with_answer = samples.__getitems__(indices)
    with torch.no_grad():
        out = model(with_answer["tiles"], with_answer["valid"], **batch)
        expected = model(**with_answer)["prediction"]
    assert set(out) == {"prediction", "network"}
    torch.testing.assert_close(out["prediction"], expected, rtol=0, atol=1e-5)


def test_a_swapped_tile_moves_its_own_row_alone(make, store):
    model, samples, _ = make("mlp")
    batch = samples.__getitems__([0, 1, 2, 3])
    with torch.no_grad():
        before = model(**batch)
        batch["tiles"][2] = torch.from_numpy(store.read([store.samples.tile.iloc[-1]]))[0]
        after = model(**batch)
    for name in ("prediction", "cross_entropy"):
        moved = (before[name] - after[name]).abs()
        assert moved[2] > 1e-4 and moved[[0, 1, 3]].max() == 0, name


@pytest.mark.parametrize("head", ["mlp", "anchored"])
def test_covariates_move_their_own_row_and_get_gradient(make, study, tmp_path, head):
    gdp_study = with_gdp(study, tmp_path)
    model, samples, _ = make(head, changes=GDP | {"sft.covariates": "head"}, study=gdp_study)
    batch = samples.__getitems__([0, 1, 2, 3])
    with torch.no_grad():
        torch.nn.init.normal_(model.head.net[-1].weight)  # an anchored head starts at zero
        before = model(**batch)
        batch["covariates"][2] += 1
        after = model(**batch)
    moved = (before["prediction"] - after["prediction"]).abs()
    assert moved[2] > 1e-3 and moved[[0, 1, 3]].max() == 0
    assert torch.equal(before["cross_entropy"], after["cross_entropy"]), "words read them in the prompt alone"
    model(**batch)["loss"].backward()
    assert model.head.net[1].weight.grad[:, -1].any()


def test_covariates_join_after_the_norm():
    """So that a hidden state of large spread does not drown them."""
    torch.manual_seed(0)
    head = RegressionHead(6, 4, 0.0, None, label_sd=1.0, covariates=2).eval()
    hidden, mask = torch.randn(3, 5, 6), torch.ones(3, 5)
    given = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, -2.0]])
    with torch.no_grad():
        found = head(hidden, mask, None, 0.0, given)[0]
        same = head(hidden * 1e4, mask, None, 0.0, given)[0]
        norm, linear, last = head.net[0](hidden.mean(1)), head.net[1], head.net[4]
        inner = norm @ linear.weight[:, :6].T + given @ linear.weight[:, 6:].T + linear.bias
        expected = last(torch.nn.functional.gelu(inner))[:, 0]
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(found, same, rtol=0, atol=1e-4)


def test_ridge_says_the_training_mean_where_band_means_are_unknown(make, store, split_of):
    ridge = Ridge(weight=[1.0, 2.0], intercept=3.0, alpha=1.0)
    head = RegressionHead(6, 4, 0.0, ridge, label_sd=2.0).eval()
    hidden, mask = torch.randn(2, 5, 6), torch.ones(2, 5)
    means = torch.tensor([[1.0, 1.0], [torch.nan, torch.nan]])
    with torch.no_grad():
        assert head(hidden, mask, means, 1.0)[0].tolist() == [2.5, 0.0]  # (1 + 2 + 3 - 1) / 2; training mean
        assert head(hidden, mask, None, 1.0)[0].tolist() == [0.0, 0.0]
    # It is what ridge predicts of the mean of its training rows.
    settings = make("anchored")[2]
    train = split_of.rows("train")
    mean = regression.band_summaries(store, train.tile.to_numpy(), 16)[:, 0].mean(axis=0)
    assert mean @ settings.head.ridge.weight + settings.head.ridge.intercept == pytest.approx(settings.label.mean)
    model = make("anchored")[0]
    tiles, valid = torch.from_numpy(store.read([0, 5])), torch.from_numpy(store.valid([0, 5]))
    valid[1] = False
    assert model.vision_inputs(tiles, valid)[1].isnan().all(1).tolist() == [False, True]
