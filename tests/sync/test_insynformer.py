from dataclasses import replace

import pytest
import torch

from mvpose.skeleton import CLIP_SKELETON
from mvpose.sync.clips import ClipPairs
from mvpose.sync.insynformer import (
    AttentionLayer,
    InSynFormer,
    IntervalLogits,
    decide,
    keypoint_features,
    person_frame,
    render_heatmaps,
)

torch.set_num_threads(1)
J = len(CLIP_SKELETON)
HIPS = CLIP_SKELETON.indices(["left_hip", "right_hip"]).tolist()
KINDS = [("tsa+cva", "keypoints"), ("tsa+cva", "heatmaps"), ("mhsa", "keypoints"), ("mhsa", "heatmaps")]


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


def network(attention="tsa+cva", tokens="keypoints", **options):
    """Return one whose heads say something, as after some training; they start at 0."""
    torch.manual_seed(0)
    net = InSynFormer(attention=attention, tokens=tokens, **options).eval()
    for head in (net.classify.ex, net.classify.tenth, net.classify.order):
        if head is not None:
            torch.nn.init.normal_(head.weight, std=0.1)
    return net


def parts(logits):
    return [part for part in (logits.ex, logits.tenth, logits.order) if part is not None]


def same(one, other, atol=1e-5):
    return all(torch.allclose(a, b, atol=atol) for a, b in zip(parts(one), parts(other), strict=True))


# The decision.


def logits_at(ex, tenth, ahead, *, elsewhere=None, sure=30.0):
    """One pair, sure of a leaf; ``elsewhere`` is a tenth that other whole frames are sure of."""
    logits = IntervalLogits(torch.zeros(1, 6), torch.zeros(1, 6, 10), torch.zeros(1, 2))
    logits.ex[0, ex] = sure
    if elsewhere is not None:
        logits.tenth[0, :, elsewhere] = 2 * sure
        logits.tenth[0, ex] = 0
    logits.tenth[0, ex, tenth] = sure
    logits.order[0, int(ahead)] = sure
    return logits


@pytest.mark.parametrize(
    ("ex", "tenth", "ahead", "offset"), [(0, 0, True, 0.05), (3, 7, True, 3.75), (5, 9, False, -5.95)]
)
def test_the_decision_is_the_middle_of_the_most_probable_tenth(ex, tenth, ahead, offset):
    decision = decide(logits_at(ex, tenth, ahead, elsewhere=(tenth + 3) % 10))
    assert (decision.ex.item(), decision.tenth.item()) == (ex, tenth)
    assert decision.offset_frames.item() == pytest.approx(offset)
    assert decision.sigma_frames.item() == pytest.approx(0, abs=1e-3)


def test_the_sigma_is_the_distance_to_what_is_as_probable():
    logits = logits_at(2, 4, True)
    logits.order[:] = 0.0  # ±2.45, one as probable as the other: the other is 4.9 away
    assert decide(logits).sigma_frames.item() == pytest.approx(4.9 / 2**0.5, rel=1e-4)
    nothing = decide(IntervalLogits(torch.zeros(1, 6), torch.zeros(1, 6, 10), torch.zeros(1, 2)))
    assert nothing.sigma_frames.item() > 3.4  # as wide as uniform in ±6, and more, since not from its middle


def test_without_tenths_the_offset_is_whole():
    logits = replace(logits_at(4, 0, False), tenth=None)
    decision = decide(logits)
    assert decision.tenth is None
    assert decision.offset_frames.tolist() == [-4.0]
    assert decision.sigma_frames.item() == pytest.approx(0, abs=1e-3)


def test_opinions_add_up_and_are_exchanged():
    one, other = logits_at(1, 2, True), logits_at(3, 4, True)
    both = one.plus(other.swapped())
    assert both.ex[0].tolist() == [0, 30, 0, 30, 0, 0]
    assert both.order[0].tolist() == [30, 30]
    assert one.plus(replace(other, tenth=None)).tenth is None


# What is seen.


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


def test_features_are_positions_and_their_changes_while_seen():
    xy = torch.zeros(1, 2, 5, J, 2)
    xy[..., 0] = 10.0 * torch.arange(5)[:, None]  # everyone moves to the right
    xy[..., 2, 1] = 40.0
    xy[0, 0, 2, 5] = torch.nan
    pairs = pairs_of(xy)
    _, size = person_frame(pairs)
    x, _, dx, dy, score, seen = keypoint_features(pairs)[0, 0, :, 5].unbind(-1)
    step = 10.0 / size[0, 0].item()
    assert torch.diff(x[:2]).item() == pytest.approx(step)
    assert dx.tolist() == pytest.approx([0, 4 * step, 0, 0, 4 * step])  # none into or out of the gap
    assert dy.abs().max() == 0
    assert seen.tolist() == score.tolist() == [1, 1, 0, 1, 1]


# The layers.


