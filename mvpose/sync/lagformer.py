"""LagFormer: two views' posture over time compared at every lag; a continuous offset with its uncertainty.

It lifts what the paper's InSynFormer leaves open. Its encoder is a Transformer too, over time tokens of the whole body
with weights that both views share, but it emits an embedding *curve* on a time grid that reaches beyond the clip on
either side. The two curves are correlated over all lags, which is what attention alone learns slowly, geometry adds
what it knows at each lag, and a small convolution over lags turns all that into a density: a mixture of Gaussians with
one component a lag, plus the chance that the clips do not show the same moment at all. Any clip length and frame rate
will do, since frames enter at their times; log-likelihood ratios of many windows add up over a recording.

What geometry knows of a lag without a calibration: under an affine camera the stacked coordinates (x_a, y_a, x_b, y_b)
of all joints at all common moments span three dimensions if the moments are the same ones (Tomasi & Kanade 1992;
Tresadern & Reid 2009 synchronise by it), so the smallest eigenvalue of their covariance is small. With one (``rays``):
a point and the two optical centres span a plane that turns about the baseline by the same angle in both views.

Exchanging the views mirrors the density exactly.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from mvpose.skeleton import CLIP_SKELETON
from mvpose.sync.clips import ClipPairs, Decision

STEP_S = 0.05
"""Spacing of the time grid and of the lags; human motion has little above 6 Hz."""

MARGIN_S = 0.6
"""How far an embedding curve reaches beyond its clip: with less, clips side by side could not be compared."""

LONGEST_LAG_S = 0.65
UNRELATED_SHARE = 0.2  # of the pairs that LagFormer is trained on
_PATCH = 2  # grid points in one token
_FURTHEST_M = 6.0  # coordinates of rays further from the body than this are clipped
_LEAST_SIGMA_S, _MOST_SIGMA_S = 0.004, 0.15
_CHANCE = 1e-3  # share of a uniform density over the lags: no single window may rule an offset out for good


@dataclass(frozen=True)
class LagPosterior:
    """What is believed of the offset of each pair: a mixture of Gaussians, or no relation.

    Attributes:
        log_weight: (B, L) log-probability of each component; with ``log_unrelated`` they sum to one.
        mean_s: (B, L) their offsets, ``t_b = t_a + offset``.
        sigma_s: (B, L) their standard deviations.
        log_unrelated: (B,) log-probability that the clips do not show the same moment.
        frame_s: (B,) duration of a frame, for decisions in frames.
    """

    log_weight: Tensor
    mean_s: Tensor
    sigma_s: Tensor
    log_unrelated: Tensor
    frame_s: Tensor

    def log_density(self, offset_s: Tensor) -> Tensor:
        """Return log p(related, offset), per second, at offsets (B, n)."""
        z = (offset_s[:, :, None] - self.mean_s[:, None]) / self.sigma_s[:, None]
        log_normal = -0.5 * z**2 - self.sigma_s.log()[:, None] - 0.5 * math.log(2 * math.pi)
        density = torch.logsumexp(self.log_weight[:, None] + log_normal, dim=-1)
        related = torch.log1p(-self.log_unrelated.exp().clamp(max=1 - 1e-6))
        floor = math.log(_CHANCE / (2 * LONGEST_LAG_S))
        return torch.logaddexp(density + math.log1p(-_CHANCE), related[:, None] + floor)

    def log_likelihood_ratio(self, offset_s: Tensor) -> Tensor:
        """Return log p(clips | offset) / p(clips | unrelated) at offsets (B, n), nats: what windows add up."""
        prior = math.log(UNRELATED_SHARE / (1 - UNRELATED_SHARE)) + math.log(2 * LONGEST_LAG_S)
        return self.log_density(offset_s) - self.log_unrelated[:, None].clamp(min=math.log(_CHANCE)) + prior

    def mass(self, edges_s: Tensor) -> Tensor:
        """Return the probability (B, n) between consecutive edges (B, n + 1), given that the clips are related."""
        z = (edges_s[:, :, None] - self.mean_s[:, None]) / self.sigma_s[:, None]
        below = torch.special.ndtr(z)
        weight = torch.softmax(self.log_weight, dim=-1)
        return ((below[:, 1:] - below[:, :-1]) * weight[:, None]).sum(-1)


class LagFormer(nn.Module):
    """The network; see the module's docstring.

    Args:
        rays: Whether it compares calibrated rays rather than image coordinates.
        width: Channels of the encoder.
        depth: Its layers.
        heads: Attention heads.
        groups: Embedding curves that are correlated, each the sum over ``dimensions`` channels.
        dimensions: Channels of a curve.
        lag_width: Channels of the convolutions over lags.
    """

    def __init__(
        self,
        *,
        rays: bool = False,
        width: int = 128,
        depth: int = 4,
        heads: int = 4,
        groups: int = 32,
        dimensions: int = 4,
        lag_width: int = 96,
    ) -> None:
        super().__init__()
        joints = len(CLIP_SKELETON)
        self.rays, self.groups = rays, groups
        self.lag_count = round(LONGEST_LAG_S / STEP_S)
        self.embed = nn.Linear(7 * joints * _PATCH, width)
        self.layers = nn.ModuleList(_TimeLayer(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.curves = nn.Linear(width, groups * dimensions * _PATCH)
        self.gain = nn.Parameter(torch.full((groups,), 0.1))
        known = joints + 6 if rays else 7
        self.over_lags = nn.ModuleList(
            nn.Conv1d(groups + known if i == 0 else lag_width, lag_width, 5, padding=2) for i in range(3)
        )
        self.distance = nn.Parameter(torch.zeros(1, lag_width, self.lag_count + 1))
        self.density = nn.Conv1d(lag_width, 3, 1)
        self.unrelated = nn.Linear(lag_width, 1)

    @property
    def lags_s(self) -> Tensor:
        """(L,) the lags that curves are correlated at."""
        return torch.arange(-self.lag_count, self.lag_count + 1, device=self.distance.device) * STEP_S

    def forward(self, pairs: ClipPairs) -> LagPosterior:
        """Return the posterior of each pair; clips in which nothing is seen get a wide one."""
        return self.compare(*self.encode(pairs), pairs.frame_s)

    def encode(self, pairs: ClipPairs, duration_s: float | None = None) -> tuple[Curves, Curves]:
        """Return both views' curves; without rays a view's do not depend on the other view.

        Args:
            pairs: The clips.
            duration_s: How long they last; by default as long as the longest. Curves of one duration can be compared.
        """
        with torch.no_grad(), torch.autocast(pairs.xy.device.type, enabled=False):
            xy = _epipolar_coordinates(pairs) if self.rays else _body_coordinates(pairs)
            track = _on_grid(xy, pairs, float(pairs.time_s.max()) if duration_s is None else duration_s)
            moments = _spectrum(_angle_moments(track) if self.rays else _place_moments(track), self.lag_count)
        h = self.embed(track.tokens())
        for layer in self.layers:
            h = layer(h)
        embedding = self.curves(self.norm(h)).float().unflatten(-1, (_PATCH, self.groups, -1))
        embedding = embedding.flatten(1, 2).permute(0, 2, 3, 1).unflatten(0, (-1, 2))  # (B, 2, groups, dimensions, G)
        length = embedding.shape[-1]
        spectra = _spectrum(embedding, self.lag_count)
        return Curves(spectra[:, 0], moments[:, 0], length), Curves(spectra[:, 1], moments[:, 1], length)

    def compare(self, a: Curves, b: Curves, frame_s: Tensor) -> LagPosterior:
        """Return the posterior (B,) of the offset between two views' curves; one of a may meet many of b.

        Args:
            a: The first view's curves.
            b: The second view's.
            frame_s: (B,) duration of a frame.
        """
        with torch.no_grad(), torch.autocast(frame_s.device.type, enabled=False):
            known = (_plane_agreement if self.rays else _rank)(a, b, self.lag_count)
        product = (a.embedding.conj() * b.embedding).sum(2)
        alike = _over_lags(product, a.length, self.lag_count) * self.gain[:, None]
        features = torch.cat([alike, known], dim=1)
        (logit, shift, width), unrelated = self._judge(features)
        (logit_back, shift_back, width_back), unrelated_back = self._judge(features.flip(-1))
        log_weight = torch.log_softmax(
            torch.cat([logit + logit_back.flip(-1), unrelated + unrelated_back], dim=1) / 2, dim=1
        )
        middle = math.log(_LEAST_SIGMA_S * _MOST_SIGMA_S) / 2
        reach = math.log(_MOST_SIGMA_S / _LEAST_SIGMA_S) / 2
        return LagPosterior(
            log_weight[:, :-1],
            self.lags_s + 1.5 * STEP_S * torch.tanh((shift - shift_back.flip(-1)) / 2),
            (middle + reach * torch.tanh((width + width_back.flip(-1)) / 2)).exp(),
            log_weight[:, -1],
            frame_s,
        )

    def _judge(self, features: Tensor) -> tuple[tuple[Tensor, Tensor, Tensor], Tensor]:
        """Turn features (B, C, L) into logit, shift and width (B, L) each, and a logit (B, 1) of no relation."""
        away = torch.cat([self.distance[..., 1:].flip(-1), self.distance], dim=-1)
        first, *more = self.over_lags
        h = F.gelu(first(features) + away)
        for layer in more:
            h = h + F.gelu(layer(h))
        logit, shift, width = self.density(h).float().unbind(1)
        return (logit, shift, width), self.unrelated(h.amax(-1)).float()

    @staticmethod
    def decide(posterior: LagPosterior) -> Decision:
        """Return the likeliest whole frame, its likeliest tenth, and the median with the standard deviation."""
        tenths = torch.arange(-60, 61, device=posterior.frame_s.device) / 10
        mass = posterior.mass(tenths * posterior.frame_s[:, None])  # (B, 120)
        mass = mass / mass.sum(-1, keepdim=True).clamp(min=1e-9)
        folded = (mass[:, 60:] + mass[:, :60].flip(-1)).unflatten(-1, (6, 10))
        ex = folded.sum(-1).argmax(-1)
        tenth = folded[torch.arange(len(ex), device=ex.device), ex].argmax(-1)
        below = mass.cumsum(-1)
        cell = (below < 0.5).sum(-1, keepdim=True).clamp(max=119)
        within = (0.5 - (below - mass).gather(1, cell)) / mass.gather(1, cell).clamp(min=1e-9)
        median = tenths[cell[:, 0]] + 0.1 * within[:, 0].clamp(0, 1)
        # The spread of the whole density, not of its share below six frames alone.
        frame_s = posterior.frame_s[:, None]
        square = posterior.sigma_s**2 + (posterior.mean_s - median[:, None] * frame_s) ** 2
        variance = (torch.softmax(posterior.log_weight, dim=-1) * square).sum(-1)
        return Decision(ex, tenth, median, variance.sqrt() / posterior.frame_s)


class _TimeLayer(nn.Module):
    """Self-attention over time tokens with a learnt bias for their distance (as Press et al. 2022), then an MLP."""

    def __init__(self, width: int, heads: int, reach: int = 32) -> None:
        super().__init__()
        self.heads, self.reach = heads, reach
        self.norm_attention, self.norm_mlp = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        slopes = torch.linspace(0.02, 1.0, heads)
        self.bias = nn.Parameter(-slopes[:, None] * torch.arange(-reach, reach + 1).abs())

    def forward(self, x: Tensor) -> Tensor:
        count = x.shape[1]
        q, k, v = self.qkv(self.norm_attention(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        index = torch.arange(count, device=x.device)
        apart = (index[None] - index[:, None]).clamp(-self.reach, self.reach) + self.reach
        weight = torch.softmax(q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5 + self.bias[:, apart].to(q.dtype), dim=-1)
        x = x + self.out((weight @ v).transpose(1, 2).flatten(2))
        return x + self.mlp(self.norm_mlp(x))


def lag_loss(posterior: LagPosterior, offset_frames: Tensor) -> Tensor:
    """Return the mean negative log-likelihood of the true offsets (B,), frames; NaN says that a pair is unrelated."""
    offset = (offset_frames * posterior.frame_s)[:, None]
    related = torch.isfinite(offset)
    log_density = posterior.log_density(torch.where(related, offset, 0.0))
    return -torch.where(related, log_density, posterior.log_unrelated[:, None]).mean()


@dataclass(frozen=True)
class GridTrack:
    """Joints of both views on one time grid that reaches beyond the clips.

    Attributes:
        xy: (B, 2, G, J, 2) coordinates, 0 where unknown.
        known: (B, 2, G, J) 1 where they are, else 0.
        score: (B, 2, G, J) the detector's confidence, 0 where unknown.
    """

    xy: Tensor
    known: Tensor
    score: Tensor

    def tokens(self) -> Tensor:
        """Return the encoder's input (2B, G/patch, patch · 7J): coordinates, velocities, what is known, scores."""
        moving = F.pad(self.known[:, :, 2:] * self.known[:, :, :-2], (0, 0, 1, 1))
        velocity = 3 * F.pad(self.xy[:, :, 2:] - self.xy[:, :, :-2], (0, 0, 0, 0, 1, 1)) * moving[..., None]
        channels = torch.cat([self.xy.flatten(3), velocity.flatten(3), self.known, moving, self.score], dim=-1)
        return channels.flatten(0, 1).unflatten(1, (-1, _PATCH)).flatten(2)


