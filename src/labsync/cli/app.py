"""The program: one click group, signals turned into clean stops, every failure in three lines."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from typing import TYPE_CHECKING, NoReturn

import click
from click.shell_completion import shell_complete

from labsync import __version__
from labsync.cli import commands
from labsync.errors import ExitCode, InterruptedRunError, LabsyncError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import FrameType


class _SignalledError(KeyboardInterrupt):
    """A signal asked for a clean stop; a KeyboardInterrupt, so that no handler of failures takes it."""

    def __init__(self, signum: int) -> None:
        super().__init__()
        self.signum = signum


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, "--version", prog_name="labsync")
def program() -> None:
    """Bring a machine learning lab to this machine, every byte checked.

    A manifest (labsync.yaml) lists models, checkpoints, datasets, libraries and results.
    Begin with `labsync init`, then `labsync bootstrap`.
    """


for command in commands.ALL:
    program.add_command(command)


def main() -> NoReturn:
    """Run the program and exit with its documented code."""
    for signum in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, _stop)
    code = run(sys.argv[1:])
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        _reader_gone()
    sys.exit(code)


def _stop(signum: int, frame: FrameType | None) -> NoReturn:  # noqa: ARG001  a handler's signature
    raise _SignalledError(signum)


def run(argv: Sequence[str]) -> int:
    """Run one command line and return its exit code; raises nothing."""
    as_json = "--json" in argv
    try:
        return _invoke(argv)
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except click.ClickException as error:
        return _report(_usage(error), as_json=as_json)
    except LabsyncError as error:
        return _report(error, as_json=as_json)
    except (KeyboardInterrupt, click.Abort) as stop:
        return _interrupted(stop, as_json=as_json)
    except BrokenPipeError:
        return _reader_gone()
    except Exception as error:  # noqa: BLE001  the last border: a bug of ours must end with its code, too
        return _bug(error, as_json=as_json)


def _invoke(argv: Sequence[str]) -> int:
    """Complete or run a command line.

    Not by click's `main`: it turns every signal into the same `Abort` and a closed pipe into an exit of its own.
    """
    if instruction := os.environ.get("_LABSYNC_COMPLETE"):
        return shell_complete(program, {}, "labsync", "_LABSYNC_COMPLETE", instruction)
    with program.make_context("labsync", list(argv) or ["--help"]) as context:
        return int(program.invoke(context) or 0)


def _reader_gone() -> int:
    """End in silence when whoever read our output has gone, as `labsync log | head` means it."""
    # What is still buffered has nowhere to go; Python would complain about it at exit
    # (https://docs.python.org/3/library/signal.html#note-on-sigpipe).
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.__stdout__.fileno())  # type: ignore[union-attr]
    return int(ExitCode.OK)


def _usage(error: click.ClickException) -> UsageError:
    context = getattr(error, "ctx", None)
    name = context.command_path if context else "labsync"
    message = error.format_message().rstrip(".")
    return UsageError(message[:1].lower() + message[1:], hint=f"`{name} --help` shows what fits")


def _interrupted(stop: BaseException, *, as_json: bool) -> int:
    signum = getattr(stop, "signum", signal.SIGINT)
    error = InterruptedRunError(f"stopped by {signal.Signals(signum).name}")
    return _report(error, as_json=as_json, code=128 + int(signum))


def _bug(error: Exception, *, as_json: bool) -> int:
    traceback.print_exc()
    shown = LabsyncError(
        f"labsync has a bug: {type(error).__name__}: {error}",
        safe="published files are whole; run the same command again",
        hint="please report it with the lines above",
    )
    return _report(shown, as_json=as_json)


def _report(error: LabsyncError, *, as_json: bool, code: int | None = None) -> int:
    from dataclasses import replace

    from labsync.render import json, text
    from labsync.report import ErrorReport, Report

    reported = replace(ErrorReport.of(error), code=int(error.exit_code) if code is None else code)
    for line in text.all_error_lines([reported]):
        print(line, file=sys.stderr)
    if as_json:
        print(json.report_line(Report(exit_code=reported.code, errors=(reported,))))
    return reported.code
