"""The physical limit: the exact likelihood, by one that knows motion, cameras and the noise's statistics.

All that it has to find is when each of the two clips was taken. No estimator that has to learn the motion from the
same clips can do better, so the distance to this one is what a model is judged by.

The likelihood is that of the noise which ``mvpose.training.noise`` draws. An error there is a Gaussian, correlated in
time, whose length is mapped to a heavy-tailed one; the mapping is inverted here, so that Gaussian likelihoods apply,
times the mapping's Jacobian. What comes and goes within a clip (left–right swaps) or hides a part of the body is one of
three states of a joint for the whole clip: as usual, hidden (longer errors, lower scores), or lost (anywhere round the
person). Scores tell how long errors are and count as well; that a joint is missing tells nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import cache
from math import ceil, log, pi

import numpy as np
import torch
from torch import Tensor

from mvpose.skeleton import CLIP_SKELETON
from mvpose.sync.answers import TENTHS
from mvpose.sync.clips import Decision
from mvpose.sync.train.metrics import join_decisions
from mvpose.sync.train.scenes import LabelledPairs, Recipe
from mvpose.synthetic.noise import joint_errors, length_mapping
from mvpose.training.noise import error_covariance

_STEP_S = 0.005  # of the grid of start times, at most; the log-likelihood is interpolated in between
_FINER, _EVEN = 5, 2  # parts of a step; a frame has an even number of steps, so that a tenth has whole parts
_CHUNK = 32  # pairs at a time, which bounds the memory
_TABLE = 2048  # entries of the inverted mapping
_LONGEST = 0.5  # heights; an error's length has no density beyond
_SHORTEST = 5e-4  # heights; the density of a vector whose length has an exponential part is infinite at 0
_HIDDEN = 0.04  # share of joints behind a thing: 0.12 of the views have one, which hides a third of the body
_LOST = 0.03  # share of joints that are swapped at some time in a clip; close to 0.05 for ankles and wrists
_LOST_RADIUS = 0.5  # heights; such joints are anywhere within it
_IMPOSSIBLE = -1e4  # log-likelihood of a joint that would have been out of view; finite, since it may still be lost


@dataclass(frozen=True)
class StartGrid:
    """Candidate times of a clip's first frame, evenly spaced.

    Attributes:
        first_s: The earliest, seconds of world time.
        step_s: Between two; a whole number of steps is a frame.
        count: How many.
    """

    first_s: float
    step_s: float
    count: int


def start_grid(recipe: Recipe) -> StartGrid:
    """Return all times at which either clip can start, and as many again before and after.

    World time 0 is where the earlier clip starts, which is not for the oracle to know.
    """
    step_s = 1 / recipe.fps / (_EVEN * ceil(1 / recipe.fps / _STEP_S / _EVEN))
    steps = ceil(recipe.longest_offset_s / step_s)
    return StartGrid(-steps * step_s, step_s, 3 * steps + 1)


def find_offsets(labelled: LabelledPairs, recipe: Recipe) -> Decision:
    """Return the median and the standard deviation of each offset's posterior, its likeliest frame and tenth in it.

    Where both clips are clear about when they were taken, the median is the maximum of the likelihood. Where they
    are not, because somebody stands still, it errs less.

    Args:
        labelled: Pairs drawn by the recipe; all of the scenes is used but when the clips were taken.
        recipe: What is known beforehand: the noise, the longest offset, whether offsets are whole frames; clips open
            with their first frame (no ``phase``).
    """
    grid = start_grid(recipe)
    chunks = (_rows(labelled, slice(k, k + _CHUNK)) for k in range(0, len(labelled.pairs), _CHUNK))
    return join_decisions([_decide(start_log_likelihood(chunk, recipe, grid), recipe, grid) for chunk in chunks])


def start_log_likelihood(labelled: LabelledPairs, recipe: Recipe, grid: StartGrid) -> Tensor:
    """Return how well (B, 2, ``grid.count``) each view's clip agrees with having been started at each time.

    A view's log-likelihood, up to a constant of its own.
    """
    pairs, scenes = labelled.pairs, labelled.scenes
    frames = pairs.xy.shape[2]
    stride = round(labelled.frame_s / grid.step_s)
    times = grid.first_s + grid.step_s * torch.arange(grid.count + (frames - 1) * stride)
    true_px, height_px = scenes.project(times.expand(len(pairs), 2, -1))
    # What frame k would show if the clip started at time g is what is to be seen k frames after g.
    xy = true_px.permute(0, 1, 4, 3, 2).unfold(-1, grid.count, stride)  # (B, 2, 2, J, T, G)
    height = height_px.unfold(-1, grid.count, stride)[:, :, None]  # (B, 2, 1, T, G)
    seen = pairs.seen.transpose(2, 3)  # (B, 2, J, T)
    error = (pairs.xy.permute(0, 1, 4, 3, 2)[..., None] - xy) / height[:, :, None]
    possible = (torch.isfinite(error).all(2) | ~seen[..., None]).all(-2)  # (B, 2, J, G)
    error = torch.nan_to_num(error) * seen[:, :, None, ..., None]
    whitening = _whitening(labelled, seen)
    area = -2 * (height.log() * seen[..., None]).sum(-2)  # a density in pixels from one in heights
    score = pairs.score.transpose(2, 3)[..., None]
    usual, hidden = (
        torch.where(possible, _log_density(error, seen, whitening, score, recipe, factor, fades), _IMPOSSIBLE)
        for factor, fades in (
            (scenes.scale, 1.0),
            (scenes.scale * recipe.detector.occluded_error, recipe.detector.occluded_score),
        )
    )
    lost = seen.sum(-1, keepdim=True) * -log(pi * _LOST_RADIUS**2)
    states = torch.stack(
        [usual + log(1 - _HIDDEN - _LOST), hidden + log(_HIDDEN), (lost + log(_LOST)).expand_as(usual)]
    )
    return (states.logsumexp(0) + area).sum(2)


def _whitening(labelled: LabelledPairs, seen: Tensor) -> Tensor:
    """Return W (B, 2, J, T, T) with ``Wᵀ W`` the inverse of the latent's covariance; what is not seen is left out."""
    covariance = error_covariance(labelled.pairs.time_s.flatten(0, 1)).unflatten(0, (-1, 2))[:, :, None]
    both = seen[..., :, None] & seen[..., None, :]
    kept = torch.where(both, covariance, torch.eye(seen.shape[-1]))
    return torch.linalg.inv(torch.linalg.cholesky(kept))


