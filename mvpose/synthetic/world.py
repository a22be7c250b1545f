"""A known world: people, cameras and the cameras' true clocks, and what a detector reports of it.

**World time** is the motion's own. A camera's true clock maps its own time (0 at its first frame) to world time; no
camera's clock need be (0, 1). ``World.true_clocks`` gives the same truth as an estimator would: against a reference.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product

import numpy as np
from scipy.ndimage import binary_closing

from mvpose.calib.camera import Camera
from mvpose.calib.rig import CameraRig
from mvpose.clock import Clock, Clocks
from mvpose.keypoints import UNTRACKED, Keypoints2D
from mvpose.poses import Poses3D
from mvpose.skeleton import CLIP_SKELETON, Skeleton
from mvpose.synthetic.motion import Motion
from mvpose.synthetic.noise import DetectorNoise, apply_noise, imagine_people

FALSE_PERSON = -1
_MIN_JOINTS = 3  # a detector does not report a person of whom it sees less


@dataclass(frozen=True)
class World:
    """People, cameras and clocks, all known.

    Attributes:
        motion: The people, in world time.
        rig: The cameras; world frame of the motion.
        clocks: Each camera's true clock, own time to world time.
        frame_times_s: Each camera's (T,) frame times on its own clock, seconds, as they are written; the first is 0.
        true_times_s: (T,) times on its own clock at which a camera really took its frames, seconds; by default those
            written.
        readout_s: How long a camera reads its rows, from the first at the frame's time down to the last, seconds of its
            own clock; by default 0, all at once.
    """

    motion: Motion
    rig: CameraRig
    clocks: Mapping[str, Clock]
    frame_times_s: Mapping[str, np.ndarray]
    true_times_s: Mapping[str, np.ndarray] = field(default_factory=dict)
    readout_s: Mapping[str, float] = field(default_factory=dict)

    def taken_s(self, camera: str) -> np.ndarray:
        """Return when a camera really took its frames (T,), seconds on its own clock."""
        return self.true_times_s.get(camera, self.frame_times_s[camera])

    def true_clocks(self, reference: str) -> Clocks:
        """Return all clocks against one camera's own time, without uncertainty."""
        return Clocks(reference, self.clocks, components=(tuple(self.clocks),)).on(reference)

    def truth_poses(self, time_s: np.ndarray, reference: str, skeleton: Skeleton = CLIP_SKELETON) -> Poses3D:
        """Return the true poses at session times (T,), which are the reference camera's own times.

        ``n_views`` counts the cameras in whose image a joint lies, whether their recording covers the time or not.
        """
        t = np.asarray(time_s, dtype=np.float64)
        joints = self.motion.skeleton.indices(skeleton.joint_names)
        xyz = self.motion.at(self.clocks[reference].to_session(t))[:, :, joints]
        there = np.isfinite(xyz).all(axis=-1)
        views = sum((in_image(camera, xyz).astype(np.int64) for camera in self.rig), np.zeros(there.shape, np.int64))
        return Poses3D(
            time_s=t,
            xyz_m=xyz,
            person_ids=np.arange(self.motion.n_people),
            reprojection_px=np.where(there, 0.0, np.nan),
            n_views=views,
            cov_m2=np.where(there[..., None, None], np.float32(0), np.float32(np.nan)) * np.ones((3, 3), np.float32),
            skeleton=skeleton,
            cameras=self.rig.names,
            up=self.rig.up,
        )


@dataclass(frozen=True)
class Observation:
    """What a detector reports of one camera, and who that is.

    Attributes:
        keypoints: The detections; rows of a frame are in random order.
        truth_person: (N,) the person of each row, an index into the motion's; −1 for a person who is not there.
    """

    keypoints: Keypoints2D
    truth_person: np.ndarray


