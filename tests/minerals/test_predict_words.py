"""A model's words about a scene, a tile or a PNG: its input is that of the training, and every bad input is named."""

import io
import json
import shutil
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import safetensors.numpy
import torch
from PIL import Image

from src.core.models import chat
from src.core.stage import params as params_file
from src.core.stage.errors import DataError, ParamsError, StorageError
from src.minerals import bands, ingest, map, split, tiles
from src.minerals.data import band_table, conversations, cube_files
from src.minerals.data.cube_store import CubeStore
from src.minerals.data.samples import prompt
from src.minerals.data.simulated_spectra import WAVELENGTHS
from src.minerals.models import answering, model_folder, model_inputs, scene_answers, starting_model
from src.minerals.models.mineral_model import MineralModel
from src.minerals.params import Params
from tests.conftest import minerals_params
from tests.minerals.cubes import LIBRARY, scene, write_envi

KINDS = ("rgb", "bands", "rgb_groups")
SMALL = {"vision_width": 32, "text_width": 32, "text_depth": 1, "vision_depth": 1}
SIDE = 32


@pytest.fixture(scope="module")
def stages(cubes, params_yaml, tmp_path_factory):
    """Outputs of the stages up to `tiles`, of the three scenes."""
    params, folder = params_file.read(params_yaml, Params), tmp_path_factory.mktemp("stages")
    paths = SimpleNamespace(root=cubes, library=LIBRARY, params=params)
    for name, stage in {"store": ingest, "bands": bands, "split": split, "map": map, "tiles": tiles}.items():
        stage.main(params, paths, SimpleNamespace(out=folder / name))
        setattr(paths, name, folder / name)
    return paths


@pytest.fixture(scope="module")
def models(stages, tmp_path_factory):
    """Folder with an untrained model of each input."""
    folder, store = tmp_path_factory.mktemp("models"), CubeStore.open(stages.store)
    kept = band_table.read_kept(stages.bands, store)
    statistics = safetensors.numpy.load_file(stages.tiles / "statistics.safetensors")
    about = json.loads((stages.tiles / "settings.json").read_text())
    small = minerals_params({f"model.tiny.{name}": value for name, value in SMALL.items()})
    corpus = [question for asked in conversations.QUESTIONS.values() for question in asked]
    for kind in KINDS:
        settings = model_folder.Settings(
            input=kind, composite="clay", wavelengths=store.wavelengths[kept].tolist(),
            mean=statistics["mean"].tolist(), sd=statistics["sd"].tolist(), stretch=about["stretch"]["clay"],
            tile_px=SIDE, model_px=SIDE, languages=["en", "zh"], altered=0.1, present=0.02,
        )  # fmt: skip
        vlm, tokenizer = starting_model.start(small, int(kept.sum()) if kind == "bands" else 3, SIDE, corpus, False)
        model_folder.save(folder / kind, MineralModel(vlm), tokenizer, settings, folder, torch.float32)
    return folder


@pytest.fixture(autouse=True)
def brief(monkeypatch):
    """An untrained model does not know where to end."""
    monkeypatch.setattr(scene_answers, "LONGEST", 12)


def ask(call, source, model, question):
    call(*source, "--model", model, "--ask", question, asked=True)


def by_hand(models, kind, stages, tile: str, questions: list[str]) -> list[str]:
    """Answers about a tile of the stages, each question alone."""
    model, tokenizer, settings = model_folder.load(models / kind)
    images = model_inputs.tile_images(kind, stages, stages.params, settings.model_px)
    answerer = answering.Answerer(model, tokenizer, images)
    items = [{"tile": tile, "conversations": [{"value": f"<image>\n{question}"}]} for question in questions]
    return [answerer.answer([item], [tile], 12, "")[0] for item in items]


