"""Generated recordings of known clocks: errors and z-scores of each estimator, the poses that result, and the speed.

Run ``mvpose bench recordings``. People move as real ones do: clips of a motion pack, one after another. The
motion of its test split is for reporting; constants were chosen on val.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from scipy.signal import correlate

from mvpose.bench.generated import POSE_FPS, mpjpe_by_clocks
from mvpose.calib.rig import CameraRig
from mvpose.clock import Clock, Clocks
from mvpose.detect.tracks import track_people
from mvpose.errors import FormatError
from mvpose.keypoints import Keypoints2D
from mvpose.pipeline import Progress, Settings, build_poses
from mvpose.shutter import global_shutter
from mvpose.sync.mend import without_jumps
from mvpose.sync.synchronise import synchronise_cameras
from mvpose.synthetic.motion import Motion, chain, read_motion_pack, together
from mvpose.synthetic.noise import DetectorNoise
from mvpose.synthetic.rigs import ring_rig
from mvpose.synthetic.world import World, make_world, observe, with_lost_frames, with_repeats
from mvpose.training.config import nearest


@dataclass(frozen=True)
class Case:
    """One kind of recording.

    Attributes:
        common_s: How long all cameras record together, seconds.
        fps: Frame rate of each camera.
        max_offset_s: How far apart they start.
        people: How many.
        drift_ppm: Clock rates are uniform in 1 ± this.
        noise: Factor on the measured detector noise.
        dropped_frames: Share of frames that a camera leaves out; the times of the others stay true.
        jitter_s: Standard deviation of frame times about the even grid.
        lost_frames: How many the second camera loses without a trace in its times: until then they are true.
        lost_at: How far through its recording.
        repeated_frames: Share of frames that show the one before once more.
        readout_s: How long all cameras read their rows.
        told: Whether that is known.
    """

    common_s: float
    fps: tuple[float, ...]
    max_offset_s: float = 20.0
    people: int = 1
    drift_ppm: float = 50.0
    noise: float = 1.0
    dropped_frames: float = 0.0
    jitter_s: float = 0.0
    lost_frames: int = 0
    lost_at: float = 0.5
    repeated_frames: float = 0.0
    readout_s: float = 0.0
    told: bool = True

    def __str__(self) -> str:
        rates = "/".join(f"{fps:g}" for fps in dict.fromkeys(self.fps))
        usual = BASE
        said = [
            f"{self.common_s:g} s at {rates} fps",
            f"{len(self.fps)} cameras" if len(self.fps) != len(usual.fps) else "",
            f"{self.people} people" if self.people != usual.people else "",
            f"noise × {self.noise:g}" if self.noise != usual.noise else "",
            f"drift ± {self.drift_ppm:g} ppm" if self.drift_ppm != usual.drift_ppm else "",
            f"{100 * self.dropped_frames:g} % of frames dropped" if self.dropped_frames else "",
            f"{1e3 * self.jitter_s:g} ms jitter" if self.jitter_s else "",
            f"{self.lost_frames} frames of a camera lost {100 * self.lost_at:g} % through" if self.lost_frames else "",
            f"{100 * self.repeated_frames:g} % of frames repeated" if self.repeated_frames else "",
            f"rolling shutter of {1e3 * self.readout_s:g} ms{'' if self.told else ', untold'}"
            if self.readout_s
            else "",
        ]
        return ", ".join(filter(None, said))


BASE = Case(20.0, (30.0,) * 4)
MIXED_FPS = (50.0, 25.0, 17.0, 10.0)
LONG_S = 600.0


@dataclass(frozen=True)
class Estimator:
    """One row.

    Attributes:
        name: What it is called on the command line.
        title: What it is called in the tables.
        calibrated: Whether it is given the calibration.
        options: Further arguments of ``synchronise_cameras``.
    """

    name: str
    title: str
    calibrated: bool
    options: Mapping[str, object] = field(default_factory=dict)


ESTIMATORS = (
    Estimator("correlation", "correlation of speeds", False, {"methods": ("correlation",)}),
    Estimator("insynformer", "InSynFormer", False, {"methods": ("insynformer",), "refine": False}),
    Estimator("uncalibrated", "InSynFormer, geometry traced (default)", False),
    Estimator("epipolar", "epipolar, calibrated", True, {"methods": ("epipolar",), "refine": False}),
    Estimator("rays", "InSynFormer on rays, calibrated", True, {"methods": ("insynformer",), "refine": False}),
    Estimator("calibrated", "epipolar, all refined together (default)", True),
)

MOVING_MPS = 0.4
"""Mean speed of all joints from which people count as moving: what the goals for clocks are stated for."""


@dataclass(frozen=True)
class Trial:
    """What an estimator made of one recording.

    Attributes:
        case: Its kind, in words.
        seed: What it was made from.
        estimator: The row's title.
        speed_mps: Mean speed of all joints while all cameras record.
        common_s: For how long they do.
        error_ms: Errors of all clocks but the reference's, in the middle frame of each camera's recording.
        z: Those in standard deviations.
        frames_ms: Root mean squares of each clock's errors over all frames of its camera.
        rate_error_ppm: Errors of their rates.
        refused: Cameras without a clock.
    """

    case: str
    seed: int
    estimator: str
    speed_mps: float
    common_s: float
    error_ms: tuple[float, ...]
    z: tuple[float, ...]
    frames_ms: tuple[float, ...]
    rate_error_ppm: tuple[float, ...]
    refused: int


def read_motion(data: Path, split: str = "test") -> dict[str, Motion]:
    """Return the clips of the first test split, or another one, in a folder of motion packs.

    Raises:
        FormatError: There is none.
    """
    packs = sorted(data.glob(f"*_{split}.npz"))
    if not packs:
        raise FormatError(f"{data} holds no motion pack *_{split}.npz; give its folder by --data")
    return read_motion_pack(packs[0])


def grid() -> list[Case]:
    """Return all lengths and frame rates, and round the base case one factor at a time."""
    rates = [(fps,) * 4 for fps in (10.0, 30.0, 60.0)] + [MIXED_FPS]
    return [
        *(replace(BASE, common_s=s, fps=fps) for s, fps in itertools.product((5.0, 10.0, 20.0, 60.0), rates)),
        *(replace(BASE, common_s=LONG_S, fps=fps) for fps in (BASE.fps, MIXED_FPS)),
        replace(BASE, fps=(30.0,) * 2),
        replace(BASE, fps=(30.0,) * 8),
        replace(BASE, people=2),
        replace(BASE, people=3),
        replace(BASE, noise=0.5),
        replace(BASE, noise=2.0),
        replace(BASE, common_s=60.0, drift_ppm=0.0),
        replace(BASE, common_s=60.0, drift_ppm=100.0),
        replace(BASE, dropped_frames=0.05, jitter_s=0.003),
        *(replace(BASE, lost_frames=10, lost_at=share) for share in (0.25, 0.5, 0.9)),
        replace(BASE, repeated_frames=0.05),
        replace(BASE, readout_s=0.02),
        replace(BASE, readout_s=0.02, told=False),
    ]


def choose_estimators(names: Sequence[str] | None) -> tuple[Estimator, ...]:
    """Return the rows of these names, in the order of the tables; all of them if None.

    Raises:
        FormatError: There is no such row.
    """
    known = [estimator.name for estimator in ESTIMATORS]
    for name in names or ():
        if name not in known:
            raise FormatError(f"there is no estimator {name!r}{nearest(name, known)}")
    return tuple(estimator for estimator in ESTIMATORS if names is None or estimator.name in names)


def choose_cases(cases: Sequence[Case], text: str) -> list[Case]:
    """Return the kinds whose description holds a text.

    Raises:
        FormatError: None does.
    """
    chosen = [case for case in cases if text in str(case)]
    if not chosen:
        raise FormatError(f"no kind of recording is described by {text!r}; there are: {'; '.join(map(str, cases))}")
    return chosen


def run_trials(
    cases: Sequence[Case],
    motions: Mapping[str, Motion],
    estimators: Sequence[Estimator],
    seeds: Sequence[int],
    progress: Progress,
) -> list[Trial]:
    """Let every estimator synchronise the same recordings.

    Args:
        cases: Kinds of recordings.
        motions: Clips of one person each that people move by.
        estimators: The rows.
        seeds: One recording of each kind for each; of the longest kinds for the first alone.
        progress: Called with (what, done, total).
    """
    trials: list[Trial] = []
    recordings = [(case, seed) for case in cases for seed in (seeds if case.common_s < LONG_S else seeds[:1])]
    for done, (case, seed) in enumerate(recordings):
        world = make_recording(case, motions, seed)
        keypoints = detect_people(world, case, seed)
        trials += [_trial(case, seed, world, keypoints, estimator) for estimator in estimators]
        progress("recordings", done + 1, len(recordings))
    return trials


def make_recording(case: Case, motions: Mapping[str, Motion], seed: int) -> World:
    """Make one recording of a case."""
    rng = np.random.default_rng(seed)
    duration_s = case.common_s + case.max_offset_s + 1.0
    people = [long_motion(rng, motions, duration_s) for _ in range(case.people)]
    world = record(rng, together(people, apart_m=1.0), ring_rig(len(case.fps), rng=rng), case)
    if not case.lost_frames:
        return world
    second = world.rig.names[1]
    return with_lost_frames(world, second, 2 * case.lost_at * world.clocks[second].epoch_s, case.lost_frames)


def detect_people(world: World, case: Case, seed: int) -> dict[str, Keypoints2D]:
    """Return the tracked keypoints of a recording."""
    rng = np.random.default_rng(1000 + seed)
    seen = observe(world, rng, DetectorNoise(scale=case.noise), tracked=False)
    tracked = {
        name: track_people(with_repeats(rng, k, case.repeated_frames)).without_repeats()[0] for name, k in seen.items()
    }
    return {name: global_shutter(k, case.readout_s if case.told else 0.0) for name, k in tracked.items()}


def record(
    rng: np.random.Generator, motion: Motion, rig: CameraRig, case: Case, late_s: np.ndarray | None = None
) -> World:
    """Let cameras record ``common_s`` together, started ``late_s`` (C,) apart; by default up to ``max_offset_s``."""
    world = make_world(
        rng,
        motion,
        rig,
        fps=case.fps,
        max_offset_s=0.0,
        max_drift_ppm=case.drift_ppm,
        duration_s=case.common_s + case.max_offset_s,
        dropped_frames=case.dropped_frames,
        jitter_s=case.jitter_s,
        readout_s=case.readout_s,
    )
    late_s = rng.uniform(0, case.max_offset_s, len(case.fps)) if late_s is None else late_s
    late_s = late_s - late_s.min()
    last_s = late_s.max() + case.common_s
    clocks, times = {}, {}
    for name, fps, late in zip(rig.names, case.fps, late_s, strict=True):
        clock, own = world.clocks[name], world.frame_times_s[name]
        kept = own[(own >= late) & (own <= last_s)]
        times[name] = kept - kept[0]
        clocks[name] = Clock(
            name,
            float(clock.to_session(kept[0])) + rng.uniform(0, 1 / fps),  # or all would take their frames at once
            clock.rate,
            np.zeros((2, 2)),
            epoch_s=float(times[name][-1] / 2),
            rate_fitted=True,
        )
    return replace(world, clocks=clocks, frame_times_s=times)


def long_motion(rng: np.random.Generator, motions: Mapping[str, Motion], duration_s: float) -> Motion:
    """Chain clips, in random order, until they last long enough.

    Those of every other round are played backwards: a performance that is shown twice has two right offsets.
    """
    names = [name for name, motion in motions.items() if motion.duration_s > 2.0]
    if not names:
        raise ValueError("no motion lasts 2 s or longer")
    chosen: list[Motion] = []
    backwards = False
    while sum(m.duration_s - 0.6 for m in chosen) < duration_s:
        clips = [motions[names[i]] for i in rng.permutation(len(names))]
        chosen += [replace(m, xyz_m=m.xyz_m[::-1]) for m in clips] if backwards else clips
        backwards = not backwards
        total = np.cumsum([m.duration_s - 0.6 for m in chosen])
        chosen = chosen[: int(np.searchsorted(total, duration_s)) + 1]
    return chain(chosen, rng)


def _trial(case: Case, seed: int, world: World, keypoints: Mapping[str, Keypoints2D], estimator: Estimator) -> Trial:
    clocks = _synchronised(world, keypoints, estimator)
    truth = world.true_clocks(clocks.reference)
    error_s = frame_errors_s(world, keypoints, clocks)
    middle = {name: len(e) // 2 for name, e in error_s.items()}
    own_s = {name: without_jumps(keypoints[name], clocks[name].jumps).time_s[i] for name, i in middle.items()}
    start_s, end_s = common_time(world)
    return Trial(
        case=str(case),
        seed=seed,
        estimator=estimator.title,
        speed_mps=mean_speed(world.motion, start_s, end_s),
        common_s=end_s - start_s,
        error_ms=tuple(1e3 * float(error_s[name][i]) for name, i in middle.items()),
        z=tuple(float(error_s[name][i] / clocks[name].sigma_s(own_s[name])) for name, i in middle.items()),
        frames_ms=tuple(1e3 * float(np.sqrt(np.mean(e**2))) for e in error_s.values()),
        rate_error_ppm=tuple(1e6 * (clocks[name].rate - truth[name].rate) for name in error_s),
        refused=len(clocks.unsynchronised),
    )


def frame_errors_s(world: World, keypoints: Mapping[str, Keypoints2D], clocks: Clocks) -> dict[str, np.ndarray]:
    """Return of all clocks but the reference's the error (F,) in each frame, seconds: estimate minus truth."""
    truth = world.true_clocks(clocks.reference)
    return {
        name: clock.to_session(without_jumps(keypoints[name], clock.jumps).time_s)
        - truth[name].to_session(world.taken_s(name))
        for name, clock in clocks.clocks.items()
        if name != clocks.reference
    }


