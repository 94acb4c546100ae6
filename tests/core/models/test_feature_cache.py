"""What comes out of the feature cache is what the encoder would have computed, whatever the cache holds."""

import resource

import pytest
import torch

from src.core.models import chat, qwen_vl
from src.core.models.feature_cache import FeatureCache
from src.core.models.patches import pixel_values
from src.core.stage.errors import BandwiseError, ParamsError, StorageError

FAMILIES = list(qwen_vl.FAMILIES)
BANDS, PATCH, SIDE, WIDTH = 5, 2, 20, 32  # with 8 px windows a side of 20 leaves windows of three sizes
KEYS = [(tile, view) for tile in (7, 2, 30) for view in (0, 5)]


@pytest.fixture(scope="module")
def tokenizer():
    return chat.tiny_tokenizer(["预测值：1.23‰"])


@pytest.fixture(params=FAMILIES)
def model(request, tokenizer):
    return frozen(request.param, tokenizer)


@pytest.fixture
def qwen3(tokenizer):
    return frozen("qwen3_vl", tokenizer)


def frozen(family, tokenizer, seed=0):
    """A model whose mergers and language model train, in training mode; Qwen3-VL's deep features leave block 0."""
    config = qwen_vl.tiny_config(
        family, channels=BANDS, patch_size=PATCH, side=16, vision=(3, WIDTH, 2), text=(2, 32, 2), tokenizer=tokenizer
    )
    model = qwen_vl.build(config, seed).train()
    for name, p in qwen_vl.vision_encoder(model).named_parameters():
        p.requires_grad_("merger" in name)
    return model


def open_cache(model, folder, limit_gb=1.0, context=""):
    return FeatureCache(qwen_vl.vision_encoder(model), SIDE, folder, limit_gb, context)


def image(key):
    return torch.randn(1, BANDS, SIDE, SIDE, generator=torch.Generator().manual_seed(100 * key[0] + key[1]))


def features(cache, model, keys=KEYS, pixels_of=None):
    """Outputs of the mergers for `keys`, the deep ones included, (taps, units, width)."""

    def pixels(row):
        return pixel_values(image(keys[row]), cache.visual.config)[0]

    found = cache.vision_arguments(model.model, pixels_of or pixels, *zip(*keys, strict=True))
    return stacked(found["mm_encoder_outputs"]["image"])


def stacked(outputs):
    parts = (outputs.pooler_output, *getattr(outputs, "deepstack_features", ()))
    return torch.stack([torch.cat(part) for part in parts])


def never(row):
    raise AssertionError(f"row {row} was computed")


