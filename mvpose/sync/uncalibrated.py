"""Refine the offset of an uncalibrated pair together with the fundamental matrix that its people trace.

A joint at ``x_a`` in camera a at ``t`` and at ``x_b`` in b at ``t + offset`` satisfies ``x_bᵀ F x_a = 0``, where both F
and the offset are unknown. Albl et al. (2017, "On the two-view geometry of unsynchronized cameras") solve for them
together from a minimal sample, ``x_b`` moving along its velocity. Here people are tracked and the offset is known to a
few tenths of a second, so F starts from the eight-point algorithm at a few offsets, and the two are then refined
together over all joints and times. What the seven degrees of freedom of F can imitate says nothing of the offset: a
body that glides past evenly is one that stands, seen by a camera that stands elsewhere. It is projected out of the
offset's gradient, and the sigma rests on what remains.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np
from scipy.ndimage import gaussian_filter1d

from mvpose.clock import Clocks
from mvpose.geometry import epipolar_residual, homogeneous
from mvpose.keypoints import Keypoints2D
from mvpose.sync.coarse import NOISE, OUTLIER_SCALE, robust_cost
from mvpose.sync.jumps import Geometry
from mvpose.sync.offsets import OffsetGraph, PairwiseOffset
from mvpose.sync.pairs import (
    EPSILON_S,
    PRIOR_INFLATION,
    SAMPLE_STEP_S,
    Match,
    PairFit,
    derivatives,
    joint_spread,
    match_of,
    match_people,
    score_variance,
)
from mvpose.sync.trajectories import Trajectory, all_trajectories

_AGREES_SIGMAS = 4.0
_REACH_S = 0.3  # the offset is known to this
_START_STEP_S = 0.1  # the refinement converges from half of this
_START_SAMPLES = 150  # moments that F is first sought with
_SHORTEST_S = 2.0  # two tracks that meet for less give no F of their own
_FAIR_COST = 0.5  # mean robust cost of two tracks that are one person, at most
_LEAST_JOINTS = 100  # residuals that F and the offset are fitted to
_MOST_STEPS = 20
_CONVERGED_S = 5e-5
_LONGEST_TURN = 0.3  # of F in one step, radians about
_LEAST_SHARE = 0.1  # of the instrument's square that must be motion in both views, and slope; it falls to 0 with noise
_SLOW_S = 0.35  # standard deviation of the running mean that a detector's bias is followed with
_SLOW_SHARE = 0.9  # of that mean that is taken away; the rest still holds F in place
_CALM_INFLATION = 1.5  # variance inflation of residuals 1/30 s apart, once that mean is gone, where few blocks show it


@dataclass(frozen=True)
class FundamentalFit:
    """The offset of an uncalibrated pair and its epipolar geometry, or why there is none.

    Attributes:
        offset: The offset, without drift; None where it cannot be told.
        F: (3, 3) fundamental matrix of unit norm, ``x_bᵀ F x_a = 0`` in pixels; None where no person was found in both.
        why_not: The reason, if there is no offset.
    """

    offset: PairFit | None
    F: np.ndarray | None = None
    why_not: str = ""


@dataclass(frozen=True)
class _Points:
    """Joints of both views at one moment each: positions (n, J, 2), their noise (n, J or 1)."""

    xy_a: np.ndarray
    xy_b: np.ndarray
    sigma_a: np.ndarray
    sigma_b: np.ndarray

    @property
    def seen(self) -> np.ndarray:
        """Return (n, J) whether there is a joint in both views."""
        return np.isfinite(self.residual(np.eye(3)))

    def residual(self, F: np.ndarray) -> np.ndarray:
        """Return (n, J) Sampson residuals in standard deviations."""
        return epipolar_residual(self.xy_a, self.xy_b, F, self.sigma_a, self.sigma_b)


@dataclass(frozen=True)
class Tracing:
    """The people of uncalibrated cameras, and the epipolar geometry that pairs of cameras were found to have.

    Attributes:
        tracks: All people of each camera, on its own time; of nobody where the cameras share no joint.
        found: Of pairs (a, b): the offset about which their geometry was sought, and F (3, 3) or None.
    """

    tracks: dict[str, list[Trajectory]]
    found: dict[tuple[str, str], tuple[float, np.ndarray | None]]


def trace_geometry(graph: OffsetGraph, keypoints: Mapping[str, Keypoints2D]) -> tuple[OffsetGraph, Tracing]:
    """Sharpen the estimates of uncalibrated pairs by the epipolar geometry that people trace out.

    The fit confirms an offset within its basin only: rivals, and whether there is anything to be found at all, stay
    what they were. An estimate is replaced where the fit agrees with it and is the more certain one.

    Args:
        graph: Estimates by other means.
        keypoints: Tracked keypoints of each camera.

    Returns:
        The estimates, and what was traced on the way, for ``traced_geometry``.
    """
    tracks = _people(graph, keypoints)
    epochs: dict[tuple[str, str], list[PairwiseOffset]] = {}
    for e in graph.edges:
        if e.accepted and e.method == "insynformer":
            epochs.setdefault((e.a, e.b), []).append(e)
    sharpened: dict[PairwiseOffset, PairwiseOffset] = {}
    found: dict[tuple[str, str], tuple[float, np.ndarray | None]] = {}
    for (a, b), own in epochs.items():
        middle = own[len(own) // 2]
        seed = seek_geometry(tracks[a], tracks[b], middle.offset_s)
        whole = seed.fit()
        found[a, b] = middle.offset_s, whole.F
        for e in own:
            half = e.support.seconds / 2
            fit = whole if len(own) == 1 else seed.fit((e.at_s - half, e.at_s + half))
            sharpened[e] = _sharper(e, fit.offset)
    return graph.with_edges([sharpened.get(e, e) for e in graph.edges]), Tracing(tracks, found)


def _people(graph: OffsetGraph, keypoints: Mapping[str, Keypoints2D]) -> dict[str, list[Trajectory]]:
    """Return all cameras' people; where no joint is shared by all, those of the cameras that have an estimate."""
    estimated = {name for e in graph.edges if e.accepted for name in (e.a, e.b)}
    for names in filter(None, (keypoints.keys(), estimated)):
        with suppress(ValueError):  # no joint is shared
            found = all_trajectories({name: keypoints[name] for name in names}, None)
            return {name: found.get(name, []) for name in keypoints}
    return {name: [] for name in keypoints}