@pytest.mark.parametrize("kind", KINDS)
def test_tiles_of_a_cube_are_bit_for_bit_those_of_the_training(stages, models, cubes, kind):
    model = scene_answers.TileModel(models / kind)
    cube = cube_files.open_cube(cubes / "s1.hdr", None, None, None)
    mine = model._answerer(model.tiles_of(cube, np.ones(224, bool))).images
    theirs = model_inputs.tile_images(kind, stages, stages.params, SIDE)
    seen = mine.batch([(0, 0), (32, 0)])
    assert torch.equal(seen, theirs.batch(["s1_0000_0000", "s1_0032_0000"])) and seen.std() > 0.1
    assert not torch.equal(seen[0], seen[1])


def test_a_tile_is_where_it_says_and_blocks_of_lines_change_nothing(models, cubes, tmp_path, monkeypatch):
    """Of two scenes side by side, the right one begins at sample 32."""
    values = np.concatenate([scene(1), scene(2)], axis=1)
    header = {"reflectance_scale_factor": None, "data_ignore_value": -1}
    wide = write_envi(tmp_path, "wide", values, dtype=np.float32, **header)
    model = scene_answers.TileModel(models / "bands")

    def tiles_of(path):
        return model.tiles_of(cube_files.open_cube(path, None, None, None), np.ones(224, bool))

    expected = {left: tiles_of(cubes / f"s{1 + left // 32}.hdr") for left in (0, 32)}
    for block_bytes in (cube_files.BLOCK_BYTES, 4 * 64 * 224 * 5):
        monkeypatch.setattr(cube_files, "BLOCK_BYTES", block_bytes)
        tiles = tiles_of(wide)
        for top, left in ((0, 0), (0, 32), (32, 0), (32, 32)):
            np.testing.assert_array_equal(tiles.relative((top, left))[0], expected[left].relative((top, 0))[0])
    corners = [(0, 32), (32, 0), (32, 32)]
    table = model.answer_scene(tiles, corners, "en")
    places = table[["tile_row", "tile_column", "top", "left"]].to_numpy()[::3].tolist()
    assert places == [[0, 1, 0, 32], [1, 0, 32, 0], [1, 1, 32, 32]]


@pytest.mark.parametrize("language", ["en", "zh"])
def test_every_whole_tile_has_an_answer_to_each_task(stages, models, cubes, call, tmp_path, language):
    given = ["--cube", cubes / "s1.hdr", "--model", models / "bands", "--language", language]
    out = call(*given, out=tmp_path / "a")
    table = pd.read_csv(out / "answers.csv", keep_default_na=False)
    assert table["task"].tolist() == 2 * list(conversations.TASKS)
    assert table[["tile_row", "tile_column", "top", "left"]].iloc[[0, 3]].to_numpy().tolist() == [
        [0, 0, 0, 0], [1, 0, 32, 0]
    ]  # fmt: skip
    questions = [conversations.QUESTIONS[task, language][0] for task in conversations.TASKS]
    expected = [text for top in (0, 32) for text in by_hand(models, "bands", stages, f"s1_{top:04d}_0000", questions)]
    # A CSV file has line ends of its own.
    assert [text.split() for text in table["text"]] == [text.split() for text in expected]
    again = call(*given, out=tmp_path / "b")
    assert (again / "answers.csv").read_bytes() == (out / "answers.csv").read_bytes()


def test_answers_are_read_and_counted_beside_the_map(models, cubes, call, capsys, monkeypatch):
    said = [
        "Yes. Copper-related minerals cover 12 %.", "none.",
        "Minerals: alunite 12 %, calcite 3 %. Not found: kaolinite. Main zone: carbonate; no sign of copper.",
        "Perhaps.", "kaolinite, alunite.", "Minerals: alunite.",
    ]  # fmt: skip
    monkeypatch.setattr(
        answering.Answerer,
        "answer",
        lambda self, items, *_: said[: len(items)] if items[0]["tile"] == (0, 0) else said[3:],
    )
    out = call("--cube", cubes / "s1.hdr", "--model", models / "rgb")
    verdict = capsys.readouterr().out.splitlines()[0]
    table = pd.read_csv(out / "answers.csv", keep_default_na=False)
    assert table["text"].tolist() == said
    assert table["altered"].tolist() == ["True", "", "False", "", "", ""]
    assert table["minerals"].tolist() == ["", "none", "alunite; calcite", "", "alunite; kaolinite", ""]
    summary = json.loads((out / "summary.json").read_text())
    assert summary["words"] == {
        "model": "rgb", "input": "rgb", "language": "en", "altered": 1, "not_readable": 1
    }  # fmt: skip
    assert f"{summary['tiles']['altered']} of 2 tiles altered" in verdict
    assert verdict.endswith(", 1 by the words of the model (of 1 the answer cannot be read)")


