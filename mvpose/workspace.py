"""The output folder: the only place that knows the names of its files, and which of them are still current.

``run.json`` keeps, for every finished stage, a digest of all that went into it and one of every file that came out. A
stage for which all of these still hold is not run again; that is how an interrupted run goes on where it stopped. A
stage's files take their places together when all are made, and one that was killed amidst that has files on record that
are not those on disk: whatever the moment, nobody's results are taken for another run's.
"""

from __future__ import annotations

import hashlib
import json
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from mvpose import __version__
from mvpose.atomic import is_text, remove_partials, replace_file, staging_folder
from mvpose.errors import FormatError, MvposeError, WorkspaceError
from mvpose.formats.results import read_json, write_json
from mvpose.lock import locked

log = logging.getLogger(__name__)

Result = TypeVar("Result")

RUN_FORMAT = "mvpose.run/2"  # 1 listed files without their digests
_BLOCK_BYTES = 1 << 20


@dataclass(frozen=True)
class Making:
    """The files of a stage on their way.

    Attributes:
        root: The output folder.
        folder: Where they lie until all of them are whole.
        facts: What else belongs on record about the stage.
    """

    root: Path
    folder: Path
    facts: dict[str, Any] = field(default_factory=dict)

    def path(self, final: Path) -> Path:
        """Return where to write a file that is to take the place ``final`` in the output folder."""
        return self.folder / final.relative_to(self.root)


