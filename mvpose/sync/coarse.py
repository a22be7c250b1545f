"""Search every possible offset between two whole recordings, minutes apart if need be, for those worth refining."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mvpose.geometry import homogeneous
from mvpose.sync.trajectories import Trajectory, sample_slots

LAG_STEP_S = 0.05
"""Spacing of the lags: a hand moves by about two standard deviations in it, so no basin is stepped over."""

NOISE = 0.02
"""Standard deviation of a joint in units of the body's extent (measured on Stacked-Hourglass detections)."""

OUTLIER_SCALE = 3.0
"""Standard deviations at which a joint's cost is half way to saying nothing (Geman–McClure)."""

_SAMPLES = 250
_INDEPENDENT_S = 0.5  # detections this far apart have nearly forgotten each other's errors (autocorrelation 0.45)
_NATS = 15.0  # evidence of one person in one independent moment for a cost that falls from 1 to 0
_CONTRAST = 0.6  # a true offset brings the cost below this share of what unrelated moments cost
_REST_SIGMAS = 2.0  # a mean shift of joints within half a second that noise alone makes
_UNRELATED_COST = 0.55  # what unrelated moments cost at least, if the recordings are too short to show it
_UNMATCHED = -3.0  # evidence at most, nats, that one person without a counterpart holds against an offset
_OVERLAP_PRIOR = 2.0  # power of the overlap that offsets are likely by
_SHARE = 0.25  # of the evidence that perfect agreement would give: unrelated recordings reach 0.1, related ones 0.5
_REPEATED = 0.25  # of a moment's evidence; by as much do exact repetitions differ (measured: up to 0.2)
_ALIKE = 1.0  # nats a moment; noise alone makes two repetitions of a movement differ by up to half of it (measured)
_MATCH_COST = 0.5  # two tracks that cost more than this are never one person


@dataclass(frozen=True)
class Peak:
    """One offset at which two recordings agree.

    Attributes:
        offset_s: ``t_b = t_a + offset_s``.
        evidence: Log-likelihood ratio, nats, that the recordings belong together at this offset rather than not.
        moments: Independent moments that it comes from.
    """

    offset_s: float
    evidence: float
    moments: float

    def log_odds_over(self, other: Peak) -> float:
        """Return the nats by which this offset is likelier than another.

        Not the difference of their evidence, for the longer overlap has more of it: if an offset one step of a walk
        away agrees as well for as long as it lasts, then the motion repeats itself, and one more repetition is no news.
        Agreement is expected to go on for as long again as it was seen, and counts only beyond that. The noise is not
        the same in two repetitions: what it does to the evidence of a moment must not decide between them either.
        """
        mine, others = self.evidence / self.moments, other.evidence / other.moments
        common = min(self.moments, other.moments)
        news, others_news = max(self.moments - 2 * common, 0.0), max(other.moments - 2 * common, 0.0)
        apart = max(abs(mine - others) - _REPEATED * max(mine, others), 0.0)
        better = np.sign(mine - others) * apart
        return float(common * better * min(1.0, apart / _ALIKE) + news * mine - others_news * others)


@dataclass(frozen=True)
class LagCurve:
    """How well two recordings agree at each offset.

    Attributes:
        offset_s: (L,) offsets, ``t_b = t_a + offset_s``.
        evidence: (L,) log-likelihood ratio, nats, that the recordings belong together at this offset rather than not.
        moments: (L,) independent moments, summed over people, that it comes from.
        accepted_cost: Mean robust cost below which two tracks are taken for one person; NaN where costs do not apply.
    """

    offset_s: np.ndarray
    evidence: np.ndarray
    moments: np.ndarray
    accepted_cost: float = float("nan")

    def peaks(self, prior: np.ndarray | float = 0.0, *, most: int = 6, apart_s: float = 0.35) -> list[Peak]:
        """Return the highest places of the curve, best first, no two closer than ``apart_s``.

        Args:
            prior: (L,) nats by which each offset was likely beforehand; decides the order with the evidence.
            most: Number of peaks at most.
            apart_s: Least distance of two peaks, seconds.
        """
        found: list[Peak] = []
        for index in np.argsort(-(self.evidence + prior), kind="stable"):
            if len(found) == most or not np.isfinite(self.evidence[index]):
                break
            offset = float(self.offset_s[index])
            if all(abs(offset - peak.offset_s) > apart_s for peak in found):
                found.append(Peak(offset, float(self.evidence[index]), float(self.moments[index])))
        return found

    @property
    def chance_evidence(self) -> float:
        """Evidence that the best of so many lags must beat not to be a chance find."""
        span = float(np.ptp(self.offset_s)) if len(self.offset_s) else 0.0
        return float(np.log(max(span / _INDEPENDENT_S, 1.0)) + np.log(5.0))


