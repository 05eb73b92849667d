"""`make mutants`: plant one bug at a time in a copy of the package, and see whether its tests notice."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.mutants.table import ROOT, Mutant, mutants

LONGEST = 300  # seconds; tests that hang have noticed
COPIED = ("multisite", "tests")
NOTICED, SURVIVED = "noticed", "SURVIVED"


def main() -> int:
    """Run; 1 if a bug is not noticed."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument(
        "words", nargs="*", help="only bugs with one of these in their group, file, kind or description"
    )
    parser.add_argument("-j", "--jobs", type=int, default=2, help="how many at once")
    parser.add_argument("--sound", action="store_true", help="plant none: the same tests must pass")
    arguments = parser.parse_args()
    chosen = [each for each in mutants() if not arguments.words or _is_meant(each, arguments.words)]
    with ThreadPoolExecutor(arguments.jobs) as pool:
        verdicts = list(pool.map(lambda mutant: _tried(mutant, arguments.sound), chosen))
    expected = SURVIVED if arguments.sound else NOTICED
    wrong = [mutant for mutant, verdict in zip(chosen, verdicts, strict=True) if verdict != expected]
    print(f"{len(chosen)} planted, {len(chosen) - len(wrong)} as they should be")
    for mutant in wrong:
        print(f"  {mutant}")
    return bool(wrong)


def _is_meant(mutant: Mutant, words: list[str]) -> bool:
    return any(word in f"{mutant.group} {mutant}" for word in words)


def _tried(mutant: Mutant, sound: bool) -> str:
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="multisite-mutant-") as folder:
        place = Path(folder)
        _copy(place)
        file = place / "multisite" / mutant.file
        if not sound:
            file.write_text(mutant.planted(file.read_text()))
        verdict = _verdict(place, mutant)
    print(f"{verdict:10} {time.monotonic() - began:5.1f} s  {mutant}", flush=True)
    return verdict


def _copy(place: Path) -> None:
    """A checkout in which nothing can be spoilt; what no test changes is the same."""
    for entry in ROOT.iterdir():
        if entry.name in COPIED:
            shutil.copytree(entry, place / entry.name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            (place / entry.name).symlink_to(entry)


def _verdict(place: Path, mutant: Mutant) -> str:
    """What the tests say."""
    argv = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-p", "no:randomly"]
    env = os.environ | {
        "PYTHONPATH": str(place),
        "MULTISITE_UNDER_TEST": str(place),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    try:
        run = subprocess.run(
            [*argv, *(f"tests/{test}" for test in mutant.tests)],
            cwd=place,
            env=env,
            capture_output=True,
            text=True,
            timeout=LONGEST,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return NOTICED
    if run.returncode not in (0, 1):
        return f"exit {run.returncode}"
    skipped = " passed" not in run.stdout and run.returncode == 0
    return "skipped" if skipped else SURVIVED if run.returncode == 0 else NOTICED


if __name__ == "__main__":
    sys.exit(main())