def batch_of(model, tokenizer, keys=KEYS):
    """Text of a batch, and its pixels as one batch."""
    config = qwen_vl.vision_encoder(model).config
    tokens = (SIDE // PATCH // 2) ** 2
    prompts = [chat.encode_prompt(tokenizer, f"tile {i}", tokens) for i in range(len(keys))]
    batch = chat.pad_batch(prompts, [chat.encode_answer(tokenizer, "1.5")] * len(keys), tokenizer)
    del batch["prompt_mask"]
    pixels, grid = pixel_values(torch.cat([image(key) for key in keys]), config)
    return batch, {"pixel_values": pixels, "image_grid_thw": grid}


def test_loss_and_gradients_are_those_of_the_whole_encoder(model, tokenizer, tmp_path):
    """Computed and read alike; the mergers get their gradient and the encoder none."""
    text, vision = batch_of(model, tokenizer)
    expected = model(**text, **vision)
    expected.loss.backward()
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    gradients = {name: p.grad.clone() for name, p in trained.items()}
    assert any("merger" in name and grad.any() for name, grad in gradients.items())
    cache = open_cache(model, tmp_path)
    for _ in ("misses", "hits"):
        model.zero_grad()
        kept = cache.vision_arguments(
            model.model, lambda row: pixel_values(image(KEYS[row]), cache.visual.config)[0], *zip(*KEYS, strict=True)
        )
        output = model(**text, **kept)
        torch.testing.assert_close(output.logits, expected.logits, rtol=0, atol=1e-6)
        output.loss.backward()
        for name, p in trained.items():
            assert (p.grad - gradients[name]).abs().max() < 1e-6, name
        assert all(p.grad is None for p in cache.encoder.values())
    assert (cache.hits, cache.misses) == (len(KEYS), len(KEYS))


def test_bytes_do_not_depend_on_what_is_kept(model, tmp_path):
    """Full, empty, too small, half filled by another batch, and by another process: the same to the last bit."""
    reference = features(open_cache(model, tmp_path / "none", limit_gb=0), model)
    assert not (tmp_path / "none").exists()
    full = open_cache(model, tmp_path / "full")
    assert torch.equal(features(full, model), reference)
    assert torch.equal(features(full, model, pixels_of=never), reference)
    part = open_cache(model, tmp_path / "part")
    features(part, model, [KEYS[4], (11, 3), KEYS[1]])
    assert torch.equal(features(part, model), reference)
    assert (part.hits, part.misses) == (2, 3 + 4)
    again = open_cache(model, tmp_path / "part")
    assert torch.equal(features(again, model, pixels_of=never), reference)


def test_every_tile_and_view_has_its_own(model, tmp_path):
    cache = open_cache(model, tmp_path)
    before = features(cache, model).unflatten(1, (len(KEYS), -1))
    assert all(not torch.equal(before[:, i], before[:, j]) for i in range(len(KEYS)) for j in range(i))
    order = [3, 0, 5, 1, 4, 2]
    after = features(cache, model, [KEYS[i] for i in order], never).unflatten(1, (len(KEYS), -1))
    torch.testing.assert_close(after, before[:, order], rtol=0, atol=1e-6)


def test_the_file_stays_below_its_limit(qwen3, tmp_path):
    reference = features(open_cache(qwen3, tmp_path / "none", limit_gb=0), qwen3)
    record = 2 * (SIDE // PATCH) ** 2 * WIDTH * 4 + 24  # two taps
    limit = 4.5 * record
    cache = open_cache(qwen3, tmp_path / "small", limit_gb=limit / 1e9)
    for _ in range(2):
        assert torch.equal(features(cache, qwen3), reference)
    (file,) = (tmp_path / "small").iterdir()
    assert file.stat().st_size == 4 * record < limit
    assert (cache.hits, cache.misses) == (4, 6 + 2)


def test_processes_share_the_limit_and_no_file(qwen3, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in "01":
        monkeypatch.setenv("RANK", rank)
        features(open_cache(qwen3, tmp_path, limit_gb=7 * 25_624 / 1e9), qwen3)
    assert [file.stat().st_size for file in sorted(tmp_path.iterdir(), key=str)] == [3 * 25_624] * 2
    assert {file.stem[-2:] for file in tmp_path.iterdir()} == {"-0", "-1"}


@pytest.mark.parametrize("damage", ["flipped bit", "flipped key", "zeros", "cut short", "empty"])
def test_what_a_killed_run_left_torn_is_computed_again(qwen3, tmp_path, damage, caplog):
    cache = open_cache(qwen3, tmp_path)
    reference = features(cache, qwen3)
    (file,) = tmp_path.iterdir()
    data, record = bytearray(file.read_bytes()), cache.record
    at = record * 2
    if damage == "flipped bit":
        data[at + 5000] ^= 1
    elif damage == "flipped key":
        data[at] ^= 1
    elif damage == "zeros":
        data[at : at + record] = bytes(record)
    elif damage == "cut short":
        del data[-100:]
    else:
        data.clear()
    file.write_bytes(data)
    again = open_cache(qwen3, tmp_path)
    assert torch.equal(features(again, qwen3), reference)
    assert again.misses == (len(KEYS) if damage == "empty" else 1)
    assert ("damaged" in caplog.text) == (damage == "flipped bit")
    assert torch.equal(features(open_cache(qwen3, tmp_path), qwen3, pixels_of=never), reference)


@pytest.mark.parametrize("change", ["block", "patch_embed", "pos_embed", "context"])
def test_other_weights_or_pixels_find_nothing(qwen3, tmp_path, change):
    features(open_cache(qwen3, tmp_path), qwen3)
    old = next(tmp_path.iterdir()).name
    visual = qwen_vl.vision_encoder(qwen3)
    weights = {"block": visual.blocks[1].mlp.linear_fc1, "patch_embed": visual.patch_embed.proj}
    weights["pos_embed"] = visual.pos_embed
    if change in weights:
        with torch.no_grad():
            weights[change].weight[0] += 1
    cache = open_cache(qwen3, tmp_path, context="mean 2" if change == "context" else "")
    features(cache, qwen3)
    assert cache.misses == len(KEYS)
    assert [file.name for file in tmp_path.iterdir()] != [old], "what no one will read again takes no space"


def test_a_merger_that_trains_leaves_the_features_valid(model, tmp_path):
    cache = open_cache(model, tmp_path)
    before = features(cache, model)
    with torch.no_grad():
        for name, p in cache.visual.named_parameters():
            if "merger" in name:
                p += 0.1
    after = features(cache, model, pixels_of=never)
    assert all(not torch.equal(one, other) for one, other in zip(before, after, strict=True)), "a merger did not run"
    assert torch.equal(after, features(open_cache(model, tmp_path / "new"), model))


def test_it_applies_while_nothing_of_the_encoder_trains(model, tmp_path):
    cache = open_cache(model, tmp_path)
    assert cache.applies()
    for p in cache.encoder.values():
        p.requires_grad_(True)
        assert not cache.applies()
        p.requires_grad_(False)
    assert not any("merger" in name for name in cache.encoder) and len(cache.encoder) > 10


def test_frozen_weights_that_change_in_a_run_stop_it(qwen3, tmp_path):
    cache = open_cache(qwen3, tmp_path)
    features(cache, qwen3)
    weight = cache.visual.blocks[0].attn.qkv.weight
    with torch.no_grad():
        weight.copy_(weight.clone())  # as loading a checkpoint does
    features(cache, qwen3, pixels_of=never)
    with torch.no_grad():
        weight[0, 0] += 1
    with pytest.raises(BandwiseError, match=r"the weights of the frozen vision encoder changed"):
        features(cache, qwen3)


def test_bfloat16_takes_half_the_space_and_stays_exact(model, tmp_path):
    """Autocast must keep no copy of a merger's weight from the computing of a miss, or the merger gets no gradient."""
    cache = open_cache(model, tmp_path)
    with torch.autocast("cpu", torch.bfloat16):
        computed = features(cache, model)
        computed.float().square().mean().backward()
        assert torch.equal(features(cache, model, pixels_of=never), computed)
        assert cache.record == len(cache.taps) * (SIDE // PATCH) ** 2 * WIDTH * 2 + 24
    mergers = [p for name, p in cache.visual.named_parameters() if "merger" in name and name.endswith("weight")]
    assert mergers and all(p.grad is not None and p.grad.any() for p in mergers)
    with pytest.raises(BandwiseError, match=r"precision \(torch.bfloat16 before, now torch.float32\)"):
        features(cache, model)


def test_a_full_disk_costs_time_and_nothing_else(qwen3, tmp_path, caplog):
    cache = open_cache(qwen3, tmp_path)
    reference = features(open_cache(qwen3, tmp_path / "none", limit_gb=0), qwen3)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, hard))  # 2 records and a part of the third
    try:
        for _ in range(2):
            assert torch.equal(features(cache, qwen3), reference)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (cache.hits, cache.misses) == (2, 6 + 4)
    assert caplog.text.count("no space left, 2 features are kept") == 1
    assert torch.equal(features(open_cache(qwen3, tmp_path), qwen3), reference)


def test_the_model_is_itself_again_after_an_error(model, tmp_path):
    cache = open_cache(model, tmp_path)
    modules = dict(cache.visual.named_modules())
    with pytest.raises(RuntimeError):
        features(cache, model, pixels_of=lambda row: torch.zeros(3, 3))
    after = dict(cache.visual.named_modules())
    assert after.keys() == modules.keys() and all(after[name] is modules[name] for name in modules)
    assert not cache.slots, "what was not computed is not kept"


def test_dropout_in_the_encoder_is_refused(model, tmp_path):
    cache = open_cache(model, tmp_path)
    cache.visual.blocks[1].attn.attention_dropout = 0.1
    with pytest.raises(ParamsError, match=r"blocks.1.attn of the vision encoder has dropout 0.1.*feature_cache_gb"):
        open_cache(model, tmp_path)


def test_a_file_where_the_folder_should_be(qwen3, tmp_path):
    (tmp_path / "features").write_text("")
    with pytest.raises(StorageError, match=r"features.*checkpoint_root"):
        features(open_cache(qwen3, tmp_path / "features"), qwen3)


def test_remove_leaves_nothing(qwen3, tmp_path):
    cache = open_cache(qwen3, tmp_path / "features")
    features(cache, qwen3)
    assert (tmp_path / "features").exists()
    cache.remove()
    assert not (tmp_path / "features").exists()
