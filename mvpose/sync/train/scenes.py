"""The world that networks learn from: real motion seen by random pairs of cameras at true continuous times.

World frame: metres, Z up, the floor at z = 0, the room's centre at the origin, as in ``mvpose.synthetic``. World time
is seconds from an instant of the scene; a view's own time starts where its clip opens: at its first frame, or up to a
frame before it where clips are windows of a recording (``Recipe.phase``).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from mvpose.skeleton import CLIP_SKELETON
from mvpose.sync.clips import ClipPairs
from mvpose.synthetic.noise import DetectorNoise
from mvpose.training.motions import RATE_HZ, MotionBank
from mvpose.training.noise import Occlusion, held, observe

_CONFUSED = 0.3  # of a body's height: a joint as close as that to a stranger's may be taken for it
_CONFUSED_S = 0.3  # how long, on average


@dataclass(frozen=True)
class Recipe:
    """What pairs of clips are drawn from; ranges are uniform.

    Attributes:
        frames: Frames of a clip.
        fps: Frame rate of both cameras, Hz.
        whole_frames: Offsets are drawn from whole frames −n … n, plus a uniform fraction.
        fractions: Whether there is a fraction; without one as in NTU-SYN and CMU-SYN.
        span_s: In place of whole frames: offsets uniform within ± this, seconds.
        wild: Share of pairs seen by wild cameras rather than by two of the ten round IFID's square of 8 m.
        noise: Range of the factor on the measured detector noise.
        speed: Range of the factor on the motion's speed.
        mirror: Whether half of the people are mirrored.
        unrelated: Share of pairs that show different people, or one person at different times.
        absent: Share of pairs whose keypoint set lacks one joint.
        cropped: Share of views of which the picture's edge, or a table, hides the body below some height throughout.
        stranger: Share of pairs with somebody else close by, whose joints the detector takes for the person's at times.
        phase: Whether clips are windows of a recording, whose first frame comes up to a frame after they open; times
            and offsets then count from the opening.
    """

    frames: int = 5
    fps: float = 10.0
    whole_frames: int = 5
    fractions: bool = True
    span_s: float | None = None
    wild: float = 0.0
    noise: tuple[float, float] = (1.0, 1.0)
    speed: tuple[float, float] = (1.0, 1.0)
    mirror: bool = False
    unrelated: float = 0.0
    absent: float = 0.0
    cropped: float = 0.0
    stranger: float = 0.0
    phase: bool = False
    detector: DetectorNoise = field(default_factory=DetectorNoise)
    occlusion: Occlusion = field(default_factory=Occlusion)

    @property
    def longest_offset_s(self) -> float:
        """The largest offset, seconds."""
        return (self.whole_frames + self.fractions) / self.fps if self.span_s is None else self.span_s

    @property
    def duration_s(self) -> float:
        """Time from a clip's opening to its last frame at the latest, seconds."""
        return (self.frames - 1 + self.phase) / self.fps


IFID = Recipe()
"""The paper's protocol on real motion: ten cameras round a square of 8 m, 5 frames at 10 fps, measured noise."""