def _synchronised(world: World, keypoints: Mapping[str, Keypoints2D], estimator: Estimator) -> Clocks:
    cameras = {camera.name: camera for camera in world.rig} if estimator.calibrated else None
    options: dict[str, object] = {"reference": world.rig.names[0], **estimator.options}
    return synchronise_cameras(keypoints, cameras, **options)[1]  # type: ignore[arg-type]


def common_time(world: World) -> tuple[float, float]:
    """Return when all cameras record, in world time."""
    spans = np.array([world.clocks[name].to_session(t[[0, -1]]) for name, t in world.frame_times_s.items()])
    return float(spans[:, 0].max()), float(spans[:, 1].min())


def mean_speed(motion: Motion, start_s: float, end_s: float) -> float:
    """Return the mean speed of everybody's joints between two world times, m/s."""
    step_s = 1 / 30
    xyz = motion.at(np.arange(start_s, end_s, step_s))
    return float(np.nanmean(np.linalg.norm(np.diff(xyz, axis=0), axis=-1)) / step_s)


def format_trials(trials: Sequence[Trial]) -> str:
    """Return a table by cases, and below it those of all recordings, of moving people, and of rates."""
    blocks = [(case, [t for t in trials if t.case == case]) for case in dict.fromkeys(t.case for t in trials)]
    moving = [t for t in trials if t.speed_mps >= MOVING_MPS]
    blocks += [("all", list(trials)), (f"all whose people move at {MOVING_MPS:g} m/s or more", moving)]
    lines = []
    for title, own in blocks:
        count = len({(t.case, t.seed) for t in own})
        lines += ["", f"{title} ({count} recordings)", *_by_estimator(own, _figures)]
    long = [t for t in trials if t.common_s > 0.9 * LONG_S]
    if long:
        lines += ["", f"rates, {LONG_S:g} s", *_by_estimator(long, _rates)]
    return "\n".join(lines[1:])


