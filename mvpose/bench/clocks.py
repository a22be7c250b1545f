"""Generated recordings of known clocks, estimator by estimator: errors and z-scores of the clocks that they give.

Run ``mvpose bench sync --recordings``. People move as real ones do: clips of a motion pack, one after another. The
motion of its test split is for reporting; constants were chosen on val.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mvpose.calib.rig import CameraRig
from mvpose.clock import Clock
from mvpose.detect.tracks import track_people
from mvpose.errors import FormatError
from mvpose.pipeline import Progress
from mvpose.recon.metrics import clock_errors
from mvpose.sync.offsets import Method
from mvpose.sync.synchronise import synchronise_cameras
from mvpose.synthetic.motion import Motion, chain, read_motion_pack
from mvpose.synthetic.noise import DetectorNoise
from mvpose.synthetic.rigs import ring_rig
from mvpose.synthetic.world import World, make_world, observe


@dataclass(frozen=True)
class Case:
    """One kind of recording.

    Attributes:
        common_s: How long all cameras record together, seconds.
        fps: Frame rate of each camera.
        max_offset_s: How far apart they start.
        drift_ppm: Clock rates are uniform in 1 ± this.
        noise: Factor on the measured detector noise.
    """

    common_s: float
    fps: tuple[float, ...]
    max_offset_s: float = 60.0
    drift_ppm: float = 50.0
    noise: float = 1.0

    def __str__(self) -> str:
        rates = "/".join(f"{fps:g}" for fps in dict.fromkeys(self.fps))
        return f"{self.common_s:g} s at {rates} fps"


@dataclass(frozen=True)
class Estimator:
    """One row: which methods, and whether they are given the calibration."""

    title: str
    methods: tuple[Method, ...]
    calibrated: bool


ESTIMATORS = (
    Estimator("correlation of speeds", ("correlation",), False),
    Estimator("learned", ("learned",), False),
    Estimator("epipolar, calibrated", ("epipolar",), True),
    Estimator("learned rays, calibrated", ("learned",), True),
    Estimator("both, calibrated (default)", ("epipolar", "learned"), True),
)


@dataclass(frozen=True)
class Score:
    """What an estimator made of the recordings of a case.

    Attributes:
        error_ms: Errors of all clocks but the references', in the middle of each camera's recording.
        z: Those in standard deviations.
        refused: Cameras without a clock.
    """

    error_ms: np.ndarray
    z: np.ndarray
    refused: int

    def line(self) -> str:
        """Return the figures as text."""
        if not len(self.error_ms):
            return f"no clock of {self.refused}"
        error = np.abs(self.error_ms)
        return (
            f"median {np.median(error):7.1f}  p90 {np.percentile(error, 90):7.1f}  max {error.max():8.1f} ms   "
            f"z RMS {np.sqrt(np.mean(self.z**2)):5.2f}   {len(error)} clocks, {self.refused} refused"
        )


SECONDS, FPS = (5.0, 10.0, 20.0, 60.0), (10.0, 30.0, 60.0)


def compare_estimators(data: Path, seeds: Sequence[int], progress: Progress) -> dict[Case, dict[str, Score]]:
    """Return each estimator's score by its title, for all lengths and frame rates.

    Args:
        data: Folder of motion packs; people move as in its test split.
        seeds: One recording of each kind for each.
        progress: Called with (what, done, total).

    Raises:
        FormatError: There is no such pack.
    """
    packs = sorted(data.glob("*_test.npz"))
    if not packs:
        raise FormatError(f"{data} holds no motion pack *_test.npz; give its folder by --data")
    motions = read_motion_pack(packs[0])
    cases, table = grid(SECONDS, FPS), {}
    for done, case in enumerate(cases):
        scores = score(case, motions, ESTIMATORS, seeds)
        table[case] = {e.title: s for e, s in zip(ESTIMATORS, scores, strict=True)}
        progress("recordings", done + 1, len(cases))
    return table


def grid(seconds: Sequence[float], fps: Sequence[float], cameras: int = 4) -> list[Case]:
    """Return the cases of all lengths and frame rates."""
    return [Case(s, (f,) * cameras) for s, f in itertools.product(seconds, fps)]


def recordings(case: Case, motions: Mapping[str, Motion], seeds: Sequence[int]) -> Iterator[World]:
    """Make the recordings of a case, one for each seed."""
    for seed in seeds:
        rng = np.random.default_rng(seed)
        duration_s = case.common_s + 1.25 * case.max_offset_s
        motion = _long_motion(rng, motions, 2 * max(duration_s, 2 * case.max_offset_s))
        rig = ring_rig(len(case.fps), rng=rng)
        yield _overlapping(rng, motion, rig, case)


def _overlapping(rng: np.random.Generator, motion: Motion, rig: CameraRig, case: Case) -> World:
    """Let cameras start up to ``max_offset_s`` apart and record ``common_s`` together."""
    world = make_world(
        rng,
        motion,
        rig,
        fps=case.fps,
        max_offset_s=0.0,
        max_drift_ppm=case.drift_ppm,
        duration_s=case.common_s + case.max_offset_s,
    )
    late_s = rng.uniform(0, case.max_offset_s, len(case.fps))
    late_s -= late_s.min()
    last_s = late_s.max() + case.common_s
    clocks, times = {}, {}
    for name, late in zip(rig.names, late_s, strict=True):
        clock, own = world.clocks[name], world.frame_times_s[name]
        kept = own[(own >= late) & (own <= last_s)]
        times[name] = kept - kept[0]
        clocks[name] = Clock(
            name,
            float(clock.to_session(kept[0])) + rng.uniform(0, own[1]),  # or all would take their frames at once
            clock.rate,
            np.zeros((2, 2)),
            epoch_s=float(times[name][-1] / 2),
            rate_fitted=True,
        )
    return World(motion, world.rig, clocks, times)


def _long_motion(rng: np.random.Generator, motions: Mapping[str, Motion], duration_s: float) -> Motion:
    """Chain clips, in random order, until they last long enough."""
    names = [name for name, motion in motions.items() if motion.duration_s > 2.0]
    if not names:
        raise ValueError("no motion lasts 2 s or longer")
    chosen: list[Motion] = []
    while sum(m.duration_s - 0.6 for m in chosen) < duration_s:
        chosen += [motions[names[i]] for i in rng.permutation(len(names))]
        total = np.cumsum([m.duration_s - 0.6 for m in chosen])
        chosen = chosen[: int(np.searchsorted(total, duration_s)) + 1]
    return chain(chosen, rng)


def score(
    case: Case, motions: Mapping[str, Motion], estimators: Sequence[Estimator], seeds: Sequence[int]
) -> list[Score]:
    """Return every estimator's score on the same recordings."""
    errors: list[list[float]] = [[] for _ in estimators]
    z: list[list[float]] = [[] for _ in estimators]
    refused = [0] * len(estimators)
    for world, seed in zip(recordings(case, motions, seeds), seeds, strict=True):
        seen = observe(world, np.random.default_rng(1000 + seed), DetectorNoise(scale=case.noise), tracked=False)
        keypoints = {name: track_people(k) for name, k in seen.items()}
        cameras = {camera.name: camera for camera in world.rig}
        middle = {name: float(k.time_s[[0, -1]].mean()) for name, k in keypoints.items()}
        for row, estimator in enumerate(estimators):
            known = cameras if estimator.calibrated else None
            _, clocks = synchronise_cameras(keypoints, known, methods=estimator.methods, reference=world.rig.names[0])
            found = clock_errors(clocks, world.true_clocks(clocks.reference), middle)["cameras"].values()
            errors[row] += [e["error_ms"] for e in found]
            z[row] += [e["z"] for e in found]
            refused[row] += len(clocks.unsynchronised)
    return [Score(np.array(e), np.array(s), r) for e, s, r in zip(errors, z, refused, strict=True)]
