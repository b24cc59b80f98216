"""Selectors: kinds, names, groups, globs, snapshots; and what nobody can have meant."""

from __future__ import annotations

from pathlib import Path

import pytest

from labsync.errors import UsageError
from labsync.manifest import parse_manifest
from labsync.manifest.select import select

MANIFEST = parse_manifest(
    """
version: 1
project: lab
groups: {vision: [sam-vit-h, models]}
models:
  qwen2-vl-2b: {origin: hf://Qwen/Qwen2-VL-2B-Instruct}
  qwen2-vl-7b: {origin: hf://Qwen/Qwen2-VL-7B-Instruct}
checkpoints:
  sam-vit-h: {origin: 'https://h.org/sam.pth'}
  mine: {}
results:
  runs: {}
  mine: {path: outputs}
""",
    Path("/lab/labsync.yaml"),
)


def names(*selectors: str) -> list[str]:
    return [selection.artifact.name for selection in select(MANIFEST, selectors)]


def test_nothing_selects_everything_in_the_manifests_order() -> None:
    assert names() == [artifact.name for artifact in MANIFEST.artifacts]


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        ("models", ["models/qwen2-vl-2b", "models/qwen2-vl-7b"]),
        ("datasets", []),
        ("sam-vit-h", ["checkpoints/sam-vit-h"]),
        ("mine", ["checkpoints/mine", "results/mine"]),
        ("results/mine", ["results/mine"]),
        ("vision", ["models/qwen2-vl-2b", "models/qwen2-vl-7b", "checkpoints/sam-vit-h"]),
        ("models/qwen*", ["models/qwen2-vl-2b", "models/qwen2-vl-7b"]),
        ("*-2b", ["models/qwen2-vl-2b"]),
        ("[s]am-vit-?", ["checkpoints/sam-vit-h"]),
    ],
)
def test_each_form_of_selector(selector: str, expected: list[str]) -> None:
    assert names(selector) == expected


def test_overlapping_selectors_select_once() -> None:
    assert names("results", "vision", "sam-vit-h", "runs") == [
        "models/qwen2-vl-2b", "models/qwen2-vl-7b", "checkpoints/sam-vit-h", "results/runs", "results/mine",
    ]  # fmt: skip


def test_a_snapshot_of_a_made_artifact() -> None:
    (selection,) = select(MANIFEST, ["runs@0a1b"])
    assert (selection.artifact.name, selection.snapshot) == ("results/runs", "0a1b")
    (again,) = select(MANIFEST, ["results", "runs@" + "a" * 64])[:1]
    assert again.snapshot == "a" * 64
    assert [s.snapshot for s in select(MANIFEST, ["runs@0a1b", "results"])] == ["0a1b", ""]


@pytest.mark.parametrize(
    "selector",
    ["nobody", "models/nobody", "x*", "runs@", "runs@abc", "runs@wxyz", "runs@" + "a" * 65,
     "sam-vit-h@0a1b", "mine@0a1b", "models@0a1b", "datasets@0a1b", "nobody@0a1b", ""],
)  # fmt: skip
def test_what_selects_nothing_is_a_usage_error(selector: str) -> None:
    with pytest.raises(UsageError) as caught:
        select(MANIFEST, [selector])
    assert caught.value.hint


def test_two_snapshots_of_one_artifact_are_refused() -> None:
    with pytest.raises(UsageError, match="two snapshots"):
        select(MANIFEST, ["runs@0a1b", "results/runs@0a1c"])


def test_a_misspelt_selector_is_answered_with_the_close_names() -> None:
    with pytest.raises(UsageError) as caught:
        select(MANIFEST, ["sam-vit"])
    assert "did you mean `sam-vit-h`" in caught.value.hint
    with pytest.raises(UsageError) as caught:
        select(MANIFEST, ["visoin"])
    assert "`vision`" in caught.value.hint
