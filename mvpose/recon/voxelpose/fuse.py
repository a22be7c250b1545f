"""Poses of a whole recording by VoxelPose: from aligned 2D tracks, whose identities it does not need."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment

from mvpose.calib.camera import Camera
from mvpose.calib.rig import CameraRig
from mvpose.errors import FormatError, ReconstructionError
from mvpose.keypoints import AlignedKeypoints
from mvpose.poses import Poses3D
from mvpose.recon.align import AlignedTracks, slots_of
from mvpose.recon.voxelpose.follow import follow
from mvpose.recon.voxelpose.heatmaps import in_cells, render, views_of
from mvpose.recon.voxelpose.model import VoxelPose
from mvpose.recon.voxelpose.pretrained import WEIGHTS
from mvpose.recon.voxelpose.space import Space, room_of
from mvpose.skeleton import skeleton_of
from mvpose.training.weights import load_weights, read_metadata

LEAST_SCORE = 0.3
"""A place less likely than this is empty."""
NEAR_HEIGHTS = 0.15
"""A view supports a joint if its detection is nearer to it than this, in units of the person's height in the image."""

_BATCH = 8  # frames
_ONE_PERSON_M = 0.25  # two people found whose joints are nearer, in the mean, are one
_MIN_JOINTS = 3

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class _Views:
    """All cameras' detections on the timeline: at most K in a view at a time.

    Attributes:
        xy_px: (T, C, K, J, 2) distorted pixels; NaN where missing.
        score: (T, C, K, J) 0 … 1.
        sigma_px: (T, C, K, J) standard deviation; NaN where missing.
        height_px: (T, C, K) height of the person in the image; NaN where none.
    """

    xy_px: np.ndarray
    score: np.ndarray
    sigma_px: np.ndarray
    height_px: np.ndarray


@dataclass(frozen=True)
class _Frame:
    """The n people found at one time.

    Attributes:
        xyz_m: (n, J, 3) metres.
        sigma_m: (n, J, 3) standard deviation along the room's axes.
        detection: (n, C) which detection of each view shows the person; −1 where none.
    """

    xyz_m: np.ndarray
    sigma_m: np.ndarray
    detection: np.ndarray


def load_voxelpose(path: Path | None = None) -> VoxelPose:
    """Read networks and their weights, by default those that ship.

    Raises:
        FormatError: The file is missing, broken, or holds other networks.
    """
    path = WEIGHTS if path is None else path
    metadata = read_metadata(path)
    try:
        network = VoxelPose(metadata["voxelpose"], metadata["width"], metadata["cube_cells"])
    except (KeyError, TypeError) as error:
        raise FormatError(f"{path} does not hold weights of VoxelPose; train some by configs/voxelpose") from error
    load_weights(network, path)
    return network.eval()


def fuse_voxels(
    tracks: AlignedTracks, rig: CameraRig, network: VoxelPose, progress: Progress = lambda done, total: None
) -> tuple[Poses3D, AlignedKeypoints]:
    """Find everybody's 3D poses.

    A person whom fewer than two views support is left out. Joints are those that the network and the keypoints have in
    common; those that the network lacks (a foot's, a hand's) are missing in the result.

    Args:
        tracks: All cameras' 2D tracks on one timeline; which track is whose does not matter.
        rig: Knows all of their cameras.
        network: VoxelPose.
        progress: Called with (frames done, all).

    Returns:
        The poses, unsmoothed, and the keypoints that each person has in each view. The covariance is what the network
        foretells; ``n_views`` counts the views whose detection lies within ``NEAR_HEIGHTS`` of the joint.

    Raises:
        ReconstructionError: No two cameras see a common place, or nobody is found.
        CalibrationError: The rig lacks a camera.
    """
    rig = rig.subset(tracks.cameras)
    room = room_of(rig)
    joints = [name for name in network.joints.joint_names if name in tracks.skeleton.joint_names]
    if not {"left_hip", "right_hip"} <= set(joints):
        raise ReconstructionError("VoxelPose needs keypoints of both hips; use --method triangulate")
    seen = _laid_out(tracks, joints, network)
    frames: list[_Frame] = []
    with torch.inference_mode():
        for first in range(0, len(tracks.time_s), _BATCH):
            frames += _found(seen, slice(first, first + _BATCH), rig.cameras, room, network)
            progress(min(first + _BATCH, len(tracks.time_s)), len(tracks.time_s))
    names = follow(tracks.time_s, [frame.xyz_m for frame in frames])
    people = max((int(own.max(initial=-1)) + 1 for own in names), default=0)
    if not people:
        raise ReconstructionError(
            "no person is found in the space that two cameras see; check the clocks and the calibration"
        )
    return _assembled(tracks, rig, room, network, seen, frames, names, people, joints)


