"""Keypoints at the times at which things were, where a camera's clock says that its written times are otherwise."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from mvpose.clock import Clock
from mvpose.keypoints import Keypoints2D
from mvpose.shutter import global_shutter


def mended(keypoints: Keypoints2D, clock: Clock) -> Keypoints2D:
    """Return keypoints on the ``t_camera`` of a clock: lost frames added to their times, the rows read all at once."""
    if clock.jumps:
        at_s, jump_s = np.array(clock.jumps).T
        lost_s = (jump_s * (keypoints.time_s[:, None] >= at_s)).sum(1)
        keypoints = replace(keypoints, time_s=keypoints.time_s + lost_s)
    return keypoints if clock.readout_s is None else global_shutter(keypoints, clock.readout_s)
