"""TerraMind as the part that reads radar: its sizes, with random weights.

Most of it runs where terratorch is installed (requirements-terramind.txt), and was run there: docs/log.md.
"""

from importlib.util import find_spec
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from src.core.stage import params as params_file
from src.core.stage.errors import DataError, DependencyError, ParamsError
from src.grounding import ground, pretrain
from src.grounding.data import scene_store
from src.grounding.data.scene_store import SceneStore
from src.grounding.models import denoiser, fitting, terramind, training
from src.grounding.models.whole_scene import refine_scene
from src.grounding.params import Params
from tests.grounding.scenes import scene
from tests.pipelines import ROOT

WITH_TERRATORCH = pytest.mark.skipif(not find_spec("terratorch"), reason="terratorch is not installed")
SIDE, TINY = 32, "terramind_v1_tiny"
ROLES = ("pretrain", "pretrain", "ground", "ground", "validation", "validation")


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """TerraMind's random weights in a file of the hub's name."""
    path = tmp_path_factory.mktemp("weights") / "TerraMind_v1_tiny.safetensors"
    if find_spec("terratorch"):
        torch.manual_seed(0)
        network = terramind.architecture(TINY, "RTC")
        save_file({name: value.detach().clone() for name, value in network.named_parameters()}, path)
    return path


@pytest.fixture
def store(tmp_path):
    """Two scenes a role, the first guess with noise and a hole."""
    random, rows = np.random.default_rng(0), []
    for number, role in enumerate(ROLES):
        one = scene(f"s{number}", SIDE, seed=number)
        one.first_guess[:] += random.normal(0, 0.05, one.first_guess.shape)
        one.missing[4:12, 4:12] = True
        (tmp_path / "store/scenes").mkdir(parents=True, exist_ok=True)
        scene_store.write_scene(tmp_path / "store", one)
        place = {"block": str(number), "height": SIDE, "width": SIDE, "crs": one.crs, "transform": one.transform}
        rows.append({"name": one.name, "role": role, **place, "flags": ""})
    scene_store.finish(tmp_path / "store", rows, {"opt_v2": "synthetic"}, {})
    return tmp_path / "store"


def settings(weights, tmp_path, **changes) -> Params:
    """The committed params, small, with TerraMind; a key of `changes` is that of a section, with __ for a dot."""
    params = params_file.read(ROOT / "pipelines/grounding/params.yaml", Params).model_dump()
    short = {"epochs": 1, "windows": 12, "batch_size": 4, "save_steps": 100, "precision": "float32"}
    params["checkpoint_root"], params["tiles"]["tile_px"] = str(tmp_path / "checkpoints"), SIDE
    params["model"] |= {"backbone": str(weights), "patch_px": 4, "depth": 1, "width": 32, "heads": 2, "steps": 2}
    params["pretrain"] |= short
    params["ground"] |= short
    params["ground"]["lora"]["targets"] = r".*attn\.(qkv|q|kv|proj)"
    for key, value in changes.items():
        section, _, name = key.partition("__")
        params[section][name] = value
    return params_file.validate(params, Params, "test")


def folders(tmp_path, name) -> SimpleNamespace:
    return SimpleNamespace(out=tmp_path / name, plots=tmp_path / "plots" / name)


@pytest.mark.skipif(bool(find_spec("terratorch")), reason="terratorch is installed")
def test_without_terratorch_the_stage_says_what_to_install(weights, store, tmp_path):
    with pytest.raises(DependencyError, match=r"`backbone`: terratorch is .* -r requirements-terramind.txt") as caught:
        pretrain.main(settings(weights, tmp_path), SimpleNamespace(store=store), folders(tmp_path, "base"))
    assert caught.value.exit_code == 69
    assert not (tmp_path / "base").exists()


def test_its_environment_differs_in_torch_alone():
    lists = [(ROOT / name).read_text().split("\n") for name in ("requirements.txt", terramind.REQUIREMENTS)]
    usual, own = (dict(line.split("==") for line in lines if "==" in line) for lines in lists)
    assert {name for name in own if name in usual and own[name] != usual[name]} == {"torch"}
    assert {"torchvision", "terratorch"} <= own.keys() - usual.keys()


@WITH_TERRATORCH
def test_bands_are_in_their_slots_with_their_statistics(weights, tmp_path):
    model = terramind.build(settings(weights, tmp_path), [0.1] * 4, sees_sar=True)
    assert model.scaling.optical_mean == pytest.approx([0.1503317, 0.1718197, 0.185391, 0.3083234])
    assert model.scaling.optical_sd == pytest.approx([0.2141107, 0.2038973, 0.2134138, 0.1871918])
    assert model.scaling.sar_mean == [-10.93, -17.329]
    assert terramind.scaling("GRD", [0.1] * 4).sar_mean == [-12.599, -20.293]
    read = {}
    for name, embedding in model.sar_tokens.terramind.encoder_embeddings.items():
        embedding.register_forward_pre_hook(lambda _, inputs, name=name: read.update({name: inputs[0]}))
    guess = model.optical_mean + model.optical_sd * torch.tensor([1.0, 2, 3, 4])[:, None, None] * torch.ones(
        4, SIDE, SIDE
    )
    missing = torch.zeros(1, SIDE, SIDE, dtype=torch.bool)
    missing[:, :5] = True
    radar = (model.sar_mean + model.sar_sd * torch.tensor([5.0, 6])[:, None, None]) * torch.ones(2, SIDE, SIDE)
    model.condition(guess[None], missing, radar[None])
    optical = read["untok_sen2l2a@224"][0]
    # B01 B02 B03 B04 B05 B06 B07 B08 B8A B09 B11 B12; what is unknown is the mean
    assert optical[:, -1, -1].tolist() == pytest.approx([0, 1, 2, 3, 0, 0, 0, 4, 0, 0, 0, 0], abs=1e-4)
    assert not optical[:, :5].any()
    assert read["untok_sen1rtc@224"][0, :, 0, 0].tolist() == pytest.approx([5, 6], abs=1e-4)


