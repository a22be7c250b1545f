"""The networks that ship, and what each is trained by; those that they are compared with stand with the bench."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from mvpose.sync.insynformer import InSynFormer
from mvpose.sync.lagformer import LagFormer, lag_loss
from mvpose.sync.train.losses import hxe_loss


@dataclass(frozen=True)
class Row:
    """A network, and what it is trained by.

    Attributes:
        name: What it is called on the command line.
        title: What it is called in tables.
        build: Makes the network, untrained; its ``forward`` takes clip pairs, its ``decide`` what that returns.
        loss: Of the network's output and the offsets (B,), frames.
        learning_rate: The highest of its schedule.
        optimizer: Makes the optimiser of parameters, ``lr=`` given.
        any_clips: Whether it learns from clips of any length, windows of recordings and unrelated views; else from the
            paper's, which have 5 frames and are less than 6 frames apart.
    """

    name: str
    title: str
    build: Callable[[], nn.Module]
    loss: Callable[[Any, Tensor], Tensor]
    learning_rate: float
    optimizer: Callable[..., torch.optim.Optimizer]
    any_clips: bool = False

    def optimizer_of(self, network: nn.Module) -> torch.optim.Optimizer:
        """Return the optimiser of a network at the row's learning rate."""
        return self.optimizer(network.parameters(), lr=self.learning_rate)


ADAMW = partial(torch.optim.AdamW, weight_decay=0.01)

ROWS: dict[str, Row] = {
    row.name: row
    for row in (
        Row("insynformer", "InSynFormer", InSynFormer, hxe_loss, 1e-3, ADAMW),
        Row("lagformer", "LagFormer (ours)", LagFormer, lag_loss, 1e-3, ADAMW, any_clips=True),
        Row(
            "lagformer-rays",
            "LagFormer, calibrated rays (ours)",
            partial(LagFormer, rays=True),
            lag_loss,
            1e-3,
            ADAMW,
            any_clips=True,
        ),
    )
}
"""What ``mvpose train`` trains, by name."""