def _laid_out(tracks: AlignedTracks, joints: Sequence[str], network: VoxelPose) -> _Views:
    """Lay the tracklets out by view and slot; joints are the network's."""
    T, C, J = len(tracks.time_s), len(tracks.cameras), len(network.joints)
    own, theirs = network.joints.indices(joints), tracks.skeleton.indices(joints)
    slot = slots_of(tracks)
    shape = (T, C, int(slot.max(initial=-1)) + 1, J)
    seen = _Views(np.full((*shape, 2), np.nan), np.zeros(shape), np.full(shape, np.nan), np.full(shape[:3], np.nan))
    for tracklet, k in zip(tracks.tracklets, slot.tolist(), strict=True):
        at = (slice(tracklet.start, tracklet.stop), tracks.cameras.index(tracklet.camera), k)
        seen.xy_px[at][:, own] = tracklet.xy_px[:, theirs]
        seen.score[at][:, own] = tracklet.score[:, theirs]
        seen.sigma_px[at][:, own] = tracklet.sigma_px[:, theirs]
        seen.height_px[at] = tracklet.height_px
    return seen


def _found(seen: _Views, times: slice, cameras: Sequence[Camera], room: Space, network: VoxelPose) -> list[_Frame]:
    """Find people at some times, and the detections that show them."""
    views = views_of(cameras)
    xy_px, height_px = seen.xy_px[times], seen.height_px[times]
    focal = np.array([camera.focal_px for camera in cameras])[:, None]
    cells = in_cells(views, cameras, xy_px)
    height = torch.from_numpy(height_px / focal).float() * views.cells_per_unit[:, None]
    maps = render(cells, torch.from_numpy(seen.score[times]).float(), height)
    proposed = network.find(maps, views, room)
    frame, place = torch.nonzero(proposed.score >= LEAST_SCORE, as_tuple=True)
    axes = torch.from_numpy(room.axes.astype(np.float32))
    center = room.to_world(proposed.cell[frame, place].numpy())
    n = len(xy_px)
    if not len(frame):
        return [_nobody(len(cameras), network)] * n
    posed = network.pose(maps, views, axes, frame, torch.from_numpy(center.astype(np.float32)))
    score, which = proposed.score[frame, place].numpy(), frame.numpy()
    result = []
    for t in range(n):
        own = np.flatnonzero(which == t)
        kept = own[_distinct(posed.xyz_m[own].numpy(), score[own])]
        xyz, sigma = posed.xyz_m[kept].double().numpy(), posed.sigma_m[kept].double().numpy()
        detection = _detections(xyz, xy_px[t], height_px[t], cameras)
        supported = (detection >= 0).sum(axis=1) >= 2
        result.append(_Frame(xyz[supported], sigma[supported], detection[supported]))
    return result


def _nobody(cameras: int, network: VoxelPose) -> _Frame:
    none = np.zeros((0, len(network.joints), 3))
    return _Frame(none, none, np.zeros((0, cameras), dtype=int))


def _distinct(xyz: np.ndarray, score: np.ndarray) -> np.ndarray:
    """Return who of the people (n, J, 3) is not a less likely double of another."""
    kept: list[int] = []
    for i in np.argsort(-score, kind="stable").tolist():
        if all(np.linalg.norm(xyz[i] - xyz[k], axis=-1).mean() > _ONE_PERSON_M for k in kept):
            kept.append(i)
    return np.array(kept, dtype=int)


