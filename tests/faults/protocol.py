"""The publication of made artifacts by two boxes, as a model small enough to be explored completely.

Each step is one request that the server decides at once. Replies may be lost, requests too, a box may
die anywhere and begin again. The rules are those of `S3Mirror.publish` and of the push that merges;
each can be taken out, to see that the checker finds what it is for.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

Content = frozenset[tuple[str, str]]  # path and bytes
EMPTY: Content = frozenset()


class Head(NamedTuple):
    names: int
    nonce: tuple[str, int]


class Index(NamedTuple):
    """What a snapshot has, the keys that its bytes lie under, and the index before it."""

    content: Content
    keys: frozenset[str]
    parent: int


@dataclass(frozen=True)
class Server:
    """`indexes` are written once and named by their place; `losers` are kept contents of conflicts."""

    data: frozenset[str] = frozenset()
    indexes: tuple[Index, ...] = ()
    stored: frozenset[int] = frozenset()
    head: Head | None = None
    heads: tuple[int, ...] = ()
    losers: frozenset[Content] = frozenset()


@dataclass(frozen=True)
class Box:
    """A box: where its program stands, what it saw and what it is about to publish."""

    name: str
    mine: Content
    base: Content = EMPTY
    at: str = "read"
    seen: Head | None = None
    index: int = -1
    tries: int = 0
    lives: int = 1
    mishaps: int = 1


@dataclass(frozen=True)
class Rules:
    """The protections; without one of them some history loses something."""

    conditional: bool = True
    nonce: bool = True
    data_first: bool = True
    index_first: bool = True
    keeps_losers: bool = True


State = tuple[Server, tuple[Box, ...]]


class BrokenError(AssertionError):
    """A history that breaks a promise."""


def explore(boxes: tuple[Box, ...], rules: Rules) -> int:
    """Visit every state that can be reached; return how many there are. Raises BrokenError."""
    first: State = (Server(), boxes)
    before: dict[State, State | None] = {first: None}
    waiting = deque([first])
    while waiting:
        state = waiting.popleft()
        following = list(_successors(state, rules))
        problem = _problem(state) or ("" if following else _unfinished(state))
        if problem:
            raise BrokenError(f"{problem}\n{_history(state, before)}")
        for new in following:
            if new not in before:
                before[new] = state
                waiting.append(new)
    return len(before)


def _successors(state: State, rules: Rules) -> Iterator[State]:
    server, boxes = state
    for number, box in enumerate(boxes):
        if box.at == "done":
            continue
        for new_server, new_box in _steps(server, box, rules):
            yield new_server, (*boxes[:number], new_box, *boxes[number + 1 :])


def _steps(server: Server, box: Box, rules: Rules) -> Iterator[tuple[Server, Box]]:
    done, after = _carried_out(server, box, rules)
    yield done, after
    if box.mishaps:
        unlucky = replace(box, mishaps=box.mishaps - 1)
        yield server, unlucky  # the request was lost: it is sent again
        if box.at in {"swap", "first"}:
            yield done, replace(unlucky, at="lost", tries=box.tries)  # only the reply was
        else:
            yield done, unlucky
    if box.lives:
        # What the disk remembers is the base alone; whatever was under way begins anew.
        for left in {server, done}:
            reborn = replace(box, at="read", seen=None, index=-1, lives=box.lives - 1, tries=box.tries + 1)
            yield left, reborn


def _carried_out(server: Server, box: Box, rules: Rules) -> tuple[Server, Box]:
    order = [
        *(["data"] if rules.data_first else []),
        *(["index"] if rules.index_first else []),
        "swap",
        *([] if rules.index_first else ["index"]),
        *([] if rules.data_first else ["data"]),
        "note",
    ]
    following = dict(zip(order, [*order[1:], "done"], strict=True))
    match box.at:
        case "read":
            return _read(server, box, order[0])
        case "data":
            key = f"{box.name}{box.tries}"
            return replace(server, data=server.data | {key}), replace(box, at=following["data"])
        case "index":
            return replace(server, stored=server.stored | {box.index}), replace(box, at=following["index"])
        case "swap":
            return _swap(server, box, rules, following["swap"])
        case "lost":
            return _after_lost_reply(server, box, rules, following["swap"])
        case "keep":
            losers = server.losers | {box.mine} if rules.keeps_losers else server.losers
            return replace(server, losers=losers), replace(box, at="done")
        case _:
            assert box.at == "note"
            return server, replace(box, at="done", base=box.mine)


def _read(server: Server, box: Box, then: str) -> tuple[Server, Box]:
    """Read the head, and merge: what both changed since the base is a conflict."""
    theirs = server.indexes[server.head.names].content if server.head else EMPTY
    if box.mine <= theirs:
        return server, replace(box, at="note", seen=server.head)
    if any(dict(theirs).get(path, data) not in {data, dict(box.base).get(path)} for path, data in box.mine):
        return server, replace(box, at="keep", seen=server.head)
    changed = {path for path, _ in box.mine}
    merged = frozenset({*box.mine, *((path, data) for path, data in theirs if path not in changed)})
    parent = server.head.names if server.head else -1
    old = server.indexes[parent].keys if server.head else frozenset()
    index = Index(merged, old | {f"{box.name}{box.tries}"}, parent)
    known = server.indexes if index in server.indexes else (*server.indexes, index)
    # Naming an index is no request; only storing it is.
    return replace(server, indexes=known), replace(box, at=then, seen=server.head, index=known.index(index))


def _swap(server: Server, box: Box, rules: Rules, then: str) -> tuple[Server, Box]:
    if rules.conditional and server.head != box.seen:
        return server, replace(box, at="read", tries=box.tries + 1)  # 412: somebody else published
    head = Head(box.index, (box.name, box.tries))
    return replace(server, head=head, heads=(*server.heads, box.index)), replace(box, at=then)


def _after_lost_reply(server: Server, box: Box, rules: Rules, then: str) -> tuple[Server, Box]:
    """The request is sent again and refused; one's own nonce in the head says that it was carried out."""
    mine = Head(box.index, (box.name, box.tries))
    if server.head == mine or not rules.nonce:
        return server, replace(box, at=then)
    return server, replace(box, at="read", tries=box.tries + 1)


def _problem(state: State) -> str:
    server, _ = state
    if server.head is None:
        return ""
    head = server.indexes[server.head.names]
    if server.head.names not in server.stored:
        return "the head names an index that is not there"
    if not head.keys <= server.data:
        return "the head names bytes that are not there"
    reached, at = set(), server.head.names
    while at >= 0:
        reached.add(at)
        at = server.indexes[at].parent
    if not set(server.heads) <= reached:
        return "a version that was published is not in the head's history"
    return ""


def _unfinished(state: State) -> str:
    """Both boxes have ended: what each made is in the newest version, or kept as the loser of a conflict."""
    server, boxes = state
    newest = server.indexes[server.head.names].content if server.head else EMPTY
    for box in boxes:
        lost = box.mine - newest
        if lost and box.mine not in server.losers:
            return f"what {box.name} made is nowhere: {sorted(lost)}"
    return ""


def _history(state: State, before: dict[State, State | None]) -> str:
    lines: list[str] = []
    at: State | None = state
    while at is not None:
        lines.append(" | ".join(f"{box.name}:{box.at}" for box in at[1]) + f" head={at[0].head}")
        at = before[at]
    return "\n".join(reversed(lines))