def test_map_and_words_are_about_the_models_tiles(models, cubes, call, capsys):
    """The pipeline's own tiles of 64 px do not fit into this scene, those of the model do."""
    default = "pipelines/minerals/params.yaml"
    out = call("--cube", cubes / "s1.hdr", "--model", models / "rgb", "--params", default)
    assert json.loads((out / "summary.json").read_text())["tiles"]["count"] == 2
    write_envi(cubes / "..", "narrow", scene(1)[:, :20], dtype=np.float32, reflectance_scale_factor=None)
    capsys.readouterr()
    out = call("--cube", cubes / "../narrow.hdr", "--model", models / "rgb")
    assert len(pd.read_csv(out / "answers.csv")) == 0
    assert "no tile of 32 px with enough data fits into it: the model answers" in capsys.readouterr().out


def test_a_question_is_answered_from_the_tile_and_writes_nothing(stages, models, cubes, call, capsys, tmp_path):
    png = stages.tiles / "images/clay/s1_0032_0000.png"
    tile = ["--cube", cubes / "s1.hdr", "--tile", 32, 0]
    for kind in KINDS:
        ask(call, tile, models / kind, "Any clay?")
        (expected,) = by_hand(models, kind, stages, "s1_0032_0000", ["Any clay?"])
        assert capsys.readouterr().out == expected + "\n"
        if kind == "rgb":
            ask(call, ["--png", png], models / kind, "Any clay?")
            assert capsys.readouterr().out == expected + "\n"
    assert not list(tmp_path.iterdir())


def test_control_tokens_and_the_image_mark_in_a_question_stay_text(models, stages, call, monkeypatch):
    seen = []
    monkeypatch.setattr(answering, "prompt", lambda *given: seen.append(prompt(*given)) or seen[-1])
    png = stages.tiles / "images/clay/s1_0032_0000.png"
    tokenizer = model_folder.load(models / "rgb")[1]
    question = f"<image>\nA{chat.IM_END}{chat.IMAGE_PAD}B"
    ask(call, ["--png", png], models / "rgb", question)
    (ids,) = seen
    assert ids.count(tokenizer.convert_tokens_to_ids(chat.IM_END)) == 1
    assert ids.count(tokenizer.convert_tokens_to_ids(chat.IMAGE_PAD)) == 4 and question in tokenizer.decode(ids)


def test_a_conversation_is_of_independent_questions_until_an_empty_line(stages, models, call, capsys, monkeypatch):
    source = ["--png", stages.tiles / "images/clay/s1_0032_0000.png"]
    expected = []
    for question in ("Any clay?", "列出矿物。"):
        ask(call, source, models / "rgb", question)
        expected.append(capsys.readouterr().out)
    assert expected[0] != expected[1]
    for typed, answers in (
        ("Any clay?\n列出矿物。\n\nAny clay?\n", "".join(expected)),
        ("列出矿物。\nAny clay?", "".join(expected[::-1])),
        ("", ""),
    ):
        monkeypatch.setattr(sys, "stdin", io.StringIO(typed))
        call(*source, "--model", models / "rgb", "--interactive", asked=True)
        assert capsys.readouterr().out == answers


