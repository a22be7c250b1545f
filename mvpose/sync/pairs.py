"""Refine the offset of a calibrated pair below a frame, in continuous time, with an uncertainty.

A joint seen by camera a at ``t`` must lie on its epipolar line in camera b at ``t + offset``. The robust sum of squared
epipolar residuals over all joints of all people is minimised over the offset and its drift. A joint that moves along
its epipolar line has no derivative there and so, rightly, no weight.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mvpose.geometry import epipolar_residual
from mvpose.sync.coarse import NOISE, OUTLIER_SCALE, robust_cost
from mvpose.sync.trajectories import Trajectory

SAMPLE_STEP_S = 1 / 30
"""Residuals are taken at this spacing; a smoothed track holds nothing new between two of them."""

_DRIFT_SIGMA = 2e-4  # relative rate of two consumer clocks: ±100 ppm each
_BLOCK_S = 2.0  # residuals further apart are taken as independent
EPSILON_S = 0.01  # wide enough that the ripple of the noise averages out
PRIOR_INFLATION, _PRIOR_BLOCKS = 15.0, 3.0  # variance inflation of residuals 1/30 s apart where few blocks show it
_UNMODELLED = 1.2  # root mean square z-score of the sandwich alone on synthetic recordings (seeds kept for tuning)


@dataclass(frozen=True)
class Match:
    """Two tracks taken for one person: their common moments, seen from a.

    Attributes:
        time_s: (n,) times on a's clock.
        xy_a: (n, J, 2) normalised positions in a.
        velocity_a: (n, J, 2) their smoothed velocities, per second.
        sigma_a: (n, 1) noise of a joint in a, normalised units.
        track_a: The person in a.
        track_b: The person in b.
    """

    time_s: np.ndarray
    xy_a: np.ndarray
    velocity_a: np.ndarray
    sigma_a: np.ndarray
    track_a: Trajectory
    track_b: Trajectory

    def only(self, keep: np.ndarray | slice) -> Match:
        """Return some of the moments."""
        xy, velocity, sigma = (part[keep] for part in (self.xy_a, self.velocity_a, self.sigma_a))
        return Match(self.time_s[keep], xy, velocity, sigma, self.track_a, self.track_b)

    def within(self, start_s: float, end_s: float) -> Match:
        """Return the moments between two of a's times."""
        return self.only((self.time_s >= start_s) & (self.time_s < end_s))


@dataclass(frozen=True)
class PairFit:
    """Offset of a pair as a straight line over a's time: ``offset_s + drift * (t_a − at_s)``.

    Attributes:
        at_s: Epoch, where offset and drift are least correlated.
        offset_s: Offset there, seconds.
        drift: Its change per second of a's time.
        sigma_s: Standard deviation of ``offset_s``.
        cost: Mean robust cost of the residuals, in [0, 1).
        seconds: Person-seconds compared.
        joints: Number of joint residuals.
    """

    at_s: float
    offset_s: float
    drift: float
    sigma_s: float
    cost: float
    seconds: float
    joints: int


def match_people(
    tracks_a: Sequence[Trajectory], tracks_b: Sequence[Trajectory], E: np.ndarray, offset_s: float, accepted_cost: float
) -> list[Match]:
    """Pair tracks that are one person at the given offset; nobody is two people at a time.

    Args:
        tracks_a: All people of camera a.
        tracks_b: All people of camera b.
        E: (3, 3) essential matrix, ``x_bᵀ E x_a = 0``.
        offset_s: ``t_b = t_a + offset_s``.
        accepted_cost: Largest mean robust cost of a pair.
    """
    candidates: list[tuple[float, int, int, float, float]] = []
    for i, a in enumerate(tracks_a):
        for j, b in enumerate(tracks_b):
            start, end = max(a.start_s, b.start_s - offset_s), min(a.end_s, b.end_s - offset_s)
            if end - start < 0.3:
                continue
            time = np.linspace(start, end, int(np.clip((end - start) * 10, 4, 200)))
            (xy_a, size_a), (xy_b, size_b) = a.at(time), b.at(time + offset_s)
            residual = epipolar_residual(xy_a, xy_b, E, NOISE * size_a[:, None], NOISE * size_b[:, None])
            cost = robust_cost(residual)[np.isfinite(residual)]
            if len(cost) and cost.mean() < accepted_cost:
                candidates.append(((accepted_cost - cost.mean()) * (end - start), i, j, start, end))
    taken: list[tuple[int, int, float, float]] = []
    for _, i, j, start, end in sorted(candidates, reverse=True):
        if all(end <= s or start >= e for p, q, s, e in taken if p == i or q == j):
            taken.append((i, j, start, end))
    return [match_of(tracks_a[i], tracks_b[j], start, end) for i, j, start, end in taken]


