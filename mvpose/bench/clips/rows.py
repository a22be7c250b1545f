"""The rows of tables 1 and 2 of Liu et al. (AAAI 2024): which network, trained how, and what the paper reports of it.

A method may have several rows, such as one by its published recipe and one by another: each has a name and a title of
its own, and the tables show what each was trained by.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from mvpose.bench.clips.cnn_siamese import CNNSiamese
from mvpose.bench.clips.losses import (
    ce_loss,
    cnnsiamese_loss,
    guided_sesyn_loss,
    hxe_loss,
    sesyn_loss,
    synnet_loss,
    whole_frames_loss,
)
from mvpose.bench.clips.sesyn import SeSynNet
from mvpose.bench.clips.synnet import SynNet
from mvpose.errors import FormatError
from mvpose.sync.answers import IntervalLogits
from mvpose.sync.insynformer import InSynFormer
from mvpose.sync.train.config import Training
from mvpose.sync.train.losses import guided, lag_loss
from mvpose.sync.train.rows import ADAMW, GUIDED_ADAMW, Row
from mvpose.sync.train.scenes import IFID, Recipe
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


_MENDED = Settings(batch=64)  # what rows that learn by maps are trained in
_SLOW = Settings(clips=2.0, batch=64)  # and those that have to hand what maps say on to heads, or to plain distances
_PUBLISHED = {  # by (HXE, MHSA)
    (False, True): (75.83, 91.10, 19.78, 57.89, 83.58, 1.15),
    (True, True): (75.88, 91.22, 35.65, 74.23, 87.40, 1.13),
    (False, False): (80.27, 94.35, 49.84, 77.62, 92.63, 0.83),
    (True, False): (80.86, 94.35, 61.30, 90.69, 95.49, 0.83, 138.49, 212),
}
_SESYN_SGD = partial(torch.optim.SGD, momentum=0.9, nesterov=True, weight_decay=1e-4)


def _paper(*, mhsa: bool, hxe: bool, whole_frames: bool, **options: Any) -> Callable[[], nn.Module]:
    """Return what builds the paper's flow: the answer by heads, from what views have seen of each other."""
    attention: Any = "mhsa" if mhsa else "tsa+cva"
    known: dict[str, Any] = {
        "reading": "heads",
        "attention": attention,
        "conditional": hxe,
        "whole_frames": whole_frames,
    }
    return partial(InSynFormer, **known, **_step(whole_frames), **options)


def _step(whole_frames: bool) -> dict[str, Any]:
    """Return a time grid of half frames of the integer protocols' 30 fps; else the usual one, half frames of 10 fps."""
    return {"step_s": 1 / 60} if whole_frames else {}


