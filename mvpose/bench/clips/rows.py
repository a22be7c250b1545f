"""The rows of tables 1 and 2 of Liu et al. (AAAI 2024): which network, trained how, and what the paper reports of it.

A method may have several rows, such as one by its published recipe and one by another: each has a name and a title of
its own, and the tables show what each was trained by.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from mvpose.bench.clips.cnn_siamese import CNNSiamese
from mvpose.bench.clips.losses import cnnsiamese_loss, sesyn_loss
from mvpose.bench.clips.sesyn import SeSynNet
from mvpose.bench.clips.synnet import SynNet
from mvpose.errors import FormatError
from mvpose.sync.insynformer import InSynFormer
from mvpose.sync.train import rows as product
from mvpose.sync.train.config import Training
from mvpose.sync.train.losses import ce_loss, hxe_loss, whole_frames_loss
from mvpose.sync.train.rows import ADAMW, Row
from mvpose.sync.train.scenes import Recipe
from mvpose.training.config import nearest


@dataclass(frozen=True)
class Settings:
    """How a row is trained; by default as all the others are.

    Attributes:
        clips: Pairs of clips, as a factor on the others'.
        batch: Pairs in a batch.
        learning_rate: The highest of the schedule; the network's own if None.
    """

    clips: float = 1.0
    batch: int = 128
    learning_rate: float | None = None


@dataclass(frozen=True)
class TableRow:
    """A row of the tables.

    Attributes:
        row: Network, loss and optimiser.
        tables: Those of the paper's tables that it stands in.
        published: What the paper reports on IFID: ex@1, ex@3, in@1, in@3, in@5 in %, Frm.err, and with the pose network
            MB and GFLOPs; as many of them as it tells, None in between. Empty of a row that is not the paper's.
        settings: How it is trained.
    """

    row: Row
    tables: tuple[int, ...] = (1,)
    published: tuple[float | None, ...] = ()
    settings: Settings = Settings()

    @property
    def name(self) -> str:
        """What it is called on the command line."""
        return self.row.name


_SESYN_SGD = partial(torch.optim.SGD, momentum=0.9, nesterov=True, weight_decay=1e-4)


def table_rows(*, whole_frames: bool = False) -> dict[str, TableRow]:
    """Return the rows by name, in the order of the tables.

    Args:
        whole_frames: Whether offsets are whole numbers, as in NTU-SYN and CMU-SYN: no tenths, and the cross-entropy of
            whole frames in place of CE and HXE.
    """

    def classifying(name: str, title: str, network: Callable[..., nn.Module], *, hxe: bool) -> Row:
        loss = hxe_loss if hxe else ce_loss
        build = partial(network, conditional=hxe, whole_frames=whole_frames)
        return Row(name, title, build, whole_frames_loss if whole_frames else loss, 1e-3, ADAMW)

    mhsa = partial(InSynFormer, attention="mhsa")
    siamese = partial(CNNSiamese, whole_frames=whole_frames)
    rows = (
        TableRow(
            classifying("synnet-ce", "SynNet + CE", SynNet, hxe=False),
            (2,),
            (59.78, 90.91, 20.56, 57.84, 79.40, 1.27),
        ),
        TableRow(
            classifying("synnet-hxe", "SynNet + HXE", SynNet, hxe=True),
            (1, 2),
            (60.41, 91.37, 31.78, 70.12, 85.62, 1.26, 240, 238),
        ),
        TableRow(
            Row("sesyn", "SeSyn-Net", SeSynNet, sesyn_loss, 0.005, _SESYN_SGD),
            (1,),
            (79.93, 92.44, None, None, None, 0.87, 122, 196),
        ),
        TableRow(
            Row("cnnsiamese", "CNNSiamese", siamese, cnnsiamese_loss, 1e-3, ADAMW),
            (1,),
            (36.42, 76.34, None, None, None, 2.04, 40, 170),
        ),
        TableRow(
            classifying("insynformer-ce-mhsa", "InSynFormer + CE + MHSA", mhsa, hxe=False),
            (2,),
            (75.83, 91.10, 19.78, 57.89, 83.58, 1.15),
        ),
        TableRow(
            classifying("insynformer-hxe-mhsa", "InSynFormer + HXE + MHSA", mhsa, hxe=True),
            (2,),
            (75.88, 91.22, 35.65, 74.23, 87.40, 1.13),
        ),
        TableRow(
            classifying("insynformer-ce", "InSynFormer + CE + TSA + CVA", InSynFormer, hxe=False),
            (2,),
            (80.27, 94.35, 49.84, 77.62, 92.63, 0.83),
        ),
        TableRow(
            classifying("insynformer-hxe", "InSynFormer + HXE + TSA + CVA", InSynFormer, hxe=True),
            (1, 2),
            (80.86, 94.35, 61.30, 90.69, 95.49, 0.83, 138.49, 212),
        ),
        TableRow(product.ROWS["lagformer"]),
        TableRow(product.ROWS["lagformer-rays"]),
    )
    return {row.name: row for row in rows}


ROWS: dict[str, TableRow] = table_rows()
"""The rows under IFID's protocol."""

READY = ("correlation", "lagformer-shipped", "lagformer-rays-shipped", "oracle")
"""Rows that are not trained here: two that learn nothing, and what the package comes with, however it was trained."""


class TableTraining(Training):
    """A training of a row of the tables; its network counts whole frames where all offsets are whole ones."""

    @property
    def network(self) -> Row:
        """The row of the tables."""
        whole = not any(recipe.fractions for _, recipe in self.recipes)
        return table_rows(whole_frames=whole)[self.row].row


def training_of(name: str, clips: int, recipe: Recipe, seed: int) -> TableTraining:
    """Return how a row is trained.

    Args:
        name: In ``ROWS``.
        clips: Pairs of clips that rows without settings of their own are trained on.
        recipe: What they are drawn from.
        seed: Of weights and clips.
    """
    settings = ROWS[name].settings
    count = max(1, round(settings.clips * clips))
    return TableTraining(
        row=name,
        clips=count,
        batch=min(settings.batch, count),
        learning_rate=settings.learning_rate,
        recipes=((1.0, recipe),),
        seed=seed,
        val_clips=min(2048, count),  # no more to validate on than to train on
    )


def check_known(names: Sequence[str], known: Sequence[str]) -> None:
    """Refuse names that no row has.

    Raises:
        FormatError: With the row that was meant.
    """
    for name in names:
        if name not in known:
            raise FormatError(f"there is no row {name!r}{nearest(name, known)}")
