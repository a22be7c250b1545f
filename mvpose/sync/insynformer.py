"""InSynFormer: the offset of two short clips of one person, by attention along each joint's time and across the views.

Liu et al., *Advancing Video Synchronization with Fractional Frame Analysis* (AAAI 2024). A token is one joint in one
frame of one view. Four layers of temporal self-attention (TSA, eq. 4) let the tokens of a joint in a view look at each
other, four of cross-view attention (CVA, eq. 5) let them look at the same joint in the other view, a linear layer
merges the joints, and heads classify |offset|: whole frames (inter), the tenth within the frame (intra), and which
view is ahead (order).

What the paper leaves open is chosen here: one attention head, as its equations are written; pre-norm layers with a
feed-forward part of twice the width; width 32, beyond which a CPU trains too few clips in ten minutes; both directions
of CVA share their weights, each residual stream being that of the queries' view, and add up as logits. So exchanging
the views exchanges the order and changes nothing else, exactly.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from mvpose.skeleton import CLIP_SKELETON
from mvpose.sync.clips import ClipPairs, Decision

TENTHS = 10

_HIPS = torch.from_numpy(CLIP_SKELETON.indices(["left_hip", "right_hip"]))
_CROP_RADIUS = 3.0  # half a side of the crop in units of the person's size; a raised arm reaches about 2.5
_UNSEEN = -1e4  # added to attention scores; finite, so that a joint that is never seen yields no NaN


@dataclass(frozen=True)
class IntervalLogits:
    """What the heads say of B pairs, before the softmax.

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


def decide(logits: IntervalLogits) -> Decision:
    """Take the most probable whole frame, the most probable tenth within it, and the more probable order.

    The continuous offset is the middle of the tenth; without tenths it is the whole number. Its sigma is the root mean
    square distance of all classes from it, by their probability.
    """
    ex = logits.ex.argmax(1)
    sign = 2.0 * logits.order.argmax(1) - 1.0
    whole = torch.arange(logits.ex.shape[1], dtype=logits.ex.dtype, device=logits.ex.device)
    if logits.tenth is None:
        tenth, size = None, ex.to(sign.dtype)
        probability, magnitude = logits.ex.softmax(1), whole
    else:
        tenth = logits.tenth[torch.arange(len(ex), device=ex.device), ex].argmax(1)
        size = ex + (tenth + 0.5) / TENTHS
        probability = (logits.ex.log_softmax(1)[..., None] + logits.tenth.log_softmax(2)).exp().flatten(1)
        inner = (torch.arange(TENTHS, dtype=whole.dtype, device=whole.device) + 0.5) / TENTHS
        magnitude = (whole[:, None] + inner).flatten()
    offset = sign * size
    behind, ahead = logits.order.softmax(1).unbind(1)
    variance = (
        probability
        * (
            ahead[:, None] * (magnitude - offset[:, None]).square()
            + behind[:, None] * (magnitude + offset[:, None]).square()
        )
    ).sum(1)
    return Decision(ex, tenth, offset, variance.sqrt())


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


def keypoint_features(pairs: ClipPairs) -> Tensor:
    """Return what is known of each joint in each frame: (B, 2, T, J, 6).

    Position and its change since the frame before (zero in the first, and where either is missing), in units of the
    person's size, the change times 4, which brings it to the size of the rest; score; and whether it was seen.
    """
    centre, size = person_frame(pairs)
    seen = pairs.seen
    position = torch.where(seen[..., None], (pairs.xy - centre) / size, 0.0)
    both = (seen[:, :, 1:] & seen[:, :, :-1])[..., None]
    change = functional.pad(4 * torch.diff(position, dim=2) * both, (0, 0, 0, 0, 1, 0))
    flags = torch.stack([pairs.score, seen.to(position.dtype)], dim=-1)
    return torch.cat([position, change, flags], dim=-1)