def table_rows(*, whole_frames: bool = False) -> dict[str, TableRow]:
    """Return the rows by name, in the order of the tables.

    Args:
        whole_frames: Whether offsets are whole numbers, as in NTU-SYN and CMU-SYN: no tenths, and the cross-entropy of
            whole frames in place of CE and HXE.
    """

    def answer_loss(hxe: bool) -> Callable[[IntervalLogits, Tensor], Tensor]:
        return whole_frames_loss if whole_frames else hxe_loss if hxe else ce_loss

    def synnet(name: str, title: str, *, hxe: bool, aside: float = 0.0) -> Row:
        frames = IFID.frames if aside else 0
        build = partial(SynNet, conditional=hxe, whole_frames=whole_frames, map_of=frames)
        return Row(name, title, build, synnet_loss(answer_loss(hxe), aside), 2e-3 if aside else 1e-3, ADAMW)

    def published(name: str, title: str, *, hxe: bool, mhsa: bool, figures: tuple[float, ...]) -> TableRow:
        """The paper's network, as deep as it says, trained by the paper's loss alone."""
        loss = answer_loss(hxe)
        build = _paper(mhsa=mhsa, hxe=hxe, whole_frames=whole_frames, maps=False, depth=4, heads=1)
        row = Row(name, title, build, lambda output, offset: loss(output.answer, offset), 1e-3, ADAMW)
        return TableRow(row, (2,) if mhsa or not hxe else (1, 2), figures)

    def guided_paper(name: str, title: str, *, hxe: bool, mhsa: bool) -> TableRow:
        """The paper's network, whose attention is guided by a map and trained by the auxiliary losses as well."""
        build = _paper(mhsa=mhsa, hxe=hxe, whole_frames=whole_frames)
        row = Row(name, title, build, guided(answer_loss(hxe)), 2e-3, GUIDED_ADAMW)
        return TableRow(row, (2,) if mhsa or not hxe else (1, 2), settings=_SLOW)

    def by_lag(name: str, title: str, *, guide: float = 0.3, contrast: float = 0.3, **options: Any) -> TableRow:
        """The form that ships, or that with something else."""
        build = partial(InSynFormer, **_step(whole_frames), **options)
        row = Row(name, title, build, guided(lag_loss, guide, contrast), 2e-3, GUIDED_ADAMW, any_clips=True)
        return TableRow(
            row, (1, 2) if name == "insynformer" else (1,) if options.get("rays") else (2,), settings=_MENDED
        )

    siamese = partial(CNNSiamese, whole_frames=whole_frames)
    named = "InSynFormer + {} + {}"
    kinds = [(hxe, mhsa) for mhsa in (True, False) for hxe in (False, True)]
    names = {
        (hxe, mhsa): (
            f"insynformer-{'hxe' if hxe else 'ce'}{'-mhsa' if mhsa else ''}",
            named.format("HXE" if hxe else "CE", "MHSA" if mhsa else "TSA + CVA"),
        )
        for hxe, mhsa in kinds
    }
    rows = (
        TableRow(synnet("synnet-ce", "SynNet + CE", hxe=False), (2,), (59.78, 90.91, 20.56, 57.84, 79.40, 1.27)),
        TableRow(
            synnet("synnet-hxe", "SynNet + HXE", hxe=True),
            (1, 2),
            (60.41, 91.37, 31.78, 70.12, 85.62, 1.26, 240, 238),
        ),
        TableRow(synnet("synnet-guided", "SynNet + HXE, guided", hxe=True, aside=0.3), (1, 2), settings=_SLOW),
        TableRow(
            Row("sesyn", "SeSyn-Net", SeSynNet, sesyn_loss, 0.005, _SESYN_SGD),
            (1,),
            (79.93, 92.44, None, None, None, 0.87, 122, 196),
        ),
        TableRow(
            Row(
                "sesyn-guided",
                "SeSyn-Net, guided",
                partial(SeSynNet, centred=True),
                guided_sesyn_loss,
                2e-3,
                GUIDED_ADAMW,
            ),
            (1,),
            settings=_SLOW,
        ),
        TableRow(
            Row("cnnsiamese", "CNNSiamese", siamese, cnnsiamese_loss, 1e-3, ADAMW),
            (1,),
            (36.42, 76.34, None, None, None, 2.04, 40, 170),
        ),
        *(published(*names[kind], hxe=kind[0], mhsa=kind[1], figures=_PUBLISHED[kind]) for kind in kinds),
        *(
            guided_paper(f"{name}-guided", f"{title}, guided", hxe=hxe, mhsa=mhsa)
            for (hxe, mhsa), (name, title) in names.items()
        ),
        by_lag("insynformer-bare", "InSynFormer by lag, by its answer alone", guide=0.0, contrast=0.0),
        by_lag("insynformer-no-guide", "InSynFormer by lag, no guide", guide=0.0),
        by_lag("insynformer-no-contrast", "InSynFormer by lag, no InfoNCE", contrast=0.0),
        by_lag("insynformer-no-tsa", "InSynFormer by lag, no TSA", depth=0),
        by_lag("insynformer-cva", "InSynFormer by lag + CVA", attention="tsa+cva"),
        by_lag("insynformer", "InSynFormer by lag"),
        by_lag("insynformer-rays", "InSynFormer by lag, calibrated rays", rays=True),
    )
    return {row.name: row for row in rows}


ROWS: dict[str, TableRow] = table_rows()
"""The rows under IFID's protocol."""

READY = ("correlation", "insynformer-shipped", "insynformer-rays-shipped", "oracle")
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