def make_world(
    rng: np.random.Generator,
    motion: Motion,
    rig: CameraRig,
    *,
    fps: Sequence[float],
    max_offset_s: float,
    max_drift_ppm: float,
    duration_s: float | None = None,
    dropped_frames: float = 0.0,
    jitter_s: float = 0.0,
    readout_s: Sequence[float] | float = 0.0,
) -> World:
    """Let cameras record a motion, each on its own clock.

    Each camera starts at a random instant in the first ``max_offset_s`` of the session and stops in its last
    ``max_offset_s / 4``, so all record together for at least ``duration_s − 1.25 max_offset_s``.

    Args:
        rng: Source of randomness.
        motion: The people.
        rig: The cameras.
        fps: Each camera's frames per second of its own clock.
        max_offset_s: How far apart starts may lie, seconds; at most half the duration.
        max_drift_ppm: Clock rates are uniform in 1 ± this, parts per million.
        duration_s: Length of the session, from the earliest possible start to the last stop, seconds; by default the
            motion's.
        dropped_frames: Share of frames that a camera leaves out, at random; the times of the others stay true.
        jitter_s: Standard deviation of frame times about the even grid (variable frame rate); frames are taken then.
        readout_s: How long each camera, or every one, reads its rows, seconds (rolling shutter).

    Raises:
        ValueError: The motion is shorter than the session, or the offsets leave too little in common.
    """
    duration = motion.duration_s if duration_s is None else duration_s
    if duration > motion.duration_s + 1e-6:
        raise ValueError(f"the motion lasts {motion.duration_s:.1f} s, less than the session's {duration:.1f} s")
    if max_offset_s > duration / 2:
        raise ValueError(f"starts {max_offset_s} s apart need a session of {2 * max_offset_s} s or more")
    if len(fps) != len(rig):
        raise ValueError(f"{len(fps)} frame rates for {len(rig)} cameras")
    clocks, frame_times = {}, {}
    readout = dict(zip(rig.names, np.broadcast_to(readout_s, len(rig)).tolist(), strict=True))
    for name, rate_hz in zip(rig.names, fps, strict=True):
        start_s, early_s = rng.uniform(0, max_offset_s), rng.uniform(0, max_offset_s / 4)
        rate = 1 + 1e-6 * rng.uniform(-max_drift_ppm, max_drift_ppm)
        length_s = (duration - early_s - start_s) / rate - readout[name]
        times = np.arange(int(length_s * rate_hz)) / rate_hz
        wobble = np.clip(jitter_s * rng.standard_normal(len(times)), -0.4 / rate_hz, 0.4 / rate_hz)
        times = (times + wobble)[rng.random(len(times)) >= dropped_frames]
        first_s = times[0]  # may lie before 0 by the wobble; half a frame's delay keeps it inside the motion
        frame_times[name] = times - first_s
        offset_s = motion.time_s[0] + start_s + rate * (first_s + 0.5 / rate_hz)
        epoch_s = float(frame_times[name][-1] / 2)
        clocks[name] = Clock(name, offset_s, rate, np.zeros((2, 2)), epoch_s=epoch_s, rate_fitted=True)
    return World(motion, rig, clocks, frame_times, readout_s=readout)


def with_lost_frames(world: World, camera: str, at_s: float, count: int) -> World:
    """Lose frames of one camera without a trace: the written times of those after them close up.

    Args:
        world: Earlier losses stay.
        camera: Whose frames.
        at_s: Written time from which on frames are lost, seconds.
        count: How many.

    Raises:
        ValueError: No frame would come after the loss.
    """
    written_s = world.frame_times_s[camera]
    first = int(np.searchsorted(written_s, at_s))
    if first + count >= len(written_s):
        raise ValueError(f"{camera} has no frame after the {count} from {at_s} s on")
    lost = slice(first, first + count)
    closed_s = np.delete(written_s, lost)
    closed_s[first:] -= written_s[first + count] - written_s[first]
    return replace(
        world,
        frame_times_s={**world.frame_times_s, camera: closed_s},
        true_times_s={**world.true_times_s, camera: np.delete(world.taken_s(camera), lost)},
    )


