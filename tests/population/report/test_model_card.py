"""The model card says what the run did and knows, and calls unknown what nobody has said."""

import json
import re

import pandas as pd
import pytest
from huggingface_hub import ModelCard
from ruamel.yaml import YAML

from src.core.report import html_page
from src.core.stage.params import validate
from src.population.evaluation import predictors
from src.population.params import Card
from src.population.report import licences, model_card, page_results

ALPHAEARTH = "The AlphaEarth Foundations Satellite Embedding dataset is produced by Google and Google DeepMind."


def written(out) -> str:
    return (out.out / model_card.NAME).read_text(encoding="utf-8")


def front(text: str) -> dict:
    return YAML(typ="safe", pure=True).load(text.split("---\n")[1])


def flat(text: str) -> str:
    """On one line: where prose is wrapped does not matter."""
    return " ".join(text.split())


def table_below(text: str, header: str) -> list[list[str]]:
    """Cells of the Markdown table whose header line starts with `header`."""
    lines = text[text.index(header) :].splitlines()[2:]
    rows = lines[: next(n for n, line in enumerate(lines) if not line.startswith("|"))]
    return [[cell.strip() for cell in row.strip("|").split(" | ")] for row in rows]


@pytest.fixture
def move_labels(run):
    """`move_labels(years, where)` adds years to the labels of some tiles, as `match_year: nearest` leaves them."""

    def move(years, where):
        path = run.folder / "tiles" / "samples.parquet"
        samples = pd.read_parquet(path)
        samples.loc[where(samples), "year"] += years
        samples.to_parquet(path)

    return move


def test_every_statement_that_a_reader_must_find(scored):
    text = flat(written(scored))
    for statement in (
        "a tile of 4 bands",
        "the middle 6 × 6 px",
        "quantisation: alphaearth",
        "pixel size: 0.04 in units of the tiles' crs (epsg:4326)",
        "all bands (route a)",
        "automodelforimagetexttotext.from_pretrained(folder)",
        "‰ per year",
        "96 tiles and 96 labels of 96 places",
        "latitude 30.1° to 44.7°, longitude −98.7° to −80.5°",
        "licence of the data: mit (tiles), bsd-3-clause (populations)",
        "attribution: tiles made with the location encoder of geoclip",
        "every label has a tile of its own year, none a later one",
        "whole blocks of 5° go to one side; training tiles nearer than 100 km",
        "are left out (4 labels left out or locked)",
        "fold 3 of 5 is the test fold",
        "shared places 0",
        "nearest train test km 123.4",
        "48 labels in 12 blocks",
        "jackknife-t over 12 units",
        "task `new_place`",
        "4 places in whole provinces",
        "exploratory: the scores are cross-validated",
        "no image at all",
        "no guarantee: calibration and test places come from different regions",
        "retrospective, not a forecast",
        "a tile's year may postdate what is predicted",
        "sentinel-2, sentinel-1 and landsat 8 and 9",
        "wikipedia and gbif",
        "arxiv:2507.22291",
        ALPHAEARTH.lower(),
        "elsewhere it is untested",
        "words are not a measurement",
        "not for decisions about people",
        "all weights are this repository's own, apache-2.0",
    ):
        assert statement in text.lower(), statement
    assert "unknown" not in text and "transductive" not in text.lower()
    assert model_card.NAME in (scored.out / "index.html").read_text(encoding="utf-8")


def test_the_loading_lines_load_a_model(scored, trained):
    code = written(scored).split("```python\n")[1].split("```")[0]
    scope = {}
    exec(code.replace("models/population/sft", str(trained.sft)), scope)
    bands = scope["reading"]["bands"]
    assert scope["model"].config.vision_config.in_channels == bands == 8
    assert scope["head"] and len(scope["tokenizer"]) <= scope["model"].config.get_text_config().vocab_size


def test_front_matter_is_what_the_hub_reads(scored):
    values, scores = front(written(scored)), json.loads(scored.metrics.read_text())
    assert values["license"] == "apache-2.0" and values["library_name"] == "transformers"
    assert "base_model" not in values and values["language"] == "zh"
    found = ModelCard(written(scored)).data.eval_results  # as the Hub's own client reads them
    assert {(result.metric_name, result.metric_value) for result in found} == {
        (f"{label}, {group.title}", scores[group.name][key])
        for group in predictors.CHOSEN
        for key, label in (("r2", "R²"), ("mae", f"MAE ({page_results.UNIT})"))
    }
    assert {result.dataset_split for result in found} == {"test"}


def test_tables_are_those_of_the_metrics_file(scored):
    scores = json.loads(scored.metrics.read_text())
    rows = table_below(written(scored), "| group |")
    assert [row[0] for row in rows] == [group.name for group in predictors.PREDICTORS if group.name in scores]
    assert {row[2] for row in rows} == {"model", "baseline"}
    for name, _, _, r2, mae, rmse, *_ in rows:
        score, show = scores[name], html_page.cell_interval
        assert [r2, mae, rmse] == [show(score, "r2"), show(score, "mae"), html_page.cell(score["rmse"])], name
    pairs = table_below(written(scored), "| difference |")
    assert [row[1] for row in pairs] == [html_page.cell_interval(pair, "r2") for pair in scores["paired"].values()]
    assert table_below(written(scored), "| role |") == [
        ["train", "28", "7"],
        ["validation", "16", "4"],
        ["test", "48", "12"],
    ]


