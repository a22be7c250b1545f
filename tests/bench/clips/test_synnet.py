import pytest
import torch
from torch import nn

from mvpose.bench.clips.synnet import ConvLSTM, SynNet


def network():
    """Return one whose heads say something, as after some training; they start at 0."""
    torch.manual_seed(0)
    net = SynNet().eval()
    for head in (net.classify.ex, net.classify.order):
        nn.init.normal_(head.weight, std=0.1)
    return net


def test_the_memory_of_one_pixel_is_an_lstm():
    torch.manual_seed(0)
    ours, theirs = ConvLSTM(3, 2), nn.LSTM(3, 2, batch_first=True)
    keep, add, show, new = range(4)  # ours; torch has add, keep, new, show
    order = torch.cat([torch.arange(2) + 2 * gate for gate in (add, keep, new, show)])
    with torch.no_grad():
        theirs.weight_ih_l0.copy_(ours.from_input.weight[order, :, 1, 1])
        theirs.weight_hh_l0.copy_(ours.from_state.weight[order, :, 1, 1])
        theirs.bias_ih_l0.copy_(ours.from_input.bias[order])
        theirs.bias_hh_l0.zero_()
    x = torch.randn(4, 6, 3)
    torch.testing.assert_close(ours(x[..., None, None]).flatten(2), theirs(x)[0])


def test_the_frames_are_read_both_ways(swaying):
    net, pairs = network(), swaying([1.0, 2.5, -3.0])
    before = net(pairs).logits.ex
    for frame in (0, 4):
        other = swaying([1.0, 2.5, -3.0])
        other.xy[:, :, frame, 2] = torch.nan
        other.score[:, :, frame, 2] = 0
        assert not torch.allclose(net(other).logits.ex, before)


@pytest.mark.parametrize("frames", [1, 5, 8])
def test_clips_may_be_of_any_length(swaying, frames):
    output = SynNet(reach=3)(swaying([1.0, -1.0], frames=frames)).logits
    assert output.ex.shape == (2, 4)
    assert output.tenth.shape == (2, 4, 10)


def test_views_share_their_stream_but_not_their_place(swaying):
    net, pairs = network(), swaying([2.0, -4.0])
    assert not torch.allclose(net(pairs).logits.order, net(pairs.swapped()).logits.order)


def test_a_guided_one_reads_the_map_between_its_streams(swaying):
    torch.manual_seed(0)
    net, pairs = SynNet(map_of=5).eval(), swaying([1.0, 2.5, -3.0])
    nn.init.normal_(net.classify.ex.weight, std=0.1)
    output = net(pairs)
    assert [frames.shape for frames in output.frames] == [(3, 5, 64)] * 2
    output.logits.ex.sum().backward()
    assert net.embed.weight.grad.abs().sum() > 0
    assert SynNet()(pairs).frames is None
