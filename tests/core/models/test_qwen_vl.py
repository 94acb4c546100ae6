"""The quick encoder computes what transformers computes; loading refuses what does not fit."""

from importlib.util import find_spec

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file

from src.core.models import qwen_vl
from src.core.stage.errors import DataError, DependencyError, ParamsError
from tests import qwen_folders
from tests.qwen_folders import FAMILIES, change_config, make_batch

BANDS, PATCH = 5, 2


@pytest.fixture(scope="module")
def tokenizer():
    return qwen_folders.tokenizer()


def make(family: str, tokenizer, *, seed: int = 0, side: int = 16):
    config = qwen_vl.tiny_config(
        family,
        channels=BANDS,
        patch_size=PATCH,
        side=side,
        vision=(3, 32, 2),
        text=(2, 32, 2),
        tokenizer=tokenizer,
    )
    return qwen_vl.build(config, seed).eval()


def slowed(model):
    """Back to transformers' own Conv3d and loop over windows."""
    visual = model.model.visual
    for module in (visual.patch_embed, *(block.attn for block in visual.blocks)):
        del module.forward
    return model


@pytest.mark.parametrize("sides", [[16, 16], [20, 12], [28, 16]], ids=str)
@pytest.mark.parametrize("family", FAMILIES)
def test_quick_equals_transformers_forward_and_backward(family, sides, tokenizer):
    """With 8 px windows a side of 20 or 12 px leaves windows of 4, 2 and 1 units."""
    quick, plain = make(family, tokenizer), slowed(make(family, tokenizer))
    batch = make_batch(quick, sides)
    outputs = [model(**batch) for model in (quick, plain)]
    torch.testing.assert_close(outputs[0].logits, outputs[1].logits, rtol=0, atol=1e-5)
    for output in outputs:
        output.loss.backward()
    for (name, one), other in zip(quick.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=0, atol=1e-5, msg=lambda text, at=name: f"{at}: {text}")
    assert quick.model.visual.patch_embed.proj.weight.grad.any()


def test_qwen25_windows_are_of_unequal_size(tokenizer):
    """Else the test above would not see the path that sorts windows by size."""
    model = make("qwen2_5_vl", tokenizer)
    seen = []
    first = model.model.visual.blocks[0].attn
    call = first.forward
    first.forward = lambda hidden, cu_seqlens, **rest: seen.append(cu_seqlens) or call(hidden, cu_seqlens, **rest)
    model(**make_batch(model, [20]))
    assert len((seen[0][1:] - seen[0][:-1]).unique()) == 3
    assert 0 not in model.model.visual.config.fullatt_block_indexes


@pytest.mark.parametrize("family", FAMILIES)
def test_saved_and_loaded_it_gives_the_same_logits(family, tokenizer, tmp_path):
    model = make(family, tokenizer)
    model.save_pretrained(tmp_path)
    loaded = qwen_vl.load(tmp_path, channels=BANDS).eval()
    batch = make_batch(model, [16, 16])
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
    proj = make(family, tokenizer).model.visual.patch_embed.proj
    assert proj.weight.shape == (32, BANDS, 1, PATCH, PATCH)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_image_moves_its_own_logits_only(family, tokenizer):
    model = make(family, tokenizer)
    batch = make_batch(model, [16, 20, 12])
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
    batch = make_batch(model, [16, 16])
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
    with pytest.raises(ParamsError, match=r"reads 5 channels and the tiles have 64, expected 64; use a model of 64"):
        qwen_vl.load(saved, channels=64)
    with pytest.raises(ParamsError, match=r"reads 5 channels and the tiles have 64, expected 3 or 64; use a model"):
        qwen_vl.load(saved, channels=(3, 64))
    assert qwen_vl.load(saved, channels=(3, BANDS))


def test_an_rgb_model_for_many_bands_is_pointed_to_pca3(tmp_path):
    qwen_folders.write(tmp_path, "qwen2_vl")
    with pytest.raises(ParamsError, match=r"reads 3 channels and the tiles have 64.*use `input`: pca3"):
        qwen_vl.load(tmp_path, channels=64)


@pytest.mark.parametrize("other", ["gpt2", "qwen3_vl_moe", "qwen2_audio", "qwen2_5_vl_text", None])
def test_another_architecture_is_refused(other, saved):
    change_config(saved, model_type=other)
    with pytest.raises(DataError, match=rf"config.json: model_type is {other!r}, expected one of qwen2_vl, qwen2_5_vl"):
        qwen_vl.load(saved, channels=BANDS)


def test_weights_of_another_family_are_refused(tmp_path):
    qwen_folders.write(tmp_path, "qwen2_vl")
    change_config(tmp_path, **qwen_folders.published_config("qwen2_5_vl"))
    with pytest.raises(DataError, match="weights do not fit the config"):
        qwen_vl.load(tmp_path, channels=3)


@pytest.mark.parametrize("vision", [{"depth": "many"}, {"hidden_act": 3}], ids=str)
def test_fields_of_a_wrong_type_are_refused(vision, saved):
    change_config(saved, vision_config=vision)
    with pytest.raises(DataError, match=r"config.json: found fields that do not make a qwen2_5_vl"):
        qwen_vl.load(saved, channels=BANDS)


def test_the_published_name_of_channels_is_not_overheard(tmp_path):
    """transformers reads `in_channels` and takes 3 where there is none."""
    qwen_folders.write(tmp_path, "qwen2_5_vl")
    change_config(tmp_path, vision_config={"in_chans": 64})
    with pytest.raises(DataError, match=r"vision_config.in_chans: found 64, which transformers does not read"):
        qwen_vl.load(tmp_path, channels=(3, 64))
    change_config(tmp_path, vision_config={"in_chans": 64, "in_channels": 3})
    assert qwen_vl.read_config(tmp_path, (3,)).vision_config.in_channels == 3


