"""From keypoints to clocks: every pair of cameras, one clock each, all of them refined together."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from mvpose.calib.camera import Camera
from mvpose.clock import Clock, Clocks
from mvpose.keypoints import Keypoints2D
from mvpose.sync.estimate import Hint, estimate_offsets
from mvpose.sync.offsets import FROM_KEYPOINTS, Method, OffsetGraph, PairwiseOffset
from mvpose.sync.refine import refine_clocks
from mvpose.sync.solve import SolveOptions, doubts, solve_clocks
from mvpose.sync.trajectories import all_trajectories
from mvpose.sync.uncalibrated import trace_geometry


def synchronise_cameras(
    keypoints: Mapping[str, Keypoints2D],
    cameras: Mapping[str, Camera] | None = None,
    *,
    methods: Sequence[Method] | None = None,
    hints: Mapping[str, Hint] | None = None,
    cues: Sequence[PairwiseOffset] = (),
    reference: str | None = None,
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
    epochs = {name: float(k.time_s[[0, -1]].mean()) for name, k in keypoints.items()}
    graph, solved = solve_clocks(graph, epochs, reference=reference)
    if cameras is None or not refine:
        return graph, solved
    others = [e for e in graph.edges if e.accepted and e.method not in FROM_KEYPOINTS]
    return graph, _judged(refine_clocks(all_trajectories(keypoints, cameras), cameras, solved, others), solved, graph)


def _judged(refined: Clocks, solved: Clocks, graph: OffsetGraph) -> Clocks:
    """Give refined clocks their verdicts, which weigh what the pairs say as well."""
    options = SolveOptions()
    clocks: dict[str, Clock] = {}
    unsynchronised = dict(refined.unsynchronised)
    for name, clock in refined.clocks.items():
        if clock.sigma_at_epoch_s > options.needed_sigma_s:
            wide = f"its posterior is {clock.sigma_at_epoch_s:.2g} s wide (need {options.needed_sigma_s:g} s)"
            unsynchronised[name] = wide
            continue
        before = solved[name]
        why = ""
        if name != refined.reference:
            why = doubts(clock, [e for e in graph.edges if name in (e.a, e.b)], options)
            moved_s = abs(float(clock.to_session(clock.epoch_s) - before.to_session(clock.epoch_s)))
            allowed_s = options.outlier_sigmas * np.hypot(before.sigma_at_epoch_s, clock.sigma_at_epoch_s)
            if not why and moved_s > allowed_s + options.slack_s:
                why = f"all cameras together put it {1e3 * moved_s:.0f} ms from where its pairs do"
        clocks[name] = replace(clock, verdict="doubtful" if why else "good", why=why)
    components = [tuple(n for n in group if n not in unsynchronised) for group in refined.components]
    components += [(n,) for n in unsynchronised if n in refined.clocks or n not in itertools.chain(*components)]
    return replace(refined, clocks=clocks, unsynchronised=unsynchronised, components=tuple(c for c in components if c))
