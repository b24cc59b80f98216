"""The digest of a conda spec, computed as conda-lock does: each takes the other's lock for current."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from labsync.digest import sha256_bytes
from labsync.env.lock import normal_name

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from labsync.env.spec import EnvironmentFile

_TIME = 1577854800000  # conda-lock's own constant for packages that do not exist
_PLATFORMS = {"linux-64": "x86_64", "linux-aarch64": "aarch64"}


def virtual_packages(platform: str, target: Mapping[str, str]) -> dict[str, str]:
    """Return the virtual packages of the machine that a lock is for: conda-lock's defaults, no GPU.

    `target` says otherwise, as in `{"cuda": "12.4", "glibc": "2.28"}`, with or without underscores.
    """
    found = {
        "__unix": "0",
        "__linux": "5.10",
        "__archspec": f"1 {_PLATFORMS.get(platform, platform.partition('-')[2])}",
        "__glibc": "2.28",
    }
    return found | {f"__{name.lstrip('_')}": version for name, version in target.items()}


def content_hash(spec: EnvironmentFile, platform: str) -> str:
    """Return conda-lock's digest of the spec for a platform, with the virtual packages of its target."""
    content: dict[str, object] = {
        "channels": [_json({"url": url, "used_env_vars": []}) for url in spec.channels],
        "specs": _specs(spec),
        "virtual_package_hash": {
            "noarch": {"info": {"subdir": "noarch"}, "packages": {}},
            platform: {"info": {"subdir": platform}, "packages": _fake(platform, spec)},
        },
    }
    if spec.indexes:
        content["pip_repositories"] = [_json({"url": url}) for url in spec.indexes]
    return sha256_bytes(json.dumps(content, sort_keys=True).encode())


def _json(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))


def _specs(spec: EnvironmentFile) -> Sequence[Mapping[str, object]]:
    found: dict[tuple[str, str], dict[str, object]] = {}
    for one in spec.packages:
        found["conda", one.name] = _row(one.name, "conda", one.version, build=one.build, channel=one.channel)
    for line in spec.requirements:
        name, row = _pip_row(line)
        found["pip", name] = row
    if spec.has_pip:
        found["conda", "pip"] = _row("pip", "conda", "*")
    return [found[key] for key in sorted(found)]


def _pip_row(line: str) -> tuple[str, dict[str, object]]:
    from packaging.requirements import Requirement

    requirement, _, marker = (part.strip() for part in line.partition(";"))
    parsed = Requirement(requirement)
    version = ",".join(sorted(_pip_version(str(one)) for one in parsed.specifier)) or "*"
    row = _row(normal_name(parsed.name), "pip", version, extras=sorted(parsed.extras))
    return normal_name(parsed.name), row | ({"markers": marker} if marker else {})


def _pip_version(clause: str) -> str:
    return clause.replace("===", "==")


def _row(
    name: str,
    manager: str,
    version: str,
    *,
    build: str | None = None,
    channel: str | None = None,
    extras: Sequence[str] = (),
) -> dict[str, object]:
    return {
        "name": name,
        "manager": manager,
        "category": "main",
        "extras": list(extras),
        "version": version,
        "build": build,
        "conda_channel": channel,
        "hash": None,
    }


def _fake(platform: str, spec: EnvironmentFile) -> Mapping[str, object]:
    return dict(
        _fake_package(platform, name, version)
        for name, version in virtual_packages(platform, dict(spec.target)).items()
    )


def _fake_package(platform: str, name: str, text: str) -> tuple[str, Mapping[str, object]]:
    version, _, build_string = text.partition(" ")
    # The number behind the build was a mistake of old versions, which conda-lock keeps in its digest.
    build = f"{build_string}_0" if build_string else "0"
    return f"{name}-{version}-{build}.tar.bz2", {
        "name": name,
        "version": version,
        "build_string": build_string,
        "build_number": 0,
        "noarch": "",
        "depends": [],
        "timestamp": _TIME,
        "package_type": "virtual_system",
        "build": build,
        "subdir": platform,
    }
