"""The quick encoder computes what transformers computes; loading refuses what does not fit."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from src.core import backbone, chat
from src.core.errors import DataError, ParamsError
from src.core.patches import pixel_values

FAMILIES = list(backbone.FAMILIES)
BANDS, PATCH = 5, 2


@pytest.fixture(scope="module")
def tokenizer():
    return chat.tiny_tokenizer(["预测值：1.23‰"])


def make(family: str, tokenizer, *, seed: int = 0, side: int = 16):
    config = backbone.tiny_config(
        family,
        channels=BANDS,
        patch_size=PATCH,
        side=side,
        vision=(3, 32, 2),
        text=(2, 32, 2),
        tokenizer=tokenizer,
    )
    return backbone.build(config, seed).eval()


def slowed(model):
    """Back to transformers' own Conv3d and loop over windows."""
    visual = backbone.vision_encoder(model)
    for module in (visual.patch_embed, *(block.attn for block in visual.blocks)):
        del module.forward
    return model


def make_batch(model, tokenizer, sides: list[int], seed: int = 0) -> dict[str, torch.Tensor]:
    """One image per side, in one batch with a short prompt and answer each."""
    random = torch.Generator().manual_seed(seed)
    config = backbone.vision_encoder(model).config
    parts = [pixel_values(torch.randn(1, BANDS, side, side, generator=random), config) for side in sides]
    pixels, grid = (torch.cat(part) for part in zip(*parts, strict=True))
    tokens = [(side // PATCH // 2) ** 2 for side in sides]
    prompts = [chat.encode_prompt(tokenizer, f"tile {i}", count) for i, count in enumerate(tokens)]
    batch = chat.pad_batch(prompts, [chat.encode_answer(tokenizer, "1.5")] * len(sides), tokenizer)
    names = ("input_ids", "attention_mask", "mm_token_type_ids", "labels")
    return {name: batch[name] for name in names} | {"pixel_values": pixels, "image_grid_thw": grid}


@pytest.mark.parametrize("sides", [[16, 16], [20, 12], [28, 16]], ids=str)
@pytest.mark.parametrize("family", FAMILIES)
def test_quick_equals_transformers_forward_and_backward(family, sides, tokenizer):
    """With 8 px windows a side of 20 or 12 px leaves windows of 4, 2 and 1 units."""
    quick, plain = make(family, tokenizer), slowed(make(family, tokenizer))
    batch = make_batch(quick, tokenizer, sides)
    outputs = [model(**batch) for model in (quick, plain)]
    torch.testing.assert_close(outputs[0].logits, outputs[1].logits, rtol=0, atol=1e-5)
    for output in outputs:
        output.loss.backward()
    for (name, one), other in zip(quick.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=0, atol=1e-5, msg=lambda text, at=name: f"{at}: {text}")
    assert backbone.vision_encoder(quick).patch_embed.proj.weight.grad.any()


def test_qwen25_windows_are_of_unequal_size(tokenizer):
    """Else the test above would not see the path that sorts windows by size."""
    model = make("qwen2_5_vl", tokenizer)
    seen = []
    first = backbone.vision_encoder(model).blocks[0].attn
    call = first.forward
    first.forward = lambda hidden, cu_seqlens, **rest: seen.append(cu_seqlens) or call(hidden, cu_seqlens, **rest)
    model(**make_batch(model, tokenizer, [20]))
    assert len((seen[0][1:] - seen[0][:-1]).unique()) == 3
    assert 0 not in backbone.vision_encoder(model).config.fullatt_block_indexes


@pytest.mark.parametrize("family", FAMILIES)
def test_saved_and_loaded_it_gives_the_same_logits(family, tokenizer, tmp_path):
    model = make(family, tokenizer)
    model.save_pretrained(tmp_path)
    loaded = backbone.load(tmp_path, channels=BANDS).eval()
    batch = make_batch(model, tokenizer, [16, 16])
    assert torch.equal(model(**batch).logits, loaded(**batch).logits)
    assert loaded.generation_config.eos_token_id == tokenizer.eos_token_id


def test_weights_are_a_function_of_the_seed_alone(tokenizer):
    torch.manual_seed(1)
    one = make("qwen2_5_vl", tokenizer, seed=5)
    torch.manual_seed(2)
    two = make("qwen2_5_vl", tokenizer, seed=5)
    other = make("qwen2_5_vl", tokenizer, seed=6)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize("family", FAMILIES)
def test_the_channel_count_is_that_of_the_tiles(family, tokenizer):
    """`in_chans` would be ignored in silence."""
    proj = backbone.vision_encoder(make(family, tokenizer)).patch_embed.proj
    assert proj.weight.shape == (32, BANDS, 1, PATCH, PATCH)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_image_moves_its_own_logits_only(family, tokenizer):
    model = make(family, tokenizer)
    batch = make_batch(model, tokenizer, [16, 20, 12])
    counts = batch["image_grid_thw"].prod(1).tolist()
    before = model(**batch).logits
    for i in range(3):
        pixels = batch["pixel_values"].clone()
        start = sum(counts[:i])
        pixels[start : start + counts[i]] += 1.0
        moved = (model(**batch | {"pixel_values": pixels}).logits != before).flatten(1).any(1)
        assert moved.tolist() == [j == i for j in range(3)]


@pytest.mark.parametrize("family", FAMILIES)
def test_image_tokens_must_be_marked(family, tokenizer):
    """Without `mm_token_type_ids` two families refuse and Qwen2.5-VL silently loses rows and columns."""
    model = make(family, tokenizer)
    batch = make_batch(model, tokenizer, [16, 16])
    marked = model(**batch).logits
    del batch["mm_token_type_ids"]
    if family == "qwen2_5_vl":
        assert not torch.allclose(model(**batch).logits, marked, atol=1e-4)
    else:
        with pytest.raises(ValueError, match="mm_token_type_ids"):
            model(**batch)


@pytest.fixture
def saved(tokenizer, tmp_path):
    make("qwen2_5_vl", tokenizer).save_pretrained(tmp_path)
    return tmp_path


def test_another_number_of_channels_is_refused(saved):
    with pytest.raises(ParamsError, match=r"reads 5 channels and the tiles have 64.*pca3"):
        backbone.load(saved, channels=64)


def test_another_architecture_is_refused(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"]}))
    with pytest.raises(DataError, match=r"model_type is 'gpt2', expected one of qwen2_vl"):
        backbone.load(tmp_path, channels=BANDS)


def test_a_folder_without_config_is_refused(tmp_path):
    with pytest.raises(DataError, match="no readable model config"):
        backbone.load(tmp_path, channels=BANDS)


def test_code_beside_the_weights_is_never_run(saved, tmp_path):
    config = json.loads((saved / "config.json").read_text())
    trap = tmp_path / "ran"
    (saved / "trap.py").write_text(f"open({str(trap)!r}, 'w')\nclass Trap: pass\n")
    config |= {"model_type": "trap", "auto_map": {"AutoConfig": "trap.Trap"}}
    (saved / "config.json").write_text(json.dumps(config))
    with pytest.raises(DataError, match="no readable model config"):
        backbone.load(saved, channels=BANDS)
    assert not trap.exists()


def rewrite(path, change):
    weights = load_file(path)
    change(weights, next(name for name in sorted(weights) if name.endswith("blocks.0.attn.qkv.weight")))
    save_file(weights, path, metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda weights, name: weights.pop(name), "blocks.0.attn.qkv.weight"),
        (lambda weights, name: weights.update({name: torch.zeros(3, 3)}), "blocks.0.attn.qkv.weight"),
        (lambda weights, name: weights.update({"reg_head": torch.zeros(3)}), "reg_head"),
    ],
    ids=["missing", "wrong shape", "superfluous"],
)
def test_weights_that_do_not_fit_are_named(saved, change, message):
    rewrite(saved / "model.safetensors", change)
    with pytest.raises(DataError, match=f"weights do not fit the config.*{message}"):
        backbone.load(saved, channels=BANDS)


@pytest.mark.parametrize("content", [None, b"", b"not weights", "half"], ids=str)
def test_unreadable_weights_are_refused(saved, content):
    path = saved / "model.safetensors"
    if content is None:
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:5000] if content == "half" else content)
    with pytest.raises(DataError, match=r"no readable weights, expected model\.safetensors"):
        backbone.load(saved, channels=BANDS)


def test_a_pickle_of_weights_is_not_opened(saved):
    torch.save(load_file(saved / "model.safetensors"), saved / "pytorch_model.bin")
    (saved / "model.safetensors").unlink()
    with pytest.raises(DataError, match="no readable weights"):
        backbone.load(saved, channels=BANDS)
