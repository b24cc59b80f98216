"""HTML that cannot be broken by what it shows: text is escaped unless it was made here."""

from __future__ import annotations

import base64
from html import escape as escape_html
from typing import TypeAlias

from labsync.names import escape


class Html(str):
    """Markup that was made by `element`, and is not escaped again."""

    __slots__ = ()


Child: TypeAlias = "str | Html"

_VOID = {"img", "meta", "br"}


def text(value: str) -> Html:
    """Return a text from anywhere as markup: signs that steer are spelled out, HTML's own escaped."""
    return Html(escape_html(escape(value), quote=True))


def element(name: str, /, *children: Child, **attributes: str) -> Html:
    """Return an element; `class_` stands for `class`, and `_` in a name for `-`."""
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{text(value)}"' for key, value in attributes.items()
    )
    if name in _VOID:
        return Html(f"<{name}{given}>")
    return Html(f"<{name}{given}>{join(*children)}</{name}>")


def join(*children: Child) -> Html:
    """Return markup one after the other."""
    return Html("".join(child if isinstance(child, Html) else text(child) for child in children))


def div(class_: str, /, *children: Child) -> Html:
    """Return a `div` of a class."""
    return element("div", *children, class_=class_)


def span(class_: str, /, *children: Child) -> Html:
    """Return a `span` of a class."""
    return element("span", *children, class_=class_)


def image(png: bytes, alt: str) -> Html:
    """Return a picture that is part of the page."""
    return element("img", src=f"data:image/png;base64,{base64.b64encode(png).decode()}", alt=alt)


def section(title: str, /, *children: Child, note: str = "") -> Html:
    """Return a titled part of the page."""
    head = [element("h2", title)] + ([element("p", note, class_="note")] if note else [])
    return element("section", *head, *children)


def sentence(message: str) -> Html:
    """Return a message with what stands in backticks set as code."""
    parts = message.split("`")
    if len(parts) % 2 == 0:
        return text(message)
    return join(*(element("code", part) if number % 2 else part for number, part in enumerate(parts)))
