"""The folder list is the architecture: imports point downwards, and foreign packages have one door."""

from __future__ import annotations

import ast
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from labsync.process import run

if TYPE_CHECKING:
    from collections.abc import Iterator

SOURCE = Path(__file__).parent.parent / "src" / "labsync"
MODULES = sorted(SOURCE.rglob("*.py"))

LAYERS = (
    {
        "errors",
        "digest",
        "names",
        "filters",
        "snapshot",
        "places",
        "events",
        "report",
        "run_record",
        "secrets",
        "stall",
        "packing",
    },
    {"manifest", "plan", "merge"},
    {
        "lock",
        "atomic",
        "staging",
        "process",
        "state",
        "database",
        "settings",
        "artifact_locks",
        "session",
    },
    {"origins", "mirrors", "disk", "env", "smoke"},
    {"transfer", "guard"},
    {"steps"},
    {"workflow", "workflow_env", "workflow_guard"},
    {"render"},
    {"cli", "__main__"},
)
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}

# Each foreign package and the only places that may import it.
DOORS = {
    "boto3": ("mirrors/s3", "origins/"),
    "botocore": ("mirrors/s3", "origins/"),
    "huggingface_hub": ("origins/huggingface", "disk/hf_cache"),
    "fsspec": ("origins/",),
    "urllib3": ("origins/",),
    "click": ("cli/",),
    "tqdm": ("render/progress",),
    "subprocess": ("process",),
    "ruamel": ("manifest/", "env/"),
    "zstandard": ("mirrors/", "lock"),
    "jupyter_client": ("env/kernel",),
    "rattler": ("env/rattler_worker",),
    "sqlite3": ("state", "database"),
    "torch": ("smoke/",),
}


def _name(path: Path) -> str:
    return str(path.relative_to(SOURCE).with_suffix(""))


def _imports(tree: ast.Module) -> Iterator[tuple[str, bool]]:
    """Yield each imported module and whether it is imported when the file is loaded."""
    lazy = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or _is_type_checking(node)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, id(node) not in lazy
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module, id(node) not in lazy


def _is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)


@pytest.mark.parametrize("path", MODULES, ids=_name)
def test_imports_point_downwards(path: Path) -> None:
    mine = _name(path).split("/")[0]
    if mine == "__init__":
        return
    for module, _ in _imports(ast.parse(path.read_text("utf-8"))):
        parts = module.split(".")
        if parts[0] == "labsync" and len(parts) > 1:
            assert RANK[parts[1]] <= RANK[mine], f"{mine} must not import {module}"


@pytest.mark.parametrize("path", MODULES, ids=_name)
def test_foreign_packages_come_through_their_door(path: Path) -> None:
    name = _name(path)
    for module, _ in _imports(ast.parse(path.read_text("utf-8"))):
        doors = DOORS.get(module.split(".")[0])
        if doors is not None:
            assert name.startswith(doors), f"{name} must not import {module}"


@pytest.mark.parametrize("path", MODULES, ids=_name)
def test_foreign_packages_are_imported_lazily(path: Path) -> None:
    name = _name(path)
    if name.startswith(("cli/", "smoke/probes/")):
        return
    eager = {
        module.split(".")[0] for module, at_load in _imports(ast.parse(path.read_text("utf-8"))) if at_load
    }
    assert not eager & (DOORS.keys() - {"subprocess", "sqlite3", "click"}), (
        f"{name} imports {eager} when loaded"
    )


@pytest.mark.parametrize("path", MODULES, ids=_name)
def test_only_render_and_cli_and_probes_print(path: Path) -> None:
    name = _name(path)
    if name.startswith(("render/", "cli/", "smoke/probes/")):
        return
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        printed = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
        assert not printed, f"{name} prints"


@pytest.mark.parametrize("path", MODULES, ids=_name)
def test_files_and_functions_stay_short(path: Path) -> None:
    text = path.read_text("utf-8")
    assert len(text.splitlines()) <= 400, f"{path} has a second subject inside"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            assert (node.end_lineno or 0) - node.lineno < 60, f"{node.name} is too long"


def test_training_loops_need_the_standard_library_alone() -> None:
    script = (
        "import sys; sys.path.insert(0, sys.argv[1]); from labsync import session; session.time_left(); "
        "session.should_stop(); print(*{name.partition('.')[0] for name in sys.modules})"
    )
    done = run([sys.executable, "-I", "-S", "-c", script, str(SOURCE.parent)])
    assert done.returncode == 0, done.error_text
    assert set(done.stdout.decode().split()) - set(sys.stdlib_module_names) <= {"labsync", "__main__"}


def test_every_module_has_a_layer() -> None:
    known = set(RANK) | {"__init__"}
    assert {_name(path).split("/")[0] for path in MODULES} <= known
