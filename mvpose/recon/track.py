"""Keep identities over time: the evidence that two stretches of observation, one after the other, are one person.

Two kinds of it: a 2D tracker went on following the same person, and the people's 3D positions continue one another.
Both are log-likelihood ratios, same person against another, to be added to those across views.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

MAX_LINK_S = 6.0
"""Identities are carried over gaps up to this long."""
TRACKED = 5.0
"""Evidence of an uninterrupted 2D track: 0.7 % change the person from one piece to the next."""
TRACKED_THROUGH_CROSSING = 1.5
"""Evidence of a 2D track across a moment when boxes overlapped, or across a gap: one in five changes the person."""

_ROOM_M = 2.0  # spread of where another person would be
_POSITION_SIGMA_M = 0.1
_VELOCITY_SIGMA_MPS = 0.15
_ACCELERATION_MPS2 = 1.0  # of a whole person, who may turn unseen
_FARTHEST_SIGMA_M = 1.2  # people stay in the room
_END_SAMPLES = 3
_VELOCITY_SAMPLES = 5
_FREEDOM = 4.0  # of Student's t in two dimensions, whose tails hold leaps


@dataclass(frozen=True)
class End:
    """Where a stretch begins or ends: a time, seconds, joints (J, 3), metres, and the body's velocity (3,), m/s."""

    time_s: float
    xyz_m: np.ndarray
    velocity_mps: np.ndarray


@dataclass(frozen=True)
class Stretch:
    """A person's 3D positions over a while.

    Attributes:
        time_s: (n,) seconds.
        xyz_m: (n, J, 3) metres; NaN where missing.
    """

    time_s: np.ndarray
    xyz_m: np.ndarray

    @cached_property
    def start(self) -> End:
        """The state of the first samples."""
        return self._state(slice(None, _END_SAMPLES), slice(None, _VELOCITY_SAMPLES))

    @cached_property
    def end(self) -> End:
        """The state of the last samples."""
        return self._state(slice(-_END_SAMPLES, None), slice(-_VELOCITY_SAMPLES, None))

    def _state(self, near: slice, around: slice) -> End:
        velocity = _velocity(self.time_s[around], self.xyz_m[around])
        return End(float(self.time_s[near].mean()), _mean(self.xyz_m[near]), velocity)


def _velocity(time_s: np.ndarray, xyz_m: np.ndarray) -> np.ndarray:
    """Median over the joints of each one's mean velocity; 0 where the samples (n, J, 3) are too few to tell."""
    half = len(time_s) // 2
    if half < 2:
        return np.zeros(3)
    moved = _mean(xyz_m[-half:]) - _mean(xyz_m[:half])
    moved = moved[np.isfinite(moved).all(axis=1)]
    if not len(moved):
        return np.zeros(3)
    return np.median(moved, axis=0) / (time_s[-half:].mean() - time_s[:half].mean())


def _mean(xyz: np.ndarray) -> np.ndarray:
    """Mean (J, 3) over the samples (n, J, 3) that are there; NaN where none is."""
    seen = np.isfinite(xyz).all(axis=-1, keepdims=True)
    count = seen.sum(axis=0)
    return np.where(count > 0, np.where(seen, xyz, 0.0).sum(axis=0) / np.maximum(count, 1), np.nan)


def continuity(before: Sequence[Stretch], after: Sequence[Stretch]) -> np.ndarray:
    """Weigh whether stretches go on from others, by carrying both at constant velocity to the middle of the gap.

    Args:
        before: The N earlier stretches.
        after: The N later ones, each of which may go on from the one at its place in ``before``.

    Returns:
        Log-likelihood ratios (N,), same person against another; 0 where no joint is common or the gap is too long.
    """
    if not before:
        return np.zeros(0)
    gap_s = np.array([b.time_s[0] - a.time_s[-1] for a, b in zip(before, after, strict=True)])
    (t0, x0, v0), (t1, x1, v1) = _stacked([a.end for a in before]), _stacked([b.start for b in after])
    carried_s = t1 - t0  # half of it from either side: the errors of acceleration are a (t/2)² / 2 each
    miss = x1 - x0 - ((v0 + v1) * carried_s[:, None] / 2)[:, None]
    distance = _median_known(np.linalg.norm(miss, axis=-1))
    sigma = np.sqrt(
        _POSITION_SIGMA_M**2 + (_VELOCITY_SIGMA_MPS * carried_s) ** 2 + (_ACCELERATION_MPS2 * carried_s**2 / 4) ** 2
    )
    sigma = np.minimum(sigma, _FARTHEST_SIGMA_M)
    penalty = (_FREEDOM + 2) / 2 * np.log1p(distance**2 / (_FREEDOM * sigma**2))
    weight = 2 * np.log(_ROOM_M / sigma) - penalty
    return np.where((gap_s > 0) & (gap_s <= MAX_LINK_S) & np.isfinite(distance), weight, 0.0)


def _stacked(ends: Sequence[End]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the times (N,), joints (N, J, 3) and velocities (N, 3) of ends."""
    return (
        np.array([end.time_s for end in ends]),
        np.stack([end.xyz_m for end in ends]),
        np.stack([end.velocity_mps for end in ends]),
    )


def _median_known(values: np.ndarray) -> np.ndarray:
    """Return the median (N,) of each row's known values; NaN where there is none."""
    ordered = np.sort(values, axis=1)  # NaN go last
    count = np.isfinite(values).sum(axis=1)
    low, high = np.maximum(count - 1, 0) // 2, np.minimum(count // 2, values.shape[1] - 1)
    row = np.arange(len(values))
    return np.where(count > 0, (ordered[row, low] + ordered[row, high]) / 2, np.nan)
