"""Which keys a manifest may have and where, and the typed reading of one mapping of it."""

from __future__ import annotations

import difflib
import re
import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar, get_args

from labsync.errors import UsageError
from labsync.manifest.document import Hole, Issues, Mapping, Node, Scalar, Sequence
from labsync.manifest.model import Layout, Manager, Task
from labsync.manifest.values import parse_duration, parse_size
from labsync.names import KINDS, escape, path_problem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

VERSION = 1
TOP = (
    "version", "project", "mirror", "session", "disk", "groups", *KINDS, "environment", "device",
)  # fmt: skip
MIRROR = ("url", "endpoint", "region", "profile", "single_writer")
DISK = ("reserve", "budget")
SESSION = ("limit", "margin")
ENVIRONMENT = ("name", "manager", "inherit", "spec", "lock", "kernel", "offline", "target")
SMOKE = (
    "task", "dtype", "device", "timeout", "max_new_tokens", "max_pixels", "inputs", "fallback",
    "function", "trust_remote_code",
)  # fmt: skip
INPUTS = ("image", "points", "video", "prompt")
ARTIFACT = ("path", "include", "exclude")
SOURCED = ("origin", "revision", "sha256", "layout", "mirror")
MADE_CHECKPOINTS = ("keep", "complete")
LIBRARIES = ("install", "history")

TASKS: tuple[Task, ...] = get_args(Task)
MANAGERS: tuple[Manager, ...] = get_args(Manager)
LAYOUTS: tuple[Layout, ...] = get_args(Layout)
DTYPES = ("auto", "float32", "float16", "bfloat16", "int8")
PROFILES = (
    "auto", "none", "studio-lab-gpu", "studio-lab-cpu", "colab", "colab-free", "colab-pro-plus",
    "colab-enterprise", "kaggle", "sm-studio-space", "sm-training", "ec2-spot", "slurm", "generic",
)  # fmt: skip
DEVICE = re.compile(r"auto|cpu|cuda(?::[0-9]{1,2})?")
RESERVED_ENVIRONMENTS = re.compile(r"base|default|studiolab.*")

_Choice = TypeVar("_Choice", bound=str)
_Value = TypeVar("_Value", float, int)
_DRIVE = re.compile(r"[A-Za-z]:")


def allowed_keys(kind: str, *, made: bool) -> tuple[str, ...]:
    """Return the keys that an artifact of this kind may have."""
    keys: tuple[str, ...] = ARTIFACT
    if kind == "checkpoints" and made:
        keys += ("origin", *MADE_CHECKPOINTS)
    elif kind != "results":
        keys += SOURCED
    if kind == "libraries":
        keys += LIBRARIES
    return keys + (("smoke",) if kind in {"models", "checkpoints"} else ())


def belongs(key: str) -> str:
    """Return where an artifact's key belongs, for the message when it stands elsewhere."""
    if key in SOURCED:
        return "artifacts with an `origin`"
    if key in MADE_CHECKPOINTS:
        return "checkpoints without an `origin`"
    if key in LIBRARIES:
        return "libraries"
    return "models and checkpoints" if key == "smoke" else ""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return `, did you mean …?` when a known word is close, otherwise nothing."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f", did you mean `{close[0]}`?" if close else ""


def local_path_problem(path: str) -> str | None:
    """Return why a path of the manifest is refused: names.path_problem, and Windows' own forms."""
    if "\\" in path or _DRIVE.match(path):
        return "is not a relative path with `/`"
    return path_problem(path)


