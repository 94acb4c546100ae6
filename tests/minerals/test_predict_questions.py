"""Questions to a model about one tile of a scene or a PNG: its answer, and every bad input named."""

import io
import re
import sys

import numpy as np
import pytest
from PIL import Image

from src.core.models import chat
from src.core.stage.errors import DataError, ParamsError, StorageError
from src.minerals.data.conversations import QUESTIONS
from src.minerals.data.samples import prompt
from src.minerals.models import answering, model_folder, scene_answers
from tests.minerals.cubes import scene, write_envi
from tests.minerals.trained import CHINESE, KINDS, LIST, ask, by_hand, changed


@pytest.fixture(autouse=True)
def brief(monkeypatch):
    """An untrained model does not know where to end."""
    monkeypatch.setattr(scene_answers, "LONGEST", 12)


def test_a_question_is_answered_from_the_tile_and_writes_nothing(stages, models, cubes, call, capsys, tmp_path):
    png = stages.tiles / "images/clay/s1_0032_0000.png"
    tile = ["--cube", cubes / "s1.hdr", "--tile", 32, 0]
    for kind in KINDS:
        ask(call, tile, models / kind, LIST)
        (expected,) = by_hand(models, kind, stages, "s1_0032_0000", [LIST])
        assert capsys.readouterr().out == expected + "\n"
        if kind == "rgb":
            ask(call, ["--png", png], models / kind, LIST)
            assert capsys.readouterr().out == expected + "\n"
    assert not list(tmp_path.iterdir())


def test_control_tokens_and_the_image_mark_in_a_question_stay_text(models, stages, call, monkeypatch, tmp_path):
    """Of a pretrained model, which reads any wording."""
    folder = changed(models / "rgb", tmp_path / "model", pretrained=True)
    seen = []
    monkeypatch.setattr(answering, "prompt", lambda *given: seen.append(prompt(*given)) or seen[-1])
    png = stages.tiles / "images/clay/s1_0032_0000.png"
    tokenizer = model_folder.load(models / "rgb")[1]
    question = f"<image>\nA{chat.IM_END}{chat.IMAGE_PAD}B"
    ask(call, ["--png", png], folder, question)
    (ids,) = seen
    assert ids.count(tokenizer.convert_tokens_to_ids(chat.IM_END)) == 1
    assert ids.count(tokenizer.convert_tokens_to_ids(chat.IMAGE_PAD)) == 4 and question in tokenizer.decode(ids)


def test_a_conversation_is_of_independent_questions_until_an_empty_line(stages, models, call, capsys, monkeypatch):
    source = ["--png", stages.tiles / "images/clay/s1_0032_0000.png"]
    expected = []
    for question in (LIST, CHINESE):
        ask(call, source, models / "rgb", question)
        expected.append(capsys.readouterr().out)
    assert expected[0] != expected[1]
    for typed, answers in (
        (f"{LIST}\n{CHINESE}\n\n{LIST}\n", "".join(expected)),
        (f"{CHINESE}\n{LIST}", "".join(expected[::-1])),
        ("", ""),
    ):
        monkeypatch.setattr(sys, "stdin", io.StringIO(typed))
        call(*source, "--model", models / "rgb", "--interactive", asked=True)
        assert capsys.readouterr().out == answers


@pytest.mark.parametrize(
    ("question", "languages", "said", "listed"),
    [
        ("Any clay?", ["en", "zh"], "'Any clay?' is none of the questions that the model knows", "en"),
        ("有黏土吗？", ["en", "zh"], "模型不认识问题'有黏土吗？'", "zh"),
        (CHINESE, ["en"], f"模型不认识问题{CHINESE!r}", "en"),
    ],
)
def test_other_wordings_get_a_list_of_the_known_ones_instead_of_an_answer(
    models, stages, call, capsys, monkeypatch, tmp_path, question, languages, said, listed
):  # fmt: skip
    source = ["--png", stages.tiles / "images/clay/s1_0032_0000.png"]
    folder = changed(models / "rgb", tmp_path / "model", languages=languages)
    known = [f"  {one}" for (_, language), asked in QUESTIONS.items() for one in asked if language == listed]
    with pytest.raises(ParamsError, match=re.escape(f"--ask: {said}")) as error:
        ask(call, source, folder, question)
    assert str(error.value).splitlines()[1:] == known and len(known) == 9
    ask(call, source, folder, LIST)
    expected = capsys.readouterr().out
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{question}\n  {LIST.upper().rstrip('?')} \n"))
    call(*source, "--model", folder, "--interactive", asked=True)
    printed = capsys.readouterr()
    assert printed.out == expected and said in printed.err


