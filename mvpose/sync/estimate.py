"""Estimate the offset of every pair of cameras: keypoints in, graph out."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from mvpose.calib.camera import Camera
from mvpose.errors import SyncError
from mvpose.geometry import essential_matrix
from mvpose.keypoints import UNTRACKED, Keypoints2D
from mvpose.sync.coarse import LagCurve, Peak, correlation_search, epipolar_search
from mvpose.sync.offsets import CLEAR_WEIGHT, Mode, OffsetGraph, PairMethod, PairwiseOffset, Support, edge
from mvpose.sync.pairs import Match, PairFit, basin, fit_offset, match_people
from mvpose.sync.trajectories import Trajectory, all_trajectories

if TYPE_CHECKING:
    from mvpose.sync.learned import LearnedFit, LearnedView

_EPOCH_S = 20.0  # an epoch holds at least this much common time, so that each has a sigma of its own worth
_MOST_EPOCHS = 8
_CORRELATION_SIGMA_S = 0.02  # even a perfect peak is this uncertain: two views of one movement do not speed up as one
_SEARCH_NATS = 10.0  # less evidence than the best peak by this much is not made up for by windows that overlap fully
_MISTAKEN_NATS = 7.0  # one hint in a thousand is a mistake, and no better evidence is overruled by it
_CERTAIN_S = 1e-4  # sigma of what users call certain


@dataclass(frozen=True)
class Hint:
    """What a user knows of a camera's clock: ``t_session = offset_s + t_camera``, give or take ``sigma_s``."""

    offset_s: float
    sigma_s: float

    def __post_init__(self) -> None:
        if not (np.isfinite(self.offset_s) and 0 <= self.sigma_s < np.inf):
            raise ValueError(f"a hint of {self.offset_s} ± {self.sigma_s} s must be finite, its sigma 0 or more")


@dataclass(frozen=True)
class PairEstimate:
    """The edges of one pair, or why there are none."""

    edges: tuple[PairwiseOffset, ...]
    why_not: str = ""


