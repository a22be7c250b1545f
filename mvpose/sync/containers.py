"""Estimate the offsets of cameras from what their containers say of when they were started.

Neither figure was measured against another camera, so that either may be a plain mistake: the solver believes them only
where nothing better connects two cameras, and names the contradiction where something does.

A **timecode** says when the first frame was taken if the cameras were brought together to one ("jammed") before; many
cameras count from zero or go on from their last recording instead. A **creation time** is the camera's clock in whole
seconds, and that was set by hand.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from mvpose.sync.offsets import Mode, PairwiseOffset
from mvpose.video import ContainerTime

CLOCK_SIGMA_S = 2.0
"""Standard deviation of a camera's clock that was set by hand, whole seconds and a late start of recording included."""

CREDIBILITY = 0.6
"""Chance that somebody saw to it that two containers agree at all; chosen, too little to overrule a measurement."""

_TIMECODE = re.compile(r"(\d\d):(\d\d):(\d\d)([:;.])(\d\d)")
_DAY_S = 86400.0
_UNSET_S = frozenset({0.0, 3600.0})  # what cameras and editors begin with by habit
_MOST_COUNTED = 30  # a second; faster cameras count pairs of frames or single ones, and do not say which


@dataclass(frozen=True)
class _Start:
    """Time of day of a first frame.

    Attributes:
        time_s: Real seconds since the timecode's midnight.
        sigma_s: Its standard deviation by what is rounded, seconds.
        jam_s: One frame, seconds.
        pace: Seconds of timecode a real second; recordings at unlike paces have no common midnight.
    """

    time_s: float
    sigma_s: float
    jam_s: float
    pace: float


def timecode_edges(starts: Mapping[str, ContainerTime]) -> list[PairwiseOffset]:
    """Compare all pairs of cameras, by timecode and by creation time, where both have one.

    Sigma by timecode: both first frames began anywhere within a frame, 1/√12 frame each; and jammed cameras run on
    their own, 10 ppm being a frame in an hour: one frame. Offsets by timecode are less than half a day. Sigma by
    creation time: 2 s a camera, which gives no clock by itself.

    Args:
        starts: What each camera's container says, and what the camera's own time was then.

    Returns:
        The edges, at the time when the later of two cameras started.
    """
    edges = []
    for a, b in itertools.combinations(sorted(starts), 2):
        own_a, own_b = starts[a], starts[b]
        first_a, first_b = _start(own_a), _start(own_b)
        if first_a and first_b and np.isclose(first_a.pace, first_b.pace, atol=1e-6):
            day_s = _DAY_S / first_a.pace
            late_s = (first_b.time_s - first_a.time_s + day_s / 2) % day_s - day_s / 2
            jam_s = max(first_a.jam_s, first_b.jam_s)
            sigma_s = float(np.sqrt(first_a.sigma_s**2 + first_b.sigma_s**2 + jam_s**2))
            edges.append(_edge(a, b, starts, late_s, sigma_s))
        if own_a.created and own_b.created:
            late_s = (own_b.created - own_a.created).total_seconds()
            edges.append(_edge(a, b, starts, late_s, float(np.sqrt(2.0)) * CLOCK_SIGMA_S))
    return edges


def _edge(a: str, b: str, starts: Mapping[str, ContainerTime], late_s: float, sigma_s: float) -> PairwiseOffset:
    """File that b started so much later than a: what happens then is at ``late_s`` on a's time, and at 0 on b's."""
    start_a, start_b = starts[a].start_s, starts[b].start_s
    offset_s = start_b - start_a - late_s
    mode = Mode(offset_s, sigma_s, CREDIBILITY)
    return PairwiseOffset(a, b, start_a + max(late_s, 0.0), offset_s, sigma_s, "timecode", modes=(mode,))


def _start(told: ContainerTime) -> _Start | None:
    """Read a timecode (SMPTE ST 12-1): frames counted at the nominal rate, in real seconds.

    None where there is none, it is not valid, or it is what cameras begin with that nobody set.
    """
    match = _TIMECODE.fullmatch(told.timecode or "")
    counted = round(told.fps) if np.isfinite(told.fps) else 0
    if match is None or counted < 1:
        return None
    hours, minutes, seconds, frame = (int(match[i]) for i in (1, 2, 3, 5))
    label_s = 3600.0 * hours + 60.0 * minutes + seconds
    if hours > 23 or minutes > 59 or seconds > 59 or frame >= counted or (label_s in _UNSET_S and frame == 0):
        return None
    frame_s = 1 / told.fps
    is_dropping = match[4] != ":"  # two numbers a minute but each tenth, so that 29.97 keeps real time
    pace = 1.0 if is_dropping else told.fps / counted
    if counted > _MOST_COUNTED:
        return _Start((label_s + 0.5) / pace, float(1 / np.sqrt(12)), frame_s, pace)
    minute = 60 * hours + minutes
    number = counted * label_s + frame - (2 * (minute - minute // 10) if is_dropping else 0)
    return _Start(number * frame_s, frame_s / float(np.sqrt(12)), frame_s, pace)
