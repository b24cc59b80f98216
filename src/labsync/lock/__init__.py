"""The lock: the manifest resolved to exact revisions, every file with its size and SHA-256.

```
{"version":1}
{"artifact":"checkpoints/runs","made":true}
{"artifact":"models/tiny","inputs":…,"origin":…,"revision":…,"snapshot":…,"files":2,"bytes":…[,"filtered":true][,"skipped":[[path,reason],…]]}
{"path":…,"sha256":…,"size":…[,"x":true][,"oid":…][,"lfs":true][,"xet":…]}
{"path":…,"sha256":…,"size":…}
{"artifact":"models/large",…,"files":31443,"bytes":…,"listing":…}
{"artifact":"models/gated","inputs":…,"origin":…,"unresolved":{"code":7,"message":…,"hint":…}}
```

The file lines of an artifact with a `listing` are in `X.lock.d/<listing>.jsonl.zst`, and are read when
somebody asks for them.
JSON Lines, artifacts sorted by name, files by UTF-8 path, each line ended by LF. `listing` is the
SHA-256 of the lines before compression, so that equal content has equal names with every zstd.
"""

from labsync.lock.file import read_lock, write_lock
from labsync.lock.model import (
    Listing,
    Lock,
    LockedArtifact,
    LockedFile,
    StaleReason,
    Unresolved,
    check_lock,
    inputs_digest,
)
from labsync.lock.text import LISTING_FROM, LockText, parse_lock, render_lock

__all__ = [
    "LISTING_FROM",
    "Listing",
    "Lock",
    "LockText",
    "LockedArtifact",
    "LockedFile",
    "StaleReason",
    "Unresolved",
    "check_lock",
    "inputs_digest",
    "parse_lock",
    "read_lock",
    "render_lock",
    "write_lock",
]
