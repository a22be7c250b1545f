"""Write files whole or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mvpose.errors import WorkspaceError

_PARTIAL = ".partial-"


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; it takes the final name only when the block ends well.

    The temporary name ends like the final one, for writers that go by the suffix.

    Raises:
        WorkspaceError: The folder cannot be written, or the disk is full; nothing is left behind.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=_PARTIAL, suffix=f"-{path.name}", dir=path.parent)
    except OSError as error:
        raise _cannot_write(path, error) from error
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        # mkstemp keeps files private to the user; results are as readable as any other file.
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    except OSError as error:
        raise _cannot_write(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def staging_folder(root: Path) -> Iterator[Path]:
    """Yield a folder inside ``root`` for files that are to take their places together; it is gone after the block.

    Raises:
        WorkspaceError: The folder cannot be written, or the disk is full.
    """
    try:
        folder = Path(tempfile.mkdtemp(prefix=_PARTIAL, dir=root))
    except OSError as error:
        raise _cannot_write(root, error) from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def replace_file(source: Path, target: Path) -> None:
    """Put a whole file into its place.

    Raises:
        WorkspaceError: A folder stands there, or it cannot be written.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        source.replace(target)
    except OSError as error:
        raise _cannot_write(target, error) from error


def remove_partials(folder: Path) -> None:
    """Remove what a killed process left half written in a folder; no other process may be writing there."""
    for path in folder.glob(f"{_PARTIAL}*"):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            with suppress(OSError):  # it is in nobody's way
                path.unlink()


def is_text(name: object) -> bool:
    """Tell whether a file name can stand in a text: Linux's may be any bytes, and Python reads them as surrogates."""
    return str(name).encode(errors="replace").decode() == str(name)


def _cannot_write(path: Path, error: OSError) -> WorkspaceError:
    # A file that is written in a staging folder is known to its user by the place that it was to have.
    final = Path(*(part for part in path.parts if not part.startswith(_PARTIAL)))
    return WorkspaceError(f"{final} cannot be written: {error.strerror or error}; free space or choose another --out")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
