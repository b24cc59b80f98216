"""The part of IAM that a policy of labsync's uses: allow and deny by action, resource and condition.

https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_evaluation-logic.html
"""

from __future__ import annotations

import fnmatch
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from tests.fakes.strict_s3.request import Request


class Policy:
    """What one user may do; whatever no statement allows is refused."""

    def __init__(self, text: str, *, secure: bool = True) -> None:
        self._statements: list[dict[str, Any]] = json.loads(text)["Statement"]
        self._secure = secure

    def allows(self, request: Request) -> bool:
        resource = f"arn:aws:s3:::{request.bucket}" + (f"/{request.key}" if request.key else "")
        return self._allows(request.action, resource, request.query)

    def lists(self, bucket: str, key: str) -> bool:
        """Say whether a listing that would show `key` is allowed: only then a missing key is a 404."""
        return self._allows("s3:ListBucket", f"arn:aws:s3:::{bucket}", {"prefix": key})

    def _allows(self, action: str, resource: str, query: Mapping[str, str]) -> bool:
        context = {"aws:SecureTransport": str(self._secure).lower()}
        if "prefix" in query:
            context["s3:prefix"] = query["prefix"]
        effects = {
            statement["Effect"]
            for statement in self._statements
            if _fits(action, statement["Action"])
            and _fits(resource, statement["Resource"])
            and _holds(statement.get("Condition", {}), context)
        }
        return effects == {"Allow"}


def _fits(text: str, patterns: str | Iterable[str]) -> bool:
    listed = [patterns] if isinstance(patterns, str) else patterns
    return any(fnmatch.fnmatchcase(text, pattern.replace("[", "[[]")) for pattern in listed)


def _holds(condition: Mapping[str, Mapping[str, Any]], context: Mapping[str, str]) -> bool:
    for operator, wanted in condition.items():
        assert operator in {"StringLike", "StringEquals", "Bool"}, operator
        for name, patterns in wanted.items():
            if name not in context or not _fits(context[name], patterns):
                return False
    return True
