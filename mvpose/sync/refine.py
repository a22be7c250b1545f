"""Refine all clocks together, in continuous time, by everybody whom two calibrated cameras see.

Where ``refine.fit_offset`` fits one pair, this fits the offset and rate of every camera at once to the epipolar
residuals of all pairs. Two things make it sharper than pairs that are reconciled afterwards:

*The slow part of a detector's error is taken out.* A detector puts a joint beside where it is, and keeps doing so for a
second and more; only a fifth of the error is new in each frame. Timing shows in what changes faster than that. So the
running mean is subtracted from the residuals and from their derivatives alike, which is least squares with a smooth
unknown bias for every joint and pair (Robinson 1988; Speckman 1988).

*Errors of one camera are in all of its pairs.* The scores of all pairs are summed over blocks of time before they are
squared, so the covariance of the clocks holds what pairs share (Liang & Zeger 1986).
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np
from scipy.linalg import eigh
from scipy.ndimage import uniform_filter1d

from mvpose.calib.camera import Camera
from mvpose.clock import Clock, Clocks, carried
from mvpose.geometry import essential_matrix, homogeneous
from mvpose.sync.coarse import NOISE, OUTLIER_SCALE
from mvpose.sync.jumps import Jump, plainest_first, written_s
from mvpose.sync.offsets import PairwiseOffset
from mvpose.sync.pairs import SAMPLE_STEP_S, joint_spread, match_people
from mvpose.sync.solve import decorrelated, settled
from mvpose.sync.trajectories import Trajectory

RATE_SIGMA = 1e-4
"""Spread of consumer clocks' rates about each other before any data."""

_BIAS_S = 0.6  # width of the boxes whose double running mean is taken for a detector's bias; chosen on val recordings
_BIAS_SHARE = 0.9  # of it is taken out: some of what changes slowly is motion, and tells of long ones
_BIN_S, _BLOCK_S = 0.25, 2.0  # sums are kept by bins; those over whole blocks are independent
_MATCH_COST = 0.5  # two tracks that cost more than this are never one person
_ITERATIONS = 15
_CONVERGED_S = 2e-6
_LARGEST_STEP_S = 0.05
_PRIOR_DISPERSION, _PRIOR_BLOCKS = 4.0, 4.0  # inflation of the variance where few blocks show it
_UNMODELLED = 1.15  # root mean square z-score of the covariance alone on val recordings
_LEAST_MOTION = 0.02  # share of the squared derivatives that is motion, not noise, at least
_START_SIGMA_S = 0.1  # of the clocks that the fit starts from
_READOUT_SIGMA_S = 0.02  # of a read-out time before any data
_DECISIVE_SIGMAS = 5.0  # of a jump: nobody told of it, so it has to be plain
_DECISIVE_NATS, _SUSPECT_NATS = 10.0, 4.0  # against all read-outs being one
_ROWS = "cameras seem to read their rows at different speeds; give rolling_shutter_s"
_LEAST_READOUT_S, _LEAST_JUMP_S = 0.004, 0.008
_LEAST_SHARE = 0.05  # of what the best place for a jump is known by; beside it nothing lies on one side of the jump

Lever = Literal["offset", "rate", "readout"]
"""How far a camera's session time is ahead in proportion to an unknown. ``offset``: 1. ``rate``: session time from the
centre, in units of ``RATE_SIGMA``. ``readout``: how far below the middle row a joint is, in heights of the image."""

Column = tuple[str, Lever]
"""An unknown: whose, and which."""


