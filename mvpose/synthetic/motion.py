"""Motion in continuous time: people made by code alone, and clips of real motion capture.

World frame: metres, Z up, the floor at z = 0, the room's centre at the origin. A body's own frame has x forward, y left
and z up. Joints are those of ``SKELETONS["cmu21"]``.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from scipy.interpolate import BSpline, CubicSpline, PchipInterpolator, make_interp_spline
from scipy.ndimage import gaussian_filter1d

from mvpose.errors import FormatError
from mvpose.inputs import read_npz, read_text
from mvpose.skeleton import SKELETONS, Skeleton, skeleton_of

CMU21 = SKELETONS["cmu21"]
_RATES_HZ = (1.0, 10_000.0)  # of a motion pack's clips
_FARTHEST_M = 1e4
GRAVITY_MPS2 = 9.81
_Angles = dict[str, np.ndarray]

# Each joint's bone towards the pelvis, from the pelvis outward.
_BONES = (
    ("pelvis", "spine"), ("spine", "thorax"), ("thorax", "neck"),
    ("neck", "head"), ("head", "head_top"), ("neck", "nose"),
    ("thorax", "left_shoulder"), ("left_shoulder", "left_elbow"), ("left_elbow", "left_wrist"),
    ("thorax", "right_shoulder"), ("right_shoulder", "right_elbow"), ("right_elbow", "right_wrist"),
    ("pelvis", "left_hip"), ("left_hip", "left_knee"), ("left_knee", "left_ankle"), ("left_ankle", "left_toe"),
    ("pelvis", "right_hip"), ("right_hip", "right_knee"), ("right_knee", "right_ankle"), ("right_ankle", "right_toe"),
)  # fmt: skip

# Parts of the stature; segments and heights after Drillis & Contini 1966, as in Winter, Biomechanics of Human Movement,
# fig. 4.1; the widths are between joint centres, narrower than the body's breadths.
_THIGH, _SHANK, _ANKLE_HEIGHT = 0.245, 0.246, 0.039
_UPPER_ARM, _FOREARM = 0.186, 0.146
_HALF_HIPS, _HALF_SHOULDERS = 0.05, 0.11
_BALL_FORWARD, _BALL_HEIGHT = 0.09, 0.022
_SPINE_UP, _THORAX_UP, _NECK_UP, _HEAD_UP, _CROWN_UP = 0.11, 0.18, 0.05, 0.065, 0.065
_NOSE_FORWARD, _NOSE_UP = 0.06, 0.045
_LEG = _THIGH + _SHANK


@dataclass(frozen=True)
class Motion:
    """People moving, known at every instant.

    Attributes:
        time_s: (T,) sample times in the world, seconds, strictly increasing.
        xyz_m: (T, P, J, 3) metres; NaN where a person is absent. A person is there with all joints or not at all.
        skeleton: The joints, in order.
    """

    time_s: np.ndarray
    xyz_m: np.ndarray
    skeleton: Skeleton = CMU21

    def __post_init__(self) -> None:
        object.__setattr__(self, "time_s", np.asarray(self.time_s, dtype=np.float64))
        object.__setattr__(self, "xyz_m", np.asarray(self.xyz_m, dtype=np.float64))
        if self.xyz_m.ndim != 4 or self.xyz_m.shape[2:] != (len(self.skeleton), 3):
            raise ValueError(f"xyz_m is {self.xyz_m.shape}, not (T, P, {len(self.skeleton)}, 3)")
        if self.time_s.shape != (len(self.xyz_m),) or len(self.time_s) < 2 or (np.diff(self.time_s) <= 0).any():
            raise ValueError("a motion needs at least two samples, at increasing times")

    @property
    def duration_s(self) -> float:
        """Time from the first to the last sample, seconds."""
        return float(self.time_s[-1] - self.time_s[0])

    @property
    def n_people(self) -> int:
        """Number of people, those present for a part of the time included."""
        return self.xyz_m.shape[1]

    @cached_property
    def _pieces(self) -> list[tuple[int, float, float, BSpline]]:
        """One spline for each stretch of a person's presence: (person, first_s, last_s, spline)."""
        pieces = []
        for person in range(self.n_people):
            present = np.isfinite(self.xyz_m[:, person]).all(axis=(1, 2))
            edges = np.flatnonzero(np.diff(np.concatenate([[False], present, [False]])))
            for first, end in zip(edges[::2], edges[1::2], strict=True):
                if end - first < 2:
                    continue
                t = self.time_s[first:end]
                values = self.xyz_m[first:end, person].reshape(end - first, -1)
                order = 3 if end - first > 3 else 1
                pieces.append((person, t[0], t[-1], make_interp_spline(t, values, k=order, check_finite=False)))
        return pieces

    def at(self, time_s: np.ndarray) -> np.ndarray:
        """Evaluate the motion at any times, by a cubic spline through the samples.

        Args:
            time_s: (T',) world times, seconds, in any order.

        Returns:
            (T', P, J, 3) metres; NaN outside a person's presence.
        """
        t = np.asarray(time_s, dtype=np.float64)
        out = np.full((len(t), *self.xyz_m.shape[1:]), np.nan)
        for person, first_s, last_s, spline in self._pieces:
            inside = (t >= first_s) & (t <= last_s)
            out[inside, person] = spline(t[inside]).reshape(-1, *self.xyz_m.shape[2:])
        return out

    def statures_m(self) -> np.ndarray:
        """Return each person's standing height (P,), metres, from the lengths of leg, trunk and head.

        Joint centres only: the ankle's height above the floor is added as a part of the stature.
        """
        chain = self.skeleton.indices(
            ("left_ankle", "left_knee", "left_hip", "pelvis", "spine", "thorax", "neck", "head", "head_top")
        )
        bones = np.linalg.norm(np.diff(self.xyz_m[:, :, chain], axis=2), axis=-1)
        lengths = np.nanmedian(bones, axis=0)
        sideways = 2  # hip to pelvis lies across the body
        return (lengths.sum(axis=-1) - lengths[:, sideways]) / (1 - _ANKLE_HEIGHT)


