"""Refine what VoxelPose found: its voxels of some centimetres say where to look, the keypoints where joints are."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from mvpose.calib.rig import CameraRig
from mvpose.keypoints import AlignedKeypoints
from mvpose.poses import Poses3D
from mvpose.recon.align import MIN_JOINTS
from mvpose.recon.triangulate import triangulate

WILD_M = 1.0
"""A triangulated joint further from where the network has it is made of what shows something else. Where people touch,
the network is half a metre wrong about a hand now and then, and the keypoints are right."""

# How many of the network's own σ it is wrong about joints that cannot be triangulated: RMS over 11 joints near which no
# view has a detection, and over 118 near which some view has one; 6 rooms of val motion, 2 to 5 cameras, 2 s each.
_UNSEEN_SIGMAS, _SEEN_SIGMAS = 4.0, 2.2


def polish(poses: Poses3D, aligned: AlignedKeypoints, rig: CameraRig) -> Poses3D:
    """Put triangulated joints in the place of the network's.

    Args:
        poses: What ``fuse_voxels`` found.
        aligned: The keypoints that show these people.
        rig: Knows all of their cameras.

    Returns:
        The same people at the same times. Joints on which two views agree are triangulated, covariance and support
        included. The others are guesses of the network: ``n_views`` is 1 where a detection is near and 0 elsewhere, and
        the covariance is as large as such guesses are wrong, by how far they contradict the views included. Whoever
        has fewer than ``MIN_JOINTS`` triangulated joints at a time is missing then.
    """
    seen = triangulate(aligned, rig)
    apart_m = np.linalg.norm(seen.xyz_m - poses.xyz_m, axis=-1)  # (T, P, J); NaN where either is missing
    better = apart_m <= WILD_M
    J = better.shape[-1]
    gone = (better.sum(axis=-1) < min(MIN_JOINTS, J))[..., None].repeat(J, axis=-1)
    xyz = np.where(better[..., None], seen.xyz_m, poses.xyz_m)
    cov = np.where(better[..., None, None], seen.cov_m2, _of_guesses(poses, apart_m))
    miss_px = np.where(better, seen.reprojection_px, poses.reprojection_px)
    return replace(
        poses,
        xyz_m=np.where(gone[..., None], np.nan, xyz),
        reprojection_px=np.where(gone, np.nan, miss_px),
        n_views=np.where(gone, 0, np.where(better, seen.n_views, np.minimum(poses.n_views, 1))),
        cov_m2=np.where(gone[..., None, None], np.nan, cov).astype(np.float32),
    )


def _of_guesses(poses: Poses3D, apart_m: np.ndarray) -> np.ndarray:
    """Return the covariance (T, P, J, 3, 3) of the network's guesses, which views contradict by so much (T, P, J)."""
    sigmas = np.where(poses.n_views > 0, _SEEN_SIGMAS, _UNSEEN_SIGMAS)
    contradiction = np.where(np.isnan(apart_m), 0.0, apart_m) ** 2 / 3
    return poses.cov_m2 * (sigmas**2)[..., None, None] + contradiction[..., None, None] * np.eye(3)
