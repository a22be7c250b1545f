"""Generated recordings through the whole chain: clock errors and z-scores, MPJPE raw, synchronised, with true clocks.

Run ``mvpose bench generated``. Seeds below 100 are for reporting; constants were chosen on others.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

from mvpose.clock import Clocks, unsynchronised_clocks
from mvpose.detect.tracks import track_people
from mvpose.keypoints import Keypoints2D
from mvpose.pipeline import Built, Settings, build_poses, rebuild_poses
from mvpose.recon.metrics import clock_errors, mpjpe
from mvpose.sync.synchronise import synchronise_cameras
from mvpose.synthetic.motion import crossing_motion, generate_motion
from mvpose.synthetic.noise import DetectorNoise
from mvpose.synthetic.rigs import ring_rig
from mvpose.synthetic.world import World, make_world, observe

T = TypeVar("T")
POSE_FPS = 30.0


@dataclass
class Timings:
    """Seconds spent in each stage."""

    seconds: dict[str, float] = field(default_factory=dict)

    def of(self, stage: str, call: Callable[[], T]) -> T:
        """Run a call, and add the time that it took to a stage."""
        start = time.perf_counter()
        result = call()
        self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - start
        return result


@dataclass(frozen=True)
class Row:
    """What came out of one recording; errors in ms at the middle of each camera's recording."""

    clock_error_ms: tuple[float, ...]
    z: tuple[float, ...]
    unsynchronised: int
    mpjpe_mm: dict[str, float]
    switches: int
    seconds: dict[str, float]
    frames: int


def run_recording(world: World, rng: np.random.Generator, noise: DetectorNoise, raw: bool) -> Row:
    """Observe a world without giving identities away, and take the keypoints through the chain."""
    timings = Timings()
    seen = observe(world, rng, noise, tracked=False)
    keypoints = timings.of("2D tracks", lambda: {name: track_people(k) for name, k in seen.items()})
    cameras = {camera.name: camera for camera in world.rig}
    reference = world.rig.names[0]
    _, clocks = timings.of("clocks", lambda: synchronise_cameras(keypoints, cameras, reference=reference))
    middle = {name: float(k.time_s[[0, -1]].mean()) for name, k in keypoints.items()}
    truth = world.true_clocks(clocks.reference)
    errors = clock_errors(clocks, truth, middle)["cameras"].values()
    settings = Settings(fps=POSE_FPS)
    built = timings.of("3D", lambda: build_poses(keypoints, world.rig, clocks, settings))
    figures = mpjpe_by_clocks(world, keypoints, (built, clocks), settings, raw=raw)
    return Row(
        tuple(e["error_ms"] for e in errors),
        tuple(e["z"] for e in errors),
        len(clocks.unsynchronised),
        {name: f["mpjpe_mm"] for name, f in figures.items()},
        int(figures["synced"]["id_switches"]),
        timings.seconds,
        sum(k.n_frames for k in keypoints.values()),
    )


def mpjpe_by_clocks(
    world: World, keypoints: Mapping[str, Keypoints2D], synced: tuple[Built, Clocks], settings: Settings, *, raw: bool
) -> dict[str, dict[str, float]]:
    """Compare what was built by some clocks with the truth, and the same people under true clocks and under none.

    Args:
        world: The truth.
        keypoints: Each camera's keypoints.
        synced: What was built, and with which clocks.
        settings: How it was built.
        raw: Whether to try each camera's own times as well.

    Returns:
        What ``mpjpe`` gives for ``synced``, ``perfect`` and ``raw``.
    """
    built, clocks = synced
    others = {"perfect": world.true_clocks(clocks.reference)}
    if raw:
        others["raw"] = unsynchronised_clocks(world.rig.names)
    poses = {"synced": built.poses}
    for name, own in others.items():
        poses[name] = rebuild_poses(keypoints, world.rig, synced, own, settings).poses
    return {name: mpjpe(own, world.truth_poses(own.time_s, clocks.reference)) for name, own in poses.items()}


@dataclass(frozen=True)
class Session:
    """What is recorded.

    Attributes:
        duration_s: Length of the session.
        max_offset_s: How far apart cameras start.
        drift_ppm: Clock rates are uniform in 1 ± this.
        fps: Frame rates; one camera each.
        people: How many.
        crossing: Whether two people cross twice a minute, in place of these.
        noise: Factor on the measured detector noise.
    """

    duration_s: float = 300.0
    max_offset_s: float = 120.0
    drift_ppm: float = 100.0
    fps: tuple[float, ...] = (30.0, 30.0, 25.0, 60.0)
    people: int = 1
    crossing: bool = False
    noise: float = 1.0


def run_seed(session: Session, seed: int, *, raw: bool) -> Row:
    """Make one recording of a session and take it through the chain.

    Args:
        session: What is recorded.
        seed: Of motion, cameras, clocks and noise.
        raw: Whether to reconstruct by each camera's own times as well.
    """
    rng = np.random.default_rng(seed)
    if session.crossing:
        motion = crossing_motion(rng, session.duration_s)
    else:
        motion = generate_motion(rng, session.duration_s, people=session.people)
    world = make_world(
        rng,
        motion,
        ring_rig(len(session.fps), rng=rng),
        fps=session.fps,
        max_offset_s=session.max_offset_s,
        max_drift_ppm=session.drift_ppm,
        duration_s=session.duration_s,
    )
    return run_recording(world, rng, DetectorNoise(scale=session.noise), raw)


def format_row(row: Row) -> str:
    """Return what came of one recording, in a line."""
    errors = " ".join(f"{e:+.2f}" for e in row.clock_error_ms)
    poses = ", ".join(f"{name} {value:.1f}" for name, value in sorted(row.mpjpe_mm.items()))
    return f"clocks {errors} ms; MPJPE {poses} mm; {row.switches} identity switches; {row.unsynchronised} without clock"


def format_summary(rows: Sequence[Row]) -> str:
    """Return what came of all of them, and what it took."""
    error = np.abs(np.concatenate([row.clock_error_ms for row in rows]))
    z = np.concatenate([row.z for row in rows])
    lines = [
        f"clock error: median {np.median(error):.2f} ms, p90 {np.percentile(error, 90):.2f} ms, "
        f"max {error.max():.2f} ms ({len(error)} clocks, {sum(r.unsynchronised for r in rows)} cameras without)",
        f"z-score: RMS {np.sqrt(np.mean(z**2)):.2f}, max |z| {np.abs(z).max():.2f}, {(np.abs(z) > 3).sum()} beyond 3",
        f"identity switches: {sum(r.switches for r in rows)}",
    ]
    for name in ("raw", "synced", "perfect"):
        values = [r.mpjpe_mm[name] for r in rows if name in r.mpjpe_mm]
        if values:
            lines.append(f"MPJPE {name}: mean {np.mean(values):.1f} mm")
    frames = sum(r.frames for r in rows)
    for stage in rows[0].seconds:
        lines.append(f"time of {stage}: {1000 * sum(r.seconds[stage] for r in rows) / frames:.2f} s per 1,000 frames")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform == "linux" else 1024**2)
    lines.append(f"peak memory: {peak:.0f} MB")
    return "\n".join(lines)
