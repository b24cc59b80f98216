"""A real conda channel, made here: the Python that runs the tests, installed distributions, small probes.

Nothing is downloaded. The Python in it needs this machine's libraries, which is enough for this machine.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import io
import json
import os
import shutil
import sys
import sysconfig
import tarfile
import zipfile
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import zstandard
from packaging.requirements import Requirement

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

MINOR = f"{sys.version_info.major}.{sys.version_info.minor}"
VERSION = ".".join(map(str, sys.version_info[:3]))
PLACEHOLDER = "/labsync_placeholder" + "_placehold" * 23  # 250 bytes; conda-build pads to 255
SUBDIRS = ("linux-64", "noarch")
_ABSENT = {
    "site-packages",
    "dist-packages",
    "test",
    "idlelib",
    "tkinter",
    "lib2to3",
    "ensurepip",
    "__pycache__",
}
_TEXT = {".py", ".pc", ".sh", ".json", ""}


@dataclass(frozen=True)
class Member:
    """A file of a package; `link` is a symbolic link's text, `binary` how a placeholder is replaced."""

    data: bytes = b""
    mode: int = 0o644
    link: str = ""
    placeholder: str = ""
    binary: bool = False


@dataclass
class Package:
    """A conda package before it is packed."""

    name: str
    version: str
    files: dict[str, Member]
    depends: tuple[str, ...] = ()
    build: str = "h0_0"
    noarch: str = ""
    entry_points: tuple[str, ...] = ()

    @property
    def subdir(self) -> str:
        return "noarch" if self.noarch else "linux-64"

    @property
    def file_name(self) -> str:
        return f"{self.name}-{self.version}-{self.build}.conda"

    @property
    def index(self) -> dict[str, Any]:
        found: dict[str, Any] = {
            "name": self.name,
            "version": self.version,
            "build": self.build,
            "build_number": int(self.build.rpartition("_")[2]),
            "depends": list(self.depends),
            "constrains": [],
            "subdir": self.subdir,
            "timestamp": 1700000000000,
        }
        return found | ({"noarch": self.noarch} if self.noarch else {"arch": "x86_64", "platform": "linux"})


@dataclass
class Channel:
    """A folder that conda and rattler take for a channel; `add` also writes the package lists anew."""

    root: Path
    rows: dict[str, dict[str, dict[str, Any]]] = field(default_factory=lambda: {s: {} for s in SUBDIRS})

    def add(self, *packages: Package) -> None:
        for package in packages:
            data = pack(package)
            path = self.root / package.subdir / package.file_name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            row = package.index | {
                "md5": hashlib.md5(data).hexdigest(),
                "sha256": hashlib.sha256(data).hexdigest(),
                "size": len(data),
            }
            self.rows[package.subdir][package.file_name] = row
        self.write_lists()

    def write_lists(self) -> None:
        for subdir, rows in self.rows.items():
            info = {"info": {"subdir": subdir}, "packages": {}, "packages.conda": rows, "repodata_version": 1}
            path = self.root / subdir / "repodata.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(info))

    def path(self, name: str) -> Path:
        """Return the newest file of the package of this name."""
        return next(iter(sorted(self.root.glob(f"*/{name}-[0-9]*.conda"), reverse=True)))

    def copy(self, root: Path) -> Channel:
        """Return a channel of one's own, to be damaged or extended."""
        shutil.copytree(self.root, root)
        return Channel(root, {subdir: dict(rows) for subdir, rows in self.rows.items()})


def pack(package: Package) -> bytes:
    """Return the package as a `.conda` file."""
    paths = [_path_entry(name, member) for name, member in sorted(package.files.items())]
    info = {
        "info/index.json": json.dumps(package.index).encode(),
        "info/paths.json": json.dumps({"paths": paths, "paths_version": 1}).encode(),
        "info/about.json": b"{}",
    }
    if package.noarch == "python":
        link = {
            "noarch": {"type": "python", "entry_points": list(package.entry_points)},
            "package_metadata_version": 1,
        }
        info["info/link.json"] = json.dumps(link).encode()
    stem = package.file_name.removesuffix(".conda")
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        members = {name: Member(data) for name, data in info.items()}
        for name, data in (
            ("metadata.json", b'{"conda_pkg_format_version": 2}'),
            (f"pkg-{stem}.tar.zst", _tar(package.files)),
            (f"info-{stem}.tar.zst", _tar(members)),
        ):
            archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), data)
    return out.getvalue()


