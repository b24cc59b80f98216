"""Meta's `segment_anything` as a bare git repository with one commit, the same on every machine.

The objects are written here and not by git: its own depend on zlib's build and on the user's settings.
"""

from __future__ import annotations

import importlib.metadata
from typing import TYPE_CHECKING

from files import digest, stored_zlib

if TYPE_CHECKING:
    from files import Tree

DISTRIBUTION, VERSION = "segment-anything", "1.0"
WHO = "labsync quickstart <quickstart@example.org> 1735689600 +0000"
PYPROJECT = b"""\
[build-system]
requires = ["setuptools>=61"]
build-backend = "setuptools.build_meta"

[project]
name = "segment-anything"
version = "1.0"
description = "Segment Anything, by Meta Platforms, as published on the package index"

[tool.setuptools.packages.find]
include = ["segment_anything*"]
"""


def write(tree: Tree, folder: str) -> str:
    """Write the repository under the folder and return the commit on its branch `main`."""
    objects: dict[str, bytes] = {}
    root = _add_tree(objects, _sources())
    text = f"tree {root}\nauthor {WHO}\ncommitter {WHO}\n\nsegment_anything 1.0 as published on PyPI\n"
    commit = _add(objects, "commit", text.encode())
    for name, data in sorted(objects.items()):
        tree.write(f"{folder}/objects/{name[:2]}/{name[2:]}", stored_zlib(data))
    tree.write(f"{folder}/HEAD", b"ref: refs/heads/main\n")
    tree.write(f"{folder}/config", b"[core]\n\trepositoryformatversion = 0\n\tbare = true\n")
    tree.write(f"{folder}/refs/heads/main", f"{commit}\n".encode())
    return commit


def _sources() -> dict[str, bytes]:
    distribution = importlib.metadata.distribution(DISTRIBUTION)
    if distribution.version != VERSION:
        raise SystemExit(f"error: {DISTRIBUTION} {VERSION} is needed, {distribution.version} is installed")
    sources = {"pyproject.toml": PYPROJECT}
    for file in distribution.files or ():
        if file.suffix == ".py" or file.name == "LICENSE":
            path = file.as_posix() if file.suffix == ".py" else "LICENSE"
            sources[path] = file.read_binary()
    if len(sources) < 10:
        raise SystemExit(f"error: the installed {DISTRIBUTION} does not list its files; install it with pip")
    return sources


def _add(objects: dict[str, bytes], kind: str, body: bytes) -> str:
    data = f"{kind} {len(body)}\0".encode() + body
    name = digest(data)
    objects[name] = data
    return name


def _add_tree(objects: dict[str, bytes], files: dict[str, bytes]) -> str:
    folders: dict[str, dict[str, bytes]] = {}
    rows: list[tuple[str, str, str]] = []  # sort key, mode and name, object
    for path, data in files.items():
        head, slash, rest = path.partition("/")
        if slash:
            folders.setdefault(head, {})[rest] = data
        else:
            rows.append((head, f"100644 {head}", _add(objects, "blob", data)))
    for head, inside in folders.items():
        rows.append((f"{head}/", f"40000 {head}", _add_tree(objects, inside)))
    body = b"".join(row.encode() + b"\0" + bytes.fromhex(name) for _, row, name in sorted(rows))
    return _add(objects, "tree", body)