def refine_clocks(
    tracks: Mapping[str, Sequence[Trajectory]],
    cameras: Mapping[str, Camera],
    clocks: Clocks,
    cues: Sequence[PairwiseOffset] = (),
    untold: Collection[str] = (),
) -> Clocks:
    """Fit all clocks together, from clocks that are right to about a tenth of a second.

    A camera of which nobody told may read its rows one after the other: joints low in the image are then late against
    those high up. Its read-out time is one more unknown.

    Args:
        tracks: All people of each camera, in normalised coordinates.
        cameras: Their calibration.
        clocks: Where to start; says which camera is the reference.
        cues: Estimates that come from anything but keypoints; they count by their sigmas.
        untold: Cameras whose read-out time is not known.

    Returns:
        The clocks, refined; those that no common motion connects to the reference are as they were. A rate that the
        data do not speak for is 1, and its sigma is the bound. Unless they speak for more, all read-out times are one,
        or 0; what is left open of them then is in the covariances. A camera's times are those of its first row where
        ``readout_s`` says that it reads them one by one, of its middle row otherwise.
    """
    problem = _problem(tracks, cameras, clocks)
    if not problem.free:
        return clocks
    rows: list[Column] = [(name, "readout") for name in problem.names if name in untold]
    columns = [*problem.columns("offset", "rate"), *rows]
    found, readouts, left_open = _fit(problem, columns, clocks.clocks, cues)
    step, decided, doubt = _simplest(columns, readouts, left_open)
    readouts = {name: own_s for (name, lever), own_s in zip(columns, step.tolist(), strict=True) if lever == "readout"}
    if np.ptp([readouts.get(name, 0.0) for name in problem.names]) > _LEAST_READOUT_S:  # of others it is undone
        first = _first_rows(problem, columns)
        step, left_open = first @ step, first @ left_open @ first.T
    scale = np.outer([1.0, RATE_SIGMA], [1.0, RATE_SIGMA])
    for name in problem.free:
        own = [columns.index((name, "offset")), columns.index((name, "rate"))]
        clock = _moved(found[name], float(step[own[0]]), float(step[own[1]]) * RATE_SIGMA, problem.centre_s)
        square = np.ix_(own, own)
        clock = replace(clock, verdict="doubtful" if doubt else "good", why=doubt)
        found[name] = _known(clock, decided[square] * scale, left_open[square] * scale, problem.centre_s)
    late = {name: replace(found[name], readout_s=own_s) for name, own_s in readouts.items() if own_s > 0}
    return replace(clocks, clocks=found | late)


def find_jumps(tracks: Mapping[str, Sequence[Trajectory]], cameras: Mapping[str, Camera], clocks: Clocks) -> list[Jump]:
    """Find each camera's plainest jump, of a tenth of a second at most, if it is plain; the plainest of all first.

    Every bin boundary of every camera is tried as one more unknown of the joint fit: the offset from there on (the
    supremum of score tests; Andrews 1993). What one camera jumps by shows in the others as well, only less.

    Args:
        tracks: All people of each camera, in normalised coordinates.
        cameras: Their calibration.
        clocks: Refined clocks.
    """
    plainest = []
    for jumps in _steps(tracks, cameras, clocks):
        jump = max(jumps, key=lambda jump: abs(jump.jump_s) / jump.sigma_s)
        if abs(jump.jump_s) > max(_DECISIVE_SIGMAS * jump.sigma_s, _LEAST_JUMP_S):
            plainest.append(jump)
    return plainest_first(plainest, [abs(jump.jump_s) / jump.sigma_s for jump in plainest])


def step_at(
    tracks: Mapping[str, Sequence[Trajectory]], cameras: Mapping[str, Camera], clocks: Clocks, camera: str, at_s: float
) -> Jump | None:
    """Return by how much a camera's clock jumps at a written time, plain or not; None if nobody sees it."""
    steps = (step for jumps in _steps(tracks, cameras, clocks) for step in jumps if step.camera == camera)
    return min(steps, key=lambda step: abs(step.at_s - at_s), default=None)


def _steps(
    tracks: Mapping[str, Sequence[Trajectory]], cameras: Mapping[str, Camera], clocks: Clocks
) -> Iterator[list[Jump]]:
    """Yield each camera's steps at all bin boundaries; one that nothing lies on one side of is 0."""
    problem = _problem(tracks, cameras, clocks)
    if not problem.free:
        return
    columns = problem.columns("offset", "rate")
    everyone = [*columns, (clocks.reference, "offset")]
    normal = _normal_equations(problem, everyone, clocks.clocks, {})
    beliefs = _beliefs(problem, columns, clocks.clocks, {})
    for name in problem.names:
        step_s, sigma_s = _steps_after(normal, everyone.index((name, "offset")), beliefs)
        at_s = clocks[name].to_camera(problem.grid[0] + _BIN_S * np.arange(len(step_s)))
        written = [written_s(clocks[name], at) for at in at_s.tolist()]
        yield [Jump(name, *step) for step in zip(written, step_s.tolist(), sigma_s.tolist(), strict=True)]


