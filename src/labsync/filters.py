"""Include and exclude patterns, the same everywhere: git's wildcards over POSIX paths.

`*` and `?` stay inside a segment, `**` crosses segments, `[a-z]` is a class; a pattern without a
slash matches the last segment at any depth; a pattern that ends in `/` matches a whole folder.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass


@functools.lru_cache(maxsize=1024)
def compile_pattern(pattern: str) -> re.Pattern[str]:
    """Return the regular expression of one pattern, to be used with `fullmatch`."""
    if pattern.endswith("/"):
        pattern += "**"
    if "/" not in pattern:
        pattern = f"**/{pattern}"
    return re.compile(_translate(pattern.lstrip("/")), re.DOTALL)


def _translate(pattern: str) -> str:
    out, i = "", 0
    while i < len(pattern):
        if pattern.startswith("**/", i) and (i == 0 or pattern[i - 1] == "/"):
            out, i = out + "(?:[^/]+/)*", i + 3
        elif pattern.startswith("**", i):
            out, i = out + ".*", i + 2
        elif pattern[i] == "*":
            out, i = out + "[^/]*", i + 1
        elif pattern[i] == "?":
            out, i = out + "[^/]", i + 1
        elif pattern[i] == "[" and (end := pattern.find("]", i + 2)) > 0:
            body = re.sub(r"([\\\[&|~])", r"\\\1", pattern[i + 1 : end])
            out += f"[^/{body[1:]}]" if body[0] in "!^" else f"(?!/)[{body}]"
            i = end + 1
        else:
            out, i = out + re.escape(pattern[i]), i + 1
    return out


@dataclass(frozen=True, slots=True)
class Filter:
    """Which paths of an artifact count; an empty `include` means all."""

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    def keeps(self, path: str) -> bool:
        """Say whether the path is included and not excluded."""
        if any(compile_pattern(pattern).fullmatch(path) for pattern in self.exclude):
            return False
        return not self.include or any(compile_pattern(pattern).fullmatch(path) for pattern in self.include)

    @property
    def is_open(self) -> bool:
        """Say whether nothing at all is filtered out."""
        return not self.include and not self.exclude
