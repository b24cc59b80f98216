"""S3 as a function from request to answer; one request is decided at a time."""

from __future__ import annotations

import dataclasses
import email.utils
import re
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING

from tests.fakes.strict_s3 import documents
from tests.fakes.strict_s3.checks import check_body, check_checksums, check_signature, decoded_body
from tests.fakes.strict_s3.faults import Deny, Fault, Manners
from tests.fakes.strict_s3.policy import Policy
from tests.fakes.strict_s3.request import ProblemError, Request, Response
from tests.fakes.strict_s3.store import (
    Bucket,
    Limits,
    Object,
    Part,
    Upload,
    chosen_parts,
    etag_of,
    etag_of_parts,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tests.fakes.strict_s3.faults import Listing

ROOT_KEYS = {"testing": "testing-secret"}
MAX_KEY = 1024


class Service:
    """Buckets and who may do what with them; `log` has every request, in order.

    `secrets` are the known keys, `expired` the session tokens that are over, `denied` what nobody may
    do, `policy` what alone may be done by whoever is not `root`. `skew` is how far its clock is ahead.
    """

    def __init__(self, limits: Limits | None = None, manners: Manners | None = None) -> None:
        self.buckets: dict[str, Bucket] = {}
        self.limits = limits or Limits()
        self.manners = manners or Manners()
        self.secrets = dict(ROOT_KEYS)
        self.expired: set[str] = set()
        self.denied = Deny()
        self.policies: dict[str, Policy] = {}
        self.faults: list[Fault] = []
        self.log: list[Request] = []
        self.on_request: Callable[[Request], object] = lambda request: None
        self.clock: Callable[[], float] = time.time
        self.skew = 0.0
        self.region = "us-east-1"
        self._uploads = 0
        self._mutex = threading.Lock()

    @property
    def counts(self) -> Counter[str]:
        """How often each right was made use of."""
        return Counter(request.action for request in self.log)

    def handle(self, request: Request) -> Response:
        """Answer a request."""
        with self._mutex:
            self.log.append(request)
            self.on_request(request)
            fault = next((fault for fault in self.faults if fault.matches(request)), None)
            if fault:
                fault.times -= 1
            response = self._answer(request, fault)
        headers = {
            "x-amz-request-id": str(len(self.log)),
            "Date": email.utils.formatdate(self.clock() + self.skew, usegmt=True),
            **response.headers,
        }
        return dataclasses.replace(response, headers=headers)

    def _answer(self, request: Request, fault: Fault | None) -> Response:
        if fault is not None and fault.is_error:
            return _refused(request, ProblemError(fault.status, fault.code), fault.headers)
        if fault is not None and fault.flip_up and request.body:
            request = dataclasses.replace(request, body=_flipped(request.body))
        try:
            self._admit(request)
            response = self._carry_out(request, fault.listing if fault else "")
        except ProblemError as problem:
            return _refused(request, problem)
        if fault is None:
            return response
        if fault.late_error:
            return Response(200, documents.error(fault.code, "it failed late"))
        body = _flipped(response.body) if fault.flip_down and response.body else response.body
        return dataclasses.replace(response, body=body, cut=fault.cut, lost=fault.lose_reply)

    def _admit(self, request: Request) -> None:
        access = check_signature(request, self.secrets, self.clock() + self.skew)
        if request.headers.get("x-amz-security-token", "") in self.expired:
            raise ProblemError(400, "ExpiredToken", "the provided token has expired")
        if request.action in self.denied.actions:
            raise ProblemError(403, "AccessDenied")
        policy = self.policies.get(access)
        if policy is not None and not policy.allows(request):
            raise ProblemError(403, "AccessDenied", f"{access} may not {request.action}")

    def _may_list(self, request: Request) -> bool:
        access = request.headers["authorization"].partition("Credential=")[2].partition("/")[0]
        policy = self.policies.get(access)
        if "s3:ListBucket" in self.denied.actions:
            return False
        return policy is None or policy.lists(request.bucket, request.key)

    def _carry_out(self, request: Request, listing: Listing) -> Response:
        if not request.key and request.method == "PUT":
            self.buckets.setdefault(request.bucket, Bucket())
            return Response(200)
        bucket = self.buckets.get(request.bucket)
        if bucket is None:
            raise ProblemError(404, "NoSuchBucket")
        if not request.key:
            return self._about_bucket(bucket, request, listing)
        if len(request.key.encode("utf-8", "surrogateescape")) > MAX_KEY:
            raise ProblemError(400, "KeyTooLongError")
        if "uploads" in request.query or "uploadId" in request.query:
            return self._about_upload(bucket, request)
        if request.method == "PUT":
            return self._put(bucket, request)
        if request.method == "DELETE":
            bucket.objects.pop(request.key, None)
            return Response(204)
        return self._get(bucket, request)

    def _about_bucket(self, bucket: Bucket, request: Request, listing: Listing) -> Response:
        query = request.query
        if request.method == "HEAD":
            return Response(200, headers={"x-amz-bucket-region": self.region})
        if "location" in query:
            constraint = "" if self.region == "us-east-1" else self.region
            return Response(200, documents.location(constraint))
        if "uploads" in query:
            prefix = query.get("prefix", "")
            shown = {i: upload for i, upload in bucket.uploads.items() if upload.key.startswith(prefix)}
            return Response(200, documents.uploads_page(shown))
        if query.get("list-type") != "2":
            raise ProblemError(501, "NotImplemented", "only version 2 of the listing")
        return self._list(bucket, query, listing)

    def _list(self, bucket: Bucket, query: Mapping[str, str], listing: Listing) -> Response:
        prefix, after = query.get("prefix", ""), query.get("continuation-token", "")
        size = min(int(query.get("max-keys", "1000")), self.limits.page)
        keys = sorted((k for k in bucket.objects if k.startswith(prefix) and k > after), key=str.encode)
        shown = keys[:size]
        token = shown[-1] if len(keys) > size else ""
        if listing == "repeat-token" and after:
            token = after
        if listing == "drop-page" and token:
            shown = []
        found = [(key, bucket.objects[key]) for key in shown]
        if listing == "foreign-key" and found:
            found[0] = ("elsewhere/" + found[0][0], found[0][1])
        body = documents.page(prefix, found, token, encoded=query.get("encoding-type") == "url")
        if listing == "no-token":
            body = re.sub(rb"<NextContinuationToken>.*</NextContinuationToken>", b"", body)
        if listing == "cut":
            body = body[: len(body) // 2]
        return Response(200, body, {"Content-Type": "application/xml"})

    def _conditions(self, bucket: Bucket, request: Request) -> None:
        if self.manners.conditional:
            bucket.check_conditions(request.key, request.headers)
        elif self.manners.honest and {"if-match", "if-none-match"} & request.headers.keys():
            raise ProblemError(501, "NotImplemented")

    def _body(self, request: Request) -> bytes:
        data, trailer = decoded_body(request)
        if self.manners.checksums:
            check_body(request, data, {**request.headers, **trailer})
        return data if self.manners.chunked else request.body

    def _put(self, bucket: Bucket, request: Request) -> Response:
        data = self._body(request)
        if len(data) > self.limits.most_put:
            raise ProblemError(400, "EntityTooLarge")
        self._conditions(bucket, request)
        stored = Object(data, etag_of(data), self.clock(), self._metadata(request))
        bucket.put(request.key, stored)
        return Response(200, headers={"ETag": f'"{stored.etag}"'})

    def _metadata(self, request: Request) -> Mapping[str, str]:
        if not self.manners.metadata:
            return {}
        return {name: value for name, value in request.headers.items() if name.startswith("x-amz-meta-")}

    def _get(self, bucket: Bucket, request: Request) -> Response:
        found = bucket.objects.get(request.key)
        if found is None:
            if not self._may_list(request):
                raise ProblemError(403, "AccessDenied")
            raise ProblemError(404, "NoSuchKey")
        expected = request.headers.get("if-match")
        if expected is not None and expected.strip('"') != found.etag:
            raise ProblemError(412, "PreconditionFailed")
        headers = {"ETag": f'"{found.etag}"', "Accept-Ranges": "bytes", **found.metadata}
        span = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("range", ""))
        if request.method == "HEAD":
            return Response(200, headers={**headers, "Content-Length": str(len(found.data))})
        if span is None or not self.manners.ranges:
            return Response(200, found.data, headers)
        start, last = int(span[1]), min(int(span[2] or len(found.data)), len(found.data) - 1)
        if start >= len(found.data):
            raise ProblemError(416, "InvalidRange")
        headers["Content-Range"] = f"bytes {start}-{last}/{len(found.data)}"
        return Response(206, found.data[start : last + 1], headers)

    def _about_upload(self, bucket: Bucket, request: Request) -> Response:
        if request.method == "POST" and "uploads" in request.query:
            self._uploads += 1
            upload_id = f"upload-{self._uploads}"
            bucket.uploads[upload_id] = Upload(request.key, self._metadata(request))
            made = [("Bucket", request.bucket), ("Key", request.key), ("UploadId", upload_id)]
            return Response(200, documents.document("InitiateMultipartUploadResult", made))
        upload_id = request.query.get("uploadId", "")
        upload = bucket.uploads.get(upload_id)
        if upload is None or upload.key != request.key:
            raise ProblemError(404, "NoSuchUpload")
        if request.method == "PUT":
            return self._put_part(upload, request)
        if request.method == "GET":
            return self._list_parts(upload_id, upload, request)
        if request.method == "DELETE":
            del bucket.uploads[upload_id]
            return Response(204)
        return self._complete(bucket, upload_id, request)

    def _put_part(self, upload: Upload, request: Request) -> Response:
        number = int(request.query["partNumber"])
        if not 1 <= number <= self.limits.most_parts:
            raise ProblemError(400, "InvalidArgument", "the part number is out of range")
        data = self._body(request)
        if len(data) > self.limits.most_put:
            raise ProblemError(400, "EntityTooLarge")
        upload.parts[number] = Part(data, etag_of(data))
        return Response(200, headers={"ETag": f'"{upload.parts[number].etag}"'})

    def _list_parts(self, upload_id: str, upload: Upload, request: Request) -> Response:
        after = int(request.query.get("part-number-marker", "0"))
        found = [(number, part) for number, part in sorted(upload.parts.items()) if number > after]
        size = self.limits.parts_page
        body = documents.parts_page(upload_id, upload, found[:size], more=len(found) > size)
        return Response(200, body)

    def _complete(self, bucket: Bucket, upload_id: str, request: Request) -> Response:
        upload = bucket.uploads[upload_id]
        parts = chosen_parts(upload, documents.asked_parts(request.body), self.limits)
        data = b"".join(part.data for part in parts)
        if self.manners.checksums:
            size = request.headers.get("x-amz-mp-object-size")
            if size is not None and int(size) != len(data):
                raise ProblemError(400, "InvalidRequest", "the size is another one")
            check_checksums(request.headers, data)
        self._conditions(bucket, request)
        del bucket.uploads[upload_id]
        bucket.put(request.key, Object(data, etag_of_parts(parts), self.clock(), upload.metadata))
        etag = bucket.objects[request.key].etag
        body = documents.document("CompleteMultipartUploadResult", [("ETag", f'"{etag}"')])
        return Response(200, body)


def _refused(request: Request, problem: ProblemError, headers: Mapping[str, str] | None = None) -> Response:
    body = b"" if request.method == "HEAD" else documents.error(problem.code, problem.message)
    return Response(
        problem.status, body, {"Content-Type": "application/xml", **(headers or {}), **problem.headers}
    )


def _flipped(data: bytes) -> bytes:
    spoilt = bytearray(data)
    spoilt[len(spoilt) // 2] ^= 1
    return bytes(spoilt)
