"""The faults that labsync must survive, by number; tests tie themselves to them by `pytest.mark.fault`.

`untested` says for a row that no test can reach here why that is so; it stands beside the tests of what
can be reached.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Row:
    """A fault, what labsync does, and the exit codes that are right."""

    number: int
    fault: str
    expected: str
    codes: str
    untested: str = ""


_TEXT = """
# Process and session
1 | kill -9 at any step of a pull | files old or new; the next run ends it and leaves no rest | 0
2 | kill -9 at any step of a push | nothing visible without all its bytes; the upload goes on, none twice | 0
3 | kill -9 while a lock, journal or state is written | the old one or the new one; a cut tail is ignored | 0
4 | power loss: what was not synced is lost or reordered | no file is empty or torn at its final name | 0
5 | SIGTERM | a clean stop, parts kept, a report | 143
6 | SIGINT once and twice | a clean stop; the second one ends at once | 130
7 | SIGHUP, and under nohup | a clean stop; ignored under nohup | 129
8 | the machine ends in the middle of an upload | parts stay and the next session goes on | 0
9 | the deadline is known and near | only what fits is begun; stopped at the deadline | 15
10 | the session's limit is shorter than thought | as 8; it is said which estimate was used | 0
11 | the machine sleeps for hours | deadlines count the sleep; connections and keys are renewed | 0, 15
12 | a child is killed for memory | told as signal 9; a half environment is never used | 13
13 | two labsync on one artifact | the second one names the first | 10
14 | a lock left by a crash | there is none: the kernel frees it | 0
15 | a file system without working locks | found out; whole files do not rest on them | 0
16 | the guard dies unnoticed | `status` and every other command say so | 0
# The disk
17 | disk full in the middle of a write (ENOSPC) | the stage is removed, no retry, the way out is told | 9
18 | quota exceeded (EDQUOT) | as 17 | 9
19 | a plan larger than the room | refused before the first byte, with sizes and commands | 9
20 | another program fills the disk meanwhile | as 17; what was published stays | 9
21 | environment, cache and models do not fit together | the needs of one device add up | 9
22 | read-only folder or file system | named with its path, nothing else touched, no retry | 9
23 | EIO while reading | tried again, then this file fails and the others go on | 4, 9
24 | EIO in fsync | the file counts as lost; fsync is never repeated | 9
25 | a flipped byte at rest, here | `verify` finds it, a pull repairs it | 5
26 | a flipped byte at rest, in the mirror | never published; healed from another place under a new key | 5
27 | a file edited by hand | kept; with `--force` a copy is set aside | 11
28 | a folder where a file must go, or the other way | refused | 11
29 | a link that leads out | not written through | 12
30 | too many open files, no inodes | named as such | 9
31 | a file system with mtimes of one or two seconds | a wider window in which nothing is believed | 0
# The source changes meanwhile
32 | a file is rewritten in place while it is sent | never completed, reported | 4
33 | a file grows while it is sent | as 32; the guard pushes the beginning of a file that only grows | 0, 4
34 | a file is cut while it is sent | seen at the short read, without waiting for the server | 4
35 | a file is deleted while it is sent | told; nothing is deleted in the mirror | 4
36 | a half-written checkpoint | only complete units are taken | 0
37 | rotation deletes old checkpoints | the mirror keeps them | 0
38 | the source folder is missing | an error; the mirror is untouched | 6
39 | the source is suddenly empty or half gone | refused | 12
# The network
40 | connection reset at any byte | goes on there, the digest proves it | 0
41 | a body shorter than announced, or without a length | never taken | 8
42 | a flipped byte on the way down | fetched once more as a whole, then an error | 0, 5
43 | a flipped byte on the way up | the server refuses it; sent again | 0, 5
44 | a server that ignores ranges | begins again, nothing is appended | 0
45 | a wrong range, a compressed body | refused | 8
46 | silence, or one byte a second | noticed, retried, moved to the next place | 0, 8
47 | no name, no route, a sign-in page | a quick clear error; a page is never a model | 8
48 | TLS fails, also because the clock is wrong | told, with the clock | 8
49 | 500, 502, 503, 504 | backoff with jitter, one budget for the run | 0, 8
50 | 503 SlowDown | fewer at once, and later | 0, 8
51 | the hub's 429 | waits as it is asked to, all threads together | 0, 8
52 | a redirect to another host | without credentials, never away from https | 8, 12
53 | no network, everything present | works | 0
# Credentials and clocks
54 | credentials run out in the middle | asked for once more; else parts stay and the way out is told | 7
55 | one right is missing | `doctor` names it; a 403 is never absence | 7
56 | wrong region, no such bucket, somebody else's bucket | told apart | 6, 7
57 | the clock is off by more than 15 minutes | told, with the offset | 7
58 | the clock jumps back | only monotonic time decides | 0
59 | a gated model | names the page to accept | 7
60 | a repository deleted or made private | both are said; the mirror serves what it has | 0, 6
# What the other side is
61 | a branch or tag moved | the lock wins | 0
62 | a commit was pushed away | from the mirror, else a clear error | 0, 6
63 | the same revision with other bytes | the lock's digest decides | 5
64 | an object is overwritten during a download | never put together from two | 0, 5
65 | two boxes push at once | both are kept, nothing is overwritten | 0, 11
66 | a completion that fails with 200, or whose reply is lost | the object itself is asked | 0
67 | the upload is gone | begun anew, told | 0
68 | a listing that lost a page, repeats, fails | an error, never fewer files | 8
69 | a store without conditional writes, or with framed bodies | probed; refused unless asked for | 12
# Sizes and names
70 | an empty file | carried | 0
71 | more parts than are allowed, more bytes than one request takes | the part size follows the file | 0
72 | odd names: control characters, %, length, invalid UTF-8 | refused by policy or carried as they are | 12
73 | two names that one file system folds into one | found in the plan | 12
74 | link loops, hard links, pipes, sockets, devices, holes | told as skipped, never waited for | 0
# Hostile input
75 | `../`, absolute paths in manifests, listings, keys, packs | refused by one safe join | 3, 12
76 | bombs and link tricks in archives | no archive is extracted; what is compressed has limits | 3, 5
77 | pickles, code in model repositories | nothing is run or unpickled without leave | 12
78 | hostile git repositories and addresses | no hook, filter, submodule, other protocol | 6, 12
79 | hostile YAML | refused with its lines, all at once | 3
80 | secrets in manifests, names, notebooks, logs | refused, never pushed, hidden | 3, 4
"""

UNTESTED: dict[int, str] = {
    21: "conda packages, their extraction and a model on one real disk of 15 GB",
    48: "a certificate that the machine's own wrong clock makes invalid; its message is tested",
}


def _rows() -> list[Row | str]:
    rows: list[Row | str] = []
    for line in _TEXT.strip().splitlines():
        if line.startswith("# "):
            rows.append(line[2:])
            continue
        number, fault, expected, codes = (part.strip() for part in line.split(" | "))
        rows.append(Row(int(number), fault, expected, codes, UNTESTED.get(int(number), "")))
    return rows


ROWS = _rows()