@dataclass(frozen=True)
class Curves:
    """What the encoder makes of a view of each pair, as spectra: compared with many others, they are wanted once.

    Attributes:
        embedding: (B, groups, dimensions, frequencies) of the embedding curves.
        moments: (B, n, J, frequencies) of what geometry compares.
        length: Points of the time grid.
    """

    embedding: Tensor
    moments: Tensor
    length: int

    def rows(self, index: slice) -> Curves:
        """Return those of some of the pairs."""
        return Curves(self.embedding[index], self.moments[index], self.length)


def _on_grid(xy: Tensor, pairs: ClipPairs, duration_s: float) -> GridTrack:
    """Put clips (B, 2, T, J, 2), NaN where missing, on the grid: interpolated linearly, or averaged over a step."""
    seen = torch.isfinite(xy).all(-1)
    margin = round(MARGIN_S / STEP_S)
    count = math.ceil(duration_s / STEP_S - 1e-3) + 2 * margin + 1
    grid = (torch.arange(count + count % _PATCH, device=xy.device) - margin) * STEP_S
    reach = (pairs.time_s[..., -1] / (pairs.time_s.shape[-1] - 1)).clamp(min=STEP_S)
    hat = (1 - (grid[:, None] - pairs.time_s[:, :, None]).abs() / reach[..., None, None]).clamp(min=0)  # (B, 2, G, T)
    weighted = torch.cat([torch.where(seen[..., None], xy, 0.0).flatten(3), seen, pairs.score * seen], dim=-1)
    xy_sum, weight, score_sum = (hat @ weighted).split([2 * seen.shape[-1], seen.shape[-1], seen.shape[-1]], dim=-1)
    known = weight > 0.05
    total = weight.clamp(min=1e-6)
    return GridTrack(
        torch.where(known[..., None], xy_sum.unflatten(-1, (-1, 2)) / total[..., None], 0.0),
        known.float(),
        torch.where(known, score_sum / total, 0.0),
    )


