"""The generator: what it changes, what it reads, how it samples, and what its folder gives back."""

import json

import pytest
import safetensors.torch
import torch
from diffusers import PixArtTransformer2DModel

from src.core.stage.errors import DataError, StorageError
from src.grounding.models import denoiser
from tests.grounding.trainings import SCALING, SMALL, TILE, batch, contents, network, small

PREDICTIONS = ["sample", "v_prediction"]
STEPS = SMALL["model.train_steps"]


def predicting(kind: str):
    return network({"model.prediction": kind})


@pytest.mark.parametrize("steps", [1, 3, STEPS])
def test_a_network_that_answers_zero_leaves_the_first_guess_as_it_is(steps):
    model = network()
    for parameter in model.transformer.proj_out.parameters():
        torch.nn.init.zeros_(parameter)
    inputs = batch()
    assert torch.equal(model.sample(**inputs, steps=steps), inputs["first_guess"])


@pytest.mark.parametrize("kind", PREDICTIONS)
def test_the_residual_comes_back_from_its_own_target_at_every_step(kind):
    model, steps = predicting(kind), torch.arange(STEPS)
    residual, noise = torch.randn(2, STEPS, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    noisy = model.noisy(residual, noise, steps)
    target = model.scheduler.get_velocity(residual, noise, steps) if kind == "v_prediction" else residual
    assert model.residual_from(target, noisy, steps) == pytest.approx(residual, abs=1e-4)
    assert noisy[0] == pytest.approx(residual[0], abs=0.5), "the first step hardly changes anything"
    assert torch.equal(noisy[-1], noise[-1]), (
        "the last step is noise alone, or sampling would start from what is unseen"
    )


@pytest.mark.parametrize("kind", PREDICTIONS)
@pytest.mark.parametrize("steps", [1, 3, STEPS])
def test_sampling_gives_reflectances_from_first_to_last_step(kind, steps):
    drawn = predicting(kind).sample(**batch(), steps=steps)
    assert drawn.shape == (2, 4, TILE, TILE) and torch.isfinite(drawn).all() and drawn.min() >= 0 and drawn.max() <= 1


@pytest.mark.parametrize("kind", PREDICTIONS)
def test_sampling_that_always_hears_the_truth_ends_there(kind, monkeypatch):
    """DDIM's steps and the schedule belong together: where each prediction is right, so is the result."""
    model, inputs = predicting(kind), batch()
    truth = model.scaled(0.02 * torch.randn(2, 4, TILE, TILE, generator=torch.Generator().manual_seed(1)))

    def right(noisy, timestep, condition):
        if kind == "sample":
            return truth
        kept = model.scheduler.alphas_cumprod[timestep][:, None, None, None]
        noise = (noisy - kept.sqrt() * truth) / (1 - kept).sqrt()
        return kept.sqrt() * noise - (1 - kept).sqrt() * truth

    monkeypatch.setattr(model, "forward", right)
    expected = model.refined(inputs["first_guess"], truth)
    assert model.sample(**inputs, steps=3) == pytest.approx(expected, abs=1e-4)


def test_sampling_is_the_same_each_time_and_for_a_window_alone():
    model, inputs = network(), batch(rows=3)
    drawn = model.sample(**inputs, steps=3)
    torch.manual_seed(9)
    assert torch.equal(model.sample(**inputs, steps=3), drawn)
    alone = model.sample(**{name: values[1:2] for name, values in inputs.items()}, steps=3)
    assert alone == pytest.approx(drawn[1:2], abs=1e-5)
    other = model.sample(**inputs | {"noise": inputs["noise"].flip(0)}, steps=3)
    assert not torch.equal(other, drawn)


def test_radar_first_guess_and_holes_change_the_image():
    model, inputs = network(), batch()
    drawn, other = model.sample(**inputs, steps=3), batch(seed=1)
    for name in ("sar", "first_guess", "missing"):
        residual = model.sample(**inputs | {name: other[name]}, steps=3)
        if name == "first_guess":
            residual = residual - other[name] + inputs[name]
        assert (residual - drawn).abs().max() > 1e-5, name


def test_the_place_of_the_radar_matters():
    """Cross-attention has no order of its own: without positions a shuffled radar image would change nothing."""
    model, inputs = network(), batch()
    moved = inputs | {"sar": inputs["sar"].roll(TILE // 2, dims=3)}
    assert (model.sample(**moved, steps=3) - model.sample(**inputs, steps=3)).abs().max() > 1e-5


def test_a_network_without_radar_never_sees_it():
    model, inputs = network(sees_sar=False), batch()
    drawn = model.sample(**inputs, steps=3)
    for sar in (batch(seed=1)["sar"], torch.full_like(inputs["sar"], torch.nan)):
        assert torch.equal(model.sample(**inputs | {"sar": sar}, steps=3), drawn)
    assert sum(p.numel() for p in model.parameters()) == sum(p.numel() for p in network().parameters())


@pytest.mark.parametrize("sees_sar", [True, False])
def test_the_folder_gives_back_the_same_network(tmp_path, sees_sar):
    model, inputs = network({"model.prediction": "v_prediction"}, sees_sar), batch()
    (tmp_path / "one").mkdir(), (tmp_path / "two").mkdir()
    denoiser.save(tmp_path / "one", model, {"opt_v2": "given"})
    loaded, facts = denoiser.load(tmp_path / "one")
    assert facts["opt_v2"] == "given" and loaded.sees_sar is sees_sar and loaded.scaling == SCALING
    assert not loaded.training and loaded.tile_px == TILE
    assert torch.equal(loaded.sample(**inputs, steps=3), model.sample(**inputs, steps=3))
    denoiser.save(tmp_path / "two", loaded, {"opt_v2": "given"})
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


@pytest.fixture
def folder(tmp_path):
    denoiser.save(tmp_path, network(), {})
    return tmp_path


def test_a_folder_of_another_format_is_refused(folder):
    path = folder / denoiser.SETTINGS
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": "bandwise-grounding-0"}))
    with pytest.raises(DataError, match=r"grounding\.json: format: found 'bandwise-grounding-0', expected"):
        denoiser.load(folder)
    with pytest.raises(StorageError):
        denoiser.load(folder / "nothing")


def test_weights_of_other_bands_are_refused(folder):
    transformer = network().transformer
    wide = PixArtTransformer2DModel.from_config(transformer.config, in_channels=14, out_channels=13)
    wide.save_pretrained(folder / denoiser.TRANSFORMER)
    with pytest.raises(DataError, match=r"channels: found 14 in and 13 out, expected 9 and 4 for B02, B03, B04, B08"):
        denoiser.load(folder)


def test_weights_of_other_radar_bands_are_refused(folder):
    weights = safetensors.torch.load_file(folder / denoiser.TOKENS)
    weights["proj.weight"] = weights["proj.weight"][:, :1].contiguous()
    safetensors.torch.save_file(weights, folder / denoiser.TOKENS)
    with pytest.raises(DataError, match=r"sar_tokens\.safetensors: found weights of 1 radar bands, expected 2 for VV"):
        denoiser.load(folder)
    (folder / denoiser.TOKENS).write_bytes(b"torn")
    with pytest.raises(DataError, match=r"sar_tokens\.safetensors: found something that is not safetensors"):
        denoiser.load(folder)


def test_the_same_seed_builds_the_same_network():
    built = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        built.append(denoiser.build(small().model, TILE, SCALING, sees_sar=True).transformer.proj_out.weight)
    assert torch.equal(built[0], built[1])
    assert not torch.equal(built[0], built[2]) or not built[0].any()
