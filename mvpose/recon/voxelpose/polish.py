"""Refine what VoxelPose found: its voxels of some centimetres say where to look, the keypoints where joints are."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from mvpose.calib.rig import CameraRig
from mvpose.keypoints import AlignedKeypoints
from mvpose.poses import Poses3D
from mvpose.recon.triangulate import triangulate

WILD_M = 1.0
"""A triangulated joint further from where the network has it is made of what shows something else. Where people touch,
the network is half a metre wrong about a hand now and then, and the keypoints are right."""


def polish(poses: Poses3D, aligned: AlignedKeypoints, rig: CameraRig) -> Poses3D:
    """Put triangulated joints in the place of the network's.

    Args:
        poses: What ``fuse_voxels`` found.
        aligned: The keypoints that show these people.
        rig: Knows all of their cameras.

    Returns:
        The same people at the same times. Joints on which two views agree are triangulated, covariance and support
        included; the others remain as the network has them.
    """
    seen = triangulate(aligned, rig)
    better = np.linalg.norm(seen.xyz_m - poses.xyz_m, axis=-1) <= WILD_M  # (T, P, J); false where either is missing
    return replace(
        poses,
        xyz_m=np.where(better[..., None], seen.xyz_m, poses.xyz_m),
        reprojection_px=np.where(better, seen.reprojection_px, poses.reprojection_px),
        n_views=np.where(better, seen.n_views, poses.n_views),
        cov_m2=np.where(better[..., None, None], seen.cov_m2, poses.cov_m2),
    )
