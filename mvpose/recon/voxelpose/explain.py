"""Explain the detections of one instant by people: whose each is, where they put joints, and who is left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
from scipy.optimize import linear_sum_assignment

from mvpose.calib.camera import Camera
from mvpose.geometry import projection_matrices
from mvpose.recon.align import MIN_JOINTS
from mvpose.recon.triangulate import normalise, triangulate_points
from mvpose.recon.voxelpose.polish import WILD_M

NEAR_HEIGHTS = 0.15
"""A view supports a joint if its detection is nearer to it than this, in units of the person's height in the image."""
MIN_VIEWS = 2
"""Whom fewer views show is nobody."""

_ONE_PERSON_M = 0.25  # two people whose joints are nearer, in the mean, are one


@dataclass(frozen=True)
class Detections:
    """All cameras' detections on the timeline: at most K in a view at a time. Of one instant, the first axis lacks.

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

    def __getitem__(self, times: int | slice | np.ndarray | tuple[np.ndarray, ...]) -> Detections:
        return Detections(*(getattr(self, field.name)[times] for field in fields(self)))

    @property
    def there(self) -> np.ndarray:
        """(T, C, K) where a detection has joints enough to be somebody."""
        return np.isfinite(self.xy_px).all(axis=-1).sum(axis=-1) >= MIN_JOINTS


@dataclass(frozen=True)
class People:
    """The n people found at one instant.

    Attributes:
        xyz_m: (n, J, 3) metres, by the network.
        sigma_m: (n, J, 3) its standard deviation along the room's axes.
        placed_m: (n, J, 3) the same joints, triangulated where detections show them.
        triangulated: (n, J) where they do.
        detection: (n, C) which detection of each view shows the person; −1 where none.
    """

    xyz_m: np.ndarray
    sigma_m: np.ndarray
    placed_m: np.ndarray
    triangulated: np.ndarray
    detection: np.ndarray

    def __len__(self) -> int:
        return len(self.xyz_m)

    def __getitem__(self, who: np.ndarray) -> People:
        return People(*(getattr(self, field.name)[who] for field in fields(self)))

    @property
    def views(self) -> np.ndarray:
        """(n,) how many views show each."""
        return (self.detection >= 0).sum(axis=1)

    @classmethod
    def proposed(cls, xyz_m: np.ndarray, sigma_m: np.ndarray, cameras: int) -> People:
        """Return people as the network proposes them, whom no detection is known to show."""
        none = np.zeros(xyz_m.shape[:2], dtype=bool)
        return cls(xyz_m, sigma_m, xyz_m, none, np.full((len(xyz_m), cameras), -1))


def explained(people: People, more: People, seen: Detections, cameras: Sequence[Camera]) -> People:
    """Let further people claim detections beside those who have some, and keep all whom ``MIN_VIEWS`` views show.

    They must also show where ``MIN_JOINTS`` joints are: views from one place, and of different people, agree on nothing
    in 3D, and the network guesses all the same.

    Whoever is placed by the first claims is known to some centimetres: so doubles are told from people who stand close,
    and detections from those of somebody nearby, when they are claimed again.

    Args:
        people: Those found before.
        more: Those proposed now, likeliest first.
        seen: The instant's detections (C, K, ...).
        cameras: (C,) cameras.
    """
    both = People(*(np.concatenate([getattr(p, f.name) for p in (people, more)]) for f in fields(People)))
    claimed = _claiming(both, seen, cameras)
    settled = _claiming(claimed[_distinct(claimed)], seen, cameras)
    return settled[(settled.views >= MIN_VIEWS) & (settled.triangulated.sum(axis=1) >= MIN_JOINTS)]


def unexplained(people: Sequence[People], seen: Detections) -> np.ndarray:
    """Return which detections (T, C, K) show none of the people of their instant."""
    rest = seen.there
    for t, own in enumerate(people):
        i, c = np.nonzero(own.detection >= 0)
        rest[t, c, own.detection[i, c]] = False
    return rest


def _claiming(people: People, seen: Detections, cameras: Sequence[Camera]) -> People:
    """Give people the detections nearest to where they are placed, and place them by these."""
    detection = _detections(people.placed_m, seen, cameras)
    placed, triangulated = _placed(people.xyz_m, detection, seen, cameras)
    return replace(people, placed_m=placed, triangulated=triangulated, detection=detection)


def _detections(xyz: np.ndarray, seen: Detections, cameras: Sequence[Camera]) -> np.ndarray:
    """Return which detection (n, C) of each view shows whom of (n, J, 3): the median joint is near; each shows one."""
    detection = np.full((len(xyz), len(cameras)), -1)
    for c, camera in enumerate(cameras):
        there = np.flatnonzero(seen.there[c])
        if not len(there) or not len(xyz):
            continue
        miss = np.linalg.norm(camera.project(xyz)[:, None] - seen.xy_px[c, there][None], axis=-1)  # (n, k, J)
        # Who is near none costs no more than who just is not: nobody is moved to another's detection for that.
        cost = np.minimum(_medians(miss) / seen.height_px[c, there], NEAR_HEIGHTS)
        for i, k in zip(*linear_sum_assignment(cost), strict=True):
            if cost[i, k] < NEAR_HEIGHTS:
                detection[i, c] = there[k]
    return detection


def _medians(values: np.ndarray) -> np.ndarray:
    """Return the lower median (...) of the known values along the last axis; infinite where there is none."""
    ordered = np.sort(np.where(np.isnan(values), np.inf, values), axis=-1)
    middle = np.maximum(np.isfinite(values).sum(axis=-1) - 1, 0) // 2
    return np.take_along_axis(ordered, middle[..., None], axis=-1)[..., 0]


def _placed(
    xyz: np.ndarray, detection: np.ndarray, seen: Detections, cameras: Sequence[Camera]
) -> tuple[np.ndarray, np.ndarray]:
    """Return the joints (n, J, 3), triangulated where detections (n, C) show them and do not contradict them wildly.

    Also where (n, J) they do.
    """
    view, mine = np.arange(len(cameras)), detection >= 0
    sigma_px = np.where(mine[..., None], seen.sigma_px[view, detection], np.nan)
    x, sigma = normalise(seen.xy_px[view, detection], sigma_px, tuple(cameras))  # (n, C, J, 2) and (n, C, J)
    x, sigma = np.moveaxis(x, 1, 2), np.moveaxis(sigma, 1, 2)
    flat = triangulate_points(
        projection_matrices(cameras), x.reshape(-1, *x.shape[2:]), sigma.reshape(-1, len(cameras))
    )
    placed = flat.xyz_m.reshape(xyz.shape)
    believed = np.linalg.norm(placed - xyz, axis=-1) <= WILD_M
    return np.where(believed[..., None], placed, xyz), believed


def _distinct(people: People) -> np.ndarray:
    """Return who (m,) is not the double of somebody whom more views show."""
    kept: list[int] = []
    for i in np.argsort(-people.views, kind="stable").tolist():
        apart = np.linalg.norm(people.placed_m[kept] - people.placed_m[i], axis=-1).mean(axis=-1)
        if (apart > _ONE_PERSON_M).all():
            kept.append(i)
    return np.array(kept, dtype=int)
