"""What S3 answers, read strictly: an answer that is cut or says something else is none.

https://docs.aws.amazon.com/AmazonS3/latest/API/API_Operations_Amazon_Simple_Storage_Service.html
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import unquote_plus

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from xml.etree.ElementTree import Element

MAX_ANSWER = 16 << 20  # a page of 1,000 keys of 1,024 bytes, each byte as `%XX`, has a fifth of it
_FORBIDDEN = (b"<!DOCTYPE", b"<!ENTITY")  # S3 has neither; both can make a small text large


class MalformedError(ValueError):
    """The text is not the whole of the answer it should be."""


@dataclass(frozen=True)
class Answer:
    """An answer whose body was read to its end; header names are lower-case."""

    status: int
    headers: Mapping[str, str]
    body: bytes = b""

    @functools.cached_property
    def problem(self) -> Problem:
        """What S3 says went wrong; by the status alone where the body does not say."""
        return _problem(self.status, self.body)

    @property
    def has_problem(self) -> bool:
        """Say whether the body is an error, which S3 sends with status 200 too, when it found out late."""
        return self.problem.code != str(self.status)


@dataclass(frozen=True, slots=True)
class Problem:
    """S3's own word for an error (the status where there is no body), its message, the bucket's region."""

    code: str
    message: str = ""
    region: str = ""


@dataclass(frozen=True, slots=True)
class Part:
    """A stored part: its number from 1, its ETag without quotes, how many bytes it has."""

    number: int
    etag: str
    size: int = 0


class ListedObject(NamedTuple):
    """An object as a listing tells of it: its ETag without quotes, its size in bytes."""

    key: str
    etag: str
    size: int


@dataclass(frozen=True, slots=True)
class Page:
    """A page of a listing; `more` asks for the next one, empty at the end."""

    items: tuple[ListedObject, ...]
    more: str


@dataclass(frozen=True, slots=True)
class PartsPage:
    """A page of stored parts; `more` is the number after which the next one begins, 0 at the end."""

    parts: tuple[Part, ...]
    more: int


def bare_etag(etag: str) -> str:
    """Return an ETag without its quotes, which `rclone serve s3` leaves out of listings alone."""
    return etag if etag.startswith("W/") else etag.removeprefix('"').removesuffix('"')


def quoted_etag(etag: str) -> str:
    """Return a bare ETag as headers have it."""
    return etag if etag.startswith("W/") else f'"{etag}"'


def _problem(status: int, body: bytes) -> Problem:
    try:
        root = _root(body, "Error")
    except MalformedError:
        return Problem(str(status))
    return Problem(_text(root, "Code") or str(status), _text(root, "Message"), _text(root, "Region"))


def read_page(body: bytes) -> Page:
    """Return the page of a listing (`list-type=2`); MalformedError where it is not consistent."""
    root = _root(body, "ListBucketResult")
    encoded = _text(root, "EncodingType") == "url"
    items = []
    for item in _all(root, "Contents"):
        key = _text(item, "Key")
        name = unquote_plus(key) if encoded else key
        items.append(ListedObject(name, bare_etag(_text(item, "ETag")), _number(item, "Size")))
    more, truncated = _text(root, "NextContinuationToken"), _is_truncated(root)
    if truncated and not more:
        raise MalformedError("the listing does not say how it goes on")
    return Page(tuple(items), "" if truncated is False else more)


def is_foreign(body: bytes) -> bool:
    """Say whether this is no piece of any of S3's documents, but somebody else's page."""
    start = body[:1024].lstrip().lower()
    return start.startswith((b"<!doctype", b"<html")) or (not start.startswith(b"<") and start != b"")


def read_parts(body: bytes) -> PartsPage:
    """Return the page of an upload's stored parts; MalformedError where it is not consistent."""
    root = _root(body, "ListPartsResult")
    parts = tuple(
        Part(_number(part, "PartNumber"), bare_etag(_text(part, "ETag")), _number(part, "Size"))
        for part in _all(root, "Part")
    )
    if not all(part.etag for part in parts):
        raise MalformedError("a part has no ETag")
    more = _number(root, "NextPartNumberMarker") if _is_truncated(root) else 0
    if _is_truncated(root) and not more:
        raise MalformedError("the listing does not say how it goes on")
    return PartsPage(parts, more)


def read_upload_id(body: bytes) -> str:
    """Return the id of the multipart upload that was begun."""
    upload_id = _text(_root(body, "InitiateMultipartUploadResult"), "UploadId")
    if not upload_id:
        raise MalformedError("the upload has no id")
    return upload_id


def check_completed(body: bytes) -> None:
    """Raise MalformedError unless the upload was completed: a status of 200 alone does not say so.

    https://docs.aws.amazon.com/AmazonS3/latest/API/API_CompleteMultipartUpload.html
    """
    _root(body, "CompleteMultipartUploadResult")


def complete_document(parts: Iterable[Part]) -> bytes:
    """Return the list of parts that completes an upload."""
    listed = "".join(
        f"<Part><PartNumber>{part.number}</PartNumber><ETag>{_escape(quoted_etag(part.etag))}</ETag></Part>"
        for part in parts
    )
    name = "CompleteMultipartUpload"
    return f'<{name} xmlns="http://s3.amazonaws.com/doc/2006-03-01/">{listed}</{name}>'.encode()


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace('"', "&quot;")


def _root(body: bytes, name: str) -> Element:
    """Return the document's root, which has this name; whatever namespace it has.

    `rclone serve s3` leaves `Result` out of some names.
    """
    from xml.etree.ElementTree import ParseError, fromstring

    if any(word in body for word in _FORBIDDEN):
        raise MalformedError("the document has definitions of its own")
    try:
        root = fromstring(body.strip())  # noqa: S314 - its definitions were refused, its size is bounded
    except (ParseError, ValueError) as error:
        raise MalformedError("the document is cut or no XML") from error
    if _local(root) not in {name, name.removesuffix("Result")}:
        raise MalformedError(f"the document is no {name}")
    return root


def _local(element: Element) -> str:
    return element.tag.rpartition("}")[2]


def _all(element: Element, name: str) -> Iterable[Element]:
    return (child for child in element if _local(child) == name)


def _text(element: Element, name: str) -> str:
    return next((child.text or "" for child in _all(element, name)), "")


def _number(element: Element, name: str) -> int:
    text = _text(element, name).strip()
    if not (text.isascii() and text.isdigit()):
        raise MalformedError(f"{name} is no number")
    return int(text)


def _is_truncated(root: Element) -> bool | None:
    """Say whether more follows, None where the answer does not say."""
    text = _text(root, "IsTruncated").strip().lower()
    if text not in {"true", "false", ""}:
        raise MalformedError("the listing does not say whether it is whole")
    return text == "true" if text else None