def _fit(
    problem: _Problem,
    columns: Sequence[Column],
    clocks: Mapping[str, Clock],
    cues: Sequence[PairwiseOffset] = (),
) -> tuple[dict[str, Clock], dict[str, float], np.ndarray]:
    """Fit the unknowns: return the clocks, the read-out times, s, and the covariance (p, p) of the columns."""
    found, readouts = dict(clocks), dict.fromkeys(problem.names, 0.0)
    for _ in range(_ITERATIONS):
        normal = _normal_equations(problem, columns, found, readouts)
        beliefs = _beliefs(problem, columns, found, readouts, cues)
        step = normal.step(beliefs)
        largest = max(abs(value) for (_, lever), value in zip(columns, step, strict=True) if lever == "offset")
        step *= min(1.0, _LARGEST_STEP_S / max(largest, 1e-12))
        moves = dict(zip(columns, step.tolist(), strict=True))
        for name in problem.free:
            found[name] = _moved(found[name], moves[name, "offset"], moves[name, "rate"] * RATE_SIGMA, problem.centre_s)
        readouts = {name: value + moves.get((name, "readout"), 0.0) for name, value in readouts.items()}
        if largest < _CONVERGED_S:
            break
    return found, readouts, normal.covariance(beliefs)


def _steps_after(normal: _Normal, own: int, beliefs: _Beliefs) -> tuple[np.ndarray, np.ndarray]:
    """Return how far a camera's offset (the column ``own``) steps at the start of each bin (B,), and the sigma."""
    known = len(beliefs.pull)

    def after(values: np.ndarray) -> np.ndarray:
        return np.cumsum(values[::-1], axis=0)[::-1] / normal.dispersion

    fixed = normal.curvature[:, :known, :known].sum(0) / normal.dispersion + beliefs.information
    score = normal.score[:, :known].sum(0) / normal.dispersion + beliefs.pull
    across = after(normal.curvature[:, own, :known])  # (B, p)
    explained = np.linalg.solve(fixed, across.T).T
    left = after(normal.curvature[:, own, own]) - (explained * across).sum(1)
    enough = left > max(_LEAST_SHARE * left.max(initial=0.0), 1e-9)
    left = np.where(enough, left, 1.0)
    step = -(after(normal.score[:, own]) - explained @ score) / left
    return np.where(enough, step, 0.0), _UNMODELLED / np.sqrt(left)


@dataclass(frozen=True)
class _Common:
    """One person in two cameras, for as long as both see them.

    Attributes:
        pair: Names of the cameras.
        tracks: The person in either.
        rows: Moments of the grid of session times.
    """

    pair: tuple[str, str]
    tracks: tuple[Trajectory, Trajectory]
    rows: slice


@dataclass(frozen=True)
class _Problem:
    """What is fitted.

    Attributes:
        common: Everybody whom two cameras see.
        cameras: Their calibration.
        names: Cameras that somebody connects with the reference, itself included.
        reference: Its name.
        start: The clocks to start from.
        grid: (T,) moments of session time at which residuals are taken.
        centre_s: The mean moment of what is compared: offsets there and rates are least correlated.
    """

    common: list[_Common]
    cameras: Mapping[str, Camera]
    names: list[str]
    reference: str
    start: Mapping[str, Clock]
    grid: np.ndarray
    centre_s: float

    @property
    def free(self) -> list[str]:
        """Cameras whose clocks are unknown."""
        return [name for name in self.names if name != self.reference]

    def columns(self, *levers: Lever) -> list[Column]:
        """Return the unknowns of free clocks, lever by lever."""
        return [(name, lever) for lever in levers for name in self.free]


def _problem(tracks: Mapping[str, Sequence[Trajectory]], cameras: Mapping[str, Camera], clocks: Clocks) -> _Problem:
    grid = _grid(tracks, clocks)
    common = list(_common_people(tracks, cameras, clocks, grid))
    reached = _reached(clocks.reference, [c.pair for c in common])
    common = [c for c in common if c.pair[0] in reached]
    weights = [c.rows.stop - c.rows.start for c in common]
    centre_s = float(np.average([grid[c.rows].mean() for c in common], weights=weights)) if common else 0.0
    names = [name for name in clocks.clocks if name in reached]
    return _Problem(common, cameras, names, clocks.reference, clocks.clocks, grid, centre_s)


