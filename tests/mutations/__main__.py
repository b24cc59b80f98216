"""`python -m tests.mutations [ID …]`: take protections out and say which test noticed; 1 when one did not."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.mutations.catalogue import MUTATIONS, Mutation

ROOT = Path(__file__).parent.parent.parent
JOBS = os.cpu_count() or 1
LIMIT = 300  # seconds; a test that hangs without its protection has noticed, too


@dataclass(frozen=True)
class Found:
    """What became of a mutation: the test that failed, or why none did."""

    mutation: Mutation
    caught: bool
    by: str


def run(mutation: Mutation) -> Found:
    """Run the mutation's tests on a labsync without its protection."""
    with tempfile.TemporaryDirectory(prefix="labsync-mutant-") as folder:
        source = Path(folder, "src")
        shutil.copytree(ROOT / "src", source, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        file = source / "labsync" / mutation.file
        text = file.read_text("utf-8")
        assert text.count(mutation.old) == 1, f"{mutation.id}: the protection is not in {mutation.file}"
        file.write_text(text.replace(mutation.old, mutation.new), "utf-8")
        for test in mutation.tests:  # one after the other: the first usually suffices
            found = _tried(mutation, test, source)
            if found.caught:
                return found
        return found


def _tried(mutation: Mutation, test: str, source: Path) -> Found:
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "--timeout=150", test]
    env = {**os.environ, "PYTHONPATH": f"{source}{os.pathsep}{ROOT}", "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        ended = subprocess.run(
            command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=LIMIT, check=False
        )
    except subprocess.TimeoutExpired:
        return Found(mutation, True, f"{test} hangs")
    failed = re.search(r"^(?:FAILED|ERROR) (\S+)", ended.stdout, re.MULTILINE)
    if ended.returncode == 1 and failed:
        return Found(mutation, True, failed[1])
    return Found(mutation, False, f"exit {ended.returncode}: {ended.stdout[-300:]}{ended.stderr[-300:]}")


def main(ids: list[str]) -> int:
    """Run the named mutations, or all."""
    chosen = [mutation for mutation in MUTATIONS if not ids or mutation.id in ids]
    survivors = []
    with ThreadPoolExecutor(JOBS) as pool:
        for found in pool.map(run, chosen):
            verdict = "caught" if found.caught else "SURVIVED"
            print(f"{found.mutation.id:5} {verdict:9} {found.mutation.without}: {found.by}", flush=True)  # noqa: T201
            survivors += [] if found.caught else [found.mutation.id]
    print(f"{len(chosen) - len(survivors)} of {len(chosen)} mutations caught; survived: {survivors}")  # noqa: T201
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