def test_parsed_shares_stand_where_answers_are_parsed(scored):
    parsed = {row[0]: row[9] for row in table_below(written(scored), "| group |")}
    assert parsed["text"] == "83.3%" and parsed["dpo"] == "100.0%"
    assert not re.search(r"\d", parsed["head"] + parsed["ridge"])


def test_without_intervals_the_cells_hold_none(run):
    """Fewer than ten units: the table must not look as if it were exact."""
    samples = pd.read_parquet(run.folder / "split" / "samples.parquet")
    samples.loc[samples.role == "test", "block"] = "b00"
    samples.to_parquet(run.folder / "split" / "samples.parquet")
    text = written(run())
    assert "Intervals: none: 1 units, expected at least 10" in text
    assert "true intervals are wider" not in text
    for header in ("| group |", "| difference |"):
        assert not any("[" in cell for row in table_below(text, header) for cell in row)


def test_labels_with_another_years_tile_are_counted(run, move_labels):
    move_labels(-20, lambda samples: samples["sample"] < 12)  # the tile postdates them
    move_labels(5, lambda samples: samples["sample"] >= 92)
    text = written(run(changes={"data.match_year": "nearest"}))
    assert "`data.match_year: nearest`: 16 of 96 labels took another year's tile" in text
    assert "**12 of them a tile later than the label's year**" in text
    # Every fourth tile is of 1990, the others of 1980.
    assert table_below(text, "| label year |") == [
        ["1960", "1980", "9", "yes"],
        ["1970", "1990", "3", "yes"],
        ["1985", "1980", "3", "no"],
        ["1995", "1990", "1", "no"],
    ]
    assert "Years of the tiles: 1980 to 1990 (2 years). Years of the labels: 1960 to 1995 (6 years)." in text


def test_no_path_of_this_machine_gets_in(run, tmp_path):
    base = tmp_path / "weights" / "Qwen-local"
    base.mkdir(parents=True)
    changes = {"model.backbone": str(base), "data.root": str(tmp_path / "tiles"), "card.data": str(tmp_path / "tiles")}
    text = written(run(changes=changes))
    assert "Qwen-local" in text and str(tmp_path) not in text and "base_model" not in front(text)
    assert "licence of the data: MIT" in flat(text).replace("Licence", "licence")


def test_an_unknown_base_licence_is_said_and_not_guessed(run):
    text = written(run(changes={"model.backbone": "Qwen/Qwen2.5-VL-3B-Instruct"}))
    assert "Qwen/Qwen2.5-VL-3B-Instruct: unknown: set `card.base_licence`" in text
    values = front(text)
    assert values["license"] == "unknown" and values["base_model"] == "Qwen/Qwen2.5-VL-3B-Instruct"
    # Rates of the kind of backbone that was not used are no params of this run.
    params = YAML(typ="safe", pure=True).load(text.split("```yaml\n")[1].split("```")[0])
    assert "tiny" not in params["model"] and params["model"]["bands"] == 64 and params["seed"] == 0


def test_a_given_base_licence_is_used(run):
    changes = {"model.backbone": "Qwen/Qwen2.5-VL-3B-Instruct", "card.base_licence": "Qwen Research"}
    values = front(written(run(changes=changes)))
    assert (values["license"], values["license_name"]) == ("other", "qwen-research")


def test_terms_of_other_data_are_not_passed_off_as_this_ones(run):
    text = written(run(changes={"data.root": "data/raw/tiles"}))
    assert "Licence of the data: unknown: `card.data`" in text and "GeoCLIP" not in text and "MIT" not in text


@pytest.mark.parametrize(
    ("files", "name", "said"),
    [
        ({}, None, "unknown"),
        ({"LICENSE": "\n   Apache License\n  Version 2.0, January 2004\n"}, "apache-2.0", "LICENSE: apache-2.0"),
        ({"LICENSE": "Qwen RESEARCH LICENSE AGREEMENT\n\nDate: 2024"}, "Qwen RESEARCH LICENSE AGREEMENT", "LICENSE"),
        ({"README.md": "---\nlicense: mit\n---\n# x"}, "mit", "README.md: mit"),
        ({"README.md": "---\r\nlicense: other\r\nlicense_name: qwen\r\n---\r\n"}, "qwen", "README.md: qwen"),
        ({"README.md": "# no front matter\nlicense: mit\n"}, None, "unknown"),
        ({"README.md": "---\nlicense: [mit\n---\n"}, None, "unknown"),
        ({"README.md": "---\nlicense: other\n---\n"}, None, "unknown"),
        ({"LICENSE": "Qwen LICENSE", "README.md": "---\nlicense: apache-2.0\n---\n"}, None, "disagree"),
        ({"LICENSE": "<script>x|y"}, "<script>x|y", r"\<script\>x\|y"),
    ],
)  # fmt: skip
def test_the_licence_of_a_base_folder(tmp_path, files, name, said):
    for file, text in files.items():
        (tmp_path / file).write_bytes(text.encode())
    found, text = licences.base_licence(str(tmp_path), None)
    assert found == name and said in text and str(tmp_path.parent) not in text


def test_blank_terms_are_unknown():
    blank = validate({"data": "x", "licence": None, "attribution": None, "base_licence": None}, Card, where="test")
    assert licences.data_terms(blank, "x") == ("unknown: set `card.licence`", "unknown: set `card.attribution`")