@dataclass
class Workspace:
    """The results of one session.

    Attributes:
        root: The folder.
        force: Whether every stage runs anew.
        stages: What is known of each finished stage: its digest, its files with theirs, its seconds.
        warnings: What the user was told, in order.
        options: The command's options, for the record.
    """

    root: Path
    force: bool = False
    stages: dict[str, dict[str, Any]] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    options: dict[str, Any] = field(default_factory=dict)
    _committing: threading.Lock = field(default_factory=threading.Lock, repr=False)  # cameras are detected in threads

    def keypoints2d(self, camera: str) -> Path:
        """2D keypoints of one camera."""
        return self.root / "keypoints2d" / f"{camera}.npz"

    @property
    def offsets(self) -> Path:
        """Pairwise offsets."""
        return self.root / "offsets.json"

    @property
    def clocks(self) -> Path:
        """One clock per camera."""
        return self.root / "clocks.json"

    @property
    def poses3d(self) -> Path:
        """3D poses."""
        return self.root / "poses3d.npz"

    @property
    def poses3d_raw(self) -> Path:
        """3D poses without synchronisation."""
        return self.root / "poses3d_raw.npz"

    @property
    def report(self) -> Path:
        """The comparison, for people."""
        return self.root / "report" / "index.html"

    @property
    def metrics(self) -> Path:
        """The comparison, for programs."""
        return self.root / "report" / "metrics.json"

    @property
    def run(self) -> Path:
        """Version, options, input digests, timings and warnings of the last run."""
        return self.root / "run.json"

    @property
    def exports(self) -> Path:
        """Exported motion files, without suffix."""
        return self.root / "poses3d"

    def is_current(self, stage: str, digest: str) -> bool:
        """Tell whether a stage has been run on just these inputs and its files are what it wrote then."""
        if self.force or self.stages.get(stage, {}).get("digest") != digest:
            return False
        if changed := self.changed(stage):
            log.info("%s: not as the last run left it, so made again", ", ".join(map(str, changed)))
        return not changed

    def changed(self, stage: str) -> list[Path]:
        """Return the files of a stage that are gone, or are not what it wrote."""
        return [self.root / name for name, own in self._files(stage).items() if not self._holds(name, own)]

    def _holds(self, name: str, digest: str | None) -> bool:
        path = self.root / name
        return digest is not None and path.is_file() and file_digest(path) == digest

    def _files(self, stage: str) -> dict[str, str | None]:
        return self.stages.get(stage, {}).get("files", {})

    def files(self, stage: str) -> list[Path]:
        """Return the files that a stage wrote when it was last run."""
        return [self.root / name for name in self._files(stage)]

    def facts(self, stage: str) -> dict[str, Any]:
        """Return what else is on record about a stage that was run."""
        return {k: v for k, v in self.stages.get(stage, {}).items() if k not in ("digest", "files")}

    def made_of(self, stage: str) -> dict[str, str | None]:
        """Return what stands for a finished stage's files in the digest of a later one."""
        return dict(self.stages[stage]["files"])

    def read(self, reader: Callable[[Path], Result], path: Path) -> Result:
        """Read what an earlier run wrote.

        Raises:
            WorkspaceError: It has been damaged since, or a newer version wrote it.
        """
        try:
            return reader(path)
        except FormatError as error:
            raise WorkspaceError(f"{str(error).rstrip('.')}; --force makes it anew") from error

    @contextmanager
    def making(self, stage: str, digest: str, **facts: Any) -> Iterator[Making]:
        """Run a stage: the block computes and writes, and when it ends well its files replace those of the last run.

        Whoever is killed before that has changed nothing. From then on, files and record differ until the last file is
        in place and the record is written, so that the stage is run again.

        Args:
            stage: Its name.
            digest: What its inputs amount to.
            facts: What else belongs on record; the block may add to it.

        Raises:
            WorkspaceError: A file cannot be written.
        """
        start = time.perf_counter()
        with staging_folder(self.root) as folder:
            made = Making(self.root, folder, dict(facts))
            yield made
            with self._committing:
                files = self._put_in_place(stage, folder)
                seconds = round(time.perf_counter() - start, 3)
                self.stages[stage] = {"digest": digest, "files": files, "seconds": seconds, **made.facts}
                self.save()

    def _put_in_place(self, stage: str, folder: Path) -> dict[str, str]:
        """Replace a stage's files by those of a folder; return their names and digests."""
        files = {p.relative_to(folder).as_posix(): file_digest(p) for p in sorted(folder.rglob("*")) if p.is_file()}
        before = self._files(stage)
        if not files.keys() <= before.keys():
            # Files of new names go on record first: whatever a kill leaves of them is removed by the next run.
            self.stages[stage] = {**self.stages.get(stage, {}), "files": {**dict.fromkeys(files), **before}}
            self.save()
        for name in files:
            replace_file(folder / name, self.root / name)
        self._remove(before.keys() - files.keys())
        return files

    def _remove(self, names: Iterable[str]) -> None:
        for path in (self.root / name for name in names):
            if path.resolve().is_relative_to(self.root.resolve()):  # run.json may have come from anywhere
                path.unlink(missing_ok=True)

    def forget(self, stage: str) -> None:
        """Remove what a stage made, if it ran."""
        self._remove(self._files(stage))
        self.stages.pop(stage, None)

    def save(self) -> None:
        """Write run.json."""
        write_json(
            {
                "format": RUN_FORMAT,
                "version": __version__,
                "options": self.options,
                "stages": self.stages,
                "warnings": self.warnings,
            },
            self.run,
        )


@contextmanager
def open_workspace(
    root: Path,
    *,
    force: bool = False,
    options: Mapping[str, Any] | None = None,
    warnings: list[str] | None = None,
) -> Iterator[Workspace]:
    """Make or reopen the output folder, and keep other processes out of it until the block ends.

    What a killed run left half written is removed; ``run.json`` is written at the beginning and, whether the block ends
    well or not, at the end.

    Args:
        root: The folder.
        force: Whether every stage runs anew.
        options: The command's options, for the record.
        warnings: The list that what the user is told is gathered in, for the record.

    Raises:
        WorkspaceError: It cannot be written, a file stands in its place, another process is at work there, or its
            ``run.json`` cannot be read, for instance because a newer version wrote it, and ``force`` is not set.
    """
    if not is_text(root):  # C3D's writer, for one, could not open a file in it
        raise WorkspaceError(f"the output folder's name {str(root)!a} is not UTF-8; choose another --out")
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WorkspaceError(
            f"the output folder {root} cannot be made: {error.strerror or error}; choose --out"
        ) from error
    with locked(root):
        workspace = Workspace(root, force, warnings=[] if warnings is None else warnings, options=dict(options or {}))
        for folder in (root, workspace.report.parent, workspace.keypoints2d("").parent):
            remove_partials(folder)
        try:
            workspace.stages = _recorded_stages(workspace.run)
        except FormatError as error:
            if not force:
                raise WorkspaceError(f"{error}; choose another --out, or do everything anew with --force") from error
        # Finding out now that the folder is read-only beats finding out after an hour of detection.
        workspace.save()
        try:
            yield workspace
        except BaseException:
            with suppress(MvposeError):  # what failed first is what the user must hear of
                workspace.save()
            raise
        workspace.save()


