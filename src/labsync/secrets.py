"""What a secret looks like: pure patterns, for refusing it in manifests and hiding it in messages."""

from __future__ import annotations

import re

HIDDEN = "[hidden]"

# Formats: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_identifiers.html#identifiers-unique-ids,
# https://docs.github.com/en/authentication/keeping-your-account-and-data-secure/about-authentication-to-github,
# https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-query-string-auth.html
_PATTERNS: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("an AWS access key", re.compile(r"(?<![A-Z0-9])(?:AKIA|ASIA)[A-Z0-9]{12,}")),
    (
        "an AWS secret key",
        re.compile(r"(?i)(?<=secret)[a-z_]*(?:key)?[\"'\s:=]+[A-Za-z0-9/+]{40}(?![A-Za-z0-9/+])"),
    ),
    ("a Hugging Face token", re.compile(r"(?<![A-Za-z0-9])(?:hf_|api_org_)[A-Za-z0-9]{20,}")),
    ("a GitHub token", re.compile(r"(?<![A-Za-z0-9])(?:gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,})")),
    ("a GitLab token", re.compile(r"(?<![A-Za-z0-9])glpat-[\w-]{20,}")),
    ("a Google API key", re.compile(r"(?<![A-Za-z0-9])AIza[\w-]{35}")),
    ("an API key", re.compile(r"(?<![A-Za-z0-9])sk-(?:[a-z]+-)*[A-Za-z0-9_-]{32,}")),
    ("a private key", re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----")),
    ("a user name and password in a URL", re.compile(r"(?<=://)[^\s/@:\"']*:[^\s/@\"']+(?=@)")),
    ("a token in a URL", re.compile(r"(?<=https://)[^\s/@:\"']+(?=@)|(?<=http://)[^\s/@:\"']+(?=@)")),
    (
        "a signed URL",
        re.compile(
            r"(?i)(?<=[?&])(?:x-amz-(?:signature|credential|security-token)|x-goog-signature"
            r"|signature|sig|awsaccesskeyid|access_token|token|api_key)=[^&\s\"'#]+"
        ),
    ),
)


def find_secrets(text: str) -> tuple[str, ...]:
    """Return what kinds of secret the text holds, in words that do not repeat it."""
    return tuple(what for what, pattern in _PATTERNS if pattern.search(text))


def redact(text: str) -> str:
    """Return the text with every secret replaced by `[hidden]`."""
    for _, pattern in _PATTERNS:
        text = pattern.sub(HIDDEN, text)
    return text
