"""The XML that S3 answers and is sent.

https://docs.aws.amazon.com/AmazonS3/latest/API/API_Operations_Amazon_Simple_Storage_Service.html
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING
from urllib.parse import quote
from xml.etree import ElementTree as ET

from tests.fakes.strict_s3.request import ProblemError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from tests.fakes.strict_s3.store import Object, Part, Upload

_NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"


def document(name: str, children: Iterable[tuple[str, object]]) -> bytes:
    root = ET.Element(name, {} if name == "Error" else {"xmlns": _NAMESPACE})
    _fill(root, children)
    head = b"<?xml version='1.0' encoding='UTF-8'?>\n"
    return head + ET.tostring(root)


def _fill(element: ET.Element, children: Iterable[tuple[str, object]]) -> None:
    for name, value in children:
        child = ET.SubElement(element, name)
        if isinstance(value, list):
            _fill(child, value)
        else:
            child.text = str(value).lower() if isinstance(value, bool) else str(value)


def error(code: str, message: str) -> bytes:
    return document("Error", [("Code", code), ("Message", message)])


def location(constraint: str) -> bytes:
    root = ET.Element("LocationConstraint", {"xmlns": _NAMESPACE})
    root.text = constraint
    return ET.tostring(root)


def page(prefix: str, found: Sequence[tuple[str, Object]], token: str, *, encoded: bool) -> bytes:
    shown = quote if encoded else str
    items: list[tuple[str, object]] = [
        ("IsTruncated", bool(token)),
        ("Prefix", shown(prefix)),
        ("KeyCount", len(found)),
    ]
    if encoded:
        items.append(("EncodingType", "url"))
    if token:
        items.append(("NextContinuationToken", token))
    for key, stored in found:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(stored.modified))
        entry = [
            ("Key", shown(key)),
            ("LastModified", stamp),
            ("ETag", f'"{stored.etag}"'),
            ("Size", len(stored.data)),
        ]
        items.append(("Contents", entry))
    return document("ListBucketResult", items)


def parts_page(upload_id: str, upload: Upload, found: Sequence[tuple[int, Part]], *, more: bool) -> bytes:
    items: list[tuple[str, object]] = [
        ("Key", upload.key),
        ("UploadId", upload_id),
        ("IsTruncated", more),
    ]
    if more:
        items.append(("NextPartNumberMarker", found[-1][0]))
    for number, part in found:
        entry = [("PartNumber", number), ("ETag", f'"{part.etag}"'), ("Size", len(part.data))]
        items.append(("Part", entry))
    return document("ListPartsResult", items)


def uploads_page(uploads: Mapping[str, Upload]) -> bytes:
    items: list[tuple[str, object]] = [("IsTruncated", False)]
    for upload_id, upload in uploads.items():
        items.append(("Upload", [("Key", upload.key), ("UploadId", upload_id)]))
    return document("ListMultipartUploadsResult", items)


def asked_parts(body: bytes) -> list[tuple[int, str]]:
    """Return the numbers and ETags that a request completes an upload with."""
    try:
        root = ET.fromstring(body)
    except ET.ParseError:
        raise ProblemError(400, "MalformedXML") from None
    found = []
    for part in root:
        fields = {child.tag.rpartition("}")[2]: child.text or "" for child in part}
        found.append((int(fields["PartNumber"]), fields["ETag"].strip('"')))
    return found
