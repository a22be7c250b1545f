"""Real motion as one tensor, to be sampled anywhere by whole batches."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from mvpose.skeleton import CLIP_SKELETON
from mvpose.synthetic.motion import Motion

RATE_HZ = 120.0


@dataclass(frozen=True)
class MotionBank:
    """Clips of one person each, one after another, at ``RATE_HZ``.

    Attributes:
        xyz_m: (N, J, 3) joints of ``CLIP_SKELETON``, metres, Z up.
        first: (C,) row at which each clip starts.
        length: (C,) its rows.
        stature_m: (C,) the person's standing height.
    """

    xyz_m: Tensor
    first: Tensor
    length: Tensor
    stature_m: Tensor

    def to(self, device: torch.device) -> MotionBank:
        """Return the same on a device."""
        return MotionBank(*(getattr(self, f.name).to(device) for f in fields(MotionBank)))

    def longer_than(self, seconds: float) -> Tensor:
        """Return for each clip (C,) over how many seconds starts leave so many seconds after them; 0 at least."""
        return (self.length / RATE_HZ - seconds - 2 / RATE_HZ).clamp(min=0)

    def at(self, clip: Tensor, time_s: Tensor) -> Tensor:
        """Return the joints (B, n, J, 3) of clips (B,) at times (B, n) from their start, by Catmull–Rom splines.

        At 120 Hz the spline is within 0.01 mm of a band-limited motion; times outside a clip repeat its ends.
        """
        position = time_s.double() * RATE_HZ
        last = self.length[clip][:, None] - 1
        cell = torch.minimum(position.floor().long().clamp(min=0), last - 1)
        u = (position - cell).clamp(0, 1).float()[..., None, None]
        p0, p1, p2, p3 = (
            self.xyz_m[self.first[clip][:, None] + (cell + k).clamp(min=0).minimum(last)] for k in (-1, 0, 1, 2)
        )
        return p1 + 0.5 * u * (p2 - p0 + u * (2 * p0 - 5 * p1 + 4 * p2 - p3 + u * (3 * (p1 - p2) + p3 - p0)))


def motion_bank(motions: Iterable[Motion]) -> MotionBank:
    """Put motions of one person each into one tensor; each is resampled to ``RATE_HZ``."""
    clips, statures = [], []
    for motion in motions:
        count = int(motion.duration_s * RATE_HZ + 1e-6) + 1
        joints = motion.skeleton.indices(CLIP_SKELETON.joint_names)
        clips.append(motion.at(motion.time_s[0] + np.arange(count) / RATE_HZ)[:, 0, joints].astype(np.float32))
        statures.append(motion.statures_m()[0])
    length = torch.tensor([len(clip) for clip in clips])
    return MotionBank(
        torch.from_numpy(np.concatenate(clips)),
        torch.cumsum(length, 0) - length,
        length,
        torch.tensor(statures, dtype=torch.float32),
    )
