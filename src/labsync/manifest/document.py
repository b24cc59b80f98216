"""YAML text as nodes that know their line; what YAML offers beyond plain data is a problem here.

Plain scalars are typed as JSON would: `no`, `0755` and `0x1f` are strings
(https://yaml.org/spec/1.2.2/#102-json-schema). Aliases, anchors, merge keys, tags and a second
document are reported, and so are duplicate keys.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias

from labsync.names import escape
from labsync.secrets import find_secrets, redact

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ruamel.yaml.events import Event, NodeEvent, ScalarEvent

MAX_DEPTH = 16
ScalarType = Literal["string", "integer", "number", "boolean", "nothing"]
_TYPES: tuple[tuple[ScalarType, re.Pattern[str]], ...] = (
    ("nothing", re.compile(r"~|null|Null|NULL|")),
    ("boolean", re.compile(r"true|True|TRUE|false|False|FALSE")),
    ("integer", re.compile(r"[-+]?(?:0|[1-9][0-9]*)")),
    ("number", re.compile(r"[-+]?(?:\.[0-9]+|(?:0|[1-9][0-9]*)(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")),
    ("number", re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")),
)
_LINE_END = re.compile("\r\n|[\r\n\x85\u2028\u2029]")  # as YAML counts them


@dataclass(frozen=True, slots=True)
class Scalar:
    """A string, or a plain word that reads as something else; `text` is always what was written."""

    text: str
    type: ScalarType
    line: int
    quoted: bool = False


@dataclass(frozen=True, slots=True)
class Sequence:
    """A list."""

    items: tuple[Node, ...]
    line: int


@dataclass(frozen=True, slots=True)
class Pair:
    """A key with its line, and its value."""

    key: str
    line: int
    value: Node


@dataclass(frozen=True, slots=True)
class Mapping:
    """A mapping whose keys are distinct strings, in the order they were written."""

    by_key: dict[str, Pair]
    line: int

    @property
    def pairs(self) -> tuple[Pair, ...]:
        """The keys with their values, in the order they were written."""
        return tuple(self.by_key.values())


@dataclass(frozen=True, slots=True)
class Hole:
    """The place of something already reported; nobody reports it again."""

    line: int


Node: TypeAlias = Scalar | Sequence | Mapping | Hole


@dataclass
class Issues:
    """The problems found so far, each with its line; `file` is the name that they begin with."""

    file: str
    found: dict[tuple[int, str], None] = field(default_factory=dict)

    def add(self, line: int, message: str) -> None:
        """Take note of a problem; secrets and control characters are taken out of the message."""
        self.found[line, escape(redact(message))] = None

    def in_order(self) -> tuple[str, ...]:
        """Return `file:line: message` for each problem, in line order."""
        return tuple(f"{self.file}:{line}: {message}" for line, message in sorted(self.found, key=_line_of))


def _line_of(issue: tuple[int, str]) -> int:
    return issue[0]


class _StopError(Exception):
    """Reading cannot go on; the reason is already among the issues."""


def read_document(text: str, issues: Issues) -> Node | None:
    """Return the text's one document, None when it is empty or cannot be read on.

    Secrets are looked for in every line, comments included, and in every value.
    """
    for number, line in enumerate(_LINE_END.split(text), start=1):
        _report_secrets(line, number, issues)
    try:
        return _Composer(_events(text, issues), issues).document()
    except _StopError:
        return None


def _report_secrets(text: str, line: int, issues: Issues) -> None:
    for what in find_secrets(text):
        issues.add(line, f"looks like {what}; secrets do not belong in this file: take it out and revoke it")


def _events(text: str, issues: Issues) -> Iterator[Event]:
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    line = 1
    try:
        for event in YAML(typ="safe", pure=True).parse(text):
            line = event.start_mark.line + 1
            yield event
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        what = ", ".join(part for part in (error.context, error.problem) if part)
        issues.add(mark.line + 1 if mark else line, f"is not valid YAML: {what}")
        raise _StopError from error
    except (YAMLError, ValueError, ArithmeticError, AssertionError, LookupError) as error:
        # ruamel.yaml lets these out for an escape such as "\UFFFFFFFF" or a `%YAML` of an odd version
        issues.add(line, "is not valid YAML: a character or a directive that YAML does not allow")
        raise _StopError from error


class _Composer:
    """Builds nodes from events; its depth is bounded, so no text can exhaust the stack."""

    def __init__(self, events: Iterator[Event], issues: Issues) -> None:
        self._events = events
        self._issues = issues

    def document(self) -> Node | None:
        from ruamel.yaml.events import DocumentStartEvent, NodeEvent

        root: Node | None = None
        documents = 0
        for event in self._events:
            if isinstance(event, DocumentStartEvent):
                documents += 1
            if documents > 1:
                self._issues.add(
                    event.start_mark.line + 1, "only one YAML document is allowed, here begins another"
                )
                return root
            if isinstance(event, NodeEvent):
                root = self._node(event, "", 0)
        return root

    def _node(self, event: Event, where: str, depth: int) -> Node:
        from ruamel.yaml.events import AliasEvent, MappingStartEvent, NodeEvent, ScalarEvent

        assert isinstance(event, NodeEvent)
        line = event.start_mark.line + 1
        if isinstance(event, AliasEvent):
            self._add(line, where, f"aliases (`*{event.anchor}`) are not allowed, write the value out")
            return Hole(line)
        self._refuse_extras(event, line, where)
        if isinstance(event, ScalarEvent):
            _report_secrets(event.value, line, self._issues)
            return Scalar(event.value, _type_of(event), line, quoted=not event.implicit[0])
        if depth == MAX_DEPTH:
            self._add(line, where, "is nested too deep")
            raise _StopError
        if isinstance(event, MappingStartEvent):
            return self._mapping(line, where, depth + 1)
        return self._sequence(line, where, depth + 1)

    def _refuse_extras(self, event: NodeEvent, line: int, where: str) -> None:
        if event.anchor:
            self._add(line, where, f"anchors (`&{event.anchor}`) are not allowed")
        if tag := getattr(event, "tag", None):
            self._add(line, where, f"tags (`{tag}`) are not allowed")

    def _sequence(self, line: int, where: str, depth: int) -> Sequence:
        from ruamel.yaml.events import SequenceEndEvent

        items: list[Node] = []
        for event in self._events:
            if isinstance(event, SequenceEndEvent):
                break
            items.append(self._node(event, f"{where}[{len(items)}]", depth))
        return Sequence(tuple(items), line)

    def _mapping(self, line: int, where: str, depth: int) -> Mapping:
        from ruamel.yaml.events import MappingEndEvent

        pairs: dict[str, Pair] = {}
        for event in self._events:
            if isinstance(event, MappingEndEvent):
                break
            key = self._node(event, where, depth)
            name = key.text if isinstance(key, Scalar) else ""
            inner = f"{where}.{name}" if where else name
            value = self._node(next(self._events), inner, depth)
            if not isinstance(key, Scalar):
                if not isinstance(key, Hole):
                    self._add(key.line, where, "a key must be a word")
            elif name == "<<":
                self._add(key.line, where, "merge keys (`<<`) are not allowed, write the keys out")
            elif name in pairs:
                self._add(key.line, inner, f"duplicate key, already in line {pairs[name].line}")
            else:
                pairs[name] = Pair(name, key.line, value)
        return Mapping(pairs, line)

    def _add(self, line: int, where: str, message: str) -> None:
        self._issues.add(line, f"{where}: {message}" if where else message)


def _type_of(event: ScalarEvent) -> ScalarType:
    if not event.implicit[0]:
        return "string"
    return next((kind for kind, pattern in _TYPES if pattern.fullmatch(event.value)), "string")
