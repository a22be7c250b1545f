"""The runner of trainings: mmengine's loop, log and checkpoints round a row, batches drawn on the way, weights out."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import secrets
import shlex
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from mvpose import __version__
from mvpose.errors import FormatError, MissingDependencyError, MvposeError, WorkspaceError
from mvpose.sync.clips import Decision
from mvpose.sync.train.config import Training, read_training
from mvpose.sync.train.dataset import Batch, Batches
from mvpose.sync.train.metrics import join_decisions, score_decisions
from mvpose.sync.train.rows import Row
from mvpose.training.folder import MotionFolder, Split, seed_of
from mvpose.training.motions import MotionBank
from mvpose.training.weights import save_weights

try:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # mmengine was written for an older torch and setuptools
        from mmengine.hooks import Hook
        from mmengine.model import BaseModel, MMDistributedDataParallel
        from mmengine.optim import OptimWrapper
        from mmengine.runner import Runner
except ImportError as missing:
    raise MissingDependencyError(f'mmengine cannot be imported ({missing}): pip install "mvpose[train]"') from missing

_VAL = 0x5EED  # stream of the batches to validate on, whatever the training's seed is
_T = TypeVar("_T")
_log = logging.getLogger(__name__)


Progress = Callable[[str, int, int], None]
"""Is told what is being done, how much of it is, and how much there is."""


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
    # What makes the weights again; where motions and results lie is nobody else's.
    place = config.name if config.is_absolute() else config.as_posix()
    words = [place, "--seed", str(training.seed), *(word for option in options for word in ("--option", option))]
    command = shlex.join(["mvpose", "train", *words])
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
    """Train a network and write its weights.

    Everything random comes from (seed, rank, iteration), so a resumed training ends with the same weights as one that
    was never interrupted.

    Args:
        training: What is trained, on what, for how long.
        data: The motions.
        work_dir: For log, TensorBoard's events, checkpoints and weights.
        progress: Is told of iterations.
        resume: Whether to go on from the last checkpoint, if there is one.
        launcher: ``pytorch``: this is one of the processes of ``torchrun``, which train together; ``none``.
        command: What to note in the weights as the command that made them.

    Returns:
        The file of weights, ``<work_dir>/<row>.safetensors``, and how good they are; None in all processes but the
        first.

    Raises:
        FormatError: The motions cannot be read or are too short, or a checkpoint is broken.
        WorkspaceError: The folder holds another training, or cannot be written.
        MvposeError: The loss is not finite any more.
    """
    if training.threads is not None:
        torch.set_num_threads(training.threads)
    with _processes(launcher) as (rank, count):
        row, digest = training.network, data.digest()
        checkpoint = _checkpoint_in(work_dir, resume)
        course = json.dumps({**training.course(), "data": digest, "processes": count}, sort_keys=True)
        first = 0 if checkpoint is None else _check_checkpoint(checkpoint, course)
        iterations = max(training.clips // (training.batch * count), 1)
        bank, val_bank = _bank(data, "train", training), _bank(data, "val", training)
        batches = Batches(bank, training.recipes, training.batch, iterations, (training.seed, rank), first)
        val = Batches(val_bank, training.recipes, training.batch, -(-training.val_clips // training.batch), (_VAL,))
        val_batches = [val.draw(index) for index in range(len(val))]

        torch.manual_seed(training.seed)
        network = row.build()
        course_hook = _Course(training, row, course, rank, val_batches, progress)
        try:
            work_dir.mkdir(parents=True, exist_ok=True)
            with _quiet():
                runner = _runner(training, network, batches, work_dir, checkpoint, launcher, course_hook)
                runner.train()
        except OSError as error:
            reason = error.strerror or error
            raise WorkspaceError(f"{work_dir} cannot be written: {reason}; choose another --work-dir") from error
        if rank != 0:
            return None
        path = work_dir / f"{row.name}.safetensors"
        figures = evaluate(row, network, val_batches)
        metadata = {
            "row": row.name,
            "title": row.title,
            "clips": iterations * training.batch * count,
            "training": training.course(),
            "data": digest,
            "command": command,
            "val": {f.name: round(getattr(figures, f.name), 6) for f in fields(figures)},
            "mvpose": __version__,
        }
        save_weights(network, path, metadata, half=training.half)
        return path, figures


@contextlib.contextmanager
def _processes(launcher: str) -> Iterator[tuple[int, int]]:
    """Join the other processes, if there are any; yield this one's rank and their number.

    mmengine would do so by itself, but asks for a GPU.
    """
    if launcher == "none":
        yield 0, 1
        return
    if "RANK" not in os.environ:
        raise MvposeError("--launcher pytorch is for processes that torchrun starts: torchrun -m mvpose.cli train …")
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    torch.distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield torch.distributed.get_rank(), torch.distributed.get_world_size()
    finally:
        torch.distributed.destroy_process_group()


def _bank(data: MotionFolder, split: Split, training: Training) -> MotionBank:
    """Read motions and see that they are long enough for every recipe."""
    bank = data.bank(split)
    for _, recipe in training.recipes:
        try:
            Batches(bank, [(1.0, recipe)], 2, 1, (0,)).draw(0)
        except ValueError as error:
            raise FormatError(f"{data.path}, {split}: {error}; choose shorter recipes or longer motions") from error
    return bank


def _checkpoint_in(work_dir: Path, resume: bool) -> Path | None:
    """Return the last checkpoint of a folder; there must be none if this is a new training."""
    try:
        named = Path((work_dir / "last_checkpoint").read_text(encoding="utf-8").strip())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise WorkspaceError(f"{work_dir} cannot be read: {error}; choose another --work-dir") from error
    if not resume:
        raise WorkspaceError(f"{work_dir} holds a training; go on with --resume, or choose another --work-dir")
    return work_dir / named.name  # by its name only: the folder may have been moved


def _check_checkpoint(path: Path, course: str) -> int:
    """Return the iterations done; refuse a checkpoint that is broken or of a training with other values."""
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        iteration, found = int(checkpoint["meta"]["iter"]), json.loads(checkpoint["course"])
    except Exception as error:  # torch raises whatever the bytes bring about
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise FormatError(
            f"{path} is not a checkpoint of mvpose train ({reason}); start anew with another --work-dir"
        ) from error
    for key, value in json.loads(course).items():
        if found.get(key) != value:
            raise WorkspaceError(
                f"{path} is of a training with {key} {found.get(key)!r}, not {value!r}; choose another --work-dir"
            )
    return iteration


def _runner(
    training: Training,
    network: nn.Module,
    batches: Batches,
    work_dir: Path,
    checkpoint: Path | None,
    launcher: str,
    course_hook: _Course,
) -> Runner:
    """Put mmengine's parts together."""
    row = training.network
    optimizer = row.optimizer_of(network)
    for group in optimizer.param_groups:
        group["lr"] = training.learning_rate or group["lr"]
    warm_up = round(training.warm_up * len(batches))
    warm_up = warm_up if warm_up > 1 else 0  # mmengine rises to the full rate in one iteration less, so not in one
    schedule: list[dict[str, Any]] = [
        {
            "type": "CosineAnnealingLR",
            "by_epoch": False,
            "begin": warm_up,
            "T_max": max(len(batches) - warm_up, 1),
            "eta_min_ratio": training.last_rate,
        }
    ]
    if warm_up:
        schedule.insert(0, {"type": "LinearLR", "start_factor": 0.01, "by_epoch": False, "end": warm_up})
    checkpoints = {"interval": training.checkpoint_every, "by_epoch": False, "max_keep_ckpts": 1}
    backends = [{"type": "LocalVisBackend"}, {"type": "TensorboardVisBackend"}]
    return _Runner(
        model=_Model(row, network, training.autocast),
        work_dir=str(work_dir),
        train_dataloader=DataLoader(batches, batch_size=None, num_workers=training.workers),
        train_cfg={"type": "IterBasedTrainLoop", "max_iters": len(batches)},
        optim_wrapper=OptimWrapper(optimizer, clip_grad={"max_norm": training.clip_grad}),
        param_scheduler=schedule,
        default_hooks={
            "logger": {"type": "LoggerHook", "interval": training.log_every, "log_metric_by_epoch": False},
            "checkpoint": {"type": "CheckpointHook", **checkpoints},
            "sampler_seed": None,  # batches are drawn, nothing is sampled
        },
        custom_hooks=[course_hook],
        log_processor={"by_epoch": False, "window_size": training.log_every},
        visualizer={"type": "Visualizer", "vis_backends": backends, "name": secrets.token_hex(4)},
        # mmengine keeps loggers by this name for as long as the process lives.
        experiment_name=f"{row.name}_{secrets.token_hex(4)}",
        randomness={"seed": training.seed},
        launcher=launcher,
        load_from=None if checkpoint is None else str(checkpoint),
        resume=checkpoint is not None,
    )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep mmengine's log, which goes to files, from stdout, which is for results; hide what users cannot mend."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


