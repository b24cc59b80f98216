"""What the test hub holds: repositories with commits, branches, tags, and files plain or in LFS."""

from __future__ import annotations

import fnmatch
import hashlib
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

RepoKind: TypeAlias = Literal["models", "datasets"]
Gate: TypeAlias = Literal[False, "auto", "manual"]
Json: TypeAlias = "dict[str, object]"
LFS = ("*.safetensors", "*.bin", "*.pth", "*.mp4", "*.parquet")


def sha1(data: bytes) -> str:
    return hashlib.sha1(data, usedforsecurity=False).hexdigest()


@dataclass(frozen=True)
class HubFile:
    """The content of one file and what the hub says about it."""

    data: bytes
    lfs: bool

    @cached_property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()

    @property
    def pointer(self) -> bytes:
        text = (
            f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\nsize {len(self.data)}\n"
        )
        return text.encode()

    @property
    def oid(self) -> str:
        blob = self.pointer if self.lfs else self.data
        return sha1(b"blob %d\0" % len(blob) + blob)

    def record(self) -> Json:
        return {"sha256": self.sha256, "size": len(self.data), "pointerSize": len(self.pointer)}

    def item(self, path: str) -> Json:
        item: Json = {"type": "file", "oid": self.oid, "size": len(self.data), "path": path}
        if self.lfs:
            item["lfs"] = {**self.record(), "oid": self.sha256}
        return item


@dataclass
class Repo:
    """One repository: every commit's files, and where branches and tags point."""

    kind: RepoKind
    id: str
    lfs: tuple[str, ...] = LFS
    gated: Gate = False
    private: bool = False
    commits: dict[str, dict[str, HubFile]] = field(default_factory=dict)
    history: dict[str, list[str]] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)

    def commit(self, files: Mapping[str, bytes], branch: str = "main", delete: Iterable[str] = ()) -> str:
        """Add a commit to a branch and return it; its name depends on content and parent alone."""
        line = self.history.setdefault(branch, list(self.history.get("main", [])))
        tree = dict(self.commits[line[-1]]) if line else {}
        for path in delete:
            del tree[path]
        for path, data in files.items():
            tree[path] = HubFile(data, any(fnmatch.fnmatch(path, pattern) for pattern in self.lfs))
        listed = [(path, tree[path].oid) for path in sorted(tree)]
        commit = sha1(repr((self.kind, self.id, line[-1:], listed)).encode())
        self.commits[commit] = tree
        line.append(commit)
        return commit

    def find(self, revision: str) -> str | None:
        """Return the commit that a branch, tag, commit or HEAD names."""
        if revision in self.commits:
            return revision
        line = self.history.get("main" if revision == "HEAD" else revision)
        return line[-1] if line else self.tags.get(revision)


def info(repo: Repo, commit: str, *, blobs: bool) -> Json:
    siblings = []
    for path, file in sorted(repo.commits[commit].items()):
        sibling: Json = {"rfilename": path}
        if blobs:
            sibling |= {"size": len(file.data), "blobId": file.oid}
            sibling |= {"lfs": file.record()} if file.lfs else {}
        siblings.append(sibling)
    return {
        "_id": commit[:24], "id": repo.id, "modelId": repo.id, "sha": commit, "siblings": siblings,
        "gated": repo.gated, "private": repo.private, "disabled": False, "tags": [], "downloads": 0,
        "likes": 0, "lastModified": "2026-01-01T00:00:00.000Z", "createdAt": "2026-01-01T00:00:00.000Z",
        "usedStorage": sum(len(file.data) for file in repo.commits[commit].values()), "cardData": {},
    }  # fmt: skip


def items(tree: Mapping[str, HubFile], below: str, recursive: bool) -> list[Json]:
    """Return the files and folders of a tree, or of its folder `below`, sorted by path."""
    prefix = f"{below}/" if below else ""
    found: dict[str, Json] = {}
    for path, file in tree.items():
        if not path.startswith(prefix):
            continue
        parts = path.removeprefix(prefix).split("/")
        for depth in range(1, len(parts) if recursive else min(len(parts), 2)):
            folder = prefix + "/".join(parts[:depth])
            found[folder] = {"type": "directory", "oid": sha1(folder.encode()), "size": 0, "path": folder}
        if recursive or len(parts) == 1:
            found[path] = file.item(path)
    return [found[path] for path in sorted(found)]


def refs(repo: Repo) -> Json:
    branches = [
        {"name": name, "ref": f"refs/heads/{name}", "targetCommit": line[-1]}
        for name, line in sorted(repo.history.items())
    ]
    tags = [
        {"name": name, "ref": f"refs/tags/{name}", "targetCommit": commit}
        for name, commit in sorted(repo.tags.items())
    ]
    return {"branches": branches, "tags": tags, "converts": []}


def commits(repo: Repo, commit: str) -> list[Json]:
    line = next((line for line in repo.history.values() if commit in line), [commit])
    past = reversed(line[: line.index(commit) + 1])
    date = "2026-01-01T00:00:00.000Z"
    fields = {"title": "change", "message": "", "authors": [{"user": "member"}], "date": date}
    return [{"id": name, **fields} for name in past]
