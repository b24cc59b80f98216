"""The bounded pool: tasks that wait hold no thread, and nothing outlives it."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from labsync.errors import InterruptedRunError
from labsync.transfer.schedule import IN_FLIGHT, PARKED, Schedule, Task
from tests.fakes.recorder import FakeClock


class Halt:
    def __init__(self) -> None:
        self.event = threading.Event()
        self.clock = FakeClock()

    def schedule(self, jobs: int = 2) -> Schedule:
        return Schedule(jobs, self.clock, self.event.is_set, self.event.set)


def task(*waits: float, log: Callable[[str], None] = lambda _: None, name: str = "") -> Task:
    try:
        for wait in waits:
            log(f"{name} waits")
            yield wait
        log(f"{name} ends")
    finally:
        log(f"{name} closed")


def test_all_tasks_end_and_waiting_ones_go_on_in_the_order_of_their_time() -> None:
    log: list[str] = []
    halt = Halt()
    tasks = [task(9, log=log.append, name="slow"), task(3, log=log.append, name="soon"), task()]
    assert halt.schedule(1).run(tasks) == []
    assert log == [
        "slow waits", "soon waits", "soon ends", "soon closed", "slow ends", "slow closed",
    ]  # fmt: skip
    assert halt.clock.time == 1009


def test_parked_tasks_are_returned_and_go_on_later() -> None:
    log: list[str] = []
    schedule = Halt().schedule()
    parked = schedule.run([task(PARKED, log=log.append, name="held"), task()])
    assert log == ["held waits"]
    assert schedule.run(parked) == []
    assert log[1:] == ["held ends", "held closed"]


def test_no_more_threads_than_jobs_are_at_work() -> None:
    at_work, most, mutex = 0, 0, threading.Lock()
    both = threading.Barrier(2)

    def busy() -> Task:
        nonlocal at_work, most
        with mutex:
            at_work += 1
            most = max(most, at_work)
        both.wait(60)
        with mutex:
            at_work -= 1
        both.wait(60)
        yield 0.0

    Halt().schedule(2).run(busy() for _ in range(6))
    assert most == 2


def test_no_more_tasks_are_begun_than_may_hold_files_open() -> None:
    begun, most = 0, 0

    def waiting() -> Task:
        nonlocal begun, most
        begun += 1
        most = max(most, begun)
        yield 5.0
        begun -= 1

    Halt().schedule(1).run(waiting() for _ in range(3 * IN_FLIGHT))
    assert most == IN_FLIGHT
    assert begun == 0


def test_new_tasks_are_made_only_when_a_thread_is_free_for_them() -> None:
    made = 0

    def make() -> Task:
        nonlocal made
        made += 1
        return task()

    def probe() -> Task:
        assert made == 1, "the second is not made while the first is at work"
        yield 0.0

    def tasks() -> object:
        nonlocal made
        made += 1
        yield probe()
        yield make()

    Halt().schedule(1).run(tasks())  # type: ignore[arg-type]
    assert made == 2


def test_halted_run_closes_what_was_begun_and_says_so() -> None:
    log: list[str] = []
    halt = Halt()

    def stops() -> Task:
        halt.event.set()
        yield 1.0

    with pytest.raises(InterruptedRunError):
        halt.schedule(1).run(
            [task(PARKED, log=log.append, name="a"), task(9, log=log.append, name="b"), stops(), task(1)]
        )
    assert log == ["a waits", "b waits", "a closed", "b closed"]


def test_exception_of_a_task_halts_the_run_and_is_raised() -> None:
    log: list[str] = []
    halt = Halt()

    def broken() -> Task:
        yield 1.0
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        halt.schedule(1).run([task(9, log=log.append, name="a"), broken()])
    assert log == ["a waits", "a closed"]
    assert halt.event.is_set()


def test_exception_while_making_tasks_is_raised() -> None:
    def tasks() -> object:
        yield task()
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        Halt().schedule(2).run(tasks())  # type: ignore[arg-type]


# Work that several threads can share


def test_idle_threads_are_lent_to_who_asks_for_them() -> None:
    schedule, helped = Halt().schedule(3), threading.Barrier(3)
    offers = [1, 2]

    def more() -> Task | None:
        return helper() if offers and offers.pop() else None

    def helper() -> Task:
        helped.wait(60)
        yield from ()

    def lender() -> Task:
        with schedule.lend(more):
            schedule.call()
            helped.wait(60)
        yield from ()

    assert schedule.run([lender()]) == []
    assert offers == []


def test_tasks_that_wait_for_a_thread_come_before_help() -> None:
    schedule, log = Halt().schedule(1), list[str]()

    def more() -> Task | None:
        log.append("asked")
        return None

    def lender() -> Task:
        with schedule.lend(more):
            yield 1.0
        log.append("ends")

    schedule.run([lender(), task(log=log.append, name="other")])
    assert log.index("other ends") < log.index("asked")
    assert "ends" in log


def test_nobody_is_asked_after_the_lender_has_ended() -> None:
    schedule, asked = Halt().schedule(2), list[int]()

    def more() -> Task | None:
        asked.append(1)
        return None

    def lender() -> Task:
        with schedule.lend(more):
            pass
        yield from ()

    schedule.run([lender(), task(5.0), task(9.0)])
    before = len(asked)
    schedule.run([task(5.0)])
    assert len(asked) == before


# Threads that hang


def test_run_does_not_wait_for_a_thread_that_hangs_and_its_task_is_closed_later() -> None:
    halt, hangs, closed = Halt(), threading.Event(), threading.Event()
    began = threading.Event()

    def hanging() -> Task:
        began.set()
        try:
            hangs.wait(60)
            yield 1.0
        finally:
            closed.set()

    def stops() -> Task:
        began.wait(60)
        halt.event.set()
        yield 1.0

    schedule = Schedule(2, halt.clock, halt.event.is_set, halt.event.set, grace=0.0)
    with pytest.raises(InterruptedRunError):
        schedule.run([hanging(), stops()])
    assert not closed.is_set()
    hangs.set()
    assert closed.wait(60)


def test_ctrl_c_is_raised_although_a_thread_hangs() -> None:
    import os
    import signal

    halt, hangs = Halt(), threading.Event()

    def hanging() -> Task:
        os.kill(os.getpid(), signal.SIGINT)
        hangs.wait(60)
        yield 1.0

    schedule = Schedule(2, halt.clock, halt.event.is_set, halt.event.set, grace=0.0)
    with pytest.raises(KeyboardInterrupt):
        schedule.run([hanging()])
    assert halt.event.is_set()
    hangs.set()
