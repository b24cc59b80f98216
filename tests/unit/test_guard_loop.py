"""The loop with rounds of the test's own, and what it tells: journal, heartbeat, past sessions, files."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from labsync.errors import ExitCode, LockedError, UsageError
from labsync.guard.clock import BootClock
from labsync.guard.ending import Ending, Notice
from labsync.guard.files import GuardFiles, Heartbeat
from labsync.guard.hooks import Hook, RunCommand, SendSignal, TouchFile, call_all, parse_hook
from labsync.guard.journal import KEPT_SESSIONS, Journal, claims, tell
from labsync.guard.loop import Guard, Order, Round, Safe, Waiting
from labsync.guard.phases import Phase
from labsync.guard.spot import Metadata
from labsync.session.deadline import UNKNOWN, Deadline
from labsync.session.readings import Box
from tests.fakes.virtual_session import Chronicle, VirtualClock, deadline

if TYPE_CHECKING:
    from collections.abc import Callable

HOUR = 3600.0


@dataclass
class Rounds:
    """Remembers the orders and answers what the test wants; a push takes a second."""

    clock: VirtualClock
    answer: Callable[[Order], Round] = lambda order: Round(pushed=order.push)
    orders: list[tuple[float, Order]] = field(default_factory=list)

    def round(self, order: Order) -> Round:
        self.orders.append((self.clock.time - 1000.0, order))
        if order.push:
            self.clock.advance(1.0)
        return self.answer(order)


def run(
    ending: Ending, clock: VirtualClock, rounds: Rounds, interval: float = 600.0
) -> tuple[ExitCode, Chronicle]:
    chronicle = Chronicle(clock)
    return Guard(rounds, clock, ending, chronicle, lambda: 600.0).run(), chronicle


def test_it_pushes_every_interval_and_looks_before_each_so_that_what_is_new_can_rest() -> None:
    clock = VirtualClock()
    rounds = Rounds(clock)
    code, chronicle = run(deadline(clock, 4 * HOUR), clock, rounds)
    assert code is ExitCode.DEADLINE
    watch = [(at, order) for at, order in rounds.orders if at < 3.5 * HOUR - 1]
    pushes = [at for at, order in watch if order.push]
    assert len(pushes) == pytest.approx(3.5 * 6, abs=1)
    assert all(order.ask for _, order in watch if order.push)
    looks = [at for at, order in watch if not order.push]
    assert all(any(30 <= push - look <= 32 for look in looks) for push in pushes[1:])
    assert [phase for _, phase in chronicle.phases] == list(Phase)


def test_what_was_made_since_the_last_push_is_named_at_the_end() -> None:
    clock = VirtualClock()
    safe = (Safe("results/r", "1" * 64, 1, 1),)

    def answer(order: Order) -> Round:
        if order.push:
            return Round(pushed=True, safe=safe)
        late = Waiting("results/r", "late", 1, "it is not pushed yet")
        return Round(waiting=(late,) if clock.time - 1000.0 >= 4 * HOUR - 120 else ())

    _, chronicle = run(deadline(clock, 4 * HOUR), clock, Rounds(clock, answer))
    assert (chronicle.claimed.safe, [w.path for w in chronicle.claimed.waiting]) == (safe, ["late"])


def test_the_end_comes_before_the_deadline() -> None:
    clock = VirtualClock()
    ending = deadline(clock, 4 * HOUR)
    _, chronicle = run(ending, clock, Rounds(clock))
    assert chronicle.end is not None
    assert chronicle.end[0] - 1000.0 == pytest.approx(4 * HOUR - 120, abs=2)


def test_near_the_end_it_pushes_more_often() -> None:
    clock = VirtualClock()
    rounds = Rounds(clock)
    run(deadline(clock, 4 * HOUR), clock, rounds)
    pushes = [at for at, order in rounds.orders if order.push]
    drain = [at for at in pushes if 3.5 * HOUR <= at < 4 * HOUR - 600]
    freeze = [at for at in pushes if at >= 4 * HOUR - 600]
    assert len(drain) >= 7
    assert len(freeze) >= 14
    assert all(order.is_short for at, order in rounds.orders if at >= 4 * HOUR - 600)


def test_what_is_about_to_settle_does_not_wait_for_the_next_interval() -> None:
    clock = VirtualClock()

    def once(order: Order) -> Round:
        soon = clock.time + 20
        waits = (Waiting("results/r", "a", 1, "it changed a moment ago", soon),)
        return Round(pushed=order.push, waiting=waits if clock.time < 1010 else ())

    rounds = Rounds(clock, once)
    run(deadline(clock, 4 * HOUR), clock, rounds)
    first, second = [(at, order) for at, order in rounds.orders if order.push][:2]
    assert first[0] == 0
    assert second[0] == pytest.approx(21, abs=1)
    assert not second[1].ask


def test_what_changed_while_it_was_sent_is_tried_again_soon() -> None:
    clock = VirtualClock()
    rounds = Rounds(clock, lambda order: Round(pushed=order.push, again=clock.time < 1010))
    run(deadline(clock, 4 * HOUR), clock, rounds)
    assert [at for at, order in rounds.orders if order.push][1] == pytest.approx(31, abs=1)


def test_after_a_signal_it_ends_as_soon_as_all_is_safe() -> None:
    clock = VirtualClock()
    ending = deadline(clock, 4 * HOUR)
    clock.at(1100.0, lambda: ending.notify(Notice("SIGTERM", 10.0, ExitCode.TERMINATED), clock.time))
    waits = Waiting("results/r", "a", 1, "", 1104.0)
    rounds = Rounds(clock, lambda order: Round(order.push, waiting=(waits,) if clock.time < 1104 else ()))
    clock.wait = lambda seconds: clock.advance(min(seconds, 1.0))  # type: ignore[method-assign]  # woken
    code, chronicle = run(ending, clock, rounds)
    assert code is ExitCode.TERMINATED
    assert chronicle.end is not None
    assert chronicle.end[0] == pytest.approx(1105.0, abs=1.5)
    assert chronicle.end[1] == "SIGTERM"


def test_a_round_that_began_before_the_notice_is_not_the_last() -> None:
    clock = VirtualClock()
    ending = deadline(clock, 4 * HOUR)
    clock.at(1000.5, lambda: ending.notify(Notice("SIGTERM", 10.0), clock.time))
    rounds = Rounds(clock)
    run(ending, clock, rounds)
    assert len([order for _, order in rounds.orders if order.push]) == 2


@pytest.mark.fault(9)
def test_a_push_that_would_not_end_is_stopped_in_time() -> None:
    clock = VirtualClock()
    seen: list[bool] = []

    def endless(order: Order) -> Round:
        if order.push and clock.time > 1000 + 3 * HOUR:
            while not order.stop.is_set():
                assert clock.time < 1000 + 9 * HOUR, "nobody stopped it"
                clock.advance(10.0)
            seen.append(True)
        return Round(pushed=order.push)

    code, chronicle = run(deadline(clock, 4 * HOUR), clock, Rounds(clock, endless))
    assert (code, seen) == (ExitCode.DEADLINE, [True])
    assert chronicle.end is not None
    assert chronicle.end[0] <= 1000 + 4 * HOUR - 110


def test_without_an_end_it_goes_on_until_it_is_told() -> None:
    clock = VirtualClock()
    ending = Ending(Deadline(UNKNOWN), clock.time)
    clock.at(1000 + 30 * HOUR, lambda: ending.notify(Notice("you stopped it", 10.0, ExitCode.OK), clock.time))
    rounds = Rounds(clock)
    code, _ = run(ending, clock, rounds)
    assert code is ExitCode.OK
    assert len([order for _, order in rounds.orders if order.push]) == pytest.approx(180, abs=3)


# The journal.

SAFE = (Safe("checkpoints/c", "a" * 64, 2, 20),)
WAITS = (Waiting("results/r", "x", 3, "it is being written"),)


def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "guard" / "j.jsonl")


def session(book: Journal, *, ends: bool, number: int = 0) -> None:
    book.append({"event": "begin", "time": f"2026-01-01T00:00:{number:02}Z", "box": "b"})
    book.append({"event": "push", "time": f"2026-01-01T01:00:{number:02}Z", **claims(SAFE, WAITS)})
    if ends:
        end = {"event": "end", "time": f"2026-01-01T02:00:{number:02}Z", "reason": "the deadline"}
        book.append({**end, "exit_code": 15, **claims(SAFE, ())})


def test_a_session_that_ended_tells_what_was_safe(tmp_path: Path) -> None:
    book = journal(tmp_path)
    session(book, ends=True)
    (events,) = book.sessions()
    past = tell(events, "2026-01-01T09:00:00Z")
    assert (past.reason, past.ended, past.was_cut_off) == ("the deadline", "2026-01-01T02:00:00Z", False)
    assert past.safe == ({"artifact": "checkpoints/c", "snapshot": "a" * 64, "files": 2, "bytes": 20},)
    assert (past.unsafe, past.unsafe_files) == ((), 0)


@pytest.mark.fault(16)
def test_a_session_that_was_cut_off_ends_with_its_last_sign_of_life(tmp_path: Path) -> None:
    book = journal(tmp_path)
    session(book, ends=False)
    past = tell(book.sessions()[0], "2026-01-01T01:30:00Z")
    assert (past.was_cut_off, past.ended) == (True, "2026-01-01T01:30:00Z")
    assert (past.unsafe_files, past.unsafe_bytes) == (1, 3)


@pytest.mark.fault(3)
@pytest.mark.parametrize("cut", range(1, 40, 3))
def test_a_line_that_was_cut_off_costs_that_line_alone(tmp_path: Path, cut: int) -> None:
    book = journal(tmp_path)
    session(book, ends=False)
    path = tmp_path / "guard" / "j.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:cut])
    session(book, ends=True, number=5)
    assert [len(events) for events in book.sessions()] == [2, 3]


def test_many_sessions_are_trimmed(tmp_path: Path) -> None:
    book = journal(tmp_path)
    for number in range(KEPT_SESSIONS + 5):
        session(book, ends=True, number=number)
    book.trim()
    assert len(book.sessions()) == KEPT_SESSIONS
    assert book.sessions()[-1][0]["time"] == f"2026-01-01T00:00:{KEPT_SESSIONS + 4:02}Z"


# The files.


def test_a_guard_lives_as_long_as_its_process(tmp_path: Path) -> None:
    files, box = GuardFiles(tmp_path, "labsync"), Box()
    started = box.started(os.getpid())
    assert started is not None
    files.beat(Heartbeat(os.getpid(), started, "b", 5.0))
    assert files.running(box) == Heartbeat(os.getpid(), started, "b", 5.0)
    files.beat(Heartbeat(os.getpid(), started - 1, "b", 5.0))  # another process had the number
    assert files.running(box) is None


@pytest.mark.parametrize("text", ["", "{half", '{"version": 2}', "[]", '{"version": 1, "pid": 7}'])
def test_a_heartbeat_that_cannot_be_read_is_none(tmp_path: Path, text: str) -> None:
    files = GuardFiles(tmp_path, "labsync")
    files.heartbeat.parent.mkdir()
    files.heartbeat.write_text(text)
    assert files.last_heartbeat() is None


def test_a_word_to_stop_is_taken_once(tmp_path: Path) -> None:
    files = GuardFiles(tmp_path, "labsync")
    assert not files.was_asked_to_stop()
    files.ask_to_stop()
    assert files.was_asked_to_stop()
    assert not files.was_asked_to_stop()


def test_there_is_one_guard_per_manifest(tmp_path: Path) -> None:
    mine, other = GuardFiles(tmp_path, "labsync"), GuardFiles(tmp_path, "other")
    with mine.lock(), other.lock(), pytest.raises(LockedError):
        mine.lock().__enter__()


# Hooks.


def test_hooks_are_parsed(tmp_path: Path) -> None:
    assert parse_hook("signal:USR1:77", tmp_path) == SendSignal(77, signal.SIGUSR1)
    assert parse_hook("signal:SIGTERM:77", tmp_path) == SendSignal(77, signal.SIGTERM)
    assert parse_hook("file:a/stop", tmp_path) == TouchFile(tmp_path / "a/stop")
    assert parse_hook("command:touch 'a b'", tmp_path) == RunCommand(("touch", "a b"), tmp_path)


@pytest.mark.parametrize(
    "text", ["", "signal:77", "signal:USR1:x", "file:", "command:", "command:'", "else:x"]
)
def test_hooks_that_make_no_sense_are_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(UsageError):
        parse_hook(text, tmp_path)


def test_a_hook_that_fails_keeps_no_other_from_its_turn(tmp_path: Path) -> None:
    said: list[str] = []
    blocked = tmp_path / "file"
    blocked.write_text("")
    hooks: list[Hook] = [
        TouchFile(blocked / "x"),
        SendSignal(2**22 + 1, signal.SIGUSR1),
        TouchFile(tmp_path / "y" / "z"),
    ]
    call_all(hooks, said.append)
    assert (tmp_path / "y" / "z").exists()
    assert len(said) == 3
    assert "no process" in said[1]


# The clock.


def test_a_wait_returns_when_it_is_woken_even_before_it_began() -> None:
    clock = BootClock()
    clock.wake()
    clock.wait(1000.0)
    before = clock.now()
    clock.wait(0.01)
    assert clock.now() >= before + 0.01


def test_an_alarm_rings_once_and_not_after_its_context() -> None:
    clock, rung = BootClock(), list[int]()
    with clock.alarm(lambda: clock.now() - 1, lambda: rung.append(1)):
        pass
    with clock.alarm(lambda: clock.now() + 1000, lambda: rung.append(2)):
        pass
    assert rung in ([1], [])


def test_without_a_metadata_service_nothing_is_said() -> None:
    assert Metadata({"AWS_EC2_METADATA_SERVICE_ENDPOINT": "http://127.0.0.1:9"}).notice(0.0) is None
    assert not Metadata({"AWS_EC2_METADATA_DISABLED": "true"}).is_spot()


def test_records_are_json_lines(tmp_path: Path) -> None:
    book = journal(tmp_path)
    session(book, ends=True)
    lines = (tmp_path / "guard" / "j.jsonl").read_text().splitlines()
    assert [json.loads(line)["event"] for line in lines] == ["begin", "push", "end"]
