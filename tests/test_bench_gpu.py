"""bench.gpu on a toy model: every line runs where there is no GPU, and its FLOPs are torch's own."""

import json
import runpy
import sys
from functools import partial

import pytest
import torch
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from bench import gpu, gpu_models
from bench.flops import counted
from bench.gpu_report import Report

CPU = torch.device("cpu")
bf16 = partial(torch.autocast, "cpu", torch.bfloat16)
without_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="about machines without a GPU")


@pytest.fixture(scope="module")
def shape():
    torch.manual_seed(0)
    return gpu_models.tiny()


@pytest.mark.parametrize(
    "build, batches", [(gpu_models.sft, gpu_models.samples), (gpu_models.pretraining, gpu_models.views)]
)
def test_flops_are_those_that_torch_counts(shape, build, batches):
    model, _ = build(shape, CPU)
    batch = batches(shape, 2, CPU)
    with counted() as checkpointed, bf16():
        model(**batch)
    (model.vlm if build is gpu_models.sft else model.mae.visual).activation_checkpointing_disable()
    # Fused attention is not counted on a CPU, and where it is, its backward counts the scores it computes again.
    with counted() as flops, sdpa_kernel(SDPBackend.MATH):
        with FlopCounterMode(display=False) as forward, bf16():
            loss = model(**batch)["loss"]
        with FlopCounterMode(display=False) as backward:
            loss.backward()
    assert flops == checkpointed
    assert flops.forward == pytest.approx(forward.get_total_flops(), rel=0.05)
    assert flops.backward == pytest.approx(backward.get_total_flops(), rel=0.05)


def test_backward_counts_the_gradients_that_are_needed():
    x, weight = torch.zeros(3, 4), torch.zeros(5, 4)
    for needed in ((False, False), (False, True), (True, True)):
        with counted() as flops:
            functional.linear(x.requires_grad_(needed[0]), weight.requires_grad_(needed[1]))
        assert (flops.forward, flops.backward) == (2 * 3 * 4 * 5, sum(needed) * 2 * 3 * 4 * 5)
    query, key = torch.zeros(2, 6, 3, 4, requires_grad=True), torch.zeros(2, 6, 7, 4)  # (B, heads, length, head_dim)
    with counted() as flops:
        functional.scaled_dot_product_attention(query, key, key)
    assert (flops.forward, flops.backward) == (4 * 2 * 6 * 3 * 7 * 4, 8 * 2 * 6 * 3 * 7 * 4)
    with counted() as flops, torch.no_grad():
        functional.linear(x, weight)
    assert flops.backward == 0


def test_a_frozen_language_model_costs_one_gradient(shape):
    """Under LoRA a frozen matrix passes its gradient on and has none: backward is less than twice the forward."""
    model, _ = gpu_models.sft(shape, CPU)
    layer = model.vlm.get_base_model().model.language_model.layers[1].mlp.up_proj
    x = torch.zeros(7, layer.in_features, requires_grad=True)
    with counted() as flops, bf16():
        layer(x)
    base, rank = 2 * 7 * layer.in_features * layer.out_features, shape.params.sft.lora.rank
    adapter = 2 * 7 * rank * (layer.in_features + layer.out_features)
    assert (flops.forward, flops.backward) == (base + adapter, base + 2 * adapter)


