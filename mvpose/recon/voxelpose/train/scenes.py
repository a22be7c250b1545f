"""The world that VoxelPose's networks learn from: people in rooms, seen by rigs that nobody has seen before.

Real motion, by one person a clip, is put at random places; detectors err as measured (``mvpose.training.noise``),
invent people and miss people, and cameras see slightly different instants, as after a synchronisation that is not
perfect. A batch is of one rig, whose heatmaps and room are laid out once for all of its scenes: by numpy, since that is
little work. Everything else is drawn on the device where the generator and the motions are.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from mvpose.calib.camera import Camera
from mvpose.calib.rig import CameraRig
from mvpose.errors import ReconstructionError
from mvpose.recon.voxelpose.heatmaps import Views, render, views_of
from mvpose.recon.voxelpose.networks import CUBE_M
from mvpose.recon.voxelpose.space import Space, room_of
from mvpose.skeleton import CLIP_SKELETON
from mvpose.synthetic.noise import DetectorNoise
from mvpose.training.motions import MotionBank
from mvpose.training.noise import Occlusion, observe

_CANDIDATES = 400  # places on a room's floor
_HIPS_M = 0.9  # height of hips
_FLOOR_M = 0.5  # so much higher or lower may a floor be than puts hips in a room's middle
_TAKEN = 1e-6  # chance of a place where somebody stands, times that of another: for rooms that are full

HIPS = CLIP_SKELETON.indices(["left_hip", "right_hip"])


@dataclass(frozen=True)
class Recipe:
    """What scenes are drawn from; ranges are uniform.

    Attributes:
        cameras: Least and greatest number of cameras.
        people: Least and greatest number of people in a room.
        noise: Range of the factor on the measured detector noise.
        stature: Range of the factor on people's size.
        mirror: Whether half of the people are mirrored.
        missing_person: Share of people whom a detector misses, in each view.
        false_people: Mean number of people whom it invents, in each view.
        desync_s: Half of the scenes have cameras apart by up to this standard deviation, seconds.
        absent: Share of scenes whose keypoint set lacks one joint.
        crowded: Share of scenes in which people are within a few metres of one another.
        jitter_m: How far a person's cube may be off its root, standard deviation, metres.
        rig: A calibration file: all scenes are of its cameras, for a network of one's own rig. It must know which way
            is up; where the floor is it need not.
    """

    cameras: tuple[int, int] = (2, 10)
    people: tuple[int, int] = (0, 6)
    noise: tuple[float, float] = (0.2, 1.5)
    stature: tuple[float, float] = (0.75, 1.1)
    mirror: bool = True
    missing_person: float = 0.05
    false_people: float = 0.2
    desync_s: float = 0.03
    absent: float = 0.05
    crowded: float = 0.5
    jitter_m: float = 0.06
    rig: str | None = None
    detector: DetectorNoise = field(default_factory=DetectorNoise)
    occlusion: Occlusion = field(default_factory=Occlusion)


@dataclass(frozen=True)
class Stage:
    """Where scenes take place.

    Attributes:
        rig: Whose cameras see them.
        views: Its heatmaps.
        room: Where people are looked for.
        floor_m: Least and greatest height of the floor, along the room's last axis.
    """

    rig: CameraRig
    views: Views
    room: Space
    floor_m: tuple[float, float] = (0.0, 0.0)


def stage_of(rig: CameraRig) -> Stage:
    """Lay out the heatmaps and the room of a rig whose floor is at height 0.

    Raises:
        ReconstructionError: No two cameras see a common place.
    """
    return Stage(rig, views_of(rig.cameras), room_of(rig))


def own_stage(rig: CameraRig) -> Stage:
    """Lay out the same of a rig that somebody calibrated: its floor may be anywhere below what cameras look at."""
    stage = stage_of(rig)
    hips = float(stage.room.axes[2] @ stage.room.center_m)
    low, high = (hips - _HIPS_M + aside for aside in (-_FLOOR_M, _FLOOR_M))
    return replace(stage, floor_m=(low, high))


@dataclass(frozen=True)
class Scenes:
    """B rooms of people before one rig, and the truth.

    Attributes:
        maps: (B, V, J, SIZE, SIZE) heatmaps.
        views: Of the V cameras.
        room: Where people are looked for: the rig's room, or a part of it.
        xyz_m: (B, P, J, 3) joints of ``CLIP_SKELETON``, world metres, at the instant that the scene is of.
        there: (B, P) whether there is such a person, seen by two cameras or more: one to be found.
        axes: (3, 3) rows: the room's axes.
    """

    maps: Tensor
    views: Views
    room: Space
    xyz_m: Tensor
    there: Tensor
    axes: Tensor

    @property
    def root_m(self) -> Tensor:
        """(B, P, 3) middle of the hips, world metres."""
        return self.xyz_m[:, :, HIPS].mean(2)

    @property
    def root_cell(self) -> Tensor:
        """(B, P, 3) the same, in voxels of the room from the first one's centre."""
        first = torch.as_tensor(self.room.to_world(np.zeros(3)), dtype=torch.float32, device=self.axes.device)
        return (self.root_m - first) @ self.axes.T / self.room.voxel_m

    def to(self, device: torch.device) -> Scenes:
        """Return the same on a device."""
        maps, xyz_m, there, axes = (x.to(device) for x in (self.maps, self.xyz_m, self.there, self.axes))
        return Scenes(maps, self.views.to(device), self.room, xyz_m, there, axes)