def robust_cost(residual: np.ndarray) -> np.ndarray:
    """Return the Geman–McClure cost, in [0, 1), of residuals in standard deviations."""
    square = np.square(residual)
    return square / (square + OUTLIER_SCALE**2)


def epipolar_search(tracks_a: Sequence[Trajectory], tracks_b: Sequence[Trajectory], E: np.ndarray) -> LagCurve | None:
    """Score all offsets by whether people's joints in one view lie on the epipolar lines of somebody in the other.

    Whoever is nearest counts, so identities need not be known. What unrelated moments cost is learnt from the other
    lags of the same two recordings. People who stand still agree with themselves at every lag: then the curve is flat
    and no peak of it deserves trust.

    Args:
        tracks_a: All people of camera a.
        tracks_b: All people of camera b.
        E: (3, 3) essential matrix, ``x_bᵀ E x_a = 0``.

    Returns:
        The curve over every lag at which they overlap; None if somebody is seen by one camera at most.
    """
    if not tracks_a or not tracks_b:
        return None
    time_a, time_b = _common_grid(tracks_a), _common_grid(tracks_b)
    xy_a, size_a = sample_slots(tracks_a, time_a)
    xy_b, size_b = sample_slots(tracks_b, time_b)
    occupied = np.flatnonzero(np.isfinite(xy_a).any((1, 2, 3)))
    chosen = occupied[np.unique(np.linspace(0, len(occupied) - 1, min(_SAMPLES, len(occupied))).astype(int))]
    moment = min(1.0, len(occupied) / max(len(chosen), 1) * LAG_STEP_S / _INDEPENDENT_S)

    moving = _movement(xy_a, size_a, LAG_STEP_S)[chosen]
    line = homogeneous(xy_a[chosen]) @ E.T  # (S, A, J, 3)
    line = (line / np.hypot(line[..., 0], line[..., 1])[..., None]).astype(np.float32)
    points = xy_b.astype(np.float32)
    scale = (np.sqrt(2) * NOISE * size_b).astype(np.float32)
    lags = np.arange(-(len(time_a) - 1), len(time_b))
    cost = np.zeros((len(lags), xy_a.shape[1]))
    moments = np.zeros_like(cost)
    for index, lag in enumerate(lags):
        at_b = chosen + lag
        rows = np.flatnonzero((at_b >= 0) & (at_b < len(time_b)))
        if len(rows):
            person_cost = _person_costs(line[rows], points[at_b[rows]], scale[at_b[rows]])
            seen = np.isfinite(person_cost)
            weight = np.where(seen, moving[rows] * moment, 0.0)
            cost[index], moments[index] = (weight * np.nan_to_num(person_cost)).sum(0), weight.sum(0)
    enough = moments >= 1.0
    if not enough.any():
        return None
    mean_cost = np.where(enough, cost / np.maximum(moments, 1e-9), np.nan)
    present = enough.any(0)
    mean_cost, moments, enough = mean_cost[:, present], moments[:, present], enough[:, present]
    contrast_cost = _CONTRAST * np.maximum(np.nanpercentile(mean_cost, 75, axis=0), _UNRELATED_COST)
    per_person = np.where(enough, _NATS * moments * (contrast_cost - np.nan_to_num(mean_cost)), 0.0)
    # Whoever b never sees must not speak against an offset for longer than it takes to notice.
    evidence = np.logaddexp(per_person, _UNMATCHED).sum(1)
    best_possible = (_NATS * moments * contrast_cost).sum(1)
    evidence = np.where(evidence < _SHARE * best_possible, np.minimum(evidence, 0.0), evidence)
    # Cameras of one session record together: the less of the recordings overlaps, the less likely is the offset.
    overlap = moments.sum(1) / moments.sum(1).max()
    evidence = evidence + _OVERLAP_PRIOR * np.log(np.maximum(overlap, 1e-6))
    evidence = np.where(enough.any(1), evidence, -np.inf)
    accepted_cost = min(float(contrast_cost.max()), _MATCH_COST)
    return LagCurve(time_b[0] - time_a[0] + lags * LAG_STEP_S, evidence, moments.sum(1), accepted_cost)


