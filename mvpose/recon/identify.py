"""Carry the identities of one reconstruction over to another of the same keypoints under other clocks.

What other clocks do to 3D can be told only if the same people are paired with one another. Where cameras are seconds
apart, pairing them anew gives a crowd of strangers who met by chance.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from mvpose.clock import Clock, Clocks
from mvpose.keypoints import UNTRACKED, AlignedKeypoints, Keypoints2D, keypoint_boxes
from mvpose.recon.align import AlignedTracks

_NEAR = 0.15
"""A detection is the person whose aligned keypoints lie within this share of its extent, in the median."""


def identified(
    keypoints: Mapping[str, Keypoints2D], clocks: Clocks, aligned: AlignedKeypoints
) -> dict[str, Keypoints2D]:
    """Name the detections of every camera after the people of a reconstruction.

    Args:
        keypoints: Each camera's keypoints; those without a clock are left aside.
        clocks: The clocks of the reconstruction.
        aligned: Its keypoints, by person.

    Returns:
        The detections that are somebody's, ``track_id`` being the index of the person.
    """
    return {
        name: _identified(keypoints[name].with_skeleton(aligned.skeleton), clocks[name], aligned, c)
        for c, name in enumerate(aligned.cameras)
    }


def _identified(keypoints: Keypoints2D, clock: Clock, aligned: AlignedKeypoints, camera: int) -> Keypoints2D:
    track_id = np.full(len(keypoints.xy_px), UNTRACKED)
    if len(aligned.time_s) > 1 and len(aligned.person_ids):
        step_s = float(aligned.time_s[1] - aligned.time_s[0])
        index = np.rint((clock.to_session(keypoints.time_s) - aligned.time_s[0]) / step_s).astype(int)
        inside = ((index >= 0) & (index < len(aligned.time_s)))[keypoints.frame_index]
        rows = np.flatnonzero(inside)
        size = np.ptp(keypoint_boxes(keypoints.xy_px[rows]).reshape(-1, 2, 2), axis=1).max(axis=-1)
        apart = np.stack(
            [
                _median_known(
                    np.linalg.norm(
                        aligned.xy_px[index[keypoints.frame_index[rows]], camera, p] - keypoints.xy_px[rows], axis=-1
                    )
                )
                for p in range(len(aligned.person_ids))
            ],
            axis=1,
        )  # (rows, P)
        nearest = apart.argmin(axis=1)
        near = apart[np.arange(len(rows)), nearest] <= _NEAR * size
        track_id[rows[near]] = nearest[near]
        track_id = _one_each(track_id, keypoints.frame_index, rows, apart)
    return replace(keypoints, track_id=track_id).only(np.flatnonzero(track_id != UNTRACKED))


def _one_each(track_id: np.ndarray, frame: np.ndarray, rows: np.ndarray, apart: np.ndarray) -> np.ndarray:
    """Leave each person to the nearest detection of a frame."""
    distance = np.full(len(track_id), np.inf)
    distance[rows] = apart.min(axis=1)
    order = np.lexsort((distance, track_id, frame))
    again = (np.diff(frame[order]) == 0) & (np.diff(track_id[order]) == 0)
    single = track_id.copy()
    single[order[1:][again]] = UNTRACKED
    return single


def _median_known(values: np.ndarray) -> np.ndarray:
    """Return the median of each row's known values (n,); infinite where there is none."""
    ordered = np.sort(values, axis=1)  # NaN go last
    count = np.isfinite(values).sum(axis=1)
    middle = ordered[np.arange(len(values)), np.maximum(count - 1, 0) // 2]
    return np.where(count > 0, middle, np.inf)


def by_identity(tracks: AlignedTracks, person_ids: np.ndarray) -> AlignedKeypoints:
    """Take track ids for people: all tracklets with the id p, in whatever camera, are the person p.

    Args:
        tracks: Tracks of identified keypoints.
        person_ids: (P,) lasting identity of each person.
    """
    shape = (len(tracks.time_s), len(tracks.cameras), len(person_ids), len(tracks.skeleton))
    xy, score, sigma = np.full((*shape, 2), np.nan), np.zeros(shape), np.full(shape, np.nan)
    for t in tracks.tracklets:
        at = (slice(t.start, t.stop), tracks.cameras.index(t.camera), t.track_id)
        xy[at], score[at], sigma[at] = t.xy_px, t.score, t.sigma_px
    return AlignedKeypoints(tracks.cameras, tracks.time_s, xy, score, sigma, person_ids, tracks.skeleton)