def _path_entry(name: str, member: Member) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "_path": name,
        "path_type": "softlink" if member.link else "hardlink",
        "sha256": hashlib.sha256(member.data).hexdigest(),
        "size_in_bytes": len(member.data),
    }
    if member.placeholder:
        entry |= {
            "prefix_placeholder": member.placeholder,
            "file_mode": "binary" if member.binary else "text",
        }
    return entry


def _tar(files: Mapping[str, Member]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, member in sorted(files.items()):
            info = tarfile.TarInfo(name)
            info.mode, info.mtime = member.mode, 1_000_000_000
            if member.link:
                info.type, info.linkname = tarfile.SYMTYPE, member.link
                archive.addfile(info)
            else:
                info.size = len(member.data)
                archive.addfile(info, io.BytesIO(member.data))
    return zstandard.ZstdCompressor(level=1).compress(out.getvalue())


def python_package() -> Package:
    """Return the running Python as a package that can be installed anywhere on this machine."""
    base = Path(sys.base_prefix)
    home = str(base)
    library = base / "lib" / f"python{MINOR}"
    files = {
        f"lib/python{MINOR}/{path.relative_to(library).as_posix()}": _member(path, home)
        for path in _walk(library)
        if path.suffix not in {".pyc", ".a"}
    }
    binary = Path(os.path.realpath(sys.executable))
    files[f"bin/python{MINOR}"] = Member(_relocatable(binary.read_bytes(), home), 0o755)
    for alias in ("python", "python3"):
        files[f"bin/{alias}"] = Member(link=f"python{MINOR}")
    shared = base / "lib" / str(sysconfig.get_config_var("INSTSONAME"))
    if shared.is_file():
        files[f"lib/{shared.name}"] = Member(shared.read_bytes(), 0o755)
    if sysconfig.get_default_scheme() == "posix_local":
        _undo_debian(files)
    files[f"lib/python{MINOR}/site-packages/README.txt"] = Member(b"packages go here\n")
    return Package("python", VERSION, files, ("__glibc >=2.17",), f"cp{MINOR.replace('.', '')}_0")


def _undo_debian(files: dict[str, Member]) -> None:
    """Let Debian's Python install packages and look for them where every other one does."""
    folder = f"lib/python{MINOR}"
    files.pop(f"{folder}/EXTERNALLY-MANAGED", None)
    path = f"{folder}/sysconfig.py"
    data = files[path].data.replace(b"'posix_local')", b"'posix_prefix')")
    files[path] = replace(
        files[path], data=data.replace(b"scheme = 'posix_local'", b"scheme = 'posix_prefix'")
    )
    # Its `site` is frozen into the binary, and knows `dist-packages` only.
    look = f"import site, sys\nsite.addsitedir(f'{{sys.prefix}}/{folder}/site-packages')\n"
    files[f"{folder}/sitecustomize.py"] = Member(look.encode())


def _relocatable(data: bytes, home: str) -> bytes:
    """Return the binary with its library path relative to itself: shorter than before, so nothing moves."""
    old = f"{home}/lib".encode() + b"\0"
    return data if home == "/usr" else data.replace(old, b"$ORIGIN/../lib".ljust(len(old), b"\0"))


def _walk(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path.is_dir() and not path.is_symlink():
            if path.name not in _ABSENT and not path.name.startswith("config-"):
                yield from _walk(path)
        else:
            yield path


def _member(path: Path, home: str) -> Member:
    if path.is_symlink():
        return Member(link=os.readlink(path))
    data = path.read_bytes()
    mode = 0o755 if os.access(path, os.X_OK) else 0o644
    if home != "/usr" and path.suffix in _TEXT and home.encode() in data:
        return Member(data.replace(home.encode(), PLACEHOLDER.encode()), mode, placeholder=PLACEHOLDER)
    return Member(data, mode)


def installed_packages(names: Iterable[str]) -> list[Package]:
    """Return installed distributions and all they need as packages, as conda-forge would name them."""
    wanted, found = list(names), dict[str, Package]()
    while wanted:
        name = wanted.pop().lower().replace("_", "-")
        if name not in found:
            found[name], needed = _distribution(name)
            wanted += needed
    return list(found.values())


def _distribution(name: str) -> tuple[Package, list[str]]:
    dist = importlib.metadata.distribution(name)
    needed = [
        r
        for r in map(Requirement, dist.requires or ())
        if r.marker is None or r.marker.evaluate({"extra": ""})
    ]
    root = Path(str(dist.locate_file("")))
    inside = {
        str(file): Path(str(file.locate())) for file in dist.files or () if not str(file).startswith("..")
    }
    data = {path: source.read_bytes() for path, source in inside.items() if _belongs(path, source)}
    assert root.is_dir()
    native = any(path.endswith(".so") for path in data)
    folder = f"lib/python{MINOR}/site-packages" if native else "site-packages"
    files = {f"{folder}/{path}": Member(content) for path, content in data.items()}
    points = tuple(f"{p.name} = {p.value}" for p in dist.entry_points if p.group == "console_scripts")
    depends = (f"python {MINOR}.*" if native else "python", *(_conda_spec(r) for r in needed))
    build = f"py{MINOR.replace('.', '')}_0" if native else "pyhd8ed1ab_0"
    noarch = "" if native else "python"
    package = Package(name, dist.version, files, depends, build, noarch, () if native else points)
    return package, [requirement.name for requirement in needed]


def _belongs(path: str, source: Path) -> bool:
    return not path.endswith((".pyc", "direct_url.json", "REQUESTED")) and source.is_file()


def _conda_spec(requirement: Requirement) -> str:
    specifier = ",".join(
        sorted(str(s) for s in requirement.specifier if s.operator in {">=", "<", "!=", "=="})
    )
    return f"{requirement.name.lower().replace('_', '-')} {specifier}".strip()


def module(name: str, version: str, depends: Iterable[str] = ("python",), build: str = "pyh0_0") -> Package:
    """Return a noarch Python package with one module and its dist-info."""
    stem = name.replace("-", "_")
    info = f"site-packages/{stem}-{version}.dist-info"
    files = {
        f"site-packages/{stem}.py": Member(f"VERSION = {version!r}\nBUILD = {build!r}\n".encode()),
        f"{info}/METADATA": Member(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n".encode()),
        f"{info}/INSTALLER": Member(b"conda"),
        f"{info}/RECORD": Member(f"{stem}.py,,\n{info.partition('/')[2]}/METADATA,,\n".encode()),
    }
    return Package(name, version, files, tuple(depends), build, "python", (f"{name} = {stem}:main",))


def probe() -> Package:
    """Return a package with every way of naming its prefix, and a script that `activate` runs."""
    prefix = PLACEHOLDER.encode()
    files = {
        "share/probe/text": Member(b"prefix=" + prefix + b"\n", placeholder=PLACEHOLDER),
        "share/probe/blob": Member(
            b"\x7fBLOB\0" + prefix + b"/lib\0tail", placeholder=PLACEHOLDER, binary=True
        ),
        "share/probe/link": Member(link="text"),
        "etc/conda/activate.d/probe.sh": Member(
            b"export PROBE_HOME=\"$CONDA_PREFIX/share/probe\"\nexport PROBE_PRICE='$5'\n"
            b'export PATH="$CONDA_PREFIX/probe-bin:$PATH"\n'
        ),
    }
    return Package("probe", "1.0", files, (), "h0_0")


@cache
def _parts() -> tuple[Package, ...]:
    gpu = [
        module("gpulib", "1.0", ("python",), "cpu_0"),
        module("gpulib", "1.0", ("python", "__cuda >=12.4"), "cuda124_1"),
    ]
    return (
        python_package(),
        *installed_packages(["ipykernel", "six"]),
        *(module("tiny", version) for version in ("1.0", "1.5", "2.0")),
        module("needs-tiny", "1.0", ("python", "tiny <2")),
        *gpu,
        module("newer", "1.0", ("python", "__glibc >=9")),
        probe(),
    )


def make_channel(root: Path) -> Channel:
    """Write the channel that most tests share; about a second."""
    channel = Channel(root)
    channel.add(*_parts())
    return channel