def _by_estimator(trials: Sequence[Trial], figures: Callable[[Sequence[Trial]], str]) -> list[str]:
    titles = dict.fromkeys(t.estimator for t in trials)
    return [f"  {title:<37} {figures([t for t in trials if t.estimator == title])}" for title in titles]


def _figures(trials: Sequence[Trial]) -> str:
    error = np.abs([e for t in trials for e in t.error_ms])
    frames = np.array([e for t in trials for e in t.frames_ms])
    z = np.array([z for t in trials for z in t.z])
    refused = sum(t.refused for t in trials)
    if not len(error):
        return f"no clock of {refused}"
    return (
        f"median {np.median(error):7.1f}  p90 {np.percentile(error, 90):7.1f}  max {error.max():8.1f} ms   "
        f"z RMS {np.sqrt(np.mean(z**2)):5.2f}   over frames p90 {np.percentile(frames, 90):7.1f}  "
        f"max {frames.max():8.1f} ms   {len(error)} clocks, {refused} refused"
    )


def _rates(trials: Sequence[Trial]) -> str:
    error = np.abs([e for t in trials for e in t.rate_error_ppm])
    return f"median {np.median(error):7.2f}  max {error.max():7.2f} ppm" if len(error) else "no clock"


@dataclass(frozen=True)
class Repair:
    """Mean distance of 3D joints to the true ones, mm: with each camera's own times, synchronised, with true clocks."""

    case: str
    seed: int
    raw_mm: float
    synced_mm: float
    perfect_mm: float


