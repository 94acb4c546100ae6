"""The stage `annotate`: conversations that other programs load, whose answers are those of the map."""

import json
import re
from argparse import Namespace
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from src.core.stage import files
from src.core.stage.errors import DataError
from src.minerals import annotate
from src.minerals.data.conversations import LANGUAGES, QUESTIONS, TASKS, parse
from src.minerals.data.tile_table import is_altered
from src.minerals.mapping.minerals import NAMES
from tests.conftest import minerals_params
from tests.minerals.study import contents

ROLES = {"train": 20, "validation": 3, "test": 5}
NAME = {"train": "train", "validation": "val", "test": "test"}


def write_tiles(folder, composites=("clay", "iron"), roles=ROLES):
    """`folder` as the output of tiles, with shares drawn anew for each; truth differs from the map."""
    generator, rows = np.random.default_rng(0), []
    for role, count in roles.items():
        for number in range(count):
            row = {
                "tile": f"{role}_{number:04d}_0000",
                "scene": role,
                "block": 0,
                "role": role,
                "top": number,
                "left": 0,
            }
            shares = generator.dirichlet(np.full(8, 0.3)) * generator.choice([0, 0.2, 1])
            row |= {"valid": 1.0} | {f"map_{name}": share for name, share in zip(NAMES, shares, strict=True)}
            row |= {f"truth_{name}": share for name, share in zip(NAMES, shares[::-1], strict=True)}
            rows.append(row | {"map_altered": is_altered(shares, 0.1), "truth_altered": False})
    for name in composites:
        (folder / "images" / name).mkdir(parents=True)
        for row in rows:
            Image.new("RGB", (4, 4)).save(folder / "images" / name / f"{row['tile']}.png")
    files.write_table(folder / "tiles.parquet", pd.DataFrame(rows))
    files.write_json(
        folder / "settings.json", {"tile_px": 4, "altered": 0.1, "stretch": {name: [] for name in composites}}
    )
    return folder


def run(tmp_path, tiles, name="annotations", dry_run=False, **keys):
    params = minerals_params({f"annotate.{key}": value for key, value in keys.items()})
    annotate.main(params, Namespace(tiles=tiles), Namespace(out=tmp_path / name), dry_run)
    return tmp_path / name


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("annotate")
    tiles = write_tiles(folder / "tiles")
    return tiles, run(folder, tiles)


@pytest.fixture(scope="module", params=ROLES)
def items(request, made):
    """Conversations of one role, and the rows of their tiles."""
    table = pd.read_parquet(made[0] / "tiles.parquet")
    found = json.loads((made[1] / f"{NAME[request.param]}.json").read_text(encoding="utf-8"))
    return found, table[table["role"] == request.param].set_index("tile")


def test_every_tile_has_every_task_in_every_language_once(items):
    found, table = items
    assert Counter((item["tile"], item["task"], item["language"]) for item in found) == Counter(
        (tile, task, language) for tile in table.index for task in TASKS for language in LANGUAGES
    )


def test_ids_are_unique_over_all_files(made):
    ids = [item["id"] for name in NAME.values() for item in json.loads((made[1] / f"{name}.json").read_text())]
    assert len(ids) == len(set(ids)) == sum(ROLES.values()) * 6


def test_a_conversation_has_the_form_that_qwens_script_reads(items, made):
    for item in items[0]:
        human, gpt = item["conversations"]
        assert (human["from"], gpt["from"]) == ("human", "gpt") and item["images"] == [item["image"]]
        assert human["value"].startswith("<image>\n") and human["value"].count("<image>") == 1
        assert human["value"].removeprefix("<image>\n") in QUESTIONS[item["task"], item["language"]]
        with Image.open(made[0] / item["image"]) as picture:
            assert picture.size == (4, 4)
        assert item["image"] == f"images/clay/{item['tile']}.png"


