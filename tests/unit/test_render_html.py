"""The report's page: what it says, and that nothing it shows can break out of it."""

from __future__ import annotations

import dataclasses
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labsync.render.html import page
from labsync.render.html.elements import element, join, sentence, text
from labsync.run_record import DiskReport, MachineReport
from tests.fakes.run_records import DEGRADED, FAILED, GOOD, PASSED, PENDING, RECORD, SKIPPED, png


class Parsed(HTMLParser):
    """A page as a browser takes it: its tags, attributes and text."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.words: list[str] = []
        self._hidden = False
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        self._hidden = tag == "style"

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self.words.append(data)
        self._hidden = False

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def _shown(**changes: Any) -> str:
    return Parsed(page(replace(RECORD, **changes), {})).text


def test_the_page_says_what_every_model_did() -> None:
    shown = _shown()
    for result in (PASSED, DEGRADED, FAILED, PENDING, SKIPPED):
        assert result.name in shown
    assert "✓ pass" in shown
    assert "▲ degraded" in shown
    assert "on cuda:0 (Tesla T4), int8, 3.5 s" in shown
    assert "9.0 GiB of 15.0 GiB GPU memory · expected 11.0 GiB" in shown
    assert "only with int8, because memory ran out" in shown
    assert "a frog" in shown
    assert "What to do: labsync verify --repair" in shown
    assert "knot tying 38%" in shown
    assert "float16 instead of bfloat16" in shown
    assert "Last time (2026-11-27 18:03): fail." in shown


def test_the_page_says_how_the_lab_came_about() -> None:
    shown = _shown()
    assert "1 of 5 models did not run (exit code 14)." in shown
    assert "6.0 GiB of 25.0 GiB are free; the lab takes 9.0 GiB of its budget of 15.0 GiB." in shown
    assert "5.0 GiB free, less the reserve" in shown
    assert "70 files, 7.0 GiB: 3.0 GiB from origins" in shown
    assert "1 LIST, 76 PUT" in shown
    assert "mlgpu, proven" in shown
    assert "NVIDIA driver 580.95.05" in shown


@pytest.mark.parametrize(
    ("smoke", "verdict"),
    [
        ((PASSED, PASSED), "Every model ran: 2 of 2."),
        ((PASSED, DEGRADED), "2 of 2 models ran, not all as asked."),
        ((PASSED, PENDING), "Everything is here; a GPU session finishes 1 of 2 models."),
        ((PASSED, SKIPPED), "1 of 2 models ran."),
        ((), "Everything is here; the manifest names no smoke test."),
    ],
)
def test_the_verdict_is_one_sentence(smoke: tuple[Any, ...], verdict: str) -> None:
    assert verdict in _shown(report=replace(GOOD.report, smoke=smoke))


def test_a_lab_that_is_not_whole_is_no_success_although_every_model_ran() -> None:
    assert "The lab is not whole (exit code 7)." in _shown(report=replace(GOOD.report, exit_code=7))


def test_what_is_not_known_is_left_out() -> None:
    bare = replace(GOOD, spans=(), disk=DiskReport(), machine=MachineReport(), earlier=())
    source = page(replace(bare, report=replace(bare.report, artifacts=(), environment=None, kernel=None)), {})
    assert not {"Timeline", "Disk", "Artifacts", "Stages"} & set(Parsed(source).words)


def test_pictures_are_part_of_the_page_and_only_of_models_that_have_one() -> None:
    parsed = Parsed(page(RECORD, {PASSED.name: png()}))
    (source,) = [value for name, value in parsed.attributes if name == "src"]
    assert source.startswith("data:image/png;base64,iVBOR")
    assert "Frames of the clip." in parsed.text


# --- nothing gets out ----------------------------------------------------------------------------

HOSTILE = "\"'><script>alert(1)</script><img src=x onerror=alert(2)>`</style>&amp;\u202e\x1b[31m"


def _hostile(value: Any) -> Any:
    """Return a value with every text in it turned against the page."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        kept = {"result", "kind", "disk", "mirror"}  # of a few known words
        changes = {
            field.name: _hostile(getattr(value, field.name))
            for field in dataclasses.fields(value)
            if field.name not in kept or dataclasses.is_dataclass(getattr(value, field.name))
        }
        return replace(value, **changes)
    if isinstance(value, tuple):
        return tuple(_hostile(item) for item in value)
    return HOSTILE if isinstance(value, str) else value


def _harmless(source: str) -> Parsed:
    parsed = Parsed(source)
    assert not {"script", "iframe", "object", "link", "base", "form", "a"} & set(parsed.tags)
    for name, value in parsed.attributes:
        assert not name.startswith("on")
        assert name not in {"href", "srcdoc", "action"}
        assert name != "src" or value.startswith("data:image/png;base64,")
        assert name != "style" or "url" not in value
    return parsed


def test_no_text_becomes_markup_wherever_it_stands() -> None:
    record = _hostile(RECORD)
    source = page(record, {HOSTILE: png()})
    parsed = _harmless(source)
    assert parsed.text.count("<script>alert(1)</script>") > 40
    assert "\u202e" not in source  # nor turns the line around
    assert "\x1b" not in source
    assert parsed.tags.count("style") == 1


def test_the_page_forbids_what_it_does_not_need() -> None:
    policy = dict(Parsed(page(RECORD, {})).attributes)
    assert policy["http-equiv"] == "Content-Security-Policy"
    assert "default-src 'none'; img-src data:" in page(RECORD, {}).replace("&#x27;", "'")
    assert "http" not in page(GOOD, {}).replace("http-equiv", "").replace("s3://", "")


@given(st.text())
@settings(max_examples=200, deadline=None)
def test_any_text_comes_out_as_itself(value: str) -> None:
    parsed = Parsed(element("p", value, title=value))
    assert parsed.tags == ["p"]
    assert [name for name, _ in parsed.attributes] == ["title"]
    assert Parsed(join(sentence(value))).tags in ([], ["code"] * (value.count("`") // 2))


def test_what_was_made_here_is_not_escaped_again() -> None:
    assert element("p", element("b", "<")) == "<p><b>&lt;</b></p>"
    assert text("a & b") == "a &amp; b"
    assert sentence("run `x` now") == "run <code>x</code> now"
    assert sentence("an odd ` sign") == "an odd ` sign"
