"""Clips whose motion has a closed form: every joint sways, in both views alike."""

import pytest
import torch

from mvpose.skeleton import CLIP_SKELETON
from mvpose.sync.clips import ClipPairs

torch.set_num_threads(1)


def sway(offset_frames, frames=5, seed=0):
    """Return pairs of clips at 10 fps of people who sway at 0.3 … 1.5 Hz, seen a little larger by b than by a."""
    generator = torch.Generator().manual_seed(seed)
    offset = torch.as_tensor(offset_frames, dtype=torch.float32)
    count, joints = len(offset), len(CLIP_SKELETON)
    pose, rate, phase = (torch.rand(count, 1, 1, joints, 2, generator=generator) for _ in range(3))
    first = torch.stack([offset.clamp(min=0), (-offset).clamp(min=0)], dim=1)  # t_b = t_a + offset
    at = (first[..., None] + torch.arange(frames)) / 10
    angle = 2 * torch.pi * ((0.3 + 1.2 * rate) * at[..., None, None] + phase)
    size = torch.tensor([100.0, 120.0])[:, None, None, None]
    xy = torch.tensor([900.0, 500.0]) + size * (2 * pose - 1 + 0.4 * angle.sin())
    return ClipPairs(
        xy,
        torch.ones(xy.shape[:-1]),
        (torch.arange(frames) / 10).expand(count, 2, -1),
        torch.full((count, 2, 3, 3), torch.nan),
        torch.full((count, 2, 3, 4), torch.nan),
        torch.tensor([1920.0, 1080.0]).expand(count, 2, 2),
    )


@pytest.fixture(scope="session")
def swaying():
    """Give the tests the function that makes clips."""
    return sway
