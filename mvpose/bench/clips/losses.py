"""What the rows of the paper are trained by; offsets are in frames, signed, ``t_b = t_a + offset``."""

from __future__ import annotations

from collections.abc import Callable
from math import exp

import torch
from torch import Tensor
from torch.nn import functional

from mvpose.bench.clips.cnn_siamese import MatchedMotion
from mvpose.bench.clips.sesyn import FrameEmbeddings, mean_square_distances
from mvpose.bench.clips.synnet import StreamAnswer
from mvpose.sync.answers import IntervalLogits
from mvpose.sync.train.losses import map_loss
from mvpose.sync.train.metrics import IntervalLabels, interval_labels

_ORDER_WEIGHT = 0.1  # β of the paper
_MARGIN = 0.5  # of CNNSiamese's triplets


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


def synnet_loss(
    answer_loss: Callable[[IntervalLogits, Tensor], Tensor], weight: float
) -> Callable[[StreamAnswer, Tensor], Tensor]:
    """Return SynNet's loss: of its logits, and by a weight what is wrong with the map between both streams' frames."""

    def loss(output: StreamAnswer, offset_frames: Tensor) -> Tensor:
        answer = answer_loss(output.logits, offset_frames)
        if output.frames is None:
            return answer
        a, b = output.frames
        return answer + map_loss(a, b, offset_frames, slice(0, a.shape[1]), guide=weight, contrast=weight)

    return loss


def guided_sesyn_loss(output: FrameEmbeddings, offset_frames: Tensor) -> Tensor:
    """Return what is wrong with the map between SeSyn-Net's frames, given the offsets: supervised, unlike published."""
    scale = output.a.shape[-1] ** -0.5  # its distances are means over the numbers of an embedding
    return map_loss(scale * output.a, scale * output.b, offset_frames, slice(0, output.a.shape[1]), guide=1, contrast=1)


def sesyn_loss(output: FrameEmbeddings, offset_frames: Tensor) -> Tensor:
    """Return SeSyn-Net's self-supervised loss; the offsets are not looked at.

    From each frame i of a to its soft nearest neighbour among the frames of b and back to a: the cross-entropy of
    coming back to i, 0.7 of the mean distance from it, and 0.015 of how unevenly successive frames come back.
    """
    del offset_frames
    there = (-output.distances).softmax(2) @ output.b
    logits = -mean_square_distances(there, output.a)
    frames = torch.arange(logits.shape[1], device=logits.device)
    back = logits.softmax(2) @ frames.to(logits.dtype)  # (B, T)
    return (
        functional.cross_entropy(logits.flatten(0, 1), frames.repeat(len(logits)))
        + 0.7 * (back - frames).abs().mean()
        + 0.015 * (torch.diff(back, dim=1) - 1).abs().mean()
    )


def cnnsiamese_loss(output: MatchedMotion, offset_frames: Tensor) -> Tensor:
    """Return the triplet loss of the distances plus the cross-entropy of the signed whole frames.

    An image of a is an anchor, the image of b nearest to it in time the positive, every other one of b a negative;
    anchors that nothing of b is near to in time have no triplet.
    """
    reach = output.logits.shape[1] // 2
    labels = interval_labels(offset_frames, reach)
    signed = reach + torch.where(offset_frames < 0, -labels.ex, labels.ex)
    n = output.distances.shape[1]
    index = torch.arange(n, device=offset_frames.device)
    positive = index + offset_frames.round().long()[:, None]  # (B, n): t_b = t_a + offset
    overlaps = (positive >= 0) & (positive < n)
    near = output.distances.gather(2, positive.clamp(0, n - 1)[..., None])
    negative = overlaps[..., None] & (index != positive[..., None])
    excess = torch.relu(near - output.distances + _MARGIN) * negative
    return functional.cross_entropy(output.logits, signed) + excess.sum() / negative.sum().clamp(min=1)
