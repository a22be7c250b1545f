"""What networks say of pairs of clips, and what is decided by it: classes of whole frames and tenths, or a density."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mvpose.sync.clips import Decision

TENTHS = 10
UNRELATED_SHARE = 0.2
"""Share of unrelated pairs among those that posteriors are learnt from: their prior."""

_CHANCE = 1e-3  # share of a uniform density over the lags: no single window may rule an offset out for good
_REACH = 6  # frames; decisions in the paper's classes end there


@dataclass(frozen=True)
class IntervalLogits:
    """The paper's answer of B pairs, before the softmax.

    Attributes:
        ex: (B, n) whole frames of |offset|, 0 … n − 1.
        tenth: (B, n, 10) tenths of a frame beyond them, given each number of whole frames; None of a network that
            counts frames only.
        order: (B, 2) whether the offset is negative (0) or positive (1).
    """

    ex: Tensor
    tenth: Tensor | None
    order: Tensor

    def swapped(self) -> IntervalLogits:
        """Return what is to be said of the exchanged views."""
        return replace(self, order=self.order.flip(1))

    def plus(self, other: IntervalLogits) -> IntervalLogits:
        """Return the sums, that is the (unnormalised) product of two opinions."""
        tenth = None if self.tenth is None or other.tenth is None else self.tenth + other.tenth
        return IntervalLogits(self.ex + other.ex, tenth, self.order + other.order)

    def decide(self) -> Decision:
        """Take the most probable whole frame, the most probable tenth within it, and the more probable order.

        The continuous offset is the middle of the tenth; without tenths it is the whole number. Its sigma is the root
        mean square distance of all classes from it, by their probability.
        """
        ex = self.ex.argmax(1)
        sign = 2.0 * self.order.argmax(1) - 1.0
        whole = torch.arange(self.ex.shape[1], dtype=self.ex.dtype, device=self.ex.device)
        if self.tenth is None:
            tenth, size = None, ex.to(sign.dtype)
            probability, magnitude = self.ex.softmax(1), whole
        else:
            tenth = self.tenth[torch.arange(len(ex), device=ex.device), ex].argmax(1)
            size = ex + (tenth + 0.5) / TENTHS
            probability = (self.ex.log_softmax(1)[..., None] + self.tenth.log_softmax(2)).exp().flatten(1)
            inner = (torch.arange(TENTHS, dtype=whole.dtype, device=whole.device) + 0.5) / TENTHS
            magnitude = (whole[:, None] + inner).flatten()
        offset = sign * size
        behind, ahead = self.order.softmax(1).unbind(1)
        variance = (
            probability
            * (
                ahead[:, None] * (magnitude - offset[:, None]).square()
                + behind[:, None] * (magnitude + offset[:, None]).square()
            )
        ).sum(1)
        return Decision(ex, tenth, offset, variance.sqrt())


@dataclass(frozen=True)
class LagPosterior:
    """What is believed of the offset of each pair: a mixture of Gaussians, or no relation.

    Attributes:
        log_weight: (B, L) log-probability of each component; with ``log_unrelated`` they sum to one.
        mean_s: (B, L) their offsets, ``t_b = t_a + offset``.
        sigma_s: (B, L) their standard deviations.
        log_unrelated: (B,) log-probability that the clips do not show the same moment.
        frame_s: (B,) duration of a frame, for decisions in frames.
        longest_lag_s: How far lags reach to either side.
    """

    log_weight: Tensor
    mean_s: Tensor
    sigma_s: Tensor
    log_unrelated: Tensor
    frame_s: Tensor
    longest_lag_s: float

    def log_density(self, offset_s: Tensor) -> Tensor:
        """Return log p(related, offset), per second, at offsets (B, n)."""
        z = (offset_s[:, :, None] - self.mean_s[:, None]) / self.sigma_s[:, None]
        log_normal = -0.5 * z**2 - self.sigma_s.log()[:, None] - 0.5 * math.log(2 * math.pi)
        density = torch.logsumexp(self.log_weight[:, None] + log_normal, dim=-1)
        related = torch.log1p(-self.log_unrelated.exp().clamp(max=1 - 1e-6))
        floor = math.log(_CHANCE / (2 * self.longest_lag_s))
        return torch.logaddexp(density + math.log1p(-_CHANCE), related[:, None] + floor)

    def log_likelihood_ratio(self, offset_s: Tensor) -> Tensor:
        """Return log p(clips | offset) / p(clips | unrelated) at offsets (B, n), nats: what windows add up."""
        prior = math.log(UNRELATED_SHARE / (1 - UNRELATED_SHARE)) + math.log(2 * self.longest_lag_s)
        return self.log_density(offset_s) - self.log_unrelated[:, None].clamp(min=math.log(_CHANCE)) + prior

    def mass(self, edges_s: Tensor) -> Tensor:
        """Return the probability (B, n) between consecutive edges (B, n + 1), given that the clips are related."""
        z = (edges_s[:, :, None] - self.mean_s[:, None]) / self.sigma_s[:, None]
        below = torch.special.ndtr(z)
        weight = torch.softmax(self.log_weight, dim=-1)
        return ((below[:, 1:] - below[:, :-1]) * weight[:, None]).sum(-1)

    def decide(self) -> Decision:
        """Return the likeliest whole frame, its likeliest tenth, and the median with the standard deviation."""
        cells = 2 * _REACH * TENTHS
        tenths = torch.arange(-cells // 2, cells // 2 + 1, device=self.frame_s.device) / TENTHS
        mass = self.mass(tenths * self.frame_s[:, None])
        within_reach = mass.sum(-1, keepdim=True)
        # Where all of it lies further away, nothing is said of these cells: all are alike, and the views exchange.
        mass = torch.where(within_reach > 1e-6, mass / within_reach.clamp(min=1e-6), 1 / cells)
        folded = (mass[:, cells // 2 :] + mass[:, : cells // 2].flip(-1)).unflatten(-1, (_REACH, TENTHS))
        ex = folded.sum(-1).argmax(-1)
        tenth = folded[torch.arange(len(ex), device=ex.device), ex].argmax(-1)
        below = mass.cumsum(-1)
        cell = (below < 0.5).sum(-1, keepdim=True).clamp(max=cells - 1)
        within = (0.5 - (below - mass).gather(1, cell)) / mass.gather(1, cell).clamp(min=1e-9)
        median = tenths[cell[:, 0]] + within[:, 0].clamp(0, 1) / TENTHS
        # The spread of the whole density, not of its share below six frames alone.
        square = self.sigma_s**2 + (self.mean_s - (median * self.frame_s)[:, None]) ** 2
        variance = (torch.softmax(self.log_weight, dim=-1) * square).sum(-1)
        return Decision(ex, tenth, median, variance.sqrt() / self.frame_s)