def test_bytes_that_are_no_text_are_named(stages, models, call, monkeypatch):
    source = ["--png", stages.tiles / "images/clay/s1_0032_0000.png"]
    with pytest.raises(ParamsError, match="--ask: found bytes that are not UTF-8"):
        ask(call, source, models / "rgb", b"clay\xff".decode(errors="surrogateescape"))
    for errors in ("strict", "surrogateescape"):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"clay\xff\n"), "utf-8", errors))
        with pytest.raises(DataError, match="standard input: found bytes that are not UTF-8"):
            call(*source, "--model", models / "rgb", "--interactive", asked=True)


SHIFTED = np.where(np.abs(WAVELENGTHS - 2200) < 4, WAVELENGTHS + 0.6, WAVELENGTHS)
AT_2200 = int(np.abs(WAVELENGTHS - 2200).argmin())


@pytest.mark.parametrize(
    ("kind", "kept", "header", "said"),
    [
        ("bands", slice(None), {"wavelength": SHIFTED}, r"within 0.5 nm of 2200.06 nm \(2200.66 nm is the nearest\)"),
        (
            "bands",
            slice(0, 200),
            {"wavelength": WAVELENGTHS[:200]},
            r"models\S+/bands \(\d+ are missing\); use a model",
        ),
        ("bands", slice(None), {"bbl": (np.arange(224) != AT_2200).astype(int)}, "2200.06 nm is bad by the file's own"),
        ("rgb_groups", slice(None), {"wavelength": WAVELENGTHS + 2}, "found no usable band within 0.5 nm"),
        ("rgb", slice(0, 170), {"wavelength": WAVELENGTHS[:170]}, r"composite clay: 2200 nm.*models\S+/rgb reads this"),
    ],
)
def test_a_cube_without_the_models_bands_is_named(models, tmp_path, call, kind, kept, header, said):
    header = {key: [f"{value:g}" for value in values] for key, values in header.items()}
    values = scene(1)[..., kept]
    path = write_envi(tmp_path, "other", values, dtype=np.float32, reflectance_scale_factor=None, **header)
    with pytest.raises(DataError, match=f"other.hdr: .*{said}"):
        call("--cube", path, "--model", models / kind)
    assert not (tmp_path / "out").exists()


def test_bands_within_half_a_nanometre_and_rgb_of_another_sensor_are_taken(models, cubes, tmp_path, call):
    header = {"data_ignore_value": -1, "reflectance_scale_factor": None}
    for kind, shift in (("bands", 0.4), ("rgb", 2)):
        nm = [f"{value:.2f}" for value in WAVELENGTHS + shift]
        path = write_envi(tmp_path, f"near_{kind}", scene(1), dtype=np.float32, wavelength=nm, **header)
        out = call("--cube", path, "--model", models / kind, out=tmp_path / kind)
        assert len(pd.read_csv(out / "answers.csv")) == 6


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (None, "minerals.json: cannot read: No such file.*expected a folder that the sft stage wrote"),
        ({"input": "grey"}, "input: .*expected a folder that the sft stage wrote"),
        ({"mean": [0.5]}, "wavelengths, mean, sd, stretch: found .*copy the folder again"),
        ({"stretch": [[0.1, 0.2]]}, "wavelengths, mean, sd, stretch: found .*and three pairs"),
    ],
)
def test_a_folder_that_is_no_model_is_named(models, cubes, call, tmp_path, change, said):
    folder = shutil.copytree(models / "rgb", tmp_path / "model")
    if change is None:
        (folder / "minerals.json").unlink()
    else:
        settings = json.loads((folder / "minerals.json").read_text())
        (folder / "minerals.json").write_text(json.dumps(settings | change))
    with pytest.raises(DataError, match=said):
        call("--cube", cubes / "s1.hdr", "--model", folder)
    assert not (tmp_path / "out").exists()


