"""One command on spectra: their minerals, what their wavelengths leave out, and every bad input named."""

import csv
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from src.core.stage.errors import DataError
from src.minerals.data import spectral_library
from src.minerals.mapping.minerals import NAMES
from tests.minerals.cubes import LIBRARY

KNOWN = spectral_library.read(LIBRARY)
NM = np.arange(400.0, 2501, 10)


def sensed(nm: np.ndarray) -> dict[str, np.ndarray]:
    """The first reference of each mineral, and flat grey, at wavelengths (nm) of even spacing."""
    spectra = KNOWN.at(nm, np.full(len(nm), nm[1] - nm[0]))
    return {name: spectra[KNOWN.rows(name, "reference")[0]] for name in NAMES} | {"grey": np.full(len(nm), 0.4)}


def write_table(path: Path, nm: np.ndarray, spectra: dict[str, np.ndarray], first: str = "wavelength") -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        if first:
            writer.writerow([first, *spectra])
        for row in np.column_stack([nm, *spectra.values()]):
            writer.writerow(["" if np.isnan(value) else f"{value:.6f}" for value in row])
    return path


def named(call, path) -> pd.DataFrame:
    out = path.with_name("named.csv")
    call("--spectra", path, "--out", out)
    return pd.read_csv(out, keep_default_na=False).set_index("name")


@pytest.mark.parametrize("step", [1, 5, 10])
def test_references_are_named_at_the_tables_own_wavelengths(call, tmp_path, capsys, step):
    nm = np.arange(400.0, 2501, step)
    table = named(call, write_table(tmp_path / "a.csv", nm, sensed(nm)))
    wrong = [name for name in NAMES if table.loc[name, "mineral"] != name]
    assert not wrong and table.loc["grey", "mineral"] == "none" and table.loc["grey", "fit"] == ""
    assert (pd.to_numeric(table.loc[list(NAMES), "fit"]) > 0.99).all()
    assert capsys.readouterr().out.splitlines()[0].startswith("a.csv: 8 of 9 spectra hold a mineral of the map: 1 ")


def test_micrometres_any_order_npz_and_no_header_say_the_same(call, tmp_path, capsys):
    spectra = sensed(NM)
    expected = named(call, write_table(tmp_path / "a.csv", NM, spectra))
    turned = {name: values[::-1] for name, values in spectra.items()}
    pd.testing.assert_frame_equal(named(call, write_table(tmp_path / "b.csv", NM[::-1] / 1000, turned)), expected)
    arrays = {"wavelengths": NM, "spectra": np.round(np.stack(list(spectra.values())), 6)}
    np.savez(tmp_path / "c.npz", **arrays, names=list(spectra))
    pd.testing.assert_frame_equal(named(call, tmp_path / "c.npz"), expected)
    np.savez(tmp_path / "d.npz", **arrays)
    bare = [named(call, tmp_path / "d.npz"), named(call, write_table(tmp_path / "e.csv", NM, spectra, first=""))]
    for table in bare:
        assert table.index.tolist() == [f"spectrum {number}" for number in range(1, 10)]
        assert table["mineral"].tolist() == expected["mineral"].tolist()
    assert (tmp_path / "named.csv").exists() and "400 to 2500 nm" in capsys.readouterr().out


def test_a_mixture_has_a_runner_up_and_none_its_nearest(call, tmp_path):
    spectra = sensed(NM)
    mixed = {"mixed": 0.5 * spectra["kaolinite"] + 0.5 * spectra["montmorillonite"]}
    mixed["traces"] = 0.02 * spectra["kaolinite"] + 0.98 * spectra["grey"]
    table = named(call, write_table(tmp_path / "a.csv", NM, mixed))
    assert table["mineral"].tolist() == ["kaolinite", "none"]
    assert table["runner_up"].tolist() == ["montmorillonite", "kaolinite"]


def test_a_gap_in_wavelengths_leaves_out_rules_or_minerals_and_says_so(call, tmp_path, capsys):
    spectra = sensed(NM)
    for name, gap, column, said in (
        ("rule", (NM > 1465) & (NM < 1510), "rules_left_out", "OH at 1480 nm"),
        ("mineral", (NM > 2280) & (NM < 2330), "not_tried", "calcite: 2280-2330 nm: found no band between"),
    ):
        path = write_table(tmp_path / f"{name}.csv", NM[~gap], {key: values[~gap] for key, values in spectra.items()})
        table, printed = named(call, path), capsys.readouterr().out
        assert (table[column].str.contains(said)).all() and f"{said} (all spectra)" in printed
        assert re.search(rf"calcite .* \d {name}", printed)
        assert table.loc["alunite", "mineral"] == "alunite"
    assert table.loc["calcite", "mineral"] == "none" and table.loc["kaolinite", "mineral"] == "kaolinite"
    short = NM < 2400
    path = write_table(tmp_path / "short.csv", NM[short], {key: values[short] for key, values in spectra.items()})
    table = named(call, path)
    assert "chlorite: right shoulder 2410-2445 nm: found no band" in table.loc["alunite", "not_tried"]