def _body_coordinates(pairs: ClipPairs) -> Tensor:
    """Return image coordinates (B, 2, T, J, 2) from the clip's centre, in units of the body's extent.

    NaN stays NaN, and a joint that is alone in its frame becomes it: one point has no extent to measure anything by.
    """
    seen = (pairs.seen & (pairs.seen.sum(-1, keepdim=True) > 1))[..., None]
    xy = torch.where(seen, pairs.xy, 0.0)
    count = seen.sum((2, 3), keepdim=True).clamp(min=1)
    centre = xy.sum((2, 3), keepdim=True) / count
    own_centre = xy.sum(3, keepdim=True) / seen.sum(3, keepdim=True).clamp(min=1)
    spread = torch.where(seen, (xy - own_centre) ** 2, 0.0).sum((2, 3, 4), keepdim=True) / count
    return torch.where(seen, (pairs.xy - centre) / spread.sqrt().clamp(min=1.0), torch.nan)


def _epipolar_coordinates(pairs: ClipPairs) -> Tensor:
    """Return where rays lie (B, 2, T, J, 2): along the baseline, and the angle about it, both as metres at the body.

    The second coordinate of a point is the same in both views at the same moment, whatever the point's depth.
    """
    R, t = pairs.cam_from_world[..., :3], pairs.cam_from_world[..., 3]
    centre = -torch.einsum("bvij,bvi->bvj", R, t)
    focal = torch.stack([pairs.K[..., 0, 0], pairs.K[..., 1, 1]], dim=-1)
    image = (pairs.xy - pairs.K[:, :, None, None, :2, 2]) / focal[:, :, None, None]
    ray = F.normalize(torch.einsum("bvij,bvtki->bvtkj", R, F.pad(image, (0, 1), value=1.0)), dim=-1)

    baseline = F.normalize(centre[:, 1] - centre[:, 0], dim=-1)
    from_middle = _body_centre(centre, ray) - centre.mean(1)
    outward = from_middle - (from_middle * baseline).sum(-1, keepdim=True) * baseline
    radius = outward.norm(dim=-1).clamp(min=0.3)
    outward = F.normalize(outward, dim=-1)
    up = torch.linalg.cross(baseline, outward)
    # Which camera is called a must not matter: the third axis points to where the images' tops do.
    sign = torch.where((up * -R[:, :, 1].sum(1)).sum(-1, keepdim=True) < 0, -1.0, 1.0)
    axes = torch.stack([sign * baseline, outward, sign * up], dim=1)

    local = torch.einsum("bij,bvtkj->bvtki", axes, ray)
    middle = torch.einsum("bj,bvj->bv", axes[:, 0], from_middle[:, None] + (centre.mean(1, keepdim=True) - centre))
    scale = radius[:, None, None, None]
    along = local[..., 0] / torch.hypot(local[..., 1], local[..., 2]).clamp(min=0.05) * scale - middle[..., None, None]
    about = torch.atan2(local[..., 2], local[..., 1]) * scale
    return 2 * torch.stack([along, about], dim=-1).clamp(-_FURTHEST_M, _FURTHEST_M)


