"""From keypoints to clocks: every pair of cameras, one clock each, all of them refined together."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from mvpose.calib.camera import Camera
from mvpose.clock import Clock, Clocks, identity_clock
from mvpose.geometry import essential_matrix
from mvpose.keypoints import Keypoints2D
from mvpose.sync.estimate import Hint, estimate_offsets
from mvpose.sync.jumps import (
    DECISIVE_NATS,
    REACH_S,
    Jump,
    find_splits,
    is_near,
    jump_of,
    measured,
    placed,
    suspected,
    until,
    with_jump,
)
from mvpose.sync.mend import mended, without_jumps
from mvpose.sync.offsets import CLEAR_WEIGHT, FROM_KEYPOINTS, OffsetGraph, PairMethod, PairwiseOffset
from mvpose.sync.refine import find_jumps, refine_clocks, step_at
from mvpose.sync.solve import SolveOptions, doubts, solve_clocks
from mvpose.sync.trajectories import Trajectory, camera_trajectories, timing_skeleton
from mvpose.sync.uncalibrated import Tracing, trace_geometry, traced_geometry

_MOST_JUMPS = 8  # that are looked for in one pass
_MOST_PASSES = 3  # of estimating pairs at mended times
_SMALL_S, _SMALL_STEP_S = 0.15, 0.01  # a jump of few frames without a calibration, and the shifts that are tried
_TRACED_NATS = 25.0  # of a jump that is plain then; clean recordings of val show 3 at most
_SMALL_NATS = 4.0  # of a small one that is worth a doubt
_LEFT_S = 0.01  # of such a jump, which is measured in steps of 5 ms
_RIVAL = 0.05  # weight of an offset that makes another one ambiguous

Jumps = Mapping[str, tuple[tuple[float, float], ...]]
"""What each camera's written times were found to jump by; see ``Clock.jumps``."""


