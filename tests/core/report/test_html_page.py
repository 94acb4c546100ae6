import re

import pytest

from src.core.report import html_page
from src.core.report.html_page import Figure, Section, Table
from src.core.stage.errors import StorageError

PNG = b"\x89PNG\r\n\x1a\n" + b"0" * 20


def test_page_is_self_contained_and_escaped(tmp_path):
    (tmp_path / "a.png").write_bytes(PNG)
    hostile = "<script>alert(1)</script>"
    table = Table(hostile, [hostile, "n"], [[hostile, "1"], ["b", "2"]], frozenset({1}))
    section = Section(hostile, [hostile], [table], [Figure(tmp_path / "a.png", 'cap" onerror="x')])
    html_page.write(tmp_path / "index.html", hostile, hostile, [section, Section("second")])
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "<script" not in page and "&lt;script&gt;" in page and 'onerror="x' not in page
    assert "data:image/png;base64,iVBORw0KGgo" in page
    assert not re.search(r'(src|href)="(?!data:|#)', page) and "http" not in page and "@import" not in page
    assert page.count('<tr class="strong">') == 1 and '<tr class="strong"><td class="word">b</td><td>2</td>' in page


def test_same_page_twice(tmp_path):
    for name in ("a.html", "b.html"):
        html_page.write(tmp_path / name, "t", "l", [Section("s", ["p"])])
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()


def test_a_missing_figure_is_named_and_leaves_no_page(tmp_path):
    with pytest.raises(StorageError, match=r"gone\.png"):
        html_page.write(tmp_path / "index.html", "t", "l", [Section("s", figures=[Figure(tmp_path / "gone.png", "c")])])
    assert not list(tmp_path.iterdir())


def test_cells():
    assert html_page.cell(None) == "–" and html_page.cell(-0.126) == "−0.13" and html_page.cell(-0.001) == "0.00"
    score = {"r2": 0.5, "r2_low": -0.1, "r2_high": 0.75}
    assert html_page.cell_interval(score, "r2") == "0.50 [−0.10, 0.75]"
    assert html_page.cell_interval(score | {"r2_low": None}, "r2") == "0.50"
