"""Clocks: how each camera's own time maps onto the session's time.

``t_session = offset_s + rate * t_camera``. The reference camera is exactly ``(0, 1)``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

Verdict = Literal["good", "doubtful"]
_MOST_S = 1e12  # of an offset, or of its variance where nothing is known of it
_FASTEST = 1e3  # of a rate: no slow motion is slower


@dataclass(frozen=True)
class Clock:
    """One camera's clock.

    Attributes:
        camera: The camera's name.
        offset_s: Session time at the camera's time 0, in seconds.
        rate: Session seconds per camera second.
        cov: (2, 2) covariance of (session time at ``epoch_s``, rate), in s², s, 1. At the camera's time 0, which may be
            in 1970, they would be hours uncertain, and what is left in the recording less than their rounding.
        epoch_s: The camera's time at which the clock is known best quoted: the middle of its recording.
        rate_fitted: Whether the data determine the rate; otherwise it stays at its prior, near 1.
        verdict: ``good``, or ``doubtful`` with the reason in ``why``.
        why: The reason of a doubtful verdict.
        jumps: (own time as written, seconds) pairs: from each such time on the camera's written times were found to lag
            by so much more, because frames were lost, or less, because some were put in. ``t_camera`` is the time with
            all of them added.
        readout_s: Read-out time of the image, first to last row, where the data show one that nobody told of;
            ``t_camera`` of a joint is the time of its row.
    """

    camera: str
    offset_s: float
    rate: float
    cov: np.ndarray
    epoch_s: float = 0.0
    rate_fitted: bool = False
    verdict: Verdict = "good"
    why: str = ""
    jumps: tuple[tuple[float, float], ...] = ()
    readout_s: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "cov", np.asarray(self.cov, dtype=float))
        if self.cov.shape != (2, 2) or not np.allclose(self.cov, self.cov.T, atol=1e-12):
            raise ValueError(f"clock of {self.camera}: cov must be a symmetric (2, 2) matrix")
        jumps = np.reshape(np.asarray(self.jumps, dtype=float), (-1, 2))
        if not all(np.abs(v).max(initial=0.0) <= _MOST_S for v in (self.offset_s, self.epoch_s, self.cov, jumps)):
            raise ValueError(f"clock of {self.camera}: values must be finite, and seconds")
        if not 1 / _FASTEST <= self.rate <= _FASTEST:
            raise ValueError(f"clock of {self.camera}: rate must be finite, positive and near 1")

    def to_session(self, t_camera_s: np.ndarray | float) -> np.ndarray:
        """Map the camera's own times (...) to session times, seconds."""
        return self.offset_s + self.rate * np.asarray(t_camera_s, dtype=float)

    def to_camera(self, t_session_s: np.ndarray | float) -> np.ndarray:
        """Map session times (...) to the camera's own times, seconds."""
        return (np.asarray(t_session_s, dtype=float) - self.offset_s) / self.rate

    def sigma_s(self, t_camera_s: np.ndarray | float) -> np.ndarray:
        """Return the standard deviation of ``to_session(t_camera_s)``, seconds."""
        t = np.asarray(t_camera_s, dtype=float) - self.epoch_s
        return np.sqrt(np.maximum(self.cov[0, 0] + 2 * t * self.cov[0, 1] + t**2 * self.cov[1, 1], 0.0))

    @property
    def cov_at_zero(self) -> np.ndarray:
        """(2, 2) covariance of (offset_s, rate)."""
        return carried(self.cov, -self.epoch_s)

    @property
    def offset_at_epoch_s(self) -> float:
        """Session time minus camera time in the middle of the recording, seconds: what ``sigma_at_epoch_s`` is of."""
        return float(self.to_session(self.epoch_s)) - self.epoch_s

    @property
    def sigma_at_epoch_s(self) -> float:
        """The figure to quote to people."""
        return float(self.sigma_s(self.epoch_s))


def carried(cov: np.ndarray, by_s: float) -> np.ndarray:
    """Carry the covariance (2, 2) of a line's value and slope along the line."""
    along = np.array([[1.0, by_s], [0.0, 1.0]])
    cov = along @ cov @ along.T
    return np.asarray((cov + cov.T) / 2)


def identity_clock(camera: str, epoch_s: float = 0.0) -> Clock:
    """Return the reference camera's clock: exactly (0, 1), without uncertainty."""
    return Clock(camera, 0.0, 1.0, np.zeros((2, 2)), epoch_s=epoch_s)


@dataclass(frozen=True)
class Clocks:
    """The clocks of all cameras that the reference reaches, and why the others have none.

    Attributes:
        reference: The camera whose own time is the session's time.
        clocks: Clock of each camera in the reference's component, the reference's included.
        unsynchronised: Reason for each camera that has no clock.
        components: Groups of cameras that share a clock among themselves, largest first.
        cycle_residual_max_s: Largest sum of offsets round a cycle of accepted edges, seconds; NaN without cycles.
        cycle_residual_rms_s: Their root mean square, seconds; NaN without cycles.
    """

    reference: str
    clocks: Mapping[str, Clock]
    unsynchronised: Mapping[str, str] = field(default_factory=dict)
    components: tuple[tuple[str, ...], ...] = ()
    cycle_residual_max_s: float = float("nan")
    cycle_residual_rms_s: float = float("nan")

    def __post_init__(self) -> None:
        if self.reference not in self.clocks:
            raise ValueError(f"the reference camera {self.reference!r} has no clock")
        both = set(self.clocks) & set(self.unsynchronised)
        if both:
            raise ValueError(f"cameras with a clock and without: {sorted(both)}")
        for name, clock in self.clocks.items():
            if name != clock.camera:
                raise ValueError(f"the clock filed under {name!r} belongs to {clock.camera!r}")

    def __getitem__(self, camera: str) -> Clock:
        return self.clocks[camera]

    def offset_s(self, a: str, b: str) -> float:
        """Return t_b − t_a of the moment in the middle of a's recording, seconds."""
        clock = self.clocks[a]
        return float(self.clocks[b].to_camera(clock.to_session(clock.epoch_s))) - clock.epoch_s

    def on(self, reference: str) -> Clocks:
        """Express the same clocks on the own time of another camera; its uncertainty passes to nobody.

        Raises:
            KeyError: That camera has no clock.
        """
        base = self.clocks[reference]
        clocks = {
            name: replace(
                clock,
                offset_s=(clock.offset_s - base.offset_s) / base.rate,
                rate=clock.rate / base.rate,
                cov=clock.cov / base.rate**2,
            )
            for name, clock in self.clocks.items()
        }
        clocks[reference] = replace(identity_clock(reference, base.epoch_s), jumps=base.jumps, readout_s=base.readout_s)
        return replace(self, reference=reference, clocks=clocks)


def unsynchronised_clocks(cameras: Iterable[str]) -> Clocks:
    """Return clocks that take each camera's own time as it stands: what one has without synchronisation."""
    clocks = {camera: identity_clock(camera) for camera in cameras}
    return Clocks(next(iter(clocks)), clocks, components=(tuple(clocks),))
