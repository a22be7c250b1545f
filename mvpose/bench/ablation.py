"""What each part of the refinement buys: the same recordings with one part left out at a time.

Run ``mvpose bench ablation``. Parts are left out of ``sync.refine`` as it is, by other
constants; those fits start from clocks that are up to 30 ms wrong. What kinds of edges buy shows in brief recordings,
where some pairs have none; they are searched as a user's are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any
from unittest.mock import patch

import numpy as np

from mvpose.bench.clocks import BASE, MIXED_FPS, Case, detect_people, frame_errors_s, make_recording
from mvpose.bench.refinements import Refinement, pairs_alone, put_off, refine_by_pairs
from mvpose.calib.camera import Camera
from mvpose.clock import Clock, Clocks
from mvpose.keypoints import Keypoints2D
from mvpose.sync import refine
from mvpose.sync.offsets import PairMethod
from mvpose.sync.synchronise import synchronise_cameras
from mvpose.synthetic.motion import Motion

CASES = (
    BASE,
    replace(BASE, fps=MIXED_FPS),
    replace(BASE, noise=2.0),
    replace(BASE, people=2),
    replace(BASE, common_s=60.0, drift_ppm=100.0),
    replace(BASE, common_s=180.0, drift_ppm=100.0),
)
BRIEF = tuple(replace(BASE, common_s=common_s, fps=(10.0,) * 4) for common_s in (4.0, 6.0))


def _always_fitted(clock: Clock, rate_sigma: float) -> Clock:
    return replace(clock, rate_fitted=True)


def _alike(residual: np.ndarray, known: np.ndarray) -> float:
    return 1.0


def _without(
    changes: Mapping[str, Any], keypoints: Mapping[str, Keypoints2D], cameras: Mapping[str, Camera], clocks: Clocks
) -> Clocks:
    """Refine with some of ``sync.refine``'s constants and functions replaced."""
    with patch.multiple(refine, **changes):
        return refine_by_pairs(keypoints, cameras, clocks)


PARTS: Mapping[str, Refinement] = {
    "everything (kept)": refine_by_pairs,
    "each pair alone, then the graph": pairs_alone,
    "joints weighted alike": partial(_without, {"joint_spread": _alike}),
    "squares, no robust loss": partial(_without, {"OUTLIER_SCALE": 1e6}),
    "slow bias left in": partial(_without, {"_BIAS_SHARE": 0.0}),
    "rates 1": partial(_without, {"RATE_SIGMA": 1e-9}),
    "rates always fitted": partial(_without, {"settled": _always_fitted}),
}


def _search(
    methods: Sequence[PairMethod] | None,
    keypoints: Mapping[str, Keypoints2D],
    cameras: Mapping[str, Camera],
    clocks: Clocks,
) -> Clocks:
    return synchronise_cameras(keypoints, cameras, methods=methods, reference=clocks.reference)[1]


EDGES: Mapping[str, Refinement] = {
    "learned edges where others lack (kept)": partial(_search, None),
    "no learned edges": partial(_search, ("epipolar",)),
    "learned edges alone": partial(_search, ("insynformer",)),
}


@dataclass(frozen=True)
class Outcome:
    """What one way made of one recording: clocks but the reference's.

    Attributes:
        rms_ms: Root mean square over all frames of each clock's error.
        z: Error of each in the middle frame, in standard deviations.
        refused: Cameras without a clock.
    """

    rms_ms: tuple[float, ...]
    z: tuple[float, ...]
    refused: int


def ablate(case: Case, motions: Mapping[str, Motion], ways: Mapping[str, Refinement], seed: int) -> dict[str, Outcome]:
    """Let every way refine one recording."""
    world = make_recording(case, motions, seed)
    keypoints = detect_people(world, case, seed)
    cameras, truth = {camera.name: camera for camera in world.rig}, world.true_clocks(world.rig.names[0])
    middle_s = {name: float(k.time_s[[0, -1]].mean()) for name, k in keypoints.items()}
    start = put_off(np.random.default_rng(seed), truth, middle_s)
    outcomes = {}
    for title, way in ways.items():
        clocks = way(keypoints, cameras, start)
        error_s = frame_errors_s(world, keypoints, clocks)
        outcomes[title] = Outcome(
            rms_ms=tuple(1e3 * float(np.sqrt(np.mean(e**2))) for e in error_s.values()),
            z=tuple(float(e[len(e) // 2] / clocks[name].sigma_s(middle_s[name])) for name, e in error_s.items()),
            refused=len(keypoints) - len(clocks.clocks),
        )
    return outcomes


def format_outcomes(found: Sequence[Mapping[str, Outcome]]) -> list[str]:
    """Return a line for each way."""
    lines = []
    for title in found[0]:
        own = [outcomes[title] for outcomes in found]
        rms = np.array([e for o in own for e in o.rms_ms])
        z = np.array([e for o in own for e in o.z])
        median, p90 = np.percentile(rms, (50, 90)) if len(rms) else (np.nan, np.nan)
        refused = sum(o.refused for o in own)
        lines.append(
            f"  {title:<39} median {median:6.2f}  p90 {p90:6.2f} ms  z RMS {np.sqrt(np.mean(z**2)):6.2f}  "
            f"{len(rms)} clocks, {refused} refused"
        )
    return lines


def run_ablation(motions: Mapping[str, Motion], seeds: Sequence[int]) -> Iterator[str]:
    """Yield errors over all frames without each part, kind by kind, as text."""
    for cases, ways in ((CASES, PARTS), (BRIEF, EDGES)):
        for case in cases:
            found = [ablate(case, motions, ways, seed) for seed in seeds]
            yield "\n".join([f"\n{case} ({len(seeds)} recordings)", *format_outcomes(found)])
