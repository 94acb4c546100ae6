"""reports/population/model_card.md: the README.md that a Hugging Face model needs, written from the run.

YAML front matter, then Markdown from templates/model_card.md. The same run gives the same bytes: there is
no date, host, commit or path outside the repository in it. What nobody has said is called unknown.
"""

import re
from pathlib import Path

import numpy as np
import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from src.core.data.tile_store import Store
from src.core.report.html_page import cell, cell_interval
from src.core.report.markdown import block_yaml, fenced, plain
from src.population.evaluation import group_scores
from src.population.params import Card
from src.population.report import result_tables
from src.population.report.licences import Licence, base_licence, base_name, data_terms

NAME = "model_card.md"
TEMPLATES = Path(__file__).parent / "templates"
HUB_LICENCES = ("apache-2.0", "mit", "bsd-3-clause", "cc-by-4.0", "cc-by-nc-4.0")
"""Names that the Hub knows; any other stands there as `other` with a `license_name`."""

ROUTES = {"bands": "all bands (Route A)", "pca3": "three principal components of the bands (Route B)"}
SCORED = {"head": "regression head", "text": "words after SFT", "dpo": "words after DPO"}
"""Groups in the front matter's model-index."""


def write(
    path: Path,
    card: Card,
    used: dict,
    store: Store,
    rows: pd.DataFrame,
    settings: dict,
    facts: dict,
    audit: dict,
    scores: dict,
) -> None:
    """Write the card of a run to `path`.

    Args:
        used: the params sections of the run as plain values; data, model, pretrain, sft, ... by name.
        rows: label rows with role, place, block, year, lat, lon, growth_rate, without the buffer's.
        settings: bandwise.json of the sft model.
        facts, audit: split.json and audit.json.
        scores: what metrics/population.json holds.
    """
    backbone = used["model"]["backbone"]
    licence = base_licence(backbone, card.base_licence)
    data_licence, attribution = data_terms(card, used["data"]["root"])
    train = rows[rows.role == "train"]
    names = store.band_names
    fields = {
        "front_matter": block_yaml(front_matter(used, licence, settings["language"], scores)),
        "base": None if backbone == "tiny" else base_name(backbone),
        "family": used["model"]["family"],
        "bands": store.bands,
        "band_names": f" ({names[0]} to {names[-1]})" if names else "",
        "side": settings["side"],
        "pixel_size": _pixel_size(store.tiles),
        "quantisation": str(store.quantisation),
        "route": ROUTES[used["model"]["input"]],
        "language": settings["language"],
        "prompt": settings["prompt"],
        "unit": result_tables.UNIT,
        "labels": {
            "range": f"{cell(train.growth_rate.min())} to {cell(train.growth_rate.max())}",
            "mean": cell(facts["label_mean"]),
            "sd": cell(facts["label_sd"]),
        },
        "head": used["sft"]["head"],
        "data": _data(store, train),
        "data_licence": data_licence,
        "attribution": attribution,
        "match_year": used["data"]["match_year"],
        "years": year_facts(store.samples, store.tiles),
        "split": _split(facts, rows, left_out=len(store.samples) - len(rows)),
        "audit": [(name.replace("_", " "), _number(value)) for name, value in audit.items()],
        "transductive": scores["transductive"],
        "parameters": block_yaml(training_params(used)),
        "n": scores["head"]["n"],
        "units": scores["units"] | {"intervals": result_tables.said_of_intervals(scores["units"])},
        "drawn": scores["head"]["r2_low"] is not None,
        "final": scores["final"],
        "intervals": interval_rows(scores["prediction_intervals"]),
        "controls": control_rows(scores["controls"]),
        "null": null_facts(scores["null"]["ridge"]),
        "metrics": metrics_rows(scores),
        "paired": paired_rows(scores["paired"]),
        "base_licence": licence.said,
    }
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=False,  # Markdown: text from outside goes through `plain` or `fenced`
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"plain": plain, "fenced": fenced}
    path.write_text(environment.get_template(NAME).render(fields), encoding="utf-8")