def _sharper(e: PairwiseOffset, fit: PairFit | None) -> PairwiseOffset:
    if fit is None or fit.sigma_s > e.sigma_s or abs(fit.offset_s - e.offset_s) > _AGREES_SIGMAS * e.sigma_s:
        return e
    return e.refined(fit.at_s, fit.offset_s, fit.sigma_s, "epipolar")


def traced_geometry(tracing: Tracing, clocks: Clocks) -> Geometry:
    """Return the fundamental matrices that people trace by some clocks.

    What was sought about an offset from which the refinement leads to that of the clocks is not sought again.

    Args:
        tracing: The people, on the ``t_camera`` of their camera's clock, and what was traced of them.
        clocks: Clocks; of cameras without one nothing is returned.
    """
    F: dict[tuple[str, str], np.ndarray] = {}
    for a, b in itertools.combinations(sorted(clocks.clocks), 2):
        offset_s = clocks.offset_s(a, b)
        about_s, found = tracing.found.get((a, b), (np.inf, None))
        if abs(about_s - offset_s) > _START_STEP_S / 2:
            found = fundamental_fit(tracing.tracks[a], tracing.tracks[b], offset_s).F
        if found is not None:
            F[a, b], F[b, a] = found, found.T
    return lambda a, b: F.get((a, b))


def fundamental_fit(
    tracks_a: Sequence[Trajectory],
    tracks_b: Sequence[Trajectory],
    around_s: float,
    window: tuple[float, float] = (-np.inf, np.inf),
) -> FundamentalFit:
    """Fit the offset of a pair and its fundamental matrix together.

    Args:
        tracks_a: All people of camera a, in pixels.
        tracks_b: All people of camera b, in pixels.
        around_s: The offset, ``t_b = t_a + offset``, known to 0.3 s.
        window: Only moments of a's time within these bounds; so short that the drift within does not matter.
    """
    return seek_geometry(tracks_a, tracks_b, around_s).fit(window)


