"""The manifest, from text to `Manifest`: strict, and all problems at once, each with its line."""

from __future__ import annotations

import os.path
import re
from pathlib import Path
from typing import TYPE_CHECKING

from labsync.errors import DiskError, InvalidError, NotFoundError
from labsync.manifest import schema
from labsync.manifest.artifact import read_artifact, read_device
from labsync.manifest.checks import (
    Read,
    check_paths_apart,
    check_places_apart,
    check_repositories,
    read_groups,
    with_fallbacks,
)
from labsync.manifest.document import Issues, Mapping, Scalar, read_document
from labsync.manifest.model import DiskSpec, EnvironmentSpec, Manifest, MirrorSpec, SessionSpec
from labsync.names import KINDS, NAME, path_problem

if TYPE_CHECKING:
    from labsync.manifest.document import Node
    from labsync.manifest.schema import Section
    from labsync.names import Kind

FILE_NAME = "labsync.yaml"
MAX_SIZE = 1 << 20
_NAME_RULE = "a name is written `a-z 0-9 . _ -` and begins with a letter or digit"
_BUCKET = re.compile(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_TARGET = re.compile(r"[a-z_][a-z0-9_-]*")
_ENDPOINT = re.compile(r"https?://[^\s/?#]+/?")


def find_manifest(start: Path) -> Path:
    """Return the nearest `labsync.yaml`, in `start` or a folder above it; NotFoundError (6) if none."""
    folder = Path(os.path.abspath(start))
    for candidate in (folder, *folder.parents):
        if (candidate / FILE_NAME).is_file():
            return candidate / FILE_NAME
    raise NotFoundError(
        f"no `{FILE_NAME}` in `{folder}` or above it",
        hint="`labsync init` writes one, `-m FILE` names another",
    )


def load_manifest(path: Path) -> Manifest:
    """Read and parse the manifest at `path`.

    Raises NotFoundError when it is not there, DiskError when it cannot be read, InvalidError (3) for
    every problem of its content, all of them at once. A UTF-8 byte order mark is accepted.
    """
    path = Path(os.path.abspath(path))
    try:
        with path.open("rb") as file:
            data = file.read(MAX_SIZE + 1)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NotFoundError(
            f"the manifest `{path}` does not exist", path=str(path), hint="`labsync init` writes one"
        ) from error
    except IsADirectoryError as error:
        raise InvalidError(
            f"`{path}` is a folder, not a manifest",
            path=str(path),
            hint=f"name the file: `-m {path}/{FILE_NAME}`",
        ) from error
    except OSError as error:
        raise DiskError(f"the manifest `{path}` cannot be read: {error.strerror}", path=str(path)) from error
    if len(data) > MAX_SIZE:
        raise _invalid(path, (f"{path.name}:1: is larger than 1 MiB, which no manifest needs",))
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise _invalid(path, (f"{path.name}:{line}: is not UTF-8 text; save it as UTF-8",)) from error
    return parse_manifest(text, path)


def parse_manifest(text: str, path: Path) -> Manifest:
    """Return the manifest that `text` describes, as read from the absolute `path`; touches no file.

    Raises InvalidError (3) whose `issues` hold every problem as `file:line: key: message`, in line
    order, and no secret. Groups and fallbacks are resolved to `kind/name`.
    """
    issues = Issues(path.name)
    root = read_document(text.removeprefix("\ufeff"), issues)
    manifest = None
    if isinstance(root, Mapping):
        manifest = _manifest(schema.Section(root, "", issues), path)
    elif not issues.found:
        issues.add(*_not_a_manifest(root))
    if issues.found or manifest is None:
        raise _invalid(path, issues.in_order())
    return manifest


def _invalid(path: Path, issues: tuple[str, ...]) -> InvalidError:
    count = "1 problem" if len(issues) == 1 else f"{len(issues)} problems"
    return InvalidError(
        f"the manifest `{path.name}` has {count}",
        issues=issues,
        path=str(path),
        hint="correct the lines above; `labsync init --template minimal` shows an example",
    )


def _not_a_manifest(root: Node | None) -> tuple[int, str]:
    if root is None or (isinstance(root, Scalar) and root.type == "nothing"):
        return 1, "is empty; `labsync init` writes an example"
    return root.line, "must be a mapping of keys, beginning with `version: 1`"


def _manifest(section: Section, path: Path) -> Manifest | None:
    if not _is_known_version(section):
        return None
    section.check_keys(schema.TOP)
    root = path.parent
    read = [item for kind in KINDS for item in _artifacts(section, kind, root)]
    mirror = _mirror(section, root)
    check_paths_apart(read, (path.name, path.with_suffix(".lock").name))
    check_places_apart(read, mirror, root)
    check_repositories(read)
    artifacts = with_fallbacks(read)
    return Manifest(
        path=path,
        project=_project(section),
        mirror=mirror,
        artifacts=artifacts,
        groups=read_groups(section.section("groups", may_be_empty=True), artifacts),
        disk=_disk(section.section("disk")),
        session=_session(section),
        environment=_environment(section.section("environment")),
        device=read_device(section),
    )


def _is_known_version(section: Section) -> bool:
    node = section.find("version")
    if node is None:
        section.issues.add(section.node.line, f"`version: {schema.VERSION}` is missing")
        return True
    if section.count("version") > schema.VERSION:
        section.report("version", "is newer than this labsync knows: install a newer labsync")
        return False
    return True


def _project(section: Section) -> str:
    if section.find("project") is None:
        section.issues.add(section.node.line, "`project` is missing, as in `project: my-lab`")
    project = section.text("project")
    if project and not NAME.fullmatch(project):
        section.report("project", f"`{project}`: {_NAME_RULE}")
    return project


def _artifacts(section: Section, kind: Kind, root: Path) -> list[Read]:
    inside = section.section(kind, may_be_empty=True)
    read = []
    for name in inside.written if inside else ():
        assert inside is not None
        if path_problem(name) or not NAME.fullmatch(name):
            inside.report(name, _NAME_RULE)
        elif artifact := inside.section(name):
            read.append(Read(read_artifact(artifact, kind, name, root), artifact))
    return read


def _mirror(section: Section, root: Path) -> MirrorSpec:
    default = f"file://{os.path.normpath(root / '.labsync' / 'mirror')}"
    node = section.find("mirror")
    if not isinstance(node, Mapping):
        return MirrorSpec(_mirror_url(section, "mirror", root) or default)
    inside = schema.Section(node, "mirror", section.issues)
    inside.check_keys(schema.MIRROR)
    spec = MirrorSpec(
        url=_mirror_url(inside, "url", root) or default,
        endpoint=inside.text("endpoint").rstrip("/"),
        region=inside.text("region"),
        profile=inside.text("profile"),
        single_writer=inside.flag("single_writer"),
    )
    if spec.endpoint and not _ENDPOINT.fullmatch(spec.endpoint):
        inside.report("endpoint", f"`{spec.endpoint}` is not `https://host`")
    for key in ("endpoint", "region", "profile"):
        if inside.find(key) is not None and not spec.url.startswith("s3://"):
            inside.report(key, f"`{key}` belongs to a mirror in `s3://`")
    return spec


def _mirror_url(section: Section, key: str, root: Path) -> str:
    text = section.text(key)
    if text.startswith("s3://"):
        bucket, _, prefix = text.removeprefix("s3://").rstrip("/").partition("/")
        if not _BUCKET.fullmatch(f"s3://{bucket}"):
            section.report(key, f"`{text}` names no bucket, as in `s3://my-bucket/my-lab`")
        elif prefix and (problem := path_problem(prefix)):
            section.report(key, f"the prefix in `{text}` {problem}")
        return text.rstrip("/")
    path = text.removeprefix("file:")
    if path.startswith("//") and not path.startswith("///"):
        section.report(key, f"`{text}` names a host: write `file:///absolute/path` or `./path`")
    elif path == text and text and not text.startswith(("./", "../", "/")):
        section.report(key, f"`{text}` is not `s3://bucket/prefix`, `file:///path` or `./path`")
    elif text and not path.strip("/."):
        section.report(key, f"`{text}` is not a folder of the mirror's own")
    elif text:
        return f"file://{os.path.normpath(root / re.sub('^//+', '/', path))}"
    return ""


def _disk(section: Section | None) -> DiskSpec:
    if section is None:
        return DiskSpec()
    section.check_keys(schema.DISK)
    return DiskSpec(section.size("reserve"), section.size("budget"))


def _session(section: Section) -> SessionSpec:
    if not isinstance(section.find("session"), Mapping):
        return SessionSpec(section.choice("session", schema.PROFILES, "auto"))
    inside = section.section("session")
    assert inside is not None
    inside.check_keys(schema.SESSION)
    limit, margin = inside.duration("limit"), inside.duration("margin")
    if inside.find("limit") is None:
        inside.report("", "`limit` is missing, as in `{limit: 4h, margin: 10m}`")
    elif margin >= limit:
        inside.report("limit", "must be longer than the margin")
    return SessionSpec("", limit, margin)


def _environment(section: Section | None) -> EnvironmentSpec | None:
    if section is None:
        return None
    section.check_keys(schema.ENVIRONMENT)
    name = section.text("name")
    if section.find("name") is None:
        section.report("", "`name` is missing, as in `name: mlgpu`")
    elif name and not NAME.fullmatch(name):
        section.report("name", f"`{name}`: {_NAME_RULE}")
    elif name and schema.RESERVED_ENVIRONMENTS.fullmatch(name):
        section.report(
            "name", f"`{name}` is the platform's own environment and is never touched, take another name"
        )
    manager = section.choice("manager", schema.MANAGERS, "conda")
    inherit, spec = section.flag("inherit"), section.path("spec")
    if inherit and manager != "venv":
        section.report("inherit", "`inherit` belongs to `manager: venv`")
    elif section.find("spec") is None and not inherit:
        section.report("", "`spec` is missing; only `manager: venv` with `inherit: true` needs none")
    beside = f"{spec.rpartition('/')[0]}/".lstrip("/")
    return EnvironmentSpec(
        name=name,
        manager=manager,
        inherit=inherit,
        spec=spec,
        lock=section.path("lock") or (f"{beside}{name}.lock.yaml" if spec else ""),
        kernel=section.text("kernel") or f"Python ({name})",
        offline=section.flag("offline"),
        target=_target(section.section("target")),
    )


def _target(section: Section | None) -> tuple[tuple[str, str], ...]:
    if section is None:
        return ()
    for key in section.written:
        if not _TARGET.fullmatch(key):
            section.report(key, "is not a virtual package, as in `__cuda`")
    return tuple((key, section.text(key)) for key in section.written)
