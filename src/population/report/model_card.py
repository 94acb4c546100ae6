"""reports/population/model_card.md: the README.md that a Hugging Face model needs, written from the run.

YAML front matter, then Markdown from templates/model_card.md. The same run gives the same bytes: the card holds no
date, host, commit or path outside the repository. Facts that neither params nor files give are called unknown.
"""

import re
from pathlib import Path

import numpy as np
import pandas as pd
from huggingface_hub import EvalResult, ModelCardData
from huggingface_hub.utils import yaml_dump

from src.core.data.tile_store import Store
from src.core.report.html_page import Table, cell, templates
from src.core.report.markdown import fenced, plain, table
from src.population.data.prediction_tasks import place_names
from src.population.evaluation.predictors import CHOSEN
from src.population.params import Card
from src.population.report import page_results
from src.population.report.licences import base_licence, base_name, data_terms

NAME = "model_card.md"
TEMPLATES = Path(__file__).parent / "templates"
HUB_LICENCES = ("apache-2.0", "mit", "bsd-3-clause", "cc-by-4.0", "cc-by-nc-4.0")
"""Names that the Hub knows; any other stands there as `other` with a `license_name`."""

ROUTES = {"bands": "all bands (Route A)", "pca3": "three principal components of the bands (Route B)"}


def write(
    folder: Path,
    card: Card,
    used: dict,
    store: Store,
    rows: pd.DataFrame,
    settings: dict,
    facts: dict,
    audit: dict,
    scores: dict,
) -> None:
    """Write the card of a run into `folder`.

    Args:
        used: the params sections of the run as plain values; data, model, pretrain, sft, ... by name.
        rows: label rows, without the buffer's.
        settings: bandwise.json of the sft model.
    """
    backbone = used["model"]["backbone"]
    licence, base_terms = base_licence(backbone, card.base_licence)
    data_licence, attribution = data_terms(card, used["data"]["root"])
    train = rows[rows.role == "train"]
    fields = {
        "used": used,
        "settings": settings,
        "facts": facts,
        "scores": scores,
        "store": store,
        "train": train,
        "front_matter": front_matter(used, licence, settings["language"], scores),
        "base": None if backbone == "tiny" else base_name(backbone),
        "pixel_size": _pixel_size(store.tiles),
        "route": ROUTES[used["model"]["input"]],
        "places": place_names(store.tiles).nunique(),
        "span": _span,
        "region": _region(train),
        "data_licence": data_licence,
        "attribution": attribution,
        "years": year_facts(store.samples, store.tiles),
        "split_rule": _split_rule(facts, left_out=len(store.samples) - len(rows)),
        "roles": _roles(facts["unit"], rows),
        "audit": page_results.named(audit),
        "parameters": yaml_dump(training_params(used), sort_keys=False, width=4096),
        "tables": page_results,
        "base_licence": base_terms,
    }
    environment = templates(TEMPLATES, autoescape=False)  # text from outside goes through `plain`, `fenced` or `table`
    environment.filters |= {"plain": plain, "fenced": fenced, "cell": cell}
    environment.filters["table"] = lambda shown: table(shown.header, shown.rows)
    (folder / NAME).write_text(environment.get_template("model_card.md").render(fields), encoding="utf-8")


def front_matter(used: dict, licence: str | None, language: str, scores: dict) -> str:
    """The Hub's metadata as YAML."""
    backbone, dataset = used["model"]["backbone"], Path(used["data"]["root"]).stem
    name = (licence or "unknown").lower()
    known = licence is None or name in HUB_LICENCES
    measured = [
        EvalResult(
            task_type="regression",
            task_name="Population growth rate",
            dataset_type=dataset,
            dataset_name=dataset,
            dataset_split="locked" if scores["final"] else "test",
            metric_type=kind,
            metric_name=f"{label}, {group.title}",
            metric_value=scores[group.name][key],
        )
        for group in CHOSEN
        for kind, key, label in (("r_squared", "r2", "R²"), ("mae", "mae", f"MAE ({page_results.UNIT})"))
        if scores[group.name][key] is not None
    ]
    on_the_hub = backbone == base_name(backbone) and re.fullmatch(r"[\w.-]+/[\w.-]+", backbone)
    return ModelCardData(
        language=language,
        license=name if known else "other",
        license_name=None if known else re.sub(r"[^a-z0-9.]+", "-", name).strip("-"),
        base_model=backbone if on_the_hub else None,
        library_name="transformers",
        tags=["satellite-embeddings", "remote-sensing", "population", "regression", "qwen-vl"],
        metrics=["r_squared", "mae"],
        model_name="bandwise-population",
        eval_results=measured,
    ).to_yaml()


def year_facts(samples: pd.DataFrame, tiles: pd.DataFrame) -> dict:
    """Number of labels with a tile of another year (`other`) or a later one (`later`), and a table of them."""
    tile_year = tiles.set_index("tile").year[samples.tile].to_numpy()
    years = pd.DataFrame({"label": samples.year.to_numpy(), "tile": tile_year})
    other = years[years.label != years.tile]
    rows = [
        [str(label), str(tile), str(len(part)), "yes" if tile > label else "no"]
        for (label, tile), part in other.groupby(["label", "tile"])
    ]
    table = Table("", ["label year", "tile year", "labels", "tile is later"], rows)
    return {"other": len(other), "later": int((other.tile > other.label).sum()), "table": table}


def training_params(used: dict) -> dict:
    """The params that made the weights: no paths, and no rates or sizes of the other kind of backbone."""
    backbone = used["model"]["backbone"]
    data = {key: used["data"][key] for key in ("quantisation", "scale", "nan_is_nodata", "tile_px", "match_year")}
    others = {key: value for key, value in used.items() if key not in ("data", "split")}
    others["model"] = used["model"] | {"backbone": base_name(backbone)}
    return _without({"data": data} | others, "pretrained" if backbone == "tiny" else "tiny")


def _without(values: object, name: str) -> object:
    if not isinstance(values, dict):
        return values
    return {key: _without(value, name) for key, value in values.items() if key != name}


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


def _split_rule(facts: dict, left_out: int) -> str:
    if facts["task"] == "next_year":
        return f"Time separates: nothing dated in or after {facts['origin']} is known, and places are shared"
    if facts["method"] == "place":
        return "Whole places go to one side; there is no buffer, so places near each other may be on both"
    whole = "provinces" if facts["method"] == "provinces" else f"blocks of {facts['block_degrees']:g}°"
    return (
        f"Whole {whole} go to one side; training tiles nearer than {facts['buffer_km']:g} km to a test or "
        f"validation tile are left out ({left_out} labels left out or locked)"
    )


def _roles(unit: str, rows: pd.DataFrame) -> Table:
    parts = [(role, rows[rows.role == role]) for role in ("train", "validation", "test", "locked")]
    column = "place" if unit == "place" else "block"
    found = [[role, str(len(part)), str(part[column].nunique())] for role, part in parts if len(part)]
    return Table("", ["role", "labels", f"{unit}s"], found)