REPAIRED = (BASE, replace(BASE, fps=MIXED_FPS), replace(BASE, people=2))
TIMED_S = (20.0, 60.0, 180.0)


def run_repairs(
    cases: Sequence[Case], motions: Mapping[str, Motion], seeds: Sequence[int], progress: Progress
) -> list[Repair]:
    """Reconstruct recordings with three sets of clocks; the synchronised ones are the calibrated default's."""
    repairs = []
    for done, (case, seed) in enumerate(itertools.product(cases, seeds)):
        world = make_recording(case, motions, seed)
        keypoints = detect_people(world, case, seed)
        clocks = _synchronised(world, keypoints, ESTIMATORS[-1])
        settings = Settings(fps=POSE_FPS)
        built = build_poses(keypoints, world.rig, clocks, settings)
        found = mpjpe_by_clocks(world, keypoints, (built, clocks), settings, raw=True)
        mm = {name: figures["mpjpe_mm"] for name, figures in found.items()}
        repairs.append(Repair(str(case), seed, mm["raw"], mm["synced"], mm["perfect"]))
        progress("reconstructions", done + 1, len(cases) * len(seeds))
    return repairs


def format_repairs(repairs: Sequence[Repair]) -> str:
    """Return a table by cases: means over recordings, and the ratio of synchronised and perfect of each."""
    lines = ["MPJPE, mm             raw  synced  perfect  synced/perfect: mean, max"]
    for case in dict.fromkeys(r.case for r in repairs):
        own = np.array([(r.raw_mm, r.synced_mm, r.perfect_mm) for r in repairs if r.case == case])
        raw, synced, perfect = own.mean(0)
        ratio = own[:, 1] / own[:, 2]
        lines.append(f"  {case}\n{raw:>25.1f}{synced:>8.1f}{perfect:>9.1f}{ratio.mean():>18.3f}{ratio.max():>8.3f}")
    return "\n".join(lines)


