"""The protections, where they are in the code, what it is without them, and the tests that must notice."""

from __future__ import annotations

from dataclasses import dataclass

POWER = "tests/faults/test_power.py::test_power_lost_at_every_step"
SAID = "tests/faults/test_power.py::test_what_a_command_has_said_outlives_the_power"
STRICT = "tests/contracts/test_strict_s3.py"


@dataclass(frozen=True, slots=True)
class Mutation:
    """`old`, which the file has once, becomes `new`; one of `tests` must fail then."""

    id: str
    without: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


def _m(id: str, without: str, file: str, change: tuple[str, str], *tests: str) -> Mutation:  # noqa: A002
    return Mutation(id, without, file, *change, tests)


FSYNC = (
    _m(
        "F-a",
        "fsync of small files of ours",
        "atomic.py",
        ("            file.flush()\n            os.fsync(file.fileno())\n", "            file.flush()\n"),
        f"{POWER}[lock]",
        "tests/unit/test_atomic.py",
    ),
    _m(
        "F-b",
        "fsync of the folder after a rename",
        "atomic.py",
        ("    os.replace(staged, path)\n    fsync_dir(path.parent)", "    os.replace(staged, path)"),
        f"{SAID}[lock-1]",
        "tests/unit/test_atomic.py",
    ),
    _m(
        "F-c",
        "fsync of the folder after a creation",
        "atomic.py",
        (
            "                return False\n        fsync_dir(path.parent)",
            "                return False",
        ),
        "tests/unit/test_atomic.py",
        f"{POWER}[first pull]",
    ),
    _m(
        "F-d",
        "fsync of the parents of new folders",
        "atomic.py",
        (
            "        child.mkdir(exist_ok=True)\n        fsync_dir(child.parent)",
            "        child.mkdir(exist_ok=True)",
        ),
        "tests/unit/test_atomic.py",
        f"{SAID}[first pull-1]",
    ),
    _m(
        "F-e",
        "fsync of a copy",
        "atomic.py",
        ("        writer.flush()\n        os.fsync(writer.fileno())", "        writer.flush()"),
        "tests/unit/test_atomic.py",
    ),
    _m(
        "F-f",
        "fsync of published files",
        "disk/publishing.py",
        ("            os.fsync(item.fd)", "            os.fstat(item.fd)"),
        f"{POWER}[update]",
    ),
    _m(
        "F-g",
        "fsync of the folders of published files",
        "disk/publishing.py",
        ("            atomic.fsync_dir(folder)", "            os.stat(folder)"),
        f"{SAID}[update-1]",
    ),
    _m(
        "F-h",
        "fsync of what a directory mirror stores",
        "mirrors/placer.py",
        ("                os.fsync(file.fileno())\n", ""),
        f"{POWER}[push]",
    ),
    _m(
        "F-i",
        "fsync of the folders of a directory mirror",
        "mirrors/placer.py",
        ("        fsync_dir(path.parent)\n        return True", "        return True"),
        f"{SAID}[push-1]",
    ),
    _m(
        "F-j",
        "fsync of the folder in which a mark is taken away",
        "disk/marker.py",
        ("            fsync_dir(self._path.parent)", "            pass"),
        f"{SAID}[update-1]",
    ),
    _m(
        "F-k",
        "fsync of the folder of what is set aside",
        "disk/placing.py",
        ("        atomic.fsync_dir(kept.parent)\n", ""),
        f"{POWER}[forced]",
        "tests/contracts/test_homes.py",
    ),
    _m(
        "F-l",
        "fdatasync before the journal of a part",
        "transfer/parts.py",
        ("            os.fdatasync(self.fd)", "            os.fstat(self.fd)"),
        "tests/unit/test_parts.py",
        "tests/unit/test_download.py",
    ),
    _m(
        "F-m",
        "fsync of the folders of links in the cache",
        "disk/hf_cache.py",
        ("        for folder in folders:\n            fsync_dir(folder)\n", ""),
        "tests/integration/test_hf_cache.py",
    ),
    _m(
        "F-n",
        "full synchronisation of what must outlive a crash",
        "database.py",
        ('            connection.execute("PRAGMA synchronous=FULL")', "            pass"),
        "tests/unit/test_state.py",
    ),
)

