"""Estimated offsets between cameras, and the graph that they form. The sign convention is written here, once.

**Sign.** ``t_b = t_a + offset_s`` at ``t_a = at_s``: the event that camera ``a`` sees at its own time ``at_s`` is seen
by camera ``b`` at its own time ``at_s + offset_s``. A camera that started later sees events at smaller times of its
own, so its offset against one that started earlier is negative.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

import numpy as np

PairMethod = Literal["insynformer", "epipolar", "correlation"]
"""An estimator of pairs that a user may ask for: each works on keypoints alone."""

Method = Literal[PairMethod, "audio", "timecode", "hint"]
PAIR_METHODS: tuple[PairMethod, ...] = get_args(PairMethod)
METHODS: tuple[Method, ...] = get_args(Method)

EARLIER_NAMES: Mapping[str, Method] = {"learned": "insynformer"}
"""What methods were called in files of earlier versions."""

FROM_KEYPOINTS: frozenset[Method] = frozenset(PAIR_METHODS)
"""Methods that share the errors of one detector."""

CLEAR_WEIGHT = 0.8
"""Of the best mode; below it another offset is nearly as likely, and either would be a guess."""


@dataclass(frozen=True)
class Support:
    """What an estimate rests on: windows compared, joints in them, and seconds of common time."""

    windows: int = 0
    joints: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Mode:
    """One peak of a posterior over the offset."""

    offset_s: float
    sigma_s: float
    weight: float


@dataclass(frozen=True)
class PairwiseOffset:
    """One estimate of the offset between two cameras, at one epoch.

    Attributes:
        a: First camera; ``a < b``.
        b: Second camera.
        at_s: The epoch, on a's own time, seconds; several epochs of a pair show drift.
        offset_s: ``t_b = t_a + offset_s``, seconds; that of the best mode.
        sigma_s: Its standard deviation, seconds, positive.
        method: Which estimator made it.
        modes: The posterior's peaks, best first; their weights sum to at most 1.
        support: What it rests on.
        accepted: Whether the solver used it.
        reason: Why it was not used.
    """

    a: str
    b: str
    at_s: float
    offset_s: float
    sigma_s: float
    method: Method
    modes: tuple[Mode, ...] = ()
    support: Support = field(default_factory=Support)
    accepted: bool = True
    reason: str = ""

    def __post_init__(self) -> None:
        if not self.a < self.b:
            raise ValueError(f"an edge goes from the smaller name to the larger, not {self.a!r} → {self.b!r}")
        if self.method not in METHODS:
            raise ValueError(f"unknown method {self.method!r}")
        if not (np.isfinite(self.at_s) and np.isfinite(self.offset_s)):
            raise ValueError(f"{self.a}–{self.b}: epoch and offset must be finite")
        if not (self.sigma_s > 0 and np.isfinite(self.sigma_s)):
            raise ValueError(f"{self.a}–{self.b}: sigma_s must be positive and finite")
        if not self.modes:
            object.__setattr__(self, "modes", (Mode(self.offset_s, self.sigma_s, 1.0),))

    def rejected(self, reason: str) -> PairwiseOffset:
        """Return this estimate, marked as not used and why."""
        return replace(self, accepted=False, reason=reason)

    def refined(self, at_s: float, offset_s: float, sigma_s: float, method: Method) -> PairwiseOffset:
        """Return a sharper estimate of the same offset; its rivals stay as far from it as ever."""
        shift_s = offset_s - self.offset_s
        rivals = (replace(m, offset_s=m.offset_s + shift_s) for m in self.modes[1:])
        best = Mode(offset_s, sigma_s, self.modes[0].weight)
        return replace(self, at_s=at_s, offset_s=offset_s, sigma_s=sigma_s, method=method, modes=(best, *rivals))


def edge(
    a: str, b: str, at_s: float, offset_s: float, sigma_s: float, method: Method, **more: object
) -> PairwiseOffset:
    """Make an estimate from cameras in either order; ``at_s`` is on a's own time, and both are turned where b < a.

    >>> edge("right", "left", 10.0, -2.0, 0.01, "hint").a
    'left'
    >>> edge("right", "left", 10.0, -2.0, 0.01, "hint").at_s
    8.0
    """
    if a < b:
        return PairwiseOffset(a, b, at_s, offset_s, sigma_s, method, **more)  # type: ignore[arg-type]
    return PairwiseOffset(b, a, at_s + offset_s, -offset_s, sigma_s, method, **more)  # type: ignore[arg-type]


@dataclass(frozen=True)
class OffsetGraph:
    """Cameras as nodes, estimates as edges; a pair may have several, at several epochs or by several methods.

    Attributes:
        cameras: All cameras of the session, those without any edge included.
        edges: The estimates.
        notes: For a camera without usable edges, what the estimators found wanting.
    """

    cameras: tuple[str, ...]
    edges: tuple[PairwiseOffset, ...]
    notes: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "cameras", tuple(self.cameras))
        object.__setattr__(self, "edges", tuple(self.edges))
        unknown = {name for e in self.edges for name in (e.a, e.b)} - set(self.cameras)
        if unknown:
            raise ValueError(f"edges to unknown cameras: {sorted(unknown)}")

    def with_edges(self, edges: Sequence[PairwiseOffset]) -> OffsetGraph:
        """Return the same cameras with other edges."""
        return replace(self, edges=tuple(edges))
