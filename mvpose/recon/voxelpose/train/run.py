"""Training of VoxelPose: rooms of people drawn on the way, where the network is; weights out."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from mvpose.calib.files import read_rig
from mvpose.calib.rig import CameraRig
from mvpose.errors import FormatError
from mvpose.recon.voxelpose.model import VoxelPose
from mvpose.recon.voxelpose.networks import Kind
from mvpose.recon.voxelpose.pretrained import WEIGHTS
from mvpose.recon.voxelpose.train.config import Training, read_training
from mvpose.recon.voxelpose.train.losses import finder_loss, poser_loss
from mvpose.recon.voxelpose.train.scenes import (
    Recipe,
    Scenes,
    Stage,
    cropped,
    draw_scenes,
    draw_stage,
    of_people,
    own_stage,
)
from mvpose.training.config import command_of
from mvpose.training.folder import MotionFolder, Split, seed_of
from mvpose.training.motions import MotionBank
from mvpose.training.runner import Job, Progress, run_job
from mvpose.training.weights import load_weights

_VAL = 0x5EED  # stream of the rooms to validate on, whatever the training's seed is
_FOUND_M = 0.5  # a person is found where a place is nearer to the root than this


@dataclass(frozen=True)
class Figures:
    """How good the networks are in rooms of rigs and people that they were not trained on.

    Attributes:
        loss: Mean of the loss.
        recall: Share of people who are found.
        false_share: Share of the places found, of a score of 0.3 and more, where nobody is.
        mpjpe_mm: Mean distance of joints from the true ones, in cubes near the people.
    """

    loss: float
    recall: float
    false_share: float
    mpjpe_mm: float

    def __str__(self) -> str:
        return (
            f"loss {self.loss:.4f}, {100 * self.recall:.1f} % of people found, {100 * self.false_share:.1f} % of the "
            f"places empty, MPJPE {self.mpjpe_mm:.1f} mm"
        )


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
    """Train what a config file says: ``read_training`` and ``run_job``, which describe all of it."""
    training = read_training(config, options, seed)
    job = _VoxelPoseJob(training, MotionFolder(data), command_of(config, training, options))
    return run_job(job, work_dir, progress, resume=resume, launcher=launcher)


@dataclass(frozen=True)
class Batch:
    """What decides a batch of scenes; they are drawn where the network is.

    Attributes:
        stage: Before which rig.
        seed: Of all else.
    """

    stage: Stage
    seed: int

    def drawn(self, bank: MotionBank, recipe: Recipe, count: int) -> Scenes:
        """Draw the scenes on the bank's device."""
        generator = torch.Generator(bank.xyz_m.device).manual_seed(self.seed)
        return draw_scenes(generator, bank, recipe, count, self.stage)


class Batches(Dataset[dict[str, Any]]):
    """Batches, each before another rig, or all before one's own: number i is the same always, whoever asks."""

    def __init__(self, recipe: Recipe, own: Stage | None, count: int, stream: tuple[int, ...], first: int = 0) -> None:
        self.recipe, self.own, self.count, self.stream, self.first = recipe, own, count, stream, first

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Lay out batch ``index``; the runner's model takes what it holds by keyword."""
        return {} if index < self.first else {"batch": self.lay_out(index)}

    def lay_out(self, index: int) -> Batch:
        """Lay out batch ``index``."""
        generator = torch.Generator().manual_seed(seed_of(*self.stream, index))
        stage = draw_stage(generator, self.recipe) if self.own is None else self.own
        return Batch(stage, int(torch.randint(2**31, (1,), generator=generator)))


def _digest(rig: CameraRig) -> str:
    values = [(c.size_px, c.K.tolist(), c.dist.tolist(), c.cam_from_world.tolist(), c.model) for c in rig]
    return hashlib.sha256(repr(values).encode()).hexdigest()


