"""Keys, region and endpoint: found here as boto3 finds them, or left to it."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import boto3
import botocore.credentials
import pytest
from botocore.config import Config
from botocore.exceptions import BotoCoreError
from hypothesis import example, given, settings
from hypothesis import strategies as st

from labsync.errors import InvalidError, NotAllowedError
from labsync.manifest.model import MirrorSpec
from labsync.mirrors.s3_config import Files, Place, Settings
from labsync.mirrors.s3_credentials import Credentials, static_keys
from labsync.mirrors.s3_sign import Keys

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

KEYS = Keys("AKIDENV", "env-secret")
STATIC = "aws_access_key_id = AKIDFILE\naws_secret_access_key = file-secret\n"


def spec(**values: Any) -> MirrorSpec:
    return MirrorSpec("s3://lab/p", **values)


def write(folder: Path, *, credentials: str = "", config: str = "") -> None:
    folder = folder / ".aws"
    folder.mkdir(exist_ok=True)
    for name, text in (("credentials", credentials), ("config", config)):
        (folder / name).unlink(missing_ok=True)
        if text:
            (folder / name).write_text(text)


# Which keys.


@contextlib.contextmanager
def box(env: Mapping[str, str], credentials: str, config: str) -> Iterator[None]:
    """Give the block this environment and these files, and nothing else."""
    before = dict(os.environ)
    with tempfile.TemporaryDirectory() as home:
        write(Path(home), credentials=credentials, config=config)
        os.environ.update(env, HOME=home)
        try:
            yield
        finally:
            os.environ.clear()
            os.environ.update(before)


def boto3s(profile: str) -> Keys | None:
    """Return the keys that boto3 finds, None where it finds none or fails."""
    try:
        found = boto3.Session(profile_name=profile or None).get_credentials()
    except BotoCoreError:
        return None
    return Keys(found.access_key, found.secret_key, found.token or "") if found else None


def ours(profile: str) -> Keys | None:
    try:
        return Credentials(spec(profile=profile), "s3://lab").keys()
    except NotAllowedError:
        return None


def subsets(*lines: str) -> st.SearchStrategy[str]:
    """Generate some of the lines, each with a value of its own."""
    some = st.lists(st.sampled_from(lines), max_size=len(lines), unique=True)
    return st.tuples(some, st.integers(0, 9)).map(
        lambda drawn: "".join(f"{line.replace('?', str(drawn[1]))}\n" for line in drawn[0])
    )


VALUES = subsets(
    "aws_access_key_id = AKID?",
    "aws_secret_access_key = secret?",
    "aws_session_token = token?",
    "aws_security_token = old token?",
    "region = eu-west-1",
    "s3 =\n  addressing_style = path",
)
CONFIG = st.tuples(
    VALUES,
    st.sampled_from(["", "", "", "role_arn = arn:aws:iam::1:role/r\n", "credential_process = false\n"]),
).map("".join)
PROFILES = ["default", "work", "my work"]


def files(prefix: str, values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    titles = {name: f'[{prefix}"{name}"]' if prefix else f"[{name}]" for name in PROFILES[1:]}
    titles["default"] = "[default]"
    return st.dictionaries(st.sampled_from(PROFILES), values, max_size=3).map(
        lambda chosen: "".join(f"{titles[name]}\n{text}" for name, text in chosen.items())
    )


ENV = st.fixed_dictionaries(
    {},
    optional={
        "AWS_ACCESS_KEY_ID": st.sampled_from(["AKIDENV", ""]),
        "AWS_SECRET_ACCESS_KEY": st.sampled_from(["env-secret", ""]),
        "AWS_SESSION_TOKEN": st.sampled_from(["env-token", ""]),
        "AWS_SECURITY_TOKEN": st.sampled_from(["old-env-token", ""]),
        "AWS_PROFILE": st.sampled_from([*PROFILES, "nobody"]),
        "AWS_DEFAULT_PROFILE": st.sampled_from(PROFILES),
    },
)


ENV_KEYS = {"AWS_ACCESS_KEY_ID": "AKIDENV", "AWS_SECRET_ACCESS_KEY": "env-secret"}


@settings(deadline=None)
@example(env={**ENV_KEYS, "AWS_PROFILE": "nobody"}, credentials="", config="", profile="")
@example(env=ENV_KEYS, credentials="", config="", profile="nobody")
@example(
    env={**ENV_KEYS, "AWS_SECURITY_TOKEN": "1", "AWS_SESSION_TOKEN": "2"},
    credentials="",
    config="",
    profile="",
)
@given(
    env=ENV,
    credentials=files("", VALUES),
    config=files("profile ", CONFIG),
    profile=st.sampled_from(["", "", "default", "work", "my work", "nobody"]),
)
def test_the_keys_are_those_of_boto3(
    env: dict[str, str], credentials: str, config: str, profile: str
) -> None:
    with box(env, credentials, config):
        expected = boto3s(profile)
        assert ours(profile) == expected
        assert static_keys(spec(profile=profile), Files.read()) in {None, expected}


def test_static_keys_are_read_without_the_chain(
    clean_environment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the generated cases compare is not always left to the chain."""
    write(clean_environment, credentials=f"[default]\n{STATIC}", config=f"[profile work]\n{STATIC}")
    expected = Keys("AKIDFILE", "file-secret")
    assert static_keys(spec(), Files.read()) == expected
    assert static_keys(spec(profile="work"), Files.read()) == expected
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDENV")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "env-secret")
    monkeypatch.setenv("AWS_PROFILE", "work")
    assert static_keys(spec(), Files.read()) == KEYS
    assert static_keys(spec(profile="work"), Files.read()) == expected