def synchronise_cameras(
    keypoints: Mapping[str, Keypoints2D],
    cameras: Mapping[str, Camera] | None = None,
    *,
    methods: Sequence[PairMethod] | None = None,
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

    def seen(jumps: Jumps) -> dict[str, Keypoints2D]:
        return {name: without_jumps(k, jumps.get(name, ())) for name, k in keypoints.items()}

    def estimated(seen: Mapping[str, Keypoints2D]) -> OffsetGraph:
        return estimate_offsets(seen, cameras, methods=methods, hints=hints, progress=progress)

    def solved(graph: OffsetGraph, seen: Mapping[str, Keypoints2D]) -> tuple[OffsetGraph, Clocks]:
        epochs = {name: k.middle_s for name, k in seen.items()}
        return solve_clocks(graph.with_edges((*graph.edges, *cues)), epochs, reference=reference)

    def traced(jumps: Jumps) -> tuple[OffsetGraph, Clocks, Tracing]:
        graph, tracing = trace_geometry(estimated(seen(jumps)), seen(jumps))
        return *solved(graph, seen(jumps)), tracing

    if refine and cameras is None:
        return _unjumped(keypoints, traced)
    graph, clocks = solved(estimated(keypoints), keypoints)
    if cameras is None or not refine:
        return graph, clocks
    jumps: Jumps = {}
    recording = _Recording(keypoints, cameras)
    for _ in range(_MOST_PASSES):
        recording = replace(recording, cues=[e for e in graph.edges if e.accepted and e.method not in FROM_KEYPOINTS])
        found, why = recording.jumps(_jumping(_tentative(graph, clocks), jumps))
        if found == jumps:
            break
        jumps = found
        graph, clocks = solved(estimated(seen(jumps)), seen(jumps))
    else:
        why = dict.fromkeys(jumps, "what its times jump by does not settle") | why
    clocks = _jumping(clocks, jumps)
    return graph, _judged(recording.refined(clocks, told), clocks, graph, why)


@dataclass(frozen=True)
class _Recording:
    """What is refined together.

    Attributes:
        keypoints: Tracked keypoints of each camera, at their written times.
        cameras: Their calibration.
        cues: Estimates that come from anything but keypoints.
    """

    keypoints: Mapping[str, Keypoints2D]
    cameras: Mapping[str, Camera]
    cues: Sequence[PairwiseOffset] = ()
    _smoothed: dict[tuple[str, tuple[tuple[float, float], ...], float | None], list[Trajectory]] = field(
        default_factory=dict
    )

    def tracks(self, clocks: Clocks) -> dict[str, list[Trajectory]]:
        """Return all people of each camera on the ``t_camera`` of its clock."""
        skeleton = timing_skeleton(list(self.keypoints.values()))
        tracks = {}
        for name, k in self.keypoints.items():
            clock = clocks.clocks.get(name, identity_clock(name))
            key = (name, clock.jumps, clock.readout_s)
            if key not in self._smoothed:
                self._smoothed[key] = camera_trajectories(mended(k, clock), skeleton, self.cameras[name])
            tracks[name] = self._smoothed[key]
        return tracks

    def geometry(self, a: str, b: str) -> np.ndarray:
        """Return the essential matrix of two cameras."""
        return essential_matrix(self.cameras[a], self.cameras[b])

    def refit(self, clocks: Clocks) -> tuple[Clocks, dict[str, list[Trajectory]]]:
        """Refine clocks together; return the people that this was done by as well."""
        tracks = self.tracks(clocks)
        return refine_clocks(tracks, self.cameras, clocks, self.cues), tracks

    def jumps(self, clocks: Clocks) -> tuple[Jumps, dict[str, str]]:
        """Find where written times jump, the long ones first: all jumps, and why some clocks are doubtful still."""
        frame_s = {name: 1 / k.frame_rate for name, k in self.keypoints.items()}
        for _ in range(_MOST_JUMPS):
            splits = find_splits(self.tracks(clocks), self.geometry, clocks)
            if not splits or splits[0].gain < DECISIVE_NATS:
                break
            name = splits[0].camera
            split = with_jump(until(splits[0], clocks), jump_of(splits[0], clocks), frame_s[name])
            clocks = self._settled(split, name, frame_s[name])
        why = suspected(splits, clocks)
        clocks, tracks = self.refit(clocks)
        for _ in range(_MOST_JUMPS):
            steps = find_jumps(tracks, self.cameras, clocks)
            whole = [s for s in steps if abs(s.jump_s) > frame_s[s.camera] / 2 or is_near(s, clocks[s.camera])]
            if not whole:
                break
            name = whole[0].camera
            clocks, tracks = self.refit(self._settled(with_jump(clocks, whole[0], frame_s[name]), name, frame_s[name]))
        for step in steps[:1]:
            why.setdefault(step.camera, f"a step of {1e3 * step.jump_s:.0f} ms about {step.at_s:.1f} s remains")
        for name, clock in clocks.clocks.items():
            for at_s, _ in clock.jumps:
                left = step_at(tracks, self.cameras, clocks, name, at_s)
                if left is None or left.sigma_s > frame_s[name] / 4:
                    why.setdefault(name, f"too little moves about {at_s:.1f} s to tell how much its times jump there")
        return {name: clock.jumps for name, clock in clocks.clocks.items() if clock.jumps}, why

    def _settled(self, clocks: Clocks, name: str, frame_s: float) -> Clocks:
        """Place the jumps of one camera to the frame, and measure them, by clocks that know of them."""
        clocks, _ = self.refit(clocks)
        for at_s, jump_s in clocks[name].jumps:
            clock = clocks[name]
            if (at_s, jump_s) not in clock.jumps:
                continue  # it was near another one
            rest = replace(clock, jumps=tuple(own for own in clock.jumps if own[0] != at_s))
            without = replace(clocks, clocks={**clocks.clocks, name: rest})
            jump = placed(Jump(name, at_s, jump_s, 0.0), self.tracks(without), self.geometry, without)
            clocks, tracks = self.refit(with_jump(without, jump, frame_s))
            left = step_at(tracks, self.cameras, clocks, name, jump.at_s)
            if left is not None:
                clocks, _ = self.refit(with_jump(clocks, replace(left, at_s=jump.at_s), frame_s))
        return clocks

    def refined(self, clocks: Clocks, told: Collection[str]) -> Clocks:
        """Refine clocks together, the read-outs that nobody told of among the unknowns."""
        return refine_clocks(self.tracks(clocks), self.cameras, clocks, self.cues, self.keypoints.keys() - {*told})


def _unjumped(
    keypoints: Mapping[str, Keypoints2D], traced: Callable[[Jumps], tuple[OffsetGraph, Clocks, Tracing]]
) -> tuple[OffsetGraph, Clocks]:
    """Take jumps out of the times of uncalibrated cameras, one after the other, by the geometry that people trace.

    Args:
        keypoints: Tracked keypoints of each camera.
        traced: Gives estimates, clocks and what was traced, for times with some jumps taken out.
    """
    jumps: Jumps = {}
    graph, clocks, tracing = traced(jumps)
    for left in reversed(range(_MOST_JUMPS + 1)):
        tracks = {name: tracing.tracks[name] for name in clocks.clocks}
        geometry = traced_geometry(tracing, clocks)
        splits = find_splits(tracks, geometry, clocks)
        small = find_splits(tracks, geometry, clocks, reach_s=_SMALL_S, step_s=_SMALL_STEP_S)
        plain = [own[0] for own in (splits, small) if own and own[0].gain >= _TRACED_NATS]
        if not plain or not left:
            break
        name, before = plain[0].camera, until(plain[0], clocks)
        jump = measured(placed(jump_of(plain[0], clocks), tracks, geometry, before), tracks, geometry, before)
        jumps = {**jumps, name: with_jump(before, jump, 1 / keypoints[name].frame_rate)[name].jumps}
        graph, clocks, tracing = traced(jumps)
        clocks = _jumping(clocks, jumps)
    why = suspected(small, clocks, _SMALL_NATS) | suspected(splits, clocks)
    for name, clock in clocks.clocks.items():
        for at_s, _ in clock.jumps:
            step = measured(Jump(name, at_s, 0.0, 0.0), tracks, geometry, clocks)
            if abs(step.jump_s) > _LEFT_S:
                why.setdefault(name, f"a step of {1e3 * step.jump_s:.0f} ms about {at_s:.1f} s remains")
    doubted = {
        name: replace(clocks[name], verdict="doubtful", why=clocks[name].why or reason) for name, reason in why.items()
    }
    return graph, replace(clocks, clocks={**clocks.clocks, **doubted})


def _tentative(graph: OffsetGraph, clocks: Clocks) -> Clocks:
    """Return clocks that also have cameras whose offset is ambiguous within reach of a jump: that would look so."""

    def near(e: PairwiseOffset) -> bool:
        return all(abs(m.offset_s - e.offset_s) < REACH_S for m in e.modes[1:] if m.weight > _RIVAL)

    ambiguous = [e for e in graph.edges if not e.accepted and e.modes[0].weight < CLEAR_WEIGHT and near(e)]
    if not clocks.unsynchronised or not ambiguous:
        return clocks
    epochs = {name: clocks[name].epoch_s if name in clocks.clocks else 0.0 for name in graph.cameras}
    edges = [replace(e, accepted=True, reason="") if e in ambiguous else e for e in graph.edges]
    return solve_clocks(graph.with_edges(edges), epochs, reference=clocks.reference)[1]


def _jumping(clocks: Clocks, jumps: Jumps) -> Clocks:
    """Return clocks with jumps, where they have a clock."""
    own = {name: replace(clock, jumps=jumps.get(name, ())) for name, clock in clocks.clocks.items()}
    return replace(clocks, clocks=own)


def _judged(refined: Clocks, solved: Clocks, graph: OffsetGraph, jumping: Mapping[str, str]) -> Clocks:
    """Give refined clocks their verdicts, which weigh what the pairs say as well, and what jumps are suspected."""
    options = SolveOptions()
    clocks: dict[str, Clock] = {}
    readout_s = {name: clock.readout_s or 0.0 for name, clock in refined.clocks.items()}
    for name, clock in refined.clocks.items():
        if clock.sigma_at_epoch_s > options.needed_sigma_s:
            clocks[name] = solved[name]  # what all cameras together cannot tell, pairs that overlap longer may
            continue
        before = solved[name]
        why = ""
        if name != refined.reference:
            why = doubts(clock, [e for e in graph.edges if name in (e.a, e.b)], len(refined.clocks), options)
            # Pairs know of no rows: what they say is of the middle ones.
            due_s = 0.5 * (readout_s[refined.reference] - readout_s[name])
            moved_s = abs(float(clock.to_session(clock.epoch_s) - before.to_session(clock.epoch_s)) - due_s)
            allowed_s = options.outlier_sigmas * np.hypot(before.sigma_at_epoch_s, clock.sigma_at_epoch_s)
            if not why and moved_s > allowed_s + options.slack_s:
                why = f"all cameras together put it {1e3 * moved_s:.0f} ms from where its pairs do"
        why = why or jumping.get(name, "") or clock.why
        clocks[name] = replace(clock, verdict="doubtful" if why else "good", why=why)
    return replace(refined, clocks=clocks)
