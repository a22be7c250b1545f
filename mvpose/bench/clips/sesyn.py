"""SeSyn-Net: a graph convolution over the skeleton embeds frames, and frames of two views are matched.

Yin et al., *Self-Supervised Human Pose based Multi-Camera Video Synchronization* (ACM MM 2022). It learns without
offsets, from going to the soft nearest frame of the other view and back (``losses.sesyn_loss``), and counts whole
frames only.

Here with 13 joints in place of 17 and 3/8 of the published channels (24 · 4, 48 · 5 in place of 64 · 4, 128 · 5), so
that a CPU trains it. No neck joins the nose to the body in our set of joints: it hangs on both shoulders, which are
the middle from which the spatial partition counts.

Two things had to give for clips of 5 frames. A distance is the mean over an embedding's numbers, not the sum, for with
hundreds of numbers the sum saturates every softmax, and a random network already returns to where it started. And
convolution in time continues the first and last frame rather than adding zeros, which would tell a frame its place in
the clip, so that matching places alone, an offset of 0 for every pair, would satisfy the loss.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn

from mvpose.skeleton import CLIP_SKELETON
from mvpose.sync.clips import ClipPairs, Decision
from mvpose.sync.moments import body_coordinates

_CHANNELS = (3, *4 * (24,), *5 * (48,))
_KERNEL = 9  # frames


@dataclass(frozen=True)
class FrameEmbeddings:
    """What each frame of B pairs looks like: a and b (B, T, D)."""

    a: Tensor
    b: Tensor

    @property
    def distances(self) -> Tensor:
        """(B, T, T) distance of each frame of a from each of b."""
        return mean_square_distances(self.a, self.b)


def mean_square_distances(a: Tensor, b: Tensor) -> Tensor:
    """Return ‖a_i − b_j‖² / D as (B, n, m) of vectors (B, n, D) and (B, m, D)."""
    return (a[:, :, None] - b[:, None]).square().mean(-1)


def spatial_partition() -> np.ndarray:
    """Return the normalised adjacency (3, J, J) of Yan et al. (2018): who is as far from the middle, nearer, farther.

    ``[k, i, j]`` is what joint i takes from joint j; over all k and j a joint takes 1 in all.
    """
    joints = len(CLIP_SKELETON)
    nose, left, right = CLIP_SKELETON.indices(["nose", "left_shoulder", "right_shoulder"])
    linked = np.eye(joints, dtype=bool)
    for i, j in (*CLIP_SKELETON.limbs, (nose, left), (nose, right)):
        linked[i, j] = linked[j, i] = True
    hops = np.full(joints, joints)
    hops[[left, right]] = 0
    for _ in range(joints):
        hops = np.minimum(hops, np.where(linked, hops + 1, joints).min(1))
    share = linked / linked.sum(1, keepdims=True)
    apart = hops[None, :] - hops[:, None]
    return np.stack([share * (apart == 0), share * (apart < 0), share * (apart > 0)])


class TemporalConvolution(nn.Module):
    """A convolution over time that continues the first and the last frame beyond the clip.

    Of a kernel longer than the clip most taps meet the same frames, so it is taken as one matrix over all frames.
    """

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__()
        convolution = nn.Conv1d(channels, channels, kernel)
        self.weight, self.bias = convolution.weight, convolution.bias
        self.reach = kernel // 2

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, T, J, C) to the same shape."""
        frames = torch.arange(x.shape[1], device=x.device)
        taps = torch.arange(-self.reach, self.reach + 1, device=x.device)
        met = (frames[:, None] + taps).clamp(0, len(frames) - 1)  # [t, k]: the frame that tap k of frame t meets
        meets = (met[..., None] == frames).to(x.dtype)
        matrix = torch.einsum("tks,dck->sctd", meets, self.weight).flatten(2).flatten(0, 1)
        out = (x.transpose(1, 2).flatten(2) @ matrix).unflatten(2, (len(frames), -1))
        return out.transpose(1, 2) + self.bias


class ChannelNorm(nn.BatchNorm1d):
    """Batch normalisation of what has its channels last."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., C) to the same shape."""
        return super().forward(x.reshape(-1, x.shape[-1])).view(x.shape)


class STGCNBlock(nn.Module):
    """Convolution over the joints, then over time; Yan et al. 2018, stride 1."""

    def __init__(self, before: int, after: int, parts: int, joints: int, *, residual: bool) -> None:
        super().__init__()
        self.parts = parts
        self.importance = nn.Parameter(torch.ones(parts, joints, joints))
        self.spatial = nn.Linear(before, parts * after)
        self.temporal = nn.Sequential(
            ChannelNorm(after), nn.ReLU(), TemporalConvolution(after, _KERNEL), ChannelNorm(after)
        )
        self.shortcut: nn.Module | None = None
        if residual:
            same = before == after
            self.shortcut = nn.Identity() if same else nn.Sequential(nn.Linear(before, after), ChannelNorm(after))

    def forward(self, x: Tensor, adjacency: Tensor) -> Tensor:
        """Map (N, T, J, before) to (N, T, J, after), given the adjacency (parts, J, J)."""
        offered = self.spatial(x).unflatten(3, (self.parts, -1)).flatten(2, 3)  # (N, T, J · parts, after)
        taken = (adjacency * self.importance).permute(1, 2, 0).flatten(1)  # [i, (j, k)]: what i takes from j
        out = self.temporal(taken @ offered)
        return torch.relu(out if self.shortcut is None else out + self.shortcut(x))


class SeSynNet(nn.Module):
    """Nine blocks of ST-GCN; an embedding is the features of all joints of a frame.

    Args:
        centred: Whether joints are seen from the person's middle in units of its size, so that heights can be compared
            between views; else in the image, as published.
    """

    adjacency: Tensor

    def __init__(self, *, centred: bool = False) -> None:
        super().__init__()
        self.centred = centred
        joints = len(CLIP_SKELETON)
        self.register_buffer("adjacency", torch.from_numpy(spatial_partition()).float(), persistent=False)
        self.norm = ChannelNorm(3 * joints)
        self.blocks = nn.ModuleList(
            STGCNBlock(before, after, len(self.adjacency), joints, residual=index > 0)
            for index, (before, after) in enumerate(pairwise(_CHANNELS))
        )

    def forward(self, pairs: ClipPairs) -> FrameEmbeddings:
        """Embed the frames of B pairs of clips of any length."""
        place = body_coordinates(pairs) if self.centred else pairs.xy / pairs.size_px[:, :, None, None] - 0.5
        relative = torch.nan_to_num(place)
        x = torch.cat([relative, pairs.score[..., None]], dim=-1) * (pairs.seen & (pairs.score > 0))[..., None]
        x = self.norm(x.flatten(0, 1).flatten(2)).unflatten(2, (-1, 3))  # (2B, T, J, 3)
        for block in self.blocks:
            x = block(x, self.adjacency)
        a, b = x.flatten(2).unflatten(0, (-1, 2)).unbind(1)
        return FrameEmbeddings(a, b)

    def decide(self, output: FrameEmbeddings) -> Decision:
        """Match each frame of a with its nearest of b: the offset is the median of how much later that one comes."""
        nearest = output.distances.argmin(2)
        later = (nearest - torch.arange(nearest.shape[1], device=nearest.device)).to(output.a.dtype)
        offset = later.quantile(0.5, dim=1).floor()
        return Decision(offset.abs().long(), None, offset)
