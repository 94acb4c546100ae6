"""Embedding files: every form reads alike, and each way to be broken is named."""

import io
import pickle
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save, save_file

from src.core.stage.errors import DataError
from src.species.data import embedding_files

WIDTH = 1408
IDS = ["7_0", "10_0", "10_1", "10_12", "12_0"]


def values(count: int = len(IDS), dtype=np.float16) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((count, WIDTH)).astype(dtype)


def write_pack(root: Path, array: np.ndarray, ids: list[str], modality: str = "vision_pooled") -> Path:
    folder = root / "embeddings"
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / f"{modality}.npy", array)
    (folder / f"{modality}.ids.txt").write_text("\n".join(ids) + "\n")
    return folder / f"{modality}.npy"


def write_files(root: Path, array: np.ndarray, ids: list[str], suffixes=(".npy", ".safetensors")) -> Path:
    folder = root / "embeddings" / "vision_pooled"
    folder.mkdir(parents=True, exist_ok=True)
    for number, (row, name) in enumerate(zip(array, ids, strict=True)):
        path = folder / f"{name}{suffixes[number % len(suffixes)]}"
        if path.suffix == ".npy":
            np.save(path, row)
        else:
            save_file({"vision_pooled": row}, path)
    return folder


def find(root: Path) -> embedding_files.Source:
    return embedding_files.find(root, ["vision_pooled"])[0][0]


def write_columns_first(root: Path, array: np.ndarray, ids: list[str]) -> Path:
    return write_pack(root, np.asfortranarray(array), ids)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("form", [write_pack, write_columns_first, write_files])
def test_every_form_gives_the_same_rows_in_chunks(tmp_path, monkeypatch, form, dtype):
    monkeypatch.setattr(embedding_files, "CHUNK_BYTES", 2 * 4 * WIDTH)
    array = values(dtype=dtype)
    form(tmp_path, array, IDS)
    source = find(tmp_path)
    assert list(source.ids) == IDS  # in the order of numbers, where the order of names is another
    blocks = [embedding_files.read(source, chunk) for chunk in source.chunks()]
    assert [len(block) for block in blocks] == [2, 2, 1] and blocks[0].dtype == dtype
    np.testing.assert_array_equal(np.concatenate(blocks), array)


@pytest.mark.parametrize("form", [write_pack, write_files])
def test_a_file_that_changes_after_it_was_found_is_named(tmp_path, form):
    form(tmp_path, values(), IDS)
    source = find(tmp_path)
    for path in source.files:
        path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(DataError, match=rf"{source.files[0]}: found .* not what it was a moment ago; start again"):
        embedding_files.read(source, slice(0, 5))


def test_undeclared_files_are_told_and_forms_must_not_mix(tmp_path):
    write_pack(tmp_path, values(), IDS)
    write_pack(tmp_path, values(), IDS, modality="language")
    (tmp_path / "embeddings" / "readme.md").write_text("x")
    (tmp_path / "embeddings" / ".DS_Store").write_text("x")
    found, ignored = embedding_files.find(tmp_path, ["vision_pooled"])
    assert [source.modality for source in found] == ["vision_pooled"]
    assert ignored == ["language.ids.txt", "language.npy", "readme.md"]
    with pytest.raises(DataError, match=r"vision: found neither vision\.npy nor vision/"):
        embedding_files.find(tmp_path, ["vision"])
    with pytest.raises(DataError, match="vision_pooled: found neither"):
        embedding_files.find(tmp_path / "nowhere", ["vision_pooled"])
    write_files(tmp_path, values(), IDS)
    with pytest.raises(DataError, match="vision_pooled: found both"):
        find(tmp_path)


