"""The Jupyter kernel of an environment: written whole, never over a kernel that labsync did not make.

`<user's kernels>/<name>/kernel.json`, with `metadata.labsync` as the mark:

    {"argv": ["<prefix>/bin/python", "-m", "ipykernel_launcher", "-f", "{connection_file}"],
     "display_name": "Python (mlgpu)", "language": "python", "env": {…},
     "metadata": {"debugger": true, "labsync": {"environment": "mlgpu", "prefix": "<prefix>"}}}
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from labsync import atomic
from labsync.env.stamp import variables_of
from labsync.errors import EnvironmentFailedError, RefusedError

if TYPE_CHECKING:
    from collections.abc import Mapping

KernelState = Literal["missing", "stale", "broken", "ok", "foreign"]
SPEC = "kernel.json"
_CARRIED = ("HF_HOME", "HF_HUB_CACHE")


@dataclass(frozen=True, slots=True)
class KernelRequest:
    """A kernel for the environment at `prefix`, a versioned one; `env` is where `HF_HOME` is read.

    Programs in the kernel find set what the environment's own stamp says.

    `offline` makes Hugging Face's libraries stay off the network in every notebook.
    """

    name: str
    prefix: Path
    display_name: str = ""
    offline: bool = False
    env: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))

    @property
    def folder(self) -> Path:
        """Where Jupyter finds the kernel."""
        return kernels_dir(self.env) / kernel_name(self.name)


def kernels_dir(env: Mapping[str, str]) -> Path:
    """Return the folder of the user's own kernels, as jupyter_core finds it on Linux."""
    home = Path(env.get("HOME") or "~").expanduser()
    data = (
        env.get("JUPYTER_DATA_DIR") or Path(env.get("XDG_DATA_HOME") or home / ".local" / "share") / "jupyter"
    )
    return Path(data) / "kernels"


def kernel_prefixes(env: Mapping[str, str]) -> tuple[Path, ...]:
    """Return the environments that the user's kernels of labsync run in."""
    found = []
    for path in kernels_dir(env).glob(f"*/{SPEC}"):
        try:
            spec = json.loads(path.read_bytes())
            found.append(Path(str(spec["metadata"]["labsync"]["prefix"])))
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return tuple(found)


def kernel_name(name: str) -> str:
    """Return the environment's name as Jupyter allows it for a kernel: lower case, `a-z0-9._-`."""
    return re.sub(r"[^a-z0-9._-]+", "-", name.lower())


def write_kernel(request: KernelRequest) -> Path:
    """Write the kernel's `kernel.json` at once and return its path; the same kernel is not written again.

    Raises RefusedError (12) where a kernel of that name exists that labsync did not make, and
    EnvironmentFailedError (13) where the environment has no Python.
    """
    path = request.folder / SPEC
    refuse_foreign(request)
    if not (request.prefix / "bin" / "python").exists():
        raise EnvironmentFailedError(
            f"the environment `{request.prefix}` has no Python", hint="`labsync env build` builds it"
        )
    data = kernel_json(request)
    if _read(request.folder) == "broken":
        os.replace(path, path.with_name(f"{SPEC}.broken"))
    if not path.is_file() or path.read_bytes() != data:
        atomic.write_bytes(path, data)
    return path


def refuse_foreign(request: KernelRequest) -> None:
    """Raise RefusedError (12) when the kernel's name is taken by one that labsync did not make."""
    folder = request.folder
    if _read(folder) == "foreign":
        raise RefusedError(
            f"the kernel `{folder.name}` exists and labsync did not make it",
            path=str(folder),
            hint=f"`jupyter kernelspec remove {folder.name}`, or choose another `name` under `environment:`",
        )


def kernel_json(request: KernelRequest) -> bytes:
    """Return the bytes of the kernel's `kernel.json`."""
    prefix = str(request.prefix)
    env = dict(variables_of(request.prefix)) or {"PATH": f"{prefix}/bin:${{PATH}}"}
    env |= {name: request.env[name] for name in _CARRIED if request.env.get(name)}
    if request.offline:
        env["HF_HUB_OFFLINE"] = "1"
    spec = {
        "argv": [f"{prefix}/bin/python", "-m", "ipykernel_launcher", "-f", "{connection_file}"],
        "display_name": request.display_name or f"Python ({request.name})",
        "language": "python",
        "env": env,
        "metadata": {"debugger": True, "labsync": {"environment": request.name, "prefix": prefix}},
    }
    return f"{json.dumps(spec, indent=1, ensure_ascii=False)}\n".encode()


def kernel_state(request: KernelRequest) -> KernelState:
    """Say how the kernel stands, starting nothing.

    `stale`: its Python is gone, or it is that of another prefix, or it would be written otherwise
    now; `broken`: nobody can read it, so it is no kernel; `foreign`: labsync did not make it.
    """
    found = _read(request.folder)
    if found is None:
        return "missing"
    if found in {"foreign", "broken"}:
        return "foreign" if found == "foreign" else "broken"
    there = (request.prefix / "bin" / "python").exists()
    return "ok" if there and found == kernel_json(request) else "stale"


def _read(folder: Path) -> bytes | Literal["foreign", "broken"] | None:
    """Return the bytes of a kernel that labsync made; a folder without `kernel.json` is no kernel.

    One that a full disk has cut is `broken`: Jupyter does not list it either.
    """
    if folder.is_symlink():
        return "foreign"
    try:
        data = (folder / SPEC).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return "foreign" if folder.exists() and not folder.is_dir() else None
    except OSError:
        return "foreign"
    try:
        spec = json.loads(data)
    except ValueError:
        return "broken"
    metadata = spec.get("metadata") if isinstance(spec, dict) else None
    return data if isinstance(metadata, dict) and "labsync" in metadata else "foreign"