class _VoxelPoseJob(Job):
    """VoxelPose's two networks, trained together."""

    name = "voxelpose"

    def __init__(self, training: Training, data: MotionFolder, command: str) -> None:
        self.plan = self.training = training
        self.data, self.command = data, command
        self.digest = data.digest()
        rig = training.recipe.rig
        self.own = None if rig is None else own_stage(read_rig(Path(rig)))

    def course(self) -> dict[str, Any]:
        return {
            **self.training.course(),
            "data": self.digest,
            **({} if self.own is None else {"rig": _digest(self.own.rig)}),
        }

    def iterations(self, processes: int) -> int:
        return max(self.training.scenes // (self.training.batch * processes), 1)

    def batches(self, rank: int, count: int, first: int) -> Dataset[dict[str, Any]]:
        training = self.training
        if rank == 0:
            self.val = self._val()
        batches = Batches(training.recipe, self.own, count, (training.seed, rank), first)
        self.bank = self.data.bank("train")
        self._drawn(batches.lay_out(0), self.bank, "train")
        return batches

    def _val(self) -> list[Scenes]:
        """Draw the rooms to validate on: by the CPU, so that they are the same wherever the training runs."""
        training, bank = self.training, self.data.bank("val")
        batches = Batches(training.recipe, self.own, -(-training.val_scenes // training.batch), (_VAL,))
        val = [self._drawn(batches.lay_out(index), bank, "val") for index in range(len(batches))]
        if not any(scenes.there.any() for scenes in val):
            raise FormatError(
                f"nobody is seen by two cameras in the {training.val_scenes} rooms to validate on, so nothing can be "
                "learned; is the calibration upright, and are recipe's people and missing_person meant so?"
            )
        return val

    def _drawn(self, batch: Batch, bank: MotionBank, split: Split) -> Scenes:
        try:
            return batch.drawn(bank, self.training.recipe, self.training.batch)
        except ValueError as error:
            raise FormatError(f"{self.data.path}, {split}: {error}") from error

    def build(self) -> nn.Module:
        training = self.training
        network = VoxelPose(cast(Kind, training.voxelpose), training.width, training.cube_cells)
        if training.begin is not None:
            load_weights(network, WEIGHTS if training.begin == "shipped" else Path(training.begin))
        return network

    def optimizer_of(self, network: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=0.01)

    def loss(self, network: nn.Module, batch: Batch) -> Tensor:
        self.bank = self.bank.to(next(network.parameters()).device)  # once; then it is there
        return self._loss_of(network, batch.drawn(self.bank, self.training.recipe, self.training.batch))

    def _loss_of(self, network: nn.Module, scenes: Scenes) -> Tensor:
        generator = torch.Generator().manual_seed(int(torch.randint(2**31, (1,))))
        room, person = of_people(generator, scenes, self.training.people)
        with torch.autocast(scenes.maps.device.type, torch.bfloat16, enabled=self.plan.autocast == "bf16"):
            loss = finder_loss(cast(VoxelPose, network), cropped(generator, scenes, self.training.part))
            if len(room):
                jitter_m = self.training.recipe.jitter_m
                loss = loss + poser_loss(cast(VoxelPose, network), scenes, room, person, jitter_m)
        return loss

    def evaluate(self, network: nn.Module) -> Figures:
        return evaluate(cast(VoxelPose, network), self.val, self._loss_of)

    def describe(self, figures: Figures) -> str:
        return str(figures)

    def metadata(self, iterations: int, processes: int) -> dict[str, Any]:
        training = self.training
        return {
            "voxelpose": training.voxelpose,
            "width": training.width,
            "cube_cells": training.cube_cells,
            "scenes": iterations * training.batch * processes,
            "data": self.digest,
            "command": self.command,
        }


def evaluate(network: VoxelPose, val: Sequence[Scenes], loss_of: Callable[[nn.Module, Scenes], Tensor]) -> Figures:
    """Measure the networks on whole rooms."""
    was_training = network.training
    network.eval()
    losses, errors = [], []
    people = found = places = empty = 0
    with torch.inference_mode():
        for scenes in (batch.to(next(network.parameters()).device) for batch in val):
            torch.manual_seed(_VAL)
            losses.append(float(loss_of(network, scenes)))
            proposed = network.find(scenes.maps, scenes.views, scenes.room)
            apart = torch.cdist(scenes.root_cell, proposed.cell) * scenes.room.voxel_m  # (B, P, K)
            likely = proposed.score >= 0.3
            near = (apart < _FOUND_M) & likely[:, None]
            people, found = people + int(scenes.there.sum()), found + int((near.any(2) & scenes.there).sum())
            # Whoever is seen by one camera alone is no invention.
            places, empty = places + int(likely.sum()), empty + int((likely & ~(apart < _FOUND_M).any(1)).sum())
            room, person = torch.nonzero(scenes.there, as_tuple=True)
            if len(room):
                center = scenes.root_m[room, person]
                center = center + 0.05 * torch.randn_like(center)
                posed = network.pose(scenes.maps, scenes.views, scenes.axes, room, center)
                errors.append((posed.xyz_m - scenes.xyz_m[room, person]).norm(dim=-1).flatten())
    network.train(was_training)
    mpjpe_mm = 1000 * float(torch.cat(errors).mean()) if errors else float("nan")
    return Figures(sum(losses) / len(losses), found / max(people, 1), empty / max(places, 1), mpjpe_mm)
