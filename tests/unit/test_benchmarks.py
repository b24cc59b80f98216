"""The benchmark's arithmetic and its page; what it measures is never judged here."""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
import urllib.request
import xml.etree.ElementTree as ET
from dataclasses import asdict
from typing import TYPE_CHECKING

import pytest
from benchmarks import __main__ as program
from benchmarks import data, labs, report
from benchmarks.chart import LEFT, LONGEST, bars, draw
from benchmarks.data import WrongResultError
from benchmarks.goals import BY_NAME, ROWS, Goal, Row, best
from benchmarks.measure import Command, Kill, measure
from benchmarks.relay import Relay, unread_bytes
from benchmarks.tables import Run, Spread, Verdict, goals_table, row_table, verdicts

from tests.fakes.box import Box
from tests.fakes.http_faults import FileServer

if TYPE_CHECKING:
    from pathlib import Path

ROW = Row("row", "some work", (best("labsync", 0.8), Goal("labsync", 1.3, "fast")), beside=("loop",))


def run(contender: str, number: int, wall: float, **more: object) -> Run:
    fields = {"row": "row", "cpu": wall / 2, "rss": 10 << 20, **more}
    return Run(contender=contender, round=number, wall=wall, **fields)  # type: ignore[arg-type]


RUNS = [
    run("labsync", 0, 1.0), run("fast", 0, 2.0), run("slow", 0, 4.0), run("loop", 0, 0.1),
    run("labsync", 1, 3.0), run("fast", 1, 10.0), run("slow", 1, 5.0), run("loop", 1, 0.1),
    run("labsync", 2, 6.0), run("fast", 2, 5.0), run("slow", 2, 9.0), run("loop", 2, 0.1),
]  # fmt: skip


def _only(runs: list[Run], goal: Goal, row: Row = ROW) -> Verdict:
    (verdict,) = verdicts([Row(row.name, row.title, (goal,), row.beside)], runs)
    return verdict


def test_ratios_are_of_runs_of_the_same_round_and_their_median_counts() -> None:
    verdict = _only(RUNS, best("labsync", 0.8))
    assert verdict.value == Spread(0.6, 0.5, 1.2)  # 1/2, 3/5 and 6/5: the best peer changes
    assert verdict.rival == "fast"  # it won two rounds of three
    assert verdict.met
    assert not _only(RUNS, best("labsync", 0.59)).met


def test_a_named_rival_is_the_only_one() -> None:
    assert _only(RUNS, Goal("labsync", 1, "slow")).value == Spread(0.6, 0.25, 6 / 9)
    assert _only(RUNS, Goal("labsync", 1, "loop")).value == Spread(30.0, 10.0, 60.0)
    assert _only(RUNS, Goal("labsync", 1, "absent")).value is None


def test_who_stands_beside_is_no_peer_and_neither_is_labsync_itself() -> None:
    runs = [run("labsync", 0, 2.0), run("labsync, packed", 0, 1.0), run("loop", 0, 0.1), run("fast", 0, 4.0)]
    assert _only(runs, best("labsync", 1)).value == Spread(0.5, 0.5, 0.5)
    assert _only(runs[:3], best("labsync", 1)).value is None


def test_failed_runs_do_not_count_and_no_result_is_not_a_success() -> None:
    runs = [*RUNS[:4], run("labsync", 1, 0.0, failed="exit 1"), run("fast", 1, 1.0)]
    assert _only(runs, best("labsync", 1)).value == Spread(0.5, 0.5, 0.5)
    assert not _only([run("labsync", 0, 0.0, failed="exit 1")], best("labsync", 1)).met
    assert not _only([run("labsync", 0, 0.0, failed="exit 1")], Goal("labsync", 1, measure="rss")).met


