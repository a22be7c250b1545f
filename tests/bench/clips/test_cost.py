import pytest
import torch
from torch import nn
from torch.nn import functional

from mvpose.bench.clips.cost import count_flops, measure_cost
from mvpose.bench.clips.protocol import draw_seeded
from mvpose.sync.train.scenes import IFID


class Product(nn.Module):
    def __init__(self):
        super().__init__()
        self.map = nn.Linear(13, 4)

    def forward(self, pairs):
        return self.map(pairs.score)

    def decide(self, output):
        return output


class Attention(nn.Module):
    def forward(self, pairs):
        return functional.scaled_dot_product_attention(pairs.score, pairs.score, pairs.score)


def test_operations_are_counted_in_products_and_in_attention(bank):
    pairs = draw_seeded(bank, IFID, 3, 0).pairs
    assert count_flops(Product(), pairs) == 2 * (3 * 2 * 5) * 13 * 4
    # Scores (5 × 13 by 13 × 5) and their product with the values (5 × 5 by 5 × 13), of 3 · 2 clips.
    assert count_flops(Attention(), pairs) == 2 * 6 * (5 * 13 * 5 + 5 * 5 * 13)


def test_cost_is_of_one_pair_on_one_thread(bank):
    threads = torch.get_num_threads()
    cost = measure_cost(Product(), draw_seeded(bank, IFID, 128, 0).pairs)
    assert (cost.parameters, cost.megabytes) == (56, pytest.approx(56 * 4e-6))
    assert cost.gflops == pytest.approx(2 * 10 * 13 * 4 * 1e-9)
    assert cost.batched_per_s > cost.alone_per_s > 0
    assert torch.get_num_threads() == threads