def match_of(a: Trajectory, b: Trajectory, start: float, end: float) -> Match:
    """Take two tracks for one person, who is seen by both from ``start`` to ``end`` on a's time."""
    # A little beyond the overlap, so that it does not change with the offset during the refinement.
    time = np.arange(max(a.start_s, start - 0.3), min(a.end_s, end + 0.3), SAMPLE_STEP_S)
    xy, size = a.at(time)
    return Match(time, xy, a.velocity_at(time), NOISE * size[:, None], a, b)


def _residuals(match: Match, E: np.ndarray, offset_s: np.ndarray) -> np.ndarray:
    """Return residuals (n, J) in standard deviations for an offset at each moment (n,)."""
    xy_b, size_b = match.track_b.at(match.time_s + offset_s)
    return epipolar_residual(match.xy_a, xy_b, E, match.sigma_a, NOISE * size_b[:, None])


def derivatives(match: Match, E: np.ndarray, offset_s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return how the residuals change per second (n, J) as b moves on along its smoothed velocity, and as a does."""
    xy_b, size_b = match.track_b.at(match.time_s + offset_s)
    sigma_b = NOISE * size_b[:, None]

    def slope(step_a: np.ndarray | float, step_b: np.ndarray | float) -> np.ndarray:
        ahead = epipolar_residual(match.xy_a + step_a, xy_b + step_b, E, match.sigma_a, sigma_b)
        behind = epipolar_residual(match.xy_a - step_a, xy_b - step_b, E, match.sigma_a, sigma_b)
        return (ahead - behind) / 2e-3

    return slope(0.0, 1e-3 * match.track_b.velocity_at(match.time_s + offset_s)), slope(1e-3 * match.velocity_a, 0.0)


def basin(
    matches: Sequence[Match], E: np.ndarray, around_s: float, *, reach_s: float = 0.25, step_s: float = 0.0125
) -> tuple[float, float]:
    """Return the offset with the least mean robust cost within ``reach_s`` of a guess, and that cost."""
    offsets = around_s + np.arange(-reach_s, reach_s + step_s / 2, step_s)
    thin = max(1, sum(len(m.time_s) for m in matches) // 1500)
    thinned = [m.only(slice(None, None, thin)) for m in matches]
    cost = np.array(
        [
            np.nanmean(np.concatenate([robust_cost(_residuals(m, E, np.asarray(o))).ravel() for m in thinned]))
            for o in offsets
        ]
    )
    best = int(np.argmin(cost))
    return float(offsets[best]), float(cost[best])


def fit_offset(
    matches: Sequence[Match],
    E: np.ndarray,
    start: tuple[float, float, float],
    *,
    window: tuple[float, float] = (-np.inf, np.inf),
    fit_drift: bool = True,
) -> PairFit | None:
    """Solve the robust normal equations ``Σ w g r = 0`` for the offset, and its drift if wanted.

    ``r`` is the epipolar residual and ``g`` its derivative along the *smoothed* velocity of b. The velocity's own noise
    must not weigh in: taken as it is, it passes for motion, and the sum of its squares for information. What both
    cameras see move counts, whose errors are their own: the product of the derivatives along either's velocity.

    Args:
        matches: People seen by both cameras.
        E: (3, 3) essential matrix.
        start: (at_s, offset_s, drift) to start from.
        window: Only moments of a's time within these bounds.
        fit_drift: Whether the drift is free (with a prior of ±200 ppm) or stays as it is.

    Returns:
        The fit; its sigma is the sandwich of block scores and the common motion, so that residuals which are
        correlated within two seconds and among joints are not counted as new. None if it does not converge or nothing
        moves across epipolar lines in both views.
    """
    at_s, offset, drift = start
    cut = [m for m in (m.within(*window) for m in matches) if len(m.time_s)]
    if not cut:
        return None
    time = np.concatenate([m.time_s for m in cut])
    lever = time - at_s

    def residuals(shift: float = 0.0) -> np.ndarray:
        return np.concatenate([_residuals(m, E, offset + shift + drift * (m.time_s - at_s)) for m in cut])

    for _ in range(15):
        r = residuals()
        gradients = [derivatives(m, E, offset + drift * (m.time_s - at_s)) for m in cut]
        g, g_a = (np.concatenate(part) for part in zip(*gradients, strict=True))
        seen = np.isfinite(r) & np.isfinite(g)
        if seen.sum() < 30:
            return None
        r, g = np.where(seen, r, 0.0), np.where(seen, g, 0.0)
        spread = joint_spread(r, seen)
        weight = np.where(seen, 1.0 / np.square(1 + np.square(r / spread / OUTLIER_SCALE)) / spread**2, 0.0)
        score = (weight * g * r).sum(1)  # (n,) per moment
        slope = (weight * g * np.nan_to_num(residuals(EPSILON_S) - residuals(-EPSILON_S))).sum(1) / (2 * EPSILON_S)
        information = (weight * g**2).sum(1)
        if slope.sum() <= 0.1 * information.sum() or information.sum() == 0:
            return None
        step = _newton_step(score, slope, lever, drift if fit_drift else None)
        offset, drift = offset + float(np.clip(step[0], -0.05, 0.05)), drift + step[1]
        if abs(step[0]) < 1e-5:
            break
    if abs(offset - start[1]) > 0.5:
        return None
    # Where a moves as b does, their parts of the derivative cancel; where only the noise moves, they are unrelated.
    motion = -float((weight * g * np.nan_to_num(g_a)).sum())
    if motion <= 0.1 * information.sum():
        return None
    centre = float((information * time).sum() / information.sum())
    return PairFit(
        at_s=centre,
        offset_s=offset + drift * (centre - at_s),
        drift=drift,
        sigma_s=float(_UNMODELLED * np.sqrt(score_variance(time, score, information)) / motion),
        cost=float(robust_cost(r)[seen].mean()),
        seconds=len(time) * SAMPLE_STEP_S,
        joints=int(seen.sum()),
    )


def _newton_step(score: np.ndarray, slope: np.ndarray, lever: np.ndarray, drift: float | None) -> tuple[float, float]:
    """Return the steps of offset and drift; None for the drift keeps it.

    The prior of the drift is one independent observation, the residuals are many correlated ones: hence the inflation.
    """
    if drift is None:
        return -float(score.sum() / slope.sum()), 0.0
    prior = PRIOR_INFLATION / _DRIFT_SIGMA**2
    normal = np.array([[slope.sum(), (slope * lever).sum()], [(slope * lever).sum(), (slope * lever**2).sum() + prior]])
    step = -np.linalg.solve(normal, [score.sum(), (score * lever).sum() + prior * drift])
    return float(step[0]), float(step[1])


def joint_spread(residual: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Return each joint's residual scale (J,), from the median absolute deviation; joints hardly seen share one."""
    absolute = np.where(seen, np.abs(residual), np.nan)
    everyone = np.nanmedian(absolute)
    enough = seen.sum(0) >= 20
    own = np.array([np.nanmedian(column) if ok else everyone for column, ok in zip(absolute.T, enough, strict=True)])
    return np.maximum(1.4826 * own, 0.2)


def score_variance(time: np.ndarray, score: np.ndarray, information: np.ndarray) -> float:
    """Return the variance of the summed scores.

    Sums over whole blocks of time carry all correlation within them (Liang & Zeger 1986). Few blocks tell little, so
    the inflation over independent residuals is a mean of what they show and of a prior worth a few blocks.
    """
    block = ((time - time.min()) / _BLOCK_S).astype(int)
    block_score = np.bincount(block, score)
    share = np.bincount(block, information) / information.sum()
    effective = 1.0 / np.square(share).sum()
    observed = np.square(block_score).sum() / information.sum()
    inflation = (_PRIOR_BLOCKS * PRIOR_INFLATION + effective * observed) / (_PRIOR_BLOCKS + effective)
    return float(inflation * information.sum())