def front_matter(used: dict, licence: Licence, language: str, scores: dict) -> dict:
    """The Hub's metadata: licence, base, tags, and `model-index` with R² and MAE of the model's own groups."""
    backbone = used["model"]["backbone"]
    values: dict = {"language": language}
    if licence.name is None:
        values["license"] = "unknown"
    elif licence.name.lower() in HUB_LICENCES:
        values["license"] = licence.name.lower()
    else:
        values |= {"license": "other", "license_name": re.sub(r"[^a-z0-9.]+", "-", licence.name.lower()).strip("-")}
    if backbone == base_name(backbone) and re.fullmatch(r"[\w.-]+/[\w.-]+", backbone):
        values["base_model"] = backbone
    values["library_name"] = "transformers"
    values["tags"] = ["satellite-embeddings", "remote-sensing", "population", "regression", "qwen-vl"]
    values["metrics"] = ["r_squared", "mae"]
    dataset = Path(used["data"]["root"]).stem
    measured = [
        {"type": kind, "name": f"{label}, {meaning}", "value": scores[group][key]}
        for group, meaning in SCORED.items()
        for kind, key, label in (("r_squared", "r2", "R²"), ("mae", "mae", f"MAE ({result_tables.UNIT})"))
        if scores[group][key] is not None
    ]
    task = {"type": "regression", "name": "Population growth rate"}
    result = {
        "task": task,
        "dataset": {"type": dataset, "name": dataset, "split": "locked" if scores["final"] else "test"},
        "metrics": measured,
    }
    values["model-index"] = [{"name": "bandwise-population", "results": [result]}]
    return values


def year_facts(samples: pd.DataFrame, tiles: pd.DataFrame) -> dict:
    """How many labels took a tile of another year (`other`) or a later one (`later`), and the (label, tile, count)."""
    tile_year = tiles.set_index("tile").year[samples.tile].to_numpy()
    years = pd.DataFrame({"label": samples.year.to_numpy(), "tile": tile_year})
    other = years[years.label != years.tile]
    pairs = [(int(label), int(tile), len(part)) for (label, tile), part in other.groupby(["label", "tile"])]
    return {"other": len(other), "later": int((other.tile > other.label).sum()), "pairs": pairs}


def metrics_rows(scores: dict) -> list[list[str]]:
    """A row for every group of the report; `none` where no interval was given."""
    rows = []
    for name in (name for name in result_tables.MEANING if name in scores):
        score = scores[name]
        kind = "model" if name in (*group_scores.NETWORK, *group_scores.WORDS) else "baseline"
        parsed = f"{score['parse_rate']:.1%}" if name in group_scores.PARSED else ""
        rows.append([name, result_tables.MEANING[name], kind, *_scored(score), cell(score["rmse"]), parsed])
    return rows


def paired_rows(pairs: dict) -> list[list[str]]:
    return [[result_tables.pair_name(name), *_scored(pair)] for name, pair in pairs.items()]


def null_facts(null: dict) -> dict:
    return {"draws": null["draws"], "mean": cell(null.get("r2_null_mean")), "most": cell(null.get("r2_null_max"))}


def control_rows(controls: dict) -> list[list[str]]:
    """R² of the model on inputs that say nothing of the place."""
    return [
        [f"{part}, {group_scores.CONTROLS[name]}", cell(values["r2"]) if values else "none"]
        for name, parts in controls.items()
        for part, values in parts.items()
    ]


def interval_rows(known: dict) -> list[str]:
    """A line for each kind of prediction interval, or why there is none."""
    lines = []
    for name, part in known["groups"].items():
        if "refused" in part:
            lines.append(f"{name}: none ({part['refused']})")
        else:
            covered = cell_interval(part, "coverage")
            width = cell(part["mean_width"])
            lines.append(f"{name}: mean width {width}, share of labels inside {covered}; {part['guarantee']}")
    return lines