def epipolar_agreement(
    tracks_a: Sequence[Trajectory],
    tracks_b: Sequence[Trajectory],
    E: np.ndarray,
    time_a: np.ndarray,
    time_b: np.ndarray,
    every: int,
) -> np.ndarray:
    """Score shifts of one camera against another as ``epipolar_search`` does, but moment by moment.

    Args:
        tracks_a: All people of camera a.
        tracks_b: All people of camera b.
        E: (3, 3) essential matrix, ``x_bᵀ E x_a = 0``.
        time_a: (N,) evenly spaced times; each ``every``-th is a moment at which a is looked at.
        time_b: (N + D − 1,) times of b, as far apart; shift ``d`` compares a at ``time_a[n]`` with b at
            ``time_b[n + d]``.
        every: See ``time_a``.

    Returns:
        (T, D) evidence, nats, that each moment of a belongs to b at each shift; 0 where either sees nobody.
    """
    step_s = float(time_a[1] - time_a[0])
    xy_a, size_a = sample_slots(tracks_a, time_a)
    xy_b, size_b = sample_slots(tracks_b, time_b)
    at = np.arange(0, len(time_a), every)
    moving = _movement(xy_a, size_a, step_s)[at] * min(1.0, every * step_s / _INDEPENDENT_S)
    line = homogeneous(xy_a[at]) @ E.T
    line = (line / np.hypot(line[..., 0], line[..., 1])[..., None]).astype(np.float32)
    points, scale = xy_b.astype(np.float32), (np.sqrt(2) * NOISE * size_b).astype(np.float32)
    shifts = len(time_b) - len(time_a) + 1
    evidence = np.zeros((len(at), shifts))
    for shift in range(shifts) if xy_a.shape[1] and xy_b.shape[1] else ():
        cost = _person_costs(line, points[at + shift], scale[at + shift])
        evidence[:, shift] = (_NATS * moving * np.nan_to_num(_CONTRAST * _UNRELATED_COST - cost)).sum(1)
    return evidence


def _common_grid(tracks: Sequence[Trajectory]) -> np.ndarray:
    start, end = min(t.start_s for t in tracks), max(t.end_s for t in tracks)
    return start + LAG_STEP_S * np.arange(int((end - start) / LAG_STEP_S) + 1)


def _movement(xy: np.ndarray, size: np.ndarray, step_s: float) -> np.ndarray:
    """Return how much of a moment's worth each person's (T, S) movement is, in [0, 1], at times ``step_s`` apart.

    A person at rest agrees with any other moment of the same rest; only what moves tells one moment from another.
    """
    reach = max(1, round(_INDEPENDENT_S / 2 / step_s))
    ahead = np.minimum(np.arange(len(xy)) + reach, len(xy) - 1)
    behind = np.maximum(np.arange(len(xy)) - reach, 0)
    shift = np.linalg.norm(xy[ahead] - xy[behind], axis=-1) / (NOISE * size[..., None])
    seen = np.isfinite(shift)
    mean = np.where(seen, shift, 0).sum(-1) / np.maximum(seen.sum(-1), 1)
    return np.clip((mean - _REST_SIGMAS) / _REST_SIGMAS, 0.0, 1.0)


