"""Synthetic rooms: several people before several cameras, reconstructed under good, bad and repaired clocks.

Every room is filmed by cameras that start up to a second apart; a detector of measured noise looks through each, and
its detections are tracked before anything else is made of them. Then the same keypoints are reconstructed by each
method under true clocks (*perfect*), under true clocks of which each but the reference's is shifted by up to three
frames (*desynced*), and under clocks found from the keypoints (*repaired*).

People move as real ones do, by clips of a motion pack, or by generated motion. Motion of the test split and seeds below
100 are for reporting; constants were chosen on others.
"""

from __future__ import annotations

import itertools
import resource
import sys
import time
import tracemalloc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

import numpy as np

from mvpose.bench.clocks import Case, long_motion, record
from mvpose.clock import Clocks
from mvpose.detect.tracks import track_people
from mvpose.geometry import projection_matrices
from mvpose.keypoints import AlignedKeypoints, Keypoints2D
from mvpose.pipeline import Method, Progress, Settings, build_poses
from mvpose.poses import Poses3D
from mvpose.recon.align import align, timeline
from mvpose.recon.associate import associate
from mvpose.recon.metrics import MATCH_M
from mvpose.recon.scores import Matches, PoseScores, match_poses, pooled_scores
from mvpose.recon.smooth import smooth
from mvpose.recon.triangulate import normalise, triangulate
from mvpose.sync.synchronise import synchronise_cameras
from mvpose.synthetic.motion import Motion, generate_motion
from mvpose.synthetic.noise import DetectorNoise
from mvpose.synthetic.rigs import random_rig, ring_rig
from mvpose.synthetic.world import World, observe

T = TypeVar("T")
ClockKind = Literal["perfect", "desynced", "repaired"]
CLOCK_KINDS: tuple[ClockKind, ...] = ("perfect", "desynced", "repaired")

FPS = 30.0
MAX_SHIFT_FRAMES = 3.0
_MAX_START_S = 1.0
_ELBOW_ROOM_M = 0.6
_PLACES_TRIED = 24
_MIN_JOINTS = 3  # fewer joints at a time are no person


@dataclass(frozen=True)
class Room:
    """How many people and cameras, which stand evenly round the room or anywhere, and for how long they record."""

    people: int
    cameras: int
    rig: Literal["ring", "random"]
    seconds: float = 20.0

    def __str__(self) -> str:
        people = "1 person" if self.people == 1 else f"{self.people} people"
        return f"{people}, {self.cameras} cameras {'in a ring' if self.rig == 'ring' else 'anywhere'}"


ROOMS = (
    Room(1, 3, "random"),
    Room(2, 3, "ring"),
    Room(2, 8, "random"),
    Room(3, 4, "random"),
    Room(4, 5, "ring"),
    Room(4, 5, "random"),
    Room(5, 6, "random"),
    Room(6, 4, "ring"),
    Room(6, 8, "ring"),
)


@dataclass(frozen=True)
class RoomRow:
    """What a method made of one recording under one kind of clocks.

    Attributes:
        room: The room, in words.
        seed: What the recording was made from.
        method: Of reconstruction.
        clocks: Which.
        matches: The poses beside the true ones, of which joints count that lie in two cameras' images.
        invented: People times frames with an estimate further than ``MATCH_M`` from everybody.
        found: People times frames with an estimate.
    """

    room: str
    seed: int
    method: Method
    clocks: ClockKind
    matches: Matches
    invented: int
    found: int


