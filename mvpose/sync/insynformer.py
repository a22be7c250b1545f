"""InSynFormer: the offset of two short clips of one person, by attention along each joint's time and across the views.

Liu et al., *Advancing Video Synchronization with Fractional Frame Analysis* (AAAI 2024). A token is one joint at one
moment in one view. Temporal self-attention (TSA, eq. 4) lets the tokens of a joint in a view look at each other,
cross-view attention (CVA, eq. 5) lets those of one view ask the other; a linear layer merges the joints.

**As the paper has it** (``reading="heads"``), three heads classify |offset|: whole frames (inter), the tenth within the
frame (intra), and which view is ahead (order). What it leaves open is chosen here: pre-norm layers with a feed-forward
part of twice the width; width 32, beyond which a CPU trains too few clips; both directions of CVA share their weights.

**As it ships** (``reading="lags"``), what CVA weighs its answers by, how well each moment of one view fits each of the
other, is itself the answer: the map between the moments of two views is read along its diagonals, one for each lag,
and a convolution over lags turns that into a density, a mixture of Gaussians with one component a lag, plus the chance
that the clips do not show the same moment at all. So the offset is continuous and has its uncertainty, clips may have
any length and frame rate, a view is encoded once for all it is compared with, and windows of a recording add up.

What makes either learn is that maps are of squared *distances* between the views' curves of moments, which begin as
what can be compared between views without learning anything, height and its change (calibrated rays: the angle about
the baseline); and that curves go on beyond the clip, for every fourth pair hardly overlaps. Auxiliary losses on the
same maps (``mvpose.sync.train.losses``) teach the paper's flow where to look.

Exchanging the views mirrors the answer exactly.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from mvpose.skeleton import CLIP_SKELETON
from mvpose.sync.answers import TENTHS, IntervalLogits, LagPosterior
from mvpose.sync.clips import ClipPairs, Decision
from mvpose.sync.moments import (
    FEATURES,
    MARGIN,
    STEP_S,
    Moments,
    body_coordinates,
    epipolar_coordinates,
    lay_out,
)

LAGS = 13
"""Lags to either side, in steps of the grid: 0.65 s."""

_JOINTS = len(CLIP_SKELETON)
_UNSEEN = -1e4  # added to attention scores; finite, so that a joint that is never seen yields no NaN
_LEAST_SIGMA, _MOST_SIGMA = 0.08, 3.0  # of a component, steps


@dataclass(frozen=True)
class Curves:
    """What becomes of one view of each pair: curves in time that are compared with another view's.

    Attributes:
        points: (B, C, d, G) C curves of d dimensions at the moments of the grid.
        spectra: (B, C, d + 2, frequencies) Fourier transforms of weight, weighted points, weighted square lengths.
        log_gain: (C,) how much each counts in the map between two views' moments.
        clip: The moments within the clip.
        length: G.
        step_s: Time between two moments.
    """

    points: Tensor
    spectra: Tensor
    log_gain: Tensor
    clip: slice
    length: int
    step_s: float

    def rows(self, index: slice | Tensor) -> Curves:
        """Return those of some of the pairs."""
        return replace(self, points=self.points[index], spectra=self.spectra[index])

    def spectra_alone(self) -> Curves:
        """Return what can be compared with other views, and nothing else: a third less."""
        return replace(self, points=self.points[..., :0])

    def scaled(self) -> Tensor:
        """Return all curves at each moment (B, G, C · d), by their gains."""
        return (self.points * (0.5 * self.log_gain).exp()[:, None, None]).permute(0, 3, 1, 2).flatten(2)


@dataclass(frozen=True)
class Reading:
    """What the network makes of B pairs.

    Attributes:
        answer: Of the offset.
        curves: Both views' curves that were compared, for the auxiliary losses; None without maps.
        frame_s: (B,) duration of a frame.
    """

    answer: LagPosterior | IntervalLogits
    curves: tuple[Curves, Curves] | None
    frame_s: Tensor


def distance_map(a: Tensor, b: Tensor) -> Tensor:
    """Return minus the squared distances (B, G, G) between a's moments (B, G, D), by rows, and b's."""
    return 2 * a @ b.transpose(1, 2) - a.square().sum(-1)[:, :, None] - b.square().sum(-1)[:, None]


class InSynFormer(nn.Module):
    """The network; see the module's docstring.

    Args:
        reading: ``lags``: a density over continuous offsets, by maps read along their diagonals; ``heads``: the paper's
            classes, for clips of ``frames`` frames at ``2 · step_s``.
        attention: ``tsa``: along time alone; ``tsa+cva``: and across views, as the paper's, whose results ``heads``
            classify, or which add curves of their own to what is read by lag; ``mhsa``, the paper's ablation: twice
            ``depth`` layers of plain self-attention over both views' clips, one after the other.
        maps: Whether there are curves and their map, which CVA's scores have as a bias; without, the paper's network.
        rays: Whether it compares calibrated rays rather than image coordinates.
        step_s: Spacing of the grid: half a frame of the slowest clips that matter.
        frames: Tokens of a clip, where they are classified.
        width: Numbers in a joint's token.
        heads: Heads of each attention layer of such tokens.
        depth: Layers of TSA, and again of CVA.
        reach: Largest number of whole frames that are classified.
        conditional: Whether tenths are conditioned on the whole frame (HXE) or independent of it (CE).
        whole_frames: Whether only whole frames are to be told, as in NTU-SYN and CMU-SYN.

    Raises:
        ValueError: These options do not go together.
    """

    def __init__(
        self,
        *,
        reading: Literal["lags", "heads"] = "lags",
        attention: Literal["tsa", "tsa+cva", "mhsa"] = "tsa",
        maps: bool = True,
        rays: bool = False,
        step_s: float = STEP_S,
        frames: int = 5,
        width: int = 32,
        heads: int = 2,
        depth: int = 2,
        reach: int = 5,
        conditional: bool = True,
        whole_frames: bool = False,
    ) -> None:
        super().__init__()
        if reading == "lags" and (not maps or attention == "mhsa"):
            raise ValueError("lags are read from maps of views that do not see each other before")
        if reading == "heads" and attention == "tsa":
            raise ValueError("heads classify what views have seen of each other, which TSA alone does not show them")
        self.rays, self.step_s, self.frames = rays, step_s, frames
        self.reading, self.attention = reading, attention
        self.embed = nn.Linear(FEATURES, width)
        self.joint_embedding = nn.Parameter(0.3 * torch.randn(_JOINTS, 1, width))
        self.body = _BodyTokens() if maps else None
        self.context = nn.Linear(_BodyTokens.width, _JOINTS * width) if maps else None
        joint = attention == "mhsa"
        self.tsa = nn.ModuleList(TimeLayer(width, heads) for _ in range(0 if joint else depth))
        self.norm = nn.LayerNorm(width)
        self.curves = _CurveHead(width, by_lag=reading == "lags") if maps else None
        self.view_embedding = nn.Parameter(0.3 * torch.randn(2, 1, 1, 1, width)) if joint else None
        across = {"tsa": 0, "tsa+cva": depth, "mhsa": 2 * depth}[attention]
        self.across = nn.ModuleList(TimeLayer(width, heads, guided=maps) for _ in range(across))
        self.second = _CurveHead(width, groups=8, layers=1, joints=False) if reading == "lags" and across else None
        if reading == "lags":
            heads_of_curves = [head for head in (self.curves, self.second) if head is not None]
            self.read = _LagReader(sum(3 * head.count + 1 for head in heads_of_curves))
        else:
            self.classify = _JointMerge(width, frames, reach=reach, conditional=conditional, whole_frames=whole_frames)

    def forward(self, pairs: ClipPairs) -> Reading:
        """Compare the clips of each pair; those in which nothing is seen get a wide posterior.

        Raises:
            ValueError: The clips are not of the length that is classified.
        """
        moments, tokens, body = self._tokens(pairs, None)
        curves = None if self.curves is None else self._curves(self.curves, moments, tokens, body)
        if self.reading == "heads" and tokens.shape[2] != self.frames:
            raise ValueError(f"this network takes clips of {self.frames} frames, not of {tokens.shape[2]}")
        both = [] if curves is None else [curves]
        if len(self.across):
            tokens = self._look_across(tokens, moments, curves)
            if self.second is not None:
                both.append(self._curves(self.second, moments, tokens, body))
        if self.reading == "heads":
            seen = moments.known[:, moments.clip].any(1).unflatten(0, (-1, 2)).any(1)
            return Reading(self.classify(self.norm(tokens), seen), curves, pairs.frame_s)
        answer = self._read([a for a, _ in both], [b for _, b in both], pairs.frame_s)
        return Reading(answer, curves, pairs.frame_s)

    @staticmethod
    def decide(reading: Reading) -> Decision:
        """Say what a reading means."""
        return reading.answer.decide()

    @property
    def longest_lag_s(self) -> float:
        """The largest offset that lags are read at."""
        return LAGS * self.step_s

    def encode(self, pairs: ClipPairs, duration_s: float | None = None) -> tuple[Curves, Curves]:
        """Return both views' curves; without rays a view's do not depend on the other view.

        Args:
            pairs: The clips.
            duration_s: How long they last; by default as long as the longest. Curves of one duration can be compared.

        Raises:
            ValueError: This network's views see each other before they are compared.
        """
        if self.curves is None or len(self.across):
            raise ValueError("views of this network cannot be encoded one by one")
        a, b = self._curves(self.curves, *self._tokens(pairs, duration_s))
        return a.spectra_alone(), b.spectra_alone()

    def compare(self, a: Curves, b: Curves, frame_s: Tensor) -> LagPosterior:
        """Return the posterior (B,) of the offset between two views' curves; one of a may meet many of b.

        Args:
            a: The first view's curves.
            b: The second view's.
            frame_s: (B,) duration of a frame.
        """
        return self._read([a], [b], frame_s)

    def _tokens(self, pairs: ClipPairs, duration_s: float | None) -> tuple[Moments, Tensor, Tensor | None]:
        """Return views on the grid, joints' tokens (2B, J, n, width) after TSA, bodies' tokens (2B, N, W) before."""
        with torch.no_grad(), torch.autocast(pairs.xy.device.type, enabled=False):
            xy = epipolar_coordinates(pairs) if self.rays else body_coordinates(pairs)
            duration_s = float(pairs.time_s.max()) if duration_s is None else duration_s
            moments = lay_out(xy, pairs, duration_s, self.step_s)
            unseen = _unseen(moments).flatten(0, 1)[:, None, None]
        own = moments.features[:, moments.clip_tokens].transpose(1, 2)
        tokens = self.embed(own) + self.joint_embedding
        body = None
        if self.body is not None and self.context is not None:
            body = self.body(moments)
            context = self.context(body[:, moments.clip_tokens]).unflatten(-1, (_JOINTS, -1))
            tokens = tokens + context.transpose(1, 2)
        shape = tokens.shape
        tokens = tokens.flatten(0, 1)
        for layer in self.tsa:
            tokens = layer(tokens, unseen)
        return moments, tokens.view(shape), body

    def _curves(self, head: _CurveHead, moments: Moments, tokens: Tensor, body: Tensor | None) -> tuple[Curves, Curves]:
        assert body is not None
        points, spectra = head(moments, self.norm(tokens), body)
        (a, b), (of_a, of_b) = (part.unflatten(0, (-1, 2)).unbind(1) for part in (points, spectra))
        known = (head.log_gain, moments.clip, points.shape[-1], self.step_s)
        return Curves(a, of_a, *known), Curves(b, of_b, *known)

    def _look_across(self, tokens: Tensor, moments: Moments, curves: tuple[Curves, Curves] | None) -> Tensor:
        """Let tokens (2B, J, n, width) look at the other view's, or at both views' at once."""
        unseen = _unseen(moments).unflatten(0, (-1, 2))  # (B, 2, J, n)
        x = tokens.unflatten(0, (-1, 2))
        guide = None
        if curves is not None:
            whole = distance_map(*(one.scaled()[:, one.clip][:, ::2] for one in curves))
            guide = torch.stack([whole, whole.transpose(1, 2)], dim=1)[:, :, None]  # (B, 2, 1, n, n)
        if self.view_embedding is None:
            other = unseen.flip(1).flatten(0, 2)[:, None, None]
            guide = None if guide is None else guide.expand(-1, -1, _JOINTS, -1, -1).flatten(0, 2)
            for layer in self.across:
                x = layer(x.flatten(0, 2), other, x.flip(1).flatten(0, 2), guide).view(x.shape)
            return x.flatten(0, 1)
        x = (x.transpose(0, 1) + self.view_embedding).permute(1, 2, 0, 3, 4)  # (B, J, 2, n, width)
        shape, count = x.shape, x.shape[3]
        mask = unseen.transpose(1, 2).flatten(2).flatten(0, 1)[:, None, None]
        if guide is not None:
            nothing = torch.zeros_like(guide[:, 0])
            rows = [torch.cat([nothing, guide[:, 0]], -1), torch.cat([guide[:, 1], nothing], -1)]
            guide = torch.cat(rows, -2).expand(-1, _JOINTS, -1, -1).flatten(0, 1)
        x = x.flatten(2, 3).flatten(0, 1)
        for layer in self.across:
            x = layer(x, mask, None, guide, views=2)
        return x.view(shape).transpose(1, 2).reshape(-1, _JOINTS, count, shape[-1])

    def _read(self, a: list[Curves], b: list[Curves], frame_s: Tensor) -> LagPosterior:
        with torch.autocast(frame_s.device.type, enabled=False):
            features = torch.cat([_by_lag(one, other) for one, other in zip(a, b, strict=True)], dim=1)
        return self.read(features, frame_s, self.step_s)


def _unseen(moments: Moments) -> Tensor:
    """Return what is added to the scores of the clip's tokens as keys, (V, J, n)."""
    known = moments.known[:, moments.clip][:, ::2].transpose(1, 2)
    return torch.where(known, 0.0, _UNSEEN)


