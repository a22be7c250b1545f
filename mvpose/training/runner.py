"""The runner of trainings: mmengine's loop, log and checkpoints round a job, batches drawn on the way, weights out."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import math
import os
import secrets
import time
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from mvpose import __version__
from mvpose.errors import FormatError, MissingDependencyError, MvposeError, WorkspaceError
from mvpose.inputs import open_file, parse_json, read_text
from mvpose.training.config import Plan
from mvpose.training.folder import seed_of
from mvpose.training.weights import save_weights

try:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # mmengine was written for an older torch and setuptools
        from mmengine.dist import broadcast
        from mmengine.hooks import Hook
        from mmengine.model import BaseModel, MMDistributedDataParallel
        from mmengine.optim import OptimWrapper
        from mmengine.runner import Runner
except ImportError as missing:
    raise MissingDependencyError(f'mmengine cannot be imported ({missing}): pip install "mvpose[train]"') from missing

_log = logging.getLogger(__name__)

_LARGEST_NOTE = 10_000  # bytes of the file that names the last checkpoint


Progress = Callable[[str, int, int], None]
"""Is told what is being done, how much of it is, and how much there is."""


class Job(ABC):
    """A network to be trained, and what by.

    Everything random comes from (seed, rank, iteration), so that a resumed training ends with the same weights as one
    that was never interrupted.
    """

    name: str
    plan: Plan

    @abstractmethod
    def course(self) -> dict[str, Any]:
        """Return, as text and numbers, all that decides what the weights become; a resumed training must not differ."""

    @abstractmethod
    def iterations(self, processes: int) -> int:
        """Return how many batches each of so many processes is trained on."""

    @abstractmethod
    def batches(self, rank: int, count: int, first: int) -> Dataset[dict[str, Any]]:
        """Return so many batches; those before the first will not be looked at. Items are ``{"batch": …}``."""

    @abstractmethod
    def build(self) -> nn.Module:
        """Make the network, untrained."""

    @abstractmethod
    def optimizer_of(self, network: nn.Module) -> torch.optim.Optimizer:
        """Make the optimiser of a network's parameters."""

    @abstractmethod
    def loss(self, network: nn.Module, batch: Any) -> Tensor:
        """Return what is to be made less."""

    @abstractmethod
    def evaluate(self, network: nn.Module) -> Any:
        """Return how good a network is on what is there to validate on: a dataclass of numbers."""

    @abstractmethod
    def describe(self, figures: Any) -> str:
        """Say so in a line."""

    @abstractmethod
    def metadata(self, iterations: int, processes: int) -> dict[str, Any]:
        """Return what a file of weights says of them, besides course and figures."""


def run_job(
    job: Job, work_dir: Path, progress: Progress, *, resume: bool = False, launcher: str = "none"
) -> tuple[Path, Any] | None:
    """Train a network and write its weights.

    Args:
        job: What is trained, and what by.
        work_dir: For log, TensorBoard's events, checkpoints and weights.
        progress: Is told of iterations.
        resume: Whether to go on from the last checkpoint, if there is one.
        launcher: ``pytorch``: this is one of the processes of ``torchrun``, which train together; ``none``.

    Returns:
        The file of weights, ``<work_dir>/<name>.safetensors``, and how good they are; None in all processes but the
        first, and where the plan's minutes were over before.

    Raises:
        FormatError: A checkpoint is broken.
        WorkspaceError: The folder holds another training, or cannot be written.
        MvposeError: The loss is not finite any more.
    """
    plan, start_s = job.plan, time.monotonic()
    if plan.threads is not None:
        torch.set_num_threads(plan.threads)
    torch.set_flush_denormal(True)  # numbers too small to matter are a hundred times as slow
    with _processes(launcher) as (rank, count):
        checkpoint = _checkpoint_in(work_dir, resume)
        course = json.dumps({**job.course(), "processes": count}, sort_keys=True)
        first = 0 if checkpoint is None else _check_checkpoint(checkpoint, course)
        iterations = job.iterations(count)
        batches = job.batches(rank, iterations, first)
        torch.manual_seed(plan.seed)
        network = job.build()
        try:
            work_dir.mkdir(parents=True, exist_ok=True)
            with _quiet():
                hook = _Course(job, course, rank, progress, start_s)
                runner = _runner(job, network, batches, iterations, work_dir, checkpoint, launcher, hook)
                runner.train()
        except OSError as error:
            reason = error.strerror or error
            raise WorkspaceError(f"{work_dir} cannot be written: {reason}; choose another --work-dir") from error
        if rank != 0 or runner.train_loop.stop_training:
            return None
        path, figures = work_dir / f"{job.name}.safetensors", hook.figures
        metadata = {
            **job.metadata(iterations, count),
            "training": job.course(),
            "val": {name: round(value, 6) if math.isfinite(value) else None for name, value in asdict(figures).items()},
            "mvpose": __version__,
        }
        save_weights(network, path, metadata, half=plan.half)
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