def generate_motion(
    rng: np.random.Generator, duration_s: float, people: int = 1, *, area_m: float = 4.0, rate_hz: float = 60.0
) -> Motion:
    """Make people who roam a room: they walk at changing speed, stop, turn, wave, punch, reach, squat and jump.

    Bones have constant lengths (forward kinematics of a body of 1.55 to 1.95 m), the lower foot stands on the floor,
    and people's pelvises keep half a metre or more apart.

    Args:
        rng: Source of randomness.
        duration_s: Length, seconds.
        people: Number of people, present all the time.
        area_m: Side of the square that they walk in, metres, round the origin.
        rate_hz: Samples per second that the splines go through.
    """
    time_s = _timeline(duration_s, rate_hz)
    roots = _roam(rng, time_s, people, area_m)
    return Motion(time_s, np.stack([_enact(rng, time_s, roots[:, p]) for p in range(people)], axis=1))


def crossing_motion(rng: np.random.Generator, duration_s: float = 60.0, *, rate_hz: float = 60.0) -> Motion:
    """Make two people who change places twice, passing each other at about 0.6 m, and act at either end between."""
    time_s = _timeline(duration_s, rate_hz)
    walk_s = min(4.0, duration_s / 5)
    leave_s = duration_s * np.array([0.25, 0.7]) + rng.uniform(-0.04, 0.04, 2) * duration_s - walk_s / 2
    keys_s = np.sort(np.concatenate([[0.0, duration_s], leave_s, leave_s + walk_s]))
    direction = rng.uniform(-np.pi, np.pi)
    along = np.array([np.cos(direction), np.sin(direction)])
    across = np.array([-along[1], along[0]])
    roots = []
    for side in (-1.0, 1.0):
        stops = side * np.array([1.4, -1.4, 1.4]) + rng.normal(0, 0.1, 3)
        x = np.repeat(stops, 2)
        swing = 0.04 * _smooth_noise(rng, len(time_s), 2.0 * rate_hz)
        place = PchipInterpolator(keys_s, x)(time_s) + swing
        smooth = gaussian_filter1d(place, 0.2 * rate_hz, mode="nearest")
        roots.append(smooth[:, None] * along + 0.3 * side * across)
    return Motion(time_s, np.stack([_enact(rng, time_s, root) for root in roots], axis=1))


def meeting_motion(rng: np.random.Generator, duration_s: float = 30.0, *, rate_hz: float = 60.0) -> Motion:
    """Make two people who meet twice: they stand at arm's length for 3 s, then walk back or on past each other."""
    time_s = _timeline(duration_s, rate_hz)
    stand_s = min(3.0, duration_s / 10)
    walk_s = 0.7 * stand_s
    far_m, near_m, aside_m = 1.5, 0.18, 0.3
    side, keys_s, places = 1.0, [0.0], [(far_m, 0.0)]
    for meeting in range(2):
        middle_s = duration_s * (0.25 + 0.5 * meeting) + rng.uniform(-0.03, 0.03) * duration_s
        begin_s, end_s = middle_s - stand_s / 2, middle_s + stand_s / 2
        keys_s += [begin_s - walk_s, begin_s, end_s]
        places += [(side * far_m, 0.0), (side * near_m, 0.0), (side * near_m, 0.0)]
        if rng.random() < 0.5:
            keys_s.append(end_s + walk_s / 3)
            places.append((0.0, side * aside_m))
            side = -side
        keys_s.append(end_s + walk_s)
        places.append((side * far_m, 0.0))
    path = PchipInterpolator([*keys_s, duration_s + 1], [*places, places[-1]])(time_s)
    turn = _turn("z", rng.uniform(-np.pi, np.pi, 1))[0, :2, :2]
    roots = []
    for sign in (1.0, -1.0):
        sway = 0.03 * np.stack([_smooth_noise(rng, len(time_s), 2.0 * rate_hz) for _ in range(2)], axis=1)
        roots.append((sign * path + sway) @ turn.T)
    return Motion(time_s, np.stack([_enact(rng, time_s, root) for root in roots], axis=1))


def still_motion(
    rng: np.random.Generator, duration_s: float, people: int = 1, *, area_m: float = 4.0, rate_hz: float = 60.0
) -> Motion:
    """Make people who stand without moving at all: nothing in them tells the time."""
    time_s = _timeline(duration_s, rate_hz)
    angle = rng.uniform(0, 2 * np.pi) + 2 * np.pi * np.arange(people) / people
    radius = 0.0 if people == 1 else area_m / 4
    zero = np.zeros(1)
    poses = [
        _forward_kinematics(
            _walk_angles(zero, zero),
            _stature(rng),
            radius * np.array([[np.cos(a), np.sin(a)]]),
            rng.uniform(-np.pi, np.pi, 1),
            zero,
        )
        for a in angle
    ]
    return Motion(time_s, np.repeat(np.stack(poses, axis=1), len(time_s), axis=0))