def run_rooms(
    motions: Mapping[str, Motion] | None,
    seeds: Sequence[int],
    methods: Sequence[Method],
    progress: Progress,
    *,
    rooms: Sequence[Room] = ROOMS,
    seconds: float | None = None,
    polish: bool = True,
) -> list[RoomRow]:
    """Reconstruct every room by every method under every kind of clocks.

    Args:
        motions: Clips of one person each that people move by; None: generated motion.
        seeds: One recording of each room for each.
        methods: As ``Settings.method`` names them.
        progress: Called with (what, done, total).
        rooms: Which rooms.
        seconds: Of each recording, so much is reconstructed; all of it is synchronised. None: all.
        polish: Whether the joints of people whom VoxelPose found are triangulated.
    """
    rows: list[RoomRow] = []
    recordings = list(itertools.product(rooms, seeds))
    for done, (room, seed) in enumerate(recordings):
        world = make_room(room, motions, seed)
        keypoints = detect_people(world, seed)
        clocks = clocks_of(world, keypoints, seed)
        for method, (kind, own) in itertools.product(methods, clocks.items()):
            end_s = None if seconds is None else float(timeline(keypoints, own, fps=FPS)[0]) + seconds
            settings = Settings(fps=FPS, method=method, end_s=end_s, polish=polish)
            poses = build_poses(keypoints, world.rig, own, settings).poses
            truth = visible_truth(world, poses.time_s, own.reference)
            invented, found = invented_people(poses, world, own.reference)
            rows.append(RoomRow(str(room), seed, method, kind, match_poses(poses, truth), invented, found))
        progress("rooms", done + 1, len(recordings))
    return rows


def make_room(room: Room, motions: Mapping[str, Motion] | None, seed: int) -> World:
    """Make one recording of a room."""
    rng = np.random.default_rng(seed)
    duration_s = room.seconds + _MAX_START_S + 1.0
    if motions is None:
        motion = generate_motion(rng, duration_s, room.people)
    else:
        motion = share_room(rng, [long_motion(rng, motions, duration_s) for _ in range(room.people)])
    rig = ring_rig(room.cameras, rng=rng) if room.rig == "ring" else random_rig(rng, room.cameras)
    case = Case(room.seconds, (FPS,) * room.cameras, max_offset_s=_MAX_START_S, people=room.people)
    return record(rng, motion, rig, case)


def share_room(rng: np.random.Generator, motions: Sequence[Motion]) -> Motion:
    """Let people of several motions share a room for as long as the shortest lasts, in one another's way seldom.

    Each is turned about the room's axis and moved by up to half a metre, of several such places to the one in which it
    spends the least time within ``_ELBOW_ROOM_M`` of those before.
    """
    time_s = np.arange(int(min(motion.duration_s for motion in motions) * 60)) / 60
    people: list[np.ndarray] = []
    for motion in motions:
        alone = motion.at(motion.time_s[0] + time_s)[:, 0]
        places = [_moved(alone, rng.uniform(-np.pi, np.pi), rng.uniform(-0.5, 0.5, 2)) for _ in range(_PLACES_TRIED)]
        people.append(min(places, key=lambda place: sum(_crowding(place, other) for other in people)))
    return Motion(time_s, np.stack(people, axis=1), motions[0].skeleton)


def _moved(xyz_m: np.ndarray, turn: float, shift_m: np.ndarray) -> np.ndarray:
    """Turn joints (T, J, 3) about the vertical axis and shift them (2,) on the floor."""
    c, s = np.cos(turn), np.sin(turn)
    return xyz_m @ np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]]) + [*shift_m, 0]


def _crowding(one: np.ndarray, other: np.ndarray) -> float:
    """Return by how much, summed over time, two people's (T, J, 3) pelvises are nearer than elbow room."""
    apart = np.linalg.norm((one - other)[:, 0, :2], axis=-1)
    return float(np.maximum(_ELBOW_ROOM_M - apart, 0).sum())


def detect_people(world: World, seed: int) -> dict[str, Keypoints2D]:
    """Return the tracked keypoints of a recording."""
    seen = observe(world, np.random.default_rng(1000 + seed), DetectorNoise(), tracked=False)
    return {name: track_people(keypoints) for name, keypoints in seen.items()}