DIGESTS = (
    _m(
        "D-a",
        "comparison of a verified file's digest",
        "transfer/verify.py",
        ("    if sha256 != entry.sha256:", "    if False:"),
        "tests/unit/test_engine_places.py",
    ),
    _m(
        "D-b",
        "comparison of a large file's digest",
        "transfer/writer.py",
        ("            verify(self._entry, self._digest.hexdigest())", "            pass"),
        "tests/unit/test_download_places.py",
    ),
    _m(
        "D-c",
        "comparison of the digests of a batch",
        "transfer/batch.py",
        ("                verify(entry, hashlib.sha256(data).hexdigest())", "                pass"),
        "tests/unit/test_batch.py",
    ),
    _m(
        "D-d",
        "digest of what a push reads",
        "transfer/content.py",
        (" or digest.hexdigest() != self._entry.sha256:", ":"),
        "tests/unit/test_content.py",
        "tests/unit/test_engine.py",
    ),
    _m(
        "D-e",
        "digest of what streams to the mirror",
        "transfer/content.py",
        ("            verify(self._entry, digest.hexdigest())", "            pass"),
        "tests/unit/test_content.py",
    ),
    _m(
        "D-f",
        "digest of a pack's members",
        "transfer/pack.py",
        (" or hashlib.sha256(data).hexdigest() != entry.sha256:", ":"),
        "tests/unit/test_pack_carrier.py",
    ),
    _m(
        "D-g",
        "comparison of an index with its id",
        "mirrors/indexes.py",
        (
            "    if (found := sha256_bytes(data)) != expected_id:",
            "    if (found := expected_id) != expected_id:",
        ),
        "tests/unit/test_records.py",
    ),
    _m(
        "D-h",
        "a head's own digest",
        "mirrors/records.py",
        (
            '    if sealed and sha256_bytes(sealed["fields"] + b"}\\n") != sealed["sha256"].decode():',
            "    if False:",
        ),
        "tests/unit/test_records.py",
        "tests/faults/test_simulation.py::test_what_broke_once",
    ),
    _m(
        "D-i",
        "comparison with what a key holds already",
        "mirrors/source.py",
        (
            "    if sha256_stream(map(bytes, blocks)) != (sha256, size):",
            "    if not sha256_stream(map(bytes, blocks)):",
        ),
        STRICT,
        "tests/unit/test_s3_upload.py",
    ),
    _m(
        "D-j",
        "digest of blocks shared with the mirror",
        "mirrors/directory.py",
        ("    if (digest.hexdigest(), size) != (content.sha256, content.size):", "    if False:"),
        "tests/contracts/test_mirrors.py",
    ),
    _m(
        "D-k",
        "Content-MD5 of parts",
        "mirrors/s3_bucket.py",
        (
            '            checks = (("content-md5", _md5(data)),)\n        request',
            "            checks = ()\n        request",
        ),
        "tests/integration/test_s3_mirror.py",
    ),
    _m(
        "D-l",
        "CRC-32 of the whole upload",
        "mirrors/s3_bucket.py",
        ('                ("x-amz-checksum-crc32", _crc32(whole.crc32)),\n', ""),
        "tests/integration/test_s3_mirror.py",
    ),
    _m(
        "D-m",
        "digest of what `lock` reads",
        "steps/fetched.py",
        (' or listed.sha256 not in (sha256, ""):', ":"),
        "tests/unit/test_fetched.py",
    ),
    _m(
        "D-n",
        "size of an object after its upload",
        "mirrors/s3_upload.py",
        ("        if size != sent.whole.size:", "        if False:"),
        "tests/integration/test_s3_mirror.py",
    ),
    _m(
        "D-o",
        "digest of an uploaded stream in parts",
        "mirrors/s3_parts.py",
        (
            '        if self._order.content.sha256 not in {"", self._running.hexdigest()}:',
            "        if False:",
        ),
        "tests/unit/test_s3_upload.py",
    ),
    _m(
        "D-p",
        "the tree that git computes from what was fetched",
        "origins/git.py",
        ("    if built != tree:", "    if False:"),
        "tests/integration/test_git_origin.py",
    ),
)

