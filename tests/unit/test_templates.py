"""The shipped manifests: they parse, say what they promise, and exist once in two places."""

from __future__ import annotations

from pathlib import Path

import pytest

from labsync.digest import is_commit
from labsync.env.spec import read_spec
from labsync.errors import UsageError
from labsync.lock import Lock, check_lock
from labsync.manifest import load_manifest, parse_manifest
from labsync.manifest.model import Manifest
from labsync.manifest.select import select
from labsync.manifest.templates import TEMPLATES, template_files, template_text

MANIFESTS = Path(__file__).parents[2] / "manifests"


def parsed(name: str) -> Manifest:
    return parse_manifest(template_text(name), Path("/lab/labsync.yaml"))


@pytest.mark.parametrize("name", TEMPLATES)
def test_each_template_is_a_manifest(name: str) -> None:
    manifest = parsed(name)
    assert manifest.artifacts
    assert select(manifest, [])


@pytest.mark.parametrize("name", ["vision", "video"])
def test_the_manifest_in_the_repository_is_the_template(name: str) -> None:
    path = MANIFESTS / f"{name}.yaml"
    assert path.read_text("utf-8") == template_text(name)
    assert load_manifest(path).environment is not None


@pytest.mark.parametrize("name", ["mlgpu", "video", "cpu"])
def test_the_environment_file_in_the_repository_is_the_template(name: str) -> None:
    beside = {**template_files("vision"), **template_files("video")}
    path = MANIFESTS.parent / "envs" / f"{name}.yaml"
    assert path.read_text("utf-8") == beside[f"envs/{name}.yaml"]
    spec = read_spec(path, "conda")
    assert "transformers>=5.18" in spec.requirements
    assert ("__cuda" in dict(spec.target)) == (name != "cpu")
    assert not path.with_name(f"{name}.lock.yaml").exists()
    assert "comes without a lock" in path.read_text("utf-8")


def test_the_commented_examples_of_the_minimal_template_are_valid_too() -> None:
    text = "".join(
        line.removeprefix("# ") if line.startswith("# ") and (":" in line) else line
        for line in template_text("minimal").splitlines(keepends=True)
        if not line.startswith("# The smallest")
    )
    manifest = parse_manifest(text, Path("/lab/labsync.yaml"))
    assert {artifact.kind for artifact in manifest.artifacts} == {
        "models",
        "checkpoints",
        "libraries",
        "results",
    }
    assert manifest.environment is not None
    assert manifest.mirror.url == "s3://my-bucket/my-lab"


def test_the_vision_lab_holds_what_it_names() -> None:
    manifest = parsed("vision")
    sam = manifest.by_name["checkpoints/sam-vit-h"]
    assert sam.smoke is not None
    assert sam.smoke.fallback == ("checkpoints/sam-vit-b",)
    assert sam.is_file
    tasks = {artifact.smoke.task for artifact in manifest.artifacts if artifact.smoke}
    assert tasks == {"segment-anything", "image-text-to-text", "image-feature-extraction"}
    library = manifest.by_name["libraries/segment-anything"]
    assert library.install
    assert is_commit(library.revision)


def test_the_video_lab_holds_what_it_names() -> None:
    manifest = parsed("video")
    assert manifest.by_name["datasets/socal"].layout == "packed"
    assert manifest.by_name["datasets/socal"].mirror
    assert manifest.by_name["checkpoints/videomae-raising-hands"].is_made
    assert manifest.environment is not None
    assert (manifest.environment.name, manifest.environment.manager) == ("video", "conda")


@pytest.mark.parametrize("name", ["vision", "video"])
def test_without_a_lock_every_sourced_artifact_waits_for_one(name: str) -> None:
    manifest = parsed(name)
    waiting = {reason.name for reason in check_lock(manifest, Lock()) if not reason.informational}
    assert waiting == {artifact.name for artifact in manifest.artifacts if not artifact.is_made}


def test_an_unknown_template_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="did you mean `vision`"):
        template_text("vison")
    with pytest.raises(UsageError):
        template_text("../py")
