"""A misspelt, missing or impossible parameter is named, with the nearest key that exists."""

from pathlib import Path

import pytest
from ruamel.yaml import YAML

from src.core.stage import params
from src.core.stage.errors import ParamsError, StorageError
from src.population.params import Params

ROOT = Path(__file__).parents[3]


@pytest.fixture
def read_changed(tmp_path):
    """`read_changed(old, new)` -> the committed params.yaml with one text replaced, read from a file."""

    def read(old: str, new: str) -> Params:
        text = (ROOT / "params.yaml").read_text(encoding="utf-8")
        assert old in text
        path = tmp_path / "params.yaml"
        path.write_text(text.replace(old, new, 1), encoding="utf-8")
        return params.read(path, Params)

    return read


def test_the_committed_file_is_valid():
    assert params.read(ROOT / "params.yaml", Params).model.bands == 64


@pytest.mark.parametrize("text", ["1e-05", "1.0e-05", "0.00001"])
def test_what_dvc_writes_for_a_small_rate_is_a_number(read_changed, text):
    """`-S sft.lr=1e-5` becomes `1e-05`, which PyYAML reads as a string."""
    rate = read_changed("  lr: 0.00002", f"  lr: {text}").dpo.lr
    assert rate == 1e-5 and isinstance(rate, float)


def test_an_integer_is_a_float_where_one_is_expected(read_changed):
    assert read_changed("buffer_km: 100", "buffer_km: 50").split.buffer_km == 50.0


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("  mask_ratio:", "  mask_ration:", r"pretrain\.mask_ration: unknown parameter; .* pretrain\.mask_ratio\?"),
        ("  lr: 0.00002", "  lrr: 0.00002", r"dpo\.lr: missing"),
        ("\nseed: 0", "\nsed: 0", r"sed: unknown parameter; did you mean seed"),
        ("  fold: 0", "  fold: '0'", r"split\.fold: found '0'; input should be a valid integer"),
        ("  fold: 0", "  fold: 0.5", r"split\.fold: found 0\.5"),
        ("  fold: 0", "  fold: 5", r"split: .*fold 5 of 4: expected 0 to 3"),
        ("mask_ratio: 0.75", "mask_ratio: 1.5", r"pretrain\.mask_ratio: found 1\.5; input should be less than 1"),
        ("input: bands", "input: rgb", r"model\.input: found 'rgb'; input should be 'bands' or 'pca3'"),
        ("norm_pix_loss: true", "norm_pix_loss: 1", r"pretrain\.norm_pix_loss: found 1; .*boolean"),
        ("\nthreads: ", "\nthreads: true  # ", r"threads: found True"),
        ("[1.0, 0.8, 0.6]", "[1.0, 2, 0.6]", r"pretrain\.scales\.1: found 2"),
    ],
)  # fmt: skip
def test_a_bad_value_is_named(read_changed, old, new, message):
    with pytest.raises(ParamsError, match=message) as caught:
        read_changed(old, new)
    assert "params.yaml: " in str(caught.value) and caught.value.exit_code == 2


def test_all_faults_are_told_at_once(read_changed):
    with pytest.raises(ParamsError) as caught:
        read_changed("  fold: 0", "  fold: x\n  fould: 1")
    assert "split.fold: found 'x'" in str(caught.value) and "split.fould: unknown" in str(caught.value)


@pytest.mark.parametrize(("text", "message"), [("a: [", "not YAML"), ("- 1\n", "found list"), ("", "found NoneType")])
def test_a_file_of_another_kind_is_refused(tmp_path, text, message):
    path = tmp_path / "params.yaml"
    path.write_text(text)
    with pytest.raises(ParamsError, match=message):
        params.read(path, Params)


def test_nothing_is_built_from_a_yaml_tag(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text("seed: !!python/object/apply:os.getpid []\n")
    with pytest.raises(ParamsError, match="not YAML"):
        params.read(path, Params)


def test_a_missing_file_is_a_storage_error(tmp_path):
    with pytest.raises(StorageError, match="cannot read the parameters"):
        params.read(tmp_path / "gone.yaml", Params)


@pytest.mark.parametrize("name", ["size", "nfiles"])
def test_a_key_that_dvc_would_not_see_cannot_be_declared(name):
    with pytest.raises(TypeError, match=rf"Data\.{name}: .*dvc#10296"):
        type("Data", (params.Section,), {"__annotations__": {name: int}})


@pytest.mark.parametrize("path", [ROOT / "params.yaml", *sorted(ROOT.glob("pipelines/*/params.yaml"))], ids=str)
def test_no_committed_key_is_one_that_dvc_leaves_out(path):
    def keys(values):
        for name, value in values.items() if isinstance(values, dict) else ():
            yield name
            yield from keys(value)

    values = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    found = list(keys(values))
    assert len(found) > 20 and not {"size", "nfiles"} & set(found)