def walking_in_place(
    rng: np.random.Generator, duration_s: float, *, period_s: float = 1.1, rate_hz: float = 60.0
) -> Motion:
    """Make one person who walks on the spot, exactly periodic: offsets are known only up to a whole ``period_s``."""
    time_s = _timeline(duration_s, rate_hz)
    phase = 2 * np.pi * time_s / period_s + rng.uniform(0, 2 * np.pi)
    heading = np.full(len(time_s), rng.uniform(-np.pi, np.pi))
    angles = _walk_angles(phase, np.ones(len(time_s)))
    root = np.zeros((len(time_s), 2))
    return Motion(time_s, _forward_kinematics(angles, _stature(rng), root, heading, np.zeros(len(time_s)))[:, None])


def walking_laps(
    rng: np.random.Generator,
    duration_s: float,
    people: int = 1,
    *,
    radius_m: float = 1.2,
    period_s: float = 1.1,
    strides: int = 8,
    rate_hz: float = 60.0,
) -> Motion:
    """Make people who walk round a circle in step, exactly periodic: with every lap of ``strides`` periods.

    They are alike, evenly spaced, and take up each other's places: with two of them half a lap looks as a whole one.

    Args:
        rng: Source of randomness.
        duration_s: Length, seconds.
        people: Number of people; it divides ``strides``.
        radius_m: Of the circle, metres, round the origin.
        period_s: Length of a stride, two steps, seconds.
        strides: How many make a lap.
        rate_hz: Samples per second that the splines go through.
    """
    if strides % people:
        raise ValueError(f"{people} people cannot share {strides} strides and be in step")
    time_s = _timeline(duration_s, rate_hz)
    phase = 2 * np.pi * time_s / period_s + rng.uniform(0, 2 * np.pi)
    speed = 2 * np.pi * radius_m / (strides * period_s)
    stature, start = _stature(rng), rng.uniform(0, 2 * np.pi)
    effort, _ = _gait(np.full(len(time_s), speed), stature)
    bodies = []
    for turn in start + 2 * np.pi * np.arange(people) / people:
        place = turn + 2 * np.pi * time_s / (strides * period_s)
        root = radius_m * np.stack([np.cos(place), np.sin(place)], axis=1)
        angles = _walk_angles(phase, effort)
        bodies.append(_forward_kinematics(angles, stature, root, place + np.pi / 2, np.zeros(len(time_s))))
    return Motion(time_s, np.stack(bodies, axis=1))


def together(motions: Sequence[Motion], *, apart_m: float, rate_hz: float = 60.0) -> Motion:
    """Let people of several motions share a room for as long as the shortest lasts.

    Motions are moved ``apart_m`` from each other. The same one given twice makes people who do everything in step.

    Raises:
        ValueError: There is none, or they differ in their joints.
    """
    if len({motion.skeleton for motion in motions}) != 1:
        raise ValueError("people who are together have the same joints")
    time_s = _timeline(min(motion.duration_s for motion in motions), rate_hz)
    time_s = time_s[time_s <= min(motion.duration_s for motion in motions)]
    angle = 2 * np.pi * np.arange(len(motions)) / len(motions)
    radius_m = apart_m / (2 * np.sin(np.pi / len(motions))) if len(motions) > 1 else 0.0
    places = radius_m * np.stack([np.cos(angle), np.sin(angle), np.zeros(len(motions))], axis=1)
    moved = [m.at(m.time_s[0] + time_s) + place for m, place in zip(motions, places, strict=True)]
    return Motion(time_s, np.concatenate(moved, axis=1), motions[0].skeleton)


def read_motion_pack(path_npz: Path) -> dict[str, Motion]:
    """Read clips of one person each from an npz of motion capture, their rates from ``index.csv`` beside it.

    The npz holds ``joint_names`` and one float array (T, J, 3) a clip, metres, Z up; ``index.csv`` has the columns
    ``clip_id`` and ``fps``.

    Raises:
        FormatError: A file is missing, is no such pack, or a clip has no rate.
    """
    path_npz = Path(path_npz)
    index = path_npz.with_name("index.csv")
    try:
        table = csv.DictReader(read_text(index).splitlines())
        rates = {row["clip_id"]: float(row["fps"]) for row in table}
        arrays = read_npz(path_npz)
    # A damaged archive makes zipfile, zlib and numpy's header parser raise nearly anything.
    except Exception as error:
        words = getattr(error, "strerror", None) or error or type(error).__name__
        raise FormatError(f"{path_npz} is not a motion pack with {index.name} beside it: {words}") from error
    if "joint_names" not in arrays or arrays["joint_names"].ndim != 1:
        raise FormatError(f"{path_npz} is not a motion pack: it has no list of joint_names")
    sides = {"l": "left", "r": "right"}
    names = [
        "_".join([sides.get(head, head), *rest]) for head, *rest in (str(n).split("_") for n in arrays["joint_names"])
    ]
    try:
        skeleton = skeleton_of(names)
    except ValueError as error:
        raise FormatError(f"{path_npz}: its names of joints are not usable ({error})") from error
    clips = {name: xyz for name, xyz in arrays.items() if name != "joint_names"}
    for name, xyz in clips.items():
        if name not in rates:
            raise FormatError(f"{index} gives no rate for clip {name} of {path_npz.name}")
        if not _RATES_HZ[0] <= rates[name] <= _RATES_HZ[1]:
            raise FormatError(f"{index} gives {rates[name]:g} fps for clip {name}, which is no rate of motion capture")
        if xyz.dtype.kind != "f" or xyz.ndim != 3 or len(xyz) < 2 or xyz.shape[1:] != (len(skeleton), 3):
            raise FormatError(f"{path_npz}: clip {name} is {xyz.shape}, not (T, {len(skeleton)}, 3)")
        if not (np.abs(xyz) <= _FARTHEST_M).all():
            raise FormatError(f"{path_npz}: clip {name} holds places that are not finite, or kilometres away")
    return {name: Motion(np.arange(len(xyz)) / rates[name], xyz[:, None], skeleton) for name, xyz in clips.items()}


