"""One artifact of the manifest, from its section to its value."""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING

from labsync.digest import is_commit, is_sha256
from labsync.filters import Filter, compile_pattern
from labsync.manifest import schema
from labsync.manifest.document import Hole, Scalar, Sequence
from labsync.manifest.model import HISTORY, Artifact, SmokeInputs, SmokeSpec
from labsync.manifest.origin import WrittenOrigin, read_origin, revision_problem

if TYPE_CHECKING:
    from pathlib import Path

    from labsync.manifest.document import Node
    from labsync.manifest.schema import Section
    from labsync.names import Kind

_FUNCTION = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")
_COORDINATE = re.compile(r"[0-9]{1,6}(?:\.[0-9]{1,6})?")
_MAX_POINTS = 64


def read_artifact(section: Section, kind: Kind, name: str, root: Path) -> Artifact:
    """Return the artifact that a section describes; what is wrong is reported to its issues.

    Without `path:` a folder lands in `<kind>/<name>`, a one-file origin in `<kind>/<name>/<the URL's
    last segment>` so that the file keeps its extension, and `hf://` in the Hugging Face cache (path "").
    """
    made = kind in {"checkpoints", "results"} and not _has_origin(section)
    section.check_keys(schema.allowed_keys(kind, made=made), schema.belongs)
    origin = None if made else _origin(section, kind, root)
    return Artifact(
        kind=kind,
        short_name=name,
        origin=origin.url if origin else "",
        revision=_revision(section, origin) if origin else "",
        sha256=_sha256(section, origin) if origin else "",
        path=_path(section, f"{kind}/{name}", origin),
        is_file=bool(origin and origin.file_name),
        filter=_filter(section, origin),
        layout=section.choice("layout", schema.LAYOUTS, "plain"),
        mirror=section.flag("mirror", default=not (origin and origin.sort == "s3")),
        keep=section.count("keep"),
        complete=_complete(section),
        install=section.flag("install"),
        history=_history(section, kind, name, origin),
        smoke=_smoke(section.section("smoke")),
        written=origin.written if origin else "",
    )


def _has_origin(section: Section) -> bool:
    return bool(difflib.get_close_matches("origin", section.written, cutoff=0.7))


def _origin(section: Section, kind: Kind, root: Path) -> WrittenOrigin | None:
    if kind == "results":
        section.report("origin", "results are made here and have no `origin`")
        return None
    if section.find("origin") is None:
        if not _has_origin(section):
            section.report("", f"`origin` is missing; only checkpoints and results are made here, not {kind}")
        return None
    text = section.text("origin")
    if not text:
        return None
    origin = read_origin(text, root)
    if isinstance(origin, str):
        section.report("origin", f"`{text}` {origin}")
        return None
    if origin.revision and (problem := revision_problem(origin.revision)):
        section.report("origin", f"`{origin.revision}` {problem}")
    return origin


def _revision(section: Section, origin: WrittenOrigin) -> str:
    revision = section.digits("revision")
    if not revision:
        return origin.revision
    if not origin.has_revisions:
        section.report("revision", "belongs to origins that have revisions: `hf://` and `git+…`")
    elif origin.revision:
        section.report("revision", "the origin says `@…` already; write the revision in one place only")
    elif problem := revision_problem(revision):
        section.report("revision", f"`{revision}` {problem}")
    return revision


def _sha256(section: Section, origin: WrittenOrigin) -> str:
    text = section.digits("sha256").lower()
    if text and not origin.file_name:
        section.report("sha256", "belongs to an origin that is one file, such as `https://…/model.pth`")
    elif text and not is_sha256(text):
        section.report("sha256", "must be 64 hex digits")
    return text


def _path(section: Section, default: str, origin: WrittenOrigin | None) -> str:
    path = section.path("path")
    if path:
        if origin and origin.file_name and section.text("path").endswith("/"):
            section.report("path", "names the file here, not a folder, because the origin is one file")
        return path
    if origin is None:
        return default
    if origin.sort == "hf":
        return ""
    return f"{default}/{origin.file_name}" if origin.file_name else default