def test_amounts_are_judged_by_their_most_and_times_by_their_median() -> None:
    runs = [
        run("labsync", number, wall, rss=rss, requests=requests, resent=resent)
        for number, (wall, rss, requests, resent) in enumerate([(1, 5, 1, 0), (2, 7, 1, 9), (30, 6, 2, 3)])
    ]
    assert _only(runs, Goal("labsync", 2)).met
    assert _only(runs, Goal("labsync", 7, measure="rss")).met
    assert not _only(runs, Goal("labsync", 6, measure="rss")).met
    assert not _only(runs, Goal("labsync", 1, measure="requests")).met
    assert _only(runs, Goal("labsync", 9, measure="resent")).measured == 9
    assert _only(RUNS, Goal("labsync", 9, measure="resent")).value is None


def test_rows_that_did_not_run_have_no_verdict() -> None:
    assert verdicts(ROWS, RUNS) == []


def test_the_table_of_goals() -> None:
    lines = goals_table(verdicts([ROW], RUNS)).splitlines()
    assert lines[2] == "| some work | labsync ÷ fast | 0.60 (0.50 – 1.20) | ≤ 0.80 | yes |"
    assert lines[3] == "| some work | labsync ÷ fast | 0.50 (0.30 – 1.20) | ≤ 1.30 | yes |"
    failed = goals_table(verdicts([ROW], [run("labsync", 0, 1.0)]))
    assert "| no result | ≤ 0.80 | **no** |" in failed


def test_the_table_of_a_row() -> None:
    runs = [*RUNS, run("broken", 0, 1.0, failed="exit 2: a | b\nc"), run("labsync", 3, 3.0, requests=7)]
    lines = row_table(ROW, runs).splitlines()
    assert lines[2] == "| labsync | 3.00 (1.00 – 6.00) | 1.50 | 10 MiB | 7 |  |"
    assert lines[3] == "| fast | 5.00 (2.00 – 10.00) | 2.50 | 10 MiB |  | 0.50 (0.30 – 1.20) |"
    assert lines[5].startswith("| loop (beside) |")
    assert lines[6] == "| broken | failed: exit 2: a / b c |  |  |  |  |"
    assert len({line.count("|") for line in lines}) == 1


def test_the_table_of_kills() -> None:
    runs = [run("labsync", number, 1.0, resent=number << 20, unread=1 << 19) for number in range(3)]
    assert row_table(ROW, runs).splitlines()[2] == (
        "| labsync | 3 | 1.0 MiB (0.0 MiB – 2.0 MiB) | 0.5 MiB (0.5 MiB – 0.5 MiB) |"
    )


def test_bars_are_in_times_of_the_best_peer_and_long_ones_are_cut() -> None:
    runs = [*RUNS, run("a <slow> one", 0, 1000.0)]
    assert [(bar.name, bar.ratio) for bar in bars(ROW, runs)][:3] == [
        ("loop", 0.1 / 5), ("labsync", 0.6), ("fast", 1.0),
    ]  # fmt: skip
    picture = ET.fromstring(draw([ROW], runs))
    widths = [float(rect.get("width", "0")) for rect in picture.findall("{http://www.w3.org/2000/svg}rect")]
    assert max(widths[1:]) == pytest.approx(LONGEST * widths[3], abs=0.1)
    assert LEFT + max(widths[1:]) + 100 < widths[0]
    assert "a <slow> one" in "".join(picture.itertext())


def test_rows_without_peers_are_not_drawn() -> None:
    assert bars(ROW, [run("labsync", 0, 1.0)]) == []
    assert "some work" not in draw([ROW], [run("labsync", 0, 1.0)])
    assert "some work" not in draw([ROW], [run("fast", 0, 1.0, resent=5)])


MACHINE = {
    "type": "machine", "date": "2020-02-02", "cpu": "abacus", "cores": 2, "memory": "1 GiB", "kernel": "6",
    "rounds": 3, "versions": {"s5cmd": "v2"},
}  # fmt: skip


