"""Clips as the paper's competitors see them: one person's place and size, and heatmaps or images of the joints."""

from __future__ import annotations

import torch
from torch import Tensor

from mvpose.skeleton import CLIP_SKELETON
from mvpose.sync.clips import ClipPairs

_HIPS = torch.from_numpy(CLIP_SKELETON.indices(["left_hip", "right_hip"]))
_CROP_RADIUS = 3.0  # half a side of the crop in units of the person's size; a raised arm reaches about 2.5


def person_frame(pairs: ClipPairs) -> tuple[Tensor, Tensor]:
    """Return where the person is and how large: one centre (B, 2, 1, 1, 2) and size (B, 2, 1, 1, 1) a clip, pixels.

    The centre is the mean of the hips, of all joints where no hip is seen; the size is the root mean square distance of
    the joints from it (about a third of the height of who stands). One for the whole clip, so that motion stays motion.
    """
    xy = torch.nan_to_num(pairs.xy)
    seen = pairs.seen[..., None].to(xy.dtype)
    hips, hips_seen = xy[:, :, :, _HIPS], seen[:, :, :, _HIPS]
    count = hips_seen.sum((2, 3), keepdim=True)
    of_hips = (hips * hips_seen).sum((2, 3), keepdim=True) / count.clamp(min=1)
    everything = seen.sum((2, 3), keepdim=True).clamp(min=1)
    of_all = (xy * seen).sum((2, 3), keepdim=True) / everything
    centre = torch.where(count > 0, of_hips, of_all)
    square = ((xy - centre).square().sum(-1, keepdim=True) * seen).sum((2, 3), keepdim=True)
    return centre, (square / everything).sqrt().clamp(min=1.0)


def gaussian_profiles(pairs: ClipPairs, pixels: int, sigma: float = 1.0) -> tuple[Tensor, Tensor]:
    """Render joints as Gaussians on a square crop round the person, common to the whole clip.

    Args:
        pairs: B pairs of clips.
        pixels: Side of the crop, in its own pixels.
        sigma: Standard deviation, pixels of the crop.

    Returns:
        Their rows' and their columns' profiles, (B, 2, T, J, pixels) each, with a peak of 1: an image is the outer
        product of the two. Zero where a joint is missing.
    """
    centre, size = person_frame(pairs)
    position = torch.nan_to_num(pairs.xy - centre) / (_CROP_RADIUS * size) * (pixels / 2)
    grid = torch.arange(pixels, dtype=position.dtype, device=position.device) - (pixels - 1) / 2
    square = ((grid - position[..., None]) / sigma).square()
    # Cut off at 4 sigma: the products of longer tails are denormal numbers, which are ten times as slow.
    profile = torch.exp(-0.5 * square) * ((square < 16) & pairs.seen[..., None, None])
    return profile[..., 1, :], profile[..., 0, :]


def render_heatmaps(pairs: ClipPairs, pixels: int, sigma: float = 1.0) -> Tensor:
    """Return heatmaps (B, 2, T, J, pixels, pixels) of the joints, whose peaks are their scores, as a detector's are."""
    rows, columns = gaussian_profiles(pairs, pixels, sigma)
    return (rows * pairs.score[..., None])[..., :, None] * columns[..., None, :]