def test_what_ms_swift_llama_factory_and_qwens_script_ask_of_an_item(items, made):
    """Their loaders drop, refuse or misread an item in which one of these does not hold, some without a word."""
    for item in items[0]:
        turns = item["conversations"]
        assert [turn["from"] for turn in turns] == ["human", "gpt"] * (len(turns) // 2)
        assert all(turn.keys() == {"from", "value"} and turn["value"].strip() for turn in turns)
        # Qwen's script reads `image`, the others `images`; one tag an image, none in an answer, which is not searched.
        assert [turn["value"].count("<image>") for turn in turns] == [len(item["images"]), 0]
        assert not any(re.search(r"<(video|audio|\|)", turn["value"]) for turn in turns)
        # Joined with `media_dir`, ROOT_IMAGE_DIR or `data_path`: an absolute path would leave that folder.
        assert all(not Path(image).is_absolute() and (made[0] / image).is_file() for image in item["images"])
        # Another column, such as system, label or num_tokens, may have a meaning to a loader.
        assert list(item) == ["id", "tile", "task", "language", "image", "images", "conversations"]
        assert all(isinstance(item[name], str) for name in list(item)[:5])  # a column has one type


def test_answers_are_those_of_the_map(items):
    found, table = items
    for item in found:
        row = table.loc[item["tile"]]
        said = parse(item["conversations"][1]["value"], item["task"], item["language"])
        present = {name for name in NAMES if row[f"map_{name}"] >= 0.02}
        if item["task"] != "minerals":
            assert said.altered == row["map_altered"]
        if item["task"] != "alteration":
            assert said.minerals == present
        if item["task"] == "analysis":
            assert said.shares == {name: pytest.approx(row[f"map_{name}"], abs=0.0051) for name in present}


def test_jsonl_holds_the_same_a_line_each(made):
    for name in NAME.values():
        lines = (made[1] / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
        assert [json.loads(line) for line in lines] == json.loads((made[1] / f"{name}.json").read_text())
    assert "高岭石" in (made[1] / "train.jsonl").read_text(encoding="utf-8")  # not escaped


def test_llama_factory_finds_files_and_columns(made):
    info = json.loads((made[1] / "dataset_info.json").read_text())
    assert list(info) == ["minerals_train", "minerals_val", "minerals_test"]
    for about in info.values():
        first = json.loads((made[1] / about["file_name"]).read_text())[0]
        assert about["formatting"] == "sharegpt" and set(about["columns"]) == {"messages", "images"}
        assert isinstance(first[about["columns"]["images"]], list)
        tags = about["tags"]
        turns = first[about["columns"]["messages"]]
        assert [turn[tags["role_tag"]] for turn in turns] == [tags["user_tag"], tags["assistant_tag"]]
        assert all(turn[tags["content_tag"]] for turn in turns)


def test_metadata_says_that_answers_come_from_the_map_and_which_class_is_which(made):
    about = json.loads((made[1] / "metadata.json").read_text())
    assert about["conversations"] == {role: count * 6 for role, count in ROLES.items()}
    assert about["answers_from"] == "the mineral map (pseudo-labels)" and about["altered"] == 0.1
    assert [about["classes"][str(1 + number)]["name"] for number in range(8)] == list(NAMES)
    described = json.loads((made[1] / "tiles_metadata.json").read_text())
    assert len(described) == sum(ROLES.values()) and not any("truth" in key for key in described[0])


def test_wordings_vary_and_stay_the_same_for_the_same_tile(tmp_path, made):
    items = json.loads((made[1] / "train.json").read_text())
    used = {item["conversations"][0]["value"].removeprefix("<image>\n") for item in items}
    assert all(len(used & set(questions)) >= 2 for questions in QUESTIONS.values())
    assert contents(run(tmp_path, made[0])) == contents(made[1])


def test_one_language_and_another_picture(tmp_path, made):
    folder = run(tmp_path, made[0], languages=["zh"], composite="iron")
    items = json.loads((folder / "train.json").read_text())
    assert {item["language"] for item in items} == {"zh"} and len(items) == ROLES["train"] * 3
    assert items[0]["image"].startswith("images/iron/")


def test_a_picture_that_was_not_drawn_and_a_role_without_tiles_are_named(tmp_path, made):
    with pytest.raises(DataError, match="images: found clay, iron, no natural; change `composite`"):
        run(tmp_path, made[0], composite="natural")
    with pytest.raises(DataError, match="test: found 0 conversations"):
        run(tmp_path, write_tiles(tmp_path / "tiles", roles={"train": 2, "validation": 1}))
    assert not run(tmp_path, made[0], "dry", dry_run=True).exists() and not (tmp_path / "annotations").exists()
