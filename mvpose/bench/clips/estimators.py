"""What decides on pairs of clips: rows trained here, weights that were made elsewhere, and what learns nothing."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from mvpose.bench.clips.correlation import correlate
from mvpose.bench.clips.oracle import find_offsets
from mvpose.bench.clips.rows import TableTraining
from mvpose.errors import WorkspaceError
from mvpose.pipeline import Progress
from mvpose.sync.clips import Decision
from mvpose.sync.pretrained import WEIGHTS
from mvpose.sync.train import rows as product
from mvpose.sync.train.config import Training
from mvpose.sync.train.metrics import join_decisions
from mvpose.sync.train.rows import Row
from mvpose.sync.train.scenes import LabelledPairs, Recipe
from mvpose.training.folder import MotionFolder
from mvpose.training.weights import load_weights

_BATCH = 256


@dataclass(frozen=True)
class Trained:
    """What a network was trained by, as far as is known.

    Attributes:
        clips: Pairs of clips.
        batch: Pairs in a batch.
        learning_rate: The highest of the schedule.
    """

    clips: int | None = None
    batch: int | None = None
    learning_rate: float | None = None


@dataclass(frozen=True)
class Estimator:
    """Something that decides on pairs.

    Attributes:
        name: Of its row.
        title: What it is called in the tables.
        decide: Its decisions; all but the oracle look at the pairs alone.
        trained: By what; None of one that learns nothing.
        network: None if it has none.
        any_length: Whether it is made for clips of any length, and not of 5 frames.
    """

    name: str
    title: str
    decide: Callable[[LabelledPairs], Decision]
    trained: Trained | None = None
    network: Any = None
    any_length: bool = True


def ready_row(name: str, recipe: Recipe) -> Estimator:
    """Return one of ``rows.READY``.

    Raises:
        FormatError: Weights that come with the package are damaged.
    """
    if name == "correlation":
        return Estimator(name, "correlation", lambda labelled: correlate(labelled.pairs))
    if name == "oracle":
        return Estimator(name, "oracle", lambda labelled: find_offsets(labelled, recipe))
    row = product.ROWS[name.removesuffix("-shipped")]
    return loaded_row(replace(row, name=name, title=f"{row.title}, as shipped"), WEIGHTS / f"{row.name}.safetensors")


def loaded_row(row: Row, path: Path) -> Estimator:
    """Return a row with weights that were not trained here.

    Raises:
        FormatError: The file is missing, broken or of another network.
    """
    network = row.build()
    metadata = load_weights(network, path)
    noted = metadata.get("training")
    said = {**(noted if isinstance(noted, dict) else {}), "clips": metadata.get("clips")}

    def number(key: str, kind: type) -> Any:
        return said[key] if isinstance(said.get(key), kind) else None

    # What a training does not say of its rate is the network's own.
    rate = row.learning_rate if said.get("learning_rate", 0) is None else number("learning_rate", float)
    return network_row(row, network, Trained(number("clips", int), number("batch", int), rate))


def trained_row(training: TableTraining, data: MotionFolder, path: Path, progress: Progress) -> Estimator:
    """Return a row of the comparison, trained now if its weights are not there.

    Args:
        training: Which row, and how it is trained.
        data: The motions.
        path: Of the weights; log and checkpoints are in the folder of its name.
        progress: Is told of iterations.

    Raises:
        FormatError: The weights or the motions cannot be read.
        WorkspaceError: The weights were trained otherwise, or cannot be written.
        MvposeError: The training fails.
    """
    row = training.network
    if not path.is_file():
        from mvpose.sync.train.run import train  # mmengine is needed to train only

        folder = path.with_suffix("")
        train(training, data, folder, progress, resume=True, command="mvpose bench clips")
        (folder / f"{row.name}.safetensors").replace(path)
    network = row.build()
    check_training(path, load_weights(network, path), training, data.digest())
    clips = training.clips // training.batch * training.batch
    return network_row(row, network, Trained(clips, training.batch, training.learning_rate or row.learning_rate))


def check_training(path: Path, metadata: Mapping[str, object], training: Training, digest: str) -> None:
    """See that weights were trained as their row is.

    Raises:
        WorkspaceError: On other motions, other clips, by other steps or from another seed.
    """
    course = json.loads(json.dumps(training.course()))
    keys = ("row", "clips", "batch", "learning_rate", "recipes", "seed")
    wanted = {key: course[key] for key in keys} | {"data": digest}
    noted = metadata.get("training")
    found = {**(noted if isinstance(noted, dict) else {}), "data": metadata.get("data")}
    for key, value in wanted.items():
        if key not in found or found[key] != value:
            raise WorkspaceError(
                f"{path} was trained with {key} {found.get(key)!r}, not {value!r}; choose another --work-dir, or "
                "delete the file and the folder of its name to train anew"
            )


def network_row(row: Row, network: Any, trained: Trained) -> Estimator:
    """Return what a trained network decides."""
    network.eval()

    def decide(labelled: LabelledPairs) -> Decision:
        with torch.inference_mode():
            parts = (labelled.pairs.rows(slice(k, k + _BATCH)) for k in range(0, len(labelled.pairs), _BATCH))
            return join_decisions([network.decide(network(part)) for part in parts])

    return Estimator(row.name, row.title, decide, trained, network, row.any_clips)