def _log_density(
    error: Tensor, seen: Tensor, whitening: Tensor, score: Tensor, recipe: Recipe, factor: Tensor, fades: float
) -> Tensor:
    """Return the log-density (B, 2, J, G) of errors (B, 2, 2, J, T, G), heights, and of their scores (B, 2, J, T, 1).

    Args:
        error: x and y of the errors.
        seen: (B, 2, J, T) which of them are there.
        whitening: (B, 2, J, T, T) of the latent.
        score: What the detector says of them.
        recipe: The noise.
        factor: (B, 2) on the measured errors.
        fades: Factor on the scores.
    """
    length = error.square().sum(2).sqrt_()
    half_square, log_jacobian = _latent(length / factor[..., None, None, None])
    direction = error / length.clamp(min=_SHORTEST)[:, :, None]
    latent = (2 * half_square).sqrt_()[:, :, None] * direction
    white = whitening[:, :, None] @ latent
    size = -2 * factor.log()[..., None, None, None]
    expected = 0.95 * fades * torch.exp(-length / recipe.detector.score_reach)
    told = ((score - expected) / recipe.detector.score_sigma).square()
    a_frame = log_jacobian + size - log(2 * pi) - 0.5 * told - log(recipe.detector.score_sigma) - 0.5 * log(2 * pi)
    return (
        (a_frame * seen[..., None]).sum(-2)
        - 0.5 * white.square().sum((2, 4))
        + 2 * torch.diagonal(whitening, dim1=-2, dim2=-1).log().sum(-1)[..., None]
    )


