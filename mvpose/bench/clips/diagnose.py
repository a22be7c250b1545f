"""Errors of the comparison told apart by what may cause them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor

from mvpose.bench.clips.estimators import Estimator, ready_row
from mvpose.bench.clips.protocol import TEST_SEED, draw_seeded
from mvpose.sync.train.scenes import IFID, LabelledPairs, Recipe
from mvpose.training.motions import MotionBank

_DIAGNOSING = 2048  # pairs of each diagnosis


@dataclass(frozen=True)
class Diagnosis:
    """Errors told apart by one thing that may cause them.

    Attributes:
        cause: What, with its unit.
        bins: What it is in each column.
        pairs: How many pairs of each.
        median_frames: By title, the median of the signed errors' sizes, frames; None where an estimator has none.
        mean_frames: By title, their mean.
    """

    cause: str
    bins: tuple[str, ...]
    pairs: tuple[int, ...]
    median_frames: dict[str, tuple[float | None, ...]]
    mean_frames: dict[str, tuple[float | None, ...]]


def diagnose(estimators: Sequence[Estimator], recipe: Recipe, bank: MotionBank) -> tuple[Diagnosis, ...]:
    """Tell errors apart by the motion's speed, view angle and offset, and by noise and clip length of further sets."""
    drawn = draw_seeded(bank, recipe, _DIAGNOSING, TEST_SEED)
    errors = {one.title: _errors(one, drawn, recipe) for one in estimators}
    causes: list[tuple[str, Tensor, Sequence[float]]] = [
        ("speed of the joints, m/s", drawn.scenes.speed_mps(recipe.duration_s), (0.3, 0.6, 1.2)),
        ("angle between the views, degrees", drawn.scenes.view_angle_deg(), (45, 90, 135)),
        ("|offset|, frames (clips of 5 overlap below 5)", drawn.offset_frames.abs(), (1, 2, 3, 4, 5)),
    ]
    noises = {f"× {factor:g}": replace(recipe, noise=(factor, factor)) for factor in (0.5, 1.0, 2.0)}
    lengths = {str(frames): replace(recipe, frames=frames) for frames in (5, 10, 20)}
    return (
        *(by_bins(cause, value, edges, errors) for cause, value, edges in causes),
        _by_recipe("noise, of the measured", noises, estimators, bank),
        _by_recipe("length of the clips, frames", lengths, estimators, bank),
    )


def by_bins(cause: str, value: Tensor, edges: Sequence[float], errors: Mapping[str, Tensor]) -> Diagnosis:
    """Tell errors (B,) apart by where a value (B,) lies between the edges."""
    where = torch.bucketize(value, torch.tensor(edges), right=True)
    names = (f"< {edges[0]:g}", *(f"{a:g}–{b:g}" for a, b in pairwise(edges)), f"≥ {edges[-1]:g}")
    parts = {title: [error[where == k] for k in range(len(names))] for title, error in errors.items()}
    return _diagnosis(cause, names, [int((where == k).sum()) for k in range(len(names))], parts)


def _by_recipe(
    cause: str, recipes: Mapping[str, Recipe], estimators: Sequence[Estimator], bank: MotionBank
) -> Diagnosis:
    parts: dict[str, list[Tensor]] = {one.title: [] for one in estimators}
    for recipe in recipes.values():
        drawn = draw_seeded(bank, recipe, _DIAGNOSING // 2, TEST_SEED)
        for one in estimators:
            knows = one.any_length or recipe.frames == IFID.frames
            parts[one.title].append(_errors(one, drawn, recipe) if knows else torch.empty(0))
    return _diagnosis(cause, tuple(recipes), [_DIAGNOSING // 2] * len(recipes), parts)


def _errors(estimator: Estimator, labelled: LabelledPairs, recipe: Recipe) -> Tensor:
    """Return the sizes (B,) of the signed errors, frames; the oracle is told what the pairs were drawn from."""
    knowing = ready_row("oracle", recipe) if estimator.name == "oracle" else estimator
    return (knowing.decide(labelled).offset_frames - labelled.offset_frames).abs()


def _diagnosis(
    cause: str, bins: tuple[str, ...], pairs: Sequence[int], parts: Mapping[str, Sequence[Tensor]]
) -> Diagnosis:
    def of(measure: Callable[[Tensor], Tensor]) -> dict[str, tuple[float | None, ...]]:
        return {
            title: tuple(float(measure(part)) if len(part) else None for part in each) for title, each in parts.items()
        }

    return Diagnosis(cause, bins, tuple(pairs), of(torch.median), of(torch.mean))