def draw_scenes(generator: torch.Generator, bank: MotionBank, recipe: Recipe, count: int, stage: Stage) -> Scenes:
    """Draw people before a rig, on the generator's device, where the bank must be.

    Raises:
        ValueError: No clip of the bank is long enough.
    """
    with generator.device:  # where all that is made anew goes
        return _scenes(generator, bank, recipe, count, stage)


def _scenes(generator: torch.Generator, bank: MotionBank, recipe: Recipe, count: int, stage: Stage) -> Scenes:
    room, views, P = stage.room, stage.views.to(generator.device), recipe.people[1]
    number = torch.randint(recipe.people[0], P + 1, (count,), generator=generator)
    there = torch.arange(P)[None] < number[:, None]
    axes = torch.as_tensor(room.axes, dtype=torch.float32)
    bodies, stature_m = _bodies(generator, bank, recipe, count, len(views))
    places = _places(generator, replace(stage, views=views), count, P, recipe.crowded)
    xyz = bodies @ axes + places[:, :, None, None]
    maps, seen = _detected(generator, recipe, views, xyz[:, :, :-1], there, stature_m)
    return Scenes(maps, views, room, xyz[:, :, -1], there & (seen.sum(1) >= 2), axes)


def _bodies(
    generator: torch.Generator, bank: MotionBank, recipe: Recipe, count: int, views: int
) -> tuple[Tensor, Tensor]:
    """Draw people who move at the origin (B, P, V + 1, J, 3), Z up, and how tall they are (B, P).

    Each is there at several instants: one for each view, and the scene's own, last.
    """
    uniform, people = partial(_uniform, generator), count * recipe.people[1]
    apart = torch.randn(count, views, generator=generator) * uniform(0, recipe.desync_s, count, 1)
    apart = torch.cat([apart * (torch.rand(count, 1, generator=generator) < 0.5), torch.zeros(count, 1)], dim=1)
    longest = 10 * recipe.desync_s + 0.1
    long_enough = bank.longer_than(longest)
    if not (long_enough > 0).any():
        raise ValueError(f"no motion lasts {longest:.1f} s, as these scenes need")
    clip = torch.multinomial(long_enough, people, replacement=True, generator=generator)
    start = longest / 2 + torch.rand(people, generator=generator) * long_enough[clip]
    xyz = bank.at(clip, start[:, None] + apart.repeat_interleave(recipe.people[1], 0))  # (B P, V + 1, J, 3)
    mirrored = (torch.rand(people, generator=generator) < 0.5) & recipe.mirror
    flipped = xyz[:, :, CLIP_SKELETON.mirrored] * torch.tensor([1.0, -1.0, 1.0])
    xyz = torch.where(mirrored[:, None, None, None], flipped, xyz)
    factor = uniform(*recipe.stature, people)
    origin = xyz[:, -1:, HIPS].mean(2, keepdim=True) * torch.tensor([1.0, 1.0, 0.0])
    xyz = (xyz - origin) * factor[:, None, None, None]
    angle = uniform(0, 2 * torch.pi, people)
    c, s, zero = angle.cos(), angle.sin(), torch.zeros(people)
    turn = torch.stack([c, -s, zero, s, c, zero, zero, zero, torch.ones_like(c)], dim=-1).unflatten(-1, (3, 3))
    turned = torch.einsum("bij,bnkj->bnki", turn, xyz)
    return turned.unflatten(0, (count, -1)), (bank.stature_m[clip] * factor).unflatten(0, (count, -1))


