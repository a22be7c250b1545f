"""Keypoints at the times at which things were, where a camera's clock says that its written times are otherwise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from mvpose.clock import Clock
from mvpose.keypoints import Keypoints2D
from mvpose.shutter import global_shutter

_LEAST_STEP_S = 1e-3  # between two frames


def mended(keypoints: Keypoints2D, clock: Clock) -> Keypoints2D:
    """Return keypoints on the ``t_camera`` of a clock: jumps taken out of their times, the rows read all at once."""
    keypoints = without_jumps(keypoints, clock.jumps)
    return keypoints if clock.readout_s is None else global_shutter(keypoints, clock.readout_s)


def without_jumps(keypoints: Keypoints2D, jumps: Sequence[tuple[float, float]]) -> Keypoints2D:
    """Return keypoints with the times that they had if nothing had been lost or put in.

    Where times are lowered, frames would come before earlier ones: they show what was put in. They stay between their
    neighbours, as every frame of a video has a time, but without people.

    Args:
        keypoints: At their written times.
        jumps: (own time as written, seconds) pairs; see ``Clock``.
    """
    if not jumps:
        return keypoints
    at_s, jump_s = np.array(jumps).T
    time_s = keypoints.time_s + (jump_s * (keypoints.time_s[:, None] >= at_s)).sum(1)
    known = np.diff(np.maximum.accumulate(time_s), prepend=-np.inf) > _LEAST_STEP_S
    if not known.all():
        frames = np.arange(len(time_s))
        # Beyond the last known frame, as between two.
        time_s = np.interp(frames, np.append(frames[known], len(frames)), np.append(time_s[known], time_s.max() + 1e-3))
        keypoints = keypoints.only(np.flatnonzero(known[keypoints.frame_index]))
    return replace(keypoints, time_s=time_s)