def _scored(score: dict) -> list[str]:
    """R² and MAE, each followed by its interval."""
    cells = []
    for key in ("r2", "mae"):
        low, high = score[f"{key}_low"], score[f"{key}_high"]
        cells += [cell(score[key]), "none" if low is None else f"{cell(low)} to {cell(high)}"]
    return cells


def training_params(used: dict) -> dict:
    """The params that made the weights: no paths, and no rates or sizes of the other kind of backbone."""
    backbone = used["model"]["backbone"]
    data = {key: used["data"][key] for key in ("quantisation", "scale", "nan_is_nodata", "tile_px", "match_year")}
    others = {key: value for key, value in used.items() if key not in ("data", "split", "evaluate", "bandwise")}
    others["model"] = used["model"] | {"backbone": base_name(backbone)}
    return _without({"data": data} | others, "pretrained" if backbone == "tiny" else "tiny")


def _without(values: dict, name: str) -> dict:
    kept = {key: value for key, value in values.items() if key != name}
    return {key: _without(value, name) if isinstance(value, dict) else value for key, value in kept.items()}


def _data(store: Store, train: pd.DataFrame) -> dict:
    samples = store.samples
    places = store.tiles.province + "/" + store.tiles.city
    return {
        "tiles": len(store.tiles),
        "labels": len(samples),
        "places": places.nunique(),
        "provinces": store.tiles.province.nunique(),
        "train": len(train),
        "train_places": train.place.nunique(),
        "tile_years": _span(store.tiles.year),
        "label_years": _span(samples.year),
        "region": _region(train),
    }


def _region(rows: pd.DataFrame) -> str:
    where = rows[["lat", "lon"]].to_numpy(np.float64)
    if not np.isfinite(where).all():
        return "unknown coordinates"
    (south, west), (north, east) = where.min(axis=0), where.max(axis=0)
    return f"latitude {cell(south, 1)}° to {cell(north, 1)}°, longitude {cell(west, 1)}° to {cell(east, 1)}°"


def _span(years: pd.Series) -> str:
    first, last, count = int(years.min()), int(years.max()), years.nunique()
    return str(first) if count == 1 else f"{first} to {last} ({count} years)"


def _pixel_size(tiles: pd.DataFrame) -> str:
    sizes, systems = tiles.pixel_size.dropna(), sorted(tiles.crs.dropna().unique())
    if sizes.empty:
        return "unknown (the tiles say none)"
    name = "no CRS" if not systems else systems[0] if len(systems) == 1 else f"{len(systems)} CRSs"
    return f"{sizes.median():g} in units of the tiles' CRS ({name})"


def _split(facts: dict, rows: pd.DataFrame, left_out: int) -> dict:
    unit = facts["unit"]
    rule = "Whole places go to one side; there is no buffer, so places near each other may be on both"
    if facts["task"] == "next_year":
        rule = f"Time separates: nothing dated in or after {facts['origin']} is known, and places are shared"
    elif facts["method"] != "place":
        whole = "provinces" if facts["method"] == "provinces" else f"blocks of {facts['block_degrees']:g}°"
        rule = (
            f"Whole {whole} go to one side; training tiles nearer than {facts['buffer_km']:g} km to a test or "
            f"validation tile are left out ({left_out} labels left out or locked)"
        )
    of_unit = rows.place if unit == "place" else rows.block
    order = ("train", "validation", "test", "locked")
    roles = [(role, int((rows.role == role).sum()), of_unit[rows.role == role].nunique()) for role in order]
    roles = [row for row in roles if row[1]]
    known = {"task": facts["task"], "locked": facts["locked"], "fold": facts["fold"] + 1, "folds": facts["folds"]}
    return {"rule": rule, "unit": unit, "roles": roles} | known


def _number(value: object) -> str:
    return "unknown" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
