"""Git repositories as `git+https://…`, `git+http://…`, `git+ssh://…`, `git+file:/absolute/path`.

The tree at one commit, fetched into a bare scratch repository and proven by rebuilding its tree object.
"""

from __future__ import annotations

import difflib
import fcntl
import hashlib
import re
import tempfile
from dataclasses import dataclass
from typing import TYPE_CHECKING

from labsync.atomic import disk_errors, make_dirs
from labsync.digest import is_commit, sha256_bytes
from labsync.errors import IntegrityError, InvalidError, NotFoundError, RefusedError
from labsync.origins.base import Listed, Listing
from labsync.origins.git_blobs import Blobs
from labsync.origins.git_command import LONG, MissingError, Remote, damaged, git

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from labsync.manifest.model import Artifact
    from labsync.places import Blocks, Ref
    from labsync.snapshot import FileEntry

_SHORT_COMMIT = re.compile(r"[0-9a-f]{4,39}")
# https://git-scm.com/docs/git-check-ref-format; a leading dash would be an option.
_BAD_REF = re.compile(r"^-|[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//|/$|\.$|\.lock$")
_SKIPPED = {"120000": "is a symbolic link", "160000": "is a submodule"}


@dataclass(frozen=True, slots=True)
class _Blob:
    path: str
    oid: str
    size: int
    executable: bool


class GitOrigin:
    """Git repositories; `scratch` keeps what was fetched and may be deleted at any time."""

    def __init__(self, scratch: Path) -> None:
        self._scratch = scratch
        self._blobs: dict[str, Blobs] = {}

    def resolve(self, artifact: Artifact) -> Listing:
        """Fulfil the contract of `Resolver.resolve`; size and SHA-256 of every file are known."""
        remote = Remote.of(artifact.origin)
        commit = _commit_of(remote, artifact.revision)
        blobs = self._fetched(remote, commit)
        found, skipped = _tree(remote, blobs.repository, commit)
        _prove(remote, blobs.repository, commit)
        keeps = artifact.filter.keeps
        kept = [blob for blob in found if keeps(blob.path)]
        digests = _digests(remote, blobs, kept)
        files = [Listed(b.path, b.size, digests[b.oid], b.executable, b.oid) for b in kept]
        return Listing(
            commit,
            tuple(sorted(files, key=lambda file: file.path.encode("utf-8", "surrogatepass"))),
            {path: reason for path, reason in skipped.items() if keeps(path)},
            filtered=len(kept) < len(found),
        )

    def read(self, ref: Ref, entry: FileEntry, start: int = 0, stop: int | None = None) -> Blocks:
        """Fulfil the contract of `Reader.read`; a commit that upstream lost is NotFoundError."""
        remote = Remote.of(ref.location)
        if not is_commit(ref.revision):
            raise InvalidError(f"`{ref.revision}` is not a full commit")
        blobs = self._fetched(remote, ref.revision)
        with blobs.open(blobs.name(ref.revision, ref.path)) as blob:
            if 0 <= entry.size != blob.size:
                raise IntegrityError(
                    f"`{remote.shown}` has {blob.size} bytes of it, and {entry.size} were expected",
                    path=entry.path,
                )
            at, end = 0, blob.size if stop is None else stop
            for block in blob.blocks():
                if view := memoryview(block)[max(0, start - at) : max(0, end - at)]:
                    yield view
                at += len(block)
                if at >= end:
                    return

    def _fetched(self, remote: Remote, commit: str) -> Blobs:
        """Return the blobs of the scratch repository, which holds the commit's tree from here on."""
        blobs = self._blobs.get(remote.url)
        if blobs is None or not _mark(blobs.repository, commit).exists():
            repository = self._scratch / f"{sha256_bytes(remote.url.encode())[:16]}.git"
            self._ensure(remote, repository, commit)
            blobs = self._blobs[remote.url] = Blobs(remote, repository)
        return blobs

    def _ensure(self, remote: Remote, repository: Path, commit: str) -> None:
        """Fetch the commit's tree unless it is there, under a lock on a file.

        Because other instances and other processes may use the same scratch.
        """
        with disk_errors(repository):
            make_dirs(self._scratch)
            lock = repository.with_suffix(".lock").open("wb")
        with lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not (repository / "HEAD").exists():
                git("init", "--quiet", "--bare", "--template=", "--", str(repository), remote=remote)
            if not _mark(repository, commit).exists():
                fetch_commit(remote, repository, commit)


def _commit_of(remote: Remote, revision: str) -> str:
    """Return the commit that a branch, tag, commit or (empty) HEAD names at the origin."""
    if is_commit(revision.lower()):
        return revision.lower()
    if _BAD_REF.search(revision):
        raise RefusedError(f"`{revision!a}` cannot be the name of a branch or tag")
    names = _candidates(revision)
    found = _refs(remote, [name for name in names if name])
    commits = {
        found.get(f"{name}^{{}}", found[name]): name for name in names if name in found
    }  # an annotated tag names a tag object; behind `^{}` is its commit
    if len(commits) > 1:
        both = " and ".join(f"`{name}`" for name in sorted(commits.values()))
        raise InvalidError(f"`{revision}` is a branch and a tag, of two commits", hint=f"write one of {both}")
    if commits:
        return next(iter(commits))
    if _SHORT_COMMIT.fullmatch(revision):
        raise InvalidError(
            f"`{revision}` is no branch or tag; a commit must be written with all 40 digits",
            hint="`git rev-parse` prints them",
        )
    raise _no_revision(remote, revision)