@dataclass(frozen=True)
class _Terms:
    """What one ``_Common`` says at each moment, joint by joint (n, J), of its pair's offset.

    Attributes:
        score: Derivative of the robust cost.
        curvature: Its derivative as fitting steps take it, positive.
        information: Its expected derivative, from motion that both views show.
    """

    score: np.ndarray
    curvature: np.ndarray
    information: np.ndarray


@dataclass(frozen=True)
class _Beliefs:
    """What is known beside the keypoints: its information (p, p), and its pull (p,) at the present clocks."""

    information: np.ndarray
    pull: np.ndarray


@dataclass(frozen=True)
class _Normal:
    """Normal equations of all unknowns (p,), in bins (B,) of session time.

    Attributes:
        score: (B, p).
        curvature: (B, p, p).
        information: (B, p, p).
    """

    score: np.ndarray
    curvature: np.ndarray
    information: np.ndarray

    @cached_property
    def known(self) -> np.ndarray:
        """(p, p) summed information; positive, though what hardly moves may show less than nothing."""
        curvature = self.curvature.sum(0)
        curvature = curvature + np.diag(1e-6 * np.diag(curvature) + 1e-12)
        share, direction = eigh(self.information.sum(0), curvature)
        back = curvature @ direction
        return np.asarray((back * np.maximum(share, _LEAST_MOTION)) @ back.T)

    @cached_property
    def meat(self) -> np.ndarray:
        """(p, p) covariance of the summed score, from what blocks of time show and from a prior worth a few blocks."""
        starts = np.arange(0, len(self.score), round(_BLOCK_S / _BIN_S))
        blocks = np.add.reduceat(self.score, starts)
        weight = np.add.reduceat(np.trace(self.curvature, axis1=1, axis2=2), starts)
        effective = np.square(weight.sum()) / max(np.square(weight).sum(), 1e-300)
        prior = _PRIOR_DISPERSION * self.known
        return np.asarray((effective * blocks.T @ blocks + _PRIOR_BLOCKS * prior) / (effective + _PRIOR_BLOCKS))

    @cached_property
    def dispersion(self) -> float:
        """How many times larger the score's variance is than if all residuals were independent."""
        return max(float(np.trace(self.meat) / np.trace(self.known)), 1.0)

    def step(self, beliefs: _Beliefs) -> np.ndarray:
        """Return the next step (p,) of the fit."""
        normal = self.curvature.sum(0) / self.dispersion + beliefs.information
        return -np.linalg.solve(normal, self.score.sum(0) / self.dispersion + beliefs.pull)

    def covariance(self, beliefs: _Beliefs) -> np.ndarray:
        """Return the covariance (p, p) of the unknowns: the sandwich of scores and information."""
        bread = np.linalg.inv(self.known / self.dispersion + beliefs.information)
        return np.asarray(_UNMODELLED**2 * bread @ (self.meat / self.dispersion**2 + beliefs.information) @ bread.T)


def _common_people(
    tracks: Mapping[str, Sequence[Trajectory]], cameras: Mapping[str, Camera], clocks: Clocks, grid: np.ndarray
) -> Iterator[_Common]:
    """Yield who is seen by two cameras at once, and when, by the clocks as they are."""
    for a, b in itertools.combinations(sorted(clocks.clocks), 2):
        E = essential_matrix(cameras[a], cameras[b])
        clock = clocks[a]
        for match in match_people(tracks[a], tracks[b], E, clocks.offset_s(a, b), _MATCH_COST):
            start, end = np.searchsorted(grid, clock.to_session(match.time_s[[0, -1]]))
            if end - start >= 2:
                yield _Common((a, b), (match.track_a, match.track_b), slice(int(start), int(end)))


def _grid(tracks: Mapping[str, Sequence[Trajectory]], clocks: Clocks) -> np.ndarray:
    """Return the moments (T,) of session time at which residuals are taken."""
    spans = [
        clock.to_session(np.array([track.start_s, track.end_s]))
        for name, clock in clocks.clocks.items()
        for track in tracks[name]
    ]
    start, end = min((s[0] for s in spans), default=0.0), max((s[1] for s in spans), default=0.0)
    return np.arange(start, end, SAMPLE_STEP_S)


