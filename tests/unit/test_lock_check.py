"""When a lock is stale, and what stops whom."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from labsync.digest import sha256_bytes
from labsync.filters import Filter
from labsync.lock import Lock, LockedArtifact, check_lock, inputs_digest
from labsync.manifest import parse_manifest
from labsync.manifest.model import Artifact, Manifest

INPUTS = sha256_bytes(b"inputs")


def manifest(keys: str, name: str = "m") -> Manifest:
    text = f"version: 1\nproject: lab\nmodels: {{{name}: {{{keys}}}}}\ncheckpoints: {{mine: {{}}}}\n"
    return parse_manifest(text, Path("/lab/labsync.yaml"))


KEYS = "origin: hf://o/r, revision: main, include: ['*.json', '*.txt'], exclude: [x], path: here"


def locked_as(wanted: Manifest) -> Lock:
    artifacts = [
        LockedArtifact(a.name, made=True)
        if a.is_made
        else LockedArtifact(a.name, inputs_digest(a), a.written)
        for a in wanted.artifacts
    ]
    return Lock.of(artifacts)


def test_a_lock_that_agrees_has_no_reasons() -> None:
    wanted = manifest(KEYS)
    assert check_lock(wanted, locked_as(wanted)) == ()


@pytest.mark.parametrize(
    "keys",
    [
        KEYS.replace("o/r", "o/q"),
        KEYS.replace("main", "v2"),
        KEYS.replace("*.txt", "*.bin"),
        KEYS.replace("[x]", "[y]"),
        "origin: 'https://h.org/a'",
    ],
)
def test_a_key_that_decides_the_content_makes_the_lock_stale(keys: str) -> None:
    (reason,) = check_lock(manifest(keys), locked_as(manifest(KEYS)))
    assert (reason.name, reason.problem, reason.informational) == ("models/m", "stale", False)


def test_the_sha256_decides_the_content() -> None:
    plain = Artifact("models", "m", "https://h.org/a", is_file=True)
    assert inputs_digest(plain) != inputs_digest(replace(plain, sha256="0" * 64))


@pytest.mark.parametrize(
    "keys",
    [
        KEYS.replace("here", "there"),
        KEYS.replace("['*.json', '*.txt']", "['*.txt', '*.json']"),
        KEYS + ", mirror: false, layout: packed, smoke: {task: feature-extraction}",
        "origin: hf://o/r@main, include: ['*.json', '*.txt'], exclude: [x]",
    ],
)
def test_a_key_that_does_not_decide_the_content_keeps_the_lock(keys: str) -> None:
    assert check_lock(manifest(keys), locked_as(manifest(KEYS))) == ()


def test_the_digest_of_the_inputs_is_the_documented_one() -> None:
    (artifact, _) = manifest(KEYS).artifacts
    canonical = (
        '{"exclude":["x"],"include":["*.json","*.txt"],"origin":"hf://o/r","revision":"main","sha256":""}'
    )
    assert inputs_digest(artifact) == sha256_bytes(canonical.encode())
    assert inputs_digest(replace(artifact, filter=Filter())) != inputs_digest(artifact)


def test_missing_and_left_over_artifacts() -> None:
    reasons = check_lock(manifest(KEYS, "new"), locked_as(manifest(KEYS, "old")))
    assert [(r.name, r.problem, r.informational) for r in reasons] == [
        ("models/new", "missing", False),
        ("models/old", "left over", True),
    ]


def test_without_a_lock_only_sourced_artifacts_are_stopped() -> None:
    reasons = check_lock(manifest(KEYS), None)
    assert {r.name: r.informational for r in reasons} == {"models/m": False, "checkpoints/mine": True}


def test_an_artifact_that_gets_an_origin_makes_its_line_stale() -> None:
    sourced = Artifact("checkpoints", "mine", "https://h.org/a", path="x", is_file=True)
    wanted = replace(manifest(KEYS), artifacts=(sourced,))
    (reason, left) = check_lock(wanted, locked_as(manifest(KEYS)))
    assert (reason.problem, reason.informational) == ("stale", False)
    assert left.problem == "left over"


def test_an_artifact_that_loses_its_origin_is_worth_a_note() -> None:
    made = Artifact("checkpoints", "mine", path="x")
    wanted = replace(manifest(KEYS), artifacts=(made,))
    locked = Lock.of([LockedArtifact(made.name, INPUTS, "https://h.org/a")])
    (reason,) = check_lock(wanted, locked)
    assert (reason.problem, reason.informational) == ("stale", True)


def test_a_relative_file_origin_has_the_same_inputs_in_every_folder() -> None:
    text = "version: 1\nproject: lab\nmodels: {m: {origin: 'file:data/'}}\n"
    here, there = (parse_manifest(text, Path(root, "labsync.yaml")).artifacts[0] for root in ("/a", "/b"))
    assert here.origin != there.origin
    assert inputs_digest(here) == inputs_digest(there)
