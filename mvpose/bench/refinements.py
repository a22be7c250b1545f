"""Ways of refining all clocks together, measured on the same recordings beside what ``sync.refine`` does.

Run ``mvpose bench refinements``. Two alternatives are built as far as they must be to be
judged: one person, everybody's rate 1, no error bars.

*Points*: every joint at every moment is a point in space, which is triangulated and eliminated, so that only the
offsets remain (variable projection; Golub & Pereyra 1973).

*Splines*: every joint's path is a cubic spline that all cameras look at when they really did, without smoothing
anything beforehand (spatiotemporal bundle adjustment; Vo, Narasimhan & Sheikh 2016).

All fits start from clocks that are up to 30 ms wrong in the middle of each recording.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial, reduce

import numpy as np
from scipy.linalg import solveh_banded
from scipy.ndimage import uniform_filter1d

from mvpose.bench.clocks import BASE, MIXED_FPS, detect_people, make_recording
from mvpose.calib.camera import Camera
from mvpose.clock import Clocks, identity_clock
from mvpose.geometry import projection_matrices, triangulate_linear
from mvpose.keypoints import Keypoints2D
from mvpose.recon.metrics import clock_errors
from mvpose.sync.coarse import NOISE, OUTLIER_SCALE
from mvpose.sync.pairs import SAMPLE_STEP_S, joint_spread
from mvpose.sync.refine import refine_clocks
from mvpose.sync.synchronise import synchronise_cameras
from mvpose.sync.trajectories import Trajectory, all_trajectories, timing_skeleton
from mvpose.synthetic.motion import Motion

CASES = tuple(replace(BASE, fps=fps) for fps in ((10.0,) * 4, (30.0,) * 4, MIXED_FPS))
START_ERROR_S = 0.03

_ITERATIONS = 20
_CONVERGED_S = 1e-5
_START_SIGMA_S = 0.1  # of the clocks that a fit starts from: keeps those that nothing moves where they are
_LARGEST_STEP_S = 0.05
_NEAREST_M = 0.1  # no joint is nearer to a camera
_BIAS_S, _BIAS_SHARE = 0.6, 0.9  # as in sync.refine
_KNOT_S = 0.12
_UNREST = 20.0  # m²/s³, spectral density of accelerations: 10 m/s² that change within 0.1 s
_DAMPING_M = 1.0  # a step of this length of a spline's control point costs as much as a standard deviation

Refinement = Callable[[Mapping[str, Keypoints2D], Mapping[str, Camera], Clocks], Clocks]


def refine_by_pairs(keypoints: Mapping[str, Keypoints2D], cameras: Mapping[str, Camera], clocks: Clocks) -> Clocks:
    """Refine as the product does."""
    return refine_clocks(all_trajectories(keypoints, cameras), cameras, clocks)


def refine_by_points(
    keypoints: Mapping[str, Keypoints2D],
    cameras: Mapping[str, Camera],
    clocks: Clocks,
    *,
    without_slow: bool = True,
) -> Clocks:
    """Fit offsets so that all views' smoothed joints meet in points.

    Args:
        keypoints: One tracked person.
        cameras: Calibration.
        clocks: Where to start.
        without_slow: Whether a detector's slow bias is taken out of residuals and derivatives.
    """
    names, tracks = list(clocks.clocks), all_trajectories(keypoints, cameras)
    P = projection_matrices([cameras[name] for name in names])
    grid = _common_grid(keypoints, clocks)
    for _ in range(_ITERATIONS):
        views = _look(tracks, clocks, grid)
        residual, derivative, weight = _eliminate_points(P, views, without_slow)
        normal = np.einsum("tjc,tjcik,tjcil->kl", weight, derivative, derivative, optimize=True)
        pull = np.einsum("tjc,tjcik,tjci->k", weight, derivative, residual, optimize=True)
        step = _offset_step(normal, pull, names.index(clocks.reference))
        clocks = _moved(clocks, step)
        if np.abs(step).max() < _CONVERGED_S:
            break
    return clocks


def refine_by_splines(
    keypoints: Mapping[str, Keypoints2D],
    cameras: Mapping[str, Camera],
    clocks: Clocks,
    *,
    without_slow: bool = True,
) -> Clocks:
    """Fit offsets and each joint's path so that all views' raw joints lie where the path was seen at their own times.

    The splines' normal equations are banded; the offsets are their border.

    Args:
        keypoints: One tracked person.
        cameras: Calibration.
        clocks: Where to start.
        without_slow: Whether a detector's slow bias is taken out of residuals and derivatives.
    """
    names, tracks = list(clocks.clocks), all_trajectories(keypoints, cameras)
    P = projection_matrices([cameras[name] for name in names])
    grid = _common_grid(keypoints, clocks)
    raw = _raw(keypoints, cameras, tracks, clocks, (grid[0], grid[-1]))
    knots = np.arange(grid[0] - 3 * _KNOT_S, grid[-1] + 4 * _KNOT_S, _KNOT_S)
    views = _look(tracks, clocks, grid)
    path = _between(grid, _robust_points(P, views), knots - _KNOT_S)  # control points have their hill one knot earlier
    for _ in range(_ITERATIONS):
        offset = np.array([clocks[name].offset_s for name in names])
        normal, pull, path_steps = _spline_equations(P, raw, offset, knots[0], path, without_slow)
        step = _offset_step(normal, pull, names.index(clocks.reference))
        clocks, path = _moved(clocks, step), path + path_steps @ [1.0, *-step]
        if np.abs(step).max() < _CONVERGED_S:
            break
    return clocks


@dataclass(frozen=True)
class _Views:
    """One person at common moments: ``xy`` and ``velocity`` (T, J, C, 2), normalised, and ``sigma`` (T, 1, C)."""

    xy: np.ndarray
    velocity: np.ndarray
    sigma: np.ndarray


@dataclass(frozen=True)
class _Raw:
    """One person in all cameras' own frames (F,).

    Attributes:
        camera: (F,) index of the camera.
        time_s: (F,) its own time.
        xy: (F, J, 2) normalised positions; NaN where missing.
        precision: (F, J) score over the variance of a joint.
    """

    camera: np.ndarray
    time_s: np.ndarray
    xy: np.ndarray
    precision: np.ndarray


def _common_grid(keypoints: Mapping[str, Keypoints2D], clocks: Clocks) -> np.ndarray:
    """Return the moments (T,) of session time at which at least two cameras record."""
    spans = np.sort([clocks[name].to_session(keypoints[name].time_s[[0, -1]]) for name in clocks.clocks], axis=0)
    return np.arange(spans[1, 0], spans[-2, 1], SAMPLE_STEP_S)


def _look(tracks: Mapping[str, Sequence[Trajectory]], clocks: Clocks, grid: np.ndarray) -> _Views:
    found = []
    for name, clock in clocks.clocks.items():
        own_s = clock.to_camera(grid)
        parts = [(*track.at(own_s), track.velocity_at(own_s)) for track in tracks[name]]
        found.append([reduce(np.fmax, same) for same in zip(*parts, strict=True)])  # all tracks are of one person
    xy, size, velocity = (np.stack(views, axis=1) for views in zip(*found, strict=True))
    return _Views(xy.swapaxes(1, 2), velocity.swapaxes(1, 2), NOISE * size[:, None])


def _raw(
    keypoints: Mapping[str, Keypoints2D],
    cameras: Mapping[str, Camera],
    tracks: Mapping[str, Sequence[Trajectory]],
    clocks: Clocks,
    within: tuple[float, float],
) -> _Raw:
    skeleton = timing_skeleton(list(keypoints.values()))
    parts = []
    for index, (name, clock) in enumerate(clocks.clocks.items()):
        own = keypoints[name].with_skeleton(skeleton)
        time_s = own.time_s[own.frame_index]
        session_s = clock.to_session(time_s)
        size = reduce(np.fmax, [track.at(time_s)[1] for track in tracks[name]])
        kept = np.isfinite(size) & (session_s > within[0]) & (session_s < within[1])
        precision = own.score / np.square(NOISE * size)[:, None]
        xy = cameras[name].undistort(own.xy_px)
        parts.append((np.full(kept.sum(), index), time_s[kept], xy[kept], precision[kept]))
    return _Raw(*(np.concatenate(part) for part in zip(*parts, strict=True)))


def _project(P: np.ndarray, xyz: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return images (..., 2) of points (..., 3) in cameras (..., 3, 4), their derivatives (..., 2, 3), and depths."""
    seen = np.einsum("...ij,...j->...i", P[..., :3], xyz) + P[..., 3]
    depth = np.maximum(seen[..., 2], _NEAREST_M)
    image = seen[..., :2] / depth[..., None]
    slope = (P[..., :2, :3] - image[..., None] * P[..., 2:, :3]) / depth[..., None, None]
    return image, slope, depth


