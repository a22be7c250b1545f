"""From keypoints to clocks: every pair of cameras, one clock each, all of them refined together."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace

import numpy as np

from mvpose.calib.camera import Camera
from mvpose.clock import Clock, Clocks
from mvpose.keypoints import Keypoints2D
from mvpose.sync.estimate import Hint, estimate_offsets
from mvpose.sync.mend import mended
from mvpose.sync.offsets import FROM_KEYPOINTS, Method, OffsetGraph, PairwiseOffset
from mvpose.sync.refine import Jump, find_jump, find_readouts, refine_clocks
from mvpose.sync.solve import SolveOptions, doubts, solve_clocks
from mvpose.sync.trajectories import Trajectory, all_trajectories
from mvpose.sync.uncalibrated import trace_geometry

_MOST_JUMPS = 8  # that are looked for in one recording


def synchronise_cameras(
    keypoints: Mapping[str, Keypoints2D],
    cameras: Mapping[str, Camera] | None = None,
    *,
    methods: Sequence[Method] | None = None,
    hints: Mapping[str, Hint] | None = None,
    cues: Sequence[PairwiseOffset] = (),
    reference: str | None = None,
    told: Collection[str] = (),
    refine: bool = True,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[OffsetGraph, Clocks]:
    """Find every camera's clock.

    Args:
        keypoints: Tracked keypoints of each camera.
        cameras: Their calibration; None without.
        methods: Estimators of pairs to use; see ``estimate_offsets``.
        hints: What the user knows of some cameras' clocks.
        cues: Further estimates, by sound or timecode.
        reference: The camera whose time is the session's; by default the best-connected one.
        told: Cameras whose read-out time is known, and undone in their keypoints: none is looked for.
        refine: Whether geometry sharpens what the estimators say: of all calibrated cameras together, or, without a
            calibration, as people trace it out for each pair.
        progress: Called with (pairs done, pairs in all).

    Returns:
        The estimates, each accepted or rejected with a reason, and the clocks; see ``solve_clocks``.
    """
    graph = estimate_offsets(keypoints, cameras, methods=methods, hints=hints, progress=progress)
    if refine and cameras is None:
        graph = trace_geometry(graph, keypoints)
    graph = graph.with_edges((*graph.edges, *cues))
    epochs = {name: k.middle_s for name, k in keypoints.items()}
    graph, solved = solve_clocks(graph, epochs, reference=reference)
    if cameras is None or not refine:
        return graph, solved
    others = [e for e in graph.edges if e.accepted and e.method not in FROM_KEYPOINTS]
    return graph, _judged(_refined(keypoints, cameras, solved, others, told), solved, graph)


def _refined(
    keypoints: Mapping[str, Keypoints2D],
    cameras: Mapping[str, Camera],
    solved: Clocks,
    cues: Sequence[PairwiseOffset],
    told: Collection[str],
) -> Clocks:
    """Refine clocks together; where frames were lost or rows read late and nobody told, find that and refine again."""

    def refit(clocks: Clocks) -> tuple[Clocks, dict[str, list[Trajectory]]]:
        seen = {name: mended(k, clocks[name]) if name in clocks.clocks else k for name, k in keypoints.items()}
        tracks = all_trajectories(seen, cameras)
        return refine_clocks(tracks, cameras, clocks, cues), tracks

    clocks, tracks = refit(solved)
    for _ in range(_MOST_JUMPS):
        jump = find_jump(tracks, cameras, clocks)
        lost = 0 if jump is None else round(jump.jump_s * keypoints[jump.camera].frame_rate)
        if jump is None or lost < 1:
            break
        clocks, tracks = refit(_with_jump(clocks, jump, lost / keypoints[jump.camera].frame_rate))
    readouts = find_readouts(tracks, cameras, clocks)
    late = {name: replace(clocks[name], readout_s=s) for name, (s, _) in readouts.items() if name not in told}
    if late:
        clocks, _ = refit(replace(clocks, clocks={**clocks.clocks, **late}))
    return clocks


def _with_jump(clocks: Clocks, jump: Jump, jump_s: float) -> Clocks:
    """Add a jump, which was found on the mended time, to a clock."""
    clock = clocks[jump.camera]
    before_s = sum(own_s for at_s, own_s in clock.jumps if at_s + own_s <= jump.at_s)
    jumps = tuple(sorted((*clock.jumps, (jump.at_s - before_s, jump_s))))
    return replace(clocks, clocks={**clocks.clocks, jump.camera: replace(clock, jumps=jumps)})


def _judged(refined: Clocks, solved: Clocks, graph: OffsetGraph) -> Clocks:
    """Give refined clocks their verdicts, which weigh what the pairs say as well."""
    options = SolveOptions()
    clocks: dict[str, Clock] = {}
    for name, clock in refined.clocks.items():
        if clock.sigma_at_epoch_s > options.needed_sigma_s:
            clocks[name] = solved[name]  # what all cameras together cannot tell, pairs that overlap longer may
            continue
        before = solved[name]
        why = ""
        if name != refined.reference:
            why = doubts(clock, [e for e in graph.edges if name in (e.a, e.b)], len(refined.clocks), options)
            moved_s = abs(float(clock.to_session(clock.epoch_s) - before.to_session(clock.epoch_s)))
            allowed_s = options.outlier_sigmas * np.hypot(before.sigma_at_epoch_s, clock.sigma_at_epoch_s)
            if not why and moved_s > allowed_s + options.slack_s:
                why = f"all cameras together put it {1e3 * moved_s:.0f} ms from where its pairs do"
        clocks[name] = replace(clock, verdict="doubtful" if why else "good", why=why)
    return replace(refined, clocks=clocks)
