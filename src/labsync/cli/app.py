"""The program: one click group, signals turned into clean stops, every failure in three lines."""

from __future__ import annotations

import gc
import os
import signal
import sys
import traceback
from typing import TYPE_CHECKING, NoReturn

import click
from click.shell_completion import shell_complete

from labsync import __version__
from labsync.cli import commands
from labsync.errors import InterruptedRunError, LabsyncError, UsageError

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
    # A plan of a million files is a million objects and not one cycle; looking for cycles among them
    # again and again took a fifth of its time.
    gc.set_threshold(100_000, 50, 100)
    stopper = _Stopper()
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(signum) != signal.SIG_IGN:  # `nohup` and shells' background jobs ignore some
            signal.signal(signum, stopper)
    sys.exit(run(sys.argv[1:]))


class _Stopper:
    """A handler of signals: the first asks for a clean stop, a second one ends the process at once.

    A clean stop may have to wait for a connection that stalls; ending at once harms nothing, for
    every file is whole at every instant.
    """

    def __init__(self) -> None:
        self._asked = False

    def __call__(self, signum: int, frame: FrameType | None) -> NoReturn:  # noqa: ARG002  a handler's signature
        if self._asked:
            os._exit(128 + signum)
        self._asked = True
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
    from labsync.secrets import redact

    sys.stderr.write(redact(traceback.format_exc()))
    shown = LabsyncError(
        f"labsync has a bug: {type(error).__name__}: {error}",
        safe="published files are whole; run the same command again",
        hint="please report it with the lines above",
    )
    return _report(shown, as_json=as_json)


def _report(error: LabsyncError, *, as_json: bool, code: int | None = None) -> int:
    from dataclasses import replace

    from labsync.render import json, text
    from labsync.render.output import put
    from labsync.report import ErrorReport, Report

    reported = replace(ErrorReport.of(error), code=int(error.exit_code) if code is None else code)
    put(sys.stderr, text.all_error_lines([reported]))
    if as_json:
        put(sys.stdout, [json.report_line(Report(exit_code=reported.code, errors=(reported,)))])
    return reported.code
