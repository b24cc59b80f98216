"""What the environment and the AWS files say: profiles, region, endpoint; read as botocore reads them.

https://docs.aws.amazon.com/sdkref/latest/guide/file-format.html
"""

from __future__ import annotations

import os
import re
import shlex
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias
from urllib.parse import urlsplit

from labsync.errors import InvalidError, NotAllowedError
from labsync.mirrors.s3_dial import Server

if TYPE_CHECKING:
    from collections.abc import Mapping

    from labsync.manifest.model import MirrorSpec

Values: TypeAlias = "Mapping[str, str | Mapping[str, str]]"

_AMAZON = (".amazonaws.com", ".amazonaws.com.cn", ".api.aws", ".amazonaws.eu")
# https://docs.aws.amazon.com/whitepapers/latest/aws-fault-isolation-boundaries/partitions.html
_PARTITIONS = {
    "cn-": "amazonaws.com.cn",
    "us-iso-": "c2s.ic.gov",
    "us-isob-": "sc2s.sgov.gov",
    "eusc-": "amazonaws.eu",
}
_REGION = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_BUCKET = re.compile(r"[a-zA-Z0-9._-]{1,255}")
_HOST_BUCKET = re.compile(r"[a-z0-9][a-z0-9-]{1,61}[a-z0-9]")


@dataclass(frozen=True)
class Files:
    """The AWS files as they are now; `credentials` and `config` map a profile to its own values."""

    credentials: Mapping[str, Values] = field(default_factory=dict, repr=False)
    config: Mapping[str, Values] = field(default_factory=dict, repr=False)
    services: Mapping[str, Values] = field(default_factory=dict, repr=False)

    @classmethod
    def read(cls) -> Files:
        """Read both files, where they exist; NotAllowedError for one that cannot be read."""
        sections = _sections(os.environ.get("AWS_CONFIG_FILE", "~/.aws/config"))
        return cls(
            _sections(os.environ.get("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials")),
            _named("profile", sections),
            _named("services", sections),
        )

    def has(self, profile: str) -> bool:
        """Say whether either file has the profile."""
        return profile in self.config or profile in self.credentials

    def values(self, profile: str) -> Values:
        """Return a profile's values; those of the credentials file win."""
        return {**self.config.get(profile, {}), **self.credentials.get(profile, {})}


def _sections(path: str) -> dict[str, Values]:
    path = os.path.expanduser(os.path.expandvars(path))
    if not os.path.isfile(path):
        return {}
    import configparser

    parser = configparser.RawConfigParser()
    try:
        parser.read([path])
        return {
            section: {option: _value(parser.get(section, option)) for option in parser.options(section)}
            for section in parser.sections()
        }
    except (configparser.Error, ValueError, OSError) as error:
        raise NotAllowedError(
            "the credentials or the settings of AWS cannot be read", path=path, hint=f"check `{path}`"
        ) from error


def _value(text: str) -> str | Mapping[str, str]:
    """Return a value, or the settings below it that an indented block is."""
    if not text.startswith("\n"):
        return text
    pairs = (line.split("=", 1) for line in text.splitlines() if line.strip())
    return {name.strip(): value.strip() for name, value in pairs}


def _named(kind: str, sections: Mapping[str, Values]) -> dict[str, Values]:
    found: dict[str, Values] = {}
    for title, values in sections.items():
        if (kind, title) == ("profile", "default"):
            found[title] = values
        elif title.startswith(kind):
            try:
                words = shlex.split(title)
            except ValueError:  # an open quote
                continue
            if len(words) == 2:
                found[words[1]] = values
    return found


def named_profile(spec: MirrorSpec) -> str:
    """Return the profile that the manifest or the environment names, empty where neither does."""
    names = (spec.profile, os.environ.get("AWS_DEFAULT_PROFILE"), os.environ.get("AWS_PROFILE"))
    return next((name for name in names if name), "")


@dataclass(frozen=True, slots=True)
class Place:
    """Where the bucket is, and how it is addressed.

    `path` is what stands before a key in a request's path; `is_movable` says that the region alone
    decides the server, so that another region can be tried.
    """

    server: Server
    region: str
    path: str
    is_aws: bool
    is_movable: bool


@dataclass(frozen=True, slots=True)
class Settings:
    """What decides where requests go, besides the bucket's name."""

    region: str
    endpoint: str = ""
    ca_bundle: str = ""
    fips: bool = False
    dualstack: bool = False

    @classmethod
    def read(cls, spec: MirrorSpec, files: Files) -> Settings:
        """Return the settings: the manifest's first, then the environment's, then the profile's."""
        env, values = os.environ, files.values(named_profile(spec) or "default")
        return cls(
            region=(
                spec.region
                or env.get("AWS_REGION", "")
                or env.get("AWS_DEFAULT_REGION", "")
                or _text(values, "region")
                or "us-east-1"
            ),
            endpoint=spec.endpoint or _endpoint(values, files),
            ca_bundle=(
                env.get("AWS_CA_BUNDLE", "")
                or _text(values, "ca_bundle")
                or env.get("REQUESTS_CA_BUNDLE", "")
            ),
            fips=_switch("use_fips_endpoint", values),
            dualstack=_switch("use_dualstack_endpoint", values),
        )

    def place(self, bucket: str, at: str) -> Place:
        """Return where the bucket is; InvalidError for an address or a name that S3 cannot have."""
        if not _BUCKET.fullmatch(bucket) or bucket.endswith("--x-s3"):
            raise InvalidError(f"`{at}` is no address that S3 knows", hint="check `mirror:` in the manifest")
        if not _REGION.fullmatch(self.region):
            raise InvalidError(f"the region of `{at}` is no region", hint="check `region:` and `AWS_REGION`")
        try:
            url = self.endpoint or f"https://{self._amazon_host()}"
            server, parts = Server.of(url), urlsplit(url)
        except ValueError:
            parts = None
        if parts is None or parts.query or parts.username is not None:
            raise InvalidError(f"the endpoint of `{at}` is no address", hint="write `endpoint: https://host`")
        base, is_aws = parts.path.rstrip("/"), server.host.endswith(_AMAZON) or not self.endpoint
        if is_aws and _HOST_BUCKET.fullmatch(bucket):
            server = Server(server.scheme, f"{bucket}.{server.host}", server.port)
        else:
            base = f"{base}/{bucket}"
        return Place(server, self.region, base, is_aws, not self.endpoint)

    def _amazon_host(self) -> str:
        suffix = next(
            (suffix for prefix, suffix in _PARTITIONS.items() if self.region.startswith(prefix)),
            "amazonaws.com",
        )
        service = "s3-fips" if self.fips else "s3"
        return f"{service}{'.dualstack' if self.dualstack else ''}.{self.region}.{suffix}"


def _endpoint(values: Values, files: Files) -> str:
    """Return the endpoint that is set outside the manifest.

    https://docs.aws.amazon.com/sdkref/latest/guide/feature-ss-endpoints.html
    """
    if _switch("ignore_configured_endpoint_urls", values):
        return ""
    service = files.services.get(_text(values, "services"), {}).get("s3", {})
    return (
        os.environ.get("AWS_ENDPOINT_URL_S3", "")
        or os.environ.get("AWS_ENDPOINT_URL", "")
        or (_text(service, "endpoint_url") if not isinstance(service, str) else "")
        or _text(values, "endpoint_url")
    )


def _switch(name: str, values: Values) -> bool:
    return (os.environ.get(f"AWS_{name.upper()}") or _text(values, name)).strip().lower() == "true"


def _text(values: Values, name: str) -> str:
    value = values.get(name, "")
    return value if isinstance(value, str) else ""