def clocks_of(world: World, keypoints: Mapping[str, Keypoints2D], seed: int) -> dict[ClockKind, Clocks]:
    """Return the three kinds of clocks, all on the first camera's time."""
    reference = world.rig.names[0]
    perfect = world.true_clocks(reference)
    cameras = {camera.name: camera for camera in world.rig}
    _, repaired = synchronise_cameras(keypoints, cameras, reference=reference)
    return {"perfect": perfect, "desynced": shifted(perfect, np.random.default_rng(2000 + seed)), "repaired": repaired}


def shifted(clocks: Clocks, rng: np.random.Generator) -> Clocks:
    """Shift all clocks but the reference's by up to ``MAX_SHIFT_FRAMES``."""
    shift_s = dict(zip(clocks.clocks, rng.uniform(-1, 1, len(clocks.clocks)) * MAX_SHIFT_FRAMES / FPS, strict=True))
    moved = {
        name: clock if name == clocks.reference else replace(clock, offset_s=clock.offset_s + shift_s[name])
        for name, clock in clocks.clocks.items()
    }
    return replace(clocks, clocks=moved)


def visible_truth(world: World, time_s: np.ndarray, reference: str) -> Poses3D:
    """Return the true poses with the joints that lie in two cameras' images; nobody could know of the others.

    Of whom fewer than ``_MIN_JOINTS`` do is not there.
    """
    truth = world.truth_poses(time_s, reference)
    seen = truth.n_views >= 2
    seen &= (seen.sum(axis=-1) >= _MIN_JOINTS)[..., None]
    return replace(truth, xyz_m=np.where(seen[..., None], truth.xyz_m, np.nan))


def invented_people(poses: Poses3D, world: World, reference: str) -> tuple[int, int]:
    """Count people times frames with an estimate: those further than ``MATCH_M`` from everybody, and all."""
    truth = world.truth_poses(poses.time_s, reference)
    joints = [name for name in truth.skeleton.joint_names if name in poses.skeleton.joint_names]
    true = truth.xyz_m[:, :, truth.skeleton.indices(joints)]
    estimate = poses.xyz_m[:, :, poses.skeleton.indices(joints)]
    known = np.isfinite(estimate).all(axis=-1)
    found = known.sum(axis=-1) >= _MIN_JOINTS
    distance = np.linalg.norm(estimate[:, :, None] - true[:, None], axis=-1)
    total = np.where(np.isfinite(distance), distance, 0.0).sum(axis=-1)
    nearest = (total / np.maximum(np.isfinite(distance).sum(axis=-1), 1)).min(axis=2, initial=np.inf)
    return int((found & (nearest > MATCH_M)).sum()), int(found.sum())


def format_rooms(rows: Sequence[RoomRow]) -> str:
    """Return a table by rooms, methods and clocks, and below it that of all rooms.

    Recordings are pooled; switches and invented people (times frames) are summed up. *repaired/perfect* is the mean,
    and the largest, of the recordings' own ratios of MPJPE.
    """
    blocks = [(room, [row for row in rows if row.room == room]) for room in dict.fromkeys(row.room for row in rows)]
    if len(blocks) > 1:
        blocks.append(("all", list(rows)))
    lines = []
    for title, own in blocks:
        lines += ["", f"{title} ({len({(r.room, r.seed) for r in own})} recordings)", _HEAD]
        for method in dict.fromkeys(row.method for row in own):
            by_method = [row for row in own if row.method == method]
            lines += [_line([row for row in by_method if row.clocks == kind]) for kind in CLOCK_KINDS]
            ratio = repair_ratios(by_method)
            lines.append(f"  {method:<12} repaired/perfect: mean {ratio.mean():.3f}, max {ratio.max():.3f}")
    return "\n".join(lines[1:])


_HEAD = (
    f"  {'method':<12} {'clocks':<9} MPJPE    PA  AP@25    50   100   150  recall  joints    PCP  matched  switches"
    "  invented"
)