@WITH_TERRATORCH
def test_the_loss_on_the_image_reaches_every_adapter(weights, store, tmp_path):
    params = settings(weights, tmp_path)
    network = terramind.build(params, [0.1] * 4, sees_sar=True)
    # As pretraining leaves it: its last layer starts at 0, which lets no gradient through.
    torch.nn.init.normal_(network.transformer.proj_out.weight, std=0.1)
    part = fitting.grounding(SceneStore.open(store), params, network)
    part.model.train()(**part.train.__getitems__([0, 1]))["loss"].backward()
    adapters = {name: p.grad for name, p in part.model.named_parameters() if p.requires_grad}
    kinds = {name.partition(".lora_")[0].rpartition("model.")[2].split(".", 2)[2] for name in adapters}
    assert kinds == {"attn.qkv", "attn.proj", "self_attn.qkv", "self_attn.proj"} | {
        f"cross_attn.{layer}" for layer in ("q", "kv", "proj")
    }
    assert all(grad.any() for name, grad in adapters.items() if "lora_B" in name)  # A's is 0 while B is
    assert "(1.6%)" in training.share_trained(part.model)


@WITH_TERRATORCH
def test_no_loss_can_train_through_the_drawing_of_tokens(weights):
    from terratorch.registry import FULL_MODEL_REGISTRY

    options = {"modalities": ["S1RTC"], "output_modalities": ["S2L2A"], "timesteps": 1, "pretrained": False}
    generator = FULL_MODEL_REGISTRY.build(f"{TINY}_generate", **options)
    image = generator({"S1RTC": torch.randn(1, 2, SIDE, SIDE)})["S2L2A"]
    assert image.shape == (1, 12, SIDE, SIDE) and not image.requires_grad


@WITH_TERRATORCH
def test_pretrain_trains_the_denoiser_and_ground_trains_terramind(weights, store, tmp_path):
    params = settings(weights, tmp_path)
    base, grounded = tmp_path / "base", tmp_path / "grounded"
    pretrain.main(params, SimpleNamespace(store=store), folders(tmp_path, "base"))
    ground.main(params, SimpleNamespace(store=store, base=base), folders(tmp_path, "grounded"))
    given, before, after = load_file(weights), load_file(base / denoiser.TOKENS), load_file(grounded / denoiser.TOKENS)
    assert all(torch.equal(before[f"terramind.{name}"], value) for name, value in given.items())
    changed = {name for name, value in before.items() if not torch.equal(value, after[name])}
    assert changed and all("attn." in name for name in changed)
    first, second = (load_file(path / "transformer/diffusion_pytorch_model.safetensors") for path in (base, grounded))
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    model, facts = denoiser.load(grounded)
    assert (facts["backbone"], model.tile_px) == (TINY, SIDE)
    image = refine_scene(SceneStore.open(store).read("s4"), model, steps=2, overlap=8, samples=2, seed=0)
    assert image.shape == (2, 4, SIDE, SIDE) and np.isfinite(image).all() and not np.array_equal(*image)


@WITH_TERRATORCH
def test_radar_of_elsewhere_changes_the_tokens_unless_it_is_not_seen(weights, tmp_path):
    guess, missing = torch.full((1, 4, SIDE, SIDE), 0.2), torch.zeros(1, SIDE, SIDE, dtype=torch.bool)
    radar = torch.full((1, 2, SIDE, SIDE), -12.0)
    for sees_sar in (True, False):
        model = terramind.build(settings(weights, tmp_path), [0.1] * 4, sees_sar).eval()
        one, other = (model.condition(guess, missing, image)[1] for image in (radar, radar + 5))
        assert torch.equal(one, other) is not sees_sar


@WITH_TERRATORCH
@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"tiles__tile_px": 40}, ParamsError, "tiles.tile_px, model.patch_px: found 40 and 4, expected a multiple"),
        ({"model__backbone": TINY}, ParamsError, "model.backbone: found terramind_v1_tiny, expected a file such as"),
        ({"model__backbone": "terramind_v1_tiny.safetensors"}, DataError, "`backbone`: found no readable safetensors"),
        ({"model__backbone": "terramind_v1_huge.safetensors"}, ParamsError, "named as one of terramind_v1_tiny, "),
    ],
)
def test_what_cannot_be_built_is_named(weights, tmp_path, change, error, message):
    with pytest.raises(error, match=message):
        terramind.build(settings(weights, tmp_path, **change), [0.1] * 4, sees_sar=True)


@WITH_TERRATORCH
def test_no_weight_stays_random(weights, tmp_path):
    stored = load_file(weights)
    del stored["decoder.0.cross_attn.kv.weight"]
    short = tmp_path / weights.name
    save_file(stored, short)
    with pytest.raises(DataError, match=r"decoder\.0\.cross_attn\.kv\.weight: found none, expected shape"):
        terramind.build(settings(short, tmp_path), [0.1] * 4, sees_sar=True)
