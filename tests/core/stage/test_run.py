"""Exit codes, what stderr says and what logs/<stage>/run_status.json holds."""

import json
import os
import signal
from pathlib import Path

import pytest

from src.core.stage import files, run
from src.core.stage.errors import DataError, DependencyError, Interrupted, ParamsError, StorageError, spelled
from src.core.stage.params import Section, spelling


class Numbers(Section):
    seed: int
    rate: float


@pytest.fixture
def stage(tmp_path, monkeypatch):
    """`stage(main, *more, params=text)` -> the exit code of a stage run in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run, "_die_with_parent", lambda: None)  # it would tie the whole test run to its parent

    def start(main, *more: str, params: str = "seed: 1\nrate: 1e-05\n", model: type[Section] = Numbers) -> int:
        Path("params.yaml").write_text(params)
        argv = ["--tiles", "in", "--out", "out", *more]
        with pytest.raises(SystemExit) as caught:
            run.stage(
                main,
                model,
                name="population.tests",
                doc="A stage.",
                inputs={"tiles": "preprocess"},
                outputs={"out": "folder"},
                argv=argv,
            )
        return caught.value.code

    return start


def status() -> dict:
    return json.loads(Path("logs/tests/run_status.json").read_text())


def raises(error: BaseException):
    def main(params, inputs, out, dry_run):
        raise error

    return main


def test_main_gets_params_paths_and_dry_run(stage):
    seen = []
    assert stage(lambda *received: seen.append(received)) == 0
    params, inputs, out, dry_run = seen[0]
    assert (params.seed, params.rate, inputs.tiles, out.out, dry_run) == (1, 1e-5, Path("in"), Path("out"), False)
    assert status()["exit_code"] == 0 and status()["message"] == ""
    assert set(status()) == {"exit_code", "message", "seconds", "finished", "host", "argv"}


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ParamsError("a.yaml: seed: found x"), 2),
        (DataError("t.tif: bands: found 63"), 65),
        (DependencyError("pip install rioxarray"), 69),
        (StorageError("out: cannot write"), 74),
        (Interrupted("stopped by a signal"), 75),
        (FileNotFoundError(2, "No such file or directory", "in/manifest.json"), 74),
    ],
    ids=lambda value: type(value).__name__,
)
def test_each_error_has_its_exit_code_and_message(stage, capsys, error, code):
    Path("in").mkdir()
    assert stage(raises(error)) == code
    told = "in/manifest.json: No such file or directory" if isinstance(error, OSError) else str(error)
    assert capsys.readouterr().err == f"population.tests: {told}\n"
    assert (status()["exit_code"], status()["message"]) == (code, told)


@pytest.mark.parametrize("dry", [[], ["--dry-run"]], ids=["run", "dry run"])
@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError(2, "No such file or directory", Path("in/manifest.json")),
        StorageError("in/manifest.json: cannot read: No such file or directory"),
        DataError("in: no such folder; set `backbone` to a folder"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_missing_input_names_the_stage_that_writes_it(stage, capsys, error, dry):
    assert stage(raises(error), *dry) == 74
    told = "in: --tiles: found nothing there, expected the output of preprocess; run `dvc repro preprocess`"
    assert capsys.readouterr().err == f"population.tests: {told}\n"


def test_an_error_about_something_else_stays_where_an_input_is_missing(stage, capsys):
    """A dry run may do without an input."""
    assert stage(raises(DataError("inside.tif: bands: found 63"))) == 65
    assert capsys.readouterr().err == "population.tests: inside.tif: bands: found 63\n"


def test_a_sibling_names_its_own_file(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run, "_die_with_parent", lambda: None)
    Path("params.yaml").write_text("seed: 1\nrate: 0.1\n")
    argv = ["--params", "params.yaml", "--store", "store", "--dry-run"]
    with pytest.raises(SystemExit):
        run.stage(
            lambda params, inputs, *more: files.read_json(inputs.store / "manifest.json"),
            Numbers,
            name="species.split",
            doc="",
            inputs={"store": "ingest"},
            outputs={},
            argv=argv,
        )
    assert "run `dvc repro pipelines/species/dvc.yaml:ingest`" in capsys.readouterr().err


def test_names_in_backquotes_become_keys_and_the_pipelines_words(stage, capsys):
    class Draw(Section):
        buffer_km: float
        rate: float

    class Keys(Numbers):
        split: Draw

    assert spelling(Keys) == {"seed": "seed", "buffer_km": "split.buffer_km", "split": "split"}, "rate is ambiguous"

    @spelled({"region": "province"})
    def main(*received):
        raise DataError("`region`: raise `buffer_km`, `seed` or `rate`, not `km`")

    text = "seed: 1\nrate: 1.0\nsplit: {buffer_km: 2.0, rate: 1.0}\n"
    assert stage(main, params=text, model=Keys) == 65
    told = "province: raise split.buffer_km, seed or `rate`, not `km`"
    assert capsys.readouterr().err == f"population.tests: {told}\n"
    assert status()["message"] == told


@pytest.mark.parametrize(
    ("name", "params", "logs"),
    [
        ("population.split", "params.yaml", "logs/split"),
        ("species.split", "pipelines/species/params.yaml", "logs/species.split"),
    ],
)
def test_the_layout_says_where_params_and_logs_lie(tmp_path, monkeypatch, name, params, logs):
    monkeypatch.chdir(tmp_path)
    parser = run._stage_parser(name, "", {}, {})
    assert parser.parse_args([]).params == Path(params)
    run._write_status(name, 0, "", 0.0)
    assert Path(logs, "run_status.json").is_file()


def test_bad_params_end_before_main(stage, capsys):
    assert stage(raises(AssertionError("main ran")), params="seeed: 1\nrate: 0.1\n") == 2
    assert "seeed: unknown parameter; did you mean seed?" in capsys.readouterr().err
    assert status()["exit_code"] == 2


def test_a_fault_of_ours_keeps_its_traceback_and_is_no_success(stage, tmp_path):
    assert stage(lambda *received: None) == 0 and status()["exit_code"] == 0
    with pytest.raises(ZeroDivisionError):
        run.stage(
            raises(ZeroDivisionError()),
            Numbers,
            name="population.tests",
            doc="",
            inputs={},
            outputs={},
            argv=[],
        )
    assert status()["exit_code"] == 1 and "traceback" in status()["message"]


def test_a_signal_leaves_nothing_half_written_and_says_75(stage):
    def main(params, inputs, out, dry_run):
        with files.complete_folder(out.out) as folder:
            (folder / "shard").write_bytes(b"half")
            os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    assert stage(main) == 75 and status()["exit_code"] == 75
    assert sorted(os.listdir()) == ["logs", "params.yaml"] and signal.getsignal(signal.SIGTERM) is before


def test_a_dry_run_writes_nothing(stage):
    seen = []
    assert stage(lambda *received: seen.append(received[3]), "--dry-run") == 0
    assert seen == [True] and os.listdir() == ["params.yaml"]
    assert stage(raises(DataError("t.tif: no")), "--dry-run") == 65
    assert os.listdir() == ["params.yaml"]


def test_a_status_that_cannot_be_written_changes_no_exit_code(stage, capsys):
    Path("logs").write_text("a file")
    assert stage(raises(DataError("t.tif: no"))) == 65
    assert "cannot write run_status.json" in capsys.readouterr().err


def test_a_missing_option_is_the_command_line_s_fault(stage, tmp_path):
    with pytest.raises(SystemExit) as caught:
        run.stage(
            raises(AssertionError()),
            Numbers,
            name="population.tests",
            doc="",
            inputs={"tiles": ""},
            outputs={},
            argv=[],
        )
    assert caught.value.code == 2


def test_threads_are_set_in_torch_too():
    import torch

    before = torch.get_num_threads()
    try:
        run.set_threads(1)
        assert torch.get_num_threads() == 1
    finally:
        run.set_threads(before)
    assert torch.get_num_threads() == before


def test_a_command_exits_with_the_code_of_its_error(capsys):
    def body() -> None:
        raise DataError("labels.csv: empty")

    with pytest.raises(SystemExit) as stopped:
        run.finish(body, "population.score")
    assert (
        stopped.value.code == DataError.exit_code and "population.score: labels.csv: empty" in capsys.readouterr().err
    )