def _line(rows: Sequence[RoomRow]) -> str:
    s: PoseScores = pooled_scores([row.matches for row in rows])
    pcp = (s.pcp.mean, s.pcp.mean_matched) if s.pcp else (float("nan"),) * 2
    ap = "".join(f"{value:>6.3f}" for value in s.ap.values())
    return (
        f"  {rows[0].method:<12} {rows[0].clocks:<9}{s.mpjpe_mm:>6.1f}{s.pa_mpjpe_mm:>6.1f} {ap}{s.recall:>8.3f}"
        f"{s.joints:>8.3f}{pcp[0]:>7.3f}{pcp[1]:>9.3f}{s.id_switches:>10}  {sum(r.invented for r in rows)} of "
        f"{sum(r.found for r in rows)}"
    )


def repair_ratios(rows: Sequence[RoomRow]) -> np.ndarray:
    """Return each recording's MPJPE under repaired clocks over that under perfect ones (recordings,)."""
    mm = {(row.room, row.seed, row.clocks): pooled_scores([row.matches]).mpjpe_mm for row in rows}
    recordings = dict.fromkeys((row.room, row.seed) for row in rows)
    return np.array([mm[room, seed, "repaired"] / mm[room, seed, "perfect"] for room, seed in recordings])


@dataclass(frozen=True)
class Stage:
    """What a stage costs: milliseconds for each frame of the poses, and the most memory that it takes at a time, MB."""

    name: str
    ms: float
    peak_mb: float


SPEED_ROOM = Room(4, 5, "ring")
TRACKS, ALIGN, ASSOCIATE, TRIANGULATE, SMOOTH, DLT = (
    "2D tracks", "align", "associate and track", "triangulate", "smooth", "DLT by 4 × 4 SVD",
)  # fmt: skip


def measure_speed(
    motions: Mapping[str, Motion] | None, progress: Progress, *, room: Room = SPEED_ROOM, repeats: int = 3
) -> list[Stage]:
    """Time the way from detections to poses under true clocks, stage by stage, and a plain DLT of the same joints.

    Times are the shortest of several runs; memory is measured in another one.
    """
    world = make_room(room, motions, 0)
    seen = observe(world, np.random.default_rng(1000), DetectorNoise(), tracked=False)
    runs: list[list[tuple[str, float, float]]] = []
    for repeat in range(repeats + 1):
        runs.append(_timed_run(world, seen, traced=repeat == repeats))
        progress("timings", repeat + 1, repeats + 1)
    frames = runs[0][0][1]
    *timed, traced = (run[1:] for run in runs)
    return [
        Stage(name, 1e3 * min(run[i][1] for run in timed) / frames, peak) for i, (name, _, peak) in enumerate(traced)
    ]


def _timed_run(world: World, seen: Mapping[str, Keypoints2D], *, traced: bool) -> list[tuple[str, float, float]]:
    """Return the number of frames, then each stage's seconds and, where traced (which is slow), peak memory in MB."""
    spent: list[tuple[str, float, float]] = []

    def run(name: str, call: Callable[[], T]) -> T:
        if traced:
            tracemalloc.start()
        start = time.perf_counter()
        result = call()
        seconds = time.perf_counter() - start
        spent.append((name, seconds, tracemalloc.get_traced_memory()[1] / 1e6 if traced else 0.0))
        tracemalloc.stop()
        return result

    clocks = world.true_clocks(world.rig.names[0])
    keypoints = run(TRACKS, lambda: {name: track_people(k) for name, k in seen.items()})
    time_s = timeline(keypoints, clocks, fps=FPS)
    tracks = run(ALIGN, lambda: align(keypoints, clocks, time_s))
    aligned = run(ASSOCIATE, lambda: associate(tracks, world.rig))
    poses = run(TRIANGULATE, lambda: triangulate(aligned, world.rig))
    run(SMOOTH, lambda: smooth(poses))
    run(DLT, lambda: plain_dlt(aligned, world))
    return [("frames", float(len(time_s)), 0.0), *spent]


