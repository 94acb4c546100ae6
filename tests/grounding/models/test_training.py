"""Losses and reports of the trainings: clear pixels alone, the target of each prediction, scores by name."""

from types import SimpleNamespace

import pytest
import torch

from src.core.stage.errors import DataError, DependencyError, ParamsError
from src.grounding.data.scene_store import SceneStore
from src.grounding.models import denoiser, regression, training
from src.grounding.models.training_windows import GridWindows
from tests.grounding.pair_files import params as committed_params
from tests.grounding.trainings import SCALING, SMALL, TILE, network, scene, small, write_store

PREDICTIONS = ["sample", "v_prediction"]
STEPS = SMALL["model.train_steps"]


def rows():
    """Validation windows, some of whose pixels are not valid."""
    windows = GridWindows([scene("a", "validation", 0), scene("b", "validation", 1)], TILE, 0.8, 0, STEPS)
    batch = windows.__getitems__(list(range(len(windows))))
    assert not batch["valid"].all()
    return batch


def train_rows():
    return {name: values for name, values in rows().items() if not name.startswith("other")}


def generator(kind: str = "sample", extra: bool = True, changes: dict | None = None):
    params = small(changes={"model.prediction": kind} | (changes or {}))
    model = network({"model.prediction": kind})
    return training.DenoisingTraining(
        model, params.model.steps, training.extra_losses(params, sees_sar=True) if extra else None
    )


def regression_training():
    torch.manual_seed(0)
    return training.RegressionTraining(regression.build(TILE, 8, SCALING))


def loss_and_gradient(model, batch) -> tuple[float, list[torch.Tensor]]:
    model.zero_grad()
    loss = model.train()(**batch)["loss"]
    loss.backward()
    return loss.item(), [p.grad.clone() for p in model.parameters() if p.grad is not None]


