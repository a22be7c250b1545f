"""The first thing a newcomer runs: real recordings cut apart in time, repaired, and set beside the truth.

The recordings are the two that lie in the ``pose2sim`` wheel (BSD-3-Clause): four calibrated cameras, 60 fps, 1.7 s,
one person and two. Their cameras are believed to be synchronised; the cut is what is known.
"""

from __future__ import annotations

import importlib.util
import logging
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from mvpose import pipeline
from mvpose.calib.files import write_rig
from mvpose.clock import Clock, Clocks, identity_clock
from mvpose.compare import Truth, compare
from mvpose.errors import MissingDependencyError
from mvpose.formats.keypoints2d import write_keypoints
from mvpose.formats.results import write_clocks, write_poses
from mvpose.pipeline import Progress, Settings
from mvpose.synthetic.motion import generate_motion
from mvpose.synthetic.noise import DetectorNoise
from mvpose.synthetic.rigs import ring_rig
from mvpose.synthetic.world import World, make_world, observe
from mvpose.video import probe, write_video_times
from mvpose.workspace import open_workspace

log = logging.getLogger(__name__)

PACKAGE = "pose2sim==0.10.49"
RECORDINGS = {"single": "Demo_SinglePerson", "two": "Demo_MultiPerson"}

EVERY = 2
"""Every other frame is left out, which makes 30 fps of 60 and half-frame offsets of odd cuts."""
FIRST_FRAMES = {"cam01": 0, "cam02": 13, "cam03": 24, "cam04": 35}
"""The frame of 60 fps at which each camera starts: 0, 6.5, 12 and 17.5 frames of 30 fps apart."""


@dataclass(frozen=True)
class DemoResult:
    """One recording of the demo.

    Attributes:
        name: Its folder.
        what: What was done to it.
        clocks: The clocks that were found.
        truth: The clocks by the known cut.
        metrics: The metrics of raw, synced and truth.
        report: The report's place.
        warnings: What was left out.
    """

    name: str
    what: str
    clocks: Clocks
    truth: Clocks
    metrics: Mapping[str, Mapping[str, Any]]
    report: Path
    warnings: tuple[str, ...]


def run_demo(
    folder: Path, progress: Progress, warnings: list[str], *, detector: str = "auto", jobs: int = 1
) -> list[DemoResult]:
    """Cut both recordings apart, reconstruct them, and compare with the known cut.

    Args:
        folder: Where to put everything.
        progress: Told how far each stage is.
        warnings: The list that log warnings are gathered in; emptied before each recording.
        detector: The 2D pose engine.
        jobs: Cameras detected at the same time.

    Raises:
        MissingDependencyError: The recordings are not here and cannot be downloaded.
    """
    source = fetch_recordings(folder / "recordings")
    results = []
    for name, recording in RECORDINGS.items():
        session = folder / name
        cut_apart(source / recording / "videos", session / "videos", FIRST_FRAMES, EVERY)
        truth = cut_clocks(FIRST_FRAMES, 60.0)
        write_clocks(truth, session / "truth_clocks.json")
        calib = source / recording / "calibration" / "Calib.qca.txt"
        settings = Settings(calib=calib, detector=detector, jobs=jobs, reference="cam01")
        what = "real video, cut apart by " + ", ".join(f"{f / 60:.3f} s" for f in FIRST_FRAMES.values())
        results.append(_repair(session, settings, Truth(clocks=truth), what, progress, warnings))
    return results


def run_synthetic_demo(folder: Path, progress: Progress, warnings: list[str]) -> list[DemoResult]:
    """Do the same on a generated world: two people, four cameras of different rates, offsets and drifts."""
    rng = np.random.default_rng(7)
    world = make_world(
        rng,
        generate_motion(rng, 60.0, people=2),
        ring_rig(4, rng=rng),
        fps=(30.0, 30.0, 25.0, 60.0),
        max_offset_s=15.0,
        max_drift_ppm=100.0,
    )
    session = folder / "synthetic"
    truth = write_session(world, rng, session, DetectorNoise())
    settings = Settings(calib=session / "calib.json", reference="cam01")
    what = "generated: 2 people, 30, 30, 25 and 60 fps, offsets up to 15 s, drift up to 100 ppm"
    return [_repair(session, settings, truth, what, progress, warnings)]