CONDITIONS = (
    _m(
        "C-a",
        "If-Match on a head",
        "mirrors/s3.py",
        (
            "            condition = if_match(expected.mark) if expected else IF_ABSENT",
            "            condition = None if expected else IF_ABSENT",
        ),
        STRICT,
    ),
    _m(
        "C-b",
        "If-None-Match on a first head",
        "mirrors/s3.py",
        (
            "            condition = if_match(expected.mark) if expected else IF_ABSENT",
            "            condition = if_match(expected.mark) if expected else None",
        ),
        STRICT,
    ),
    _m(
        "C-c",
        "If-None-Match on data",
        "mirrors/s3.py",
        (
            "        condition = IF_ABSENT if self._may_write() else None\n        self._writer",
            "        condition = None if self._may_write() else None\n        self._writer",
        ),
        STRICT,
    ),
    _m(
        "C-d",
        "the nonce that tells a lost reply from a lost race",
        "mirrors/s3.py",
        ("            return current if current.nonce == head.nonce else None", "            return current"),
        "tests/integration/test_s3_mirror.py",
        STRICT,
    ),
    _m(
        "C-e",
        "the link that never replaces a head",
        "mirrors/placer.py",
        (
            "            os.link(staged, path)\n        except FileExistsError:\n            return False",
            "            os.replace(staged, path)\n        except FileExistsError:\n            return False",
        ),
        "tests/contracts/test_mirrors.py",
    ),
    _m(
        "C-f",
        "the probe of conditional writes",
        "mirrors/s3.py",
        ("            works = put(_PROBE, _PROBE_BYTES, IF_ABSENT) is None\n", "            works = True\n"),
        "tests/contracts/test_mirrors.py",
        "tests/integration/test_s3_mirror.py",
    ),
    _m(
        "C-g",
        "the ETag that ranges of one file must share",
        "origins/http_part.py",
        ("    if part.version and part.version != strong_etag(answer):", "    if False:"),
        "tests/unit/test_http_part.py",
    ),
    _m(
        "C-h",
        "the range that an answer must be",
        "mirrors/s3.py",
        ("        right = span.whole or span.is_range(body.content_range, total)", "        right = True"),
        "tests/integration/test_s3_mirror.py",
    ),
    _m(
        "C-i",
        "the error inside a completion with status 200",
        "mirrors/s3_bucket.py",
        ("                check_completed(answer.body)", "                pass"),
        "tests/integration/test_s3_bucket.py",
    ),
    _m(
        "C-j",
        "a listing that repeats its token",
        "mirrors/s3_bucket.py",
        ("            if token in seen:", "            if False:"),
        "tests/integration/test_s3_bucket.py",
    ),
)

FINGERPRINTS = (
    _m(
        "S-a",
        "fstat and path stat behind the last byte of a push",
        "transfer/content.py",
        ("            if not self._is_still(file, before) or ", "            if "),
        "tests/unit/test_content.py",
    ),
    _m(
        "S-b",
        "size at the beginning of a push",
        "transfer/content.py",
        ("            if before.st_size != self._entry.size:", "            if False:"),
        "tests/unit/test_content.py",
    ),
    _m(
        "S-c",
        "fstat before and after hashing",
        "disk/hashing.py",
        (
            "    is_stable = size == after.st_size and (before.st_mtime_ns, before.st_ctime_ns) == (\n        after.st_mtime_ns,\n        after.st_ctime_ns,\n    )",
            "    is_stable = True",
        ),
        "tests/unit/test_hashing.py",
    ),
    _m(
        "S-d",
        "no links followed where a file is hashed",
        "disk/hashing.py",
        (
            "os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)\n    with open(fd",
            "os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)\n    with open(fd",
        ),
        "tests/unit/test_hashing.py",
    ),
    _m(
        "S-e",
        "the size of what the mirror's folder gives",
        "mirrors/directory.py",
        (
            "            if size < span.end or (ref.offset is None and 0 <= entry.size != size):",
            "            if False:",
        ),
        "tests/contracts/test_mirrors.py",
    ),
    _m(
        "S-f",
        "the folders on the way that may be links",
        "atomic.py",
        ("        if stat.S_ISLNK(mode):", "        if False:"),
        "tests/unit/test_atomic.py",
    ),
    _m(
        "S-g",
        "files that some process writes",
        "steps/settled.py",
        ("        elif pid := writers.get(home.source(path)):", "        elif pid := None:"),
        "tests/acceptance/test_two_boxes.py",
    ),
)