def _checkpoint_in(work_dir: Path, resume: bool) -> Path | None:
    """Return the last checkpoint of a folder; there must be none if this is a new training."""
    try:
        named = Path(read_text(work_dir / "last_checkpoint", _LARGEST_NOTE).strip())
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
        with open_file(path) as file:
            checkpoint = torch.load(file, map_location="cpu", weights_only=True)
        iteration, found = int(checkpoint["meta"]["iter"]), parse_json(checkpoint["course"])
        if not isinstance(found, dict) or iteration < 0:
            raise ValueError("it does not say what was trained")
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
    job: Job,
    network: nn.Module,
    batches: Dataset[dict[str, Any]],
    iterations: int,
    work_dir: Path,
    checkpoint: Path | None,
    launcher: str,
    course_hook: _Course,
) -> Runner:
    """Put mmengine's parts together."""
    plan, optimizer = job.plan, job.optimizer_of(network)
    for group in optimizer.param_groups:
        group["lr"] = plan.learning_rate or group["lr"]
    warm_up = round(plan.warm_up * iterations)
    warm_up = warm_up if warm_up > 1 else 0  # mmengine rises to the full rate in one iteration less, so not in one
    schedule: list[dict[str, Any]] = [
        {
            "type": "CosineAnnealingLR",
            "by_epoch": False,
            "begin": warm_up,
            "T_max": max(iterations - warm_up, 1),
            "eta_min_ratio": plan.last_rate,
        }
    ]
    if warm_up:
        schedule.insert(0, {"type": "LinearLR", "start_factor": 0.01, "by_epoch": False, "end": warm_up})
    # Two, for the older one goes before the new one is written, and that may be cut off.
    checkpoints = {"interval": plan.checkpoint_every, "by_epoch": False, "max_keep_ckpts": 2}
    backends = [{"type": "LocalVisBackend"}, {"type": "TensorboardVisBackend"}]
    return _Runner(
        model=_Model(job, network),
        work_dir=str(work_dir),
        train_dataloader=DataLoader(batches, batch_size=None, num_workers=plan.workers),
        train_cfg={"type": "IterBasedTrainLoop", "max_iters": iterations},
        optim_wrapper=OptimWrapper(optimizer, clip_grad={"max_norm": plan.clip_grad}),
        param_scheduler=schedule,
        default_hooks={
            "logger": {"type": "LoggerHook", "interval": plan.log_every, "log_metric_by_epoch": False},
            "checkpoint": {"type": "CheckpointHook", **checkpoints},
            "sampler_seed": None,  # batches are drawn, nothing is sampled
        },
        custom_hooks=[course_hook],
        log_processor={"by_epoch": False, "window_size": plan.log_every},
        visualizer={"type": "Visualizer", "vis_backends": backends, "name": secrets.token_hex(4)},
        # mmengine keeps loggers by this name for as long as the process lives.
        experiment_name=f"{job.name}_{secrets.token_hex(4)}",
        randomness={"seed": plan.seed},
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
        """Wrap as mmengine does, which takes it that processes that train together have a GPU each.

        A batch may leave parameters without a part in its loss: of rooms with nobody in them, nobody is posed.
        """
        if self.distributed and not torch.cuda.is_available():
            return MMDistributedDataParallel(module=model, find_unused_parameters=True)
        unused = {"type": "MMDistributedDataParallel", "find_unused_parameters": True}
        return super().wrap_model(unused if self.distributed else model_wrapper_cfg, model)


class _Model(BaseModel):
    """A network and its loss, as mmengine's runner wants to call them."""

    def __init__(self, job: Job, network: nn.Module) -> None:
        super().__init__()
        self.job, self.network = job, network

    def init_weights(self) -> None:
        """Leave the weights as the network drew them."""

    def forward(self, batch: Any, mode: str = "loss") -> dict[str, Tensor]:
        """Return the loss; there is no other mode, since validation is ours."""
        del mode
        return {"loss": self.job.loss(self.network, batch)}


class _Course(Hook):
    """Sees to what decides the course of a training: randomness, validation, and that a checkpoint holds it all."""

    priority = "LOW"

    def __init__(self, job: Job, course: str, rank: int, progress: Progress, start_s: float) -> None:
        self.job, self.plan, self.course, self.rank, self.progress = job, job.plan, course, rank, progress
        self.start_s = start_s
        self.figures: Any = None  # of the last validation

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Seed what a network draws while it is trained, such as dropout."""
        torch.manual_seed(seed_of(self.plan.seed, self.rank, batch_idx))

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Report, stop what has diverged, validate, stop when time is over."""
        done, total = batch_idx + 1, runner.max_iters
        if self.rank == 0 and (self.every_n_train_iters(runner, self.plan.log_every) or done == total):
            self.progress(f"train {self.job.name}", done, total)
        if self.every_n_train_iters(runner, self.plan.log_every) and not torch.isfinite(outputs["loss"]).all():
            raise MvposeError(
                f"the training of {self.job.name} has diverged within {done} iterations; lower learning_rate"
            )
        if self.rank == 0 and self.every_n_train_iters(runner, self.plan.val_every) and done < total:
            self._validate(runner, done)
        if self.every_n_train_iters(runner, self.plan.checkpoint_every) and done < total and self._time_is_over():
            runner.train_loop.stop_training = True
            if self.rank == 0:
                _log.warning("%s was trained for %d of %d iterations; go on with --resume", self.job.name, done, total)

    def _time_is_over(self) -> bool:
        """Tell whether the first process's minutes are over; processes that train together stop together."""
        if self.plan.minutes is None:
            return False
        over = torch.tensor(float(time.monotonic() - self.start_s >= 60 * self.plan.minutes))
        broadcast(over)
        return bool(over)

    def after_train(self, runner: Runner) -> None:
        """Validate at the end."""
        if self.rank == 0 and not runner.train_loop.stop_training:
            self._validate(runner, runner.max_iters)

    def _validate(self, runner: Runner, done: int) -> None:
        self.figures = self.job.evaluate(_unwrapped(runner.model).network)
        runner.visualizer.add_scalars({f"val/{name}": value for name, value in asdict(self.figures).items()}, step=done)
        line = f"{self.job.name}, {done} of {runner.max_iters}: val {self.job.describe(self.figures)}"
        runner.logger.info(line)
        _log.info(line)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Leave plain numbers only: the log's buffers are objects, which torch rightly refuses to unpickle."""
        kept = {"keep_ckpt_ids": runner.message_hub.get_info("keep_ckpt_ids")}
        checkpoint["message_hub"] = {"log_scalars": {}, "runtime_info": kept, "resumed_keys": dict.fromkeys(kept, True)}
        checkpoint["course"] = self.course


def _unwrapped(model: nn.Module) -> Any:
    return getattr(model, "module", model)