def test_a_language_that_the_model_does_not_know_is_named(models, cubes, call, tmp_path):
    folder = shutil.copytree(models / "rgb", tmp_path / "model")
    settings = json.loads((folder / "minerals.json").read_text())
    (folder / "minerals.json").write_text(json.dumps(settings | {"languages": ["en"]}))
    with pytest.raises(ParamsError, match=r"--language: found zh, expected one that the model in .* trained in: en"):
        call("--cube", cubes / "s1.hdr", "--model", folder, "--language", "zh")


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ("--cube s1.hdr --tile 0 0 --ask Clay?", ParamsError, "--model: missing; name a folder that the sft stage"),
        ("--cube s1.hdr --model rgb --ask Clay?", ParamsError, "--tile: missing; name first line and sample"),
        ("--cube s1.hdr --model rgb --tile 0 0", ParamsError, "--tile: not used without --ask or --interactive"),
        ("--cube s1.hdr --model rgb --tile 0 0 --ask X --out o", ParamsError, "--out: not used with --ask or"),
        (
            "--cube s1.hdr --model rgb --tile 33 0 --ask X",
            ParamsError,
            "--tile: found 33 0, .*32 px within the 64 lines",
        ),
        ("--cube s1.hdr --model rgb --tile 0 -1 --ask X", ParamsError, "--tile: found 0 -1, expected first line"),
        ("--cube s1.hdr --out o --language en", ParamsError, "--language: not used without --model"),
        ("--cube s1.hdr --model rgb --tile 0 0 --ask X --scale 0", ParamsError, "--scale: found 0, expected a number"),
        ("--cube gap.hdr --model rgb --tile 0 0 --ask X", DataError, "tile 0 0: found data in 50% of its pixels"),
        ("--png a.png --model rgb", ParamsError, "--png: found neither --ask nor --interactive"),
        ("--png a.png --model rgb --ask _", ParamsError, "--ask: found an empty question"),
        ("--png a.png --model rgb --ask X --scale 0", ParamsError, "--scale: not used with --png"),
        ("--png a.png --model rgb --tile 0 0 --interactive", ParamsError, "--tile: not used with --png"),
        (
            "--png a.png --model bands --ask X",
            DataError,
            "a.png: found a picture, expected the 186 bands .*bands reads",
        ),
        ("--png a.png --model rgb --ask X", DataError, "a.png: found 32 x 31 px in RGB, expected a PNG of 32 x 32"),
        ("--png grey.png --model rgb --ask X", DataError, "grey.png: found 32 x 32 px in L, expected"),
        ("--png cut.png --model rgb --ask X", DataError, "cut.png: found a damaged PNG"),
        ("--png s1.hdr --model rgb --ask X", DataError, "s1.hdr: found no PNG, expected a PNG of 32 x 32 px"),
        ("--png none.png --model rgb --ask X", StorageError, "none.png: cannot read: No such file.*correct --png"),
        ("--spectra a.csv --model rgb", ParamsError, "--model: not used with --spectra"),
        ("--spectra a.csv --interactive", ParamsError, "--interactive: not used with --spectra"),
    ],
)
def test_options_that_do_not_go_together_are_named(models, tmp_path, call, options, error, said):
    values = scene(1)
    write_envi(tmp_path, "s1", values, dtype=np.float32, reflectance_scale_factor=None, data_ignore_value=-1)
    values[:16] = -1
    write_envi(tmp_path, "gap", values, dtype=np.float32, reflectance_scale_factor=None, data_ignore_value=-1)
    Image.new("RGB", (32, 31)).save(tmp_path / "a.png")
    Image.new("L", (32, 32)).save(tmp_path / "grey.png")
    noise = np.random.default_rng(0).integers(0, 255, (32, 32, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "cut.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:1000])
    before = {path.name for path in tmp_path.iterdir()}
    places = {name: tmp_path / name for name in ("s1.hdr", "gap.hdr", "a.png", "grey.png", "cut.png", "none.png", "o")}
    places |= {name: models / name for name in KINDS} | {"_": " "}
    with pytest.raises(error, match=said):
        call(*(places.get(text, text) for text in options.split()), asked=True)
    assert {path.name for path in tmp_path.iterdir()} == before


def test_help_and_maps_need_neither_torch_nor_transformers():
    program = "import sys\nfrom src.minerals import predict\nassert not {'torch', 'transformers'} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0
