"""Keep identities over time: the evidence that two stretches of observation, one after the other, are one person.

Two kinds of it: a 2D tracker went on following the same person, and the people's 3D positions continue one another.
Both are log-likelihood ratios, same person against another, to be added to those across views.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

MAX_LINK_S = 2.0
"""Identities are carried over gaps up to this long."""
TRACKED = 5.0
"""Evidence of an uninterrupted 2D track: 0.7 % change the person from one piece to the next."""
TRACKED_THROUGH_CROSSING = 1.5
"""Evidence of a 2D track across a moment when boxes overlapped, or across a gap: one in five changes the person."""

_ROOM_M = 2.0  # spread of where another person would be
_POSITION_SIGMA_M = 0.1
_VELOCITY_SIGMA_MPS = 0.15
_ACCELERATION_MPS2 = 2.0  # of a whole person, who may turn unseen
_END_SAMPLES = 3
_MAX_PENALTY = 12.0


@dataclass(frozen=True)
class Stretch:
    """A person's 3D positions over a short while.

    Attributes:
        time_s: (n,) seconds.
        xyz_m: (n, J, 3) metres; NaN where missing.
    """

    time_s: np.ndarray
    xyz_m: np.ndarray

    def end(self) -> tuple[float, np.ndarray, np.ndarray]:
        """Time, positions (J, 3) and velocity (3,) of the last samples."""
        return self._state(slice(-_END_SAMPLES, None))

    def start(self) -> tuple[float, np.ndarray, np.ndarray]:
        """Time, positions (J, 3) and velocity (3,) of the first samples."""
        return self._state(slice(None, _END_SAMPLES))

    def _state(self, samples: slice) -> tuple[float, np.ndarray, np.ndarray]:
        return float(self.time_s[samples].mean()), _mean(self.xyz_m[samples]), self._velocity()

    def _velocity(self) -> np.ndarray:
        """Median over the joints of each one's mean velocity; 0 where the stretch is too short to tell."""
        half = len(self.time_s) // 2
        if half < 2:
            return np.zeros(3)
        moved = _mean(self.xyz_m[-half:]) - _mean(self.xyz_m[:half])
        moved = moved[np.isfinite(moved).all(axis=1)]
        if not len(moved):
            return np.zeros(3)
        return np.median(moved, axis=0) / (self.time_s[-half:].mean() - self.time_s[:half].mean())


def _mean(xyz: np.ndarray) -> np.ndarray:
    """Mean (J, 3) over the samples (n, J, 3) that are there; NaN where none is."""
    seen = np.isfinite(xyz).all(axis=-1, keepdims=True)
    count = seen.sum(axis=0)
    return np.where(count > 0, np.where(seen, xyz, 0.0).sum(axis=0) / np.maximum(count, 1), np.nan)


def continuity(before: Stretch, after: Stretch) -> float:
    """Weigh whether one stretch goes on from another, by carrying both at constant velocity to the middle of the gap.

    Args:
        before: The earlier stretch.
        after: The later one.

    Returns:
        Log-likelihood ratio, same person against another; 0 where no joint is common or the gap is too long.
    """
    gap_s = float(after.time_s[0] - before.time_s[-1])
    if not 0 < gap_s <= MAX_LINK_S:
        return 0.0
    t0, x0, v0 = before.end()
    t1, x1, v1 = after.start()
    miss = (x0 + v0 * (t1 - t0) / 2) - (x1 - v1 * (t1 - t0) / 2)
    distance = np.linalg.norm(miss, axis=-1)
    distance = distance[np.isfinite(distance)]
    if not len(distance):
        return 0.0
    carried_s = t1 - t0  # half of it from either side: the errors of acceleration are a (t/2)² / 2 each
    sigma = np.sqrt(
        _POSITION_SIGMA_M**2 + (_VELOCITY_SIGMA_MPS * carried_s) ** 2 + (_ACCELERATION_MPS2 * carried_s**2 / 4) ** 2
    )
    penalty = min(float(np.median(distance)) ** 2 / (2 * sigma**2), _MAX_PENALTY)
    return 2 * float(np.log(_ROOM_M / sigma)) - penalty
