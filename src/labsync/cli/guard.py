"""`labsync guard …` and `labsync up`: what was made here is safe before the box ends."""

from __future__ import annotations

import dataclasses
import functools
import sys
from typing import TYPE_CHECKING, TypeVar

import click

from labsync.cli.options import bwlimit, common, emit, find, open_lab

if TYPE_CHECKING:
    from collections.abc import Callable

    from labsync.cli.options import Common
    from labsync.settings import Options
    from labsync.steps.guard_process import GuardOptions
    from labsync.steps.lab import Lab

T = TypeVar("T")


class DurationType(click.ParamType[float]):
    """Seconds, written as a duration."""

    name = "duration"

    def convert(
        self,
        value: str | float,
        param: click.Parameter | None,
        ctx: click.Context | None,  # noqa: ARG002  click's signature
    ) -> float:
        """Return the seconds; what is no duration ends the command (2)."""
        from labsync.errors import UsageError
        from labsync.manifest.values import parse_duration

        if not isinstance(value, str):
            return value
        seconds = parse_duration(value)
        if seconds <= 0 and param is not None and param.name != "margin":
            raise UsageError(f"`{param.opts[0]} {value}` is no time at all", hint="write it like `3h12m`")
        return seconds


_TIMES = (
    click.option("--remaining", type=DurationType(), metavar="TIME", help="Time left in this session, as the platform's web page says it; it alone decides."),
    click.option("--interval", type=DurationType(), metavar="TIME", help="How often to push; default: 10m, less in a short session."),
    click.option("--margin", type=DurationType(), metavar="TIME", help="Be done so long before the end; default: the profile's, none for `--remaining`."),
    click.option("--on-drain", multiple=True, metavar="HOW", help="Ask the trainer to save when the end is near: `signal:USR1:PID`, `file:PATH` or `command:…`."),
)  # fmt: skip


def _guarded(function: Callable[..., T]) -> Callable[..., T]:
    """Give a command the options of the guard, passed on as one `GuardOptions` value."""

    @functools.wraps(function)
    def wrapper(
        common: Common,
        remaining: float | None,
        interval: float | None,
        margin: float | None,
        on_drain: tuple[str, ...],
    ) -> T:
        from labsync.errors import UsageError
        from labsync.steps.guard_process import GuardOptions

        if remaining is not None and margin is not None and margin >= remaining:
            raise UsageError("the margin leaves nothing of the time left", hint="make `--margin` shorter")
        return function(common, GuardOptions(remaining, interval, margin, on_drain))

    wrapped: Callable[..., T] = wrapper
    for option in reversed(_TIMES):
        wrapped = option(wrapped)
    return wrapped


@click.group(no_args_is_help=False)
def guard() -> None:
    """Keep what is made here safe until the session ends."""


@guard.command("start")
@bwlimit
@common
@_guarded
def guard_start(common: Common, options: GuardOptions) -> int:
    """Start the guard in the background; one that runs already takes a new `--remaining`."""
    from labsync import workflow_guard

    lab = open_lab(common, warns=False)
    return emit(workflow_guard.start(lab, options, _words(common, options)), common)


@guard.command("run")
@bwlimit
@common
@_guarded
def guard_run(common: Common, options: GuardOptions) -> int:
    """Guard in the foreground, until the session ends (15), Ctrl-C or `labsync guard stop`."""
    from labsync import workflow_guard

    def reopen(changed: Options) -> Lab:
        lab = open_lab(dataclasses.replace(common, quiet=not common.verbose), warns=False)
        lab.options = changed
        return lab

    return emit(workflow_guard.run(open_lab(common, warns=False), reopen, options), common)


@guard.command("status")
@common
def guard_status(common: Common) -> int:
    """Say how the guard and the session stand, and how the last one ended."""
    from labsync import workflow_guard

    return emit(workflow_guard.show(open_lab(common, warns=False)), common)


@guard.command("stop")
@common
def guard_stop(common: Common) -> int:
    """Let the guard push once more, and end."""
    from labsync import workflow_guard

    return emit(workflow_guard.stop(open_lab(common, warns=False)), common)


@guard.command("print-cron")
@common
def guard_print_cron(common: Common) -> int:
    """Print a crontab line that starts the guard again where it has ended."""
    from labsync import workflow_guard

    return emit(workflow_guard.cron(open_lab(common, warns=False)), common)


@click.command()
@bwlimit
@common
@_guarded
def up(common: Common, options: GuardOptions) -> int:
    """Begin the day in one command: pull, environment, kernel, guard, status."""
    from labsync import workflow_guard

    lab = open_lab(common, warns=False)
    return emit(workflow_guard.up(lab, options, _words(common, options)), common)


def _words(common: Common, options: GuardOptions) -> list[str]:
    """Return the words that let `labsync guard run` do what was typed; the time left is written down."""
    words = ["-m", str(find(common)), "--jobs", str(common.jobs), "--yes"]
    for name, seconds in (("interval", options.interval), ("margin", options.margin)):
        if seconds is not None:
            words += [f"--{name}", f"{round(seconds)}s"]
    for how in options.on_drain:
        words += ["--on-drain", how]
    if common.bandwidth < sys.maxsize:
        words += ["--bwlimit", f"{round(common.bandwidth)}B"]
    return words + [
        flag for flag, is_set in (("--offline", common.offline), ("-v", common.verbose)) if is_set
    ]
