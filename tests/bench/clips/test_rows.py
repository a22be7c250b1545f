from dataclasses import replace

import pytest
import torch

from mvpose.bench.clips.rows import ROWS, Settings, table_rows, training_of
from mvpose.sync.train import rows as product
from mvpose.sync.train.run import train
from mvpose.sync.train.scenes import IFID
from mvpose.training.folder import MotionFolder
from mvpose.training.weights import load_weights

torch.set_num_threads(1)
COMPARED = [name for name in ROWS if name not in product.ROWS]
"""All but what ships, which has its own tests."""
ONE_OF_EACH = [name for name in COMPARED if name not in ("synnet-ce", "insynformer-ce-mhsa", "insynformer-ce-guided")]
PUBLISHED = ["synnet-ce", "synnet-hxe", "sesyn", "cnnsiamese"] + [
    f"insynformer-{kind}" for kind in ("ce-mhsa", "hxe-mhsa", "ce", "hxe")
]
COUNTING = ("sesyn", "sesyn-guided", "cnnsiamese")


def offsets(count, seed=0):
    return 12 * torch.rand(count, generator=torch.Generator().manual_seed(seed)) - 6


def tensors(value):
    """All tensors of an output."""
    if isinstance(value, torch.Tensor):
        return [value]
    parts = value if isinstance(value, tuple) else vars(value).values() if hasattr(value, "__dict__") else ()
    return [tensor for part in parts for tensor in tensors(part)]


def built(row):
    torch.manual_seed(0)
    return row.build()


@pytest.mark.parametrize("whole_frames", [False, True])
@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_a_row_learns_and_every_weight_takes_part(drifting, name, whole_frames):
    row = table_rows(whole_frames=whole_frames)[name].row
    offset = offsets(24).trunc() if whole_frames else offsets(24)
    pairs, net = drifting(offset, missing=0.1), built(row)
    if whole_frames:
        pairs = replace(pairs, time_s=pairs.time_s / 3)  # the protocol's 30 fps
    optimizer = row.optimizer_of(net)
    losses = []
    for _ in range(16 if name == "sesyn" else 8):  # of plain SGD a slow start
        optimizer.zero_grad()
        loss = row.loss(net(pairs), offset)
        loss.backward()
        for key, weight in net.named_parameters():
            learns = weight.requires_grad and weight.grad is not None
            assert learns or not weight.requires_grad or name == "insynformer-bare", key
            if learns:
                assert torch.isfinite(weight.grad).all(), key
            if learns and len(losses) > 1:  # what starts at 0 lets nothing through at the first steps
                assert weight.grad.abs().max() > 0, key
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < (0.99) * losses[0]
    decision = net.decide(net(pairs))
    assert decision.ex.min() >= 0
    assert decision.ex.max() <= 5
    assert (decision.tenth is None) == (name in COUNTING or (whole_frames and not row.any_clips))


@pytest.mark.parametrize("name", COMPARED)
def test_a_row_bears_nothing_seen(drifting, name):
    pairs, net = drifting(offsets(4), missing=0.1), built(ROWS[name].row)
    pairs.xy[0] = torch.nan
    pairs.xy[1, 1] = torch.nan
    pairs = replace(pairs, score=pairs.seen.float())
    for mode in (net.train(), net.eval()):
        output = mode(pairs)
        assert torch.isfinite(ROWS[name].row.loss(output, offsets(4)))
        decision = mode.decide(output)
        assert torch.isfinite(decision.offset_frames).all()
        assert decision.sigma_frames is None or torch.isfinite(decision.sigma_frames).all()


@pytest.mark.parametrize("name", COMPARED)
def test_what_stands_in_for_a_missing_joint_does_not_matter(drifting, name):
    pairs, net = drifting(offsets(6), missing=0.2), built(ROWS[name].row).eval()
    for weight in net.parameters():
        if not weight.any():  # heads start at 0, and say the same of all
            torch.nn.init.normal_(weight, std=0.1)
    half = pairs.xy.clone()
    half[..., 1] = torch.where(pairs.seen, half[..., 1], 1e6)  # x is NaN still
    with torch.no_grad():
        one, other = net(pairs), net(replace(pairs, xy=half))
    for part, same in zip(tensors(one), tensors(other), strict=True):
        torch.testing.assert_close(part, same, atol=1e-4, rtol=1e-4)


def test_rows_are_named_and_titled_once():
    assert list(ROWS) == [row.name for row in ROWS.values()] == list(table_rows(whole_frames=True))
    assert len({row.row.title for row in ROWS.values()}) == len(ROWS)
    assert "insynformer-hxe" in ROWS


def test_each_row_of_the_paper_has_its_figures_and_what_ships_has_none():
    assert [name for name, row in ROWS.items() if row.published] == PUBLISHED
    assert {row.tables for row in ROWS.values()} == {(1,), (2,), (1, 2)}


def test_a_row_is_trained_as_all_others_are_but_for_its_own_settings(monkeypatch):
    usual = training_of("sesyn", 1000, IFID, 3)
    assert (usual.clips, usual.batch, usual.learning_rate, usual.seed) == (1000, 128, None, 3)
    assert usual.network.name == "sesyn"
    own = replace(ROWS["sesyn"], settings=Settings(clips=2.5, batch=512, learning_rate=1e-4))
    monkeypatch.setitem(ROWS, "sesyn", own)
    training = training_of("sesyn", 1000, IFID, 3)
    assert (training.clips, training.batch, training.learning_rate) == (2500, 512, 1e-4)
    assert training_of("sesyn", 40, IFID, 3).batch == 100  # no more than there are


def test_networks_count_whole_frames_where_offsets_are_whole():
    whole = training_of("insynformer-hxe", 8, replace(IFID, fractions=False), 0)
    assert whole.network.build().classify.heads.tenth is None
    assert training_of("insynformer-hxe", 8, IFID, 0).network.build().classify.heads.tenth is not None


def test_a_row_with_momentum_and_running_means_resumes_exactly(folder, tmp_path):
    training = replace(training_of("sesyn", 16, IFID, 0), batch=4, checkpoint_every=2, log_every=1, threads=1)

    def until_the_third(what, done, total):
        if done == 3:
            raise KeyboardInterrupt

    whole, _ = train(training, MotionFolder(folder), tmp_path / "whole", lambda *_: None)
    with pytest.raises(KeyboardInterrupt):
        train(training, MotionFolder(folder), tmp_path / "parts", until_the_third)
    parts, _ = train(training, MotionFolder(folder), tmp_path / "parts", lambda *_: None, resume=True)
    states = []
    for path in (whole, parts):
        network = training.network.build()
        load_weights(network, path)
        states.append(network.state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
