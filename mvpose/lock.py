"""One process at a time in a folder."""

from __future__ import annotations

import errno
import json
import logging
import os
import platform
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout

from mvpose.errors import WorkspaceError

log = logging.getLogger(__name__)

_LOCK = ".lock"
_HOLDER = ".lock.json"  # Windows lets nobody read the locked file itself


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep every other process out of a folder, as long as the block runs.

    The operating system gives up the lock of a process that dies, however it dies, so nobody has to decide whether an
    old one still counts.

    Raises:
        WorkspaceError: Another process holds it, or the folder cannot be written.
    """
    lock = FileLock(folder / _LOCK, thread_local=False)
    try:
        # Not at once: whoever is just leaving holds a file for a moment that has lost its name.
        lock.acquire(timeout=0.2, poll_interval=0.05)
    except Timeout as error:
        raise WorkspaceError(
            f"{folder} is in use by {_holder(folder)}; wait until that has ended, or choose another --out"
        ) from error
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP):
            raise WorkspaceError(
                f"{folder} cannot be written: {error.strerror or error}; choose another --out"
            ) from error
        log.warning("%s is on a file system without locks; run one command at a time there", folder)
    try:
        _introduce(folder)
        yield
    finally:
        for name in (_HOLDER, _LOCK):
            with suppress(OSError):  # Windows removes no open file
                (folder / name).unlink(missing_ok=True)
        lock.release()


def _introduce(folder: Path) -> None:
    """Write down who holds the lock; it holds without, too."""
    holder = {
        "pid": os.getpid(),
        "host": platform.node(),
        "since": datetime.now().astimezone().isoformat(" ", "seconds"),
        "command": shlex.join(sys.orig_argv),
    }
    with suppress(OSError):
        (folder / _HOLDER).write_text(json.dumps(holder), encoding="utf-8", errors="replace")


def _holder(folder: Path) -> str:
    try:
        told = json.loads((folder / _HOLDER).read_text(encoding="utf-8"))
        return f"process {told['pid']} on {told['host']} since {told['since']} ({told['command']})"
    except (OSError, ValueError, TypeError, KeyError):
        return "another process"
