"""The learned rows of the paper's tables 1 and 2: which network, trained by which loss, how."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from mvpose.sync.baselines.cnn_siamese import CNNSiamese
from mvpose.sync.baselines.sesyn import SeSynNet
from mvpose.sync.baselines.synnet import SynNet
from mvpose.sync.insynformer import InSynFormer
from mvpose.sync.lagformer import LagFormer, lag_loss
from mvpose.sync.train.losses import ce_loss, cnnsiamese_loss, hxe_loss, sesyn_loss, whole_frames_loss


@dataclass(frozen=True)
class Row:
    """One row of the comparison.

    Attributes:
        name: What it is called on the command line.
        title: What it is called in the paper's tables.
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


_ADAMW = partial(torch.optim.AdamW, weight_decay=0.01)
_SESYN_SGD = partial(torch.optim.SGD, momentum=0.9, nesterov=True, weight_decay=1e-4)


def comparison(*, whole_frames: bool = False) -> dict[str, Row]:
    """Return the rows by name.

    Args:
        whole_frames: Whether offsets are whole numbers, as in NTU-SYN and CMU-SYN: no tenths, and the cross-entropy of
            whole frames in place of CE and HXE.
    """

    def classifying(name: str, title: str, network: Callable[..., nn.Module], rate: float, *, hxe: bool) -> Row:
        loss = hxe_loss if hxe else ce_loss
        build = partial(network, conditional=hxe, whole_frames=whole_frames)
        return Row(name, title, build, whole_frames_loss if whole_frames else loss, rate, _ADAMW)

    mhsa = partial(InSynFormer, attention="mhsa")
    siamese = partial(CNNSiamese, whole_frames=whole_frames)
    rays = partial(LagFormer, rays=True)
    rows = (
        classifying("synnet-ce", "SynNet + CE", SynNet, 1e-3, hxe=False),
        classifying("synnet-hxe", "SynNet + HXE", SynNet, 1e-3, hxe=True),
        Row("sesyn", "SeSyn-Net", SeSynNet, sesyn_loss, 0.005, _SESYN_SGD),
        Row("cnnsiamese", "CNNSiamese", siamese, cnnsiamese_loss, 1e-3, _ADAMW),
        classifying("insynformer-ce-mhsa", "InSynFormer + CE + MHSA", mhsa, 1e-3, hxe=False),
        classifying("insynformer-hxe-mhsa", "InSynFormer + HXE + MHSA", mhsa, 1e-3, hxe=True),
        classifying("insynformer-ce", "InSynFormer + CE + TSA + CVA", InSynFormer, 1e-3, hxe=False),
        classifying("insynformer-hxe", "InSynFormer + HXE + TSA + CVA", InSynFormer, 1e-3, hxe=True),
        Row("lagformer", "LagFormer (ours)", LagFormer, lag_loss, 1e-3, _ADAMW, any_clips=True),
        Row("lagformer-rays", "LagFormer, calibrated rays (ours)", rays, lag_loss, 1e-3, _ADAMW, any_clips=True),
    )
    return {row.name: row for row in rows}


ROWS: dict[str, Row] = comparison()
"""The rows under IFID's protocol, in the order of the tables."""
