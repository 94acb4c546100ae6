"""bench.grounding on few windows: every figure and bar is there, and the windows of both ways are as many."""

import json
import sys

import pytest

from bench import grounding, timing
from tests.grounding.small_models import generator


def test_every_bar_is_measured_and_printed(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["bench.grounding", "--json"])
    model = generator()
    monkeypatch.setattr(grounding.denoiser, "build", lambda *rest, **more: model)
    monkeypatch.setattr(grounding, "WINDOWS", (1, 2))
    monkeypatch.setattr(grounding, "peak_mb", lambda folder, rows: float(rows))
    monkeypatch.setattr(timing, "REPETITIONS", 1)
    with pytest.raises(SystemExit) as stopped:
        grounding.main()
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert set(result["bars"]) == {"10 steps/10 forward passes", "peak MB, 8 times the rows/once"}
    assert result["ratios"]["peak MB, 8 times the rows/once"] == 8
    assert stopped.value.code == 1 and not result["pass"], "memory that grows as the raster does is too much"


def test_both_ways_pass_the_same_windows_through_the_model(monkeypatch):
    counts = []

    class Counted(type(generator())):
        def forward(self, noisy, *rest):
            counts.append(len(noisy))
            return super().forward(noisy, *rest)

    class Once:
        def compare(self, label, way, base, at_most):
            for one in (way, base):
                one()
                counts.append(None)  # ends a way

    model = generator()
    model.__class__ = Counted
    monkeypatch.setattr(grounding, "WINDOWS", (2, 3))
    grounding.speed(Once(), model, overlap=4)
    ends = [at for at, count in enumerate(counts) if count is None]
    ours, base = counts[: ends[0]], counts[ends[0] + 1 : ends[1]]
    assert ours == base == [3] * 20
