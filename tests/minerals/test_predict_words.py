"""A model's words about a scene: its input is that of the training, and every bad input is named."""

import json
import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch

from src.core.stage.errors import DataError, ParamsError
from src.minerals.data import conversations, cube_files
from src.minerals.data.simulated_spectra import WAVELENGTHS
from src.minerals.models import answering, model_inputs, scene_answers
from tests.minerals.cubes import scene, write_envi
from tests.minerals.trained import KINDS, SIDE, by_hand, changed


@pytest.fixture(autouse=True)
def brief(monkeypatch):
    """An untrained model does not know where to end."""
    monkeypatch.setattr(scene_answers, "LONGEST", 12)


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
        "model": "rgb", "input": "rgb", "language": "en", "altered": 1, "not_readable": 1, "warning": ""
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
            r"models\S+/bands \(\d+ are missing\); train a model on scenes of this sensor. .* rgb .* untested",
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
    folder = changed(models / "rgb", tmp_path / "model", **(change or {}))
    if change is None:
        (folder / "minerals.json").unlink()
    with pytest.raises(DataError, match=said):
        call("--cube", cubes / "s1.hdr", "--model", folder)
    assert not (tmp_path / "out").exists()


def test_a_language_that_the_model_does_not_know_is_named(models, cubes, call, tmp_path):
    folder = changed(models / "rgb", tmp_path / "model", languages=["en"])
    with pytest.raises(ParamsError, match=r"--language: found zh, expected one that the model in .* trained in: en"):
        call("--cube", cubes / "s1.hdr", "--model", folder, "--language", "zh")


SIMULATED = {"simulated": True, "scenes": ["scene_01", "scene_02", "scene_03", "scene_04"]}


def test_words_about_ground_of_other_origin_come_with_a_warning(models, cubes, call, capsys, tmp_path):
    folder = changed(models / "rgb", tmp_path / "model", **SIMULATED)
    out = call("--cube", cubes / "s1.hdr", "--model", folder)
    warning = f"the model in {folder} was trained on 4 simulated scenes (scene_01 to scene_04) alone, so its words "
    warning += "about s1.hdr are untested"
    assert capsys.readouterr().out.splitlines()[1] == f"warning: {warning}"
    assert json.loads((out / "summary.json").read_text())["words"]["warning"] == warning
    assert (pd.read_csv(out / "answers.csv")["warning"] == warning).all()
    call("--cube", cubes / "s1.hdr", "--model", models / "rgb")  # one of the scenes that it was trained on
    assert "warning" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("trained", "simulated", "path", "said"),
    [
        (SIMULATED, True, "new.hdr", None),  # another draw of the same simulation
        (SIMULATED, False, "scene_01.hdr", "on 4 simulated scenes"),
        (SIMULATED, None, "scene_01.hdr", "on 4 simulated scenes"),
        ({}, None, "s2.hdr", None),
        ({}, None, "s3.hdr", r"on 3 measured scenes \(s0, s1, s2\) alone, .* about s3.hdr"),
        ({"scenes": ["s0"]}, None, "s1.hdr", r"on 1 measured scene \(s0\) alone"),
        ({}, True, "s2.hdr", "on 3 measured scenes"),
        ({}, True, "s2_0000_0032.png", None),  # the tiles stage names its pictures so, below another folder
        ({}, None, "s3_0000_0032.png", "about s3_0000_0032.png are untested"),
        (SIMULATED, None, "tile.png", "about tile.png are untested"),
    ],
)
def test_the_origin_is_told_by_source_json_and_by_name(models, tmp_path, trained, simulated, path, said):
    if simulated is not None:
        (tmp_path / "source.json").write_text(json.dumps({"simulated": simulated, "description": ""}))
    else:
        (tmp_path / "source.json").write_text('["of the user"]')
    warning = scene_answers.TileModel(changed(models / "rgb", tmp_path / "model", **trained)).warning(tmp_path / path)
    assert re.search(said, warning) if said else warning == ""


def test_help_and_maps_need_neither_torch_nor_transformers():
    program = "import sys\nfrom src.minerals import predict\nassert not {'torch', 'transformers'} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0