@dataclass(frozen=True)
class GeometrySeed:
    """Where the fits of a pair start, whatever part of the recording they are of.

    Attributes:
        around_s: The offset, known to 0.3 s.
        start: F of normalised points, the offset, and who is who; None where there is none.
        T_a: (3, 3) similarity that normalises a's points.
        T_b: (3, 3) that of b's.
        why_not: Why there is none.
    """

    around_s: float
    start: tuple[np.ndarray, float, list[Match]] | None
    T_a: np.ndarray
    T_b: np.ndarray
    why_not: str = ""

    def fit(self, window: tuple[float, float] = (-np.inf, np.inf)) -> FundamentalFit:
        """Fit offset and fundamental matrix to the moments of a's time within these bounds."""
        if self.start is None:
            return FundamentalFit(None, why_not=self.why_not)
        F, offset, matches = self.start
        within = [m for m in (m.within(*window) for m in matches) if len(m.time_s)]
        fit = _refine(within, F, offset) if within else FundamentalFit(None, F, "nobody is seen by both then")
        if fit.offset is not None and abs(fit.offset.offset_s - self.around_s) > _REACH_S:
            fit = replace(fit, offset=None, why_not="its epipolar geometry leads far from where the offset must lie")
        F = self.T_b.T @ fit.F @ self.T_a
        return replace(fit, F=F / np.linalg.norm(F))


def seek_geometry(tracks_a: Sequence[Trajectory], tracks_b: Sequence[Trajectory], around_s: float) -> GeometrySeed:
    """Seek the epipolar geometry of a pair near an offset, roughly, and who is who; see ``fundamental_fit``."""
    if not tracks_a or not tracks_b:
        return GeometrySeed(around_s, None, np.eye(3), np.eye(3), "nobody is seen")
    scaled_a, T_a = _normalised(tracks_a)
    scaled_b, T_b = _normalised(tracks_b)
    start = _start(scaled_a, scaled_b, around_s)
    why_not = "" if start is not None else f"nobody is seen by both for {_SHORTEST_S:.0f} s"
    return GeometrySeed(around_s, start, T_a, T_b, why_not)


def _normalised(tracks: Sequence[Trajectory]) -> tuple[list[Trajectory], np.ndarray]:
    """Return tracks centred and scaled, and the (3, 3) similarity that does it (Hartley 1997)."""
    xy = np.concatenate([t.xy.reshape(-1, 2) for t in tracks])
    centre = np.nanmean(xy, axis=0)
    scale = np.sqrt(2) / np.nanmean(np.linalg.norm(xy - centre, axis=-1))
    scaled = [Trajectory(t.start_s, scale * (t.xy - centre), scale * t.velocity, scale * t.size) for t in tracks]
    return scaled, np.array([[scale, 0, -scale * centre[0]], [0, scale, -scale * centre[1]], [0, 0, 1]])


def _start(
    tracks_a: Sequence[Trajectory], tracks_b: Sequence[Trajectory], around_s: float
) -> tuple[np.ndarray, float, list[Match]] | None:
    """Return F, the offset and who is who, as the two tracks whose F suits most people for longest have them.

    Two tracks that meet seed an F, and all that agree with it join; whether the two were one person shows in how many
    do.
    """
    best = 0.0
    start: tuple[np.ndarray, float, list[Match]] | None = None
    for a, b, common in _meetings(tracks_a, tracks_b, around_s):
        seed = _seed([match_of(a, b, *common)], around_s, _REACH_S)
        matches = [] if seed is None else match_people(tracks_a, tracks_b, *seed, _FAIR_COST)
        if seed is not None and matches and (agreement := _agreement(matches, *seed)) > best:
            best, start = agreement, (*seed, matches)
    if start is None:
        return None
    F, offset, matches = start
    F, offset = _seed(matches, offset, _START_STEP_S) or (F, offset)
    return F, offset, match_people(tracks_a, tracks_b, F, offset, _FAIR_COST)


def _meetings(
    tracks_a: Sequence[Trajectory], tracks_b: Sequence[Trajectory], offset_s: float
) -> list[tuple[Trajectory, Trajectory, tuple[float, float]]]:
    """Return pairs of tracks that are seen together for long, and when, on a's time."""
    met = [
        (a, b, (max(a.start_s, b.start_s - offset_s), min(a.end_s, b.end_s - offset_s)))
        for a in tracks_a
        for b in tracks_b
    ]
    longest = max((end - start for *_, (start, end) in met), default=0.0)
    return [m for m in met if m[2][1] - m[2][0] >= max(_SHORTEST_S, longest / 2)]


def _agreement(matches: Sequence[Match], F: np.ndarray, offset_s: float) -> float:
    """Return how many joints agree with F, each the more the better."""
    residual = _points(matches, offset_s).residual(F)
    return float((1 - robust_cost(residual[np.isfinite(residual)])).sum())


