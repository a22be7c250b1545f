"""What a training draws its batches from: motions and recipes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import Dataset

from mvpose.sync.clips import ClipPairs
from mvpose.sync.train.scenes import Recipe, draw_pairs
from mvpose.training.folder import seed_of
from mvpose.training.motions import MotionBank


@dataclass(frozen=True)
class Batch:
    """What a network is trained by: B pairs of clips and their offsets (B,), frames; NaN of unrelated clips."""

    pairs: ClipPairs
    offset_frames: Tensor


class Batches(Dataset[dict[str, Batch]]):
    """Batches that are drawn when they are asked for: number i is the same one always, whoever asks.

    Args:
        bank: The motions.
        recipes: Weights, and what a batch is drawn from with that weight; a batch is of one recipe.
        batch: Pairs in a batch.
        count: Number of batches.
        stream: Numbers that tell this stream of batches from others, such as seed and rank.
        first: Batches before it are not drawn: a resumed training asks for them only to pass over them.
    """

    def __init__(
        self,
        bank: MotionBank,
        recipes: Sequence[tuple[float, Recipe]],
        batch: int,
        count: int,
        stream: tuple[int, ...],
        first: int = 0,
    ) -> None:
        self.bank, self.batch, self.count, self.stream, self.first = bank, batch, count, stream, first
        self.weights = torch.tensor([weight for weight, _ in recipes], dtype=torch.float64)
        self.recipes = [recipe for _, recipe in recipes]

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, Batch]:
        """Draw batch ``index``; the runner's model takes what it holds by keyword."""
        return {} if index < self.first else {"batch": self.draw(index)}

    def draw(self, index: int) -> Batch:
        """Draw batch ``index``."""
        generator = torch.Generator().manual_seed(seed_of(*self.stream, index))
        recipe = self.recipes[int(torch.multinomial(self.weights, 1, generator=generator))]
        drawn = draw_pairs(generator, self.bank, recipe, self.batch)
        return Batch(drawn.pairs, drawn.offset_frames)
