"""Training of a row: pairs of clips drawn on the way, weights out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from mvpose.errors import FormatError
from mvpose.sync.clips import Decision
from mvpose.sync.train.config import Training, read_training
from mvpose.sync.train.dataset import Batch, Batches
from mvpose.sync.train.metrics import join_decisions, score_decisions
from mvpose.sync.train.rows import Row
from mvpose.training.config import command_of
from mvpose.training.folder import MotionFolder, Split
from mvpose.training.motions import MotionBank
from mvpose.training.runner import Job, Progress, run_job

_VAL = 0x5EED  # stream of the batches to validate on, whatever the training's seed is
_T = TypeVar("_T")


@dataclass(frozen=True)
class Figures:
    """How good a network is on the clips to validate on.

    Attributes:
        loss: Mean of the loss.
        ex_1: Share of pairs whose whole frames are exactly right, the paper's ex@1.
        frame_error: The paper's Frm.err, a mean over unsigned offsets to the tenth, frames.
        median_frames: Median of |offset − truth|, signed and continuous, frames.
    """

    loss: float
    ex_1: float
    frame_error: float
    median_frames: float

    def __str__(self) -> str:
        return (
            f"loss {self.loss:.4f}, ex@1 {self.ex_1:.4f}, Frm.err {self.frame_error:.4f}, median error "
            f"{self.median_frames:.4f} frames"
        )


def evaluate(row: Row, network: Any, batches: list[Batch]) -> Figures:
    """Measure a network; unrelated pairs count in the loss only."""
    was_training = network.training
    network.eval()
    losses, decisions, truths = [], [], []
    with torch.inference_mode():
        for batch in (_on(network, batch) for batch in batches):
            output = network(batch.pairs)
            losses.append(float(row.loss(output, batch.offset_frames)))
            decisions.append(network.decide(output))
            truths.append(batch.offset_frames)
    network.train(was_training)
    truth = torch.cat(truths)
    related = torch.isfinite(truth)
    joined = join_decisions(decisions)
    kept = {f.name: v[related] for f in fields(joined) if (v := getattr(joined, f.name)) is not None}
    decision = Decision(**{"tenth": None, **kept})
    score = score_decisions(decision, truth[related], 1.0)  # in "seconds" of a frame each
    return Figures(sum(losses) / len(losses), score.ex_1, score.frame_error, score.median_ms / 1000)


def run_config(
    config: Path,
    data: Path,
    work_dir: Path,
    progress: Progress,
    *,
    resume: bool = False,
    seed: int | None = None,
    launcher: str = "none",
    options: Sequence[str] = (),
) -> tuple[Path, Figures] | None:
    """Train what a config file says: ``read_training`` and ``train``, which describe all of it."""
    training = read_training(config, options, seed)
    command = command_of(config, training, options)
    return train(training, MotionFolder(data), work_dir, progress, resume=resume, launcher=launcher, command=command)


def train(
    training: Training,
    data: MotionFolder,
    work_dir: Path,
    progress: Progress,
    *,
    resume: bool = False,
    launcher: str = "none",
    command: str = "",
) -> tuple[Path, Figures] | None:
    """Train a network and write its weights: ``run_job``, which says more.

    Args:
        training: What is trained, on what, for how long.
        data: The motions.
        work_dir: For log, TensorBoard's events, checkpoints and weights.
        progress: Is told of iterations.
        resume: Whether to go on from the last checkpoint, if there is one.
        launcher: As ``run_job`` has it.
        command: What to note in the weights as the command that made them.

    Raises:
        FormatError: The motions cannot be read or are too short, or a checkpoint is broken.
    """
    return run_job(_RowJob(training, data, command), work_dir, progress, resume=resume, launcher=launcher)


class _RowJob(Job):
    """A row, trained on pairs of clips."""

    def __init__(self, training: Training, data: MotionFolder, command: str) -> None:
        self.plan = self.training = training
        self.row, self.data, self.command = training.network, data, command
        self.name = self.row.name
        self.digest = data.digest()

    def course(self) -> dict[str, Any]:
        return {**self.training.course(), "data": self.digest}

    def iterations(self, processes: int) -> int:
        return max(self.training.clips // (self.training.batch * processes), 1)

    def batches(self, rank: int, count: int, first: int) -> Dataset[dict[str, Any]]:
        training = self.training
        bank, val_bank = _bank(self.data, "train", training), _bank(self.data, "val", training)
        val = Batches(val_bank, training.recipes, training.batch, -(-training.val_clips // training.batch), (_VAL,))
        self.val_batches = [val.draw(index) for index in range(len(val))]
        return Batches(bank, training.recipes, training.batch, count, (training.seed, rank), first)

    def build(self) -> nn.Module:
        return self.row.build()

    def optimizer_of(self, network: nn.Module) -> torch.optim.Optimizer:
        return self.row.optimizer_of(network)

    def loss(self, network: nn.Module, batch: Batch) -> Tensor:
        batch = _on(network, batch)
        with torch.autocast(batch.offset_frames.device.type, torch.bfloat16, enabled=self.plan.autocast == "bf16"):
            output = network(batch.pairs)
        return self.row.loss(_in_float32(output), batch.offset_frames)

    def evaluate(self, network: nn.Module) -> Figures:
        return evaluate(self.row, network, self.val_batches)

    def describe(self, figures: Figures) -> str:
        return str(figures)

    def metadata(self, iterations: int, processes: int) -> dict[str, Any]:
        clips = iterations * self.training.batch * processes
        return {
            "row": self.row.name,
            "title": self.row.title,
            "clips": clips,
            "data": self.digest,
            "command": self.command,
        }


def _bank(data: MotionFolder, split: Split, training: Training) -> MotionBank:
    """Read motions and see that they are long enough for every recipe."""
    bank = data.bank(split)
    for _, recipe in training.recipes:
        try:
            Batches(bank, [(1.0, recipe)], 2, 1, (0,)).draw(0)
        except ValueError as error:
            raise FormatError(f"{data.path}, {split}: {error}; choose shorter recipes or longer motions") from error
    return bank


def _on(network: nn.Module, batch: Batch) -> Batch:
    """Return a batch where a network's weights are."""
    device = next(network.parameters()).device
    pairs = replace(batch.pairs, **{f.name: getattr(batch.pairs, f.name).to(device) for f in fields(batch.pairs)})
    return Batch(pairs, batch.offset_frames.to(device))


def _in_float32(output: _T) -> _T:
    """Return a dataclass of tensors with all floats in 32 bits, as losses need them."""
    if isinstance(output, Tensor):
        return output.float() if output.is_floating_point() else output  # type: ignore[return-value]
    if is_dataclass(output) and not isinstance(output, type):
        return replace(output, **{f.name: _in_float32(getattr(output, f.name)) for f in fields(output)})
    return output
