"""The report page: figures, audit and warnings, and text from files that stays text."""

import json

import numpy as np
import pandas as pd

from src.core.report.figures import Curve
from src.core.stage import files
from src.population.report import page


def test_page_shows_figures_audit_and_escapes_names(scored):
    html = (scored.out / "index.html").read_text(encoding="utf-8")
    assert "sft.lr" in html and "train pairs" in html and "report: " in scored.printed
    drawn = {file.name for file in scored.plots.iterdir()}
    assert drawn == {
        "predicted_vs_actual.png", "residual_map.png", "curves.png", "score_intervals.png", "reliability.png",
    }  # fmt: skip
    assert html.count("data:image/png;base64,") == 6  # and the quicklook of pca
    assert "&lt;b&gt;" in html and "<b>" not in html and "123.4" in html and "●" in html
    assert "transductive" not in html


def test_transductive_pretraining_is_said_in_metrics_and_tables(run):
    settings = files.read_json(run.folder / "sft" / "bandwise.json") | {"pretrained_on": "all"}
    files.write_json(run.folder / "sft" / "bandwise.json", settings)
    out = run()
    assert json.loads(out.metrics.read_text())["transductive"] is True
    assert (out.out / "index.html").read_text(encoding="utf-8").count("; transductive") >= 4
    card = (out.out / "model_card.md").read_text(encoding="utf-8")
    assert "**Transductive: pretraining saw the test tiles" in card


def test_without_coordinates_there_is_no_map(run):
    samples = run.folder / "split" / "samples.parquet"
    pd.read_parquet(samples).assign(lat=np.nan).to_parquet(samples)
    out = run()
    assert json.loads(out.metrics.read_text())["head"]["morans_i"] is None
    assert not (out.plots / "residual_map.png").exists()


def test_curves_pair_train_with_validation(run):
    stages = page.read_curves(run.folder / "curves")
    assert list(stages) == ["sft"]
    (panel,) = stages["sft"]
    assert isinstance(panel, Curve) and set(panel.lines) == {"train", "validation"}
    assert panel.lines["train"][0].tolist() == [1, 2] and panel.lines["train"][1].tolist() == [2.5, 1.5]
