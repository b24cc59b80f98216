"""Include and exclude: git's wildcards."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labsync.filters import Filter, compile_pattern
from tests.strategies import paths


@pytest.mark.parametrize(
    ("pattern", "hits", "misses"),
    [
        ("*.json", ["a.json", "x/y/a.json", ".json"], ["a.json/b", "a.jsonl", "ajson"]),
        ("a.txt", ["a.txt", "x/a.txt"], ["a.txt.bak", "aXtxt"]),
        ("/a.txt", ["a.txt"], ["x/a.txt"]),
        ("x/*.txt", ["x/a.txt"], ["a.txt", "y/x/a.txt", "x/y/a.txt"]),
        ("**/*.txt", ["a.txt", "x/a.txt", "x/y/a.txt"], ["a.txtx"]),
        ("x/**", ["x/a", "x/y/a"], ["x", "xx/a"]),
        ("x/", ["x/a", "x/y/a"], ["x", "xx/a", "y/x/a"]),
        ("x/**/b", ["x/b", "x/y/b", "x/y/z/b"], ["xb", "x/yb"]),
        ("a?c", ["abc", "x/aéc"], ["ac", "a/c", "abbc"]),
        ("[ab]", ["a", "x/b"], ["c", "ab"]),
        ("[!ab]", ["c"], ["a", "b"]),
        ("[^ab]", ["c"], ["a"]),
        ("[a-c]1", ["b1"], ["d1"]),
        ("x/a[+-0]b", ["x/a-b"], ["x/a/b"]),
        ("x/a[!b]c", ["x/adc"], ["x/a/c"]),
        ("[[]", ["["], ["a"]),
        ("[a&&b]", ["a", "&", "b"], ["c"]),
        ("a[", ["a["], ["a"]),
        ("a.b+c(d)|$", ["a.b+c(d)|$"], ["aXb+c(d)|$"]),
        ("*", ["a", "x/y", "\n"], []),
        ("**", ["a", "x/y"], []),
    ],
)
def test_patterns(pattern: str, hits: list[str], misses: list[str]) -> None:
    for path in hits:
        assert compile_pattern(pattern).fullmatch(path), path
    for path in misses:
        assert not compile_pattern(pattern).fullmatch(path), path


def test_an_empty_include_means_all_and_exclude_wins() -> None:
    assert Filter().keeps("x/y")
    assert Filter().is_open
    chosen = Filter(include=("*.json", "w/"), exclude=("secret*",))
    assert not chosen.is_open
    assert chosen.keeps("a/b.json")
    assert chosen.keeps("w/model.bin")
    assert not chosen.keeps("model.bin")
    assert not chosen.keeps("a/secret.json")
    assert not Filter(exclude=("*",)).keeps("a")


@given(paths())
def test_a_path_without_wildcards_is_a_pattern_for_itself(path: str) -> None:
    if not re.search(r"[*?\[]", path):
        assert Filter(include=(f"/{path}",)).keeps(path)
        assert not Filter(exclude=(f"/{path}",)).keeps(path)
        assert not Filter(include=(f"/{path}",)).keeps(f"{path}x")


INSIDE = st.sampled_from(["*", "?", "[a]", "[!a]", "[+-0]", "a", "é"])


@given(st.lists(INSIDE, min_size=1, max_size=6).map("".join), paths())
def test_only_a_double_star_crosses_segments(middle: str, path: str) -> None:
    if "**" in middle:
        return
    if compile_pattern(f"/x-{middle}/end").fullmatch(f"x-{path}/end"):
        assert "/" not in path


@given(st.text(max_size=12), paths())
def test_any_pattern_compiles_or_is_a_pattern_error(pattern: str, path: str) -> None:
    try:
        compiled = compile_pattern(pattern)
    except re.error:
        return
    assert compiled.fullmatch(path) is None or compiled.fullmatch(path)


@given(st.lists(st.sampled_from(["*.txt", "a*", "b/", "**/c"]), max_size=3), paths())
def test_including_more_never_keeps_less(patterns: list[str], path: str) -> None:
    if patterns and Filter(include=tuple(patterns)).keeps(path):
        assert Filter(include=(*patterns, "zzz")).keeps(path)
        assert Filter().keeps(path)