def _filter(section: Section, origin: WrittenOrigin | None) -> Filter:
    chosen = Filter(section.texts("include"), section.texts("exclude"))
    for key, patterns in (("include", chosen.include), ("exclude", chosen.exclude)):
        if patterns and origin and origin.file_name:
            section.report(key, "does not fit an origin that is one file")
        for pattern in patterns:
            if not _is_pattern(pattern):
                section.report(key, f"`{pattern}` is not a pattern")
    return chosen


def _is_pattern(pattern: str) -> bool:
    try:
        compile_pattern(pattern)
    except re.error:
        return False
    return True


def _complete(section: Section) -> str:
    name = section.path("complete")
    if "/" in name:
        section.report("complete", "must be the name of a file, without `/`")
    return name


def _history(section: Section, kind: Kind, name: str, origin: WrittenOrigin | None) -> bool:
    history = section.flag("history")
    if kind == "libraries" and name.endswith(HISTORY):
        section.report(
            "", f"a library's name must not end in `{HISTORY}`: there the mirror keeps its history"
        )
    if history and origin and origin.sort != "git":
        section.report("history", "belongs to libraries from `git+…`")
    if history and (section.find("include") or section.find("exclude")):
        section.report("history", "needs the whole tree: leave `include` and `exclude` out")
    return history


def _smoke(section: Section | None) -> SmokeSpec | None:
    if section is None:
        return None
    section.check_keys(schema.SMOKE)
    if section.find("task") is None:
        section.report("", f"`task` is missing, one of {', '.join(f'`{task}`' for task in schema.TASKS)}")
    task = section.choice("task", schema.TASKS, "python")
    return SmokeSpec(
        task=task,
        dtype=section.choice("dtype", ("", *schema.DTYPES), ""),
        device=read_device(section),
        timeout=section.duration("timeout"),
        max_new_tokens=section.count("max_new_tokens"),
        max_pixels=section.count("max_pixels"),
        inputs=_inputs(section.section("inputs")),
        fallback=section.texts("fallback"),
        function=_function(section),
        trust_remote_code=_trusted_commit(section),
    )


def read_device(section: Section) -> str:
    """Return the section's `device`, empty when it says none."""
    device = section.text("device")
    if device and not schema.DEVICE.fullmatch(device):
        section.report("device", f"`{device}` is not `auto`, `cpu`, `cuda` or `cuda:0`")
    return device


def _function(section: Section) -> str:
    function = section.text("function")
    is_python = section.text("task") == "python"
    if is_python and section.find("function") is None:
        section.report("task", "the task `python` needs `function: module:function`")
    elif function and section.find("task") is not None and not is_python:
        section.report("function", "`function` belongs to the task `python`")
    elif function and not _FUNCTION.fullmatch(function):
        section.report("function", f"`{function}` is not `module:function`")
    return function


def _trusted_commit(section: Section) -> str:
    commit = section.digits("trust_remote_code")
    if commit and not is_commit(commit):
        section.report("trust_remote_code", "must be the full commit, 40 hex digits, whose code is trusted")
    return commit


def _inputs(section: Section | None) -> SmokeInputs:
    if section is None:
        return SmokeInputs()
    section.check_keys(schema.INPUTS)
    return SmokeInputs(
        image=section.path("image"),
        points=_points(section),
        video=section.path("video"),
        prompt=section.text("prompt"),
    )


def _points(section: Section) -> tuple[tuple[float, float], ...]:
    node = section.find("points")
    if node is None or isinstance(node, Hole):
        return ()
    points = [_point(item) for item in node.items] if isinstance(node, Sequence) else []
    whole = tuple(point for point in points if point is not None)
    if not whole or len(whole) < len(points) or len(whole) > _MAX_POINTS:
        section.report("points", f"must be 1 to {_MAX_POINTS} points, as in `[[400, 250]]`")
    return whole


def _point(node: Node) -> tuple[float, float] | None:
    if not isinstance(node, Sequence) or len(node.items) != 2:
        return None
    x, y = node.items
    if not isinstance(x, Scalar) or not isinstance(y, Scalar):
        return None
    if not (_COORDINATE.fullmatch(x.text) and _COORDINATE.fullmatch(y.text)):
        return None
    return float(x.text), float(y.text)