def _detections(xyz: np.ndarray, xy_px: np.ndarray, height_px: np.ndarray, cameras: Sequence[Camera]) -> np.ndarray:
    """Return which detection (n, C) of each view shows each person: the median joint is near; each shows one person.

    Args:
        xyz: (n, J, 3) people.
        xy_px: (C, K, J, 2) detections.
        height_px: (C, K) their heights.
        cameras: (C,) cameras.
    """
    detection = np.full((len(xyz), len(cameras)), -1)
    for c, camera in enumerate(cameras):
        there = np.flatnonzero(np.isfinite(xy_px[c]).all(axis=-1).sum(axis=-1) >= _MIN_JOINTS)
        if not len(there) or not len(xyz):
            continue
        miss = np.linalg.norm(camera.project(xyz)[:, None] - xy_px[c, there][None], axis=-1)  # (n, k, J)
        middle = _medians(miss) / height_px[c, there]
        cost = np.where(middle <= NEAR_HEIGHTS, middle, 1e3)
        for i, k in zip(*linear_sum_assignment(cost), strict=True):
            if cost[i, k] < 1e3:
                detection[i, c] = there[k]
    return detection


def _medians(values: np.ndarray) -> np.ndarray:
    """Return the lower median (...) of the known values along the last axis; infinite where there is none."""
    ordered = np.sort(np.where(np.isnan(values), np.inf, values), axis=-1)
    middle = np.maximum(np.isfinite(values).sum(axis=-1) - 1, 0) // 2
    return np.take_along_axis(ordered, middle[..., None], axis=-1)[..., 0]


def _assembled(
    tracks: AlignedTracks,
    rig: CameraRig,
    room: Space,
    network: VoxelPose,
    seen: _Views,
    frames: Sequence[_Frame],
    names: Sequence[np.ndarray],
    people: int,
    joints: Sequence[str],
) -> tuple[Poses3D, AlignedKeypoints]:
    """Lay out what was found by time and person."""
    T, C, J = len(frames), len(rig), len(network.joints)
    xyz, cov = np.full((T, people, J, 3), np.nan), np.full((T, people, J, 3, 3), np.nan, dtype=np.float32)
    xy, score = np.full((T, C, people, J, 2), np.nan), np.zeros((T, C, people, J))
    sigma, height = np.full((T, C, people, J), np.nan), np.full((T, C, people), np.nan)
    for t, (frame, own) in enumerate(zip(frames, names, strict=True)):
        for i, p in enumerate(own.tolist()):
            if p < 0:
                continue
            xyz[t, p] = frame.xyz_m[i]
            cov[t, p] = np.einsum("ki,jk,kl->jil", room.axes, frame.sigma_m[i] ** 2, room.axes)
            for c in np.flatnonzero(frame.detection[i] >= 0).tolist():
                k = frame.detection[i, c]
                xy[t, c, p], score[t, c, p] = seen.xy_px[t, c, k], seen.score[t, c, k]
                sigma[t, c, p], height[t, c, p] = seen.sigma_px[t, c, k], seen.height_px[t, c, k]
    miss = np.stack([np.linalg.norm(c.project(xyz) - xy[:, i], axis=-1) for i, c in enumerate(rig)], axis=1)
    used = miss <= NEAR_HEIGHTS * height[..., None]  # (T, C, P, J)
    n_views = used.sum(axis=1)
    # What no view shows is the network's guess from the rest of the body, with the uncertainty that it foretells.
    square = np.where(used, miss**2, 0.0).sum(axis=1)
    rms = np.where(n_views > 0, np.sqrt(square / np.maximum(n_views, 1)), np.nan)
    kept = network.joints.indices(joints)
    skeleton = skeleton_of(joints)
    ids = np.arange(people)
    poses = Poses3D(
        time_s=tracks.time_s,
        xyz_m=xyz[:, :, kept],
        person_ids=ids,
        reprojection_px=rms[:, :, kept],
        n_views=n_views[:, :, kept],
        cov_m2=cov[:, :, kept],
        skeleton=skeleton,
        cameras=tracks.cameras,
        up=rig.up,
    )
    return poses, AlignedKeypoints(
        tracks.cameras, tracks.time_s, xy[..., kept, :], score[..., kept], sigma[..., kept], ids, skeleton
    )