def with_repeats(rng: np.random.Generator, keypoints: Keypoints2D, share: float) -> Keypoints2D:
    """Let a share of frames, at random, show the frame before once more, as in a video brought to a constant rate."""
    frames = np.arange(keypoints.n_frames)
    shown = np.maximum.accumulate(np.where(rng.random(len(frames)) < share, 0, frames))
    start, count = keypoints.frame_ptr[shown], np.diff(keypoints.frame_ptr)[shown]
    frame_ptr = np.concatenate([[0], np.cumsum(count)])
    rows = np.repeat(start - frame_ptr[:-1], count) + np.arange(frame_ptr[-1])
    return replace(
        keypoints,
        frame_ptr=frame_ptr,
        xy_px=keypoints.xy_px[rows],
        score=keypoints.score[rows],
        track_id=keypoints.track_id[rows],
        bbox_px=np.asarray(keypoints.bbox_px)[rows],
    )


def observe(
    world: World,
    rng: np.random.Generator,
    noise: DetectorNoise | None = None,
    *,
    tracked: bool = True,
    skeleton: Skeleton = CLIP_SKELETON,
) -> dict[str, Keypoints2D]:
    """Return what a detector reports of each camera; see ``observe_labelled``."""
    labelled = observe_labelled(world, rng, noise, tracked=tracked, skeleton=skeleton)
    return {name: observation.keypoints for name, observation in labelled.items()}


def observe_labelled(
    world: World,
    rng: np.random.Generator,
    noise: DetectorNoise | None = None,
    *,
    tracked: bool = True,
    skeleton: Skeleton = CLIP_SKELETON,
) -> dict[str, Observation]:
    """Let a detector look through each camera at the true instants of its frames.

    Args:
        world: The people, cameras and clocks.
        rng: Source of randomness.
        noise: How well the detector works; None: exact projections with score 1.
        tracked: Give the track ids of a plausible 2D tracker: lasting, but broken after gaps and now and then, and
            sometimes exchanged or broken when people overlap in the image. Without noise they are never wrong.
            Otherwise all are −1.
        skeleton: The joints to report; the motion must have them.

    Returns:
        One observation for each camera. Joints outside the image, behind the camera or missed are NaN.
    """
    joints = world.motion.skeleton.indices(skeleton.joint_names)
    statures = world.motion.statures_m()
    root = world.motion.skeleton.indices(("left_hip", "right_hip"))
    observations = {}
    for camera in world.rig:
        time_s = world.frame_times_s[camera.name]
        world_s = world.clocks[camera.name].to_session(world.taken_s(camera.name))
        xyz = world.motion.at(world_s)
        depth = np.einsum("tpk,k->tp", xyz[:, :, root].mean(axis=2), camera.R[2]) + camera.t[2]
        xy = project_visible(camera, _as_read(world, camera, xyz[:, :, joints], joints))
        score = np.isfinite(xy).all(axis=-1).astype(float)
        person = np.arange(world.motion.n_people)
        height = camera.focal_px * statures / np.maximum(depth, 0.1)
        ids = np.tile(person, (len(time_s), 1))
        if noise is not None:
            centre = _middle(xy)
            xy, score = apply_noise(rng, noise, world_s, xy, height, depth, skeleton)
            xy, score = _keep_inside(camera, xy, score)
            ids = _tracker_ids(rng, world_s, _reported(xy), centre, height)
            if noise.false_people > 0:
                false_xy, false_score = imagine_people(rng, noise, world_s, skeleton, camera.size_px)
                false_xy, false_score = _keep_inside(camera, false_xy, false_score)
                xy, score = np.concatenate([xy, false_xy], axis=1), np.concatenate([score, false_score], axis=1)
                person = np.concatenate([person, np.full(false_xy.shape[1], FALSE_PERSON)])
                ids = np.concatenate([ids, _false_ids(_reported(false_xy), int(ids.max()) + 1)], axis=1)
        observations[camera.name] = _shuffled_rows(
            rng, camera, time_s, xy, score, ids if tracked else np.full(ids.shape, UNTRACKED), person, skeleton
        )
    return observations


