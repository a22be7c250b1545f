"""Local polynomial regression: smooth values and slopes of noisy tracks at any instant."""

from __future__ import annotations

import numpy as np

_MEDIAN_REACH_S = 0.1  # of the window in which most frames are right; two frames where they are farther
_GROSS_PER_S = 1.0  # of the body's extent, in that much of time
_HAMPEL = 4.0  # median deviations: a fast joint deviates by its motion


def smoothing_reach(time_s: np.ndarray) -> float:
    """Return the half width of a kernel for frames at times (n,), seconds: 0.1 s, or two frames where they are farther.

    It passes human motion, and at least five frames carry each value.
    """
    return max(0.1, 2.2 * float(np.median(np.diff(time_s))))


def running_median(values: np.ndarray, half: int) -> np.ndarray:
    """Return the median of what is known of values (n, ...) from ``half`` places before each to as many after."""
    pad = np.full((half, *values.shape[1:]), np.nan)
    windows = np.sort(np.lib.stride_tricks.sliding_window_view(np.concatenate([pad, values, pad]), 2 * half + 1, 0), -1)
    known = np.isfinite(windows).sum(-1, keepdims=True)  # sorted to the front
    middle = [np.take_along_axis(windows, np.maximum(index, 0), -1)[..., 0] for index in ((known - 1) // 2, known // 2)]
    return np.asarray(np.mean(middle, axis=0))


def body_size(time_s: np.ndarray, xy: np.ndarray) -> np.ndarray:
    """Return the body's extent at each frame (n,): the longer side of its box, median over about a second.

    Args:
        time_s: (n,) increasing times.
        xy: (n, J, 2) positions, NaN where missing.
    """
    seen = np.isfinite(xy).all(-1, keepdims=True)
    low = np.where(seen, xy, np.inf).min(1)
    high = np.where(seen, xy, -np.inf).max(1)
    extent = np.where(seen.any((1, 2)), (high - low).max(-1), np.nan)
    finite = np.isfinite(extent) & (extent > 0)
    if not finite.any():
        return np.full(len(time_s), np.nan)
    filled = np.interp(time_s, time_s[finite], extent[finite])
    width = max(1, int(0.5 / max(float(np.median(np.diff(time_s))), 1e-3)))
    return running_median(np.pad(filled, width, mode="edge"), width)[width:-width]


def without_gross_errors(time_s: np.ndarray, xy: np.ndarray) -> np.ndarray:
    """Return a track (n, J, 2) without the joints that are far from where they are just before and after (Hampel 1974).

    A detector that takes another thing for a joint does so for a frame or two. Least squares would believe it.

    Args:
        time_s: (n,) increasing times.
        xy: (n, J, 2) positions, NaN where missing.
    """
    step_s = float(np.median(np.diff(time_s)))
    half = max(2, round(_MEDIAN_REACH_S / step_s))
    usual = running_median(xy, half)
    off = np.linalg.norm(xy - usual, axis=-1)
    allowed = _GROSS_PER_S * half * step_s * body_size(time_s, usual)[:, None] + _HAMPEL * running_median(off, half)
    return np.where((off > allowed)[..., None], np.nan, xy)


def local_parabola(
    time_s: np.ndarray, xy: np.ndarray, score: np.ndarray, at_s: np.ndarray, reach_s: float
) -> tuple[np.ndarray, np.ndarray]:
    """Fit a parabola round each wanted time, weighted by a tricube kernel and by score (Cleveland 1979).

    Args:
        time_s: (n,) increasing times.
        xy: (n, J, 2) positions, NaN where missing.
        score: (n, J) weights in [0, 1].
        at_s: (G,) wanted times.
        reach_s: Half width of the kernel, seconds.

    Returns:
        Values and slopes (G, J, 2); NaN where there are not frames enough on both sides: it neither extrapolates nor
        bridges a gap wider than the kernel.
    """
    half = int(np.ceil(reach_s / float(np.median(np.diff(time_s)))))
    nearest = np.clip(np.searchsorted(time_s, at_s), 0, len(time_s) - 1)
    window = nearest[:, None] + np.arange(-half, half + 1)
    valid = (window >= 0) & (window < len(time_s))
    window = np.clip(window, 0, len(time_s) - 1)
    dt = np.where(valid, (time_s[window] - at_s[:, None]) / reach_s, 1.0)
    kernel = np.clip(1 - np.abs(dt) ** 3, 0, None) ** 3
    seen = np.isfinite(xy).all(-1)
    weight = kernel[:, :, None] * np.where(seen, score, 0.0)[window]  # (G, K, J)
    power = dt[:, :, None] ** np.arange(5)
    moment = np.einsum("gkj,gkp->gjp", weight, power, optimize=True)
    normal = moment[..., [[0, 1, 2], [1, 2, 3], [2, 3, 4]]]  # (G, J, 3, 3)
    filled = np.where(seen[..., None], xy, 0.0)[window]
    right = np.einsum("gkj,gkp,gkjd->gjpd", weight, power[..., :3], filled, optimize=True)
    before = (weight * (dt <= 0)[:, :, None]).sum(1) > 1e-3
    after = (weight * (dt >= 0)[:, :, None]).sum(1) > 1e-3
    supported = before & after & (np.linalg.det(normal) > 1e-6 * np.maximum(moment[..., 0], 1e-9) ** 3)
    normal = np.where(supported[..., None, None], normal, np.eye(3))
    coefficients = np.where(supported[..., None, None], np.linalg.solve(normal, right), np.nan)
    return coefficients[..., 0, :], coefficients[..., 1, :] / reach_s