MODELS = {
    "sample": generator,
    "v_prediction": lambda: generator("v_prediction"),
    "pretrain": lambda: generator(extra=False),
    "regression": regression_training,
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("value", [0.9, float("nan")])
def test_the_truth_of_invalid_pixels_changes_neither_loss_nor_gradient(name, value):
    """Not through the noisy residual either, which attention would carry to all other pixels."""
    model, batch = MODELS[name](), train_rows()
    loss, gradient = loss_and_gradient(model, batch)
    spoilt = batch | {"truth": torch.where(batch["valid"][:, None], batch["truth"], value)}
    other, other_gradient = loss_and_gradient(model, spoilt)
    assert other == loss and len(gradient) == len(other_gradient) > 5
    assert all(torch.equal(one, two) for one, two in zip(gradient, other_gradient, strict=True))
    moved = batch | {"truth": batch["truth"] + 0.05}
    assert loss_and_gradient(model, moved)[0] != loss


@pytest.mark.parametrize("kind", PREDICTIONS)
def test_a_generator_that_is_right_has_no_loss_and_the_one_that_answers_zero_that_of_its_target(kind, monkeypatch):
    model, batch = generator(kind, extra=False), train_rows()
    inner, valid = model.denoiser, batch["valid"][:, None]
    residual = inner.scaled(torch.where(valid, batch["truth"] - batch["first_guess"], 0))
    velocity = inner.scheduler.get_velocity(residual, batch["noise"], batch["timestep"])
    target = velocity if kind == "v_prediction" else residual
    monkeypatch.setattr(inner, "forward", lambda noisy, timestep, condition: target)
    assert model(**batch)["loss"].item() == 0
    monkeypatch.setattr(inner, "forward", lambda noisy, timestep, condition: torch.zeros_like(target))
    by_hand = [(one.square() * clear).sum() / (4 * clear.sum()) for one, clear in zip(target, valid, strict=True)]
    assert model(**batch)["loss"].item() == pytest.approx(float(torch.stack(by_hand).mean()), rel=1e-5)


@pytest.mark.parametrize("kind", PREDICTIONS)
def test_the_five_losses_see_the_predicted_image(kind, monkeypatch):
    """A right prediction gives the truth as image, for each kind and at every step."""
    model, batch = generator(kind), rows()
    inner = model.denoiser
    residual = inner.scaled(torch.where(batch["valid"][:, None], batch["truth"] - batch["first_guess"], 0))
    velocity = inner.scheduler.get_velocity(residual, batch["noise"], batch["timestep"])
    target = velocity if kind == "v_prediction" else residual
    seen = []
    monkeypatch.setattr(inner, "forward", lambda noisy, timestep, condition: target)
    monkeypatch.setattr(model, "extra", lambda *images: seen.append(images) or (torch.tensor(2.0), {}))
    monkeypatch.setattr(inner, "sample", lambda *_: batch["first_guess"])
    assert model(**batch)["loss"].item() == pytest.approx(2.0, abs=1e-5)
    refined, truth, first_guess, sar, valid, missing = seen[0]
    difference = (refined - truth).abs()[valid[:, None].expand_as(truth)]
    assert difference.max() < 1e-4 and torch.equal(first_guess, batch["first_guess"])
    assert torch.equal(sar, batch["sar"]) and torch.equal(missing, batch["missing"])


def test_validation_reports_each_score_and_part_under_its_name():
    model, batch = generator().eval(), rows()
    with torch.no_grad():
        out = model(**batch)
    found = training.measure(SimpleNamespace(predictions=out["scores"].numpy()))
    assert list(found) == ["agreement", "seed_agreement", "denoising", "sar", "cycle", "identity", "spectral"]
    weights = {"denoising": 1.0} | small().ground.weights.model_dump(exclude={"lpips"})
    assert sum(weights[name] * found[name] for name in weights) == pytest.approx(out["loss"].item(), rel=1e-5)
    drawn = model.denoiser.sample(*(batch[name] for name in ("first_guess", "missing", "sar", "noise")), steps=3)
    args = (batch[name] for name in ("sar", "valid", "other_sar", "other_valid"))
    assert found["agreement"] == pytest.approx(training.agreement.agreement(drawn, *args).mean().item(), abs=1e-5)
    assert 0 < found["seed_agreement"] <= 1
    assert "scores" not in generator(extra=False).eval()(**batch) and "scores" not in generator().train()(**batch)


def test_lpips_without_weights_is_off_and_said_so(caplog, tmp_path):
    caplog.set_level("INFO")
    assert "lpips" not in generator().extra(*five())[1]
    assert "LPIPS is off: ground.lpips_weights names no file" in caplog.text
    caplog.clear()
    generator(changes={"ground.weights.lpips": 0.0, "ground.lpips_weights": "absent.safetensors"})
    assert "LPIPS is off: its weight is 0" in caplog.text
    caplog.clear()
    with pytest.raises(DependencyError, match=r"lpips is not installed") as caught:
        generator(changes={"ground.lpips_weights": "alexnet.safetensors"})
    assert caught.value.exit_code == 69 and not caplog.text


def five():
    batch = rows()
    return [batch[name] for name in ("truth", "truth", "first_guess", "sar", "valid", "missing")]


@pytest.mark.parametrize("name", ["sar", "cycle", "identity", "spectral"])
def test_each_weight_in_params_reaches_its_loss(name):
    nothing = {f"ground.weights.{other}": 0.0 for other in ("sar", "cycle", "identity", "lpips", "spectral")}
    images = [torch.full_like(five()[0], 0.3), *five()[1:]]
    one, parts = generator(changes=nothing | {f"ground.weights.{name}": 2.0}).extra(*images)
    assert one.item() == pytest.approx(2 * parts[name].item()) and one > 0


def test_the_plan_is_that_of_the_section():
    params = small(changes={"ground.stop.patience": 3, "ground.stop.delta": 0.01, "ground.accumulate": 2})
    plan = training.plan(params, params.ground, best="eval_agreement")
    assert (plan.best, plan.patience, plan.delta, plan.accumulate) == ("eval_agreement", 3, 0.01, 2)
    plan = training.plan(params, params.pretrain)
    assert (plan.best, plan.patience) == (None, None) and plan.batch_size == params.pretrain.batch_size


def test_lora_trains_matrices_of_the_cross_attention_alone_and_few_of_them():
    params = small()
    model = network()
    groups = training.add_lora(model, params)
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert len(trained) == 2 * 4 * params.model.depth and all(".attn2." in name and "lora_" in name for name in trained)
    assert {id(p) for p in groups.parameters()} == {id(p) for name, p in model.named_parameters() if name in trained}
    with pytest.raises(ParamsError, match="`targets`: found 'nothing', which is the whole name of no module"):
        training.add_lora(network(), small(changes={"ground.lora.targets": "nothing"}))


def test_the_committed_model_trains_one_to_three_in_a_hundred():
    committed = committed_params()
    model = denoiser.build(committed.model, committed.tiles.tile_px, SCALING, sees_sar=True)
    training.add_lora(model, committed)
    share = float(training.share_trained(model).rsplit("(", 1)[1].rstrip("%)")) / 100
    assert 0.01 <= share <= 0.03


def test_scenes_of_roles_are_read_and_what_is_missing_or_too_small_is_named(tmp_path):
    store = SceneStore.open(write_store(tmp_path / "store", {"pretrain": 1, "validation": 1}))
    params = small()
    train, validation = training.windows(store, ["pretrain"], params, params.pretrain)
    assert [one.name for one in train.scenes + validation.scenes] == ["pretrain0", "validation0"]
    with pytest.raises(DataError, match=r"store: role ground: found no scene, expected one or more; give .*`split`"):
        training.windows(store, ["pretrain", "ground"], params, params.pretrain)
    small_store = SceneStore.open(write_store(tmp_path / "small", {"pretrain": 1, "validation": 1}, side=12))
    with pytest.raises(
        DataError, match=r"scene pretrain0: found 12 x 12 px, expected at least .* 16 x 16; lower `tile_px`"
    ):
        training.windows(small_store, ["pretrain"], params, params.pretrain)
