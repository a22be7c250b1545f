import torch

from mvpose.sync.train.rows import ROWS

torch.set_num_threads(1)


def offsets(count, seed=0):
    return 12 * torch.rand(count, generator=torch.Generator().manual_seed(seed)) - 6


def test_the_sign_is_learned(drifting):
    row = ROWS["insynformer"]
    torch.manual_seed(0)
    net = row.build()
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
    assert list(ROWS) == [row.name for row in ROWS.values()]
    assert len({row.title for row in ROWS.values()}) == len(ROWS)
    assert "insynformer" in ROWS
