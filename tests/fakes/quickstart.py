"""The quickstart's models, built once per test run folder by the script that users run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
BUILDER = ROOT / "manifests" / "quickstart" / "build.py"


def build(target: Path, **env: str) -> str:
    """Build everything under `target` in a process of its own, and return what the script said."""
    done = subprocess.run(
        [sys.executable, str(BUILDER), str(target)],
        env={**os.environ, **env},
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout
