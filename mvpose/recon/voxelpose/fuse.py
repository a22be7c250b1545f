"""Poses of a whole recording by VoxelPose: from aligned 2D tracks, which may break and be of anybody."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch

from mvpose.calib.camera import Camera
from mvpose.calib.rig import CameraRig
from mvpose.errors import FormatError, ReconstructionError
from mvpose.keypoints import AlignedKeypoints
from mvpose.poses import Poses3D
from mvpose.recon.align import AlignedTracks, slots_of
from mvpose.recon.associate import judge, warn_of_strangers
from mvpose.recon.voxelpose.explain import MIN_VIEWS, NEAR_HEIGHTS, Detections, People, explained, unexplained
from mvpose.recon.voxelpose.follow import follow
from mvpose.recon.voxelpose.heatmaps import in_cells, render, views_of
from mvpose.recon.voxelpose.model import VoxelPose
from mvpose.recon.voxelpose.pretrained import WEIGHTS
from mvpose.recon.voxelpose.space import Space, room_of
from mvpose.skeleton import skeleton_of
from mvpose.training.weights import check_weights, load_weights, read_metadata

LEAST_SCORE = 0.3
"""A place less likely than this is empty."""
LEAST_SCORE_AGAIN = 0.1
"""The same where detections of two views are left that nobody explains: somebody is likely, and is to fit them."""

_ENOUGH_JOINTS = 8  # of 13: in rooms of val motion, recall was 0.95 to 1 with so many, and 0.25 to 0.98 with 3 to 6

_BATCH = 8  # frames
_LOOKS = 4  # at what is left unexplained, the first one included

_log = logging.getLogger(__name__)

Progress = Callable[[int, int], None]


def load_voxelpose(path: Path | None = None) -> VoxelPose:
    """Read networks and their weights, by default those that ship; they run on a GPU where there is one.

    Raises:
        FormatError: The file is missing, broken, or holds other networks.
    """
    path = WEIGHTS if path is None else path
    metadata = read_metadata(path)
    try:
        build = partial(VoxelPose, metadata["voxelpose"], metadata["width"], metadata["cube_cells"])
        with torch.device("meta"):  # takes no memory, whatever size the file says
            check_weights(build(), path)
    except (KeyError, TypeError, ValueError) as error:
        raise FormatError(f"{path} does not hold weights of VoxelPose; train some by configs/voxelpose") from error
    network = build()
    load_weights(network, path)
    return network.to("cuda" if torch.cuda.is_available() else "cpu").eval()


def fuse_voxels(
    tracks: AlignedTracks, rig: CameraRig, network: VoxelPose, progress: Progress = lambda done, total: None
) -> tuple[Poses3D, AlignedKeypoints]:
    """Find everybody's 3D poses, with joints where the network has them; ``polish`` puts these where the keypoints are.

    A person whom fewer than two views support is left out, and so is anybody whom ``associate`` would not believe in:
    what several detectors invent looks like somebody now and then. Joints are those that the network and the keypoints
    have in common; those that the network lacks (a foot's, a hand's) are missing in the result.

    Args:
        tracks: All cameras' 2D tracks on one timeline. Whose they are is not known; who is found in one place and is
            shown by the same tracks as before is the same person.
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
    if len(joints) < _ENOUGH_JOINTS:
        _log.warning(
            "the keypoints have %d of the %d joints by which VoxelPose finds people, so that some may be missed; "
            "--method triangulate misses fewer",
            len(joints),
            len(network.joints),
        )
    seen = _laid_out(tracks, joints, network)
    frames: list[People] = []
    with torch.inference_mode():
        for first in range(0, len(tracks.time_s), _BATCH):
            frames += _found(seen[first : first + _BATCH], rig.cameras, room, network)
            progress(min(first + _BATCH, len(tracks.time_s)), len(tracks.time_s))
    shown = _shown_by(tracks, seen, frames)
    names = follow(tracks.time_s, [frame.placed_m for frame in frames], shown)
    number, judged = judge(tracks, _by_tracklet(tracks, shown, names), rig)
    names = [np.append(number, -1)[own] for own in names]
    people = int(number.max(initial=-1)) + 1
    if not people:
        raise ReconstructionError(
            "no person is found in the space that two cameras see; check the clocks and the calibration"
        )
    warn_of_strangers(tracks, judged)
    return _assembled(tracks, rig, room, network, seen, frames, names, people, joints)


def _laid_out(tracks: AlignedTracks, joints: Sequence[str], network: VoxelPose) -> Detections:
    """Lay the tracklets out by view and slot; joints are the network's."""
    T, C, J = len(tracks.time_s), len(tracks.cameras), len(network.joints)
    own, theirs = network.joints.indices(joints), tracks.skeleton.indices(joints)
    slot = slots_of(tracks)
    shape = (T, C, int(slot.max(initial=-1)) + 1, J)
    seen = Detections(np.full((*shape, 2), np.nan), np.zeros(shape), np.full(shape, np.nan), np.full(shape[:3], np.nan))
    for tracklet, k in zip(tracks.tracklets, slot.tolist(), strict=True):
        at = (slice(tracklet.start, tracklet.stop), tracks.cameras.index(tracklet.camera), k)
        seen.xy_px[at][:, own] = tracklet.xy_px[:, theirs]
        seen.score[at][:, own] = tracklet.score[:, theirs]
        seen.sigma_px[at][:, own] = tracklet.sigma_px[:, theirs]
        seen.height_px[at] = tracklet.height_px
    return seen


def _found(seen: Detections, cameras: Sequence[Camera], room: Space, network: VoxelPose) -> list[People]:
    """Find the people of some instants, and the detections that show them.

    What nobody explains is looked at again by itself, where that may be somebody: people who stood too close to others
    to be told from them stand alone then.
    """
    people = [_nobody(cameras, network)] * len(seen.xy_px)
    waiting = np.arange(len(people))
    for look in range(_LOOKS):
        rest = unexplained(people, seen)
        waiting = waiting[rest[waiting].any(axis=-1).sum(axis=-1) >= MIN_VIEWS]
        if not len(waiting):
            break
        least = LEAST_SCORE if look == 0 else LEAST_SCORE_AGAIN
        proposed = _proposed(seen[waiting], rest[waiting], cameras, room, network, least)
        before = [len(people[t]) for t in waiting]
        for t, more in zip(waiting.tolist(), proposed, strict=True):
            people[t] = explained(people[t], more, seen[t], cameras)
        if look > 0:  # or nothing has changed since the look before
            waiting = waiting[[len(people[t]) > count for t, count in zip(waiting, before, strict=True)]]
    return people


def _proposed(
    seen: Detections, shown: np.ndarray, cameras: Sequence[Camera], room: Space, network: VoxelPose, least: float
) -> list[People]:
    """Return whom the network sees at each instant, likeliest first, of the detections shown (T, C, K).

    A view in which nobody is detected is left aside: its camera may not be recording, and voxels gather the mean of the
    views that see them.
    """
    showing = seen.there.any(axis=2)
    people = [_nobody(cameras, network)] * len(shown)
    for views in np.unique(showing, axis=0):
        own, c = np.flatnonzero((showing == views).all(axis=1)), np.flatnonzero(views)
        part = np.ix_(own, c)
        proposed = _seen_by(seen[part], shown[part], [cameras[i] for i in c.tolist()], room, network, least)
        for t, (xyz, sigma) in zip(own.tolist(), proposed, strict=True):
            people[t] = People.proposed(xyz, sigma, len(cameras))
    return people


def _seen_by(
    seen: Detections, shown: np.ndarray, cameras: Sequence[Camera], room: Space, network: VoxelPose, least: float
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return the joints (n, J, 3) of whom the network sees at each instant, and their standard deviation."""
    device = next(network.parameters()).device
    views = views_of(cameras)
    focal = np.array([camera.focal_px for camera in cameras])[:, None]
    height = torch.from_numpy(seen.height_px / focal).float() * views.cells_per_unit[:, None]
    amplitude = torch.from_numpy(np.where(shown[..., None], seen.score, 0.0)).float()
    xy = in_cells(views, cameras, seen.xy_px)
    maps, views = render(xy.to(device), amplitude.to(device), height.to(device)), views.to(device)
    found = network.find(maps, views, room)
    instant, place = torch.nonzero(found.score >= least, as_tuple=True)
    center = room.to_world(found.cell[instant, place].cpu().numpy())
    if not len(instant):
        none = np.zeros((0, len(network.joints), 3))
        return [(none, none)] * len(maps)
    axes, center_m = (torch.as_tensor(x, dtype=torch.float32, device=device) for x in (room.axes, center))
    posed = network.pose(maps, views, axes, instant, center_m)
    xyz, sigma = posed.xyz_m.cpu().double().numpy(), posed.sigma_m.cpu().double().numpy()
    own = [(instant == t).cpu().numpy() for t in range(len(maps))]
    return [(xyz[i], sigma[i]) for i in own]


def _shown_by(tracks: AlignedTracks, seen: Detections, frames: Sequence[People]) -> list[np.ndarray]:
    """Return for each frame which tracklet (n, C) shows each of its people in each view; −1 where none does."""
    tracklet = np.full(seen.height_px.shape, -1)  # (T, C, K)
    for i, (one, k) in enumerate(zip(tracks.tracklets, slots_of(tracks).tolist(), strict=True)):
        tracklet[one.start : one.stop, tracks.cameras.index(one.camera), k] = i
    view = np.arange(len(tracks.cameras))
    return [
        np.where(frame.detection >= 0, own[view, frame.detection], -1)
        for own, frame in zip(tracklet, frames, strict=True)
    ]


def _by_tracklet(tracks: AlignedTracks, shown: Sequence[np.ndarray], names: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Return for each tracklet whom it shows at each of its samples (n,); −1 for nobody."""
    person = [np.full(tracklet.stop - tracklet.start, -1) for tracklet in tracks.tracklets]
    for t, (by, own) in enumerate(zip(shown, names, strict=True)):
        for i, c in np.argwhere(by >= 0).tolist():
            person[by[i, c]][t - tracks.tracklets[by[i, c]].start] = own[i]
    return person


def _nobody(cameras: Sequence[Camera], network: VoxelPose) -> People:
    none = np.zeros((0, len(network.joints), 3))
    return People.proposed(none, none, len(cameras))


def _assembled(
    tracks: AlignedTracks,
    rig: CameraRig,
    room: Space,
    network: VoxelPose,
    seen: Detections,
    frames: Sequence[People],
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
