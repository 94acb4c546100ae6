"""Choice of the sibling pipelines that CI runs, and its check that the others need not run."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from tests.pipelines import ROOT

spec = importlib.util.spec_from_file_location("siblings", ROOT / ".ci/siblings.py")
siblings = importlib.util.module_from_spec(spec)
spec.loader.exec_module(siblings)

NAMES = ("grounding", "species")


def git(folder, *arguments):
    identity = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "init.defaultBranch=main"]
    done = subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def commit(folder, name, text):
    path = folder / f"pipelines/{name}/dvc.lock"
    path.write_text(text)
    git(folder, "add", "-A")
    git(folder, "commit", "-m", text, "--allow-empty")


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A repository with two siblings and 21 commits on main."""
    folder = tmp_path / "repository"
    for name in NAMES:
        (folder / "pipelines" / name).mkdir(parents=True)
        (folder / f"pipelines/{name}/dvc.yaml").write_text("stages: {a: {cmd: x}, b: {cmd: y}}\n")
    (folder / "requirements.txt").write_text("numpy==1\n")
    git(folder, "init")
    for name in NAMES:
        commit(folder, name, "first")
    for number in range(19):
        git(folder, "commit", "--allow-empty", "-m", str(number))
    monkeypatch.setattr(siblings, "ROOT", folder)
    return folder


def changed(folder):
    """Names of the siblings that would run, and why these."""
    base, about = siblings.compared_with()
    return [name for name in NAMES if siblings.must_run(folder / "pipelines" / name, base)], about


def test_other_packages_make_all_run(repository):
    (repository / "requirements.txt").write_text("numpy==2\n")
    assert changed(repository)[0] == list(NAMES)


def test_a_branch_is_compared_with_where_it_left_main(repository):
    git(repository, "checkout", "-b", "branch")
    commit(repository, "species", "of the branch")
    git(repository, "checkout", "main")
    commit(repository, "grounding", "later, on main")
    git(repository, "checkout", "branch")
    found, about = changed(repository)
    assert found == ["species"] and "where this branch left main" in about
    (repository / "pipelines/grounding/dvc.lock").write_text("not committed")
    assert changed(repository)[0] == ["grounding", "species"]
    commit(repository, "grounding", "first")
    commit(repository, "species", "first")
    assert changed(repository)[0] == [], "what was taken back is no change"


def test_a_lock_that_is_missing_on_one_side_is_a_change(repository):
    git(repository, "checkout", "-b", "branch")
    (repository / "pipelines/species/dvc.lock").unlink()
    assert changed(repository)[0] == ["species"]
    git(repository, "rm", "pipelines/species/dvc.lock")
    git(repository, "commit", "-m", "removed")
    git(repository, "branch", "-f", "main")
    git(repository, "commit", "--allow-empty", "-m", "on")
    commit(repository, "species", "new")
    assert changed(repository)[0] == ["species"]


def test_main_is_compared_with_twenty_commits_ago(repository, tmp_path, monkeypatch):
    assert changed(repository)[0] == ["species"], "grounding's is 20 commits old, species' 19"
    git(repository, "commit", "--allow-empty", "-m", "one more")
    assert changed(repository) == ([], f"compared with {git(repository, 'rev-parse', 'HEAD~20')[:12]}, 20 commits ago")
    # A clone of main alone knows it by the remote's name; its own commits on main are compared with that.
    git(tmp_path, "clone", str(repository), "clone")
    monkeypatch.setattr(siblings, "ROOT", tmp_path / "clone")
    assert changed(tmp_path / "clone")[0] == []
    commit(tmp_path / "clone", "grounding", "not pushed")
    found, about = changed(tmp_path / "clone")
    assert found == ["grounding"] and "left main" in about


def test_without_enough_history_every_sibling_runs(repository, tmp_path, monkeypatch):
    git(repository, "checkout", "-b", "branch")
    git(repository, "commit", "--allow-empty", "-m", "of the branch")
    for name, branch in (("of_main", "main"), ("of_branch", "branch")):
        git(tmp_path, "clone", "--depth", "1", "--branch", branch, repository.as_uri(), name)
        monkeypatch.setattr(siblings, "ROOT", tmp_path / name)
        found, about = changed(tmp_path / name)
        assert found == list(NAMES) and "--unshallow" in about
    monkeypatch.setattr(siblings, "ROOT", tmp_path)  # no git at all
    assert siblings.compared_with()[0] is None


def test_what_is_stale_is_named_and_fails(repository, monkeypatch, capsys):
    calls = []

    def run(command, **options):
        if command[0] == "git":
            return original(command, **options)
        calls.append(command[1:])
        text = "Stage 'pipelines/grounding/dvc.yaml:a' didn't change, skipping\n"
        text += "Running stage 'pipelines/grounding/dvc.yaml:b':\n> y\nUse `dvc push` to send your updates.\n"
        return subprocess.CompletedProcess(command, 0, text, "")

    original = subprocess.run
    monkeypatch.setattr(siblings.subprocess, "run", run)
    assert siblings.main() == 1
    assert calls == [
        ["repro", "--dry", "--allow-missing", "--keep-going", "pipelines/grounding/dvc.yaml"],
        ["repro", "pipelines/species/dvc.yaml"],
    ]
    said = capsys.readouterr().out
    assert "grounding: its dvc.lock is of other code or params: b would run" in said and "species: runs" in said


def test_the_output_of_dvc_itself_is_understood(tmp_path, monkeypatch):
    """A pipeline without its data: unchanged stages are not named; changed ones are, both those that DVC says it would
    run and those that it cannot check because their input is missing."""
    monkeypatch.setattr(siblings, "ROOT", tmp_path)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:/usr/bin:/bin")
    target = tmp_path / "pipelines/toy/dvc.yaml"
    target.parent.mkdir(parents=True)
    stage = "  {name}: {{wdir: ../.., cmd: cp {source} {out}, deps: [{source}], outs: [{out}]}}\n"
    text = "stages:\n" + stage.format(name="one", source="code", out="middle")
    text += stage.format(name="two", source="middle", out="end") + stage.format(name="other", source="code", out="copy")
    target.write_text(text)
    (tmp_path / "code").write_text("1")
    for command in (["init", "--no-scm"], ["repro", "pipelines/toy/dvc.yaml"]):
        subprocess.run(["dvc", *command], cwd=tmp_path, check=True, capture_output=True)
    for name in ("middle", "end", "copy"):
        (tmp_path / name).unlink()
    assert siblings.would_run("pipelines/toy/dvc.yaml") == []
    target.write_text(text.replace("cp middle", "cp -p middle").replace("cp code copy", "cp -p code copy"))
    assert siblings.would_run("pipelines/toy/dvc.yaml") == ["two", "other"]