def test_every_row_runs_and_the_json_holds_them(capsys, monkeypatch):
    monkeypatch.setattr(gpu, "BATCHES", (1, 2))
    with pytest.raises(SystemExit) as ended:
        gpu.main(["--shape", "tiny", "--json", "--repetitions", "1"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    result = json.loads(text.splitlines()[-1])
    assert {"name", "hardware", "rows", "ratios", "bars", "pass"} == set(result)
    assert {"gpu", "memory_gb", "peak_tflops", "torch", "shape"} <= set(result["hardware"])
    trained = [row for row in result["rows"] if row["what"] in (gpu.SFT, gpu.MAE, gpu.ENCODER, gpu.QLORA)]
    assert [(row["what"], row["batch"]) for row in trained][:4] == [
        (gpu.SFT, 1), (gpu.SFT, 2), (gpu.MAE, 1), (gpu.MAE, 2),
    ]  # fmt: skip
    for row in trained:
        assert row["status"] == "ok" and row["seconds"] > 0 and row["samples_per_second"] > 0
        assert row["mfu"] is None and (row["tflop"] is None) == (row["what"] == gpu.QLORA)
    by = {(row["what"], row["batch"], row.get("tokens"), row["checkpointing"]): row for row in trained}
    assert by[gpu.SFT, 2, None, True]["tflop"] == pytest.approx(2 * by[gpu.SFT, 1, None, True]["tflop"], rel=1e-3)
    # Four times the tokens, and more than four times the pairs of them.
    every, visible = by[gpu.ENCODER, 2, "all", True], by[gpu.ENCODER, 2, "visible", True]
    assert 4 < every["tflop"] / visible["tflop"] < 8
    assert visible["tflop"] == by[gpu.ENCODER, 2, "visible", False]["tflop"]
    assert by[gpu.MAE, 2, "visible", True]["estimated_gb"] > by[gpu.MAE, 1, "visible", True]["estimated_gb"] > 0
    assert by[gpu.SFT, 1, None, True]["estimated_gb"] > 0
    assert len([name for name in result["ratios"] if "MAE encoder" in name]) == 4
    assert not result["bars"]  # of a toy
    (head, rule, *lines) = [line for line in text.splitlines() if line.startswith("|")]
    assert len(lines) == len(result["rows"]) and {line.count("|") for line in (head, rule, *lines)} == {13}


def test_qlora_says_that_bitsandbytes_is_missing(shape, monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)  # as if it were not installed
    report = Report(CPU, "tiny", 1)
    gpu.qlora_rows(report, shape)
    (row,) = report.rows
    assert "bitsandbytes is not installed" in row["status"]


def test_qlora_trains_adapters_on_four_bits_and_on_the_encoder(shape):
    bitsandbytes = pytest.importorskip("bitsandbytes")
    model, groups = gpu_models.qlora(shape, CPU)
    modules = dict(model.vlm.named_modules())
    packed = [name for name, module in modules.items() if isinstance(module, bitsandbytes.nn.Linear4bit)]
    assert len(packed) == 2 * 7 and all("language_model.layers" in name for name in packed)
    assert {"lora", "blocks_lora", "patch_embed", "merger", "head"} == set(groups.groups)
    assert all(p.dtype == torch.float32 for p in groups.parameters())


def test_out_of_memory_is_a_row_and_the_next_one_runs(shape):
    report = Report(CPU, "7b", 1)
    weight = torch.ones(3, requires_grad=True)

    def too_large():
        raise torch.OutOfMemoryError("CUDA out of memory")

    with report.part("SFT LoRA"):
        for batch, loss in ((1, weight.sum), (2, too_large), (4, weight.sum)):
            with report.row(gpu.ENCODER, batch, tokens="visible", checkpointing=False) as row:
                report.measure(row, loss, lambda: None)
    with report.part("MAE"):
        too_large()
    with report.row("QLoRA step", 1, limit_gb=22):
        raise ValueError("of one row")
    assert [row["status"] for row in report.rows] == [
        "ok", "out of memory", "ok", "out of memory", "failed: ValueError: of one row",
    ]  # fmt: skip
    assert report.find(gpu.ENCODER, 2) is None and report.find(gpu.ENCODER, 4)["batch"] == 4
    gpu.ratios_and_bars(report, barred=True)
    assert [bar["holds"] for bar in report.bars.values()] == [None, None, None]
    with pytest.raises(SystemExit) as ended:
        report.finish(json_asked=False)
    assert ended.value.code == 1


def test_bars_hold_or_miss_by_the_rows(capsys):
    report = Report(CPU, "7b", 1)
    for tokens, seconds, mfu in (("visible", 1.0, 0.4), ("all", 2.9, 0.5)):
        for checkpointing in (True, False):
            facts = {"tokens": tokens, "checkpointing": checkpointing}
            with report.row(gpu.ENCODER, 4, **facts) as row:
                row |= {"seconds": seconds, "mfu": mfu - 0.1 * checkpointing}
    for what, batch, peak in ((gpu.QLORA, 1, 13.5), ("QLoRA, 16 tokens", 1, 12.0)):
        with report.row(what, batch, limit_gb=22) as row:
            row["reserved_gb"] = peak
    gpu.ratios_and_bars(report, barred=True)
    assert report.bars["GB reserved, QLoRA"]["value"] is None  # a generation is missing
    with report.row("QLoRA, 16 tokens", 2, limit_gb=22):
        raise torch.OutOfMemoryError("CUDA out of memory")
    with report.row("QLoRA, 16 tokens", 2, limit_gb=None) as row:
        row["reserved_gb"] = 23.0
    gpu.ratios_and_bars(report, barred=True)
    assert {name: (bar["value"], bar["holds"]) for name, bar in report.bars.items()} == {
        "all/visible, MAE encoder": (2.9, False),
        "MFU, MAE encoder": (0.4, True),
        "GB reserved, QLoRA": (23.0, False),
    }
    with pytest.raises(SystemExit) as ended:
        report.finish(json_asked=True)
    assert ended.value.code == 1 and not json.loads(capsys.readouterr().out.splitlines()[-1])["pass"]


@without_gpu
def test_a_machine_without_a_gpu_is_told_so(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["bench.gpu", "--json"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("bench.gpu", run_name="__main__")
    assert ended.value.code == 69
    assert "bench.gpu: needs an NVIDIA GPU" in capsys.readouterr().err


def test_the_full_size_has_the_images_of_the_issue():
    """980 px in patches of 14 are 4900, merged to 1225 tokens, and the model finds as many places for them."""
    shape = gpu_models.seven_b()
    batch = gpu_models.samples(shape, 1, CPU)
    image = batch["input_ids"] == shape.config().image_token_id
    assert image.sum() == 1225 and batch["tiles"].shape == (1, 64, 980, 980)
    assert int(batch["input_ids"].max()) < shape.config().get_text_config().vocab_size
    model, groups = gpu_models.sft(shape, torch.device("meta"))
    assert {"lora", "merger", "head", "blocks", "patch_embed"} == set(groups.groups)
    assert sum(p.numel() for p in groups.groups["lora"][0]) == 40_370_176  # rank 16, see core/test_full_size.py
    assert {p.dtype for p in model.parameters()} == {torch.float32, torch.bfloat16}
