"""What InSynFormer is trained by besides its answer: the true offset is known, so the map between views should show it.

The paper's flow, whose heads see the map only as a bias of attention, does not leave chance within a CPU's reach
without these two losses. Where maps are read by lag the answer itself teaches them as much (``mvpose bench clips``).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from mvpose.sync.answers import LagPosterior
from mvpose.sync.insynformer import Reading, distance_map

_GOLDEN = 0.6180339887  # multiples of it, less their whole parts, are spread evenly over 0 … 1


def lag_loss(posterior: LagPosterior, offset_frames: Tensor) -> Tensor:
    """Return the mean negative log-likelihood of the true offsets (B,), frames; NaN says that a pair is unrelated."""
    offset = (offset_frames * posterior.frame_s)[:, None]
    related = torch.isfinite(offset)
    log_density = posterior.log_density(torch.where(related, offset, 0.0))
    return -torch.where(related, log_density, posterior.log_unrelated[:, None]).mean()


def guided(
    answer_loss: Callable[[Any, Tensor], Tensor], guide: float = 0.3, contrast: float = 0.3
) -> Callable[[Reading, Tensor], Tensor]:
    """Return the loss of a reading: of its answer, and of its maps by so much.

    Args:
        answer_loss: Of ``Reading.answer``.
        guide: Weight of ``guide_loss``.
        contrast: Weight of ``contrastive_loss``.
    """

    def loss(reading: Reading, offset_frames: Tensor) -> Tensor:
        total = answer_loss(reading.answer, offset_frames)
        if reading.curves is None:
            return total
        a, b = reading.curves
        shift = offset_frames * reading.frame_s / a.step_s
        return total + map_loss(a.scaled(), b.scaled(), shift, a.clip, guide=guide, contrast=contrast)

    return loss


def map_loss(a: Tensor, b: Tensor, shift: Tensor, clip: slice, *, guide: float = 0.3, contrast: float = 0.3) -> Tensor:
    """Return what is wrong with the map between the moments of two views, by so much of either loss.

    Args:
        a: (B, G, D) the first views at even moments.
        b: (B, G, D) the second views.
        shift: (B,) the true offsets, moments; NaN of unrelated pairs.
        clip: The moments within the clips.
        guide: Weight of ``guide_loss``.
        contrast: Weight of ``contrastive_loss``.
    """
    total = a.new_zeros(())
    if guide:
        total = total + guide * guide_loss(a, b, shift)
    if contrast:
        total = total + contrast * contrastive_loss(a, b, shift, clip)
    return total


def guide_loss(a: Tensor, b: Tensor, shift: Tensor) -> Tensor:
    """Return the cross-entropy of each moment's partner in the other view, as rows and columns of the map have it.

    The partner's time lies between two moments; the target is shared between them. Unrelated pairs have no partners.
    Arguments are those of ``map_loss``.
    """
    related = torch.isfinite(shift)
    shift = torch.where(related, shift, 0.0)[:, None]
    log_alike = distance_map(a, b)
    count = log_alike.shape[-1]
    moment = torch.arange(count, device=shift.device)

    def partner_loss(scores: Tensor, partner: Tensor) -> Tensor:
        low = partner.floor()
        share, low = partner - low, low.long()
        there = (low >= 0) & (low < count - 1) & related[:, None]
        low = low.clamp(0, count - 2)
        log_p = scores.log_softmax(-1)
        here, after = (log_p.gather(-1, low[..., None] + k)[..., 0] for k in (0, 1))
        return -(there * ((1 - share) * here + share * after)).sum() / there.sum().clamp(min=1)

    there = partner_loss(log_alike, moment + shift)
    return (there + partner_loss(log_alike.transpose(1, 2), moment - shift)) / 2


def contrastive_loss(a: Tensor, b: Tensor, shift: Tensor, clip: slice) -> Tensor:
    """Return InfoNCE (van den Oord et al. 2018): the same instant in the two views against the batch's other pairs.

    One instant of the time that both clips show, in each pair of which there is such a time; 0 if they are fewer than
    eight. It takes views that have not seen each other yet, or the answer would leak. Arguments are those of
    ``map_loss``.
    """
    shift = torch.where(torch.isfinite(shift), shift, torch.inf)
    first, last = float(clip.start), float(clip.stop - 1)
    low, high = (first - shift).clamp(min=first), (last - shift).clamp(max=last)
    row = torch.nonzero(high >= low)[:, 0]
    if len(row) < 8:
        return a.new_zeros(())
    low, high, shift = low[row], high[row], shift[row]
    at_a = low + (high - low) * (_GOLDEN * torch.arange(len(row), device=row.device) % 1)

    def at(view: Tensor, time: Tensor) -> Tensor:
        moment = time.floor().long().clamp(0, view.shape[1] - 2)
        share = (time - moment)[:, None]
        return (1 - share) * view[row, moment] + share * view[row, moment + 1]

    of_a, of_b = at(a, at_a), at(b, at_a + shift)
    alike = 2 * of_a @ of_b.T - of_a.square().sum(1)[:, None] - of_b.square().sum(1)[None]
    same = torch.arange(len(row), device=row.device)
    return (functional.cross_entropy(alike, same) + functional.cross_entropy(alike.T, same)) / 2
