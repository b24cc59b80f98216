"""Tiny pure-Python wheels and library trees, made in the test."""

from __future__ import annotations

import zipfile
from typing import TYPE_CHECKING

from labsync.env.package import record_digest

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


def make_wheel(
    folder: Path,
    name: str,
    version: str,
    files: Mapping[str, str] | None = None,
    script: str = "",
    needs: str = "",
) -> Path:
    """Write a wheel with one module of the distribution's name unless told otherwise."""
    folder.mkdir(parents=True, exist_ok=True)
    info = f"{name}-{version}.dist-info"
    content = dict(files or {f"{name}.py": f"VERSION = {version!r}\n"})
    content[f"{info}/METADATA"] = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    if needs:
        content[f"{info}/METADATA"] += f"Requires-Dist: {needs}\n"
    content[f"{info}/WHEEL"] = (
        "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    )
    if script:
        content[f"{info}/entry_points.txt"] = f"[console_scripts]\n{name} = {script}\n"
        content[f"{name}-{version}.data/scripts/{name}-raw"] = "#!python\nprint('raw')\n"
    rows = [f"{path},{record_digest(text.encode())},{len(text.encode())}" for path, text in content.items()]
    content[f"{info}/RECORD"] = "\n".join([*rows, f"{info}/RECORD,,"]) + "\n"
    wheel = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, text in content.items():
            archive.writestr(path, text)
    return wheel


def make_library(tree: Path, name: str, body: str = "ANSWER = 42\n") -> Path:
    """Write a tree that setuptools builds, with one package."""
    package = tree / name
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(body)
    (tree / "pyproject.toml").write_text(
        '[build-system]\nrequires = ["setuptools>=61", "wheel"]\nbuild-backend = "setuptools.build_meta"\n'
        f'[project]\nname = "{name}"\nversion = "1.2"\n[tool.setuptools]\npackages = ["{name}"]\n'
    )
    return tree
