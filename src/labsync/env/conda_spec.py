"""A line under `dependencies:` that asks for one of conda's packages, read as conda reads it.

numpy    numpy=1.26    numpy 1.26.4    numpy>=1.24,<3    pytorch=2.5=*cuda12*    conda-forge::ffmpeg
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_LINE = re.compile(
    r"(?:(?P<channel>[^\s:]+(?:://[^\s:]+)?)::)?(?P<name>_?[A-Za-z0-9][A-Za-z0-9._-]*)\s*(?P<rest>[<>=!~*0-9].*)?"
)
# A version, then perhaps a build behind `=` or a space (`=1.26=py311*`, `>=1,<2 py311*`).
_VERSION_BUILD = re.compile(r"(.+?[^><!,|=~\s]?)(?:(?<![=!|,<>~])[ =]([^-=,|<>~\s]+))?")
_VERSION = re.compile(r"[A-Za-z0-9._*+!]+")
_CLAUSE = re.compile(r"(?:==|=|>=|<=|!=|~=|>|<)?\s*[A-Za-z0-9._*+!]+")


@dataclass(frozen=True, slots=True)
class CondaRequirement:
    """A package of conda that is asked for; `version` is in conda's own form, `None` is not asked."""

    name: str
    version: str = ""
    build: str | None = None
    channel: str | None = None

    @property
    def match_spec(self) -> str:
        """The requirement in the strict form that says everything and leaves nothing to guess."""
        version = f"=={self.version}" if _is_exact(self.version) else self.version
        parts = {"version": version, "build": self.build, "channel": self.channel}
        inside = ",".join(f"{key}='{value}'" for key, value in parts.items() if value)
        return f"{self.name}[{inside}]" if inside else self.name


def parse_conda(text: str) -> CondaRequirement | None:
    """Return what a line asks for, None for one that is not understood."""
    match = _LINE.fullmatch(text.strip())
    if match is None:
        return None
    name, rest = match["name"].lower(), (match["rest"] or "").strip()
    if not rest:
        return CondaRequirement(name, channel=match["channel"])
    parts = _VERSION_BUILD.fullmatch(rest)
    if parts is None:
        return None
    version, build = re.sub(r"(?<=\w)\*", ".*", parts[1].replace(" ", "")), parts[2]
    if not all(_CLAUSE.fullmatch(clause) for clause in re.split(r"[,|]", version)):
        return None
    return CondaRequirement(name, _conda_version(version, build), build, match["channel"])


def _conda_version(version: str, build: str | None) -> str:
    """Return the version as conda takes it: `=1.2` alone is `1.2.*`, `==1.2` and `=1.2=build` are `1.2`."""
    if any(sign in version for sign in ",|") or version[0] != "=":
        return version
    if version.startswith("=="):
        return version[2:] if build is None else version
    version = version[1:]
    return version if build is not None or version.endswith("*") else f"{version}.*"


def _is_exact(version: str) -> bool:
    return bool(_VERSION.fullmatch(version)) and "*" not in version