@pytest.mark.parametrize(
    "line",
    [
        "role_arn = arn:aws:iam::1:role/r",
        "credential_process = /bin/true",
        "sso_session = mine",
        "sso_start_url = https://sso",
        "web_identity_token_file = /token",
    ],
)
def test_what_is_not_plain_is_left_to_the_chain(clean_environment: Path, line: str) -> None:
    write(clean_environment, credentials=f"[default]\n{STATIC}{line}\n")
    assert static_keys(spec(), Files.read()) is None


@pytest.mark.parametrize("name", ["AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_ROLE_ARN"])
def test_a_role_in_the_environment_is_left_to_the_chain(
    clean_environment: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    write(clean_environment, credentials=f"[default]\n{STATIC}")
    monkeypatch.setenv(name, "x")
    assert static_keys(spec(), Files.read()) is None


def process(folder: Path, answers: list[dict[str, str]]) -> str:
    """Return the config of a `credential_process` that gives one answer after the other."""
    for number, answer in enumerate(answers):
        (folder / f"answer{number}").write_text(json.dumps({"Version": 1, **answer}))
    program = folder / "keys.sh"
    program.write_text(f'#!/bin/sh\ncd {folder}\nfor f in answer*; do cat "$f"; rm "$f"; exit; done\n')
    program.chmod(0o755)
    return f"[default]\ncredential_process = {program}\n"


def test_keys_that_expire_in_the_environment_are_left_to_the_chain(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {**ENV_KEYS, "AWS_CREDENTIAL_EXPIRATION": "2999-01-01T00:00:00Z"}.items():
        monkeypatch.setenv(name, value)
    assert static_keys(spec(), Files.read()) is None
    assert Credentials(spec(), "s3://lab").keys() == KEYS


def test_keys_that_were_over_when_a_program_gave_them_are_asked_for_again(
    clean_environment: Path, tmp_path: Path
) -> None:
    old = {"AccessKeyId": "AKID1", "SecretAccessKey": "s1", "Expiration": "2000-01-01T00:00:00Z"}
    new = {"AccessKeyId": "AKID2", "SecretAccessKey": "s2", "Expiration": "2999-01-01T00:00:00Z"}
    write(clean_environment, config=process(tmp_path, [old, new]))
    credentials = Credentials(spec(), "s3://lab")
    assert [credentials.keys().access for _ in range(3)] == ["AKID2"] * 3
    assert list(tmp_path.glob("answer*")) == []


def test_the_chain_is_asked_once_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    chain = botocore.credentials.Credentials("AKID1", "secret")
    monkeypatch.setattr("labsync.mirrors.s3_credentials.find_chain", lambda spec, at: chain)
    time = [0.0]
    credentials = Credentials(spec(), "s3://lab", now=lambda: time[0])
    assert credentials.keys().access == "AKID1"
    chain.access_key = "AKID2"
    time[0] = 0.5
    assert credentials.keys().access == "AKID1"
    time[0] = 1.5
    assert credentials.keys().access == "AKID2"


@pytest.mark.fault(11, 54)
def test_expired_keys_are_looked_for_again(clean_environment: Path) -> None:
    write(clean_environment, credentials=f"[default]\n{STATIC}")
    credentials = Credentials(spec(), "s3://lab")
    first = credentials.keys()
    assert not credentials.renew(first)
    write(clean_environment, credentials=f"[default]\n{STATIC.replace('AKIDFILE', 'AKIDNEW')}")
    assert credentials.keys() == first
    assert credentials.renew(first)
    assert credentials.keys().access == "AKIDNEW"
    assert credentials.renew(first)  # another thread was refused with the old ones
    assert credentials.keys().access == "AKIDNEW"


def test_a_key_with_a_line_break_never_becomes_a_header(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKID\r\nx-evil: 1")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "the secret")
    with pytest.raises(NotAllowedError) as caught:
        Credentials(spec(), "s3://lab").keys()
    assert "evil" not in f"{caught.value.what}{caught.value.hint}"


@pytest.mark.parametrize("text", ["no section\n", "[default]\ns3 =\n  no equals sign\n", "\udcff"])
def test_a_broken_file_is_named(clean_environment: Path, text: str) -> None:
    write(clean_environment, config="x")
    (clean_environment / ".aws" / "config").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(NotAllowedError) as caught:
        Files.read()
    assert caught.value.path.endswith("config")


# Which server.


def place_of(**values: Any) -> Place:
    mirror = spec(**values)
    return Settings.read(mirror, Files.read()).place("lab-data", "s3://lab-data")


def boto3s_place(config: Config | None = None, profile: str = "", **values: str) -> tuple[str, str, str]:
    """Return scheme, host and path that boto3 would ask for the bucket."""
    asked: list[str] = []

    def note(request: Any, **_: object) -> None:
        asked.append(request.url)
        raise InterruptedError

    session = boto3.Session(profile_name=profile or None)
    client = session.client(
        "s3", aws_access_key_id="k", aws_secret_access_key="s", config=config or Config(), **values
    )
    client.meta.events.register("before-send.s3", note)
    with pytest.raises(InterruptedError):
        client.list_objects_v2(Bucket="lab-data")
    parts = urlsplit(asked[0])
    return parts.scheme, parts.netloc, parts.path.rstrip("/")


def shown(place: Place) -> tuple[str, str, str]:
    return place.server.scheme, place.server.name, place.path


@pytest.mark.parametrize(
    "env",
    [
        {"AWS_DEFAULT_REGION": "eu-central-1"},
        {"AWS_DEFAULT_REGION": "cn-north-1"},
        {"AWS_DEFAULT_REGION": "us-gov-west-1"},
        {"AWS_DEFAULT_REGION": "eusc-de-east-1"},
        {"AWS_DEFAULT_REGION": "us-west-2", "AWS_USE_FIPS_ENDPOINT": "true"},
        {"AWS_DEFAULT_REGION": "us-west-2", "AWS_USE_DUALSTACK_ENDPOINT": "true"},
        {"AWS_ENDPOINT_URL": "http://127.0.0.1:9000"},
        {"AWS_ENDPOINT_URL": "http://a.example", "AWS_ENDPOINT_URL_S3": "https://[::1]:9000/s3/"},
        {"AWS_ENDPOINT_URL": "http://a.example", "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "true"},
        {"AWS_PROFILE": "near"},
        {"AWS_PROFILE": "near", "AWS_ENDPOINT_URL": "http://a.example"},
        {"AWS_PROFILE": "far"},
        {"AWS_PROFILE": "far", "AWS_DEFAULT_REGION": "eu-west-3"},
    ],
)
def test_the_server_is_the_one_boto3_asks(
    clean_environment: Path, monkeypatch: pytest.MonkeyPatch, env: dict[str, str]
) -> None:
    write(
        clean_environment,
        config=(
            "[profile near]\nservices = here\nregion = us-west-1\nendpoint_url = http://c.example\n"
            "[services here]\ns3 =\n  endpoint_url = http://b.example:81\n"
            "[profile far]\nregion = ap-south-1\nuse_dualstack_endpoint = true\n"
        ),
    )
    for name, value in {"AWS_DEFAULT_REGION": "eu-west-2", **env}.items():
        if name != "AWS_DEFAULT_REGION" or name in env or "AWS_PROFILE" not in env:
            monkeypatch.setenv(name, value)
    place = place_of()
    path_style = None if place.is_aws else Config(s3={"addressing_style": "path"})
    assert shown(place) == boto3s_place(path_style)


def test_what_the_manifest_says_comes_first(clean_environment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(clean_environment, config="[default]\nregion = eu-west-3\nca_bundle = /profile.pem\n")
    assert place_of().region == "eu-west-3"
    write(
        clean_environment,
        credentials="[default]\nregion = eu-south-1\n",
        config="[default]\nregion = eu-west-3\nca_bundle = /profile.pem\n",
    )
    assert place_of().region == "eu-south-1"
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-2")
    assert place_of().region == "eu-west-2"
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    assert place_of().region == "eu-west-1"
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://environment.example")
    place = place_of(region="us-west-1", endpoint="http://manifest.example")
    assert (place.region, place.server.name) == ("us-west-1", "manifest.example")
    assert not place.is_movable
    assert Settings.read(spec(), Files.read()).ca_bundle == "/profile.pem"
    monkeypatch.setenv("AWS_CA_BUNDLE", "/environment.pem")
    assert Settings.read(spec(), Files.read()).ca_bundle == "/environment.pem"


def test_without_settings_it_is_amazon(clean_environment: Path) -> None:
    place = place_of()
    assert shown(place) == ("https", "lab-data.s3.us-east-1.amazonaws.com", "")
    assert place.is_aws
    assert place.is_movable


@pytest.mark.parametrize(
    ("bucket", "endpoint", "name", "path"),
    [
        ("my.lab", "", "s3.us-east-1.amazonaws.com", "/my.lab"),
        ("Lab", "", "s3.us-east-1.amazonaws.com", "/Lab"),
        ("lab", "https://s3.eu-west-1.amazonaws.com", "lab.s3.eu-west-1.amazonaws.com", ""),
        ("lab", "http://[::1]:9000", "[::1]:9000", "/lab"),
        ("lab", "https://münchen.example:443/", "xn--mnchen-3ya.example", "/lab"),
    ],
)
def test_how_a_bucket_is_addressed(bucket: str, endpoint: str, name: str, path: str) -> None:
    place = Settings("us-east-1", endpoint).place(bucket, "s3://x")
    assert (place.server.name, place.path) == (name, path)


@pytest.mark.parametrize(
    ("bucket", "region", "endpoint"),
    [
        ("not a bucket", "us-east-1", ""),
        ("", "us-east-1", ""),
        ("lab--use1-az1--x-s3", "us-east-1", ""),
        ("lab", "evil.example/", ""),
        ("lab", "us-east-1", "no address"),
        ("lab", "us-east-1", "ftp://host"),
        ("lab", "us-east-1", "http://host:port"),
        ("lab", "us-east-1", "http://user:secret@host"),
        ("lab", "us-east-1", "http://ho st"),
        ("lab", "us-east-1", "http://host?x=1"),
        ("lab", "us-east-1", "http://host\r\nx-evil: 1"),
    ],
)
def test_what_is_no_address_is_refused(bucket: str, region: str, endpoint: str) -> None:
    with pytest.raises(InvalidError) as caught:
        Settings(region, endpoint).place(bucket, "s3://x")
    assert "secret" not in caught.value.what


def test_a_listing_imports_little() -> None:
    """Starting counts: what boto3 imports takes longer than all the rest."""
    code = (
        "import sys; from labsync.manifest.model import MirrorSpec\n"
        "from labsync.mirrors.s3_bucket import Bucket; from labsync.errors import UnavailableError\n"
        "try: list(Bucket(MirrorSpec('s3://b', endpoint='http://127.0.0.1:1')).listing('', 9))\n"
        "except UnavailableError: print(*sorted(sys.modules))\n"
    )
    env = {"PATH": os.environ["PATH"], "AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s"}
    run = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    heavy = {"boto3", "botocore", "urllib3", "ssl", "http", "http.client", "email", "configparser"}
    assert heavy & set(run.stdout.split()) == set()
