"""What SeSyn-Net and CNNSiamese are trained by; offsets are in frames, signed, ``t_b = t_a + offset``."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from mvpose.bench.clips.cnn_siamese import MatchedMotion
from mvpose.bench.clips.sesyn import FrameEmbeddings, mean_square_distances
from mvpose.sync.train.losses import interval_labels

_MARGIN = 0.5  # of CNNSiamese's triplets


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
