"""The output folder: the only place that knows the names of its files, and which of them are still current.

``run.json`` keeps, for every finished stage, a digest of all that went into it. A stage whose digest is unchanged and
whose files are there is not run again; that is how an interrupted run goes on where it stopped.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mvpose import __version__
from mvpose.atomic import atomic_path
from mvpose.errors import FormatError, WorkspaceError
from mvpose.formats.results import read_json, write_json

log = logging.getLogger(__name__)

RUN_FORMAT = "mvpose.run/1"
_SAMPLE_BYTES = 1 << 20


@dataclass
class Workspace:
    """The results of one session.

    Attributes:
        root: The folder.
        force: Whether every stage runs anew.
        stages: What is known of each finished stage: its digest, its files, its seconds.
        warnings: What the user was told, in order.
        options: The command's options, for the record.
    """

    root: Path
    force: bool = False
    stages: dict[str, dict[str, Any]] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    options: dict[str, Any] = field(default_factory=dict)

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
        """Tell whether a stage has been run on just these inputs and its files are all there."""
        known = self.stages.get(stage, {})
        files = [self.root / name for name in known.get("files", ())]
        return not self.force and known.get("digest") == digest and all(f.is_file() for f in files)

    def finish(self, stage: str, digest: str, files: Iterable[Path], seconds: float, **facts: Any) -> None:
        """Remember a stage as done, with whatever facts about it belong on record."""
        self.stages[stage] = {
            "digest": digest,
            "files": [str(f.relative_to(self.root)) for f in files],
            "seconds": round(seconds, 3),
            **facts,
        }
        self.save()

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


def open_workspace(root: Path, *, force: bool = False, options: Mapping[str, Any] | None = None) -> Workspace:
    """Make or reopen the output folder.

    Raises:
        WorkspaceError: It cannot be written, or a file stands in its place.
    """
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WorkspaceError(
            f"the output folder {root} cannot be made: {error.strerror or error}; choose --out"
        ) from error
    with atomic_path(root / "run.json") as probe:
        # Finding out now that the folder is read-only beats finding out after an hour of detection.
        previous = root / "run.json"
        probe.write_bytes(previous.read_bytes() if previous.is_file() else b'{"format": "mvpose.run/1"}')
    try:
        stages = read_json(root / "run.json", RUN_FORMAT).get("stages", {})
    except FormatError as error:
        log.warning("the record of earlier runs is not usable, every stage runs again: %s", error)
        stages = {}
    return Workspace(root, force, stages if isinstance(stages, dict) else {}, options=dict(options or {}))


def recorded_calib(workspace: Workspace) -> Path:
    """Return the calibration that the last run used.

    Raises:
        WorkspaceError: The record does not name one, or it is gone.
    """
    try:
        calib = read_json(workspace.run, RUN_FORMAT).get("options", {}).get("calib")
    except FormatError:
        calib = None
    if not calib or not Path(calib).exists():
        raise WorkspaceError(f"{workspace.run} does not name a calibration that is still there; give --calib")
    return Path(calib)


def file_digest(path: Path) -> str:
    """Return a digest of a file or folder: of all its content, or of its size and three samples where it is large."""
    path = Path(path)
    digest = hashlib.blake2b(digest_size=16)
    if path.is_dir():
        for child in sorted(path.iterdir()):
            if child.is_file():
                digest.update(f"{child.name} {file_digest(child)}\n".encode())
        return digest.hexdigest()
    size = path.stat().st_size
    digest.update(f"{size}".encode())
    with path.open("rb") as file:
        if size <= 3 * _SAMPLE_BYTES:
            digest.update(file.read())
        else:
            for start in (0, (size - _SAMPLE_BYTES) // 2, size - _SAMPLE_BYTES):
                file.seek(start)
                digest.update(file.read(_SAMPLE_BYTES))
    return digest.hexdigest()


def digest_of(*parts: object) -> str:
    """Return a digest of plain values; what a stage's inputs amount to."""
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.blake2b(f"{__version__} {text}".encode(), digest_size=16).hexdigest()
