from dataclasses import replace

import pytest
import torch

from mvpose.skeleton import CLIP_SKELETON
from mvpose.sync.clips import ClipPairs
from mvpose.sync.train.rows import ROWS, comparison

torch.set_num_threads(1)
PAPER = [name for name in ROWS if not name.startswith("lagformer")]
"""The rows of the paper; ours have their own tests."""


def drifting(offset_frames, frames=5, missing=0.0, seed=0):
    """Clips of people who all sink at the pace of one clock, so that where they are tells when it is."""
    generator = torch.Generator().manual_seed(seed)
    count, joints = len(offset_frames), len(CLIP_SKELETON)
    first = torch.stack([offset_frames.clamp(min=0), (-offset_frames).clamp(min=0)], dim=1)  # t_b = t_a + offset
    at = first[..., None] + torch.arange(frames)
    pose = torch.randn(1, 1, 1, joints, 2, generator=generator).expand(count, 2, frames, -1, -1)
    xy = torch.tensor([900.0, 500.0]) + 60 * pose
    wave = torch.sin(0.55 * at[..., None] + torch.rand(joints, generator=generator))
    xy = torch.stack([xy[..., 0], xy[..., 1] + 40 * wave], dim=-1)
    xy[torch.rand(xy.shape[:-1], generator=generator) < missing] = torch.nan
    return ClipPairs(
        xy,
        torch.isfinite(xy).all(-1).float(),
        (torch.arange(frames) / 10).expand(count, 2, -1),
        torch.full((count, 2, 3, 3), torch.nan),
        torch.full((count, 2, 3, 4), torch.nan),
        torch.tensor([1920.0, 1080.0]).expand(count, 2, 2),
    )


def offsets(count, seed=0):
    return 12 * torch.rand(count, generator=torch.Generator().manual_seed(seed)) - 6


def built(row):
    torch.manual_seed(0)
    return row.build()


@pytest.mark.parametrize("whole_frames", [False, True])
@pytest.mark.parametrize("name", PAPER)
def test_a_row_learns_and_every_weight_takes_part(name, whole_frames):
    row = comparison(whole_frames=whole_frames)[name]
    offset = offsets(24).trunc() if whole_frames else offsets(24)
    pairs, net = drifting(offset, missing=0.1), built(row)
    optimizer = row.optimizer_of(net)
    losses = []
    for _ in range(16 if name == "sesyn" else 12):  # of plain SGD a slow start
        optimizer.zero_grad()
        loss = row.loss(net(pairs), offset)
        loss.backward()
        for key, weight in net.named_parameters():
            assert torch.isfinite(weight.grad).all(), key
            if losses:  # heads start at 0, and let nothing through at the first step
                assert weight.grad.abs().max() > 0, key
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < (0.99 if name == "sesyn" else 0.97) * losses[0]
    decision = net.decide(net(pairs))
    assert decision.ex.min() >= 0
    assert decision.ex.max() <= 5
    assert (decision.tenth is None) == (whole_frames or name in ("sesyn", "cnnsiamese"))


@pytest.mark.parametrize("name", PAPER)
def test_a_row_bears_nothing_seen(name):
    pairs, net = drifting(offsets(4), missing=0.1), built(ROWS[name])
    pairs.xy[0] = torch.nan
    pairs.xy[1, 1] = torch.nan
    pairs = replace(pairs, score=pairs.seen.float())
    for mode in (net.train(), net.eval()):
        output = mode(pairs)
        assert torch.isfinite(ROWS[name].loss(output, offsets(4)))
        decision = mode.decide(output)
        assert torch.isfinite(decision.offset_frames).all()
        assert decision.sigma_frames is None or torch.isfinite(decision.sigma_frames).all()


@pytest.mark.parametrize("name", PAPER)
def test_what_stands_in_for_a_missing_joint_does_not_matter(name):
    pairs, net = drifting(offsets(6), missing=0.2), built(ROWS[name]).eval()
    for weight in net.parameters():
        if not weight.any():  # heads start at 0, and say the same of all
            torch.nn.init.normal_(weight, std=0.1)
    half = pairs.xy.clone()
    half[..., 1] = torch.where(pairs.seen, half[..., 1], 1e6)  # x is NaN still
    with torch.no_grad():
        one, other = net(pairs), net(replace(pairs, xy=half))
    for part, same in zip(vars(one).values(), vars(other).values(), strict=True):
        torch.testing.assert_close(part, same, atol=1e-4, rtol=1e-4)


def test_the_sign_is_learned():
    row = ROWS["insynformer-hxe"]
    net = built(row)
    optimizer = row.optimizer_of(net)
    for step in range(60):
        offset = offsets(48, seed=step)
        optimizer.zero_grad()
        row.loss(net(drifting(offset)), offset).backward()
        optimizer.step()
    offset = offsets(64, seed=1000)
    clear = offset.abs() > 2
    found = net.decide(net(drifting(offset)))
    assert ((found.offset_frames > 0) == (offset > 0))[clear].float().mean() > 0.9
    back = net.decide(net(drifting(offset).swapped()))
    assert ((back.offset_frames < 0) == (offset > 0))[clear].float().mean() > 0.9


def test_rows_are_named_and_titled_once():
    assert list(ROWS) == [row.name for row in ROWS.values()] == list(comparison(whole_frames=True))
    assert len({row.title for row in ROWS.values()}) == len(ROWS)
    assert "insynformer-hxe" in ROWS
