"""Rolling shutters: rows that are read one after the other, and keypoints as if they had been read at once.

A frame's time is when its first row is read; a joint is as late against it as its row.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np

from mvpose.keypoints import UNTRACKED, Keypoints2D
from mvpose.smoothing import local_parabola, smoothing_reach

Readout = Literal["down", "up", "left", "right"]
"""Where in the displayed image the reading moves to."""

_FEWEST_FRAMES = 4  # of a track whose motion is known
_FASTEST = 6.0  # body sizes a second; a path that is steeper leads to or from a joint that was mistaken


def global_shutter(keypoints: Keypoints2D, readout_s: float, readout: Readout = "down") -> Keypoints2D:
    """Move each joint back along its motion to where it was at its frame's time.

    The motion is the track's, smoothed; a joint's own noise stays as it is. Joints whose motion is not known stay where
    they are: those of people who were not tracked, and those that are mistaken for another before or after.

    Args:
        keypoints: As detected.
        readout_s: Time from reading the first to reading the last row (column, where it moves to a side), seconds.
        readout: Where the reading moves to.

    Raises:
        SessionError: Nothing says how large the images are.
    """
    if readout_s == 0:
        return keypoints
    axis = 1 if readout in ("down", "up") else 0
    side_px = keypoints.known_size_px("its rolling shutter")[axis]
    share = np.clip(keypoints.xy_px[..., axis] / (side_px - 1), 0.0, 1.0)
    late_s = readout_s * (share if readout in ("down", "right") else 1.0 - share)
    time_s = keypoints.time_s[keypoints.frame_index]
    box = np.nan_to_num(np.asarray(keypoints.bbox_px))
    size_px = (box[:, 2:] - box[:, :2]).max(axis=1)
    xy = keypoints.xy_px.copy()
    for track in np.unique(keypoints.track_id[keypoints.track_id != UNTRACKED]):
        rows = np.flatnonzero(keypoints.track_id == track)
        if len(rows) >= _FEWEST_FRAMES:
            own_s = time_s[rows]
            _, slope = local_parabola(own_s, xy[rows], keypoints.score[rows], own_s, smoothing_reach(own_s))
            slope[np.linalg.norm(slope, axis=-1) > _FASTEST * np.median(size_px[rows])] = np.nan
            bend = np.nan_to_num(np.gradient(slope, own_s, axis=0))
            late = late_s[rows][..., None]
            xy[rows] -= np.nan_to_num(late * slope - 0.5 * late**2 * bend)
    return replace(keypoints, xy_px=xy)