def _as_read(world: World, camera: Camera, xyz_m: np.ndarray, joints: np.ndarray, rounds: int = 3) -> np.ndarray:
    """Return where joints are when a camera reads their rows, from where they are (T, P, J, 3) at its frames' times.

    A joint is read ``readout_s · row / (height − 1)`` after its frame's time, in whose row it is then: a fixed point. A
    round leaves of an error the part ``readout_s · speed / height``, less than a tenth even for hands that punch.
    """
    readout_s = world.readout_s.get(camera.name, 0.0)
    if readout_s == 0:
        return xyz_m
    taken_s = world.taken_s(camera.name)
    for _ in range(rounds):
        row = np.nan_to_num(_project_ahead(camera, xyz_m)[..., 1])  # what lies behind the camera is not seen anyway
        read_s = taken_s[:, None, None] + readout_s * np.clip(row / (camera.size_px[1] - 1), 0, 1)
        xyz_m = np.empty_like(xyz_m)
        for person, (j, joint) in product(range(xyz_m.shape[1]), enumerate(joints)):
            when = world.clocks[camera.name].to_session(read_s[:, person, j])
            xyz_m[:, person, j] = world.motion.at(when)[:, person, joint]
    return xyz_m


def project_visible(camera: Camera, xyz_m: np.ndarray) -> np.ndarray:
    """Project world points (..., 3) to pixels (..., 2); NaN where they do not lie inside the image."""
    xy = _project_ahead(camera, xyz_m)
    return np.where(_inside(camera, xy)[..., None], xy, np.nan)


def _project_ahead(camera: Camera, xyz_m: np.ndarray) -> np.ndarray:
    """Project world points (..., 3) before the camera to pixels (..., 2), beyond the image as well; NaN for others.

    Points farther off the axis than the lens's polynomial is valid for are left out: it folds them back into the image.
    """
    cam = xyz_m @ camera.R.T + camera.t
    with np.errstate(divide="ignore", invalid="ignore"):
        valid = (cam[..., 2] > 0.1) & (np.hypot(cam[..., 0], cam[..., 1]) < _valid_radius(camera) * cam[..., 2])
    xy = np.full((*xyz_m.shape[:-1], 2), np.nan)
    xy[valid] = camera.project(xyz_m[valid])
    return xy


def _valid_radius(camera: Camera) -> float:
    """Return the distance from the axis, on the plane z = 1, up to which a larger one lies farther out in the image."""
    radius = np.linspace(0, 10, 1001)
    points = np.stack([radius, np.zeros_like(radius), np.ones_like(radius)], axis=1)
    image_x = camera.project((points - camera.t) @ camera.R)[:, 0]
    folds = np.flatnonzero(np.diff(image_x) <= 0)
    return float(radius[folds[0]] if len(folds) else radius[-1])


def in_image(camera: Camera, xyz_m: np.ndarray) -> np.ndarray:
    """Tell for world points (..., 3) whether they lie inside a camera's image."""
    return np.asarray(np.isfinite(project_visible(camera, xyz_m)).all(axis=-1))