@dataclass(frozen=True)
class Scenes:
    """B people, each seen by two cameras; all known at every instant.

    What is said of people is said for each view, for a pair may show unrelated ones.

    Attributes:
        bank: Where the motion is from.
        clip: (B, 2) which clip.
        start_s: (B, 2) time in the clip at world time 0.
        speed: (B, 2) clip seconds per world second.
        mirror: (B, 2) whether left and right are exchanged.
        turn: (B, 2, 2, 2) rotation about the vertical.
        origin_m: (B, 2, 2) the clip's point on the floor that is put at ``place_m``.
        place_m: (B, 2, 2) where in the room.
        K: (B, 2, 3, 3) intrinsics, pixels.
        cam_from_world: (B, 2, 3, 4) metres.
        size_px: (B, 2, 2) width and height.
        first_s: (B, 2) world time at which each view's clip opens.
        scale: (B, 2) factor on the measured noise.
        related: (B,) whether both views show one person at the same times.
    """

    bank: MotionBank
    clip: Tensor
    start_s: Tensor
    speed: Tensor
    mirror: Tensor
    turn: Tensor
    origin_m: Tensor
    place_m: Tensor
    K: Tensor
    cam_from_world: Tensor
    size_px: Tensor
    first_s: Tensor
    scale: Tensor
    related: Tensor

    @property
    def offset_s(self) -> Tensor:
        """(B,) the true offset, ``t_b = t_a + offset_s``: negative where b starts later; NaN of unrelated views."""
        return (self.first_s[:, 0] - self.first_s[:, 1]).masked_fill(~self.related, float("nan"))

    def people_at(self, world_s: Tensor, view: int = 0) -> Tensor:
        """Return the joints (B, n, J, 3), metres, of whom a view shows, at world times (B, n)."""
        xyz = self.bank.at(self.clip[:, view], self.start_s[:, view, None] + self.speed[:, view, None] * world_s)
        partner = torch.from_numpy(CLIP_SKELETON.mirrored)
        flip = torch.tensor([1.0, -1.0, 1.0])
        xyz = xyz - torch.nn.functional.pad(self.origin_m[:, view], (0, 1))[:, None, None]
        xyz = torch.where(self.mirror[:, view, None, None, None], xyz[:, :, partner] * flip, xyz)
        ground = torch.einsum("bij,bnkj->bnki", self.turn[:, view], xyz[..., :2]) + self.place_m[:, view, None, None]
        return torch.cat([ground, xyz[..., 2:]], dim=-1)

    def project(self, world_s: Tensor) -> tuple[Tensor, Tensor]:
        """Return true pixels (B, 2, T, J, 2), NaN out of view, and people's heights (B, 2, T), px, at (B, 2, T)."""
        views = []
        for v in range(2):
            xyz = self.people_at(world_s[:, v], v)
            R, t = self.cam_from_world[:, v, :, :3], self.cam_from_world[:, v, :, 3]
            cam = torch.einsum("bij,bnkj->bnki", R, xyz) + t[:, None, None]
            views.append(torch.einsum("bij,bnkj->bnki", self.K[:, v], cam))
        homogeneous = torch.stack(views, dim=1)
        depth = homogeneous[..., 2]
        xy = homogeneous[..., :2] / depth.clamp(min=0.1)[..., None]
        inside = ((xy >= -0.5) & (xy <= self.size_px[:, :, None, None] - 0.5)).all(-1) & (depth > 0.1)
        height = self.K[:, :, None, 0, 0] * self.bank.stature_m[self.clip][..., None] / depth.mean(-1).clamp(min=0.1)
        return xy.masked_fill(~inside[..., None], float("nan")), height

    def speed_mps(self, duration_s: float) -> Tensor:
        """Return the mean speed (B,) of all joints over the time that both clips span, m/s."""
        begin, end = self.first_s.amin(1), self.first_s.amax(1) + duration_s
        times = begin[:, None] + (end - begin)[:, None] * torch.linspace(0, 1, 21)
        step = torch.diff(times, dim=1)[..., None]
        return (torch.diff(self.people_at(times), dim=1).norm(dim=-1) / step).mean((1, 2))

    def view_angle_deg(self) -> Tensor:
        """Return the angle (B,) between the two optical axes, degrees."""
        axes = self.cam_from_world[:, :, 2, :3]
        return torch.rad2deg(torch.arccos((axes[:, 0] * axes[:, 1]).sum(-1).clamp(-1, 1)))


@dataclass(frozen=True)
class LabelledPairs:
    """A batch of clips and the truth.

    Attributes:
        pairs: What the detector reports.
        offset_s: (B,) the true offset, ``t_b = t_a + offset_s``; NaN of unrelated views.
        frame_s: Duration of a frame, seconds.
        scenes: All that is known.
    """

    pairs: ClipPairs
    offset_s: Tensor
    frame_s: float
    scenes: Scenes

    @property
    def offset_frames(self) -> Tensor:
        """(B,) the true offset in frames."""
        return self.offset_s / self.frame_s


def draw_pairs(generator: torch.Generator, bank: MotionBank, recipe: Recipe, count: int) -> LabelledPairs:
    """Draw a batch of clip pairs.

    Raises:
        ValueError: No clip of the bank is long enough.
    """
    scenes = draw_scenes(generator, bank, recipe, count)
    opening = torch.rand(count, 2, 1, generator=generator) * recipe.phase
    time_s = (opening + torch.arange(recipe.frames)) / recipe.fps
    world_s = scenes.first_s[..., None] + time_s
    xy, height = scenes.project(world_s)
    if recipe.stranger:
        xy = _taken_for_a_stranger(generator, scenes, xy, height, world_s, recipe.stranger)
    if recipe.cropped:
        xy = _cropped(generator, xy, recipe.cropped)
    xy, score = observe(
        generator,
        xy.flatten(0, 1),
        height.flatten(0, 1),
        world_s.flatten(0, 1),
        scenes.scale.flatten(),
        recipe.detector,
        recipe.occlusion,
    )
    xy, score = xy.unflatten(0, (count, 2)), score.unflatten(0, (count, 2))
    lacking = torch.rand(count, generator=generator) < recipe.absent
    which = torch.randint(len(CLIP_SKELETON), (count,), generator=generator)
    absent = lacking[:, None] & (which[:, None] == torch.arange(len(CLIP_SKELETON)))
    xy = xy.masked_fill(absent[:, None, None, :, None], float("nan"))
    score = score.masked_fill(absent[:, None, None], 0.0)
    pairs = ClipPairs(xy, score, time_s, scenes.K, scenes.cam_from_world, scenes.size_px)
    return LabelledPairs(pairs, scenes.offset_s, 1 / recipe.fps, scenes)