def _reached(reference: str, pairs: Sequence[tuple[str, str]]) -> set[str]:
    """Return the cameras that pairs connect with the reference."""
    reached, before = {reference}, 0
    while len(reached) > before:
        before = len(reached)
        reached |= {name for pair in pairs if reached & set(pair) for name in pair}
    return reached


@dataclass(frozen=True)
class _Seen:
    """A track at some moments.

    Attributes:
        xy: (n, J, 2) positions.
        velocity: (n, J, 2) smoothed velocities, per second.
        slope: (n, J, 2) plain ones.
        sigma: (n, 1) noise of a joint.
        row: (n, J) how far below the middle row each joint is, in heights of the image.
    """

    xy: np.ndarray
    velocity: np.ndarray
    slope: np.ndarray
    sigma: np.ndarray
    row: np.ndarray


def _seen(track: Trajectory, clock: Clock, time_s: np.ndarray, camera: Camera, readout_s: float) -> _Seen:
    """Look at a track at session times, each joint moved back by what its row was read out late."""
    own_s = clock.to_camera(time_s)
    xy, size = track.at(own_s)
    velocity = track.velocity_at(own_s)
    row = np.clip((camera.K[1, 1] * xy[..., 1] + camera.K[1, 2]) / (camera.size_px[1] - 1), 0.0, 1.0) - 0.5
    xy = xy - velocity * (readout_s * row)[..., None] if readout_s else xy
    return _Seen(xy, velocity, track.slope_at(own_s), NOISE * size[:, None], row)


def _all_terms(
    problem: _Problem, clocks: Mapping[str, Clock], readouts: Mapping[str, float]
) -> Iterator[tuple[_Common, _Seen, _Seen, _Terms]]:
    seen: dict[tuple[str, int], _Seen] = {}
    for c in problem.common:
        for name, track in zip(c.pair, c.tracks, strict=True):
            if (name, id(track)) not in seen:
                seen[name, id(track)] = _seen(
                    track, clocks[name], problem.grid, problem.cameras[name], readouts.get(name, 0.0)
                )
        a, b = (_cut(seen[name, id(track)], c.rows) for name, track in zip(c.pair, c.tracks, strict=True))
        yield c, a, b, _terms(a, b, essential_matrix(problem.cameras[c.pair[0]], problem.cameras[c.pair[1]]))


def _cut(seen: _Seen, rows: slice) -> _Seen:
    return _Seen(seen.xy[rows], seen.velocity[rows], seen.slope[rows], seen.sigma[rows], seen.row[rows])


def _terms(a: _Seen, b: _Seen, E: np.ndarray) -> _Terms:
    """Weigh what one person's joints say of the time between two cameras.

    Derivatives are taken along velocities that are smoothed more widely than the positions, the mean of both views'
    (an instrument: the velocity's own noise must not pass for motion). The information is what one view's instrument
    and the other view's plain slope have in common, whose errors are their own.
    """
    ahead_a, ahead_b = homogeneous(a.xy), homogeneous(b.xy)
    line_a, line_b = ahead_b @ E, ahead_a @ E.T
    variance = (line_b[..., :2] ** 2).sum(-1) * b.sigma**2 + (line_a[..., :2] ** 2).sum(-1) * a.sigma**2
    deviation = np.sqrt(np.maximum(variance, 1e-18))
    residual = (ahead_b * line_b).sum(-1) / deviation

    def along(line: np.ndarray, velocity: np.ndarray) -> np.ndarray:
        return (line[..., :2] * velocity).sum(-1) / deviation

    parts = (
        residual,
        along(line_a, a.velocity),
        along(line_b, b.velocity),
        along(line_a, a.slope),
        along(line_b, b.slope),
    )
    known = np.logical_and.reduce([np.isfinite(part) for part in parts])
    residual, *derivatives = (np.where(known, part, 0.0) for part in parts)
    weight = known.astype(float)
    for _ in range(3):  # what the slow part is depends on which residuals are trusted, and the other way round
        fast = _without_slow(residual, weight)
        spread = joint_spread(fast, known)
        square = np.square(fast / spread / OUTLIER_SCALE)
        weight = np.where(known, 1 / np.square((1 + square) * spread), 0.0)
    fast, velocity_a, velocity_b, slope_a, slope_b = (_without_slow(part, weight) for part in (residual, *derivatives))
    derivative = (velocity_b - velocity_a) / 2
    shared = -(velocity_a * slope_b + velocity_b * slope_a) / 2
    expected = weight * (1 - 3 * square) / (1 + square)  # second derivative of the robust cost
    return _Terms(score=weight * derivative * fast, curvature=weight * derivative**2, information=expected * shared)