def _inside(camera: Camera, xy_px: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        return np.asarray(((xy_px >= -0.5) & (xy_px <= np.array(camera.size_px) - 0.5)).all(axis=-1))


def _keep_inside(camera: Camera, xy_px: np.ndarray, score: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    inside = _inside(camera, xy_px)
    return np.where(inside[..., None], xy_px, np.nan), np.where(inside, score, 0.0)


def _reported(xy_px: np.ndarray) -> np.ndarray:
    """Tell (T, P) which people have enough joints (T, P, J, 2) to be reported."""
    return np.asarray(np.isfinite(xy_px).all(axis=-1).sum(axis=-1) >= _MIN_JOINTS)


def _middle(xy_px: np.ndarray) -> np.ndarray:
    """Return the mean (T, P, 2) of the visible joints (T, P, J, 2); NaN without any."""
    seen = np.isfinite(xy_px)
    with np.errstate(invalid="ignore"):
        return np.where(seen, xy_px, 0.0).sum(axis=2) / seen.sum(axis=2)


def _tracker_ids(
    rng: np.random.Generator,
    time_s: np.ndarray,
    reported: np.ndarray,
    centre_px: np.ndarray,
    height_px: np.ndarray,
    *,
    patience_s: float = 0.5,
    breaks_per_minute: float = 0.3,
    overlap: float = 0.2,
    exchange_chance: float = 0.15,
    break_chance: float = 0.2,
) -> np.ndarray:
    """Return the ids (T, P) that a plausible tracker gives; its rates are chosen, no measurement was at hand.

    An id ends after ``patience_s`` without a detection and at random, and at the end of an overlap (middles closer than
    ``overlap`` of the smaller height) two people exchange their ids or one gets a new one with the given chances.
    """
    frames, people = reported.shape
    step_s = float(np.median(np.diff(time_s)))
    events: list[tuple[int, int, int]] = []  # (frame, person, other); the same person twice: a new id
    for p in range(people):
        seen = np.flatnonzero(reported[:, p])
        events += [(int(seen[k + 1]), p, p) for k in np.flatnonzero(np.diff(time_s[seen]) > patience_s)]
        count = rng.poisson(breaks_per_minute / 60 * (time_s[-1] - time_s[0]))
        events += [(int(frame), p, p) for frame in rng.integers(0, frames, count)]
        for q in range(p):
            with np.errstate(invalid="ignore"):
                apart = np.linalg.norm(centre_px[:, p] - centre_px[:, q], axis=-1)
                close = apart < overlap * np.minimum(height_px[:, p], height_px[:, q])
            close = binary_closing(close, np.ones(2 * int(0.25 / step_s) + 1))  # one overlap, however it flickers
            for end in np.flatnonzero(close[:-1] & ~close[1:]) + 1:
                luck = rng.random()
                if luck < exchange_chance:
                    events.append((int(end), p, q))
                elif luck < exchange_chance + break_chance:
                    hidden = (p, q)[rng.integers(2)]
                    events.append((int(end), hidden, hidden))
    ids = np.tile(rng.permutation(people), (frames, 1))
    fresh = people
    for frame, p, q in sorted(events):
        if p == q:
            ids[frame:, p] = fresh
            fresh += 1
        else:
            ids[frame:, [p, q]] = ids[frame:, [q, p]]
    return ids


def _false_ids(reported: np.ndarray, first: int) -> np.ndarray:
    """Give each uninterrupted appearance (T, F) an id of its own, from ``first`` up."""
    appears = reported & ~np.vstack([np.zeros((1, reported.shape[1]), bool), reported[:-1]])
    return first + np.cumsum(appears.T.ravel()).reshape(reported.T.shape).T


def _shuffled_rows(
    rng: np.random.Generator,
    camera: Camera,
    time_s: np.ndarray,
    xy_px: np.ndarray,
    score: np.ndarray,
    ids: np.ndarray,
    person: np.ndarray,
    skeleton: Skeleton,
) -> Observation:
    """Turn dense arrays (T, P, …) into rows, one a reported person and frame, in random order within each frame."""
    reported = _reported(xy_px)
    frame, who = np.nonzero(reported)
    order = np.lexsort((rng.random(len(frame)), frame))
    frame, who = frame[order], who[order]
    keypoints = Keypoints2D(
        camera=camera.name,
        time_s=time_s,
        frame_ptr=np.concatenate([[0], np.cumsum(reported.sum(axis=1))]),
        xy_px=xy_px[frame, who],
        score=score[frame, who],
        track_id=ids[frame, who],
        skeleton=skeleton,
        size_px=camera.size_px,
    )
    return Observation(keypoints, person[who])