def _person_costs(line: np.ndarray, points: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Return the cost (S, A) of each person of a against the best fitting person of b; NaN where either is absent."""
    distance = (
        line[:, :, None, :, 0] * points[:, None, :, :, 0]
        + line[:, :, None, :, 1] * points[:, None, :, :, 1]
        + line[:, :, None, :, 2]
    ) / scale[:, None, :, None]
    cost = robust_cost(distance)  # (S, A, B, J)
    seen = np.isfinite(cost)
    count = seen.sum(-1)
    mean = np.where(seen, cost, 0).sum(-1) / np.maximum(count, 1)
    best = np.where(count >= 0.4 * cost.shape[-1], mean, np.inf).min(-1, initial=np.inf)
    return np.where(np.isfinite(best), best, np.nan)


def correlation_search(tracks_a: Sequence[Trajectory], tracks_b: Sequence[Trajectory]) -> LagCurve | None:
    """Score all offsets by how alike the joints' speeds rise and fall; needs no calibration.

    Pearson's correlation of log speeds, joint by joint, over the overlap of each lag, through the FFT with masks
    (Padfield 2012). Speeds are in body extents per second, which a camera's distance and focal length leave alone.

    Returns:
        The curve over every lag with an overlap; its evidence is −½ n log(1 − r²), n the independent moments. None if
        somebody is seen by one camera at most.
    """
    if not tracks_a or not tracks_b:
        return None
    step = LAG_STEP_S
    (start_a, signal_a), (start_b, signal_b) = _speed_signal(tracks_a, step), _speed_signal(tracks_b, step)
    correlation, count = _masked_correlation(signal_a, signal_b)
    joints = signal_a.shape[1]
    moments = count.sum(-1) / joints * step / _INDEPENDENT_S
    total = np.where(count > 0, correlation, 0.0).sum(-1) / joints
    enough = moments >= 2.0
    if not enough.any():
        return None
    rising = np.where(enough, np.clip(total, 0, 0.999), 0.0)
    evidence = np.where(enough, -0.5 * moments * np.log1p(-np.square(rising)), -np.inf)
    lags = np.arange(-(len(signal_a) - 1), len(signal_b))
    return LagCurve(start_b - start_a + lags * step, evidence, moments)


def _speed_signal(tracks: Sequence[Trajectory], step_s: float) -> tuple[float, np.ndarray]:
    """Return the first time and the log speed (T, J) of the fastest person at each joint; NaN where nobody is seen."""
    start, end = min(t.start_s for t in tracks), max(t.end_s for t in tracks)
    signal = np.full((int((end - start) / step_s) + 1, tracks[0].xy.shape[1]), np.nan)
    times = start + step_s * np.arange(len(signal))
    for track in tracks:
        rows = np.flatnonzero((times >= track.start_s + step_s) & (times <= track.end_s - step_s))
        if len(rows):
            before, size = track.at(times[rows] - step_s)
            after, _ = track.at(times[rows] + step_s)
            speed = np.linalg.norm(after - before, axis=-1) / (2 * step_s * size[:, None])
            signal[rows] = np.fmax(signal[rows], np.log(speed + 0.1))
    return start, signal


def _masked_correlation(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return Pearson's r (L, J) and the number of common samples (L, J) at all lags of b against a."""
    mask_a, mask_b = np.isfinite(a).astype(float), np.isfinite(b).astype(float)
    a, b = (np.where(m > 0, x - x.sum(where=m > 0) / max(m.sum(), 1.0), 0.0) for x, m in ((a, mask_a), (b, mask_b)))
    size = 1 << int(np.ceil(np.log2(len(a) + len(b))))

    def cross(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        product = np.fft.irfft(np.conj(np.fft.rfft(x, size, axis=0)) * np.fft.rfft(y, size, axis=0), size, axis=0)
        return np.concatenate([product[size - (len(a) - 1) :], product[: len(b)]])

    count = np.round(cross(mask_a, mask_b))
    n = np.maximum(count, 1)
    sum_a, sum_b = cross(a, mask_b), cross(mask_a, b)
    variance_a = cross(a * a, mask_b) - sum_a**2 / n
    variance_b = cross(mask_a, b * b) - sum_b**2 / n
    covariance = cross(a, b) - sum_a * sum_b / n
    return covariance / np.sqrt(np.maximum(variance_a, 1e-3) * np.maximum(variance_b, 1e-3)), count