@dataclass(frozen=True)
class Speed:
    """Time to synchronise four cameras from their keypoints, and to correlate them plainly.

    Attributes:
        common_s: How long they record together.
        sync_s: Seconds by the calibrated default.
        uncalibrated_s: Seconds by the default without a calibration, torch and weights loaded.
        uncalibrated_cpu_s: CPU seconds of it, which a busy machine does not change.
        signals_s: Seconds to sum up everybody's joint speeds on a common grid.
        correlation_s: Seconds to correlate those of all pairs through the FFT and take the highest lags.
    """

    common_s: float
    sync_s: float
    uncalibrated_s: float
    uncalibrated_cpu_s: float
    signals_s: float
    correlation_s: float


def measure_speed(
    motions: Mapping[str, Motion], seconds: Sequence[float], progress: Progress, *, repeats: int = 3
) -> list[Speed]:
    """Time both defaults at 4 cameras and 30 fps, medians of several runs."""
    calibrated, uncalibrated = (e for name in ("calibrated", "uncalibrated") for e in ESTIMATORS if e.name == name)
    speeds = []
    for done, common_s in enumerate(seconds):
        case = replace(BASE, common_s=common_s, max_offset_s=1.0)
        world = make_recording(case, motions, 0)
        keypoints = detect_people(world, case, 0)
        _synchronised(world, keypoints, uncalibrated)  # loads the networks
        times = np.zeros((repeats, 5))
        for repeat in range(repeats):
            marks = [time.perf_counter()]
            _synchronised(world, keypoints, calibrated)
            marks.append(time.perf_counter())
            cpu_s = time.process_time()
            _synchronised(world, keypoints, uncalibrated)
            cpu_s = time.process_time() - cpu_s
            marks.append(time.perf_counter())
            signals = [speed_signal(k) for k in keypoints.values()]
            marks.append(time.perf_counter())
            for a, b in itertools.combinations(signals, 2):
                plain_lag_s(a, b)
            marks.append(time.perf_counter())
            times[repeat] = np.insert(np.diff(marks), 2, cpu_s)
        speeds.append(Speed(common_s, *(float(t) for t in np.median(times, axis=0))))
        progress("timings", done + 1, len(seconds))
    return speeds


