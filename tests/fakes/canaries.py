"""The secrets that tests work with, looked for in everything labsync says and writes down."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

# The S3 servers' key and the hub's tokens; a file that a test itself lays somewhere else may hold them.
CANARIES = ("testing-secret", "hf_test_of_a_member_1234", "hf_test_of_a_stranger_5678")
OPENED: list[Path] = []
"""The folders of the boxes of the running test."""
LARGEST = 8 << 20


def assert_hidden(text: str) -> None:
    """Assert that a text, which labsync wrote, has no secret in it."""
    for canary in CANARIES:
        assert canary not in text, "a secret was told"


def assert_none_below(root: Path) -> None:
    """Assert that what labsync keeps beside a manifest has no secret in it: lock, state, reports, logs."""
    kept = [path for path in root.glob("*") if path.suffix in {".lock", ".json", ".html", ".jsonl"}]
    kept += [
        path
        for path in (root / ".labsync").rglob("*")
        if not {"mirror", "aside", "stage", "git"} & set(path.relative_to(root / ".labsync").parts)
    ]
    for path in kept:
        if path.is_file() and not path.is_symlink() and path.stat().st_size <= LARGEST:
            data = path.read_bytes()
            for canary in CANARIES:
                assert canary.encode() not in data, f"a secret was written to {path}"
