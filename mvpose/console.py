"""How every command talks: results on stdout, progress and warnings on stderr; and what several commands are asked.

Nothing heavy is imported here, so that ``--help`` answers at once.
"""

from __future__ import annotations

import json
import logging
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

PATH = click.Path(path_type=Path)

_ERASE_LINE = "\r\x1b[K"


class Progress:
    """Progress on stderr: one line that is rewritten on a terminal, a line for every tenth elsewhere.

    Cameras that are detected at the same time report from threads of their own.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._first: dict[str, tuple[float, int]] = {}
        self._tenths: dict[str, int] = {}
        self._running: dict[str, str] = {}

    def __call__(self, what: str, done: int, total: int) -> None:
        """Show that ``done`` of ``total`` is done."""
        with self._lock:
            if sys.stderr.isatty():
                self._rewrite(what, done, total)
            elif (tenth := 10 * done // max(total, 1)) != self._tenths.get(what, 0):
                self._tenths[what] = tenth
                sys.stderr.write(f"{what}: {done}/{total}\n")
            if done >= total:
                for known in (self._first, self._tenths, self._running):
                    known.pop(what, None)
            sys.stderr.flush()

    def _rewrite(self, what: str, done: int, total: int) -> None:
        if done >= total:
            sys.stderr.write(f"{_ERASE_LINE}{what}: {done}/{total}\n")
            return
        now = time.monotonic()
        then, done_then = self._first.setdefault(what, (now, done))
        left = f", about {(now - then) * (total - done) / (done - done_then):.0f} s left" if done > done_then else ""
        self._running[what] = f"{what}: {done}/{total}{left}"
        width = shutil.get_terminal_size().columns - 1
        sys.stderr.write(f"{_ERASE_LINE}{' · '.join(self._running.values())[:width]}")

    def break_line(self) -> None:
        """End a line that would have been rewritten, so that another message can follow."""
        with self._lock:
            if self._running and sys.stderr.isatty():
                sys.stderr.write("\n")
                self._running.clear()


class _Messages(logging.Handler):
    """Shows what the library has to say on stderr, once, and keeps the warnings for run.json and the report."""

    def __init__(self, progress: Progress) -> None:
        super().__init__(logging.INFO)
        self.progress = progress
        self.warnings: list[str] = []
        self._told: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        message = one_line(record.getMessage())
        if record.levelno >= logging.WARNING:
            if message in self.warnings:
                return
            self.warnings.append(message)
            message = f"warning: {message}"
        elif message in self._told:
            return
        self._told.add(message)
        self.progress.break_line()
        click.echo(message, err=True)


def one_line(message: object) -> str:
    """Return a message on one line, whatever a broken file's own words brought into it."""
    return " ".join(str(message).split())


@contextmanager
def gathered_messages() -> Iterator[tuple[Progress, list[str]]]:
    """Show what the library logs for as long as the block runs; yields the progress and the list of warnings."""
    progress = Progress()
    handler = _Messages(progress)
    logger = logging.getLogger("mvpose")
    level, propagate = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield progress, handler.warnings
    finally:
        progress.break_line()
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = propagate


class InOrder(click.Group):
    """Lists its commands in the order in which they are written here: the main one first."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names as they were added."""
        return list(self.commands)


def print_json(value: dict[str, Any]) -> None:
    """Print one machine-readable object on stdout."""
    from mvpose.formats.results import plain

    click.echo(json.dumps(plain(value), indent=1, ensure_ascii=False))


def motion_option(holds: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return the option for a folder of motion, of which the words say what it holds."""
    return click.option(
        "--data",
        type=PATH,
        envvar="MVPOSE_MOTION",
        default=Path("data/cmu_motion"),
        show_default=True,
        show_envvar=True,
        help=f"Folder of motion: {holds}",
    )


json_option = click.option("--json", "as_json", is_flag=True, help="Print one machine-readable object.")
polish_option = click.option("--no-polish", is_flag=True, help="Leave joints as VoxelPose has them.")
