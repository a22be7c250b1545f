"""Reconstruct recordings of the field's data sets, and set our scores beside the published ones.

Run ``mvpose bench recon --data FOLDER``. The data sets are not part of mvpose; :mod:`mvpose.bench.datasets`
says how their folders must look. Cameras are synchronous in all of them, so the clocks are taken as true.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mvpose.bench.datasets import Dataset, list_parts, open_dataset
from mvpose.bench.datasets.base import Protocol
from mvpose.clock import unsynchronised_clocks
from mvpose.detect.tracks import track_people
from mvpose.errors import FormatError
from mvpose.pipeline import Progress, Settings, build_poses, no_progress
from mvpose.recon.scores import AP_MM, Matches, PoseScores, match_poses, pooled_scores


@dataclass(frozen=True)
class Published:
    """A row of the published tables; shares in percent, None where it is not told.

    Attributes:
        method: Its name.
        pcp: Actors 1 to 3, as far as told, and their average last.
        mpjpe_mm: MPJPE.
    """

    method: str
    pcp: tuple[float | None, ...] = ()
    mpjpe_mm: float | None = None


PUBLISHED: dict[str, tuple[Published, ...]] = {
    "Shelf": (
        Published("VoxelPose", (99.3, 94.1, 97.6, 97.0)),
        Published("Faster-VoxelPose", (None, None, None, 97.6)),
        Published("MvP", (99.3, 95.1, 97.8, 97.4)),
        Published("PlaneSweepPose", (99.3, 96.5, 98.0, 97.9)),
    ),
    "Campus": (
        Published("VoxelPose", (None, None, None, 96.7)),
        Published("Faster-VoxelPose", (None, None, None, 96.9)),
        Published("MvP", (None, None, None, 96.6)),
        Published("PlaneSweepPose", (None, None, None, 97.0)),
    ),
    "Panoptic": (
        Published("VoxelPose", mpjpe_mm=17.68),
        Published("Faster-VoxelPose", mpjpe_mm=18.41),
        Published("MvP", mpjpe_mm=15.8),
        Published("PlaneSweepPose", mpjpe_mm=16.75),
    ),
}
"""By the name of a protocol. The networks were trained on Panoptic, or for the cameras of Shelf and Campus."""


@dataclass(frozen=True)
class Evaluation:
    """What came of a data set.

    Attributes:
        protocol: How it was judged.
        source: Where the 2D keypoints come from.
        scores: Of each recording by name.
        pooled: Of all as if they were one.
    """

    protocol: Protocol
    source: str
    scores: dict[str, PoseScores]
    pooled: PoseScores


def evaluate_dataset(dataset: Dataset, method: str | None = None, settings: Settings | None = None) -> PoseScores:
    """Reconstruct a recording with true clocks and score it by its protocol.

    Args:
        dataset: The recording.
        method: ``triangulate`` or ``voxel``; None for the pipeline's default.
        settings: Other choices; the frame rate is the data set's.
    """
    return pooled_scores([match_dataset(dataset, method, settings)])


def match_dataset(dataset: Dataset, method: str | None = None, settings: Settings | None = None) -> Matches:
    """Reconstruct a recording with true clocks and match its people to the true ones; see ``evaluate_dataset``."""
    chosen: dict[str, Any] = {"fps": dataset.fps, **({} if method is None else {"method": method})}
    tracked = {name: k if k.is_tracked else track_people(k) for name, k in dataset.keypoints.items()}
    clocks = unsynchronised_clocks(tracked)
    poses = build_poses(tracked, dataset.rig, clocks, replace(settings or Settings(), **chosen)).poses
    return match_poses(poses, dataset.truth, heads=dataset.protocol.heads, actors=dataset.protocol.actors)


def evaluate_folder(
    folder: Path,
    method: str | None = None,
    settings: Settings | None = None,
    *,
    part: str | None = None,
    progress: Progress = no_progress,
) -> Evaluation:
    """Evaluate the recordings of a data set's folder.

    Args:
        folder: The folder.
        method: As in ``evaluate_dataset``.
        settings: As there.
        part: One recording only.
        progress: Told after each recording.

    Raises:
        FormatError: The folder holds no data set that we know, or a file is not what it should be.
        DetectionError: There are no 2D keypoints.
    """
    names = list_parts(folder) if part is None else (part,)
    matches: dict[str, Matches] = {}
    protocol, source = None, ""
    for done, name in enumerate(names, start=1):
        dataset = open_dataset(folder, name)
        if dataset is None:
            break
        matches[dataset.name] = match_dataset(dataset, method, settings)
        protocol, source = dataset.protocol, dataset.source
        progress(f"evaluate {dataset.name}", done, len(names))
    if protocol is None:
        raise FormatError(
            f"{folder} holds no data set that mvpose knows: Shelf, CampusSeq1, CMU Panoptic, Human3.6M (VideoPose3D's "
            "npz) or TotalCapture"
        )
    scores = {name: pooled_scores([m]) for name, m in matches.items()}
    return Evaluation(protocol, source, scores, pooled_scores(matches.values()))


def format_evaluation(evaluation: Evaluation, label: str = "mvpose") -> str:
    """Return our row beside the published ones, then what else was measured."""
    rows = PUBLISHED.get(evaluation.protocol.name, ())
    of_limbs = any(row.pcp for row in rows)
    pooled = evaluation.pooled
    lines = [f"{evaluation.protocol.name}: {evaluation.protocol.words}; 2D by {evaluation.source}"]
    if of_limbs:
        lines += [f"{'PCP, %':<36}{'actor 1':>9}{'actor 2':>9}{'actor 3':>9}{'average':>9}"]
        lines += [_limb_line(f"{row.method} (published)", row.pcp) for row in rows]
        if pooled.pcp is not None:
            lines += [_limb_line(label, _percent(pooled.pcp.actors, pooled.pcp.mean))]
            lines += [_limb_line(f"{label}, misses not counted", _percent(pooled.pcp.matched, pooled.pcp.mean_matched))]
            lines += ["  " + ", ".join(f"{name} {100 * share:.1f}" for name, share in pooled.pcp.groups.items())]
    else:
        lines += [f"{'':<36}{'MPJPE, mm':>9}"]
        lines += [f"{row.method + ' (published)':<36}{row.mpjpe_mm:>9.2f}" for row in rows if row.mpjpe_mm is not None]
        lines += [f"{label:<36}{pooled.mpjpe_mm:>9.2f}"]
    lines += [_score_header(), *(_score_line(name, scores) for name, scores in evaluation.scores.items())]
    if len(evaluation.scores) > 1:
        lines += [_score_line("all", pooled)]
    return "\n".join(lines)


def _percent(actors: Sequence[float], mean: float) -> tuple[float | None, ...]:
    shares = [*actors[:3], *[float("nan")] * (3 - len(actors)), mean]
    return tuple(None if np.isnan(share) else 100 * share for share in shares)


def _limb_line(name: str, pcp: Sequence[float | None]) -> str:
    return f"{name:<36}" + "".join(f"{'–' if share is None else f'{share:.1f}':>9}" for share in pcp)


def _score_header() -> str:
    ap = "".join(f"{f'AP@{mm}':>8}" for mm in AP_MM)
    return f"{'%, mm':<36}{'MPJPE':>8}{'PA':>8}{ap}{'recall':>8}{'joints':>8}{'switches':>10}{'people':>8}"


def _score_line(name: str, s: PoseScores) -> str:
    ap = "".join(f"{100 * s.ap[mm]:>8.1f}" for mm in AP_MM)
    return (
        f"{name:<36}{s.mpjpe_mm:>8.1f}{s.pa_mpjpe_mm:>8.1f}{ap}{100 * s.recall:>8.1f}{100 * s.joints:>8.1f}"
        f"{s.id_switches:>10}{s.n_true:>8}"
    )
