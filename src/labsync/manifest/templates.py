"""The manifests that `labsync init` starts from; they are data of the package."""

from __future__ import annotations

from importlib import resources
from typing import Literal, get_args

from labsync.errors import UsageError
from labsync.manifest.schema import did_you_mean

TemplateName = Literal["vision", "video", "minimal"]
TEMPLATES: tuple[TemplateName, ...] = get_args(TemplateName)


# The environment files that a template's manifest names, and the one without a GPU, written beside it.
_BESIDE: dict[TemplateName, tuple[str, ...]] = {
    "vision": ("envs/mlgpu.yaml", "envs/cpu.yaml"),
    "video": ("envs/video.yaml", "envs/cpu.yaml"),
    "minimal": (),
}


def template_files(name: TemplateName) -> dict[str, str]:
    """Return the files that a template's manifest names, by the path they have beside it."""
    folder = resources.files("labsync") / "templates"
    return {path: folder.joinpath(*path.split("/")).read_text(encoding="utf-8") for path in _BESIDE[name]}


def template_text(name: str) -> str:
    """Return the text of a template; UsageError (2) when there is none of this name."""
    if name not in TEMPLATES:
        raise UsageError(
            f"there is no template `{name}`{did_you_mean(name, TEMPLATES)}",
            hint=f"the templates are {', '.join(f'`{known}`' for known in TEMPLATES)}",
        )
    return (resources.files("labsync") / "templates" / f"{name}.yaml").read_text(encoding="utf-8")
