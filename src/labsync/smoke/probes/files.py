"""Look at weight files before anything loads them: whether they are what their name says, and whole."""

from __future__ import annotations

import json
import pickletools
import zipfile
from typing import IO, TYPE_CHECKING

from ..troubles import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PICKLES = (".bin", ".pth", ".pt", ".ckpt")
_LFS = b"version https://git-lfs"
_PAGES = (b"<!doctype", b"<html", b"<?xml")
_MAX_HEADER = 100_000_000  # bytes, the format's own limit
_NAMED = 3  # foreign names that a finding tells
# Where a checkpoint's own names come from. What is not here is only ever listed; `weights_only=True` decides.
_SAFE = {
    "torch", "torch._utils", "torch._tensor", "torch.nn.parameter", "torch.serialization", "torch.storage",
    "collections", "_codecs", "numpy", "numpy._core.multiarray", "numpy.core.multiarray",
}  # fmt: skip


def problem_of(model: Path) -> Finding | None:
    """Return what is wrong with the model's weights, None when nothing is.

    A folder's pickles are only looked at when it has no safetensors, which are loaded instead.
    """
    if not model.exists():
        return Finding("file", f"`{model}` does not exist")
    files = weight_files(model)
    if not files:
        return Finding("file", f"`{model}` holds no weights (*.safetensors or *.bin)")
    found = [problem for file in files if (problem := _file_problem(file))]
    return found[0] if found else _missing_shard(model)


def weight_files(model: Path) -> list[Path]:
    """Return the files that loading the model would read."""
    if model.is_file():
        return [model]
    safe = sorted(model.glob("*.safetensors"))
    return safe or sorted(path for path in model.iterdir() if path.suffix in PICKLES)


def _missing_shard(model: Path) -> Finding | None:
    for index in sorted(model.glob("*.index.json")) if model.is_dir() else ():
        for shard in sorted(set(json.loads(index.read_text())["weight_map"].values())):
            if not (model / shard).exists():
                return Finding("file", f"the shard `{shard}` is missing, which `{index.name}` names")
    return None


def _file_problem(file: Path) -> Finding | None:
    with file.open("rb") as opened:
        start = opened.read(64)
    if start.startswith(_LFS):
        return Finding("pointer", f"`{file.name}` is a Git LFS pointer, not the file itself")
    if start.lstrip().lower().startswith(_PAGES):
        return Finding(
            "page", f"`{file.name}` is a web page, not a model: a server's answer was saved under its name"
        )
    if file.suffix == ".safetensors":
        return _safetensors_problem(file)
    return _pickle_problem(file, is_zip=start.startswith(b"PK"))


def _safetensors_problem(file: Path) -> Finding | None:
    size = file.stat().st_size
    with file.open("rb") as opened:
        length = int.from_bytes(opened.read(8), "little")
        if not 2 <= length <= min(size, _MAX_HEADER):
            return Finding("file", f"`{file.name}` is not a safetensors file")
        header = opened.read(length)
    try:
        rows = json.loads(header)
        ends = [row["data_offsets"][1] for name, row in rows.items() if name != "__metadata__"]
    except (ValueError, KeyError, TypeError, AttributeError):
        return Finding("file", f"`{file.name}` has a header that is not the one of a safetensors file")
    whole = 8 + length + max(ends, default=0)
    if size != whole:
        return Finding(
            "file",
            f"`{file.name}` has {size} bytes where its header promises {whole}: it is {_cut(size, whole)}",
        )
    return None


def _cut(size: int, whole: int) -> str:
    return "cut off" if size < whole else "too long"


def _pickle_problem(file: Path, *, is_zip: bool) -> Finding | None:
    try:
        foreign = sorted({name for stream in _pickles(file, is_zip=is_zip) for name in _names(stream)})
    except (zipfile.BadZipFile, ValueError, IndexError, EOFError):
        return Finding("file", f"`{file.name}` is cut off or damaged: its table of contents cannot be read")
    if not foreign:
        return None
    names = ", ".join(f"`{name}`" for name in foreign[:_NAMED]) + (", …" if len(foreign) > _NAMED else "")
    what = f"`{file.name}` would call {names}, which is code and not weights"
    return Finding("pickle", f"{what}; it was not loaded, nothing was executed")


def _pickles(file: Path, *, is_zip: bool) -> Iterator[IO[bytes]]:
    if not is_zip:
        with file.open("rb") as stream:
            yield stream
        return
    with zipfile.ZipFile(file) as archive:
        for name in archive.namelist():
            if name.endswith(".pkl"):
                with archive.open(name) as stream:
                    yield stream


def _names(stream: IO[bytes]) -> Iterator[str]:
    """Yield what the pickle would import and weights have no need of, without running it."""
    strings: list[str] = []
    for opcode, value, _ in pickletools.genops(stream):
        if isinstance(value, str):
            strings.append(value)
        if opcode.name == "GLOBAL":
            module, _, name = str(value).partition(" ")
        elif opcode.name == "STACK_GLOBAL":
            module, name = strings[-2], strings[-1]
        else:
            continue
        if module not in _SAFE or "." in name:
            yield f"{module}.{name}"
