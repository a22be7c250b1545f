"""One person's joints at the moments of an even time grid: what networks look at, whatever the clips' frame rates.

The grid reaches beyond the clips on either side, for clips that hardly overlap, or do not, can be told apart only by
how their motion goes on.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from mvpose.sync.clips import ClipPairs

STEP_S = 0.05
"""Spacing of the grid and of the lags; human motion has little above 6 Hz."""

MARGIN = 12
"""Moments of the grid beyond the clip on either side."""

FEATURES = 8
"""Numbers that a token has of a joint."""

_FURTHEST_M = 6.0  # coordinates of rays further from the body than this are clipped


@dataclass(frozen=True)
class Moments:
    """V views of one person each on a time grid of G moments; every other moment has a token.

    Attributes:
        path: (V, G, J, 2) coordinates, interpolated where a joint is missing and carried on where it has not been seen
            yet or any more; 0 of joints that are never seen.
        velocity: (V, G, J, 2) the path's change over two moments; beyond the clip that of its end.
        known: (V, G, J) whether a joint was seen about that moment.
        features: (V, G / 2, J, 8) of every other moment: coordinates (0 where unknown), their change from the moment
            before and to the one after, 8 times as large, the detector's score, and whether the joint is known.
        beyond: (G,) how many moments outside the clip each is; 0 within it.
        side: (G,) −1 before the clip, else 1.
        inside: How many moments are within the clip, an odd number.
    """

    path: Tensor
    velocity: Tensor
    known: Tensor
    features: Tensor
    beyond: Tensor
    side: Tensor
    inside: int

    @property
    def clip(self) -> slice:
        """The moments within the clip."""
        return slice(MARGIN, MARGIN + self.inside)

    @property
    def clip_tokens(self) -> slice:
        """The tokens within the clip."""
        return slice(MARGIN // 2, MARGIN // 2 + (self.inside + 1) // 2)


def lay_out(xy: Tensor, pairs: ClipPairs, duration_s: float, step_s: float = STEP_S) -> Moments:
    """Put clips on the grid: between frames interpolated linearly, of more frames than moments averaged.

    Args:
        xy: (B, 2, T, J, 2) coordinates; NaN where missing.
        pairs: The clips, for times and scores.
        duration_s: How long they last; grids of one duration can be compared.
        step_s: Spacing of the grid.

    Returns:
        2B views, the two of a pair one after the other.
    """
    seen = torch.isfinite(xy).all(-1)
    joints = seen.shape[-1]
    inside = 2 * math.ceil(duration_s / (2 * step_s) - 1e-3) + 1
    count = inside + 1 + 2 * MARGIN
    index = torch.arange(count, device=xy.device)
    grid = (index - MARGIN) * step_s
    reach = (pairs.time_s[..., -1] / max(pairs.time_s.shape[-1] - 1, 1)).clamp(min=step_s)
    hat = (1 - (grid[:, None] - pairs.time_s[:, :, None]).abs() / reach[..., None, None]).clamp(min=0)  # (B, 2, G, T)
    weighted = torch.cat([torch.where(seen[..., None], xy, 0.0).flatten(3), seen, pairs.score * seen], dim=-1)
    xy_sum, weight, score_sum = (hat @ weighted).flatten(0, 1).split([2 * joints, joints, joints], dim=-1)
    known = weight > 0.05
    total = weight.clamp(min=1e-6)
    place = torch.where(known[..., None], xy_sum.unflatten(-1, (-1, 2)) / total[..., None], 0.0)
    score = torch.where(known, score_sum / total, 0.0)
    path = _without_gaps(place, known)
    change = torch.diff(path, dim=1)
    step = 8 * F.pad(change * (known[:, 1:] & known[:, :-1])[..., None], (0, 0, 0, 0, 1, 1))
    features = torch.cat([place, step[:, :-1], step[:, 1:], score[..., None], known[..., None]], dim=-1)
    within = index.clamp(MARGIN + 1, MARGIN + max(inside - 2, 1))
    velocity = F.pad(change[:, 1:] + change[:, :-1], (0, 0, 0, 0, 1, 1))[:, within]
    before, after = (MARGIN - index).clamp(min=0), (index - MARGIN - inside + 1).clamp(min=0)
    side = torch.where(before > 0, -1.0, 1.0)
    return Moments(path, velocity, known, features[:, ::2], before + after, side, inside)


def _without_gaps(xy: Tensor, known: Tensor) -> Tensor:
    """Interpolate coordinates (V, G, J, 2) over what is not known (V, G, J), and carry their ends on."""
    count = xy.shape[1]
    time = torch.arange(count, device=xy.device)[:, None]
    last = torch.where(known, time, -1).cummax(1).values
    coming = torch.where(known, time, count).flip(1).cummin(1).values.flip(1)
    low = torch.where(last < 0, coming.clamp(max=count - 1), last)
    high = torch.where(coming >= count, low, coming)
    share = ((time - low) / (high - low).clamp(min=1)).clamp(0, 1)[..., None]

    def at(moment: Tensor) -> Tensor:
        return xy.gather(1, moment[..., None].expand(-1, -1, -1, 2))

    return at(low) * (1 - share) + at(high) * share


def body_coordinates(pairs: ClipPairs) -> Tensor:
    """Return image coordinates (B, 2, T, J, 2) from the clip's centre, in units of the body's extent.

    NaN stays NaN, and a joint that is alone in its frame becomes it: one point has no extent to measure anything by.
    """
    seen = (pairs.seen & (pairs.seen.sum(-1, keepdim=True) > 1))[..., None]
    xy = torch.where(seen, pairs.xy, 0.0)
    count = seen.sum((2, 3), keepdim=True).clamp(min=1)
    centre = xy.sum((2, 3), keepdim=True) / count
    own_centre = xy.sum(3, keepdim=True) / seen.sum(3, keepdim=True).clamp(min=1)
    spread = torch.where(seen, (xy - own_centre) ** 2, 0.0).sum((2, 3, 4), keepdim=True) / count
    return torch.where(seen, (pairs.xy - centre) / spread.sqrt().clamp(min=1.0), torch.nan)


def epipolar_coordinates(pairs: ClipPairs) -> Tensor:
    """Return where rays lie (B, 2, T, J, 2): along the baseline, and the angle about it, both as metres at the body.

    The second coordinate of a point is the same in both views at the same moment, whatever the point's depth.
    """
    R, t = pairs.cam_from_world[..., :3], pairs.cam_from_world[..., 3]
    centre = -torch.einsum("bvij,bvi->bvj", R, t)
    focal = torch.stack([pairs.K[..., 0, 0], pairs.K[..., 1, 1]], dim=-1)
    image = (pairs.xy - pairs.K[:, :, None, None, :2, 2]) / focal[:, :, None, None]
    ray = F.normalize(torch.einsum("bvij,bvtki->bvtkj", R, F.pad(image, (0, 1), value=1.0)), dim=-1)

    baseline = F.normalize(centre[:, 1] - centre[:, 0], dim=-1)
    from_middle = _body_centre(centre, ray) - centre.mean(1)
    outward = from_middle - (from_middle * baseline).sum(-1, keepdim=True) * baseline
    radius = outward.norm(dim=-1).clamp(min=0.3)
    outward = F.normalize(outward, dim=-1)
    up = torch.linalg.cross(baseline, outward)
    # Which camera is called a must not matter: the third axis points to where the images' tops do.
    sign = torch.where((up * -R[:, :, 1].sum(1)).sum(-1, keepdim=True) < 0, -1.0, 1.0)
    axes = torch.stack([sign * baseline, outward, sign * up], dim=1)

    local = torch.einsum("bij,bvtkj->bvtki", axes, ray)
    middle = torch.einsum("bj,bvj->bv", axes[:, 0], from_middle[:, None] + (centre.mean(1, keepdim=True) - centre))
    scale = radius[:, None, None, None]
    along = local[..., 0] / torch.hypot(local[..., 1], local[..., 2]).clamp(min=0.05) * scale - middle[..., None, None]
    about = torch.atan2(local[..., 2], local[..., 1]) * scale
    return 2 * torch.stack([along, about], dim=-1).clamp(-_FURTHEST_M, _FURTHEST_M)


def _body_centre(centre_m: Tensor, ray: Tensor) -> Tensor:
    """Return the point (B, 3) nearest to both views' mean rays."""
    seen = torch.isfinite(ray).all(-1, keepdim=True)
    mean = F.normalize(torch.where(seen, ray, 0.0).sum((2, 3)), dim=-1)  # (B, 2, 3)
    eye = torch.eye(3, device=ray.device)
    across = eye - mean[..., :, None] * mean[..., None, :]
    normal = across.sum(1) + 1e-3 * eye
    right = torch.einsum("bvij,bvj->bi", across, centre_m) + 1e-3 * centre_m.mean(1)
    return torch.linalg.solve(normal, right)
