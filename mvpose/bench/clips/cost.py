"""What a network costs: parameters, floating-point operations of a pair of clips, pairs a second on one CPU thread."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from mvpose.sync.clips import ClipPairs

_LEAST_S = 0.5  # how long a timing lasts at least, seconds
_BATCH = 128


@dataclass(frozen=True)
class Cost:
    """What a network costs, from keypoints on: the paper's figures include the pose network on the images.

    Attributes:
        parameters: How many.
        megabytes: Their size in 32 bits, MB.
        gflops: Operations of one pair in matrix products, convolutions and attention, an addition and a multiplication
            being two, 10⁹; rendering, FFTs and eigenvalues are not counted.
        alone_per_s: Pairs decided a second, one at a time, on one thread.
        batched_per_s: Pairs decided a second in batches of 128, on one thread.
    """

    parameters: int
    megabytes: float
    gflops: float
    alone_per_s: float
    batched_per_s: float


def measure_cost(network: Any, pairs: ClipPairs) -> Cost:
    """Count and time a network, a module that has ``decide``, on at least 128 pairs."""
    network.eval()
    parameters = sum(p.numel() for p in network.parameters())
    with torch.inference_mode(), one_thread():
        return Cost(
            parameters,
            4e-6 * parameters,
            1e-9 * count_flops(network, pairs.rows(slice(0, 1))),
            _pairs_per_second(network, pairs.rows(slice(0, 1))),
            _pairs_per_second(network, pairs.rows(slice(0, _BATCH))),
        )


def count_flops(network: Any, pairs: ClipPairs) -> int:
    """Return the operations of one forward pass over all pairs."""
    # Torch does not count its fused attention on a CPU, so that is spelled out.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        network(pairs)
    return counter.get_total_flops()


def _pairs_per_second(network: Any, pairs: ClipPairs) -> float:
    """Return how many pairs are decided in a second, in batches of the given size."""
    network.decide(network(pairs))
    done, start = 0, time.perf_counter()
    while time.perf_counter() - start < _LEAST_S:
        network.decide(network(pairs))
        done += len(pairs)
    return done / (time.perf_counter() - start)


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch have one thread for as long as the block runs."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
