"""Who signs: keys from the environment and from static profiles read here, all others by botocore's chain.

Importing botocore takes longer than a whole run in which there is nothing to do. Where both know an
answer it is the same one; whatever is not plain is left to the chain.
"""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING

from labsync.errors import NotAllowedError
from labsync.mirrors.s3_config import Files, named_profile
from labsync.mirrors.s3_errors import NO_KEYS
from labsync.mirrors.s3_sign import Keys

if TYPE_CHECKING:
    from collections.abc import Callable

    from botocore.credentials import Credentials as Chain

    from labsync.manifest.model import MirrorSpec
    from labsync.mirrors.s3_config import Values

_WINDOW = 1.0  # seconds for which keys from the chain are not asked for again; it renews them early
_INDIRECT = (
    "role_arn", "web_identity_token_file", "credential_process", "credential_source", "source_profile",
    "login_session",
)  # fmt: skip
_TOKENS = ("aws_security_token", "aws_session_token")


class Credentials:
    """The keys to sign with, found when first asked for. Safe for several threads.

    `now` is monotonic.
    """

    def __init__(self, spec: MirrorSpec, at: str, *, now: Callable[[], float] = time.monotonic) -> None:
        self._spec = spec
        self._at = at
        self._now = now
        self._mutex = threading.Lock()
        self._chain: Chain | None = None
        self._keys: Keys | None = None
        self._asked_at = 0.0

    def keys(self) -> Keys:
        """Return the keys that are valid now; NotAllowedError where there are none."""
        keys = self._keys
        if keys and (self._chain is None or self._now() - self._asked_at < _WINDOW):
            return keys
        with self._mutex:
            if self._chain is None:
                keys = self._keys or static_keys(self._spec, Files.read())
                if keys is None:
                    self._chain = find_chain(self._spec, self._at)
            if self._chain is not None:
                keys = _frozen(self._chain, self._at)
                self._asked_at = self._now()
            assert keys is not None
            if not f"{keys.access}{keys.token}".isascii() or not f"{keys.access}{keys.token}".isprintable():
                raise NotAllowedError(
                    f"the access key or the session token for `{self._at}` has a character none has",
                    hint=NO_KEYS,
                )
            self._keys = keys
            return keys

    def renew(self, refused: Keys) -> bool:
        """Look again for keys after these were refused as expired; True when there are others now."""
        with self._mutex:
            if self._keys == refused:
                self._keys = self._chain = None
        return self.keys() != refused


def static_keys(spec: MirrorSpec, files: Files) -> Keys | None:
    """Return the keys that stand in the environment or in the profile; None when only the chain knows.

    As in boto3, a profile that the manifest names wins over the environment, `AWS_PROFILE` does not.
    """
    env, named = os.environ, named_profile(spec)
    if named and not files.has(named):
        return None  # the chain says what is wrong
    if not spec.profile and env.get("AWS_ACCESS_KEY_ID"):
        if env.get("AWS_CREDENTIAL_EXPIRATION") or not env.get("AWS_SECRET_ACCESS_KEY"):
            return None
        token = env.get("AWS_SECURITY_TOKEN") or env.get("AWS_SESSION_TOKEN") or ""
        return Keys(env["AWS_ACCESS_KEY_ID"], env["AWS_SECRET_ACCESS_KEY"], token)
    profile = named or "default"
    if env.get("AWS_ROLE_ARN") or env.get("AWS_WEB_IDENTITY_TOKEN_FILE"):
        return None
    if any(name in _INDIRECT or name.startswith("sso_") for name in files.values(profile)):
        return None
    own = files.credentials.get(profile, {})
    return _keys(own if "aws_access_key_id" in own else files.config.get(profile, {}))


def _keys(values: Values) -> Keys | None:
    access, secret = values.get("aws_access_key_id"), values.get("aws_secret_access_key")
    token = next((values[name] for name in _TOKENS if name in values), "")
    if isinstance(access, str) and isinstance(secret, str) and isinstance(token, str) and access and secret:
        return Keys(access, secret, token)
    return None


def signer_of(spec: MirrorSpec, at: str) -> tuple[str, str]:
    """Return where the keys come from, and the last four characters of the access key, for people."""
    keys = static_keys(spec, Files.read())
    if keys is None:
        chain = find_chain(spec, at)
        return f"boto3's chain ({chain.method})", _frozen(chain, at).access[-4:]
    if not spec.profile and os.environ.get("AWS_ACCESS_KEY_ID"):
        return "the environment", keys.access[-4:]
    return f"the profile `{named_profile(spec) or 'default'}`", keys.access[-4:]


def find_chain(spec: MirrorSpec, at: str) -> Chain:
    """Return what botocore's chain finds; NotAllowedError when it finds nothing."""
    from botocore.exceptions import BotoCoreError, ClientError
    from botocore.session import Session

    try:
        session = Session(profile=spec.profile or None)
        if spec.region:
            session.set_config_variable("region", spec.region)
        found: Chain | None = session.get_credentials()
    except (BotoCoreError, ClientError) as error:
        raise _chain_error(error, at) from error
    if found is None:
        raise NotAllowedError(f"there are no credentials for `{at}`", hint=NO_KEYS)
    return found


def _frozen(chain: Chain, at: str) -> Keys:
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        frozen = chain.get_frozen_credentials()
    except (BotoCoreError, ClientError) as error:
        raise _chain_error(error, at) from error
    return Keys(frozen.access_key, frozen.secret_key, frozen.token or "")


def _chain_error(error: Exception, at: str) -> NotAllowedError:
    import botocore.exceptions as foreign

    match error:
        case foreign.NoCredentialsError() | foreign.PartialCredentialsError():
            return NotAllowedError(f"there are no credentials for `{at}`", hint=NO_KEYS)
        case foreign.ProfileNotFound():
            return NotAllowedError(
                f"the profile that `{at}` is to be opened with does not exist",
                hint="write it to `~/.aws/config`, or correct `profile:` or `AWS_PROFILE`",
            )
        case _:
            return NotAllowedError(
                f"the credentials for `{at}` could not be fetched ({type(error).__name__})", hint=NO_KEYS
            )
