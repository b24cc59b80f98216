"""The report's page in a real browser: at a desk and on a phone, by day and by night.

It needs Debian's `chromium` and `chromium-driver`, which `.ci/run` installs where they are missing. On a
machine where nobody is root they may be missing, and then these tests are not run and say so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from labsync.render.html import page
from tests.fakes.browser import BROWSER, DRIVER, browser, may_be_missing
from tests.fakes.run_records import RECORD, png

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.fakes.browser import Browser

pytestmark = pytest.mark.skipif(
    not (BROWSER and DRIVER) and may_be_missing(),
    reason="not run: no chromium and chromedriver here, and without root `.ci/run` cannot install them",
)

OUTSIDE = """
return [...document.querySelectorAll('body *')].filter(e => !e.closest('.scroll') || e.matches('.scroll'))
  .filter(e => e.getBoundingClientRect().right > innerWidth + 1 || e.getBoundingClientRect().left < -1)
  .map(e => e.tagName + '.' + e.className)
"""
CUT = """
return [...document.querySelectorAll('p,h1,h2,h3,dd,dt,blockquote,figcaption,.value,.label,.name,.badge')]
  .filter(e => e.scrollWidth > e.clientWidth + 1 && getComputedStyle(e).display !== 'inline')
  .map(e => e.className + ': ' + e.textContent.slice(0, 40))
"""
# WCAG's contrast of each text with what is behind it.
CONTRAST = """
const channel = v => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
const light = c => { const [r, g, b] = c.match(/[\\d.]+/g).map(v => channel(Number(v)));
  return .2126 * r + .7152 * g + .0722 * b };
const behind = e => { for (; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor;
  if (!/, 0\\)$/.test(c)) return c } return 'rgb(255,255,255)' };
return [...document.querySelectorAll('body *')]
  .filter(e => [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim()))
  .map(e => { const a = light(getComputedStyle(e).color), b = light(behind(e));
    return [(Math.max(a, b) + .05) / (Math.min(a, b) + .05), e.className + e.textContent.slice(0, 30)] })
  .filter(([ratio]) => ratio < 4.5)
"""


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser() as opened:
        yield opened


@pytest.fixture
def shown(tab: Browser, tmp_path: Path) -> Browser:
    pictures = {result.name: png(648, 240) for result in RECORD.report.smoke[:2]}
    (tmp_path / "report.html").write_text(page(RECORD, pictures), "utf-8")
    tab.open(tmp_path / "report.html")
    return tab


@pytest.mark.parametrize("width", [360, 768, 1280, 1920])
def test_nothing_hangs_over_the_edge_at_any_width(shown: Browser, width: int) -> None:
    shown.look(width)
    assert shown.ask("return innerWidth") == width
    assert shown.ask("return document.documentElement.scrollWidth") <= width
    assert shown.ask(OUTSIDE) == []
    assert shown.ask(CUT) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_can_be_read(shown: Browser, scheme: str) -> None:
    shown.look(1280, scheme)
    assert shown.ask(CONTRAST) == []


def test_day_and_night_differ(shown: Browser) -> None:
    seen = []
    for scheme in ("light", "dark"):
        shown.look(1280, scheme)
        seen.append(shown.ask("return getComputedStyle(document.body).backgroundColor"))
    assert seen[0] != seen[1]


def test_cards_stand_side_by_side_at_a_desk_and_below_each_other_on_a_phone(shown: Browser) -> None:
    columns = "return new Set([...document.querySelectorAll('.card')].map(c => c.offsetLeft)).size"
    shown.look(1280)
    assert shown.ask(columns) == 3
    shown.look(360)
    assert shown.ask(columns) == 1


def test_every_picture_is_shown_and_nothing_is_fetched_or_complained_of(shown: Browser) -> None:
    assert shown.ask("return [...document.images].map(i => i.naturalWidth)") == [648, 648]
    fetched = "return performance.getEntriesByType('resource').map(e => e.name.slice(0, 5))"
    assert set(shown.ask(fetched)) <= {"data:"}
    assert shown.complaints() == []


def test_bars_are_as_long_as_what_they_stand_for(shown: Browser) -> None:
    shown.look(1280)
    widths = "return [...document.querySelectorAll('.share .fill')].map(e => e.offsetWidth)"
    first, second, third = shown.ask(widths)
    assert second / first == pytest.approx(22 / 38, abs=0.02)
    assert third / first == pytest.approx(10 / 38, abs=0.02)
    parts = "return [...document.querySelectorAll('.stack i')].map(e => e.getBoundingClientRect().width)"
    whole = shown.ask("return document.querySelector('.stack').offsetWidth")
    assert sum(shown.ask(parts)) == pytest.approx(whole, abs=2)