def _taken_for_a_stranger(
    generator: torch.Generator, scenes: Scenes, xy: Tensor, height_px: Tensor, world_s: Tensor, share: float
) -> Tensor:
    """Let the detector find joints (B, 2, T, J, 2) on somebody beside the person, where the two are close in the image.

    The stranger moves as the next pair's person does, half a metre to two away.
    """
    count = len(xy)
    turn = 2 * torch.pi * torch.rand(count, 1, generator=generator)
    away = 0.5 + 1.5 * torch.rand(count, 1, 1, generator=generator)
    place = scenes.place_m + away * torch.stack([turn.cos(), turn.sin()], dim=-1)
    of_next = {
        name: getattr(scenes, name).roll(1, 0) for name in ("clip", "start_s", "speed", "mirror", "turn", "origin_m")
    }
    other, _ = replace(scenes, place_m=place, **of_next).project(world_s)
    near = (other - xy).norm(dim=-1) < _CONFUSED * height_px[..., None]  # not where either is out of view
    views = held(generator, world_s.flatten(0, 1), _CONFUSED_S, xy.shape[3]).unflatten(0, (count, 2))
    there = torch.rand(count, generator=generator) < share
    return torch.where((there[:, None, None, None] & near & (views < 0.5))[..., None], other, xy)


def _cropped(generator: torch.Generator, xy: Tensor, share: float) -> Tensor:
    """Hide in a share of views what is below a height of the body, (B, 2, T, J, 2)."""
    middle = torch.nan_to_num(xy[:, :, xy.shape[2] // 2, :, 1], nan=torch.inf)
    low = middle.amin(-1, keepdim=True)
    high = torch.where(torch.isfinite(middle), middle, -torch.inf).amax(-1, keepdim=True)
    edge = low + (0.4 + 0.6 * torch.rand(len(xy), 2, 1, generator=generator)) * (high - low)
    there = torch.rand(len(xy), 2, 1, generator=generator) < share
    return xy.masked_fill((there & (middle > edge))[:, :, None, :, None], float("nan"))


def draw_scenes(generator: torch.Generator, bank: MotionBank, recipe: Recipe, count: int) -> Scenes:
    """Draw people, cameras and offsets.

    Raises:
        ValueError: No clip of the bank is long enough.
    """

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(count, *shape, generator=generator)

    offset = _offsets(generator, recipe, count)
    first = torch.stack([offset.clamp(min=0), (-offset).clamp(min=0)], dim=1)  # the later one starts at |offset|
    speed = uniform(*recipe.speed, 1).expand(-1, 2)
    lasts = recipe.duration_s + recipe.longest_offset_s
    room = bank.longer_than(lasts * recipe.speed[1])
    if not (room > 0).any():
        raise ValueError(f"no motion lasts {lasts * recipe.speed[1]:.1f} s, as these clips need")
    clip = torch.multinomial(room, count, replacement=True, generator=generator)[:, None].expand(-1, 2)
    start = (1 / RATE_HZ + uniform(0, 1, 1) * room[clip[:, :1]]).expand(-1, 2)
    mirror = ((uniform(0, 1, 1) < 0.5) & recipe.mirror).expand(-1, 2)
    angle = uniform(0, 2 * torch.pi, 1).expand(-1, 2)
    place = 0.9 * torch.randn(count, 1, 2, generator=generator).clamp(-2, 2).expand(-1, 2, -1)

    unrelated = uniform(0, 1) < recipe.unrelated
    other_time = 1 / RATE_HZ + uniform(0, 1) * room[clip[:, 1]]
    far = (other_time - start[:, 1]).abs() > (2 * recipe.longest_offset_s + 0.5) * speed[:, 1]
    elsewhen = unrelated & far & (uniform(0, 1) < 0.5)
    start = torch.stack([start[:, 0], torch.where(elsewhen, other_time, start[:, 1])], dim=1)

    def in_view_b(value: Tensor) -> Tensor:
        """Let view b of unrelated pairs show the person of the next pair, if not the same one at another time."""
        swap = (unrelated & ~elsewhen).reshape(-1, *(1,) * (value.dim() - 2))
        return torch.stack([value[:, 0], torch.where(swap, value[:, 0].roll(-1, 0), value[:, 1])], dim=1)

    clip, start, speed, mirror = in_view_b(clip), in_view_b(start), in_view_b(speed), in_view_b(mirror)
    angle, place = in_view_b(angle), in_view_b(place)
    turn = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], dim=-1).unflatten(-1, (2, 2))
    hips = torch.from_numpy(CLIP_SKELETON.indices(["left_hip", "right_hip"]))
    middle = start + speed * lasts / 2
    origin = torch.stack([bank.at(clip[:, v], middle[:, v, None])[:, 0, hips, :2].mean(1) for v in range(2)], dim=1)
    K, cam_from_world, size = _cameras(generator, recipe.wild, count)
    scale = uniform(*recipe.noise, 1).expand(-1, 2)
    return Scenes(
        bank, clip, start, speed, mirror, turn, origin, place, K, cam_from_world, size, first, scale, ~unrelated
    )