def _trust(residual: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Return Geman–McClure weights (n, k) of residuals (n, k, 2) in sigmas, scaled to each column's own."""
    length = np.linalg.norm(residual, axis=-1) / np.sqrt(2)
    spread = joint_spread(length, known)
    return np.where(known, 1 / np.square((1 + np.square(length / spread / OUTLIER_SCALE)) * spread), 0.0)


def _robust_points(P: np.ndarray, views: _Views) -> np.ndarray:
    """Triangulate (T, J, 3); NaN where fewer than two views show a joint."""
    known = np.isfinite(views.xy).all(-1)
    weight, depth = known.astype(float), np.ones(known.shape)
    for _ in range(4):
        points = triangulate_linear(P, views.xy, weight / np.square(views.sigma * depth))
        image, _, depth = _project(P, np.nan_to_num(points)[:, :, None])
        residual = np.where(known[..., None], views.xy - image, 0.0) / views.sigma[..., None]
        both = known & np.isfinite(points).all(-1, keepdims=True)
        flat = (len(known), -1)
        weight = _trust(residual.reshape(*flat, 2), both.reshape(flat)).reshape(known.shape)
    return points


def _eliminate_points(P: np.ndarray, views: _Views, without_slow: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return residuals (T, J, C, 2), their fall per second of each offset (..., C), and weights (T, J, C).

    A joint moves in all views by one velocity in space, which has less noise than each view's own.
    """
    points = _robust_points(P, views)
    known = np.isfinite(views.xy).all(-1) & np.isfinite(views.velocity).all(-1)
    known &= np.isfinite(points).all(-1, keepdims=True)
    known &= (known.sum(-1) >= 2)[..., None]
    image, slope, _ = _project(P, np.nan_to_num(points)[:, :, None])
    mask = known[..., None]
    sigma = np.where(known, views.sigma, 1.0)[..., None]
    residual, own_velocity = (np.where(mask, a, 0.0) / sigma for a in (views.xy - image, views.velocity))
    slope = np.where(mask[..., None], slope, 0.0) / sigma[..., None]
    weight, fast = known.astype(float), residual
    for _ in range(4):
        velocity = own_velocity - _unexplained(slope, weight, own_velocity[..., None])[..., 0]
        moved = velocity[..., None] * np.eye(len(P))[:, None]
        both = _unexplained(slope, weight, np.concatenate([residual[..., None], moved], axis=-1))
        if without_slow:
            both = _without_slow(both, weight[..., None, None], SAMPLE_STEP_S)
        fast = both[..., 0]
        flat = (len(fast), -1)
        weight = _trust(fast.reshape(*flat, 2), known.reshape(flat)).reshape(known.shape)
    return fast, both[..., 1:], weight


def _unexplained(slope: np.ndarray, weight: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return what of values (T, J, C, 2, k) no shift of the points explains."""
    normal = np.einsum("tjc,tjcix,tjciy->tjxy", weight, slope, slope, optimize=True)
    normal = normal + (1e-6 * np.trace(normal, axis1=-2, axis2=-1)[..., None, None] + 1e-12) * np.eye(3)
    right = np.einsum("tjc,tjcix,tjcik->tjxk", weight, slope, values, optimize=True)
    return values - np.einsum("tjcix,tjxk->tjcik", slope, np.linalg.solve(normal, right))


def _spline_equations(
    P: np.ndarray, raw: _Raw, offset: np.ndarray, first_s: float, path: np.ndarray, without_slow: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the normal equations of the offsets (C, C) and (C,), paths eliminated, and what paths do about it.

    The last is (J, K, 3, 1 + C): the step of the control points, and by how much less it is for each second of a step
    of the offsets.
    """
    J, K, _ = path.shape
    position = (raw.time_s + offset[raw.camera] - first_s) / _KNOT_S
    cell = np.clip(position.astype(int), 0, K - 4)
    basis, rise = _cubic(position - cell)
    control = path[:, cell[:, None] + np.arange(4)]  # (J, F, 4, 3)
    image, slope, _ = _project(P[raw.camera][:, None], np.einsum("fk,jfkx->fjx", basis, control))
    ahead = np.einsum("fjix,fk,jfkx->fji", slope, rise / _KNOT_S, control, optimize=True)
    known = np.isfinite(raw.xy).all(-1)
    residual = np.where(known[..., None], raw.xy - image, 0.0)
    weight = raw.precision * _trust(residual * np.sqrt(raw.precision)[..., None], known)
    design = np.einsum("fjix,fk->fjikx", slope, basis).reshape(*known.shape, 2, 12)

    order = np.argsort(cell, kind="stable")
    starts = np.flatnonzero(np.diff(cell[order], prepend=-1))
    cells = 3 * cell[order][starts]
    columns = np.zeros((*known.shape, 2, 1 + len(offset)))
    columns[..., 0] = residual
    columns[np.arange(len(cell)), :, :, 1 + raw.camera] = ahead
    weighted = weight[..., None, None] * design
    blocks = np.add.reduceat((weighted.swapaxes(-1, -2) @ design)[order], starts)  # (cells, J, 12, 12)
    rights = np.add.reduceat((weighted.swapaxes(-1, -2) @ columns)[order], starts)  # (cells, J, 12, 1 + C)
    bending = np.diff(np.eye(K), 2, axis=0)
    bending = bending.T @ bending / (_UNREST * _KNOT_S**3)
    band, right = np.zeros((12, J, 3 * K)), np.zeros((J, 3 * K, 1 + len(offset)))
    for difference in range(3):
        band[3 * difference, :, : 3 * (K - difference)] = np.repeat(np.diagonal(bending, difference), 3)
    band[0] += _DAMPING_M**-2
    right[..., 0] = -(bending @ path).reshape(J, -1)
    for row in range(12):
        right[:, cells + row] += rights[:, :, row].swapaxes(0, 1)
        for column in range(row + 1):
            band[row - column][:, cells + column] += blocks[:, :, row, column].T
    right = right.reshape(J * 3 * K, -1)
    solved = solveh_banded(band.reshape(12, -1), right, lower=True)

    products = np.einsum("fj,fjik,fjil->kl", weight, columns, columns, optimize=True) - right.T @ solved
    if without_slow:
        after = solved.reshape(J, 3 * K, -1)[:, 3 * cell[:, None] + np.arange(12)].swapaxes(0, 1)  # (F, J, 12, 1 + C)
        fast = columns - design @ after
        for camera in range(len(offset)):
            own = raw.camera == camera
            step_s = float(np.median(np.diff(raw.time_s[own])))
            fast[own] = _without_slow(fast[own], weight[own, :, None, None], step_s)
        weight = raw.precision * _trust(fast[..., 0] * np.sqrt(raw.precision)[..., None], known)
        products = np.einsum("fj,fjik,fjil->kl", weight, fast, fast, optimize=True)
    return products[1:, 1:], products[1:, 0], solved.reshape(J, K, 3, -1)


def _cubic(u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the four uniform cubic B-splines (n, 4) at u in [0, 1) of a cell, and their derivatives."""
    v = 1 - u
    values = np.stack([v**3, 3 * u**3 - 6 * u**2 + 4, 3 * v**3 - 6 * v**2 + 4, u**3], axis=-1) / 6
    return values, np.stack([-(v**2), u * (3 * u - 4), -v * (3 * v - 4), u**2], axis=-1) / 2


def _between(grid: np.ndarray, points: np.ndarray, at_s: np.ndarray) -> np.ndarray:
    """Interpolate points (T, J, 3) over what is missing: (J, K, 3)."""
    known = np.isfinite(points).all(-1)
    paths = zip(points.swapaxes(0, 1), known.T, strict=True)
    return np.stack([np.stack([np.interp(at_s, grid[k], x) for x in p[k].T], axis=-1) for p, k in paths])


def _without_slow(values: np.ndarray, weight: np.ndarray, step_s: float) -> np.ndarray:
    """Subtract from values (n, ...) most of their weighted running mean, as ``sync.refine`` does."""
    width = max(1, round(_BIAS_S / step_s))

    def running(x: np.ndarray) -> np.ndarray:
        once = uniform_filter1d(x, width, axis=0, mode="constant")
        return np.asarray(uniform_filter1d(once, width, axis=0, mode="constant"))

    return values - _BIAS_SHARE * running(weight * values) / np.maximum(running(weight), 1e-9)


def _offset_step(normal: np.ndarray, pull: np.ndarray, reference: int) -> np.ndarray:
    """Return a step of all offsets (C,), none of the reference's."""
    step, free = np.zeros(len(pull)), np.arange(len(pull)) != reference
    step[free] = np.linalg.solve(normal[np.ix_(free, free)] + np.eye(free.sum()) / _START_SIGMA_S**2, pull[free])
    return step * min(1.0, _LARGEST_STEP_S / max(np.abs(step).max(), 1e-12))


def _moved(clocks: Clocks, step: np.ndarray) -> Clocks:
    moved = zip(clocks.clocks.items(), step.tolist(), strict=True)
    return replace(clocks, clocks={n: replace(c, offset_s=c.offset_s + by) for (n, c), by in moved})


def pairs_alone(keypoints: Mapping[str, Keypoints2D], cameras: Mapping[str, Camera], clocks: Clocks) -> Clocks:
    """Fit each pair by itself and reconcile the fits; looks for the offsets itself, wherever ``clocks`` start."""
    return synchronise_cameras(keypoints, cameras, methods=("epipolar",), reference=clocks.reference, refine=False)[1]


REFINEMENTS: Mapping[str, Refinement] = {
    "each pair alone, search included": pairs_alone,
    "points, slow bias left in": partial(refine_by_points, without_slow=False),
    "points": refine_by_points,
    "splines, slow bias left in": partial(refine_by_splines, without_slow=False),
    "splines": refine_by_splines,
    "all pairs together (kept)": refine_by_pairs,
}


def put_off(rng: np.random.Generator, truth: Clocks, middle_s: Mapping[str, float]) -> Clocks:
    """Return clocks of rate 1 that are off by up to ``START_ERROR_S`` in the middle of each recording."""
    clocks = {}
    for name, clock in truth.clocks.items():
        off_s = 0.0 if name == truth.reference else rng.uniform(-START_ERROR_S, START_ERROR_S)
        offset_s = float(clock.to_session(middle_s[name])) - middle_s[name] + off_s
        clocks[name] = replace(identity_clock(name, middle_s[name]), offset_s=offset_s)
    return replace(truth, clocks=clocks)


def refine_each_way(
    keypoints: Mapping[str, Keypoints2D], cameras: Mapping[str, Camera], truth: Clocks, seed: int
) -> dict[str, tuple[list[float], float]]:
    """Return for every way the absolute errors, ms, of all clocks but the reference's, and the CPU seconds it took.

    Cameras that saw nobody are left aside.
    """
    keypoints = {name: k for name, k in keypoints.items() if np.isfinite(k.xy_px).any()}
    truth = truth.on(next(name for name in truth.clocks if name in keypoints))
    truth = replace(truth, clocks={name: clock for name, clock in truth.clocks.items() if name in keypoints})
    middle_s = {name: float(k.time_s[[0, -1]].mean()) for name, k in keypoints.items()}
    start = put_off(np.random.default_rng(seed), truth, middle_s)
    found = {}
    for title, refine in REFINEMENTS.items():
        began_s = time.process_time()
        clocks = refine(keypoints, cameras, start)
        cpu_s = time.process_time() - began_s
        errors = clock_errors(clocks, truth, middle_s)["cameras"].values()
        found[title] = [abs(e["error_ms"]) for e in errors], cpu_s
    return found


def run_refinements(motions: Mapping[str, Motion], seeds: Sequence[int]) -> Iterator[str]:
    """Yield errors and CPU seconds of every way to refine, kind by kind, as text."""
    for case in CASES:
        found = []
        for seed in seeds:
            world = make_recording(case, motions, seed)
            cameras, truth = {camera.name: camera for camera in world.rig}, world.true_clocks(world.rig.names[0])
            found.append(refine_each_way(detect_people(world, case, seed), cameras, truth, seed))
        lines = [f"\n{case} ({len(seeds)} recordings)"]
        for title in REFINEMENTS:
            median, p90 = np.percentile([e for one in found for e in one[title][0]], (50, 90))
            cpu_s = np.mean([one[title][1] for one in found])
            lines.append(f"  {title:<32} median {median:5.2f}  p90 {p90:5.2f} ms  {cpu_s:5.2f} s")
        yield "\n".join(lines)