SIGNAL_HZ = 30.0


def speed_signal(keypoints: Keypoints2D) -> np.ndarray:
    """Return the summed speed (T,) of the joints of each frame's first person, at ``SIGNAL_HZ`` and less its mean."""
    seen = np.diff(keypoints.frame_ptr) > 0
    time_s, xy = keypoints.time_s[seen], keypoints.xy_px[keypoints.frame_ptr[:-1][seen]]
    speed = np.nansum(np.linalg.norm(np.diff(xy, axis=0), axis=-1), axis=1) / np.diff(time_s)
    at_s = np.arange(0, keypoints.time_s[-1], 1 / SIGNAL_HZ)
    signal = np.interp(at_s, (time_s[1:] + time_s[:-1]) / 2, speed)
    return np.asarray(signal - signal.mean())


def plain_lag_s(a: np.ndarray, b: np.ndarray) -> float:
    """Return by how much signal b (T_b,) is behind a (T_a,), seconds, to a whole sample."""
    return (int(np.argmax(correlate(b, a, method="fft"))) - (len(a) - 1)) / SIGNAL_HZ


def format_speeds(speeds: Sequence[Speed]) -> str:
    """Return the times, and how many times those of plain correlation they are."""
    lines = [
        f"4 cameras at {BASE.fps[0]:g} fps, seconds    calibrated  uncalibrated  (CPU)  of plain correlation: with its "
        "signals, alone; uncalibrated likewise"
    ]
    for s in speeds:
        plain_s = s.signals_s + s.correlation_s
        ratios = "".join(
            f"{sync_s / plain_s:>10.0f} ×{sync_s / s.correlation_s:>8.0f} ×" for sync_s in (s.sync_s, s.uncalibrated_s)
        )
        lines.append(
            f"  {s.common_s:>6g} s {s.sync_s:>30.2f}{s.uncalibrated_s:>14.2f}{s.uncalibrated_cpu_s:>7.2f}{ratios}"
        )
    return "\n".join(lines)
