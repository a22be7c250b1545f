"""The networks that ship, and what each is trained by; those that they are compared with stand with the bench."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from mvpose.sync.insynformer import InSynFormer
from mvpose.sync.train.losses import guided, lag_loss


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
GUIDED_ADAMW = partial(torch.optim.AdamW, weight_decay=0.01, betas=(0.9, 0.98))

ROWS: dict[str, Row] = {
    name: Row(name, title, partial(InSynFormer, rays=rays), guided(lag_loss), 2e-3, GUIDED_ADAMW, any_clips=True)
    for name, title, rays in (
        ("insynformer", "InSynFormer", False),
        ("insynformer-rays", "InSynFormer, calibrated rays", True),
    )
}
"""What ``mvpose train`` trains, by name."""