def _offsets(generator: torch.Generator, recipe: Recipe, count: int) -> Tensor:
    """Draw offsets (B,), seconds; symmetric, since which view is called a is chance."""
    if recipe.span_s is not None:
        return recipe.span_s * (2 * torch.rand(count, generator=generator) - 1)
    whole = torch.randint(-recipe.whole_frames, recipe.whole_frames + 1, (count,), generator=generator)
    offset = (whole + torch.rand(count, generator=generator) * recipe.fractions) / recipe.fps
    return torch.where(torch.rand(count, generator=generator) < 0.5, offset, -offset)


def _cameras(generator: torch.Generator, wild: float, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Draw pairs of cameras: K (B, 2, 3, 3), cam_from_world (B, 2, 3, 4), size (B, 2, 2)."""

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(count, *shape, generator=generator)

    def normal(sigma: float, *shape: int) -> Tensor:
        return sigma * torch.randn(count, *shape, generator=generator)

    is_wild = uniform(0, 1, 1) < wild

    # Two of ten cameras, evenly round a square of 8 m, or any two that are ten degrees or more apart.
    apart = torch.where(
        is_wild, uniform(0.17, 2 * torch.pi - 0.17, 1), torch.randint(1, 10, (count, 1), generator=generator) * 0.62832
    )
    azimuth = uniform(0, 2 * torch.pi, 1) + torch.cat([torch.zeros_like(apart), apart], dim=1) + normal(0.03, 2)
    square = 4.0 / torch.maximum(azimuth.cos().abs(), azimuth.sin().abs())
    radius = torch.where(is_wild, uniform(2.5, 8.0, 2), square)
    height = torch.where(is_wild, uniform(0.4, 4.0, 2), 1.8 + normal(0.2, 2))
    center = torch.stack([radius * azimuth.cos(), radius * azimuth.sin(), height], dim=-1)
    target = normal(1.0, 2, 3) * torch.tensor([0.2, 0.2, 0.1]) + torch.tensor([0.0, 0.0, 1.0])
    roll = torch.where(is_wild, normal(0.12, 2), normal(0.02, 2))

    portrait = is_wild & (uniform(0, 1, 2) < 0.25)
    width = torch.where(portrait, 1080.0, 1920.0)
    size = torch.stack([width, 3000.0 - width], dim=-1)
    focal = 1920 * torch.where(is_wild, (uniform(0.11, 0.19, 2) * radius).clamp(0.45, 1.3), 0.6 + normal(0.02, 2))

    forward = torch.nn.functional.normalize(target - center, dim=-1)
    up = torch.tensor([0.0, 0.0, 1.0]).expand_as(forward)
    right = torch.nn.functional.normalize(torch.linalg.cross(forward, up), dim=-1)
    down = torch.linalg.cross(forward, right)
    c, s = roll.cos()[..., None], roll.sin()[..., None]
    R = torch.stack([c * right + s * down, c * down - s * right, forward], dim=-2)
    cam_from_world = torch.cat([R, -(R @ center[..., None])], dim=-1)
    K = torch.zeros(count, 2, 3, 3)
    K[..., 0, 0] = K[..., 1, 1] = focal
    K[..., :2, 2] = (size - 1) / 2
    K[..., 2, 2] = 1
    return K, cam_from_world, size
