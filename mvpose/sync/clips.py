"""Pairs of short clips of one person in two views, and what an estimator decides of them: torch nouns.

**Sign.** ``t_b = t_a + offset`` as everywhere: what view a (index 0) sees at its own time t, view b (index 1) sees at
its own time ``t + offset``. The clips of a pair are equally long always: cut unevenly they would give the offset away.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor


@dataclass(frozen=True)
class ClipPairs:
    """A batch of B pairs of clips, T frames each, J joints in the order of ``CLIP_SKELETON``; float32 throughout.

    Attributes:
        xy: (B, 2, T, J, 2) undistorted image coordinates of the person's joints, pixels; NaN where missing.
        score: (B, 2, T, J) confidence in [0, 1]; 0 where missing.
        time_s: (B, 2, T) each frame's time on its camera's own clock, seconds from the clip's opening: its
            first frame, or where a window of a recording opens. Offsets are between the openings.
        K: (B, 2, 3, 3) intrinsics, pixels; NaN without a calibration.
        cam_from_world: (B, 2, 3, 4) rigid transforms, metres; NaN without a calibration.
        size_px: (B, 2, 2) width and height of the images.
    """

    xy: Tensor
    score: Tensor
    time_s: Tensor
    K: Tensor
    cam_from_world: Tensor
    size_px: Tensor

    def __len__(self) -> int:
        return len(self.xy)

    @property
    def seen(self) -> Tensor:
        """(B, 2, T, J) whether a joint was detected."""
        return torch.isfinite(self.xy).all(-1)

    @property
    def frame_s(self) -> Tensor:
        """(B,) mean duration of a frame, seconds; of clips of a single one, which have none, 0.1."""
        if self.time_s.shape[-1] < 2:
            return torch.full_like(self.time_s[:, 0, 0], 0.1)
        return (self.time_s[:, :, -1] - self.time_s[:, :, 0]).mean(1) / (self.time_s.shape[-1] - 1)

    def swapped(self) -> ClipPairs:
        """Return the same pairs with the views exchanged, which changes the sign of the offset."""
        return ClipPairs(*(getattr(self, f.name).flip(1) for f in fields(self)))

    def rows(self, index: Tensor | slice) -> ClipPairs:
        """Return some of the pairs."""
        return ClipPairs(*(getattr(self, f.name)[index] for f in fields(self)))


@dataclass(frozen=True)
class Decision:
    """What an estimator says of each pair, in the paper's terms and continuously.

    Attributes:
        ex: (B,) whole frames of |offset|, 0 … 5 (the paper's inter-frame class).
        tenth: (B,) tenths of a frame beyond them, 0 … 9 (its intra-frame class); None of one that only counts frames.
        offset_frames: (B,) the signed offset, frames, as exact as the estimator has it.
        sigma_frames: (B,) its standard deviation; None of one that does not know.
    """

    ex: Tensor
    tenth: Tensor | None
    offset_frames: Tensor
    sigma_frames: Tensor | None = None