class IntervalHeads(nn.Module):
    """Linear heads for whole frames, tenths and order.

    Their weights start at 0: a random head makes the features' noise costly, and what is below learns first of all to
    see nothing, before it has found what tells the offset.

    Args:
        width: Of the features.
        reach: Largest number of whole frames.
        conditional: Whether the tenths have logits of their own for each number of whole frames, as the tree of HXE
            wants, or one set for all, as in two independent softmaxes.
        whole_frames: Whether there are no tenths at all.
    """

    def __init__(self, width: int, *, reach: int = 5, conditional: bool = True, whole_frames: bool = False) -> None:
        super().__init__()
        self.classes = reach + 1
        self.ex = nn.Linear(width, self.classes)
        self.order = nn.Linear(width, 2, bias=False)  # which view is called a is chance
        self.tenth = None if whole_frames else nn.Linear(width, TENTHS * (self.classes if conditional else 1))
        for head in (self.ex, self.order, self.tenth):
            if head is not None:
                nn.init.zeros_(head.weight)

    def forward(self, features: Tensor) -> IntervalLogits:
        """Classify features (B, width)."""
        tenth = None
        if self.tenth is not None:
            tenth = self.tenth(features).unflatten(1, (-1, TENTHS)).expand(-1, self.classes, -1)
        return IntervalLogits(self.ex(features), tenth, self.order(features))