def _session(date: str, runs: list[Run]) -> report.Session:
    records: list[dict[str, object]] = [{**MACHINE, "date": date}]
    records += [{"type": "run", **asdict(run)} for run in runs]
    records.append({"type": "command", "row": "row", "contender": "fast", "text": f"fast cp {date}"})
    return report.read(json.dumps(record) for record in records)


def test_the_page_shows_each_row_by_the_last_session_that_ran_it() -> None:
    other = Row("other", "other work", (best("labsync", 1),))
    old = _session("2001-01-01", [*RUNS, run("labsync", 0, 1.0, row="other")])
    new = _session("2002-02-02", [run("labsync", 0, 1.0), run("fast", 0, 2.0)])
    page = report.text([ROW, other], report.newest([old, new]))
    first, second = page.split("## Other work")
    assert "2001-01-01: abacus" in first
    assert "2002-02-02: abacus" in first
    assert "Server: rclone serve s3; 2002-02-02." in first
    assert "fast cp 2002-02-02" in first
    assert "slow" not in first
    assert "Server: rclone serve s3; 2001-01-01." in second
    assert "s5cmd v2" in page


def test_only_what_is_between_the_markers_is_replaced() -> None:
    page = f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n"
    once = report.put_between(page, "new")
    assert once == f"before\n{report.BEGIN}\n\nnew\n\n{report.END}\nafter\n"
    assert report.put_between(once, "new") == once
    with pytest.raises(ValueError, match="lacks"):
        report.put_between("nothing", "new")


def test_the_page_has_its_markers_and_its_sections() -> None:
    page = (report.DOCS / "performance.md").read_text("utf-8")
    assert page.index("## How it was measured") < page.index("## What falls short and why")
    assert page.index("## What falls short and why") < page.index(report.BEGIN) < page.index(report.END)


def test_every_row_is_run_and_every_goal_has_a_subject_of_labsync() -> None:
    assert set(BY_NAME) == {*program.IN_TURNS, *program.BY_KILLS}
    assert all(goal.subject.startswith("labsync") for row in ROWS for goal in row.goals)


def test_without_a_ram_disk_or_room_it_says_so(tmp_path: Path) -> None:
    assert "no RAM disk" in program.room_problem(tmp_path / "absent", 1)
    assert program.room_problem(tmp_path, 1) == ""
    assert "needs 1048576 GiB" in program.room_problem(tmp_path, 1 << 50)


def _python(tmp_path: Path, code: str) -> Command:
    return Command((sys.executable, "-c", code), tmp_path, os.environ)


def test_measuring_sees_code_output_memory_and_the_cpu_of_children(tmp_path: Path) -> None:
    burn = "import time\nwhile time.process_time() < 0.2: pass"
    child = f"subprocess.run([sys.executable, '-c', {burn!r}])"
    code = f"import subprocess, sys; x = b'x' * (1 << 28); {child}; print('out')"
    ended = measure(_python(tmp_path, f"{code}; print('err', file=sys.stderr); sys.exit(3)"))
    assert (ended.code, ended.stdout, ended.stderr) == (3, "out\n", "err\n")
    assert ended.cpu >= 0.2
    assert ended.rss >= 1 << 28
    assert list(tmp_path.iterdir()) == []


def test_measuring_can_kill_a_command_with_its_children(tmp_path: Path) -> None:
    started = tmp_path / "started"
    os.mkfifo(started)
    stop = threading.Event()

    def kill() -> None:
        started.read_bytes()
        stop.set()

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    argv = ("sh", "-c", f"echo > {started}; sleep 1000; true")
    stood_still: list[bool] = []
    ended = measure(Command(argv, tmp_path, os.environ), Kill(stop, lambda: stood_still.append(True)))
    killer.join()
    assert ended.code == -9
    assert stood_still == [True]


def test_the_relay_counts_both_ways() -> None:
    with FileServer({"/x": b"x" * 100_000}) as server, Relay(server.url) as relay:
        assert urllib.request.urlopen(f"{relay.url}/x").read() == b"x" * 100_000
    assert 100_000 < relay.bytes < 101_000
    assert 0 < relay.up < 1000