class _Runner(Runner):
    """mmengine's, without its look round: that imports torchvision, whose import fails beside a torch it is not for."""

    def _log_env(self, env_cfg: dict[str, Any]) -> None:
        self.logger.info(f"mvpose {__version__}, torch {torch.__version__}, {torch.get_num_threads()} threads")

    def wrap_model(self, model_wrapper_cfg: dict[str, Any] | None, model: nn.Module) -> nn.Module:
        """Wrap as mmengine does, which takes it that processes that train together have a GPU each."""
        if self.distributed and not torch.cuda.is_available():
            return MMDistributedDataParallel(module=model)
        return super().wrap_model(model_wrapper_cfg, model)


class _Model(BaseModel):
    """A network and its loss, as mmengine's runner wants to call them."""

    def __init__(self, row: Row, network: nn.Module, autocast: str) -> None:
        super().__init__()
        self.row, self.network, self.autocast = row, network, autocast

    def init_weights(self) -> None:
        """Leave the weights as the network drew them."""

    def forward(self, batch: Batch, mode: str = "loss") -> dict[str, Tensor]:
        """Return the loss; there is no other mode, since validation is ours."""
        del mode
        batch = _on(self.network, batch)
        with torch.autocast(batch.offset_frames.device.type, torch.bfloat16, enabled=self.autocast == "bf16"):
            output = self.network(batch.pairs)
        return {"loss": self.row.loss(_in_float32(output), batch.offset_frames)}