def _body_centre(centre_m: Tensor, ray: Tensor) -> Tensor:
    """Return the point (B, 3) nearest to both views' mean rays."""
    seen = torch.isfinite(ray).all(-1, keepdim=True)
    mean = F.normalize(torch.where(seen, ray, 0.0).sum((2, 3)), dim=-1)  # (B, 2, 3)
    eye = torch.eye(3, device=ray.device)
    across = eye - mean[..., :, None] * mean[..., None, :]
    normal = across.sum(1) + 1e-3 * eye
    right = torch.einsum("bvij,bvj->bi", across, centre_m) + 1e-3 * centre_m.mean(1)
    return torch.linalg.solve(normal, right)


def _spectrum(signal: Tensor, lag_count: int) -> Tensor:
    """Return the Fourier transform of signals (..., G), padded so that lags up to ``lag_count`` do not wrap round."""
    return torch.fft.rfft(signal, _padded(signal.shape[-1], lag_count))


def _over_lags(product: Tensor, length: int, lag_count: int) -> Tensor:
    """Turn products of spectra, the first conjugated, into ``Σ_t a(t) b(t + lag)`` (..., L) at lags −n … n."""
    sums = torch.fft.irfft(product, _padded(length, lag_count))
    return torch.cat([sums[..., -lag_count:], sums[..., : lag_count + 1]], dim=-1)


