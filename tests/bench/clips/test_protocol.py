import torch

from mvpose.bench.clips.protocol import INTEGER, draw_seeded
from mvpose.sync.train.scenes import IFID


def test_the_same_pairs_are_drawn_every_time(bank):
    a, b = (draw_seeded(bank, IFID, 8, 5).pairs.xy for _ in range(2))
    torch.testing.assert_close(a, b, equal_nan=True)
    assert not torch.equal(torch.nan_to_num(a), torch.nan_to_num(draw_seeded(bank, IFID, 8, 6).pairs.xy))


def test_integer_protocols_have_whole_offsets_at_30_fps(bank):
    offset = draw_seeded(bank, INTEGER, 64, 0).offset_frames
    torch.testing.assert_close(offset, offset.round(), atol=1e-4, rtol=0)
    assert offset.abs().max() < 5.5 and INTEGER.fps == 30