class _Course(Hook):
    """Sees to what decides the course of a training: randomness, validation, and that a checkpoint holds it all."""

    priority = "LOW"

    def __init__(
        self, training: Training, row: Row, course: str, rank: int, val_batches: list[Batch], progress: Progress
    ) -> None:
        self.training, self.row, self.course, self.rank = training, row, course, rank
        self.val_batches, self.progress = val_batches, progress

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Seed what a network draws while it is trained, such as dropout."""
        torch.manual_seed(seed_of(self.training.seed, self.rank, batch_idx))

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Report, stop what has diverged, validate."""
        done, total = batch_idx + 1, runner.max_iters
        if self.rank == 0 and (self.every_n_train_iters(runner, self.training.log_every) or done == total):
            self.progress(f"train {self.row.name}", done, total)
        if self.every_n_train_iters(runner, self.training.log_every) and not torch.isfinite(outputs["loss"]).all():
            raise MvposeError(
                f"the training of {self.row.name} has diverged within {done} iterations; lower learning_rate"
            )
        if self.rank == 0 and self.every_n_train_iters(runner, self.training.val_every) and done < total:
            self._validate(runner, done)

    def after_train(self, runner: Runner) -> None:
        """Validate at the end."""
        if self.rank == 0:
            self._validate(runner, runner.max_iters)

    def _validate(self, runner: Runner, done: int) -> None:
        network = _unwrapped(runner.model).network
        figures = evaluate(self.row, network, self.val_batches)
        runner.visualizer.add_scalars({f"val/{f.name}": getattr(figures, f.name) for f in fields(figures)}, step=done)
        line = (
            f"{self.row.name}, {done} of {runner.max_iters}: val loss {figures.loss:.4f}, ex@1 {figures.ex_1:.4f}, "
            f"Frm.err {figures.frame_error:.4f}, median error {figures.median_frames:.4f} frames"
        )
        runner.logger.info(line)
        _log.info(line)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Leave plain numbers only: the log's buffers are objects, which torch rightly refuses to unpickle."""
        checkpoint["message_hub"] = {"log_scalars": {}, "runtime_info": {}, "resumed_keys": {}}
        checkpoint["course"] = self.course


def _unwrapped(model: nn.Module) -> Any:
    return getattr(model, "module", model)


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