def _uniform(generator: torch.Generator, low: float, high: float, *shape: int) -> Tensor:
    return low + (high - low) * torch.rand(*shape, generator=generator)


def _places(generator: torch.Generator, stage: Stage, count: int, people: int, crowded: float) -> Tensor:
    """Draw where people stand (B, P, 3), world metres on the floor, most of them in good view, half a metre apart.

    In a share of the scenes they are within 1 to 3 m of one place, as far as there is room for them.
    """
    uniform, room, views = partial(_uniform, generator), stage.room, stage.views
    axes = torch.as_tensor(room.axes, dtype=torch.float32)
    middle = torch.as_tensor(room.center_m @ room.axes.T, dtype=torch.float32)
    half = torch.tensor(room.cells) * (room.voxel_m / 2)
    level = torch.tensor([1.0, 1.0, 0.0])
    ground = (middle + half * uniform(-1, 1, _CANDIDATES, 3)) * level @ axes
    hips = ground + (_HIPS_M + sum(stage.floor_m) / 2) * axes[2]
    seen = torch.stack([views.place(v, hips)[2] for v in range(len(views))]).sum(0)
    apart = torch.cdist(ground, ground)

    free = torch.where(seen >= 2, 1.0, 0.02).double().expand(count, -1)
    near = apart[torch.multinomial(free, 1, generator=generator)[:, 0]] < uniform(1.0, 3.0, count, 1)
    anywhere = torch.rand(count, 1, generator=generator) >= crowded
    free = torch.where(near | anywhere, free, free * _TAKEN)
    places = []
    for _ in range(people):
        chosen = torch.multinomial(free, 1, generator=generator)[:, 0]
        places.append(ground[chosen])
        free = torch.where(apart[chosen] < uniform(0.3, 0.7, count, 1), free * _TAKEN, free)
    floor = uniform(*stage.floor_m, count, 1, 1) if stage.floor_m[0] < stage.floor_m[1] else sum(stage.floor_m) / 2
    return torch.stack(places, dim=1) + floor * axes[2]


def _detected(
    generator: torch.Generator, recipe: Recipe, views: Views, xyz: Tensor, there: Tensor, stature_m: Tensor
) -> tuple[Tensor, Tensor]:
    """Return heatmaps (B, V, J, SIZE, SIZE), and who is reported in each view (B, V, P).

    ``xyz`` is (B, P, V, J, 3): each view's own instant.
    """
    B, P, V, J = xyz.shape[:4]
    placed = [views.place(v, xyz[:, :, v]) for v in range(V)]
    xy, depth, inside = (torch.stack(values, dim=1) for values in zip(*placed, strict=True))  # (B, V, P, J)
    size = views.size[:, None, None]
    height = views.cells_per_unit[:, None] * stature_m[:, None] / depth.mean(-1).clamp(min=0.1)  # (B, V, P)
    invented = there[:, None] & torch.zeros(B, V, P, dtype=torch.bool)
    if recipe.false_people > 0:
        # Someone of another scene, moved aside: an invented person looks like a person.
        rate = recipe.false_people / max(P, 1)
        invented = ~there[:, None] & (torch.rand(B, V, P, generator=generator) < 2 * rate)
        aside = (torch.rand(B, V, P, 1, 2, generator=generator) - 0.5) * size
        xy = torch.where(invented[..., None, None], xy + aside, xy)
    missed = torch.rand(B, V, P, generator=generator) < recipe.missing_person
    reported = (there[:, None] & ~missed) | invented
    scale = _uniform(generator, *recipe.noise, B, 1, 1)
    xy = xy.masked_fill(~(inside & reported[..., None])[..., None], float("nan"))
    seen_xy, score = observe(
        generator,
        xy.reshape(B * V * P, 1, J, 2),
        height.reshape(-1, 1),
        torch.zeros(B * V * P, 1),
        scale.expand(B, V, P).reshape(-1),
        recipe.detector,
        recipe.occlusion,
    )
    lacking = torch.rand(B, 1, 1, 1, generator=generator) < recipe.absent
    which = torch.randint(J, (B, 1, 1, 1), generator=generator) == torch.arange(J)
    seen_xy = seen_xy.reshape(B, V, P, J, 2).masked_fill((lacking & which)[..., None], float("nan"))
    maps = render(seen_xy, score.reshape(B, V, P, J), height)
    enough = torch.isfinite(seen_xy).all(-1).sum(-1) >= 3
    return maps, there[:, None] & enough & ~invented