class AttentionLayer(nn.Module):
    """Attention, then a feed-forward part, each normalised before and added to what there was.

    No linear map has a bias: the norms have one, and on a CPU the bias costs as much as the map.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.before_attention = nn.LayerNorm(width)
        self.query = nn.Linear(width, width, bias=False)
        self.key_value = nn.Linear(width, 2 * width, bias=False)
        self.mix = nn.Linear(width, width, bias=False)
        self.before_feedforward = nn.LayerNorm(width)
        self.up = nn.Linear(width, 2 * width, bias=False)
        self.down = nn.Linear(2 * width, width, bias=False)
        for linear in (self.query, self.key_value, self.mix, self.up, self.down):
            # As large out as in; torch's default shrinks by √3 at every step, and the views hardly meet.
            nn.init.normal_(linear.weight, std=linear.in_features**-0.5)

    def forward(self, tokens: Tensor, unseen: Tensor, *, across: bool = False) -> Tensor:
        """Let tokens (n, S, width) look at those of their own sequence, or ``across`` at the other view's.

        Args:
            tokens: n sequences; if ``across``, the first half is one view and the second half the other.
            unseen: (n, 1, 1, S) what is added to the scores of each token as a key.
            across: Whether keys and values are the other view's.
        """
        normed = self.before_attention(tokens)
        source = _other_view(normed) if across else normed
        key, value = self.key_value(source).chunk(2, dim=-1)
        query, key, value = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (self.query(normed), key, value)
        )
        bias = _other_view(unseen) if across else unseen
        looked = functional.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        tokens = tokens + self.mix(looked.transpose(1, 2).flatten(2))
        return tokens + self.down(functional.relu(self.up(self.before_feedforward(tokens)), inplace=True))


def _other_view(sequences: Tensor) -> Tensor:
    return sequences.unflatten(0, (2, -1)).flip(0).flatten(0, 1)


class InSynFormer(nn.Module):
    """The paper's network.

    Args:
        frames: Frames of a clip.
        width: Numbers in a token.
        heads: Heads of each attention layer.
        depth: Layers of TSA, and again of CVA.
        attention: ``tsa+cva``, or the paper's ablation ``mhsa``: twice ``depth`` layers of plain self-attention over
            the two views' clips, one after the other, each token with an embedding of its view.
        tokens: ``keypoints``: positions, their changes and scores; ``heatmaps``: rendered heatmaps, as in the paper.
        pixels: Side of a heatmap.
        reach: Largest number of whole frames.
        conditional: Whether tenths are conditioned on the whole frame (HXE) or independent of it (CE).
        whole_frames: Whether only whole frames are to be told, as in NTU-SYN and CMU-SYN.
    """

    def __init__(
        self,
        *,
        frames: int = 5,
        width: int = 32,
        heads: int = 1,
        depth: int = 4,
        attention: Literal["tsa+cva", "mhsa"] = "tsa+cva",
        tokens: Literal["keypoints", "heatmaps"] = "keypoints",
        pixels: int = 24,
        reach: int = 5,
        conditional: bool = True,
        whole_frames: bool = False,
    ) -> None:
        super().__init__()
        joints = len(CLIP_SKELETON)
        self.frames, self.attention, self.tokens, self.pixels = frames, attention, tokens, pixels
        self.embed = nn.Linear(6 if tokens == "keypoints" else pixels**2, width)
        self.joint_embedding = nn.Parameter(0.02 * torch.randn(joints, 1, width))
        self.time_embedding = nn.Parameter(0.02 * torch.randn(frames, width))
        if attention == "mhsa":
            self.view_embedding = nn.Parameter(0.02 * torch.randn(2, 1, 1, 1, width))
        self.layers = nn.ModuleList(AttentionLayer(width, heads) for _ in range(2 * depth))
        self.norm = nn.LayerNorm(width)
        self.conclude = nn.Sequential(nn.Linear(frames * width, width), nn.GELU())
        merge = nn.Linear(joints * width, 4 * width)
        # All joints weigh alike at first: what little each tells then adds up, and the noise does not.
        merge.weight.data = merge.weight.data[:, :width].repeat(1, joints)
        # Normalised, for with nothing else it dies in its first steps, when all it adds is noise.
        self.merge = nn.Sequential(merge, nn.LayerNorm(4 * width), nn.GELU())
        self.classify = IntervalHeads(4 * width, reach=reach, conditional=conditional, whole_frames=whole_frames)

    def forward(self, pairs: ClipPairs) -> IntervalLogits:
        """Classify B pairs of clips.

        Raises:
            ValueError: The clips are not of the length that the network was built for.
        """
        if pairs.xy.shape[2] != self.frames:
            raise ValueError(f"this network takes clips of {self.frames} frames, not of {pairs.xy.shape[2]}")
        seen = pairs.seen.permute(1, 0, 3, 2)  # (2, B, J, T), so that a view is a block of sequences
        tokens = self._embed(pairs)
        bias = torch.where(seen, 0.0, _UNSEEN).to(tokens.dtype)
        tokens = self._attend_jointly(tokens, bias) if self.attention == "mhsa" else self._attend(tokens, bias)
        present = seen.any(3).any(0)[..., None]  # a joint that neither view has tells nothing
        joints = self.conclude(self.norm(tokens).flatten(3)) * present
        first, second = self.merge(joints.flatten(2))
        return self.classify(first).plus(self.classify(second).swapped())

    def decide(self, output: IntervalLogits) -> Decision:
        """Say what the logits mean."""
        return decide(output)

    def _embed(self, pairs: ClipPairs) -> Tensor:
        """Return tokens (2, B, J, T, width)."""
        if self.tokens == "keypoints":
            content = keypoint_features(pairs)
        else:
            content = render_heatmaps(pairs, self.pixels).flatten(-2)
        return self.embed(content.permute(1, 0, 3, 2, 4)) + self.joint_embedding + self.time_embedding

    def _attend(self, tokens: Tensor, bias: Tensor) -> Tensor:
        shape = tokens.shape
        tokens, bias = tokens.flatten(0, 2), bias.flatten(0, 2)[:, None, None]
        for index, layer in enumerate(self.layers):
            tokens = layer(tokens, bias, across=index >= len(self.layers) // 2)
        return tokens.view(shape)

    def _attend_jointly(self, tokens: Tensor, bias: Tensor) -> Tensor:
        both = (tokens + self.view_embedding).permute(1, 2, 0, 3, 4)  # (B, J, 2, T, width)
        shape = both.shape
        both, bias = both.flatten(2, 3).flatten(0, 1), bias.permute(1, 2, 0, 3).flatten(2).flatten(0, 1)[:, None, None]
        for layer in self.layers:
            both = layer(both, bias)
        return both.view(shape).permute(2, 0, 1, 3, 4)