def _seed(matches: Sequence[Match], around_s: float, reach_s: float) -> tuple[np.ndarray, float] | None:
    """Return F and the offset, on a coarse grid, that most joints agree with; None if too few are seen."""
    thin = max(1, sum(len(m.time_s) for m in matches) // _START_SAMPLES)
    thinned = [m.only(slice(None, None, thin)) for m in matches]
    best, seed = 0.0, None
    for offset in around_s + np.arange(-reach_s, reach_s + 1e-9, _START_STEP_S):
        points = _points(thinned, offset)
        if points.seen.sum() < _LEAST_JOINTS:
            continue
        F = _eight_point(points)
        if (agreement := _agreement(thinned, F, offset)) > best:
            best, seed = agreement, (F, float(offset))
    return seed


def _points(matches: Sequence[Match], offset_s: float) -> _Points:
    seen_b = [m.track_b.at(m.time_s + offset_s) for m in matches]
    return _Points(
        np.concatenate([m.xy_a for m in matches]),
        np.concatenate([xy for xy, _ in seen_b]),
        np.concatenate([m.sigma_a for m in matches]),
        NOISE * np.concatenate([size for _, size in seen_b])[:, None],
    )


def _eight_point(points: _Points) -> np.ndarray:
    """Return the robust F (3, 3): the eight-point algorithm, reweighted for Sampson's distance and for outliers.

    The outliers' scale falls with the residuals, as in graduated non-convexity; normalised points are well conditioned
    (Hartley & Zisserman, algorithm 11.1).
    """
    seen = points.seen
    h_a, h_b = homogeneous(points.xy_a[seen]), homogeneous(points.xy_b[seen])
    rows = (h_b[:, :, None] * h_a[:, None, :]).reshape(-1, 9)
    weight = np.ones(len(rows))
    for _ in range(10):
        _, vectors = np.linalg.eigh((rows * weight[:, None]).T @ rows)
        F = _rank_two(vectors[:, 0].reshape(3, 3))
        residual = points.residual(F)[seen]
        scale = max(OUTLIER_SCALE, OUTLIER_SCALE * 1.4826 * float(np.median(np.abs(residual))))
        algebraic = (rows * F.ravel()).sum(1)
        per_sigma = np.where(np.abs(algebraic) > 1e-12, residual / algebraic, 0.0)
        weight = np.square(per_sigma / (1 + np.square(residual / scale)))
    return F


def _rank_two(F: np.ndarray) -> np.ndarray:
    """Return the nearest matrix (3, 3) of rank 2, scaled to unit norm."""
    U, s, Vt = np.linalg.svd(F)
    return np.asarray((U[:, :2] * (s[:2] / np.linalg.norm(s[:2]))) @ Vt[:2])


def _tangents(F: np.ndarray) -> np.ndarray:
    """Return the seven directions (7, 3, 3) in which F stays of rank 2 and unit norm, to first order."""
    U, s, Vt = np.linalg.svd(F)
    core = np.zeros((7, 3, 3))
    core[range(6), (0, 0, 1, 1, 2, 2), (1, 2, 0, 2, 0, 1)] = 1.0
    core[6, (0, 1), (0, 1)] = -s[1], s[0]
    return np.asarray(U @ core @ Vt)


@dataclass(frozen=True)
class _Linearised:
    """The residuals of all joints to first order, slow bias taken away but for ``residual``; (n, J), 0 where unseen.

    Attributes:
        residual: Sampson residuals, standard deviations.
        seen: Whether there is one.
        weight: Robust weight of each.
        fast: The residuals without slow bias.
        slope: Their derivative along the offset.
        motion_a: What it would be by a's smoothed velocity.
        motion_b: What it is by b's.
        tangent: (n, J, 7) their derivatives along F's tangents.
    """

    residual: np.ndarray
    seen: np.ndarray
    weight: np.ndarray
    fast: np.ndarray
    slope: np.ndarray
    motion_a: np.ndarray
    motion_b: np.ndarray
    tangent: np.ndarray

    def along_tangents(self, values: np.ndarray) -> np.ndarray:
        """Return the change of F (7,) that imitates values (n, J) best; what nothing determines stays as it is."""
        normal = np.einsum("tj,tjk,tjl->kl", self.weight, self.tangent, self.tangent) + np.eye(7)
        return np.asarray(np.linalg.solve(normal, np.einsum("tj,tjk,tj->k", self.weight, self.tangent, values)))

    def beyond_tangents(self, values: np.ndarray) -> np.ndarray:
        """Return what no change of F can imitate of values (n, J)."""
        return np.asarray(values - self.tangent @ self.along_tangents(values))


def _linearised(matches: Sequence[Match], F: np.ndarray, offset_s: float) -> _Linearised:
    points, ahead, behind = (_points(matches, offset_s + shift) for shift in (0.0, EPSILON_S, -EPSILON_S))
    gradients = [derivatives(m, F, np.asarray(offset_s)) for m in matches]
    motion_b, motion_a = (np.concatenate(part) for part in zip(*gradients, strict=True))
    slope = (ahead.residual(F) - behind.residual(F)) / (2 * EPSILON_S)
    bend = [(points.residual(F + 1e-4 * t) - points.residual(F - 1e-4 * t)) / 2e-4 for t in _tangents(F)]
    columns = np.stack([points.residual(F), slope, motion_a, motion_b, *bend], axis=-1)
    seen = np.isfinite(columns).all(-1)
    columns = np.where(seen[..., None], columns, 0.0)
    residual = columns[..., 0]
    spread = joint_spread(residual, seen)
    weight = np.where(seen, 1.0 / np.square(1 + np.square(residual / spread / OUTLIER_SCALE)) / spread**2, 0.0)
    fast = _without_slow_bias(columns, weight, [len(m.time_s) for m in matches])
    return _Linearised(
        residual, seen, weight, fast[..., 0], fast[..., 1], fast[..., 2], fast[..., 3], tangent=fast[..., 4:]
    )


def _refine(matches: Sequence[Match], F: np.ndarray, offset_s: float) -> FundamentalFit:
    """Solve the robust normal equations of the offset and of F; for instrument and sigma see ``refine.fit_offset``.

    The offset's instrument is its derivative along b's smoothed velocity, less what F can imitate: its equation then no
    longer knows F (Frisch & Waugh 1933; variable projection, Golub & Pereyra 1973).
    """
    for _ in range(_MOST_STEPS):
        near = _linearised(matches, F, offset_s)
        if near.seen.sum() < _LEAST_JOINTS:
            return FundamentalFit(None, F, "too few joints are seen by both")
        instrument = near.beyond_tangents(near.motion_b)
        weighted = near.weight * instrument
        information = (weighted * instrument).sum(1)
        motion, steepness = -(weighted * near.motion_a).sum(), (weighted * near.slope).sum()
        if min(motion, steepness) <= _LEAST_SHARE * information.sum():
            return FundamentalFit(None, F, "all that moves could as well be seen by a camera that stands elsewhere")
        step = float(np.clip(-(weighted * near.fast).sum() / steepness, -0.05, 0.05))
        turn = -near.along_tangents(near.fast + near.slope * step)
        turn *= min(1.0, _LONGEST_TURN / max(float(np.linalg.norm(turn)), 1e-12))
        F, offset_s = _rank_two(F + np.tensordot(turn, _tangents(F), 1)), offset_s + step
        if abs(step) < _CONVERGED_S:
            break
    else:
        return FundamentalFit(None, F, "the fit of offset and epipolar geometry does not converge")
    time, score = np.concatenate([m.time_s for m in matches]), (weighted * near.fast).sum(1)
    # The prior inflation in there is that of residuals with their slow bias.
    variance = score_variance(time, score, information * _CALM_INFLATION / PRIOR_INFLATION)
    fit = PairFit(
        at_s=float((information * time).sum() / information.sum()),
        offset_s=offset_s,
        drift=0.0,
        sigma_s=float(np.sqrt(variance) / motion),
        cost=float(robust_cost(near.residual)[near.seen].mean()),
        seconds=len(time) * SAMPLE_STEP_S,
        joints=int(near.seen.sum()),
    )
    return FundamentalFit(fit, F)


def _without_slow_bias(columns: np.ndarray, weight: np.ndarray, lengths: Sequence[int]) -> np.ndarray:
    """Take most of its weighted running mean from each joint's residual and derivatives (Robinson 1988, Speckman 1988).

    Args:
        columns: (n, J, K) values.
        weight: (n, J) weights.
        lengths: How many moments each match has.
    """
    width, parts, start = _SLOW_S / SAMPLE_STEP_S, [], 0
    for length in lengths:
        part, w = columns[start : start + length], weight[start : start + length, :, None]
        mean = gaussian_filter1d(w * part, width, axis=0, mode="constant")
        mean /= np.maximum(gaussian_filter1d(w, width, axis=0, mode="constant"), 1e-9)
        parts.append(part - _SLOW_SHARE * mean)
        start += length
    return np.concatenate(parts)