def draw_stage(generator: torch.Generator, recipe: Recipe) -> Stage:
    """Draw cameras as people set them up, all round, along an arc or at one side, and lay out what they see.

    They are near or far, low or high, tilted. World frame: Z up, the floor at z = 0, what is looked at near the origin.
    """
    rng = np.random.default_rng(int(torch.randint(2**31, (1,), generator=generator)))
    while True:
        rig = _random_rig(rng, int(rng.integers(recipe.cameras[0], recipe.cameras[1] + 1)))
        try:
            stage = stage_of(rig)
        except ReconstructionError:
            continue
        if min(stage.room.cells[:2]) * stage.room.voxel_m >= 2 * CUBE_M:
            return stage


def _random_rig(rng: np.random.Generator, count: int) -> CameraRig:
    arc = 2 * np.pi if rng.random() < 0.6 else np.radians(rng.uniform(60, 220))
    usual_m = rng.uniform(2.5, 8.0)
    reach_m = rng.uniform(0.1, 0.4) * usual_m  # how far apart the points are that cameras look at
    height = rng.uniform(0.5, 4.0) if rng.random() < 0.5 else None
    azimuth = rng.uniform(0, 2 * np.pi) + arc * (np.arange(count) + rng.uniform(-0.3, 0.3, count)) / count
    wide = rng.uniform(0.5, 1.0)
    cameras = []
    for i in range(count):
        radius = max(usual_m * rng.normal(1, 0.15), 1.5)
        up = (rng.uniform(0.5, 4.0) if height is None else height) + rng.normal(0, 0.1)
        center = np.array([radius * np.cos(azimuth[i]), radius * np.sin(azimuth[i]), max(up, 0.2)])
        target = np.array([*rng.normal(0, reach_m / 2, 2), rng.normal(1.0, 0.2)])
        long, short = ((1920, 1080), (1280, 720), (1440, 1080))[rng.integers(3)]
        size = (short, long) if rng.random() < 0.2 else (long, short)
        focal = long * np.clip(wide * rng.normal(1, 0.1), 0.4, 1.3)
        cameras.append(_looking(f"cam{i + 1:02d}", size, focal, center, target, rng.normal(0, np.radians(5))))
    return CameraRig(tuple(cameras))


def _looking(
    name: str, size_px: tuple[int, int], focal_px: float, center: np.ndarray, target: np.ndarray, roll: float
) -> Camera:
    forward = (target - center) / np.linalg.norm(target - center)
    right = np.cross(forward, [0.0, 0.0, 1.0])
    right /= np.linalg.norm(right)
    down = np.cross(forward, right)
    c, s = np.cos(roll), np.sin(roll)
    R = np.stack([c * right + s * down, c * down - s * right, forward])
    cam_from_world = np.eye(4)
    cam_from_world[:3, :3], cam_from_world[:3, 3] = R, -R @ center
    K = np.array([[focal_px, 0, (size_px[0] - 1) / 2], [0, focal_px, (size_px[1] - 1) / 2], [0, 0, 1]])
    return Camera(name, size_px, K, np.zeros(5), cam_from_world)


def cropped(generator: torch.Generator, scenes: Scenes, longest: int) -> Scenes:
    """Cut all rooms to a part at most so many cells long and wide, somewhere: the networks are the same everywhere.

    The part is moved by up to half a voxel, so that they do not learn where voxels lie.
    """
    room = scenes.room
    sides = torch.tensor(room.cells)
    kept = torch.minimum(sides, torch.tensor([longest, longest, room.cells[2]]))
    first = torch.rand(3, generator=generator) * (sides - kept + 1) - 0.5
    middle = (first + (kept - 1) / 2).numpy().astype(float)
    cells = (int(kept[0]), int(kept[1]), int(kept[2]))
    return replace(scenes, room=Space(room.to_world(middle), room.axes, cells, room.voxel_m))


def of_people(generator: torch.Generator, scenes: Scenes, most: int) -> tuple[Tensor, Tensor]:
    """Return the rooms (N,) and numbers (N,) of some of the people, at most so many."""
    room, person = torch.nonzero(scenes.there, as_tuple=True)
    chosen = torch.randperm(len(room), generator=generator)[:most].to(room.device)
    return room[chosen], person[chosen]
