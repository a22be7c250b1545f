from dataclasses import replace

import pytest
import torch

from mvpose.bench.clips.rendering import person_frame, render_heatmaps
from mvpose.skeleton import CLIP_SKELETON
from mvpose.sync.clips import ClipPairs

J = len(CLIP_SKELETON)
HIPS = CLIP_SKELETON.indices(["left_hip", "right_hip"]).tolist()


def pairs_of(xy):
    """Clips of these joints (B, 2, T, J, 2), full HD, at 10 fps, sure of what is there."""
    count, _, frames = xy.shape[:3]
    return ClipPairs(
        xy,
        torch.isfinite(xy).all(-1).float(),
        (torch.arange(frames) / 10).expand(count, 2, -1),
        torch.full((count, 2, 3, 3), torch.nan),
        torch.full((count, 2, 3, 4), torch.nan),
        torch.tensor([1920.0, 1080.0]).expand(count, 2, 2),
    )


def random_pairs(count=6, frames=5, missing=0.2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    xy = 900 + 80 * torch.randn(count, 2, 1, J, 2, generator=generator)
    xy = xy + 15 * torch.randn(count, 2, frames, J, 2, generator=generator)
    xy[torch.rand(count, 2, frames, J, generator=generator) < missing] = torch.nan
    return pairs_of(xy)


def test_a_clip_has_one_centre_and_size_wherever_the_person_is():
    pairs = random_pairs()
    centre, size = person_frame(pairs)
    moved_centre, moved_size = person_frame(replace(pairs, xy=3 * pairs.xy + torch.tensor([100.0, -50.0])))
    torch.testing.assert_close(moved_centre, 3 * centre + torch.tensor([100.0, -50.0]))
    torch.testing.assert_close(moved_size, 3 * size)


def test_the_centre_is_of_the_hips_or_of_all():
    xy = torch.zeros(1, 2, 5, J, 2)
    xy[..., 0] = 100.0
    xy[:, :, :, HIPS] = torch.tensor([500.0, 300.0])
    xy[0, 1, :, HIPS] = torch.nan
    centre, size = person_frame(pairs_of(xy))
    assert centre.flatten().tolist() == pytest.approx([500, 300, 100, 0])
    assert size.flatten().tolist() == pytest.approx([500 * (11 / 13) ** 0.5, 1.0])  # a point has no size: 1 px
    nothing = person_frame(pairs_of(torch.full((1, 2, 5, J, 2), torch.nan)))
    assert [part.flatten().tolist() for part in nothing] == [[0, 0, 0, 0], [1, 1]]


def test_a_heatmap_peaks_at_its_joint_by_its_score():
    xy = torch.full((1, 2, 5, J, 2), 400.0)
    xy[..., 0, 0] = 420.0  # the nose right of the rest, by √13 sizes
    pairs = pairs_of(xy)
    pairs = replace(pairs, score=torch.full_like(pairs.score, 0.5))
    pairs.xy[0, 1, 2, 3] = torch.nan
    maps = render_heatmaps(pairs, 25, sigma=1.5)
    other = maps[0, 0, 0, 1]
    assert divmod(int(other.argmax()), 25) == (12, 12)
    assert other.max().item() == pytest.approx(0.5)
    assert maps[0, 0, 0, 0].max() < 0.5  # beyond the crop, which ends at 3 sizes
    row, column = divmod(int(maps[0, 0, 0, 0].argmax()), 25)
    assert (row, column) == (12, 24)
    assert maps[0, 1, 2, 3].abs().max() == 0
    assert maps[maps > 0].min() > 1e-8  # nothing denormal