def plain_dlt(aligned: AlignedKeypoints, world: World) -> np.ndarray:
    """Triangulate all joints (T, P, J, 3) by the direct linear transform: one batched SVD, all views alike."""
    cameras = world.rig.subset(aligned.cameras).cameras
    x, _ = normalise(aligned.xy_px, aligned.sigma_px, cameras)
    x = np.moveaxis(x, 1, 3)
    P = projection_matrices(cameras)
    rows = np.where(np.isfinite(x)[..., None], x[..., None] * P[:, None, 2] - P[:, :2], 0.0)
    rows = rows.reshape(*x.shape[:3], -1, 4)
    null = np.linalg.svd(np.swapaxes(rows, -1, -2) @ rows)[2][..., -1, :]
    return null[..., :3] / null[..., 3:]


def format_speed(stages: Sequence[Stage], room: Room = SPEED_ROOM) -> str:
    """Return the table of stages, their sums, and how many times the plain DLT those are."""
    ms = {stage.name: stage.ms for stage in stages}
    core = sum(ms[name] for name in (ASSOCIATE, TRIANGULATE, SMOOTH))
    whole = sum(stage.ms for stage in stages if stage.name != DLT)
    lines = [f"{room} at {FPS:g} fps    ms a frame    peak MB"]
    lines += [f"  {stage.name:<32}{stage.ms:>12.2f}{stage.peak_mb:>11.0f}" for stage in stages]
    lines.append(f"  {'associate, triangulate, smooth':<32}{core:>12.2f}   {core / ms[DLT]:.1f} × the DLT")
    lines.append(f"  {'all':<32}{whole:>12.2f}   {whole / ms[DLT]:.1f} × the DLT")
    return "\n".join(lines)


FIND, POSE, REST, POLISH = "find people", "pose them", "heatmaps, support, identities", "triangulate"


def measure_voxel_speed(
    motions: Mapping[str, Motion] | None, progress: Progress, *, room: Room = SPEED_ROOM, frames: int = 32
) -> list[Stage]:
    """Time VoxelPose on some frames; memory is the most that the process ever had, or a GPU held of tensors."""
    import torch

    from mvpose.recon.voxelpose.fuse import fuse_voxels, load_voxelpose  # torch
    from mvpose.recon.voxelpose.polish import polish

    world = make_room(room, motions, 0)
    keypoints = detect_people(world, 0)
    clocks = world.true_clocks(world.rig.names[0])
    tracks = align(keypoints, clocks, timeline(keypoints, clocks, fps=FPS)[:frames])
    network = load_voxelpose()
    # What is loaded and chosen at the first call, a GPU's kernels above all, is no part of a frame's time.
    fuse_voxels(tracks, world.rig, network)
    seconds: dict[str, float] = {}

    def timed(name: str, call: Callable[..., T]) -> Callable[..., T]:
        def run(*args: object) -> T:
            start = time.perf_counter()
            result = call(*args)
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            seconds[name] = seconds.get(name, 0.0) + time.perf_counter() - start
            return result

        return run

    network.find = timed(FIND, network.find)  # type: ignore[method-assign]
    network.pose = timed(POSE, network.pose)  # type: ignore[method-assign]
    start = time.perf_counter()
    poses, aligned = fuse_voxels(tracks, world.rig, network, lambda done, total: progress("timings", done, total))
    seconds[REST] = time.perf_counter() - start - sum(seconds.values())
    timed(POLISH, polish)(poses, aligned, world.rig)
    return [Stage(name, 1e3 * s / frames, _peak_mb()) for name, s in seconds.items()]


def _peak_mb() -> float:
    import torch

    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 1024**2
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform == "linux" else 1024**2)


def format_voxel_speed(stages: Sequence[Stage], room: Room = SPEED_ROOM) -> str:
    """Return the table of VoxelPose's stages, of networks that ran where ``load_voxelpose`` puts them."""
    import torch

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    lines = [f"VoxelPose on {device}, {room}    ms a frame    peak MB"]
    lines += [f"  {stage.name:<32}{stage.ms:>12.1f}{stage.peak_mb:>11.0f}" for stage in stages]
    lines.append(f"  {'all':<32}{sum(stage.ms for stage in stages):>12.1f}")
    return "\n".join(lines)