def _padded(length: int, lag_count: int) -> int:
    return -(-(length + lag_count) // 16) * 16  # a multiple of 16 transforms fast


def _place_moments(track: GridTrack) -> Tensor:
    """Return (B, 2, 6, J, G): known, x, y and their products."""
    x, y = track.xy.unbind(-1)
    return torch.stack([track.known, x, y, x * x, y * y, x * y], dim=2).transpose(3, 4)


def _rank(curves_a: Curves, curves_b: Curves, lag_count: int) -> Tensor:
    """Return (B, 7, L): log eigenvalues of the covariance of (x_a, y_a, x_b, y_b) in common moments, and how many."""
    a, b = curves_a.moments.conj(), curves_b.moments
    index = [(0, 0), *((i, 0) for i in range(1, 6)), *((0, i) for i in range(1, 6)), (1, 1), (1, 2), (2, 1), (2, 2)]
    products = torch.stack([(a[:, i] * b[:, j]).sum(1) for i, j in index], dim=1)
    sums = _over_lags(products, curves_a.length, lag_count)
    count = sums[:, 0]
    ax, ay, axx, ayy, axy, bx, by, bxx, byy, bxy, xx, xy, yx, yy = (sums[:, 1:] / count.clamp(min=0.5)[:, None]).unbind(
        1
    )
    upper = [
        [axx - ax * ax, axy - ax * ay, xx - ax * bx, xy - ax * by],
        [axy - ax * ay, ayy - ay * ay, yx - ay * bx, yy - ay * by],
        [xx - ax * bx, yx - ay * bx, bxx - bx * bx, bxy - bx * by],
        [xy - ax * by, yy - ay * by, bxy - bx * by, byy - by * by],
    ]
    covariance = torch.stack([torch.stack(row, dim=-1) for row in upper], dim=-2)
    enough = count > 7.5
    eye = torch.eye(4, device=covariance.device)
    covariance = torch.where(enough[..., None, None], covariance, eye)
    eigenvalue = torch.linalg.eigvalsh(covariance + 1e-6 * eye).clamp(min=1e-6).log() * 0.3
    eigenvalue = torch.where(enough[..., None], eigenvalue, 0.0).transpose(1, 2)
    common = count.clamp(min=1).log() / 5
    return torch.cat([eigenvalue, torch.stack([enough.float(), common, count * eigenvalue[:, 0] / 100], dim=1)], dim=1)


def _angle_moments(track: GridTrack) -> Tensor:
    """Return (B, 2, 3, J, G): known, the angle about the baseline in metres at the body, its square."""
    about = track.xy[..., 1] / 2
    return torch.stack([track.known, about, about**2], dim=2).transpose(3, 4)


def _plane_agreement(curves_a: Curves, curves_b: Curves, lag_count: int) -> Tensor:
    """Return (B, J + 6, L): log mean squares of the angle's differences, by joint and over all, biased and not."""
    a, b = curves_a.moments.conj(), curves_b.moments
    common = a[:, 0] * b[:, 0]
    first = a[:, 1] * b[:, 0] - a[:, 0] * b[:, 1]
    second = a[:, 2] * b[:, 0] - 2 * a[:, 1] * b[:, 1] + a[:, 0] * b[:, 2]
    sums = _over_lags(torch.stack([common, first, second], dim=1), curves_a.length, lag_count)
    count, first, second = sums.unbind(1)  # (B, J, L)
    there = (count > 0.5).float()
    count = count.clamp(min=0.5)
    square = (second / count).clamp(min=0)
    variance = ((second - first**2 / count) / count).clamp(min=0)  # a detector's bias stays for longer than a clip
    biased = ((0.03**2 + square).log() * 0.3 + 1.0) * there
    steady = ((0.015**2 + variance).log() * 0.3 + 1.2) * there
    joints = there.sum(1).clamp(min=1)
    together = (count * there).mean(1) / 5
    mean_biased, mean_steady = biased.sum(1) / joints, steady.sum(1) / joints
    over_all = [mean_biased, mean_steady, mean_biased * together, mean_steady * together, together, there.mean(1)]
    return torch.cat([biased, torch.stack(over_all, dim=1)], dim=1)
