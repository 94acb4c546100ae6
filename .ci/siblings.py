"""Run the sibling pipelines whose dvc.lock or requirements changed, and check that no stage of the others would run.

    .venv/bin/python .ci/siblings.py

A file changed if it differs from the one where this branch left main or, on main itself, from the one 20 commits
ago. The others cost a second each: `dvc repro --dry` compares their dvc.lock with their code and params. Where git
does not reach that far back (a shallow clone, an archive), every sibling runs. `dvc` has to be on PATH. Exits 1 if a
run failed or an unchanged pipeline is not up to date.
"""

import re
import subprocess
import sys
from pathlib import Path

from ruamel.yaml import YAML

ROOT = Path(__file__).resolve().parents[1]
MAIN = ("origin/main", "main")  # a clone has the first, a repository without a remote the second
RECENT = 20  # commits of main
UNCHANGED = re.compile(r"^Stage '(?:.*:)?(\w+)' didn't change, skipping", re.MULTILINE)


def main() -> int:
    """Exit code: 0 if every sibling ran or need not run, 1 otherwise."""
    base, about = compared_with()
    print(f"siblings: {about}", flush=True)
    failed = False
    for folder in sorted(path.parent for path in ROOT.glob("pipelines/*/dvc.yaml")):
        target = folder.joinpath("dvc.yaml").relative_to(ROOT).as_posix()
        if must_run(folder, base):
            print(f"{folder.name}: runs", flush=True)
            failed |= subprocess.run(["dvc", "repro", target], cwd=ROOT).returncode != 0
        elif stale := would_run(target):
            print(f"{folder.name}: its dvc.lock is of other code or params: {', '.join(stale)} would run")
            print(f"    dvc repro {target}    and commit what it writes")
            failed = True
        else:
            print(f"{folder.name}: up to date, not run")
    return int(failed)


def compared_with() -> tuple[str | None, str]:
    """The commit whose dvc.lock files count as unchanged (None: git does not know it), and a line that says so."""
    merge_base = next((commit for name in MAIN if (commit := git("merge-base", "HEAD", name))), None)
    if merge_base is None:
        return None, "no commit in common with main is known here, so all run; `git fetch --unshallow origin` gets it"
    if merge_base != git("rev-parse", "HEAD"):
        return merge_base, f"compared with {merge_base[:12]}, where this branch left main"
    if recent := git("rev-parse", "--verify", f"HEAD~{RECENT}"):
        return recent, f"compared with {recent[:12]}, {RECENT} commits ago"
    return None, f"fewer than {RECENT} commits are known here, so all run; `git fetch --unshallow` gets more"


def must_run(folder: Path, base: str | None) -> bool:
    """Test for another dvc.lock, or other packages, which no dvc.lock knows, than at the commit `base`."""
    return base is None or differs(folder / "dvc.lock", base) or differs(ROOT / "requirements.txt", base)


def differs(path: Path, base: str) -> bool:
    """Test for a file that is not that of the commit `base`, or is missing on either side."""
    if not path.is_file():
        return True
    then = git("rev-parse", "--verify", f"{base}:{path.relative_to(ROOT).as_posix()}")
    return then is None or then != git("hash-object", str(path))


def would_run(target: str) -> list[str]:
    """Stages of the file `target` that DVC does not call unchanged: it would run them, or restore an earlier run.

    The exit code alone does not tell: it is 0 where the inputs of what would run are there, 255 where they are not.
    """
    command = ["dvc", "repro", "--dry", "--allow-missing", "--keep-going", target]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)  # its errors are shown
    unchanged = UNCHANGED.findall(done.stdout)
    stages = YAML(typ="safe").load((ROOT / target).read_text(encoding="utf-8"))["stages"]
    return [stage for stage in stages if stage not in unchanged]


def git(*arguments: str) -> str | None:
    """Output of git, None where it fails."""
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else None


if __name__ == "__main__":
    sys.exit(main())