def test_the_relay_stops_at_its_alarm_and_knows_what_was_not_read() -> None:
    size = 40 << 20  # more than the kernel takes on the way
    with FileServer({"/x": bytes(size)}) as server, Relay(server.url) as relay:
        reached = relay.alarm(2 << 20)
        with urllib.request.urlopen(f"{relay.url}/x") as answer:
            assert reached.wait(30)
            stopped_at = relay.bytes
            got = len(answer.read(1 << 20))
            assert got < stopped_at < size
            assert relay.bytes == stopped_at
            assert relay.unread() <= stopped_at - got
            relay.open()
            assert got + len(answer.read()) == size
            assert relay.unread() == 0


TCP = """  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0 100 0 0 10 0
   1: 0100007F:1F90 0100007F:C350 01 00000010:00000001 01:00000000 00000000     0        0 2 1 0 20 4 30 10 -1
   2: 0100007F:C350 0100007F:1F90 01 00000002:00000100 00:00000000 00000000     0        0 3 1 0 20 4 30 10 -1
   3: 0100007F:C351 0100007F:1F91 01 00000000:00001000 00:00000000 00000000     0        0 4 1 0 20 4 30 10 -1
"""


def test_what_waits_for_clients_is_what_was_sent_to_them_or_lies_there() -> None:
    assert unread_bytes(TCP, 0x1F90) == 0x10 + 0x100
    assert unread_bytes(TCP, 0x1F91) == 0x1000


def test_the_relay_goes_when_it_is_left() -> None:
    with FileServer({}) as server, Relay(server.url) as relay:
        port = int(relay.url.rpartition(":")[2])
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))


def test_files_are_the_same_each_time_and_no_two_alike(tmp_path: Path) -> None:
    for name in ("one", "two"):
        data.make_files(tmp_path / name, 250, 2_000, 3_000)
        data.make_file(tmp_path / f"{name}.bin", (3 << 20) + 5)
    assert data.content(tmp_path / "one.bin") == data.content(tmp_path / "two.bin")
    assert (tmp_path / "one.bin").stat().st_size == (3 << 20) + 5
    files = list((tmp_path / "one").rglob("*.bin"))
    assert len(files) == len({path.read_bytes() for path in files}) == 250
    assert all(2_000 <= path.stat().st_size <= 3_000 for path in files)
    for path in files:
        assert (tmp_path / "two" / path.relative_to(tmp_path / "one")).read_bytes() == path.read_bytes()


@pytest.mark.parametrize("count", [0, 30])  # none: a single file
def test_the_lock_is_the_one_that_labsync_writes(tmp_path: Path, count: int) -> None:
    source = tmp_path / "source" / ("many" if count else "one.bin")
    if count:
        data.make_files(source, count, 16, 200)
    else:
        data.make_file(source, 5000)
    origin = labs.make_origin(source, tmp_path)
    data.link(source, tmp_path / "origin" / source.name)
    box = Box(tmp_path / "box", f"version: 1\nproject: bench\n{origin.line(packed=False, mirror=False)}")
    assert box.labsync("lock").code == 0
    assert (origin.locked / "labsync.lock").read_text() == (box.root / "labsync.lock").read_text()


def test_what_arrived_is_looked_at(tmp_path: Path) -> None:
    data.make_file(tmp_path / "one.bin", 1000)
    content = data.content(tmp_path / "one.bin")
    data.link(tmp_path / "one.bin", tmp_path / "folder" / "one.bin")
    content.expect(tmp_path / "folder")
    (tmp_path / "wrong.bin").write_bytes(bytes(1000))
    with pytest.raises(WrongResultError, match="other bytes"):
        content.expect(tmp_path / "wrong.bin")
    with pytest.raises(WrongResultError, match="made 0 files, 0 bytes"):
        content.expect(tmp_path / "absent")