def write_session(world: World, rng: np.random.Generator, session: Path, noise: DetectorNoise | None) -> Truth:
    """Write a generated world as a session folder with its calibration and its truth beside it; return the truth."""
    for name, keypoints in observe(world, rng, noise, tracked=False).items():
        write_keypoints(keypoints, session / "keypoints" / f"{name}.npz")
    write_rig(world.rig, session / "calib.json")
    reference = world.rig.names[0]
    clocks = world.true_clocks(reference)
    span = clocks[reference].to_session(world.frame_times_s[reference][[0, -1]])
    poses = world.truth_poses(np.arange(span[0], span[1], 1 / 30), reference)
    write_clocks(clocks, session / "truth_clocks.json")
    write_poses(poses, session / "truth_poses3d.npz")
    return Truth(clocks, poses)


def _repair(
    session: Path, settings: Settings, truth: Truth, what: str, progress: Progress, warnings: list[str]
) -> DemoResult:
    warnings.clear()
    recording = pipeline.open_recording(session, settings)
    with open_workspace(session / "mvpose", options={"calib": settings.calib}, warnings=warnings) as workspace:
        keypoints = pipeline.detect(recording, workspace, progress)
        made = pipeline.reconstruct(recording, keypoints, workspace, progress)
        pipeline.export(made.poses, workspace)
        metrics = compare(recording, keypoints, made.offsets, made.clocks, workspace, truth, progress)
    assert truth.clocks is not None
    return DemoResult(session.name, what, made.clocks, truth.clocks, metrics, workspace.report, tuple(warnings))


def cut_apart(source: Path, target: Path, first: Mapping[str, int], every: int) -> None:
    """Cut each camera's video: start at its own first frame, keep every ``every``-th; times start anew at 0."""
    for camera, start in first.items():
        path = target / f"{camera}.mp4"
        if not path.is_file():
            video = probe(camera, (source / f"{camera}.mp4",))
            write_video_times(path, islice(video.frames(start), 0, None, every), kept_times(video.time_s, start, every))


def kept_times(time_s: np.ndarray, start: int, every: int) -> np.ndarray:
    """Return the times of the frames that a cut keeps, from 0."""
    kept = time_s[start::every]
    return kept - kept[0]


def cut_clocks(first: Mapping[str, int], fps: float) -> Clocks:
    """Return the clocks that a cut makes, on the time of the first camera."""
    reference, *others = first
    zero = np.zeros((2, 2))
    clocks = {reference: identity_clock(reference)}
    clocks |= {name: Clock(name, (first[name] - first[reference]) / fps, 1.0, zero) for name in others}
    return Clocks(reference, clocks, components=(tuple(first),))


def fetch_recordings(folder: Path) -> Path:
    """Get the recordings out of the package registry, once; return the folder that holds them.

    Raises:
        MissingDependencyError: There is neither pip nor uv, or the registry cannot be reached.
    """
    ready = folder / "Pose2Sim"
    if all((ready / r / "calibration" / "Calib.qca.txt").is_file() for r in RECORDINGS.values()):
        return ready
    download = folder / "download"
    try:
        if not list(download.glob("*.whl")):
            log.info("fetching two recordings of four cameras (%s, BSD-3-Clause, 25 MB) into %s", PACKAGE, folder)
            _download(download)
        for wheel in download.glob("*.whl"):
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(download, [n for n in archive.namelist() if n.startswith("Pose2Sim/Demo_")])
        # Under the final name only when all of it is there.
        shutil.rmtree(ready, ignore_errors=True)
        (download / "Pose2Sim").replace(ready)
    except (OSError, zipfile.BadZipFile) as error:
        raise MissingDependencyError(f"the demo's recordings cannot be unpacked into {folder}: {error}") from error
    shutil.rmtree(download, ignore_errors=True)
    return ready


def _download(target: Path) -> None:
    """Put the wheel, or what is in it, into a folder."""
    if importlib.util.find_spec("pip") is not None:
        tool = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(target), PACKAGE]
    elif shutil.which("uv"):
        # uv installs, it cannot only download.
        tool = ["uv", "pip", "install", "--quiet", "--no-deps", "--target", str(target), PACKAGE]
    else:
        raise MissingDependencyError(
            f"the demo needs pip or uv to fetch {PACKAGE}; put its wheel into {target} and start again"
        )
    done = subprocess.run(tool, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise MissingDependencyError(
            f"the demo's recordings cannot be fetched ({lines[-1]}). Where there is a network, run "
            f"pip download --no-deps {PACKAGE} -d {target} and start again; or try mvpose demo --synthetic"
        )