def _recorded_stages(run: Path) -> dict[str, dict[str, Any]]:
    if not run.exists():
        return {}
    stages = read_json(run, RUN_FORMAT).get("stages", {})
    if not isinstance(stages, dict) or not all(_is_record(stage) for stage in stages.values()):
        raise FormatError(f"{run} does not hold the record of a run")
    return {name: {**stage, "files": _with_digests(stage.get("files", {}))} for name, stage in stages.items()}


def _is_record(stage: object) -> bool:
    if not isinstance(stage, dict) or not isinstance(stage.get("files", {}), dict | list):
        return False
    return all(isinstance(name, str) for name in stage.get("files", {}))


def _with_digests(files: dict[str, str | None] | list[str]) -> dict[str, str | None]:
    return files if isinstance(files, dict) else dict.fromkeys(files)


def read_workspace(root: Path) -> Workspace:
    """Return an output folder as its last run recorded it, for who only reads; without stages where that cannot be."""
    workspace = Workspace(root)
    with suppress(FormatError):
        workspace.stages = _recorded_stages(workspace.run)
    return workspace


def recorded_calib(workspace: Workspace) -> tuple[Path, Any]:
    """Return the calibration that the reconstruction was made with, and the unit that was given for it.

    Raises:
        WorkspaceError: The record does not name one, or it is gone.
    """
    facts = workspace.facts("reconstruct")
    calib = facts.get("calib")
    if not isinstance(calib, str) or not Path(calib).exists():
        raise WorkspaceError(f"{workspace.run} does not name a calibration that is still there; give --calib")
    return Path(calib), facts.get("units")


def file_digest(path: Path) -> str:
    """Return a digest of all that a file holds, or of the files of a folder and their names."""
    path = Path(path)
    digest = hashlib.blake2b(digest_size=16)
    if path.is_dir():
        for child in sorted(path.iterdir()):
            if child.is_file():
                digest.update(f"{child.name} {file_digest(child)}\n".encode(errors="surrogateescape"))
        return digest.hexdigest()
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def video_digest(path: Path) -> str:
    """Return a digest of a video's size, first, middle and last megabyte.

    Hours of video take minutes to read. Encoding anything anew moves every byte that follows it and nearly always
    changes the size, so only bytes that are changed in place go unnoticed.
    """
    path = Path(path)
    size = path.stat().st_size
    if size <= 3 * _BLOCK_BYTES:
        return file_digest(path)
    digest = hashlib.blake2b(f"{size}".encode(), digest_size=16)
    with path.open("rb") as file:
        for start in (0, (size - _BLOCK_BYTES) // 2, size - _BLOCK_BYTES):
            file.seek(start)
            digest.update(file.read(_BLOCK_BYTES))
    return digest.hexdigest()


def array_digest(array: np.ndarray) -> str:
    """Return a digest of an array's values."""
    return hashlib.blake2b(np.ascontiguousarray(array).tobytes(), digest_size=16).hexdigest()


def value_digest(*parts: object) -> str:
    """Return a digest of plain values."""
    return hashlib.blake2b(json.dumps(parts, sort_keys=True, default=str).encode(), digest_size=16).hexdigest()


def digest_of(*parts: object) -> str:
    """Return a digest of what a stage's inputs amount to: plain values, and the code that makes something of them."""
    return value_digest(__version__, *parts)