def _latent(length: Tensor) -> tuple[Tensor, Tensor]:
    """Return of errors' lengths (B, 2, J, T, G), heights, half the latent's square, and the log of the Jacobian.

    A length ρ is exceeded by a share ``exp(−u)`` of errors, as is ``√(2u)`` by a pair of unit Gaussians. Mapping
    vectors of length ρ to vectors of length ℓ changes areas by ``ℓ ℓ′ / ρ``, that is by ``u′ / ρ``.
    """
    table = _inverse_mapping()
    position = (length * ((_TABLE - 1) / _LONGEST)).clamp(max=_TABLE - 1.001)
    cell = position.long()
    share = position - cell
    cell += (torch.arange(len(CLIP_SKELETON)) * _TABLE)[:, None, None]
    half_square, slope = (torch.lerp(t.take(cell), t.take(cell + 1), share) for t in table)
    return half_square, slope.log() - length.clamp(min=_SHORTEST).log()


@cache
def _inverse_mapping() -> tuple[Tensor, Tensor]:
    """Tabulate u and u′ (J · _TABLE,) over the length in equal steps up to ``_LONGEST``."""
    length = np.linspace(0, _LONGEST, _TABLE)
    half_square = np.stack([np.interp(length, *length_mapping(kind)[::-1]) for kind in joint_errors(CLIP_SKELETON)])
    slope = np.gradient(half_square, length, axis=1)
    return torch.tensor(half_square.ravel()).float(), torch.tensor(slope.ravel()).float()


def _decide(log_likelihood: Tensor, recipe: Recipe, grid: StartGrid) -> Decision:
    """Decide on offsets, given the log-likelihoods (B, 2, G) of the starts, all offsets being as likely beforehand."""
    fine = interpolate_finer(log_likelihood.double(), _FINER)
    a, b = (fine - fine.amax(-1, keepdim=True)).exp().unbind(1)
    size = 2 * a.shape[1]
    together = torch.fft.irfft(torch.fft.rfft(a, size) * torch.fft.rfft(b, size).conj(), size)
    frame = round(_FINER / recipe.fps / grid.step_s)
    whole = ceil(recipe.longest_offset_s * recipe.fps - 1e-9)
    # The offset is the start of a minus that of b.
    likelihood = together[:, torch.arange(-whole * frame, whole * frame + 1) % size].clamp(min=1e-300)
    if not recipe.fractions and recipe.span_s is None:
        best = likelihood[:, ::frame].argmax(1) - whole
        return Decision(best.abs(), None, best.float())

    mass = likelihood[:, 1:] + likelihood[:, :-1]  # between neighbours
    mass = mass / mass.sum(1, keepdim=True)
    negative, positive = mass.chunk(2, dim=1)
    tenths = (positive + negative.flip(1)).unflatten(1, (whole, TENTHS, -1)).sum(-1)
    ex = tenths.sum(2).argmax(1)
    below = mass.cumsum(1)
    cell = (below < 0.5).sum(1, keepdim=True).clamp(max=mass.shape[1] - 1)
    within = 1 - (below - 0.5).gather(1, cell) / mass.gather(1, cell)
    median = (cell + within)[:, 0] / frame - whole
    middle = (torch.arange(mass.shape[1]) + 0.5) / frame - whole
    variance = (mass * (middle - median[:, None]).square()).sum(1) + 1 / (12 * frame**2)
    return Decision(ex, tenths[torch.arange(len(ex)), ex].argmax(1), median.float(), variance.sqrt().float())


def interpolate_finer(values: Tensor, parts: int) -> Tensor:
    """Return (…, (n − 1) · parts + 1) values between (…, n) values by Catmull–Rom splines, which keep parabolas."""
    u = torch.arange(parts, dtype=values.dtype) / parts
    ends = (2 * values[..., :1] - values[..., 1:2], 2 * values[..., -1:] - values[..., -2:-1])
    around = torch.cat([ends[0], values, ends[1]], dim=-1).unfold(-1, 4, 1)  # (…, n − 1, 4)
    weights = 0.5 * torch.stack([-u + 2 * u**2 - u**3, 2 - 5 * u**2 + 3 * u**3, u + 4 * u**2 - 3 * u**3, u**3 - u**2])
    return torch.cat([(around @ weights).flatten(-2), values[..., -1:]], dim=-1)


def _rows(labelled: LabelledPairs, index: slice) -> LabelledPairs:
    scenes = labelled.scenes
    tensors = {f.name: getattr(scenes, f.name)[index] for f in fields(scenes) if f.name != "bank"}
    return replace(
        labelled,
        pairs=labelled.pairs.rows(index),
        offset_s=labelled.offset_s[index],
        scenes=replace(scenes, **tensors),
    )