def estimate_offsets(
    keypoints: Mapping[str, Keypoints2D],
    cameras: Mapping[str, Camera] | None = None,
    *,
    methods: Sequence[PairMethod] | None = None,
    hints: Mapping[str, Hint] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> OffsetGraph:
    """Estimate the offsets of all pairs.

    Calibrated pairs are searched and refined by epipolar geometry, and by InSynFormer where that finds nothing; without
    a calibration there is InSynFormer alone.

    Args:
        keypoints: Tracked keypoints of each camera.
        cameras: Their calibration; None without.
        methods: Estimators to use: insynformer, epipolar (calibrated only), correlation (of joint speeds). By default
            those named above.
        hints: What the user knows of some cameras' clocks; joins as edges, and settles which peak is meant.
        progress: Called with (pairs done, pairs in all).
    """
    hints = hints or {}
    usual: Sequence[PairMethod] = ("insynformer",) if cameras is None else ("epipolar",)
    estimators = [_ESTIMATORS[method](keypoints, cameras) for method in dict.fromkeys(methods or usual)]
    spare = cache(lambda: _by_learning(keypoints, cameras)) if methods is None and cameras is not None else None
    pairs = list(itertools.combinations(sorted(keypoints), 2))
    edges: list[PairwiseOffset] = []
    reasons: dict[str, list[str]] = {name: [] for name in keypoints}
    for done, (a, b) in enumerate(pairs):
        prior = _hinted_offset(hints, a, b)
        estimates = [estimator(a, b, prior) for estimator in estimators]
        if spare is not None and not estimates[0].edges:
            estimates.append(spare()(a, b, prior))
        for estimate in estimates:
            edges += estimate.edges
            if estimate.why_not:
                reasons[a].append(f"{estimate.why_not} in {b}")
                reasons[b].append(f"{estimate.why_not} in {a}")
        if prior is not None:
            edges.append(_hinted_edge(keypoints[a], keypoints[b], prior))
        if progress:
            progress(done + 1, len(pairs))
    notes = {name: _why_unreachable(keypoints[name], reasons[name]) for name in keypoints}
    return OffsetGraph(tuple(keypoints), tuple(edges), {name: note for name, note in notes.items() if note})


PairEstimator = Callable[[str, str, Hint | None], PairEstimate]


def _by_epipolar(keypoints: Mapping[str, Keypoints2D], cameras: Mapping[str, Camera] | None) -> PairEstimator:
    if cameras is None:
        raise ValueError("epipolar geometry needs a calibration")
    try:
        tracks = all_trajectories(keypoints, cameras)
    except ValueError as error:
        sets = "; ".join(f"{name}: {', '.join(k.skeleton.joint_names[:4])} …" for name, k in keypoints.items())
        raise SyncError(f"{error} ({sets}): detect all cameras alike, or leave one out with --skip") from error
    return lambda a, b, prior: epipolar_pair(
        a, b, tracks[a], tracks[b], essential_matrix(cameras[a], cameras[b]), prior
    )


def _by_correlation(keypoints: Mapping[str, Keypoints2D], cameras: Mapping[str, Camera] | None) -> PairEstimator:
    tracks = all_trajectories(keypoints, None)
    return lambda a, b, prior: correlated_pair(a, b, tracks[a], tracks[b], prior)


def _by_learning(keypoints: Mapping[str, Keypoints2D], cameras: Mapping[str, Camera] | None) -> PairEstimator:
    from mvpose.sync.learned import learned_views

    views = learned_views(keypoints, cameras)
    return lambda a, b, prior: learned_pair(a, b, views[a], views[b], prior)


_ESTIMATORS: dict[PairMethod, Callable[[Mapping[str, Keypoints2D], Mapping[str, Camera] | None], PairEstimator]] = {
    "epipolar": _by_epipolar,
    "insynformer": _by_learning,
    "correlation": _by_correlation,
}


def _hinted_offset(hints: Mapping[str, Hint], a: str, b: str) -> Hint | None:
    """Turn hints on two clocks into a hint on their offset: at one session time, t_b − t_a = offset_a − offset_b."""
    if a not in hints or b not in hints:
        return None
    return Hint(hints[a].offset_s - hints[b].offset_s, float(np.hypot(hints[a].sigma_s, hints[b].sigma_s)))


def _hinted_edge(a: Keypoints2D, b: Keypoints2D, hint: Hint) -> PairwiseOffset:
    """File a hint half-way between the middles of both recordings: it is of the recording, and tells of no drift.

    Time 0 may be decades away, where times are the seconds since 1970.
    """
    at_s = (a.middle_s + b.middle_s - hint.offset_s) / 2
    return edge(a.camera, b.camera, at_s, hint.offset_s, max(hint.sigma_s, _CERTAIN_S), "hint")


def _why_unreachable(keypoints: Keypoints2D, reasons: Sequence[str]) -> str:
    if not len(keypoints.xy_px):
        return "nobody is seen in its view"
    seen = np.isfinite(keypoints.xy_px).all(-1).any(-1) & (keypoints.track_id != UNTRACKED)
    time_s, track = keypoints.time_s[keypoints.frame_index[seen]], keypoints.track_id[seen]
    if max((np.ptp(time_s[track == t]) for t in np.unique(track)), default=0.0) < 0.3:
        return "nobody is seen in its view for longer than a moment"
    return "; ".join(dict.fromkeys(reasons))


def _ranked(curve: LagCurve, prior: Hint | None) -> list[Peak]:
    """Return the peaks worth a refinement, best first, a user's hint weighed in."""
    peaks = curve.peaks(_log_prior(curve.offset_s, prior))
    return [p for p in peaks if p.evidence + _log_prior(p.offset_s, prior) > curve.chance_evidence]


def _log_prior(offset_s: np.ndarray | float, prior: Hint | None) -> np.ndarray | float:
    """Return the nats, 0 at most, that a user's hint gives offsets (...)."""
    if prior is None:
        return 0.0
    return np.maximum(-0.5 * ((offset_s - prior.offset_s) / max(prior.sigma_s, 0.1)) ** 2, -_MISTAKEN_NATS)


def _weights(peaks: Sequence[Peak], prior: Hint | None) -> np.ndarray:
    """Return the probability of each peak, given that one of them is right."""
    first = peaks[0]
    log_odds = np.array([_log_prior(p.offset_s, prior) - first.log_odds_over(p) for p in peaks])
    weights = np.exp(log_odds - log_odds.max())
    return np.asarray(weights / weights.sum())


def epipolar_pair(
    a: str,
    b: str,
    tracks_a: Sequence[Trajectory],
    tracks_b: Sequence[Trajectory],
    E: np.ndarray,
    prior: Hint | None = None,
) -> PairEstimate:
    """Estimate one calibrated pair: whole-recording search, then refinement of its best peaks, then epochs."""
    curve = epipolar_search(tracks_a, tracks_b, E)
    if curve is None:
        return PairEstimate((), "nobody moves enough in its view or" if tracks_a and tracks_b else "nobody is seen")
    rivals: list[Peak] = []  # a peak that cannot be refined is no answer, but remains a rival of those that can
    candidates: list[tuple[PairFit, int, list[Match]]] = []
    for peak in _ranked(curve, prior):
        matches = match_people(tracks_a, tracks_b, E, peak.offset_s, curve.accepted_cost)
        fit = _refined(peak, matches, E) if matches else None
        if fit is not None and any(abs(fit.offset_s - other.offset_s) <= 0.1 for other, _, _ in candidates):
            continue  # the slope of a basin that has been found
        if fit is not None:
            candidates.append((fit, len(rivals), matches))
        rivals.append(peak)
    if not candidates:
        return PairEstimate((), "nobody in its view moves as anybody")
    weights = _weights(rivals, prior)[[index for _, index, _ in candidates]]
    order = np.argsort(-weights, kind="stable")
    modes = tuple(
        Mode(candidates[i][0].offset_s, candidates[i][0].sigma_s, float(weights[i])) for i in order if weights[i] > 1e-6
    )
    fit, _, matches = candidates[order[0]]
    edges = (_edge(a, b, epoch, modes, fit, "epipolar") for epoch in _epochs(fit, matches, E))
    return PairEstimate(tuple(unless_ambiguous(e) for e in edges))


def _refined(peak: Peak, matches: Sequence[Match], E: np.ndarray) -> PairFit | None:
    start, _ = basin(matches, E, peak.offset_s)
    return fit_offset(matches, E, (float(np.mean(matches[0].time_s)), start, 0.0))


def unless_ambiguous(e: PairwiseOffset) -> PairwiseOffset:
    """Return an estimate, rejected if another offset is nearly as likely."""
    if e.modes[0].weight >= CLEAR_WEIGHT:
        return e
    rival = f"an offset of {e.modes[1].offset_s:.2f} s" if len(e.modes) > 1 else "another offset"
    return e.rejected(f"{rival} is nearly as likely as {e.offset_s:.2f} s")


def _edge(
    a: str,
    b: str,
    epoch: PairFit | LearnedFit,
    modes: Sequence[Mode],
    whole: PairFit | LearnedFit,
    method: PairMethod,
    windows: int = 0,
) -> PairwiseOffset:
    """File an epoch's fit; rival peaks of the whole recording stay the same distance away at every epoch."""
    return PairwiseOffset(
        a,
        b,
        at_s=epoch.at_s,
        offset_s=epoch.offset_s,
        sigma_s=epoch.sigma_s,
        method=method,
        modes=moved_modes(modes, epoch.offset_s, epoch.sigma_s, epoch.offset_s - whole.offset_s),
        support=Support(windows=windows, joints=epoch.joints, seconds=round(epoch.seconds, 3)),
    )


def moved_modes(modes: Sequence[Mode], offset_s: float, sigma_s: float, shift_s: float) -> tuple[Mode, ...]:
    """Return a recording's modes at an epoch: the best one as fitted there, its rivals as far from it as ever."""
    rivals = (Mode(m.offset_s + shift_s, m.sigma_s, m.weight) for m in modes[1:])
    return (Mode(offset_s, sigma_s, modes[0].weight), *rivals)


def _epochs(fit: PairFit, matches: Sequence[Match], E: np.ndarray) -> list[PairFit]:
    """Fit the offset in consecutive windows of the recording, so that the graph sees drift; one where it is short."""
    time = np.sort(np.concatenate([m.time_s for m in matches]))
    count = int(np.clip((time[-1] - time[0]) / _EPOCH_S, 1, _MOST_EPOCHS))
    edges = np.linspace(time[0], time[-1] + 1e-6, count + 1)
    if count == 1:
        return [fit]
    found = []
    for window in itertools.pairwise(edges):
        middle = float(np.mean(window))
        start = (middle, fit.offset_s + fit.drift * (middle - fit.at_s), fit.drift)
        epoch = fit_offset(matches, E, start, window=window, fit_drift=False)
        if epoch is not None and abs(epoch.offset_s - start[1]) < 0.15:
            found.append(epoch)
    return found or [fit]


def learned_pair(a: str, b: str, view_a: LearnedView, view_b: LearnedView, prior: Hint | None = None) -> PairEstimate:
    """Estimate one pair by InSynFormer: whole-recording search, refinement of its best peaks, epochs.

    Calibrated views are refined by the network that compares rays; the search compares image coordinates always.
    """
    from mvpose.sync.learned import MOMENTS, fit_learned, learned_search, shipped_network

    curve = learned_search(view_a, view_b, shipped_network(rays=False))
    if curve is None:
        return PairEstimate((), "nobody is seen with enough joints, long enough, in its view or")
    network = shipped_network(rays=view_a.camera is not None)
    fits: list[LearnedFit] = []
    peaks = curve.peaks(_log_prior(curve.offset_s, prior))
    for peak in peaks:
        within_reach = peak.evidence > peaks[0].evidence - _SEARCH_NATS
        fit = fit_learned(view_a, view_b, network, peak.offset_s) if within_reach else None
        if fit is not None and all(abs(fit.offset_s - other.offset_s) > 0.1 for other in fits):
            fits.append(fit)
    # Windows cut at the offset overlap fully, those of the search did not: it is the fit that must beat chance.
    surplus = {id(fit): _beyond_chance(fit, curve, prior) for fit in fits}
    fits = [fit for fit in fits if surplus[id(fit)] > 0]
    if not fits:
        return PairEstimate((), "no motion of its view is found again")
    fits.sort(key=lambda fit: -(fit.nats + float(_log_prior(fit.offset_s, prior))))  # weights are against the first
    rivals = [Peak(fit.offset_s, fit.nats, fit.windows * MOMENTS) for fit in fits]
    # What is left to 1 is the probability that the recordings have nothing to do with each other.
    weights = _weights(rivals, prior) / (1 + np.exp(-max(surplus.values())))
    order = np.argsort(-weights, kind="stable")
    modes = tuple(Mode(fits[i].offset_s, fits[i].sigma_s, float(weights[i])) for i in order if weights[i] > 1e-6)
    whole = fits[order[0]]
    epochs = _learned_epochs(view_a, view_b, whole)
    edges = (_edge(a, b, epoch, modes, whole, "insynformer", epoch.windows) for epoch in epochs)
    return PairEstimate(tuple(unless_ambiguous(e) for e in edges))


def _beyond_chance(fit: LearnedFit, curve: LagCurve, prior: Hint | None) -> float:
    """Return the nats by which a fit is better than the best that unrelated recordings would give at some offset.

    The less of the recordings overlaps, the less likely is the offset, as in the search.
    """
    moments = float(curve.moments[int(np.argmin(np.abs(curve.offset_s - fit.offset_s)))])
    overlap = max(moments, 1.0) / float(curve.moments.max())
    return float(fit.nats + 2.0 * np.log(overlap) + _log_prior(fit.offset_s, prior) - curve.chance_evidence)


def _learned_epochs(view_a: LearnedView, view_b: LearnedView, whole: LearnedFit) -> list[LearnedFit]:
    """Fit the offset in consecutive stretches of the common time, so that the graph sees drift."""
    from mvpose.sync.learned import common_time, fit_learned, shipped_network

    start, end = common_time(view_a, view_b, whole.offset_s)
    count = int(np.clip((end - start) / _EPOCH_S, 1, _MOST_EPOCHS))
    if count == 1:
        return [whole]
    network = shipped_network(rays=view_a.camera is not None)
    bounds = itertools.pairwise(np.linspace(start, end, count + 1))
    epochs = [fit_learned(view_a, view_b, network, whole.offset_s, window) for window in bounds]
    return [e for e in epochs if e is not None and abs(e.offset_s - whole.offset_s) < 0.15] or [whole]


def correlated_pair(
    a: str, b: str, tracks_a: Sequence[Trajectory], tracks_b: Sequence[Trajectory], prior: Hint | None = None
) -> PairEstimate:
    """Estimate one pair from the correlation of joint speeds alone."""
    curve = correlation_search(tracks_a, tracks_b)
    peaks = [] if curve is None else _ranked(curve, prior)
    if curve is None or not peaks:
        return PairEstimate((), "no motion of its view is found again")
    weights = _weights(peaks, prior)
    modes = tuple(
        Mode(*_parabola(curve, peaks[i].offset_s), weight=float(weights[i]))
        for i in np.argsort(-weights, kind="stable")
        if weights[i] > 1e-6
    )
    start = max(min(t.start_s for t in tracks_a), min(t.start_s for t in tracks_b) - modes[0].offset_s)
    end = min(max(t.end_s for t in tracks_a), max(t.end_s for t in tracks_b) - modes[0].offset_s)
    support = Support(windows=1, joints=tracks_a[0].xy.shape[1], seconds=round(max(end - start, 0.0), 3))
    best = modes[0]
    found = PairwiseOffset(
        a, b, (start + end) / 2, best.offset_s, best.sigma_s, "correlation", modes=modes, support=support
    )
    return PairEstimate((unless_ambiguous(found),))


def _parabola(curve: LagCurve, offset_s: float) -> tuple[float, float]:
    """Return the vertex of the parabola through a peak and its neighbours, and the sigma that its curvature gives."""
    index = int(np.argmin(np.abs(curve.offset_s - offset_s)))
    if not 0 < index < len(curve.offset_s) - 1 or not np.isfinite(curve.evidence[index - 1 : index + 2]).all():
        return offset_s, 0.5
    before, peak, after = curve.evidence[index - 1 : index + 2]
    step = float(curve.offset_s[index] - curve.offset_s[index - 1])
    curvature = (before - 2 * peak + after) / step**2
    if curvature >= 0:
        return offset_s, 0.5
    vertex = offset_s - 0.5 * (after - before) / step / curvature
    return float(vertex), float(np.hypot(1 / np.sqrt(-curvature), _CORRELATION_SIGMA_S))
