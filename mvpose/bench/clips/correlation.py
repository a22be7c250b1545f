"""Correlation of how fast the joints move in two views, which needs no training."""

from __future__ import annotations

import torch
from torch import Tensor

from mvpose.bench.clips.rendering import person_frame
from mvpose.sync.answers import TENTHS
from mvpose.sync.clips import ClipPairs, Decision

_SHORTEST_OVERLAP = 3  # any two points correlate perfectly


def joint_speeds(pairs: ClipPairs) -> Tensor:
    """Return how far the joints move to the next frame on average (B, 2, T − 1), in units of the person's size.

    NaN where no joint is seen in both frames.
    """
    _, size = person_frame(pairs)
    return (torch.diff(pairs.xy, dim=2) / size).norm(dim=-1).nanmean(-1)


def correlate(pairs: ClipPairs, *, reach: int = 5) -> Decision:
    """Shift the speeds of b against those of a, take the best Pearson correlation, refine it by a parabola.

    The overlap has to hold three displacements: clips of 5 frames, which have four, are compared at −1, 0 and 1 only.
    Where nothing correlates (nobody moves, nobody is seen) the offset is 0.

    Args:
        pairs: B pairs of clips of any length.
        reach: Largest number of whole frames.
    """
    a, b = joint_speeds(pairs).unbind(1)
    furthest = max(0, min(reach, a.shape[1] - _SHORTEST_OVERLAP))
    lags = range(-furthest, furthest + 1)
    scores = torch.stack([_pearson(*_overlap(a, b, lag)) for lag in lags], dim=1)
    best = scores.argmax(1)
    offset = (best - furthest).to(a.dtype) + _vertex(scores, best)
    offset = torch.where(torch.isfinite(scores).any(1), offset, 0.0)
    tenths = (TENTHS * offset.abs()).long().clamp(max=TENTHS * (reach + 1) - 1)
    return Decision(tenths // TENTHS, tenths % TENTHS, offset)


def _overlap(a: Tensor, b: Tensor, lag: int) -> tuple[Tensor, Tensor]:
    """Return what of a and b (B, n) is of one time if a's moment i is b's ``i + lag``."""
    n = a.shape[1]
    return a[:, max(0, -lag) : n - max(0, lag)], b[:, max(0, lag) : n - max(0, -lag)]


def _pearson(a: Tensor, b: Tensor) -> Tensor:
    """Return the correlation (B,) over the moments that both have, −inf where too few or still."""
    both = torch.isfinite(a) & torch.isfinite(b)
    count = both.sum(1)
    a, b = (torch.where(both, x, 0.0) for x in (a, b))
    a, b = (torch.where(both, x - (x.sum(1) / count.clamp(min=1))[:, None], 0.0) for x in (a, b))
    power = a.norm(dim=1) * b.norm(dim=1)
    moves = (count >= _SHORTEST_OVERLAP) & (power > 1e-9)
    return torch.where(moves, (a * b).sum(1) / power.clamp(min=1e-9), -torch.inf)


def _vertex(scores: Tensor, best: Tensor) -> Tensor:
    """Return where (B,), within half a lag of the best, the parabola through it and its neighbours peaks."""
    if scores.shape[1] < 3:
        return torch.zeros(len(scores), dtype=scores.dtype, device=scores.device)
    inside = (best > 0) & (best < scores.shape[1] - 1)
    at = best.clamp(1, scores.shape[1] - 2)[:, None]
    before, peak, after = (scores.gather(1, at + shift)[:, 0] for shift in (-1, 0, 1))
    curvature = before - 2 * peak + after
    bent = inside & torch.isfinite(curvature) & (curvature < 0)
    return torch.where(bent, 0.5 * (before - after) / torch.where(bent, curvature, 1.0), 0.0)
