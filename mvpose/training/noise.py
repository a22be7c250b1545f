"""The detector noise of ``mvpose.synthetic.noise``, by whole batches of short clips in torch.

The same measured distributions, swaps and autocorrelation; ``tests/sync/train/test_noise.py`` holds the two together.
What a clip is too short to hold (people who walk through each other) is replaced by one thing that hides a part of the
body for the whole clip.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor

from mvpose.skeleton import CLIP_SKELETON, Skeleton
from mvpose.synthetic.noise import ARM, SLOW_S, SLOW_SHARES, WHITE_SHARE, DetectorNoise, joint_errors, length_mapping

_TABLE = 1024
_LONGEST_LATENT = 7.0  # standard deviations; a Gaussian pair is longer once in 4e10 draws


@dataclass(frozen=True)
class Occlusion:
    """A thing that hides a part of a body in one view; its figures are chosen, no measurement was at hand."""

    share: float = 0.12  # of views with such a thing
    missing: float = 0.4  # share of the hidden joints that are not reported


def observe(
    generator: torch.Generator,
    xy_px: Tensor,
    height_px: Tensor,
    time_s: Tensor,
    scale: Tensor,
    noise: DetectorNoise,
    occlusion: Occlusion,
) -> tuple[Tensor, Tensor]:
    """Turn true projections into what a detector reports.

    Elsewhere than on the CPU, call it within ``with xy_px.device:``, where all that it makes anew goes then.

    Args:
        generator: Source of randomness, on the device of ``xy_px``.
        xy_px: (V, T, J, 2) true pixels of one person in V views; NaN where out of view.
        height_px: (V, T) the person's standing height at that distance, pixels.
        time_s: (V, T) true times of the frames, seconds, increasing.
        scale: (V,) factor on the measured errors.
        noise: How well the detector works.
        occlusion: What hides people.

    Returns:
        ``xy_px`` (V, T, J, 2), NaN where missing, and ``score`` (V, T, J), 0 where missing.
    """
    hidden = _hidden(generator, xy_px, occlusion)[:, None]  # (V, 1, J)
    error = _errors(generator, time_s) * scale[:, None, None, None]
    error = error * torch.where(hidden, noise.occluded_error, 1.0)[..., None]
    swapped = _swapped(generator, time_s, noise)
    partner = torch.as_tensor(CLIP_SKELETON.mirrored)
    xy = torch.where(swapped[..., None], xy_px[:, :, partner], xy_px) + error * height_px[..., None, None]

    views, frames, joints = xy.shape[:3]
    missing = held(generator, time_s, noise.missing_hold_s, joints) < noise.missing_joint
    missing |= held(generator, time_s, noise.missing_hold_s, joints) < occlusion.missing * hidden
    missing |= held(generator, time_s, noise.missing_hold_s, 1) < noise.missing_person
    xy = xy.masked_fill(missing[..., None], float("nan"))

    score = torch.exp(-error.norm(dim=-1) / noise.score_reach) * torch.where(hidden, noise.occluded_score, 1.0)
    score = 0.95 * score + noise.score_sigma * torch.randn(views, frames, joints, generator=generator)
    return xy, score.clamp(0.02, 1.0).masked_fill(~torch.isfinite(xy).all(-1), 0.0)


def _errors(generator: torch.Generator, time_s: Tensor) -> Tensor:
    """Draw errors (V, T, J, 2) in heights: correlated Gaussians whose lengths are mapped to the measured ones."""
    views, frames = time_s.shape
    joints = len(CLIP_SKELETON)
    white = torch.randn(views, frames, joints * 2, generator=generator)
    error = (torch.linalg.cholesky(error_covariance(time_s)) @ white).reshape(views, frames, joints, 2)
    length = error.norm(dim=-1)
    position = (length * ((_TABLE - 1) / _LONGEST_LATENT)).clamp(max=_TABLE - 1.001)
    table = _lengths(CLIP_SKELETON, time_s.device)
    cell = position.long()
    base = cell + torch.arange(joints) * _TABLE
    low, high = table.view(-1)[base], table.view(-1)[base + 1]
    return error * ((low + (position - cell) * (high - low)) / length.clamp(min=1e-9))[..., None]


def error_covariance(time_s: Tensor) -> Tensor:
    """Return the covariance (V, T, T) in time of the errors' Gaussian latent, unit variance."""
    apart = (time_s[:, :, None] - time_s[:, None, :]).abs()
    slow = sum(share * torch.exp(-apart / tau) for share, tau in zip(SLOW_SHARES, SLOW_S, strict=True))
    return slow + WHITE_SHARE * torch.eye(time_s.shape[1])


@cache
def _lengths(skeleton: Skeleton, device: torch.device) -> Tensor:
    """Tabulate (J, _TABLE) the error's length, heights, over the latent's length in equal steps."""
    latent = np.linspace(0, _LONGEST_LATENT, _TABLE)
    tables = [np.interp(latent**2 / 2, *length_mapping(kind)) for kind in joint_errors(skeleton)]
    return torch.tensor(np.stack(tables), dtype=torch.float32, device=device)


def _swapped(generator: torch.Generator, time_s: Tensor, noise: DetectorNoise) -> Tensor:
    """Tell (V, T, J) which joints are taken for their partner's; a swapped knee's ankle is swapped as well."""
    share = noise.swaps * torch.tensor([kind.swapped for kind in joint_errors(CLIP_SKELETON)])
    arm = torch.tensor([name.rpartition("_")[2] in ARM for name in CLIP_SKELETON.joint_names])
    severity = held(generator, time_s, noise.swap_hold_s, 2)
    return torch.where(arm, severity[..., 1:], severity[..., :1]) < share


def held(generator: torch.Generator, time_s: Tensor, hold_s: float, values: int) -> Tensor:
    """Draw (V, T, values) uniform in [0, 1), kept for exponentially distributed times of mean ``hold_s``."""
    views, frames = time_s.shape
    gap = torch.diff(time_s, dim=1, prepend=time_s[:, :1] - 1e3)
    renewed = torch.rand(views, frames, values, generator=generator) < (1 - torch.exp(-gap / hold_s))[..., None]
    frame = torch.arange(frames)[None, :, None]
    last = torch.where(renewed, frame, 0).cummax(dim=1).values
    return torch.rand(views, frames, values, generator=generator).gather(1, last)


def _hidden(generator: torch.Generator, xy_px: Tensor, occlusion: Occlusion) -> Tensor:
    """Tell (V, J) which joints a thing hides: all on one side of a line across the body's box in the middle frame."""
    views, frames = xy_px.shape[:2]
    body = torch.nan_to_num(xy_px[:, frames // 2])
    low, high = body.amin(1, keepdim=True), body.amax(1, keepdim=True)
    place = (body - low) / (high - low).clamp(min=1.0) - 0.5
    angle = 2 * torch.pi * torch.rand(views, 1, generator=generator)
    along = place[..., 0] * angle.cos() + place[..., 1] * angle.sin()
    edge = 0.1 + 0.5 * torch.rand(views, 1, generator=generator)
    there = torch.rand(views, 1, generator=generator) < occlusion.share
    return there & (along > edge)
