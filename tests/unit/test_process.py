"""Children: found or named, fed, bounded, and ended with all of their own children."""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import TYPE_CHECKING

import pytest

from labsync import process
from labsync.errors import NotFoundError, UnavailableError

if TYPE_CHECKING:
    from pathlib import Path


def _python(code: str, *args: str) -> list[str]:
    return [sys.executable, "-c", code, *args]


def test_output_and_code() -> None:
    ended = process.run(_python("import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)"))
    assert (ended.returncode, ended.stdout, ended.error_text, ended.timed_out) == (3, b"out\n", "err", False)


def test_the_end_of_a_long_error_is_kept() -> None:
    ended = process.run(_python(r"import sys; sys.stderr.buffer.write(b'x' * 3000 + b'\xffend')"))
    assert len(ended.error_text) == 2000
    assert ended.error_text.endswith("�end")


def test_stdin_is_empty_unless_given() -> None:
    echo = _python("import sys; sys.stdout.write(sys.stdin.read())")
    assert process.run(echo).stdout == b""
    assert process.run(echo, stdin=b"fed").stdout == b"fed"


def test_the_environment_and_the_folder_are_the_given_ones(tmp_path: Path) -> None:
    code = "import os; print(os.getcwd(), sorted(k for k in os.environ if k.startswith('MY_')))"
    ended = process.run(_python(code), cwd=tmp_path, env={"MY_OWN": "1"})
    assert ended.stdout.decode().split() == [str(tmp_path), "['MY_OWN']"]


def test_a_missing_program_is_named() -> None:
    with pytest.raises(NotFoundError, match="`no-such-program` was not found") as caught:
        process.run(["no-such-program", "--version"])
    assert caught.value.hint == "install `no-such-program`"


@pytest.mark.fault(12)
def test_a_child_ended_by_a_signal_says_so() -> None:
    ended = process.run(_python("import os; os.kill(os.getpid(), 9)"))
    assert ended.returncode == -signal.SIGKILL


PARENT = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(child.pid, flush=True)
time.sleep(600)
"""


DEAF = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("deaf", flush=True)
time.sleep(600)
"""
KNOCK = """
import os, pathlib, signal, sys, time
pathlib.Path(sys.argv[1]).write_text(str(os.getpid()))
os.kill(os.getppid(), signal.SIGUSR1)
time.sleep(600)
"""


def _is_gone(pid: int) -> bool:
    """Wait until the process has ended, at most some seconds."""
    for _ in range(2000):
        try:
            with open(f"/proc/{pid}/stat", encoding="utf-8") as stat:
                if stat.read().rpartition(")")[2].split()[0] == "Z":
                    return True
        except FileNotFoundError:
            return True
        time.sleep(0.005)
    return False


def test_a_limit_ends_the_whole_group() -> None:
    ended = process.run(_python(PARENT), timeout=2.0)
    assert ended.timed_out
    assert ended.returncode == -signal.SIGTERM
    assert _is_gone(int(ended.stdout))


def test_a_group_that_ignores_the_first_signal_gets_the_second(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "GRACE", 0.05)
    ended = process.run(_python(DEAF), timeout=2.0)
    assert ended.timed_out
    assert ended.stdout == b"deaf\n"
    assert ended.returncode == -signal.SIGKILL


def test_an_interruption_of_ours_ends_the_group_first(tmp_path: Path) -> None:
    note = tmp_path / "pid"

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGUSR1, interrupt)
    try:
        with pytest.raises(KeyboardInterrupt):
            process.run(_python(KNOCK, str(note)))
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert _is_gone(int(note.read_text()))


def test_the_child_is_out_of_reach_of_the_terminals_ctrl_c() -> None:
    ended = process.run(_python("import os; print(os.getsid(0))"))
    assert int(ended.stdout) != os.getsid(0)


ECHO = """
import sys
for line in sys.stdin.buffer:
    if line == b"die\\n":
        sys.exit("I die")
    if line == b"much\\n":
        sys.stdout.buffer.write(b"1000000\\n" + b"m" * 1_000_000)
    elif line != b"silence\\n":
        sys.stdout.buffer.write(b"you said " + line)
    sys.stdout.buffer.flush()
"""


def _servant(code: str = ECHO, patience: float = 20.0) -> process.Servant:
    return process.Servant(_python(code), env=os.environ, patience=patience)


def test_a_servant_stays_and_answers_again_and_again() -> None:
    servant = _servant()
    for word in (b"one", b"two"):
        servant.tell(word + b"\n")
        assert servant.line() == b"you said " + word
    servant.tell(b"much\n")
    left = int(servant.line())
    while left:
        block = servant.read(min(left, 1 << 20))
        assert set(block) == {ord("m")}
        left -= len(block)
    servant.tell(b"again\n")
    assert servant.line() == b"you said again"
    assert servant.end() == process.Completed(0, b"", b"")
    assert servant.end().returncode == 0


def test_a_servant_that_died_says_why() -> None:
    servant = _servant()
    servant.tell(b"die\n")
    assert servant.line() == b""
    assert servant.read(1) == b""
    servant.tell(b"hello\n")
    ended = servant.end()
    assert (ended.returncode, ended.error_text) == (1, "I die")


def test_a_servant_that_says_nothing_is_not_waited_for() -> None:
    servant = _servant(patience=0.05)
    servant.tell(b"silence\n")
    with pytest.raises(UnavailableError, match="has not answered"):
        servant.line()
    servant.end()


def test_a_servant_that_nobody_needs_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    servant = _servant()
    servant.tell(b"much\n")  # it hangs in its answer
    assert servant.line()
    if known := servant._last.peek():
        child = known[2][0]
    del servant, known
    assert _is_gone(child.pid)
    monkeypatch.setattr(process, "GRACE", 0.05)
    deaf = _servant(DEAF)
    assert deaf.line() == b"deaf"
    assert deaf.end().returncode == -signal.SIGKILL


def test_a_servant_that_does_not_exist_is_named() -> None:
    with pytest.raises(NotFoundError, match="`no-such-program` was not found"):
        process.Servant(["no-such-program"], env={}, patience=1.0)


def test_a_kept_descriptor_is_held_by_the_child_as_well(tmp_path: Path) -> None:
    with (tmp_path / "lock").open("w") as held:
        code = f"import os; os.fstat({held.fileno()})"
        assert process.run(_python(code), keep=[held.fileno()]).returncode == 0
        assert process.run(_python(code)).returncode == 1
        servant = process.Servant(_python(code), env=os.environ, patience=10, keep=[held.fileno()])
        assert servant.line() == b""
        assert servant.end().returncode == 0