ROOM = (
    _m(
        "R-a",
        "the reserve",
        "disk/budget.py",
        ("        room = free[device] - reserve", "        room = free[device]"),
        "tests/unit/test_budget.py",
    ),
    _m(
        "R-b",
        "the budget",
        "disk/budget.py",
        (
            "    if spec.budget is not None and sum(need.bytes for need in needs) > spec.budget - used:",
            "    if False:",
        ),
        "tests/unit/test_budget.py",
    ),
    _m(
        "R-c",
        "the look at the room before the first byte",
        "steps/carry.py",
        ("    ensure_room(lab, tasks)\n    _announce", "    _announce"),
        "tests/acceptance/test_bad_input.py",
    ),
    _m(
        "R-d",
        "the room that a large file reserves",
        "transfer/parts.py",
        ("        if self._size - taken > disk.f_bavail * disk.f_frsize:", "        if False:"),
        "tests/unit/test_parts.py",
    ),
)

ORDER = (
    _m(
        "O-a",
        "the mark of an unfinished update",
        "disk/tree.py",
        ("        self._marker.set()", "        pass"),
        "tests/contracts/test_homes.py",
        "tests/acceptance/test_kill.py::test_a_first_pull",
    ),
    _m(
        "O-b",
        "the upload's id in the journal before its first part",
        "mirrors/s3_upload.py",
        (
            "            order.journal.begin(order.key, order.content.sha256, upload.id, part_size)",
            "            pass",
        ),
        "tests/unit/test_s3_upload.py",
    ),
    _m(
        "O-c",
        "the file that a person edited is set aside",
        "disk/placing.py",
        ('    if replace == "aside":\n        aside()', '    if replace == "aside":\n        pass'),
        "tests/acceptance/test_bad_input.py",
    ),
    _m(
        "O-d",
        "the newest unit that a killed push left here is no conflict",
        "steps/push_units.py",
        ("    _catch_up(lab, artifact, found)\n", ""),
        "tests/faults/test_kill_matrix.py::test_a_checkpoint_pushed_by_a_killed_run_is_no_conflict_of_the_next",
        "tests/acceptance/test_push_safety.py",
    ),
    _m(
        "O-e",
        "secrets that are never pushed",
        "steps/settled.py",
        ("        if is_secret(path):", "        if False:"),
        "tests/acceptance/test_two_boxes.py",
    ),
    _m(
        "O-f",
        "names that leave their folder",
        "names.py",
        ("    if not _DOTS.isdisjoint(segments):", "    if False:"),
        "tests/unit/test_names.py",
    ),
    _m(
        "O-g",
        "credentials that a redirect drops",
        "origins/http_ways.py",
        ('if name != "Authorization"}', "if name}"),
        "tests/unit/test_http_ways.py",
    ),
)

