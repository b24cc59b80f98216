"""What a person types to move the same files with other tools; each with the settings it comes with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from benchmarks.server import BUCKET

if TYPE_CHECKING:
    from benchmarks.tools import Tools

LOOPS = str(Path(__file__).with_name("loops.py"))
Argv = tuple[str, ...]


class Named(Protocol):
    """A tool as command lines; `key` and `prefix` are below the bucket, a prefix without its last slash."""

    @property
    def name(self) -> str:
        """What the tables call it."""


class GetsOne(Named, Protocol):
    """A tool that pulls."""

    def get(self, key: str, file: Path) -> Argv:
        """Bring one object to a file that is not there yet."""


class PutsOne(Named, Protocol):
    """A tool that pushes."""

    def put(self, file: Path, key: str) -> Argv:
        """Bring one file to the bucket."""


class GetsAll(Named, Protocol):
    """A tool that pulls folders."""

    def get_all(self, prefix: str, folder: Path) -> Argv:
        """Bring all objects below a prefix into a folder that is not there yet."""


class PutsAll(Named, Protocol):
    """A tool that pushes folders."""

    def put_all(self, folder: Path, prefix: str) -> Argv:
        """Bring all files of a folder to the bucket."""


class Syncs(Named, Protocol):
    """A tool that can see that nothing is to do."""

    def sync(self, prefix: str, folder: Path) -> Argv:
        """Bring what a folder lacks, judging by sizes alone."""


@dataclass(frozen=True, slots=True)
class S5cmd:
    """s5cmd, the fastest of the known ones."""

    tools: Tools
    url: str
    name: str = "s5cmd"

    @property
    def _base(self) -> Argv:
        return (self.tools.s5cmd, "--log", "error", "--endpoint-url", self.url)

    def get(self, key: str, file: Path) -> Argv:
        """See GetsOne."""
        return (*self._base, "cp", f"s3://{BUCKET}/{key}", str(file))

    def put(self, file: Path, key: str) -> Argv:
        """See PutsOne."""
        return (*self._base, "cp", str(file), f"s3://{BUCKET}/{key}")

    def get_all(self, prefix: str, folder: Path) -> Argv:
        """See GetsAll."""
        return (*self._base, "cp", f"s3://{BUCKET}/{prefix}/*", f"{folder}/")

    def put_all(self, folder: Path, prefix: str) -> Argv:
        """See PutsAll."""
        return (*self._base, "cp", f"{folder}/", f"s3://{BUCKET}/{prefix}/")

    def sync(self, prefix: str, folder: Path) -> Argv:
        """See Syncs."""
        return (*self._base, "sync", "--size-only", f"s3://{BUCKET}/{prefix}/*", f"{folder}/")


@dataclass(frozen=True, slots=True)
class HashedS5cmd:
    """s5cmd, and the check that it lacks, which a careful person adds."""

    tools: Tools
    url: str
    name: str = "s5cmd, then openssl"

    def get(self, key: str, file: Path) -> Argv:
        """See GetsOne."""
        copy = S5cmd(self.tools, self.url).get(key, file)
        both = 'file=$1; openssl=$2; shift 2; "$@" && "$openssl" dgst -sha256 "$file"'
        return ("sh", "-c", both, "sh", str(file), self.tools.openssl, *copy)


@dataclass(frozen=True, slots=True)
class Rclone:
    """rclone; on two cores more than its four transfers at a time are not faster."""

    tools: Tools
    url: str
    name: str = "rclone"

    @property
    def _base(self) -> Argv:
        s3 = ("--s3-provider", "Rclone", "--s3-endpoint", self.url, "--s3-env-auth")
        return (self.tools.rclone, "--config", "", "--quiet", *s3)

    def get(self, key: str, file: Path) -> Argv:
        """See GetsOne."""
        return (*self._base, "copyto", f":s3:{BUCKET}/{key}", str(file))

    def put(self, file: Path, key: str) -> Argv:
        """See PutsOne."""
        return (*self._base, "copyto", str(file), f":s3:{BUCKET}/{key}")

    def get_all(self, prefix: str, folder: Path) -> Argv:
        """See GetsAll."""
        return (*self._base, "copy", "--fast-list", f":s3:{BUCKET}/{prefix}", str(folder))

    def put_all(self, folder: Path, prefix: str) -> Argv:
        """See PutsAll."""
        return (*self._base, "copy", "--fast-list", str(folder), f":s3:{BUCKET}/{prefix}")

    def sync(self, prefix: str, folder: Path) -> Argv:
        """See Syncs."""
        compare = ("copy", "--size-only", "--fast-list")
        return (*self._base, *compare, f":s3:{BUCKET}/{prefix}", str(folder))


@dataclass(frozen=True, slots=True)
class Aws:
    """The AWS CLI."""

    tools: Tools
    url: str
    name: str = "awscli"

    @property
    def _base(self) -> Argv:
        return (self.tools.aws, "--endpoint-url", self.url, "s3")

    def get(self, key: str, file: Path) -> Argv:
        """See GetsOne."""
        return (*self._base, "cp", "--only-show-errors", f"s3://{BUCKET}/{key}", str(file))

    def put(self, file: Path, key: str) -> Argv:
        """See PutsOne."""
        return (*self._base, "cp", "--only-show-errors", str(file), f"s3://{BUCKET}/{key}")

    def sync(self, prefix: str, folder: Path) -> Argv:
        """See Syncs."""
        compare = ("sync", "--only-show-errors", "--size-only")
        return (*self._base, *compare, f"s3://{BUCKET}/{prefix}", str(folder))


@dataclass(frozen=True, slots=True)
class Loop:
    """A few lines of Python over boto3 or obstore, in sixteen threads where there are many files."""

    tools: Tools
    url: str
    name: str

    def _argv(self, verb: str, where: Path, key: str) -> Argv:
        return (self.tools.python, LOOPS, self.name, verb, self.url, BUCKET, key, str(where))

    def get(self, key: str, file: Path) -> Argv:
        """See GetsOne."""
        return self._argv("get", file, key)

    def put(self, file: Path, key: str) -> Argv:
        """See PutsOne."""
        return self._argv("put", file, key)

    def get_all(self, prefix: str, folder: Path) -> Argv:
        """See GetsAll."""
        return self._argv("get_all", folder, prefix)

    def put_all(self, folder: Path, prefix: str) -> Argv:
        """See PutsAll."""
        return self._argv("put_all", folder, prefix)
