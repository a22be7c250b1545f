"""What InSynFormer is trained by; offsets are in frames, signed, ``t_b = t_a + offset``."""

from __future__ import annotations

from dataclasses import dataclass
from math import exp

import torch
from torch import Tensor
from torch.nn import functional

from mvpose.sync.insynformer import TENTHS, IntervalLogits

_ORDER_WEIGHT = 0.1  # β of the paper
_ROUNDING = 1e-4  # frames; a whole number of frames, divided out of seconds in float32, is not one any more


@dataclass(frozen=True)
class IntervalLabels:
    """The classes of B offsets.

    Attributes:
        ex: (B,) whole frames of |offset|.
        tenth: (B,) tenths of a frame beyond them.
        order: (B,) 0 where the offset is negative, 1 where it is positive.
        ordered: (B,) whether it is not zero.
    """

    ex: Tensor
    tenth: Tensor
    order: Tensor
    ordered: Tensor


def interval_labels(offset_frames: Tensor, reach: int = 5) -> IntervalLabels:
    """Return the classes of offsets (B,), frames, all within ``reach`` whole frames and their fraction."""
    size = offset_frames.abs()
    tenths = (TENTHS * (size + _ROUNDING)).long().clamp(max=TENTHS * (reach + 1) - 1)
    return IntervalLabels(tenths // TENTHS, tenths % TENTHS, (offset_frames > 0).long(), size > _ROUNDING)


def hxe_loss(output: IntervalLogits, offset_frames: Tensor, alpha: float = 0.1) -> Tensor:
    """Return the hierarchical cross-entropy over root → whole frame → tenth, plus 0.1 of the order's cross-entropy.

    Eqs. 6–9: ``−Σ λ(C) log P(C | parent of C)`` along the path to the true leaf, ``λ(C) = exp(−α h(C))``. Taken
    literally, a height would weigh the leaves most, against the paper's own words (a larger α makes the classification
    more generic) and against the code of Bertinetto et al. (2020), whom it follows. So h counts from the root: 1 for
    a whole frame, 2 for a tenth.
    """
    return _path_loss(output, offset_frames, exp(-alpha), exp(-2 * alpha))


def ce_loss(output: IntervalLogits, offset_frames: Tensor) -> Tensor:
    """Return the cross-entropies of whole frame and tenth, weighed alike, plus 0.1 of the order's.

    Independent of each other if the network's heads are (``conditional=False``).
    """
    return _path_loss(output, offset_frames, 1.0, 1.0)


def whole_frames_loss(output: IntervalLogits, offset_frames: Tensor) -> Tensor:
    """Return the cross-entropy of the whole frames, plus 0.1 of the order's: the protocol of NTU-SYN and CMU-SYN."""
    labels = interval_labels(offset_frames, output.ex.shape[1] - 1)
    return functional.cross_entropy(output.ex, labels.ex) + _ORDER_WEIGHT * _order_loss(output, labels)


def _path_loss(output: IntervalLogits, offset_frames: Tensor, ex_weight: float, tenth_weight: float) -> Tensor:
    if output.tenth is None:
        raise ValueError("this network has no tenths: train it by whole_frames_loss")
    labels = interval_labels(offset_frames, output.ex.shape[1] - 1)
    given_ex = output.tenth[torch.arange(len(labels.ex), device=labels.ex.device), labels.ex]
    return (
        ex_weight * functional.cross_entropy(output.ex, labels.ex)
        + tenth_weight * functional.cross_entropy(given_ex, labels.tenth)
        + _ORDER_WEIGHT * _order_loss(output, labels)
    )


def _order_loss(output: IntervalLogits, labels: IntervalLabels) -> Tensor:
    """Return the mean over all pairs; those that are simultaneous have no order and add nothing."""
    return (functional.cross_entropy(output.order, labels.order, reduction="none") * labels.ordered).mean()