def test_a_token_looks_at_its_own_sequence_or_at_the_other_view_s():
    torch.manual_seed(0)
    layer, tokens = AttentionLayer(16, 2), torch.randn(4, 5, 16)  # view a: 0, 1; view b: 2, 3
    unseen = torch.zeros(4, 1, 1, 5)
    for across, source in ((False, 0), (True, 2)):
        before = layer(tokens, unseen, across=across)
        changed = {}
        for sequence in range(4):
            other = tokens.clone()
            other[sequence, 4] += torch.randn(16)
            changed[sequence] = not torch.equal(layer(other, unseen, across=across)[0, 0], before[0, 0])
        assert changed == {sequence: sequence == source for sequence in range(4)}


def test_an_unseen_token_is_looked_at_by_nobody():
    torch.manual_seed(0)
    layer, tokens = AttentionLayer(16, 1), torch.randn(2, 5, 16)
    unseen = torch.zeros(2, 1, 1, 5)
    unseen[1, ..., 3] = -1e4
    other = tokens.clone()
    other[1, 3] += 1.0
    assert torch.equal(layer(tokens, unseen, across=True)[0], layer(other, unseen, across=True)[0])
    assert torch.equal(layer(tokens, unseen)[1, [0, 1, 2, 4]], layer(other, unseen)[1, [0, 1, 2, 4]])


# The network.


@pytest.mark.parametrize("tokens", ["keypoints", "heatmaps"])
def test_exchanging_the_views_exchanges_the_order_and_nothing_else(tokens):
    net, pairs = network(tokens=tokens), random_pairs()
    output = net(pairs)
    assert same(net(pairs.swapped()), output.swapped())
    assert output.order.std(0).min() > 1e-3  # it does depend on the pair
    assert torch.allclose(net.decide(net(pairs.swapped())).offset_frames, -net.decide(output).offset_frames)


@pytest.mark.parametrize(("attention", "tokens"), KINDS)
def test_where_and_how_large_the_person_is_does_not_matter(attention, tokens):
    net, pairs = network(attention, tokens), random_pairs()
    xy = pairs.xy * torch.tensor([1.5, 0.5])[:, None, None, None] + torch.tensor([30.0, 70.0])
    assert same(net(pairs), net(replace(pairs, xy=xy)), atol=1e-4)


@pytest.mark.parametrize(("attention", "tokens"), KINDS)
def test_what_stands_in_for_a_missing_joint_does_not_matter(attention, tokens):
    net, pairs = network(attention, tokens), random_pairs()
    assert (~pairs.seen).any()
    half = pairs.xy.clone()
    half[..., 1] = torch.where(pairs.seen, half[..., 1], 1e6)  # x is NaN still
    assert same(net(pairs), net(replace(pairs, xy=half)))


@pytest.mark.parametrize(("attention", "tokens"), KINDS)
def test_nothing_seen_is_borne_and_every_weight_learns(attention, tokens):
    net, pairs = network(attention, tokens), random_pairs()
    pairs.xy[0] = torch.nan
    pairs.xy[1, 0] = torch.nan
    pairs.xy[2, :, 1:] = torch.nan
    pairs = replace(pairs, score=pairs.score * pairs.seen)
    output = net(pairs)
    assert all(torch.isfinite(part).all() for part in parts(output))
    sum(part.log_softmax(-1)[..., 0].sum() for part in parts(output)).backward()
    for name, weight in net.named_parameters():
        assert torch.isfinite(weight.grad).all(), name
        assert weight.grad.abs().max() > 0, name


def test_the_joints_are_told_apart_and_the_frames_are_in_order():
    net, pairs = network(), random_pairs(missing=0.0)
    assert not same(net(pairs), net(replace(pairs, xy=pairs.xy[:, :, :, torch.arange(J - 1, -1, -1)])), atol=1e-3)
    assert not same(net(pairs), net(replace(pairs, xy=pairs.xy.flip(2))), atol=1e-3)


def test_plain_attention_knows_which_view_a_token_is_of():
    net, pairs = network("mhsa"), random_pairs(missing=0.0)
    before = net(pairs)
    net.view_embedding.data.zero_()
    assert not same(before, net(pairs), atol=1e-4)
    assert same(net(pairs.swapped()), net(pairs).swapped())  # without it the two are on a par


@pytest.mark.parametrize(("attention", "layers"), [("tsa+cva", 8), ("mhsa", 8)])
def test_the_ablation_has_as_many_layers(attention, layers):
    assert len(network(attention).layers) == layers


def test_an_untrained_network_says_the_same_of_all():
    output = InSynFormer()(random_pairs())
    assert all(torch.equal(part, part[:1].expand_as(part)) for part in parts(output))


def test_independent_tenths_are_the_same_in_every_frame():
    pairs = random_pairs()
    tenth = network(conditional=False)(pairs).tenth
    assert tenth.shape == (6, 6, 10)
    assert torch.equal(tenth, tenth[:, :1].expand_as(tenth))
    assert not torch.allclose(network()(pairs).tenth[:, 0], network()(pairs).tenth[:, 1])


def test_the_range_and_the_frames_are_the_builder_s():
    net = network(frames=7, reach=2, whole_frames=True, width=16)
    output = net(random_pairs(frames=7))
    assert output.ex.shape == (6, 3)
    assert output.tenth is None
    with pytest.raises(ValueError, match="takes clips of 7 frames, not of 5"):
        net(random_pairs())