@dataclass(frozen=True)
class Section:
    """One mapping of the manifest, read key by key; every problem goes to `issues`, none is raised.

    A reader returns its default for an absent key, and also for a value that it had to report.
    """

    node: Mapping
    where: str
    issues: Issues

    @property
    def written(self) -> tuple[str, ...]:
        """The keys as written, in their order."""
        return tuple(self.node.by_key)

    def find(self, key: str) -> Node | None:
        """Return the value of a key, None when it is absent."""
        pair = self.node.by_key.get(key)
        return pair.value if pair else None

    def line(self, key: str = "") -> int:
        """Return the line of a key, or of the mapping where the key is absent."""
        pair = self.node.by_key.get(key)
        return pair.line if pair else self.node.line

    def name(self, key: str) -> str:
        """Return the key's full name, as in `models.sam.origin`."""
        return f"{self.where}.{key}" if self.where else key

    def report(self, key: str, message: str) -> None:
        """Report a problem of a key, at its line."""
        where = self.name(key) if key else self.where
        self.issues.add(self.line(key), f"{where}: {message}" if where else message)

    def check_keys(self, allowed: Iterable[str], elsewhere: Callable[[str], str] = str) -> None:
        """Report every key that is not allowed; `elsewhere` says where a known one belongs."""
        known = tuple(dict.fromkeys(allowed))
        for key in self.written:
            if key in known:
                continue
            if (home := elsewhere(key)) and home != key:
                self.report(key, f"`{key}` belongs to {home}")
            else:
                self.report(key, f"unknown key{did_you_mean(key, known)}")

    def section(self, key: str, *, may_be_empty: bool = False) -> Section | None:
        """Return the mapping under a key, None when there is none."""
        node = self.find(key)
        if isinstance(node, Mapping):
            return Section(node, self.name(key), self.issues)
        empty = isinstance(node, Scalar) and node.type == "nothing"
        if node is not None and not (empty and may_be_empty):
            self._wrong(key, node, "a mapping of keys")
        return None

    def text(self, key: str, default: str = "") -> str:
        """Return a string that is not empty."""
        return self._string(key, self.find(key), default)

    def digits(self, key: str) -> str:
        """Return a string that YAML could take for a number: unquoted digits are reported."""
        node = self.find(key)
        if isinstance(node, Scalar) and node.type == "string" and node.text.isdigit() and not node.quoted:
            self.report(key, f'quote it: `{key}: "{node.text}"`')
            return ""
        return self.text(key)

    def texts(self, key: str) -> tuple[str, ...]:
        """Return a list of strings."""
        node = self.find(key)
        if isinstance(node, Sequence):
            return tuple(filter(None, (self._string(key, item, "") for item in node.items)))
        if node is not None:
            self._wrong(key, node, "a list of strings, as in `[a, b]`")
        return ()

    def flag(self, key: str, *, default: bool = False) -> bool:
        """Return true or false."""
        node = self.find(key)
        if isinstance(node, Scalar) and node.type == "boolean":
            return node.text.lower() == "true"
        if node is not None:
            self._wrong(key, node, "`true` or `false`")
        return default

    def count(self, key: str) -> int:
        """Return a whole number of at least 1, 0 when it is absent."""
        node = self.find(key)
        if (
            isinstance(node, Scalar)
            and node.type == "integer"
            and len(node.text) <= 15
            and int(node.text) > 0
        ):
            return int(node.text)
        if node is not None:
            self._wrong(key, node, "a whole number of at least 1")
        return 0

    def choice(self, key: str, options: tuple[_Choice, ...], default: _Choice) -> _Choice:
        """Return one of the options."""
        text = self.text(key)
        if text in options:
            return options[options.index(text)]
        if text:
            listed = ", ".join(f"`{option}`" for option in options)
            self.report(key, f"`{text}` is not one of {listed}{did_you_mean(text, options)}")
        return default

    def duration(self, key: str) -> float:
        """Return seconds, 0 when it is absent."""
        return self._parsed(key, parse_duration, "a duration like `90s`, `10m` or `3h12m`") or 0.0

    def size(self, key: str) -> int | None:
        """Return bytes, None when it is absent."""
        return self._parsed(key, parse_size, "a size like `500MB`, `15GB` or `1GiB`")

    def path(self, key: str) -> str:
        """Return a relative path that stays inside, without `./` before and `/` behind it."""
        text = self.text(key)
        path = text.removeprefix("./").removesuffix("/") if text else ""
        if text and (problem := local_path_problem(path)):
            self.report(key, f"the path `{escape(text)}` {problem}; paths stay inside the manifest's folder")
            return ""
        return path

    def _parsed(self, key: str, parse: Callable[[str], _Value], wanted: str) -> _Value | None:
        node = self.find(key)
        if node is None:
            return None
        try:
            if isinstance(node, Scalar) and node.type != "nothing":
                return parse(node.text)
        except UsageError:
            pass
        self._wrong(key, node, wanted)
        return None

    def _string(self, key: str, node: Node | None, default: str) -> str:
        if node is None:
            return default
        if not isinstance(node, Scalar) or node.type == "nothing":
            self._wrong(key, node, "a string")
        elif node.type != "string":
            self.issues.add(node.line, f'{self.name(key)}: must be a string, quote it: "{node.text}"')
        elif not node.text.strip() or not _is_clean(node.text):
            self.issues.add(node.line, f"{self.name(key)}: is empty or has a control character")
        else:
            return node.text
        return default

    def _wrong(self, key: str, node: Node, wanted: str) -> None:
        match node:
            case Hole():
                return
            case Mapping():
                got = "a mapping"
            case Sequence():
                got = "a list"
            case Scalar(type="nothing"):
                got = "nothing"
            case Scalar(text=text):
                got = f"`{text}`"
        self.issues.add(node.line, f"{self.name(key)}: must be {wanted}, not {got}")


def _is_clean(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return all(char in "\n\t" or unicodedata.category(char) != "Cc" for char in text)