GUARD = (
    _m(
        "G-a",
        "files held fast while they are sent",
        "disk/pins.py",
        (
            '            if wish.manner == "link" and _link(original, pin):\n                held = _is(wish, pin.lstat())',
            '            if wish.manner == "link":\n                pin.symlink_to(original)\n                held = True',
        ),
        "tests/integration/test_pins.py",
        "tests/acceptance/test_guard_faults.py",
    ),
    _m(
        "G-b",
        "what was hashed is what was seen",
        "disk/pins.py",
        (
            "                if observed is None or not self._is_as_wished(path, observed):",
            "                if observed is None:",
        ),
        "tests/integration/test_pins.py",
    ),
    _m(
        "G-c",
        "a file that grows is proven to",
        "disk/pins.py",
        ("            if sample(pin, wish.size) != wish.sample:", "            if False:"),
        "tests/integration/test_pins.py",
        "tests/acceptance/test_guard_faults.py",
    ),
    _m(
        "G-d",
        "the beginning that the mirror has of a file that grows",
        "disk/pins.py",
        (
            "            if wish.before and _digest(pin, wish.before[0]) != wish.before[1]:",
            "            if False:",
        ),
        "tests/integration/test_pins.py",
        "tests/acceptance/test_guard_faults.py",
    ),
    _m(
        "G-e",
        "the rest of a file before it is pushed",
        "guard/settled.py",
        ("    if pid is None and age >= rest:", "    if pid is None:"),
        "tests/unit/test_settled.py",
        "tests/acceptance/test_guard_faults.py",
    ),
    _m(
        "G-f",
        "the rule of a checkpoint",
        "guard/settled.py",
        ("    if unit.finished is False:", "    if False:"),
        "tests/unit/test_settled.py",
        "tests/acceptance/test_guard_faults.py",
    ),
    _m(
        "G-g",
        "the end of a format",
        "guard/settled.py",
        ('    if any(view.wholeness(path) == "broken" for path in unit.members):', "    if False:"),
        "tests/unit/test_settled.py",
        "tests/acceptance/test_guard_faults.py",
    ),
    _m(
        "G-h",
        "a checkpoint that rotation has begun on",
        "steps/guarding.py",
        ("        if item.is_unit and not is_still(home, item):", "        if False:"),
        "tests/acceptance/test_guard_faults.py",
    ),
    _m(
        "G-i",
        "a copy of what is written again in place",
        "steps/guarding.py",
        ("                self._watch(item).rewritten |= again", "                pass"),
        "tests/acceptance/test_guard_faults.py",
    ),
    _m(
        "G-j",
        "the head never goes back",
        "steps/watching.py",
        ("        if item.moment < self._newest_pushed:", "        if False:"),
        "tests/acceptance/test_guard_faults.py",
    ),
    _m(
        "G-k",
        "the stop of a push at the end",
        "guard/loop.py",
        ("        with self.clock.alarm(lambda: self.ending.stop_at, stop.set):", "        if True:"),
        "tests/unit/test_guard_loop.py",
    ),
    _m(
        "G-l",
        "only what arrives is begun",
        "guard/admission.py",
        ("        if candidate.size <= budget:", "        if True:"),
        "tests/unit/test_guard_phases.py",
    ),
    _m(
        "G-m",
        "a claim only of what arrived",
        "steps/guarding.py",
        (
            "        if len(taken) < len(item.paths) or not self._lab.has_mirror:\n            return False\n",
            "        return True\n",
        ),
        "tests/acceptance/test_guard_faults.py",
    ),
    _m(
        "G-n",
        "what was being pushed from here",
        "steps/push_units.py",
        ("    if newest.id.encode() == lab.state.get(PUSHING, lab.memory_key(artifact)):", "    if False:"),
        "tests/acceptance/test_guard_faults.py",
    ),
    _m(
        "G-o",
        "a guess that is over is dropped",
        "session/deadline.py",
        ("        if estimate.at > readings.now:", "        if True:"),
        "tests/unit/test_deadline.py",
    ),
    _m(
        "G-p",
        "a folder that appears whole",
        "session/atomic_folder.py",
        (
            "    staged.mkdir()\n    try:\n        yield staged",
            "    staged.mkdir()\n    staged.rename(target)\n    staged.symlink_to(target)\n    try:\n        yield staged",
        ),
        "tests/unit/test_session.py",
    ),
    _m(
        "G-q",
        "a guard that hangs is ended",
        "guard/daemon.py",
        ("                self._end()\n", "                pass\n"),
        "tests/acceptance/test_guard_process.py::test_a_mirror_that_falls_silent_does_not_hold_it_beyond_the_end",
    ),
)

MUTATIONS = (*FSYNC, *DIGESTS, *CONDITIONS, *FINGERPRINTS, *ROOM, *ORDER, *GUARD)
