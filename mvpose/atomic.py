"""Write files whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mvpose.errors import WorkspaceError


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
        handle, name = tempfile.mkstemp(prefix=".partial-", suffix=f"-{path.name}", dir=path.parent)
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


def is_text(name: object) -> bool:
    """Tell whether a file name can stand in a text: Linux's may be any bytes, and Python reads them as surrogates."""
    return str(name).encode(errors="replace").decode() == str(name)


def _cannot_write(path: Path, error: OSError) -> WorkspaceError:
    return WorkspaceError(f"{path} cannot be written: {error.strerror or error}; free space or choose another --out")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