def npy(array: np.ndarray, **keywords) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, **keywords)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("5_0.npy", npy(values(1)[0, :-1]), r"shape: found \(1407,\), expected \(1408,\)"),
        ("5_0.npy", npy(values(1)), r"shape: found \(1, 1408\)"),
        ("5_0.npy", npy(values(1)[0].astype(np.float64)), "dtype: found float64"),
        ("5_0.npy", npy(np.zeros(WIDTH, np.int16)), "dtype: found int16"),
        ("5_0.npy", npy(values(1)[0])[:-2], "bytes: found 2942, expected 2944 as its header says, it is cut short"),
        ("5_0.npy", npy(values(1)[0]) + b"\0\0", "bytes: found 2946, expected 2944 as its header says; copy it again"),
        ("5_0.npy", npy(np.array([{}] * WIDTH), allow_pickle=True), "Python objects"),
        ("5_0.npy", pickle.dumps([1]), "expected plain numbers by numpy.save"),
        ("5_0.npy", npy(values(1)[0])[:100], "expected plain numbers by numpy.save"),
        ("5_0.npy", b"", "expected plain numbers by numpy.save"),
        (
            "5_0.safetensors",
            save({"vision_pooled": values(1)[0]})[:-1],
            "found 2895 bytes that are no whole safetensors file .* cut short",
        ),
        ("5_0.safetensors", save({"language": values(1)[0]}), "tensors: found language, expected vision_pooled alone"),
        ("5_0.safetensors", save({"vision_pooled": values(1)[0], "b": values(1)[0]}), "found b, vision_pooled"),
        ("5_0.safetensors", save({"vision_pooled": values(1)[0].astype(np.float64)}), "dtype: found F64"),
        ("photo.npy", npy(values(1)[0]), r"observation id: found 'photo'"),
        ("05_0.npy", npy(values(1)[0]), r"observation id: found '05_0'"),
        ("10_0.safetensors", save({"vision_pooled": values(1)[0]}), "id: found 10_0 twice"),
        ("5_0.txt", b"x", "found neither .npy nor .safetensors"),
    ],
)
def test_a_broken_file_is_named(tmp_path, name, content, message):
    folder = write_files(tmp_path, values(), IDS, suffixes=(".npy",))
    (folder / name).write_bytes(content)
    with pytest.raises(DataError, match=message) as raised:
        find(tmp_path)
    assert str(folder) in str(raised.value)


def test_a_broken_pack_is_named(tmp_path):
    path = write_pack(tmp_path, values(), IDS)
    content, ids = path.read_bytes(), path.with_suffix(".ids.txt")
    for changed, message in (
        (content[:-1], "bytes: found 14207, expected 14208 as its header says, it is cut short"),
        (content + b"\0", "bytes: found 14209, expected 14208"),
        (npy(values()[:, :5]), r"shape: found \(5,\), expected \(1408,\)"),
        (npy(values(4)), "found 5 lines, expected one for each of the 4 rows"),
    ):
        path.write_bytes(changed)
        with pytest.raises(DataError, match=message):
            find(tmp_path)
    path.write_bytes(content)
    for lines, message in (
        (["7_0", "10_0", "7_0", "10_1", "10_0"], "id: found 7_0, 10_0 twice"),
        ([*IDS[:4], "12"], "line 5: observation id: found '12'"),
        ([*IDS[:4], ""], "line 5: observation id: found ''"),
    ):
        ids.write_text("\n".join(lines) + "\n")
        with pytest.raises(DataError, match=message):
            find(tmp_path)
    ids.unlink()
    with pytest.raises(DataError, match=r"ids\.txt: missing"):
        find(tmp_path)


@pytest.mark.parametrize(
    ("bad", "shown"), [(np.nan, "nan"), (-np.inf, "-inf"), (65600.0, "65600.0"), (1e20, r"1\.0\d*e\+20")]
)
def test_a_number_that_float16_cannot_hold_is_named(tmp_path, bad, shown):
    array = values(dtype=np.float32)
    array[0, 0], array[3, 17] = 65504, bad
    pack = write_pack(tmp_path, array, IDS)
    source = find(tmp_path)
    block = embedding_files.read(source, slice(0, 5))
    message = rf"vision_pooled of 10_12: found {shown}, expected finite numbers within ±65504"
    with pytest.raises(DataError, match=message) as raised:
        embedding_files.check_values(source, source.ids, block)
    assert str(raised.value).startswith(f"{pack}: ")
    array[3, 17] = 0
    assert embedding_files.check_values(source, source.ids, array).dtype == np.float16


@pytest.mark.parametrize("form", [write_pack, write_files])
def test_zeros_alone_are_no_embedding(tmp_path, form):
    array = values(dtype=np.float32)
    array[2] = 1e-9  # zero as float16
    written = form(tmp_path, array, IDS)
    source = find(tmp_path)
    block = embedding_files.read(source, slice(0, 5))
    with pytest.raises(DataError, match="vision_pooled of 10_1: found zeros alone") as raised:
        embedding_files.check_values(source, source.ids, block)
    assert str(raised.value).startswith(f"{written if form is write_pack else written / '10_1.npy'}: ")
    array[2, 5] = 1
    assert embedding_files.check_values(source, source.ids, array)[2].any()


def test_nothing_but_the_mean_of_the_tokens_passes():
    pooled, other = np.random.default_rng(1).normal(0.1, 1, (2, 64)).astype(np.float32)
    embedding_files.require_agreement("1_0", pooled.astype(np.float16), pooled)
    for wrong in (other, pooled * 1.02, np.zeros(64)):
        with pytest.raises(DataError, match="vision_pooled of 1_0"):
            embedding_files.require_agreement("1_0", wrong, pooled)