def _without_slow(values: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Subtract from values (n, J) their weighted running mean: what a bias that changes slowly does to them."""

    def running(x: np.ndarray) -> np.ndarray:
        width = round(_BIAS_S / SAMPLE_STEP_S)
        return np.asarray(
            uniform_filter1d(uniform_filter1d(x, width, axis=0, mode="constant"), width, axis=0, mode="constant")
        )

    return values - _BIAS_SHARE * running(weight * values) / np.maximum(running(weight), 1e-9)


def _normal_equations(
    problem: _Problem, columns: Sequence[Column], clocks: Mapping[str, Clock], readouts: Mapping[str, float]
) -> _Normal:
    """Add up what everybody says of the unknowns."""
    count = len(columns)
    bins = ((problem.grid - problem.grid[0]) / _BIN_S).astype(int)
    n_bins = int(bins[-1]) + 1
    score, curvature = np.zeros((n_bins, count)), np.zeros((n_bins, count, count))
    information = np.zeros_like(curvature)
    for c, a, b, terms in _all_terms(problem, clocks, readouts):
        time = problem.grid[c.rows] - problem.centre_s
        own, levers = [], []
        # A clock that is ahead sees an earlier moment of its own: the offset of b against a falls as b's advances.
        for name, seen, sign in ((c.pair[0], a, 1.0), (c.pair[1], b, -1.0)):
            for index, (camera, lever) in enumerate(columns):
                if camera == name:
                    own.append(index)
                    levers.append(sign * _lever(lever, time, seen))
        design = np.stack(np.broadcast_arrays(*levers, terms.score)[:-1])  # (k, n, J)
        starts = np.flatnonzero(np.diff(bins[c.rows], prepend=-1))
        at = bins[c.rows][starts]
        score[np.ix_(at, own)] += np.add.reduceat((design * terms.score).sum(-1), starts, axis=1).T
        for total, part in ((curvature, terms.curvature), (information, terms.information)):
            products = np.einsum("knj,lnj,nj->nkl", design, design, part, optimize=True)
            total[np.ix_(at, own, own)] += np.add.reduceat(products, starts, axis=0)
    return _Normal(score, curvature, information)


def _lever(lever: Lever, time_s: np.ndarray, seen: _Seen) -> np.ndarray:
    """Return by how much one unknown puts a camera's session time ahead at moments (n,): (n, 1), or (n, J)."""
    if lever == "offset":
        return np.ones((len(time_s), 1))
    if lever == "rate":
        return time_s[:, None] * RATE_SIGMA
    return np.nan_to_num(seen.row)


def _beliefs(
    problem: _Problem,
    columns: Sequence[Column],
    clocks: Mapping[str, Clock],
    readouts: Mapping[str, float],
    cues: Sequence[PairwiseOffset] = (),
) -> _Beliefs:
    """Put together what is known of the unknowns beside the keypoints.

    All rates spread alike about a common one, the reference's included: so it does not matter which camera that is.
    """
    at = {column: index for index, column in enumerate(columns)}
    information, pull = np.zeros((len(columns), len(columns))), np.zeros(len(columns))
    for name in problem.free:
        own_s = problem.start[name].to_camera(problem.centre_s)
        information[at[name, "offset"], at[name, "offset"]] = _START_SIGMA_S**-2
        pull[at[name, "offset"]] = float(clocks[name].to_session(own_s) - problem.centre_s) * _START_SIGMA_S**-2
    rates = [at[name, "rate"] for name in problem.free]
    spread = 2 * (np.eye(len(rates)) - 1 / (len(rates) + 1))
    information[np.ix_(rates, rates)] = spread
    pull[rates] = spread @ [(clocks[name].rate - 1) / RATE_SIGMA for name in problem.free]
    for index, (name, lever) in enumerate(columns):
        if lever == "readout":
            information[index, index] = _READOUT_SIGMA_S**-2
            pull[index] = readouts[name] * _READOUT_SIGMA_S**-2
    known = [e for e in cues if {e.a, e.b} <= set(problem.names)]
    rows = np.zeros((len(known), len(columns) + 1))
    for row, e in zip(rows, known, strict=True):
        ends = ((e.a, 1.0, e.at_s), (e.b, -1.0, e.at_s + e.offset_s))
        for name, sign, moment_s in ends:
            session_s = float(clocks[name].to_session(moment_s))
            row[-1] += sign * session_s
            if name != problem.reference:
                row[at[name, "offset"]] = sign
                row[at[name, "rate"]] = sign * (session_s - problem.centre_s) * RATE_SIGMA
        row /= e.sigma_s
    rows = decorrelated(rows, known)
    information += rows[:, :-1].T @ rows[:, :-1]
    pull += rows[:, :-1].T @ rows[:, -1]
    return _Beliefs(information, pull)


def _moved(clock: Clock, ahead_s: float, rate: float, centre_s: float) -> Clock:
    """Move a clock's session time at the centre ahead, and raise its rate there."""
    own_s = float(clock.to_camera(centre_s))
    return replace(clock, offset_s=clock.offset_s + ahead_s - rate * own_s, rate=clock.rate + rate)


def _simplest(
    columns: Sequence[Column], readouts: Mapping[str, float], covariance: np.ndarray
) -> tuple[np.ndarray, np.ndarray, str]:
    """Tell whether read-out times are all 0, all one, or each its own.

    The first two constrain the last; their odds are Savage and Dickey's ratio of densities at the constraint. Half of
    what two read-outs differ by goes into their clocks, so that each its own has to be plain.

    Returns:
        How far the unknowns (p,) are from the clocks of the fit and from read-out times of 0 then, those next to 0 left
        out; their covariance (p, p); and why that is doubtful, if it is.
    """
    of_rows = np.array([lever == "readout" for _, lever in columns])
    value = np.array([readouts[name] if lever == "readout" else 0.0 for name, lever in columns])
    late = np.eye(len(columns))[of_rows]
    best, nats, doubt = (value, covariance), -_DECISIVE_NATS, ""
    for constraint in (late, np.diff(late, axis=0)):
        if not len(constraint):
            continue
        spread = constraint @ covariance @ constraint.T
        off = constraint @ value
        prior = _READOUT_SIGMA_S**2 * constraint @ constraint.T
        volume = np.linalg.slogdet(prior)[1] - np.linalg.slogdet(spread)[1]
        odds = 0.5 * float(volume - off @ np.linalg.solve(spread, off))
        if odds > nats:
            gain = np.linalg.solve(spread, constraint @ covariance).T
            best, nats = (value - gain @ off, covariance - gain @ constraint @ covariance), odds
            doubt = _ROWS if odds < -_SUSPECT_NATS else ""
    step, left = best
    return np.where(of_rows & (step < _LEAST_READOUT_S), 0.0, step), left, doubt


def _first_rows(problem: _Problem, columns: Sequence[Column]) -> np.ndarray:
    """Return what turns unknowns (p,) of clocks by middle rows to those by first rows: (p, p)."""
    first = np.eye(len(columns))
    for name in problem.free:
        for whose, share in ((name, -0.5), (problem.reference, 0.5)):
            if (whose, "readout") in columns:
                first[columns.index((name, "offset")), columns.index((whose, "readout"))] = share
    return first


def _known(clock: Clock, cov: np.ndarray, left_open: np.ndarray, centre_s: float) -> Clock:
    """Decide by the covariance (2, 2) of a clock's session time at the centre and its rate whether it drifts.

    What it is given then is ``left_open``, which holds what else is not known.
    """
    to_epoch_s = clock.epoch_s - float(clock.to_camera(centre_s))
    decided = settled(replace(clock, cov=carried(cov, to_epoch_s)), RATE_SIGMA)
    return replace(decided, cov=carried(left_open, to_epoch_s))