def _candidates(revision: str) -> list[str]:
    if not revision:
        return ["HEAD"]
    if revision.startswith("refs/"):
        return [revision]
    return [f"refs/heads/{revision}", f"refs/tags/{revision}"]


def _refs(remote: Remote, patterns: Sequence[str]) -> Mapping[str, str]:
    peeled = [f"{pattern}^{{}}" for pattern in patterns]
    out = git("ls-remote", "--quiet", "--", remote.url, *patterns, *peeled, remote=remote)
    lines = (line.split("\t", 1) for line in out.decode("utf-8", "replace").splitlines())
    return {name: commit for commit, name in lines}


def _no_revision(remote: Remote, revision: str) -> NotFoundError:
    refs = _refs(remote, ["refs/heads/*", "refs/tags/*"])
    names = sorted({name.split("/", 2)[2] for name in refs if not name.endswith("^{}")})
    if not revision:
        return NotFoundError(f"`{remote.shown}` has no commit yet", hint="push a commit, or name a branch")
    close = difflib.get_close_matches(revision, names, n=3, cutoff=0.4) or names[:3]
    return NotFoundError(
        f"`{remote.shown}` has no branch or tag `{revision}`",
        hint="it has " + ", ".join(f"`{name}`" for name in close) if close else "it has none",
    )


def _mark(repository: Path, commit: str) -> Path:
    """Return the ref that says that the commit was fetched to the end; refs are never packed here."""
    return repository / "refs" / "labsync" / commit


def fetch_commit(remote: Remote, repository: Path, commit: str, *, whole: bool = False) -> None:
    """Bring a commit under `refs/labsync/<commit>`: its tree, or with `whole` its history, too.

    NotFoundError when the origin does not have it any more.
    """

    def fetch(*words: str) -> None:
        options = ("--quiet", "--no-tags", "--no-write-fetch-head", "--no-recurse-submodules", "--force")
        git("fetch", *options, *words, remote=remote, repository=repository, timeout=LONG)

    depth = [] if whole else ["--depth=1"]
    try:
        fetch(*depth, "--", remote.url, f"{commit}:refs/labsync/{commit}")
    except MissingError as error:
        # Older servers give away only what a ref names: fetch all refs and look for the commit there.
        unshallow = ["--unshallow"] if (repository / "shallow").exists() else []
        fetch(*unshallow, "--", remote.url, "+refs/heads/*:refs/all/heads/*", "+refs/tags/*:refs/all/tags/*")
        line = f"{commit}\n".encode()
        known = git("cat-file", "--batch-check", remote=remote, repository=repository, stdin=line)
        if known.split()[1:2] != [b"commit"]:
            raise _gone(remote, commit) from error
        git("update-ref", f"refs/labsync/{commit}", commit, remote=remote, repository=repository)


def _gone(remote: Remote, commit: str) -> NotFoundError:
    return NotFoundError(
        f"`{remote.shown}` does not have the commit {commit[:12]} any more",
        hint="it was rewritten or deleted there; the mirror may still have it, else `labsync lock --upgrade`",
    )


def _prove(remote: Remote, repository: Path, commit: str) -> None:
    """Rebuild the tree object from its entries; raises IntegrityError when it is another one."""
    tree = git("rev-parse", "--verify", f"{commit}^{{tree}}", remote=remote, repository=repository)
    with tempfile.TemporaryDirectory(dir=repository) as folder:
        index = {"GIT_INDEX_FILE": f"{folder}/index"}
        git("read-tree", commit, remote=remote, repository=repository, variables=index)
        built = git("write-tree", remote=remote, repository=repository, variables=index)
    if built != tree:
        raise damaged(remote, "its files do not make up its tree")


def _tree(remote: Remote, repository: Path, commit: str) -> tuple[list[_Blob], dict[str, str]]:
    out = git("ls-tree", "-r", "-z", "-l", "--full-tree", commit, remote=remote, repository=repository)
    blobs: list[_Blob] = []
    skipped: dict[str, str] = {}
    for record in filter(None, out.split(b"\0")):
        head, _, raw = record.partition(b"\t")
        mode, _, oid, size = head.decode().split()
        path = raw.decode("utf-8", "surrogateescape")
        if any(part.lower() in {".git", "git~1"} for part in path.split("/")):
            raise RefusedError(f"the tree of `{remote.shown}` has a path inside `.git`", path=path)
        if mode in _SKIPPED:
            skipped[path] = _SKIPPED[mode]
        else:
            blobs.append(_Blob(path, oid, int(size), mode == "100755"))
    return blobs, skipped


def _digests(remote: Remote, blobs: Blobs, wanted: Iterable[_Blob]) -> Mapping[str, str]:
    """Return the SHA-256 of each blob, by its git name, which is checked on the way."""
    digests: dict[str, str] = {}
    for oid in {blob.oid for blob in wanted}:
        with blobs.open(oid) as blob:
            name = hashlib.sha1(b"blob %d\0" % blob.size, usedforsecurity=False)
            digest = hashlib.sha256()
            for block in blob.blocks():
                name.update(block)
                digest.update(block)
        if name.hexdigest() != oid:
            raise damaged(remote, f"the object {oid} has other bytes")
        digests[oid] = digest.hexdigest()
    return digests