def test_reading_the_config_needs_no_weights(tmp_path):
    qwen_folders.write(tmp_path, "qwen3_vl")
    for shard in tmp_path.glob("*.safetensors*"):
        shard.unlink()
    assert qwen_vl.read_config(tmp_path, (3,)).vision_config.deepstack_visual_indexes == [0, 1]


def test_code_beside_the_weights_is_never_run(saved, tmp_path):
    trap = tmp_path / "ran"
    (saved / "trap.py").write_text(f"open({str(trap)!r}, 'w')\nclass Trap: pass\n")
    change_config(saved, model_type="trap", auto_map={"AutoConfig": "trap.Trap"})
    with pytest.raises(DataError, match="found auto_map"):
        qwen_vl.load(saved, channels=BANDS)
    assert not trap.exists()


def rewrite(folder, change):
    path = folder / "model.safetensors"
    weights = load_file(path)
    change(weights, next(name for name in sorted(weights) if name.endswith("blocks.0.attn.qkv.weight")))
    save_file(weights, path, metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda weights, name: weights.pop(name), "blocks.0.attn.qkv.weight"),
        (lambda weights, name: weights.update({name: torch.zeros(3, 3)}), "blocks.0.attn.qkv.weight"),
        (lambda weights, name: weights.update({"reg_head": torch.zeros(3)}), "reg_head"),
        (lambda weights, name: weights.pop("lm_head.weight"), "lm_head.weight"),
    ],
    ids=["missing", "wrong shape", "superfluous", "no head"],
)
def test_weights_that_do_not_fit_are_named(saved, change, message):
    rewrite(saved, change)
    with pytest.raises(DataError, match=f"weights do not fit the config.*{message}"):
        qwen_vl.load(saved, channels=BANDS)


@pytest.mark.parametrize("family", FAMILIES)
def test_tied_heads(family, tmp_path):
    """Absent on the hub, present in some finetunes, and never something else than the embedding."""
    qwen_folders.write(tmp_path, family, tied=True, shards=1)
    absent = qwen_vl.load(tmp_path, channels=3)
    assert absent.lm_head.weight is absent.get_input_embeddings().weight
    embedding = absent.get_input_embeddings().weight.detach().bfloat16()
    rewrite(tmp_path, lambda weights, name: weights.update({"lm_head.weight": embedding.clone()}))
    present = qwen_vl.load(tmp_path, channels=3)
    assert present.lm_head.weight is present.get_input_embeddings().weight
    rewrite(tmp_path, lambda weights, name: weights.update({"lm_head.weight": embedding + 1}))
    with pytest.raises(DataError, match=r"tie_word_embeddings: found true.*write false"):
        qwen_vl.load(tmp_path, channels=3)


def test_frequencies_that_old_checkpoints_hold_are_no_weights(tmp_path):
    qwen_folders.write(tmp_path, "qwen2_vl", shards=1)
    name = "model.layers.0.self_attn.rotary_emb.inv_freq"
    rewrite(tmp_path, lambda weights, _: weights.update({name: torch.ones(8)}))
    assert qwen_vl.load(tmp_path, channels=3)


@pytest.mark.parametrize("content", [None, b"", b"not weights", "half"], ids=str)
def test_unreadable_weights_are_refused(saved, content):
    path = saved / "model.safetensors"
    if content is None:
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:5000] if content == "half" else content)
    with pytest.raises(DataError, match=r"found no weights, expected model\.safetensors|no whole safetensors file"):
        qwen_vl.load(saved, channels=BANDS)


def test_a_pickle_of_weights_is_not_opened(saved):
    torch.save(load_file(saved / "model.safetensors"), saved / "pytorch_model.bin")
    (saved / "model.safetensors").unlink()
    with pytest.raises(DataError, match=r"found pytorch_model.bin, expected model.safetensors; a pickle runs"):
        qwen_vl.load(saved, channels=BANDS)


@pytest.mark.parametrize(
    ("package", "settings", "install"),
    [
        ("bitsandbytes", {"four_bit": True}, "pip install bitsandbytes"),
        ("flash_attn", {"attention": "flash_attention_2", "dtype": torch.bfloat16}, "pip install flash-attn"),
    ],
)
def test_optional_packages_are_asked_for_by_their_install_line(saved, package, settings, install):
    if find_spec(package):
        pytest.skip(f"{package} is installed")
    with pytest.raises(DependencyError, match=install):
        qwen_vl.load(saved, channels=BANDS, **settings)


def test_four_bits_hold_the_language_model_alone_and_lora_trains_on_them(tmp_path):
    pytest.importorskip("bitsandbytes")
    qwen_folders.write(tmp_path, "qwen2_5_vl")
    # In train mode throughout: on some CPUs bitsandbytes repacks for inference, for widths in multiples of 64 alone.
    whole, model = (qwen_vl.load(tmp_path, channels=3, four_bit=bits).train() for bits in (False, True))
    packed = {name.rpartition(".")[0] for name, p in model.named_parameters() if p.dtype == torch.uint8}
    linear = {name for name, module in whole.named_modules() if isinstance(module, torch.nn.Linear)}
    assert packed == {name for name in linear if name.startswith("model.language_model.")}
    batch = make_batch(whole, [112, 84])
    exact = whole(**batch).logits
    assert 0 < (model(**batch).logits - exact).norm() < 0.5 * exact.norm()

    tuned = get_peft_model(model, LoraConfig(r=2, target_modules=r".*language_model.*\.(q_proj|down_proj)"))
    optimizer = torch.optim.AdamW([p for p in tuned.parameters() if p.requires_grad], lr=0.01)
    losses = []
    for _ in range(10):
        loss = tuned(**batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.1