def test_a_pretrained_model_is_asked_in_any_words(models, stages, call, capsys, tmp_path):
    source = ["--png", stages.tiles / "images/clay/s1_0032_0000.png"]
    ask(call, source, changed(models / "rgb", tmp_path / "model", pretrained=True), "Any clay?")
    assert capsys.readouterr().out.splitlines() == by_hand(models, "rgb", stages, "s1_0032_0000", ["Any clay?"])


def test_a_question_about_ground_of_other_origin_is_answered_with_a_warning(models, cubes, call, capsys, tmp_path):
    folder = changed(models / "rgb", tmp_path / "model", scenes=["cuprite"])
    ask(call, ["--cube", cubes / "s1.hdr", "--tile", 0, 0], folder, LIST)
    printed = capsys.readouterr()
    assert "warning" not in printed.out and printed.out.strip()
    assert "trained on 1 measured scene (cuprite) alone, so its words about s1.hdr are untested" in printed.err


def test_bytes_that_are_no_text_are_named(stages, models, call, monkeypatch):
    source = ["--png", stages.tiles / "images/clay/s1_0032_0000.png"]
    with pytest.raises(ParamsError, match="--ask: found bytes that are not UTF-8"):
        ask(call, source, models / "rgb", b"clay\xff".decode(errors="surrogateescape"))
    for errors in ("strict", "surrogateescape"):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"clay\xff\n"), "utf-8", errors))
        with pytest.raises(DataError, match="standard input: found bytes that are not UTF-8"):
            call(*source, "--model", models / "rgb", "--interactive", asked=True)


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ("--cube s1.hdr --tile 0 0 --ask Q", ParamsError, "--model: missing; name a folder that the sft stage"),
        ("--cube s1.hdr --model rgb --ask Q", ParamsError, "--tile: missing; name first line and sample"),
        ("--cube s1.hdr --model rgb --tile 0 0", ParamsError, "--tile: not used without --ask or --interactive"),
        ("--cube s1.hdr --model rgb --tile 0 0 --ask Q --out o", ParamsError, "--out: not used with --ask or"),
        (
            "--cube s1.hdr --model rgb --tile 33 0 --ask Q",
            ParamsError,
            "--tile: found 33 0, .*32 px within the 64 lines",
        ),
        ("--cube s1.hdr --model rgb --tile 0 -1 --ask Q", ParamsError, "--tile: found 0 -1, expected first line"),
        ("--cube s1.hdr --out o --language en", ParamsError, "--language: not used without --model"),
        ("--cube s1.hdr --model rgb --tile 0 0 --ask Q --scale 0", ParamsError, "--scale: found 0, expected a number"),
        ("--cube gap.hdr --model rgb --tile 0 0 --ask Q", DataError, "tile 0 0: found data in 50% of its pixels"),
        ("--png a.png --model rgb", ParamsError, "--png: found neither --ask nor --interactive"),
        ("--png a.png --model rgb --ask _", ParamsError, "--ask: found an empty question"),
        ("--png a.png --model rgb --ask Q --scale 0", ParamsError, "--scale: not used with --png"),
        ("--png a.png --model rgb --tile 0 0 --interactive", ParamsError, "--tile: not used with --png"),
        (
            "--png a.png --model bands --ask Q",
            DataError,
            "a.png: found a picture, expected the 186 bands .*bands reads",
        ),
        ("--png a.png --model rgb --ask Q", DataError, "a.png: found 32 x 31 px in RGB, expected a PNG of 32 x 32"),
        ("--png grey.png --model rgb --ask Q", DataError, "grey.png: found 32 x 32 px in L, expected"),
        ("--png cut.png --model rgb --ask Q", DataError, "cut.png: found a damaged PNG"),
        ("--png s1.hdr --model rgb --ask Q", DataError, "s1.hdr: found no PNG, expected a PNG of 32 x 32 px"),
        ("--png none.png --model rgb --ask Q", StorageError, "none.png: cannot read: No such file.*correct --png"),
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
    places |= {name: models / name for name in KINDS} | {"_": " ", "Q": LIST}
    with pytest.raises(error, match=said):
        call(*(places.get(text, text) for text in options.split()), asked=True)
    assert {path.name for path in tmp_path.iterdir()} == before
