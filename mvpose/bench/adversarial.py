"""Recordings made to mislead: some have no answer, some hide it, and no clock of any may be confidently wrong.

Run ``mvpose bench adversarial``. *Confident* is a clock whose verdict is good; *wrong* is one that is off by
more than ``WRONG_SIGMAS`` and ``WRONG_MS`` in the middle of its camera's recording. A recording is made by its
number alone: that says which kind it is, and whether the synchronisation is given the calibration.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from mvpose.bench.clocks import Case, long_motion, record
from mvpose.clock import Clock
from mvpose.detect.tracks import track_people
from mvpose.keypoints import Keypoints2D
from mvpose.pipeline import Progress
from mvpose.recon.metrics import clock_errors
from mvpose.sync.offsets import OffsetGraph
from mvpose.sync.synchronise import synchronise_cameras
from mvpose.synthetic.motion import Motion, still_motion, together, walking_in_place, walking_laps
from mvpose.synthetic.noise import DetectorNoise
from mvpose.synthetic.rigs import random_rig
from mvpose.synthetic.world import World, observe

Kind = Literal["walking", "still", "unrelated", "mirrored", "late", "occluded", "in step"]
KINDS: tuple[Kind, ...] = ("walking", "still", "unrelated", "mirrored", "late", "occluded", "in step")
SOLVABLE: frozenset[Kind] = frozenset({"late", "occluded"})

WRONG_SIGMAS, WRONG_MS = 4.0, 5.0

_FPS = (10.0, 15.0, 25.0, 30.0, 60.0)
_LATE_S = 300.0
_LATE_FPS = (10.0, 15.0, 25.0, 30.0)  # its recordings are long


@dataclass(frozen=True)
class Recording:
    """One recording, before a detector has seen it.

    Attributes:
        number: What it is made from.
        kind: How it misleads.
        words: Which of that kind, and how it is recorded.
        world: The rig and the true clocks. Where the kind is unrelated they connect nothing.
        films: The people whom each camera films.
        noise: How well the detector works in each.
        mirrored: Cameras whose image is mirrored, and whether a detector looked at the mirror image, to which a left
            hand is a right one; otherwise joints keep their names.
        calibrated: Whether the synchronisation gets the calibration.
    """

    number: int
    kind: Kind
    words: str
    world: World
    films: Mapping[str, Motion]
    noise: Mapping[str, DetectorNoise]
    mirrored: Mapping[str, bool]
    calibrated: bool

    def detected(self) -> dict[str, Keypoints2D]:
        """Return the tracked keypoints of each camera."""
        rng = np.random.default_rng([self.number, 1])
        keypoints = {}
        for camera in self.world.rig:
            alone = replace(self.world.rig, cameras=(camera,))
            filmed = replace(self.world, rig=alone, motion=self.films[camera.name])
            seen = observe(filmed, rng, self.noise[camera.name], tracked=False)[camera.name]
            if camera.name in self.mirrored:
                seen = mirrored(seen, named_anew=self.mirrored[camera.name])
            keypoints[camera.name] = track_people(seen)
        return keypoints


@dataclass(frozen=True)
class Answer:
    """What became of one camera beside the reference.

    Attributes:
        camera: Its name.
        verdict: ``good``, ``doubtful`` or ``refused``.
        why: The reason for anything but good.
        error_ms: Of its clock in the middle of its recording; NaN without one.
        sigma_ms: The standard deviation that it claims.
        wrong: Whether it is off by more than that allows.
    """

    camera: str
    verdict: str
    why: str
    error_ms: float = float("nan")
    sigma_ms: float = float("nan")
    wrong: bool = False

    @property
    def confidently_wrong(self) -> bool:
        """Whether somebody who trusts verdicts is misled."""
        return self.wrong and self.verdict == "good"


@dataclass(frozen=True)
class Outcome:
    """The answers to one recording; ``estimates`` says what they rest on."""

    number: int
    kind: Kind
    words: str
    answers: tuple[Answer, ...]
    estimates: str


def run_adversarial(
    motions: Mapping[str, Motion],
    numbers: Sequence[int],
    progress: Progress,
    options: Mapping[str, object] | None = None,
) -> list[Outcome]:
    """Synchronise the recordings of all numbers.

    Args:
        motions: Clips of one person each, that people of kinds other than walking and still move by.
        numbers: Which recordings.
        progress: Called with (what, done, total).
        options: Further arguments of ``synchronise_cameras``.
    """
    outcomes = []
    for done, number in enumerate(numbers):
        outcomes.append(answer(make_recording(number, motions), options or {}))
        progress("adversarial recordings", done + 1, len(numbers))
    return outcomes


def make_recording(number: int, motions: Mapping[str, Motion]) -> Recording:
    """Make the recording of a number: kinds take turns, and calibrations are given and withheld by turns."""
    rng = np.random.default_rng([number])
    kind, turn = KINDS[number % len(KINDS)], number // len(KINDS)
    calibrated, variant = turn % 2 == 0, turn // 2
    rig = random_rig(rng, 3 if kind == "late" else int(rng.integers(3, 5)))
    case = Case(rng.uniform(10, 25), tuple(rng.choice(_LATE_FPS if kind == "late" else _FPS, len(rig))), 10.0)
    late_s = rng.uniform(0, case.max_offset_s, len(rig))
    odd = int(rng.integers(len(rig)))
    if kind == "late":
        case = replace(case, common_s=rng.uniform(20, 40), max_offset_s=_LATE_S + case.max_offset_s)
        late_s[odd] += _LATE_S
    duration_s = case.common_s + case.max_offset_s + 1
    motion, words = _motion(kind, variant, rng, motions, duration_s)
    films, noise = dict.fromkeys(rig.names, motion), dict.fromkeys(rig.names, DetectorNoise())
    if kind == "unrelated":
        clips = rng.permutation(list(motions))  # nobody does the same before two cameras
        own = {name: {clip: motions[clip] for clip in clips[i :: len(rig)]} for i, name in enumerate(rig.names)}
        films = {name: long_motion(rng, own[name], duration_s) for name in rig.names}
    if kind == "occluded":
        noise[rig.names[odd]], words = _OCCLUSIONS[variant % len(_OCCLUSIONS)]
    flipped = {rig.names[odd]: variant % 2 == 0} if kind == "mirrored" else {}
    if flipped:
        words = "names of the mirror image" if variant % 2 == 0 else "names kept"
    rates = "/".join(f"{fps:g}" for fps in case.fps)
    said = [
        words,
        f"{kind}: {rig.names[odd]}" if kind in ("late", "occluded", "mirrored") else "",
        f"{case.common_s:.0f} s at {rates} fps",
        "" if calibrated else "uncalibrated",
    ]
    return Recording(
        number=number,
        kind=kind,
        words=", ".join(filter(None, said)),
        world=record(rng, motion, rig, case, late_s),
        films=films,
        noise=noise,
        mirrored=flipped,
        calibrated=calibrated,
    )


_OCCLUSIONS = (
    (DetectorNoise(missing_joint=0.5, missing_hold_s=1.0), "half of the joints"),
    (DetectorNoise(missing_person=0.5, missing_hold_s=0.5), "half of the time"),
)


def _motion(
    kind: Kind, variant: int, rng: np.random.Generator, motions: Mapping[str, Motion], duration_s: float
) -> tuple[Motion, str]:
    """Return what all cameras film, and what to call it."""
    period_s = rng.uniform(0.9, 1.3)
    if kind == "still":
        return still_motion(rng, duration_s), ""
    if kind == "walking":
        if variant % 2 == 0:
            return walking_in_place(rng, duration_s, period_s=period_s), f"in place, period {period_s:.2f} s"
        return walking_laps(rng, duration_s, period_s=period_s, strides=6), f"laps of {6 * period_s:.2f} s"
    if kind == "in step":
        if variant % 3 == 0:
            walk = walking_in_place(rng, duration_s, period_s=period_s)
            return together([walk, walk], apart_m=1.2), f"in place, period {period_s:.2f} s"
        if variant % 3 == 1:
            return walking_laps(rng, duration_s, 2, period_s=period_s, strides=6), f"half laps of {3 * period_s:.2f} s"
        course = long_motion(rng, motions, duration_s)
        return together([course, course], apart_m=1.2), "the same movements"
    return long_motion(rng, motions, duration_s), ""


def mirrored(keypoints: Keypoints2D, *, named_anew: bool) -> Keypoints2D:
    """Turn what is seen in an image into what is seen in its mirror image, by a detector if joints are named anew."""
    order = keypoints.skeleton.mirrored if named_anew else slice(None)
    xy = keypoints.xy_px[:, order] * [-1, 1] + [keypoints.known_size_px("a mirror image")[0] - 1, 0]
    return replace(keypoints, xy_px=xy, score=keypoints.score[:, order], bbox_px=None)


def answer(recording: Recording, options: Mapping[str, object]) -> Outcome:
    """Synchronise one recording, and say what of it is wrong."""
    keypoints = recording.detected()
    cameras = {camera.name: camera for camera in recording.world.rig} if recording.calibrated else None
    graph, clocks = synchronise_cameras(keypoints, cameras, **options)  # type: ignore[arg-type]
    middle = {name: float(k.time_s[[0, -1]].mean()) for name, k in keypoints.items()}
    errors = clock_errors(clocks, recording.world.true_clocks(clocks.reference), middle)["cameras"]
    answers = [Answer(name, "refused", why) for name, why in clocks.unsynchronised.items()]
    answers += [
        judged(clock, errors[name]["error_ms"], unrelated=recording.kind == "unrelated")
        for name, clock in clocks.clocks.items()
        if name != clocks.reference
    ]
    return Outcome(recording.number, recording.kind, recording.words, tuple(answers), _estimates(graph))


def judged(clock: Clock, error_ms: float, *, unrelated: bool) -> Answer:
    """Hold a clock against its error; any clock between unrelated cameras is wrong."""
    sigma_ms = 1000 * clock.sigma_at_epoch_s
    wrong = unrelated or abs(error_ms) > max(WRONG_SIGMAS * sigma_ms, WRONG_MS)
    return Answer(clock.camera, clock.verdict, clock.why, error_ms, sigma_ms, wrong)


def _estimates(graph: OffsetGraph) -> str:
    """Count the edges by method, accepted of all."""
    made = Counter(e.method for e in graph.edges)
    used = Counter(e.method for e in graph.edges if e.accepted)
    return ", ".join(f"{method} {used[method]} of {count}" for method, count in made.items()) or "no estimate"


def format_adversarial(outcomes: Sequence[Outcome]) -> str:
    """Return the table by kinds, and each confidently wrong clock."""
    lines = [f"{'':<11}recordings  good  doubtful  refused  confidently wrong  all cameras good"]
    for kind in KINDS:
        own = [o for o in outcomes if o.kind == kind]
        if own:
            lines.append(f"{kind:<11}" + _counts(own))
    lines.append(f"{'all':<11}" + _counts(outcomes))
    solvable = [o for o in outcomes if o.kind in SOLVABLE]
    lines.append(f"solvable ones answered: {_answered(solvable)} of {len(solvable)}")
    for o in outcomes:
        for a in o.answers:
            if a.confidently_wrong:
                lines.append(
                    f"no. {o.number}, {o.kind} ({o.words}): {a.camera} is {a.error_ms:+.1f} ms off "
                    f"at a sigma of {a.sigma_ms:.1f} ms, by {o.estimates}"
                )
    return "\n".join(lines)


def _counts(outcomes: Sequence[Outcome]) -> str:
    answers = [a for o in outcomes for a in o.answers]
    verdicts = Counter(a.verdict for a in answers)
    wrong = sum(a.confidently_wrong for a in answers)
    return (
        f"{len(outcomes):>10}{verdicts['good']:>6}{verdicts['doubtful']:>10}{verdicts['refused']:>9}{wrong:>19}"
        f"{_answered(outcomes):>18}"
    )


def _answered(outcomes: Sequence[Outcome]) -> int:
    """Return in how many recordings every camera has a good clock, and a right one."""
    return sum(all(a.verdict == "good" and not a.wrong for a in o.answers) for o in outcomes)