def chain(motions: Sequence[Motion], rng: np.random.Generator, *, area_m: float = 4.0, blend_s: float = 0.6) -> Motion:
    """Play clips of one person each one after another, as one long motion.

    Each clip goes on where the one before it stops, turned by up to 100 degrees to stay inside the room where that is
    possible, and the last ``blend_s`` of one fades into the first of the next. Clips of one actor keep their bones'
    lengths throughout; between actors the lengths fade as well.

    Args:
        motions: Clips of one person who is always present, with the joints of ``cmu21``; longer than two blends.
        rng: Source of randomness, for the turns.
        area_m: Side of the room's square, metres, round the origin.
        blend_s: Length of a fade, seconds.

    Raises:
        ValueError: A clip is too short or has more people.
    """
    rate_hz = 60.0
    fade = int(np.ceil(blend_s * rate_hz))
    weight = _smoothstep((np.arange(fade) + 0.5) / fade)
    parts: list[np.ndarray] = []
    for motion in motions:
        if motion.n_people != 1 or motion.duration_s <= 2 * blend_s + 1 / rate_hz:
            raise ValueError(f"a clip to chain shows one person for more than {2 * blend_s:.1f} s")
        clip = motion.at(motion.time_s[0] + np.arange(int(motion.duration_s * rate_hz) + 1) / rate_hz)[:, 0]
        if not parts:
            parts.append(_placed(clip, 0, np.zeros(2), rng.uniform(-np.pi, np.pi, 16), area_m))
            continue
        before = parts[-1][-fade:]
        turns = _facing(before[-1:]) - _facing(clip[:1]) + rng.uniform(-1.75, 1.75, 16)
        clip = _placed(clip, fade // 2, before[fade // 2, 0, :2], turns, area_m)
        parts[-1] = parts[-1][:-fade]
        parts += [_faded(before, clip[:fade], weight), clip[fade:]]
    xyz = np.concatenate(parts)
    return Motion(np.arange(len(xyz)) / rate_hz, xyz[:, None])


def _facing(xyz_m: np.ndarray) -> np.ndarray:
    """Return the direction (T,) that the hips of poses (T, J, 3) face, radians."""
    left, right = CMU21.indices(("left_hip", "right_hip"))
    across = xyz_m[:, left] - xyz_m[:, right]
    return np.arctan2(-across[:, 0], across[:, 1])


def _placed(clip_m: np.ndarray, frame: int, place_m: np.ndarray, turns: np.ndarray, area_m: float) -> np.ndarray:
    """Move a clip (T, J, 3) so that its pelvis is at a place in a frame, by the turn that leaves the room least."""
    moves = [_turn("z", np.array([turn]))[0] for turn in turns]
    pelvis = clip_m[:, 0] - clip_m[frame, 0]
    outside = [np.maximum(np.abs((pelvis @ R.T)[:, :2] + place_m) - area_m / 2, 0).sum() for R in moves]
    origin = clip_m[frame, 0] * [1, 1, 0]
    return (clip_m - origin) @ moves[int(np.argmin(outside))].T + [*place_m, 0]


def _faded(before_m: np.ndarray, after_m: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Fade one stretch (T, J, 3) into another: pelvis, heading and posture apart, bones' lengths restored."""
    facing = [np.unwrap(_facing(xyz)) for xyz in (before_m, after_m)]
    gap = facing[1] - facing[0]
    gap -= 2 * np.pi * np.round(gap[0] / (2 * np.pi))
    w = weight[:, None, None]
    own = [
        np.einsum("tij,tkj->tki", _turn("z", -angle), xyz - xyz[:, :1])
        for angle, xyz in zip(facing, (before_m, after_m), strict=True)
    ]
    posture = (1 - w) * own[0] + w * own[1]
    out = np.zeros_like(posture)
    for parent, child in (CMU21.indices(bone) for bone in _BONES):
        lengths = [np.linalg.norm(xyz[:, child] - xyz[:, parent], axis=-1) for xyz in own]
        bone = posture[:, child] - posture[:, parent]
        length = (1 - weight) * lengths[0] + weight * lengths[1]
        out[:, child] = out[:, parent] + bone * (length / np.linalg.norm(bone, axis=-1))[:, None]
    turned = np.einsum("tij,tkj->tki", _turn("z", facing[0] + weight * gap), out)
    return turned + (1 - w) * before_m[:, :1] + w * after_m[:, :1]


def _timeline(duration_s: float, rate_hz: float) -> np.ndarray:
    """Return uniform times from 0 to at least ``duration_s``."""
    if not duration_s > 0:
        raise ValueError(f"a motion of {duration_s} s has no duration")
    return np.arange(int(np.ceil(duration_s * rate_hz - 1e-9)) + 1) / rate_hz


def _stature(rng: np.random.Generator) -> float:
    return float(rng.uniform(1.55, 1.95))


def _smooth_noise(rng: np.random.Generator, n: int, sigma_samples: float) -> np.ndarray:
    """Return (n,) Gaussian noise of unit variance whose autocorrelation is Gaussian, σ = √2 ``sigma_samples``."""
    white = rng.standard_normal(n + 2 * int(4 * sigma_samples))
    smooth = gaussian_filter1d(white, sigma_samples)[int(4 * sigma_samples) :][:n]
    return smooth * np.sqrt(2 * np.sqrt(np.pi) * sigma_samples)


def _smoothstep(x: np.ndarray) -> np.ndarray:
    """Rise from 0 to 1 over x in [0, 1], with zero slope at both ends."""
    x = np.clip(x, 0, 1)
    return x * x * (3 - 2 * x)


def _roam(rng: np.random.Generator, time_s: np.ndarray, people: int, area_m: float) -> np.ndarray:
    """Steer people between random targets, with pauses, round each other; returns (T, P, 2) metres.

    A social force model (Helbing & Molnár 1995) at 20 steps a second: everyone accelerates towards the wanted velocity
    and away from near people, rather to the own right than straight back, so that two do not block each other.
    """
    step_s, half = 0.05, area_m / 2
    steps = int(time_s[-1] / step_s) + 8
    angle = rng.uniform(0, 2 * np.pi) + 2 * np.pi * np.arange(people) / people
    place = np.stack([np.cos(angle), np.sin(angle)], axis=1) * (half * (0.6 if people > 1 else rng.uniform(0, 0.6)))
    velocity = np.zeros((people, 2))
    target, speed = place.copy(), np.zeros(people)
    pause_s, patience_s = np.zeros(people), np.zeros(people)
    path = np.empty((steps, people, 2))
    for k in range(steps):
        path[k] = place
        patience_s -= step_s
        for p in np.flatnonzero((np.hypot(*(target - place).T) < 0.3) | (patience_s < 0)):
            target[p] = rng.uniform(-half, half, 2)
            speed[p] = rng.uniform(0.6, 1.5)
            pause_s[p] = rng.uniform(1.0, 6.0) if rng.random() < 0.4 else 0.0
            patience_s[p] = pause_s[p] + 6.0
        pause_s -= step_s
        gap = target - place
        distance = np.maximum(np.hypot(*gap.T), 1e-9)
        wanted = gap / distance[:, None] * (np.minimum(speed, 1.5 * distance) * (pause_s <= 0))[:, None]
        force = (wanted - velocity) / 0.45
        if people > 1:
            apart = place[:, None] - place[None]
            near = np.hypot(apart[..., 0], apart[..., 1]) + 1e9 * np.eye(people)
            push = 4.0 * np.exp((0.62 - near) / 0.1)
            away = apart / near[..., None]
            right = np.stack([-away[..., 1], away[..., 0]], axis=-1)
            force = force + (np.minimum(push, 40.0)[..., None] * (away + 0.5 * right)).sum(axis=1)
        velocity = velocity + step_s * force
        velocity *= np.minimum(1.0, 1.8 / np.maximum(np.hypot(*velocity.T), 1e-9))[:, None]
        place = np.clip(place + step_s * velocity, -half - 0.3, half + 0.3)
    return CubicSpline(step_s * np.arange(steps), gaussian_filter1d(path, 3.0, axis=0, mode="nearest"))(time_s)


def _enact(rng: np.random.Generator, time_s: np.ndarray, root_m: np.ndarray) -> np.ndarray:
    """Give a body to a path on the floor (T, 2); returns (T, J, 3) metres."""
    rate_hz = 1 / (time_s[1] - time_s[0])
    n = len(time_s)
    stature = _stature(rng)
    velocity = np.gradient(root_m, time_s, axis=0)
    speed = gaussian_filter1d(np.hypot(*velocity.T), 0.1 * rate_hz, mode="nearest")
    effort, phase_rate = _gait(speed, stature)
    phase = np.cumsum(phase_rate) / rate_hz + rng.uniform(0, 2 * np.pi)
    angles = _walk_angles(phase, effort)
    _add_idling(rng, angles, rate_hz)
    rise_m = np.zeros(n)
    for start, end, act in (*_arm_episodes(rng, time_s), *_standing_episodes(rng, time_s, effort)):
        act(rng, time_s[start:end], {name: value[start:end] for name, value in angles.items()}, rise_m[start:end])
    heading = _heading(rng, velocity, rate_hz)
    return _forward_kinematics(angles, stature, root_m, heading, rise_m)


def _heading(rng: np.random.Generator, velocity_mps: np.ndarray, rate_hz: float) -> np.ndarray:
    """Face where one walks, and keep facing there, with some looking about, while standing; radians (T,)."""
    speed = np.hypot(*velocity_mps.T)
    n = len(speed)
    # Interpolating over slow stretches turns a person on the spot while standing, instead of in one frame.
    walking = np.flatnonzero(speed > 0.25)
    direction = np.arctan2(velocity_mps[:, 1], velocity_mps[:, 0])
    if len(walking) == 0:
        facing = np.full(n, rng.uniform(-np.pi, np.pi))
    else:
        facing = np.interp(np.arange(n), walking, np.unwrap(direction[walking]))
    return gaussian_filter1d(facing, 0.25 * rate_hz, mode="nearest") + 0.15 * _smooth_noise(rng, n, rate_hz)


def _gait(speed_mps: np.ndarray, stature_m: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the effort (1 at 1.3 m/s, 0 standing) and the phase's rate (rad/s) of walking at a speed (T,).

    A step is 0.42 statures at 1.3 m/s and grows with the root of the speed, as its frequency does.
    """
    root = np.sqrt((speed_mps + 0.02) / 1.3)
    effort = root * _smoothstep((speed_mps - 0.03) / 0.3)
    return effort, np.pi * speed_mps / (0.42 * stature_m * root)


def _walk_angles(phase: np.ndarray, effort: np.ndarray) -> _Angles:
    """Return all joint angles (T,), radians, of a gait cycle.

    The left foot strikes at phase 0, the right one at π. Thighs move as a rounded triangle, knees and feet follow bumps
    placed as in Perry, Gait Analysis, ch. 3 to 5; sizes were searched for the least slip of the standing foot, measured
    as 0.07 m/s on average at 0.6 to 1.3 m/s.
    """

    def bump(at_cycle: float, sharpness: float, own: np.ndarray) -> np.ndarray:
        return np.exp(sharpness * (np.cos(own - 2 * np.pi * at_cycle) - 1))

    zero = np.zeros_like(phase)
    swing = np.arcsin(np.clip(0.42 * effort / (2 * _LEG), 0, 0.6))
    angles: _Angles = {
        "pelvis_yaw": -0.08 * effort * np.cos(phase),
        "pelvis_roll": 0.04 * effort * np.sin(phase),
        "pelvis_pitch": 0.03 * effort,
        "spine_flex": 0.03 + 0.03 * effort,
        "spine_side": zero.copy(),
        "spine_twist": 0.14 * effort * np.cos(phase),
        "head_yaw": zero.copy(),
        "head_pitch": zero.copy(),
    }
    for side, own in (("left", phase), ("right", phase + np.pi)):
        late = own - 0.15 * (1 - np.cos(own))  # stance is longer than swing
        triangle = 8 / np.pi**2 * (np.cos(late) + np.cos(3 * late) / 9)
        angles |= {
            f"{side}_hip_flex": swing * triangle + 0.1 * effort * bump(0.85, 3.0, own) + 0.03,
            f"{side}_hip_abduct": 0.03 + zero,
            f"{side}_hip_twist": 0.08 + zero,
            f"{side}_knee": 0.06 + effort * (0.1 * bump(0.14, 6.0, own) + 0.95 * bump(0.74, 3.5, own)),
            f"{side}_foot": effort * (0.4 * bump(0.62, 6.0, own) - 0.25 * bump(0.97, 8.0, own)),
            f"{side}_shoulder_flex": 0.02 - 0.45 * effort * np.cos(own),
            f"{side}_shoulder_abduct": 0.12 + zero,
            f"{side}_shoulder_twist": -0.2 + zero,
            f"{side}_elbow": 0.25 + effort * (0.2 - 0.2 * np.cos(own)),
        }
    return angles


def _add_idling(rng: np.random.Generator, angles: _Angles, rate_hz: float) -> None:
    """Add the small unrest that a standing body has to the angles, in place."""
    amount = {
        "pelvis_roll": 0.02, "pelvis_pitch": 0.02, "spine_flex": 0.05, "spine_side": 0.04, "spine_twist": 0.1,
        "head_yaw": 0.35, "head_pitch": 0.12,
    }  # fmt: skip
    for side in ("left", "right"):
        amount |= {f"{side}_shoulder_flex": 0.12, f"{side}_shoulder_abduct": 0.06, f"{side}_shoulder_twist": 0.2}
        amount |= {f"{side}_elbow": 0.15, f"{side}_hip_abduct": 0.015, f"{side}_hip_flex": 0.02}
    for name, size in amount.items():
        angles[name] += size * _smooth_noise(rng, len(angles[name]), rng.uniform(0.3, 0.8) * rate_hz)
    for side in ("left", "right"):
        np.maximum(angles[f"{side}_elbow"], 0.05, out=angles[f"{side}_elbow"])


_Act = Callable[[np.random.Generator, np.ndarray, _Angles, np.ndarray], None]


def _arm_episodes(rng: np.random.Generator, time_s: np.ndarray) -> Iterator[tuple[int, int, _Act]]:
    """Choose what the arms do when, walking or standing: frames [start, end) and the act."""
    rate_hz = 1 / (time_s[1] - time_s[0])
    start_s = rng.uniform(0, 3)
    while start_s < time_s[-1] - 1.5:
        end_s = min(start_s + rng.uniform(2, 6), time_s[-1])
        yield int(start_s * rate_hz), int(end_s * rate_hz), (_wave, _punch, _reach, _reach)[rng.integers(4)]
        start_s = end_s + rng.uniform(0.3, 4)


def _standing_episodes(
    rng: np.random.Generator, time_s: np.ndarray, effort: np.ndarray
) -> Iterator[tuple[int, int, _Act]]:
    """Choose in which pauses of the walk somebody squats or jumps: frames [start, end) and the act."""
    rate_hz = 1 / (time_s[1] - time_s[0])
    edges = np.flatnonzero(np.diff(np.concatenate([[False], effort < 0.1, [False]])))
    for first, end in zip(edges[::2], edges[1::2], strict=True):
        if end - first < 1.6 * rate_hz or rng.random() < 0.5:
            continue
        if rng.random() < 0.5:
            yield first, first + int(1.6 * rate_hz), _jump
        else:
            yield first, min(end, first + int(rng.uniform(1.6, 5) * rate_hz)), _squat


def _blend(angles: _Angles, name: str, wanted: np.ndarray, weight: np.ndarray) -> None:
    """Move an angle (T,) towards a wanted course by a weight in [0, 1], in place."""
    angles[name] += weight * (wanted - angles[name])


def _envelope(time_s: np.ndarray, rise_s: float = 0.5) -> np.ndarray:
    """Rise smoothly from 0 to 1 and fall back at the end of an episode (T,)."""
    rise_s = min(rise_s, (time_s[-1] - time_s[0]) / 2)
    return _smoothstep((time_s - time_s[0]) / rise_s) * _smoothstep((time_s[-1] - time_s) / rise_s)


def _wave(rng: np.random.Generator, time_s: np.ndarray, angles: _Angles, rise_m: np.ndarray) -> None:
    """Raise one arm and swing the forearm."""
    side, weight = ("left", "right")[rng.integers(2)], _envelope(time_s, 0.6)
    beat = np.sin(2 * np.pi * rng.uniform(0.9, 2.2) * (time_s - time_s[0]))
    _blend(angles, f"{side}_shoulder_flex", rng.uniform(1.2, 2.4) + 0.1 * beat, weight)
    _blend(angles, f"{side}_shoulder_abduct", np.full(len(beat), rng.uniform(0.2, 0.9)), weight)
    _blend(angles, f"{side}_shoulder_twist", 0.6 * beat, weight)
    _blend(angles, f"{side}_elbow", rng.uniform(0.6, 1.3) + 0.35 * beat, weight)


def _punch(rng: np.random.Generator, time_s: np.ndarray, angles: _Angles, rise_m: np.ndarray) -> None:
    """Box with alternating arms and a turning trunk."""
    weight, phase = _envelope(time_s), 2 * np.pi * rng.uniform(0.6, 1.2) * (time_s - time_s[0])
    _blend(angles, "spine_twist", 0.35 * np.sin(phase), weight)
    for side, own in (("left", phase), ("right", phase + np.pi)):
        thrust = np.exp(3.0 * (np.cos(own) - 1))
        _blend(angles, f"{side}_shoulder_flex", 0.4 + 1.1 * thrust, weight)
        _blend(angles, f"{side}_shoulder_abduct", 0.25 + 0.05 * thrust, weight)
        _blend(angles, f"{side}_shoulder_twist", np.full(len(own), -0.4), weight)
        _blend(angles, f"{side}_elbow", 2.1 - 1.9 * thrust, weight)


def _reach(rng: np.random.Generator, time_s: np.ndarray, angles: _Angles, rise_m: np.ndarray) -> None:
    """Move one or both arms smoothly through random postures, bending a little towards them."""
    weight = _envelope(time_s)
    low = {"shoulder_flex": -0.4, "shoulder_abduct": 0.0, "shoulder_twist": -0.8, "elbow": 0.1}
    high = {"shoulder_flex": 2.6, "shoulder_abduct": 1.4, "shoulder_twist": 0.8, "elbow": 2.0}
    for side in (("left",), ("right",), ("left", "right"))[rng.integers(3)]:
        keys_s = time_s[0] - 1 + np.cumsum(rng.uniform(0.35, 1.0, int((time_s[-1] - time_s[0] + 3) / 0.35)))
        for joint in low:
            keys = rng.uniform(low[joint], high[joint], len(keys_s))
            wanted = PchipInterpolator(keys_s, keys)(time_s)
            _blend(angles, f"{side}_{joint}", wanted, weight)
    _blend(angles, "spine_flex", np.full(len(weight), rng.uniform(-0.1, 0.5)), weight)
    _blend(angles, "spine_twist", np.full(len(weight), rng.uniform(-0.4, 0.4)), weight)


def _crouch(angles: _Angles, depth_rad: np.ndarray) -> None:
    """Bend hips, knees and trunk so that the feet stay below the hips and flat on the floor, in place."""
    for side in ("left", "right"):
        angles[f"{side}_hip_flex"] += depth_rad
        angles[f"{side}_knee"] += depth_rad * (1 + _THIGH / _SHANK)
    angles["spine_flex"] += 0.5 * depth_rad
    for side in ("left", "right"):
        angles[f"{side}_shoulder_flex"] += 0.9 * depth_rad


def _squat(rng: np.random.Generator, time_s: np.ndarray, angles: _Angles, rise_m: np.ndarray) -> None:
    """Go down and up, once or several times."""
    length_s = time_s[-1] - time_s[0]
    count = max(1, round(length_s / rng.uniform(1.3, 2.2)))
    down = 0.5 - 0.5 * np.cos(2 * np.pi * count * (time_s - time_s[0]) / length_s)
    _crouch(angles, rng.uniform(0.4, 1.1) * down)


def _jump(rng: np.random.Generator, time_s: np.ndarray, angles: _Angles, rise_m: np.ndarray) -> None:
    """Crouch, leave the floor on a parabola under gravity, land and give way."""
    t = time_s - time_s[0]
    rate_hz = 1 / (t[1] - t[0])
    start_mps = rng.uniform(1.3, 2.4)
    flight_s = 2 * start_mps / GRAVITY_MPS2
    leave_s = t[-1] / 2 - flight_s / 2
    air = t - leave_s
    height = np.where((air > 0) & (air < flight_s), air * (start_mps - GRAVITY_MPS2 * air / 2), 0.0)
    rise_m += gaussian_filter1d(height, 0.02 * rate_hz)
    before = np.exp(-(((t - leave_s + 0.22) / 0.14) ** 2))
    after = np.exp(-(((t - leave_s - flight_s - 0.14) / 0.13) ** 2))
    _crouch(angles, _envelope(time_s, 0.15) * (0.75 * before + 0.55 * after))
    flying = np.exp(-(((air - flight_s / 2) / (0.6 * flight_s)) ** 2)) * _envelope(time_s, 0.15)
    for side in ("left", "right"):
        _blend(angles, f"{side}_shoulder_flex", np.full(len(t), 1.6), flying)
        angles[f"{side}_foot"] += 0.5 * flying


def _turn(axis: str, angle: np.ndarray) -> np.ndarray:
    """Return rotations (T, 3, 3) about a body axis by angles (T,), right-handed."""
    i, j = {"x": (1, 2), "y": (2, 0), "z": (0, 1)}[axis]
    R = np.zeros((len(angle), 3, 3))
    R[:, 3 - i - j, 3 - i - j] = 1
    R[:, i, i] = R[:, j, j] = np.cos(angle)
    R[:, j, i] = np.sin(angle)
    R[:, i, j] = -R[:, j, i]
    return R


def _ball_joint(angles: _Angles, joint: str, left: int) -> np.ndarray:
    """Return the rotations (T, 3, 3) of a shoulder or hip; ``left`` is 1 on the left side and −1 on the right."""
    flex, abduct, twist = (angles[f"{joint}_{part}"] for part in ("flex", "abduct", "twist"))
    return _turn("y", -flex) @ _turn("x", left * abduct) @ _turn("z", left * twist)


def _forward_kinematics(
    angles: _Angles, stature_m: float, root_m: np.ndarray, heading: np.ndarray, rise_m: np.ndarray
) -> np.ndarray:
    """Place all joints, from joint angles (T,), a path on the floor (T, 2), a heading (T,) and a rise (T,).

    The pelvis is as high as puts the lowest sole on the floor, plus ``rise_m``. Flexion moves a thigh or an arm forward
    and a shank back; abduction moves a limb outward; ``foot`` is the sole's pitch against the floor, toes down.

    Returns:
        (T, J, 3) metres.
    """
    a, h = angles, stature_m

    def offset(R: np.ndarray, x: float, y: float, z: float) -> np.ndarray:
        return R @ (h * np.array([x, y, z]))

    pelvis = _turn("z", heading + a["pelvis_yaw"]) @ _turn("x", a["pelvis_roll"]) @ _turn("y", a["pelvis_pitch"])
    bend = _turn("y", a["spine_flex"] / 2) @ _turn("x", a["spine_side"] / 2) @ _turn("z", a["spine_twist"] / 2)
    loin = pelvis @ bend
    chest = loin @ bend
    head = chest @ _turn("z", a["head_yaw"]) @ _turn("y", a["head_pitch"])

    joint = {"pelvis": np.zeros((len(heading), 3))}
    joint["spine"] = joint["pelvis"] + offset(pelvis, 0, 0, _SPINE_UP)
    joint["thorax"] = joint["spine"] + offset(loin, 0, 0, _THORAX_UP)
    joint["neck"] = joint["thorax"] + offset(chest, 0, 0, _NECK_UP)
    joint["head"] = joint["neck"] + offset(head, 0, 0, _HEAD_UP)
    joint["head_top"] = joint["neck"] + offset(head, 0, 0, _HEAD_UP + _CROWN_UP)
    joint["nose"] = joint["neck"] + offset(head, _NOSE_FORWARD, 0, _NOSE_UP)
    soles = []
    for side, left in (("left", 1), ("right", -1)):
        upper_arm = chest @ _ball_joint(a, f"{side}_shoulder", left)
        forearm = upper_arm @ _turn("y", -a[f"{side}_elbow"])
        joint[f"{side}_shoulder"] = joint["thorax"] + offset(chest, 0, left * _HALF_SHOULDERS, -0.01)
        joint[f"{side}_elbow"] = joint[f"{side}_shoulder"] + offset(upper_arm, 0, 0, -_UPPER_ARM)
        joint[f"{side}_wrist"] = joint[f"{side}_elbow"] + offset(forearm, 0, 0, -_FOREARM)

        thigh = pelvis @ _ball_joint(a, f"{side}_hip", left)
        shank = thigh @ _turn("y", a[f"{side}_knee"])
        foot = _turn("z", heading + left * 0.12) @ _turn("y", a[f"{side}_foot"])
        joint[f"{side}_hip"] = offset(pelvis, 0, left * _HALF_HIPS, 0)
        joint[f"{side}_knee"] = joint[f"{side}_hip"] + offset(thigh, 0, 0, -_THIGH)
        joint[f"{side}_ankle"] = joint[f"{side}_knee"] + offset(shank, 0, 0, -_SHANK)
        joint[f"{side}_toe"] = joint[f"{side}_ankle"] + offset(foot, _BALL_FORWARD, 0, _BALL_HEIGHT - _ANKLE_HEIGHT)
        soles += [joint[f"{side}_ankle"][:, 2] - _ANKLE_HEIGHT * h, joint[f"{side}_toe"][:, 2] - _BALL_HEIGHT * h]

    xyz = np.stack([joint[name] for name in CMU21.joint_names], axis=1)
    # A soft minimum: with a hard one the whole body's vertical speed would jump whenever the standing foot changes.
    softness_m = 0.008
    lowest = -softness_m * np.log(np.exp(-np.stack(soles) / softness_m).mean(axis=0))
    xyz[..., :2] += root_m[:, None]
    xyz[..., 2] += (rise_m - lowest)[:, None]
    return xyz