class TimeLayer(nn.Module):
    """Attention over tokens of a sequence in time, then a feed-forward part, each added to what there was.

    Scores have a learnt bias for the distance in time (as Press et al. 2022), and what is looked at tells how far away
    it is (as Shaw et al. 2018): only so do attention's values say *when* the other view was alike.
    """

    def __init__(self, width: int, heads: int, *, guided: bool = False, reach: int = 8) -> None:
        super().__init__()
        self.heads, self.reach = heads, reach
        self.before_attention, self.before_feedforward = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query = nn.Linear(width, width, bias=False)
        self.key_value = nn.Linear(width, 2 * width, bias=False)
        self.mix = nn.Linear(width, width, bias=False)
        self.up, self.down = nn.Linear(width, 2 * width, bias=False), nn.Linear(2 * width, width, bias=False)
        for linear in (self.query, self.key_value, self.up):
            nn.init.normal_(linear.weight, std=linear.in_features**-0.5)
        for linear in (self.mix, self.down):
            nn.init.zeros_(linear.weight)
        slopes = torch.linspace(0.0, 0.5, heads)
        self.distance = nn.Parameter(-slopes[:, None] * torch.arange(-reach, reach + 1).abs())
        self.when = nn.Parameter(0.3 * torch.randn(heads, 2 * reach + 1, width // heads))
        self.guided = nn.Parameter(torch.full((heads, 1, 1), 0.5)) if guided else None

    def forward(
        self,
        tokens: Tensor,
        unseen: Tensor | None = None,
        source: Tensor | None = None,
        guide: Tensor | None = None,
        views: int = 1,
    ) -> Tensor:
        """Let tokens look at those of their own sequence, or at others.

        Args:
            tokens: (n, S, width).
            unseen: (n, 1, 1, S) what is added to the scores of each token as a key.
            source: (n, S, width) whose keys and values are looked at, in place of the tokens' own.
            guide: (n, S, S) what is added to all scores, by a learnt factor.
            views: How many sequences of equal times follow one another in S.
        """
        normed = self.before_attention(tokens)
        seen = normed if source is None else self.before_attention(source)
        query = self.query(normed).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        key, value = self.key_value(seen).unflatten(-1, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        time = torch.arange(tokens.shape[1] // views, device=tokens.device).repeat(views)
        apart = (time[None] - time[:, None]).clamp(-self.reach, self.reach) + self.reach
        score = (query @ key.transpose(-1, -2)) * query.shape[-1] ** -0.5 + self.distance[:, apart]
        if unseen is not None:
            score = score + unseen
        if guide is not None and self.guided is not None:
            score = score + self.guided * guide[:, None]
        weight = score.softmax(-1)
        looked = weight @ value + torch.einsum("nhst,hstd->nhsd", weight, self.when[:, apart])
        tokens = tokens + self.mix(looked.transpose(1, 2).flatten(2))
        return tokens + self.down(F.gelu(self.up(self.before_feedforward(tokens))))


class _BodyTokens(nn.Module):
    """One token for a whole body at every other moment of the grid, from its joints then and just before and after."""

    width = 128

    def __init__(self) -> None:
        super().__init__()
        self.plain = nn.Linear(FEATURES * _JOINTS, self.width)
        self.bent = nn.Sequential(
            nn.Linear(3 * FEATURES * _JOINTS, 2 * self.width), nn.GELU(), nn.Linear(2 * self.width, self.width)
        )

    def forward(self, moments: Moments) -> Tensor:
        """Return tokens (V, N, width)."""
        features = moments.features.flatten(2)
        around = F.pad(features, (0, 0, 1, 1))
        return self.plain(features) + self.bent(torch.cat([around[:, :-2], features, around[:, 2:]], dim=-1))


class _CurveHead(nn.Module):
    """Turns a view into curves: of the whole body, and of each joint.

    A curve is a linear map of the body's coordinates and velocities, which so far only knows that heights can be
    compared between views and what is across can not, plus what layers over the body's tokens add. Beyond the clip
    the body is carried on by its velocity, by learnt shares.
    """

    def __init__(
        self,
        width: int,
        *,
        groups: int = 16,
        dimensions: int = 4,
        layers: int = 3,
        joints: bool = True,
        by_lag: bool = True,
    ) -> None:
        super().__init__()
        body = _BodyTokens.width
        self.groups, self.dimensions = groups, dimensions
        self.count = groups + _JOINTS * joints
        self.merge = nn.Linear(_JOINTS * width, body)
        self.beyond = nn.Parameter(0.1 * torch.randn(2, MARGIN // 2 + 1, body))
        self.layers = nn.ModuleList(TimeLayer(body, 4) for _ in range(layers))
        self.norm = nn.LayerNorm(body)
        self.bend = _small(nn.Linear(body, 2 * groups * dimensions), 0.2)
        self.place, self.velocity = (
            _heights_first(nn.Linear(2 * _JOINTS, groups * dimensions, bias=False)) for _ in range(2)
        )
        steps = torch.arange(MARGIN + 2)
        self.carry = nn.Parameter((2 * (1 - torch.exp(-steps / 4)))[:, None].repeat(1, groups))
        self.fade = nn.Parameter((-0.5 * steps - 0.5 * (steps > 0))[:, None].repeat(1, self.count)) if by_lag else None
        self.precision = _small(nn.Linear(body, 2 * groups), 0.0) if by_lag else None
        # A second head's views have seen each other: its map is no guide, and teaches nothing.
        self.log_gain = nn.Parameter(
            torch.cat([torch.zeros(groups), torch.full((self.count - groups,), -1.5)]), requires_grad=joints
        )
        self.of_joints = _JointCurves(width, body, dimensions) if joints else None

    def forward(self, moments: Moments, tokens: Tensor, body: Tensor) -> tuple[Tensor, Tensor]:
        """Return points (V, C, d, G) and spectra (V, C, d + 2, frequencies), empty if they are not read by lag."""
        clip, count = moments.clip_tokens, body.shape[1]
        around = (0, 0, clip.start, count - clip.stop)
        joined = F.pad(self.merge(tokens.transpose(1, 2).flatten(2)), around)
        outside = moments.beyond[::2].add(1).div(2, rounding_mode="floor").clamp(max=MARGIN // 2)
        where = torch.where((moments.side[::2] < 0)[:, None], self.beyond[0, outside], self.beyond[1, outside])
        h = body + joined + where
        for layer in self.layers:
            h = layer(h)
        h = self.norm(h)
        path, velocity = moments.path, 2 * moments.velocity
        curve = _both_moments(self.bend(h)) + self.place(path.flatten(2)) + self.velocity(velocity.flatten(2))
        carried = self.place(moments.velocity.flatten(2)).unflatten(-1, (self.groups, -1))
        ahead = self.carry[moments.beyond] * moments.side[:, None]
        points = curve.unflatten(-1, (self.groups, -1)) + carried * ahead[..., None]
        log_weights = [] if self.precision is None else [_both_moments(self.precision(h))]
        if self.of_joints is not None:
            of_joint, joint_weight = self.of_joints(moments, F.pad(tokens, around), h)
            points = torch.cat([points, of_joint], 2)
            log_weights.append(joint_weight)
        points = points.permute(0, 2, 3, 1).float()
        if self.fade is None:  # nobody reads them by lag
            return points, points[..., :0]
        log_weight = torch.cat(log_weights, -1)
        weight = (self.fade[moments.beyond] + log_weight).float().clamp(max=8).exp().transpose(1, 2)[:, :, None]
        square = points.square().sum(2, keepdim=True)
        return points, _spectrum(torch.cat([weight, weight * points, weight * square], dim=2))


class _JointCurves(nn.Module):
    """Turns each joint into a curve of its own, which begins as its height, its change, and a little of the rest."""

    def __init__(self, width: int, body: int, dimensions: int) -> None:
        super().__init__()
        self.of_token = _small(nn.Linear(width, 2 * (dimensions + 1)), 0.05)
        self.of_body = _small(nn.Linear(body, 2 * _JOINTS * (dimensions + 1)), 0.05)
        start = torch.zeros(_JOINTS, dimensions, 4)
        for dimension, (source, size) in enumerate([(1, 1.0), (3, 1.0), (0, 0.2), (2, 0.2)][:dimensions]):
            start[:, dimension, source] = size
        self.plain = nn.Parameter(start + 0.05 * torch.randn_like(start))

    def forward(self, moments: Moments, tokens: Tensor, body: Tensor) -> tuple[Tensor, Tensor]:
        """Return points (V, G, J, d) and log-weights (V, G, J), from tokens (V, J, N, width) and (V, N, W)."""
        bent = _both_moments(self.of_body(body)).unflatten(-1, (_JOINTS, -1))
        bent = bent + self.of_token(tokens).unflatten(-1, (2, -1)).flatten(2, 3).transpose(1, 2)
        own = torch.cat([moments.path, 2 * moments.velocity], dim=-1)
        points = torch.einsum("vgjc,jdc->vgjd", own, self.plain) + bent[..., :-1]
        ever = moments.known.any(1, keepdim=True).float()
        there = moments.known.float() * (moments.beyond == 0)[:, None]
        return points, bent[..., -1].clamp(-4, 4) + (there + 0.1 * ever + 0.01).log()


def _small(linear: nn.Linear, size: float) -> nn.Linear:
    """Start a layer with outputs of about a size, and no bias."""
    nn.init.normal_(linear.weight, std=size * linear.in_features**-0.5)
    nn.init.zeros_(linear.bias)
    return linear


def _heights_first(linear: nn.Linear) -> nn.Linear:
    """Start a map of joints' coordinates with the second ones, which views share, ten times as large as the first."""
    with torch.no_grad():
        weight = linear.weight.normal_(std=0.15).view(-1, _JOINTS, 2)
        weight[..., 0] *= 0.2
        weight[..., 1] *= 2
    return linear


def _both_moments(of_tokens: Tensor) -> Tensor:
    """Turn what is said of tokens (V, N, 2n) into what is said of moments (V, 2N, n)."""
    return of_tokens.unflatten(-1, (2, -1)).flatten(1, 2)


def _by_lag(a: Curves, b: Curves) -> Tensor:
    """Read the map between two views along its diagonals: features (B, 3C + 1, L).

    Of each curve the weighted mean squared distance at each lag, and how much weight met there; and the former without
    the mean difference, for a detector's bias stays for longer than a clip; and all of these by their weight.
    """
    dimensions = a.spectra.shape[2] - 2
    one_a, at_a, square_a = a.spectra.conj().split([1, dimensions, 1], dim=2)
    one_b, at_b, square_b = b.spectra.split([1, dimensions, 1], dim=2)
    square = one_a * square_b + square_a * one_b - 2 * (at_a * at_b).sum(2, keepdim=True)
    sums = _over_lags(torch.cat([one_a * one_b, square, at_a * one_b - one_a * at_b], dim=2), a.length)
    weight, square, first = sums.split([1, 1, dimensions], dim=2)
    met = weight[:, :, 0].clamp(min=0)
    total = met.clamp(min=1e-3)
    square = square[:, :, 0].clamp(min=0)
    steady = (square - first.square().sum(2) / total).clamp(min=0) / total
    evidence = 0.05 * ((steady + 0.01).log() * met).mean(1, keepdim=True)
    return torch.cat(
        [0.5 * (square / total + 0.02).log(), 0.3 * (met + 1e-3).log(), 0.5 * (steady + 0.01).log(), evidence], dim=1
    )


def _spectrum(signal: Tensor) -> Tensor:
    """Return the Fourier transform of signals (..., G), padded so that lags do not wrap round."""
    return torch.fft.rfft(signal, _padded(signal.shape[-1]))


def _over_lags(product: Tensor, length: int) -> Tensor:
    """Turn products of spectra, the first conjugated, into ``Σ_t a(t) b(t + lag)`` (..., L) at lags −n … n."""
    sums = torch.fft.irfft(product, _padded(length))
    return torch.cat([sums[..., -LAGS:], sums[..., : LAGS + 1]], dim=-1)


def _padded(length: int) -> int:
    return -(-(length + LAGS) // 16) * 16  # a multiple of 16 transforms fast


class _LagReader(nn.Module):
    """Turns what maps say of each lag into a density, by convolutions over lags in both directions."""

    def __init__(self, channels: int, width: int = 64) -> None:
        super().__init__()
        self.over_lags = nn.ModuleList(nn.Conv1d(channels if i == 0 else width, width, 5, padding=2) for i in range(3))
        self.distance = nn.Parameter(torch.zeros(1, width, LAGS + 1))
        self.density = nn.Conv1d(width, 3, 1)
        self.unrelated = nn.Linear(width, 1)
        with torch.no_grad():
            self.density.weight.mul_(0.3)

    def forward(self, features: Tensor, frame_s: Tensor, step_s: float) -> LagPosterior:
        """Return the posterior, from features (B, C, L)."""
        (logit, shift, size), unrelated = self._judge(features)
        (logit_back, shift_back, size_back), unrelated_back = self._judge(features.flip(-1))
        log_weight = torch.log_softmax(
            torch.cat([logit + logit_back.flip(-1), unrelated + unrelated_back], dim=1) / 2, dim=1
        )
        middle = math.log(_LEAST_SIGMA * _MOST_SIGMA) / 2
        reach = math.log(_MOST_SIGMA / _LEAST_SIGMA) / 2
        lags = torch.arange(-LAGS, LAGS + 1, device=features.device)
        return LagPosterior(
            log_weight[:, :-1],
            step_s * (lags + 1.5 * torch.tanh((shift - shift_back.flip(-1)) / 2)),
            step_s * (middle + reach * torch.tanh((size + size_back.flip(-1)) / 2)).exp(),
            log_weight[:, -1],
            frame_s,
            LAGS * step_s,
        )

    def _judge(self, features: Tensor) -> tuple[tuple[Tensor, Tensor, Tensor], Tensor]:
        """Turn features (B, C, L) into logit, shift and size (B, L) each, and a logit (B, 1) of no relation."""
        away = torch.cat([self.distance[..., 1:].flip(-1), self.distance], dim=-1)
        first, *more = self.over_lags
        h = F.gelu(first(features) + away)
        for layer in more:
            h = h + F.gelu(layer(h))
        logit, shift, size = self.density(h).float().unbind(1)
        return (logit, shift, size), self.unrelated(h.amax(-1)).float()


class _JointMerge(nn.Module):
    """The paper's end: each joint is concluded over its frames, a linear layer merges the joints, heads classify."""

    def __init__(self, width: int, frames: int, *, reach: int, conditional: bool, whole_frames: bool) -> None:
        super().__init__()
        self.conclude = nn.Sequential(nn.Linear(frames * width, width), nn.GELU())
        merge = nn.Linear(_JOINTS * width, 4 * width)
        # All joints weigh alike at first: what little each tells then adds up, and the noise does not.
        merge.weight.data = merge.weight.data[:, :width].repeat(1, _JOINTS)
        # Normalised, for with nothing else it dies in its first steps, when all it adds is noise.
        self.merge = nn.Sequential(merge, nn.LayerNorm(4 * width), nn.GELU())
        self.heads = IntervalHeads(4 * width, reach=reach, conditional=conditional, whole_frames=whole_frames)

    def forward(self, tokens: Tensor, seen: Tensor) -> IntervalLogits:
        """Classify tokens (2B, J, n, width); a joint that neither view has, of seen (B, J), tells nothing."""
        joints = self.conclude(tokens.flatten(2)).unflatten(0, (-1, 2)) * seen[:, None, :, None]
        first, second = self.merge(joints.flatten(2)).unbind(1)
        answer: IntervalLogits = self.heads(first).plus(self.heads(second).swapped())
        return answer


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
