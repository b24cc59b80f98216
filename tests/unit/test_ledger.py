"""A device that is full or read-only is known to everybody, and taken for no other one."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest

from labsync.errors import DiskError
from labsync.transfer.ledger import Ledger

if TYPE_CHECKING:
    from collections.abc import Callable

DISK, MIRROR = 1, 2


def _read_only() -> DiskError:
    error = DiskError("the file system is read-only")
    error.__cause__ = OSError(errno.EROFS, os.strerror(errno.EROFS))
    return error


def test_what_a_device_refused_once_is_not_tried_again() -> None:
    ledger = Ledger()
    with pytest.raises(DiskError), ledger.room(DISK):
        raise _read_only()
    with pytest.raises(DiskError, match="read-only"), ledger.room(DISK):
        pytest.fail("nobody begins there")


def test_two_who_find_the_inner_one_so_at_once_do_not_blame_the_outer_one() -> None:
    ledger = Ledger()

    def write(meanwhile: Callable[[], None]) -> None:
        with pytest.raises(DiskError), ledger.room(DISK), ledger.room(MIRROR):
            _fail_after(meanwhile)

    write(lambda: write(lambda: None))
    with ledger.room(DISK):
        pass
    with pytest.raises(DiskError), ledger.room(MIRROR):
        pytest.fail("nobody begins there")


def _fail_after(meanwhile: Callable[[], None]) -> None:
    meanwhile()
    raise _read_only()
