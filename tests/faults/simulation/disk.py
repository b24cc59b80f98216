"""A disk that loses power: what was not made durable may be there afterwards, in part, or not at all.

The files are real ones. Every step that changes them is seen; what fsync promised is kept, and for the
rest the seed decides: bytes are the old ones, the new ones, a beginning of them, or zeros; names appear
and disappear each for itself, as POSIX allows, unless their folder was synced.
https://www.usenix.org/system/files/conference/osdi14/osdi14-paper-pillai.pdf
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from tests.fakes.effects import Step
    from tests.faults.simulation.fate import Fate

MEMORY = ".sqlite"  # sqlite syncs by itself, unseen: its files are kept as they were at some commit
FAILING = {"fsync", "fdatasync", "write", "pwrite", "create", "replace", "renameat2", "link", "mkdir"}
NUMBERS = (errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EROFS)


class PowerLostError(BaseException):
    """The machine has lost power: nothing that follows changes the disk."""


@dataclass
class Node:
    """A file, a folder (`content` is None) or a link (`content` is its target)."""

    kind: str
    content: bytes | str | None = b""
    stat: os.stat_result | None = None


@dataclass(frozen=True)
class Change:
    """A change of names that is not durable yet, and the folders whose fsync makes it so."""

    op: str
    path: str
    node: Node
    source: str = ""
    folders: tuple[str, ...] = ()


@dataclass
class Trouble:
    """When the disk fails in one command: power is lost in front of a step, or a step gives an error."""

    power: int = 0
    error: int = 0
    number: int = 0


@dataclass
class Disk:
    """The folder `root` as a disk; give it to `effects.watched`."""

    root: Path
    fate: Fate
    trouble: Trouble = field(default_factory=Trouble)
    steps: int = 0
    lost: bool = False

    def __post_init__(self) -> None:
        self._mutex = threading.RLock()
        self._now: dict[str, Node] = {}
        self._kept: dict[str, Node] = {}
        self._pending: list[Change] = []
        self._memories: dict[str, list[tuple[bool, dict[str, bytes]]]] = {}
        self._after: dict[str, Node] = {}

    def begin(self, trouble: Trouble) -> None:
        """Take all there is for durable, and let the next command have this trouble."""
        self.trouble, self.steps, self.lost = trouble, 0, False
        self._now, self._pending, self._memories = {}, [], {}
        if not (trouble.power or trouble.error):
            return
        for folder, folders, files in os.walk(self.root):
            for name in (*folders, *files):
                file = Path(folder, name)
                self._now[self._relative(file)] = _node_of(file)
        for path in self._now:
            if path.endswith(MEMORY):
                self._memories[path] = [(True, self._memory_at(path))]
        self._kept = dict(self._now)

    def __call__(self, step: Step, call: Callable[[], Any]) -> Any:
        with self._mutex:
            if not (self.trouble.power or self.trouble.error):
                return call()
            self.steps += 1
            if self.lost:
                raise PowerLostError
            if self.steps == self.trouble.power:
                self._lose_power()
                raise PowerLostError
            if self.steps >= self.trouble.error > 0 and step.op in FAILING and self._is_here(step):
                self.trouble.error = 0
                raise OSError(self.trouble.number, os.strerror(self.trouble.number), str(step.args[0]))
            result = call()
            self._note(step, result)
            return result

    def _is_here(self, step: Step) -> bool:
        return isinstance(step.args[0], int) or self._relative(step.args[0]) != ""

    # What is going on.

    def _relative(self, path: Any) -> str:
        text, root = os.path.abspath(os.fspath(path)), f"{self.root}/"
        text = text.decode() if isinstance(text, bytes) else text
        return text[len(root) :] if text.startswith(root) else ""

    def _note(self, step: Step, result: Any) -> None:
        match step.op:
            case "commit":
                self._commit(self._relative(step.args[0]), durable=bool(step.args[1]))
            case "fsync" | "fdatasync":
                self._sync(step.args[0])
            case "create" | "mkdir":
                path = self._relative(step.args[0])
                if path not in self._now:
                    new = Node("file") if step.op == "create" else Node("folder", None)
                    self._change("create", path, new)
            case "symlink":
                self._change("create", self._relative(step.args[1]), Node("link", os.fspath(step.args[0])))
            case "unlink" | "rmdir":
                path = self._relative(step.args[0])
                self._change("remove", path, self._now.get(path, Node("file")))
            case "link" | "replace" | "rename" | "renameat2" if not result:
                source, path = map(self._relative, step.args[:2])
                if source in self._now:
                    is_move = step.op != "link"
                    self._change("rename" if is_move else "create", path, self._now[source], source * is_move)
            case _:
                pass

    def _commit(self, path: str, *, durable: bool) -> None:
        if path:
            self._memories.setdefault(path, []).append((durable, self._memory_at(path)))

    def _change(self, op: str, path: str, node: Node, source: str = "") -> None:
        if not path:  # on another disk
            return
        folders = tuple({os.path.dirname(each) for each in (path, source) if each})
        change = Change(op, path, node, source, folders)
        _apply(self._now, change)
        self._pending.append(change)

    def _sync(self, fd: int) -> None:
        path = self._relative(os.readlink(f"/proc/self/fd/{fd}"))
        node = self._now.get(path)
        if node is not None and node.kind == "file":
            node.content = (self.root / path).read_bytes()
        elif path == "" or (node is not None and node.kind == "folder"):
            done = [change for change in self._pending if path in change.folders]
            moved = {change.source for change in done if change.op == "rename"}
            self._pending = [
                change
                for change in self._pending
                # A name that was moved away durably does not appear later.
                if path not in change.folders and not (change.op == "create" and change.path in moved)
            ]
            for change in done:
                _apply(self._kept, change)

    def _memory_at(self, path: str) -> dict[str, bytes]:
        found = {}
        for suffix in ("", "-wal"):
            file = self.root / f"{path}{suffix}"
            if file.exists():
                found[f"{path}{suffix}"] = file.read_bytes()
        return found

    # What is left.

    def _lose_power(self) -> None:
        self.lost = True
        contents = {id(node): self._left_of(path, node) for path, node in self._now.items()}
        how = self.fate.choose("names", ("none", "all", "some", "some", "first"))
        last = self.fate.roll("first").randint(0, len(self._pending)) if how == "first" else 0
        for at, change in enumerate(self._pending):
            survives = {"none": False, "all": True, "first": at < last}.get(how)
            if survives is None:
                survives = self.fate.happens("some", 0.5)
            if survives:
                _apply(self._kept, change)
        self._after = {
            path: contents.get(id(node), node)
            for path, node in sorted(self._kept.items())
            if not any(path.endswith(f"{MEMORY}{suffix}") for suffix in ("", "-wal", "-shm", "-journal"))
        }

    def _left_of(self, path: str, node: Node) -> Node:
        """Return a node as it will be found: only what was synced is certain."""
        if node.kind != "file":
            return node
        try:
            now, found = (self.root / path).read_bytes(), os.lstat(self.root / path)
        except OSError:
            return node
        if now == node.content:
            return Node("file", now, found)
        durable = node.content if isinstance(node.content, bytes) else b""
        how = self.fate.choose("bytes", ("old", "new", "cut", "zeros", "empty"))
        left = {
            "old": durable,
            "new": now,
            "cut": now[: len(now) // 2],
            "zeros": bytes(len(now)),
            "empty": durable[:0],
        }[how]
        return Node("file", left, found if how == "new" else None)

    def lose_power(self) -> None:
        """Lose power now, after a command has ended."""
        with self._mutex:
            self._lose_power()

    def come_back(self) -> None:
        """Make the folder what the disk holds after the power has come back."""
        assert self.lost
        for entry in self.root.iterdir():
            shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
        made: dict[int, Path] = {}
        for path, node in self._after.items():
            where = self.root / path
            if where.parent.is_dir():
                _make(where, node, made)
        for path, versions in self._memories.items():
            self._bring_memory_back(path, versions)

    def _bring_memory_back(self, path: str, versions: list[tuple[bool, dict[str, bytes]]]) -> None:
        last = max((at for at, (durable, _) in enumerate(versions) if durable), default=0)
        files = self.fate.choose("memory", versions[last:])[1]
        if not self.fate.happens("memory gone", 0.05):
            for name, data in files.items():
                if (self.root / name).parent.is_dir():
                    (self.root / name).write_bytes(data)


def _node_of(path: Path) -> Node:
    found = path.lstat()
    if stat.S_ISLNK(found.st_mode):
        return Node("link", os.readlink(path), found)
    if stat.S_ISDIR(found.st_mode):
        return Node("folder", None, found)
    return Node("file", path.read_bytes(), found)


def _apply(names: dict[str, Node], change: Change) -> None:
    """Change names as far as that is possible: what it stands on may have been lost."""
    parent = os.path.dirname(change.path)
    if parent and parent not in names:
        return
    if change.op == "remove":
        names.pop(change.path, None)
        return
    if change.op == "rename":
        if change.source not in names:  # its first name never became durable, the new one does
            names[change.path] = change.node
        for path in [p for p in names if p == change.source or p.startswith(f"{change.source}/")]:
            names[change.path + path[len(change.source) :]] = names.pop(path)
        return
    names[change.path] = change.node


def _make(where: Path, node: Node, made: dict[int, Path]) -> None:
    if node.kind == "folder":
        where.mkdir()
    elif node.kind == "link":
        where.symlink_to(str(node.content))
    elif id(node) in made:
        os.link(made[id(node)], where)
    else:
        assert isinstance(node.content, bytes)
        where.write_bytes(node.content)
        made[id(node)] = where
        if node.stat is not None:
            where.chmod(node.stat.st_mode & 0o7777)
            os.utime(where, ns=(node.stat.st_atime_ns, node.stat.st_mtime_ns))


def paths(folder: Path) -> Iterable[Path]:
    """Yield the files below a folder."""
    return (path for path in folder.rglob("*") if path.is_file())