def test_blank_cells_concern_their_own_spectrum(call, tmp_path, capsys):
    spectra = sensed(NM)
    whole = named(call, write_table(tmp_path / "a.csv", NM, spectra))
    blank = spectra["calcite"].copy()
    blank[(NM > 2280) & (NM < 2360)] = np.nan
    nothing = np.where(NM < 1200, 0.4, np.nan)
    table = named(call, write_table(tmp_path / "b.csv", NM, spectra | {"calcite": blank, "nothing": nothing}))
    printed = capsys.readouterr().out
    assert "mineral not tried: calcite: 2280-2360 nm: found no band between (calcite)" in printed
    assert "mineral not tried: alunite: left shoulder 2025-2075 nm: found no band (nothing)" in printed
    assert "nm (alunite, kaolinite, muscovite, montmorillonite, chlorite and 1 more)" in printed
    assert re.search(r"calcite +none +4 minerals, 1 rule\n", printed) and re.search(r"grey +none *\n", printed)
    others = [name for name in spectra if name != "calcite"]
    pd.testing.assert_frame_equal(table.loc[others], whole.loc[others])
    assert table.loc["calcite", "mineral"] == "none" and "calcite: " in table.loc["calcite", "not_tried"]
    assert table.loc["nothing", "mineral"] == "not measured"
    with pytest.raises(DataError, match=r"c.csv: found no spectrum with values where a mineral absorbs"):
        call("--spectra", write_table(tmp_path / "c.csv", NM, {"nothing": nothing}))


def test_negative_noise_in_bands_of_water_vapour_is_left_out(call, tmp_path, capsys):
    spectra = sensed(NM)
    noisy = {name: np.where((NM >= 1790) & (NM <= 1990), -0.3, values) for name, values in spectra.items()}
    table = named(call, write_table(tmp_path / "a.csv", NM, noisy))
    assert all(table.loc[name, "mineral"] == name for name in NAMES)
    assert "21 wavelengths removed from all spectra, water vapour: 1790-1990 nm (bands.water_nm)" in (
        capsys.readouterr().out
    )


ONE = {"rock": np.linspace(0.2, 0.5, len(NM))}


@pytest.mark.parametrize(
    ("nm", "spectra", "said"),
    [
        (NM, {"rock": 100 * ONE["rock"]}, "rock at 410 nm: found 20.* 0 to 1.5; per cent. Divide by 100"),
        (NM, {"rock": 10000 * ONE["rock"]}, "found 20.*times 10000. Divide by 10000"),
        (NM, {"rock": ONE["rock"] - 0.3}, "rock at 410 nm: found -0.09.*; leave blank what was not measured"),
        (NM, {"rock": np.where(NM == 2200, np.inf, 0.3)}, "rock at 2200 nm: found inf"),
        (1e7 / NM, ONE, "wavelength of band 1: found 25000 nm, expected 300 to 3000 nm"),
        (np.where(NM == 500, 510, NM), ONE, "found two bands at 510 nm"),
        (np.where(NM == 500, np.nan, NM), ONE, "row 12, column 1: found no wavelength"),
        (NM[:5], {"rock": ONE["rock"][:5]}, "found 5 wavelengths, expected a spectrum of at least 20"),
        (NM, {}, "found wavelengths alone"),
    ],
)
def test_values_and_wavelengths_that_are_wrong_are_named(call, tmp_path, nm, spectra, said):
    path = write_table(tmp_path / "a.csv", nm, spectra)
    with pytest.raises(DataError, match=f"a.csv.*{said}"):
        call("--spectra", path, "--out", tmp_path / "out.csv")
    assert not (tmp_path / "out.csv").exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("wavelength,a\n400,x\n", "row 2, column 2 'a': found 'x', expected a number"),
        ('wavelength,a\n400,"0,5"\n', "found '0,5', expected a number with a decimal point"),
        ("wavelength,a\n400,0.5,0.6\n", "line 2: found 3 cells, expected the 2 of the header"),
        ("wavelength;a\n400;0.5\n", "found the separator ;"),
        ("", "found no column names in row 1"),
        ("wavelength,a\n", "found 0 wavelengths"),
    ],
)
def test_a_table_that_is_none_is_named(call, tmp_path, text, said):
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(DataError, match=said):
        call("--spectra", tmp_path / "a.csv")


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"wavelengths": NM, "spectra": np.array([[0.5] * len(NM)], object)}, "found no arrays of plain numbers"),
        (
            {"wavelengths": NM, "spectra": ONE["rock"][None], "names": np.array([1], object)},
            "no arrays of plain numbers",
        ),
        ({"wavelengths": NM, "spectra": np.stack([ONE["rock"]] * 3, 1)}, r"expected \(N, 211\).*; transpose it"),
        ({"wavelengths": NM, "spectra": ONE["rock"][None], "names": ["a", "b"]}, r"names: found \(2,\)"),
        ({"spectra": ONE["rock"][None]}, "wavelengths: found none"),
        ({"wavelengths": NM}, "spectra: found none"),
        ({"wavelengths": NM, "spectra": np.array([["a"] * len(NM)])}, "spectra: found <U1, expected numbers"),
    ],
)
def test_npz_with_objects_or_without_its_arrays_is_refused(call, tmp_path, arrays, said):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(DataError, match=said):
        call("--spectra", tmp_path / "a.npz")


def test_a_file_that_is_no_npz_is_named(call, tmp_path):
    (tmp_path / "a.npz").write_bytes(b"PK nothing")
    with pytest.raises(DataError, match=r"a.npz: found no arrays of plain numbers"):
        call("--spectra", tmp_path / "a.npz")
