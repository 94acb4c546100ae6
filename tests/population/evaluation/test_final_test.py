"""The locked test opens once, from a committed state, and says how many attempts came before."""

import json
import subprocess
from argparse import Namespace

import pytest

from src.core.stage.errors import DataError, ParamsError
from src.population.evaluation import final_test

LOCKED = {"locked": {"places": 7, "provinces": ["A", "B"]}}


def outputs(metrics):
    return Namespace(metrics=metrics, out=metrics.parent / "reports-final", plots=metrics.parent / "plots-final")


def git(*arguments):
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    subprocess.run(["git", *identity, *arguments], check=True, capture_output=True)


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A git repository whose metrics/population.json had three versions, one of them on another branch."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    git("init", "-q", "-b", "main")
    (tmp_path / "metrics").mkdir()
    for number, branch in enumerate(("main", "main", "tried")):
        git("checkout", "-q", "-B", branch)
        (tmp_path / final_test.METRICS).write_text(json.dumps({"r2": number}))
        git("add", "-A")
        git("commit", "-qm", f"version {number}")
    git("checkout", "-q", "main")
    return tmp_path


def test_it_says_when_where_and_after_how_many_attempts(repository, capsys):
    opened = final_test.opening(outputs(repository / "metrics/final.json"), LOCKED)
    head = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    assert opened["commit"] == head and opened["attempts"] == 3 and opened["provinces"] == ["A", "B"]
    assert len(opened["date"]) == 10
    assert f"opens {LOCKED['locked']['places']} locked places, once, after 3 versions of" in capsys.readouterr().out


def test_the_same_numbers_again_are_no_new_attempt(repository):
    git("commit", "-q", "--allow-empty", "-m", "nothing")
    (repository / final_test.METRICS).unlink()
    git("commit", "-qam", "gone")
    (repository / final_test.METRICS).write_text(json.dumps({"r2": 1}))
    git("add", "-A")
    git("commit", "-qm", "back")
    assert final_test.count_attempts() == 3


def test_a_second_opening_is_refused_even_if_the_file_is_gone(repository):
    metrics = repository / "metrics/final.json"
    metrics.write_text(json.dumps({"final": {"date": "2026-01-02", "commit": "0123456789abcdef"}}))
    with pytest.raises(DataError, match="opened on 2026-01-02 at commit 0123456789"):
        final_test.opening(outputs(metrics), LOCKED)
    git("add", "-A")
    git("commit", "-qm", "opened")
    git("rm", "-q", str(metrics))
    git("commit", "-qm", "forgotten")
    with pytest.raises(DataError, match="was opened before"):
        final_test.opening(outputs(metrics), LOCKED)


def test_uncommitted_changes_and_an_open_lock_are_refused(repository):
    with pytest.raises(ParamsError, match=r"split.lock: blank"):
        final_test.opening(outputs(repository / "metrics/final.json"), {"locked": {"places": 0, "provinces": []}})
    (repository / final_test.METRICS).write_text("{}")
    with pytest.raises(ParamsError, match=r"found 1 changed files \(first: M metrics/population.json\)"):
        final_test.opening(outputs(repository / "metrics/final.json"), LOCKED)


def test_without_git_it_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    with pytest.raises(ParamsError, match="--final needs the git repository"):
        final_test.opening(outputs(tmp_path / "metrics/final.json"), LOCKED)


def test_folders_of_another_run_are_kept(repository):
    (repository / "metrics/reports-final").mkdir()
    with pytest.raises(ParamsError, match=r"--out: found .*reports-final, expected a new folder"):
        final_test.opening(outputs(repository / "metrics/final.json"), LOCKED)


def test_another_file_is_no_way_round(repository):
    with pytest.raises(ParamsError, match=r"--metrics: found .*final2.json, expected metrics/final.json"):
        final_test.opening(outputs(repository / "metrics/final2.json"), LOCKED)
