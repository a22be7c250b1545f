"""Set the synchronised reconstruction beside the raw one, on the same data, for people and for programs."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mvpose.atomic import atomic_path
from mvpose.calib.rig import CameraRig
from mvpose.clock import Clocks
from mvpose.errors import FormatError, ReconstructionError
from mvpose.formats.results import read_clocks, read_json, read_poses, write_json, write_poses
from mvpose.keypoints import Keypoints2D
from mvpose.pipeline import (
    Built,
    Method,
    Progress,
    Recording,
    build_poses,
    clock_values,
    how_built,
    keypoint_digests,
    no_progress,
    raw_clocks,
    rebuild_poses,
    rig_digest,
)
from mvpose.poses import Poses3D
from mvpose.recon.metrics import clock_errors, evaluate, mpjpe
from mvpose.sync.mend import mended
from mvpose.sync.offsets import OffsetGraph
from mvpose.viz.report import RAW, SYNCED, TRUTH, Comparison, Shot, Variant, render_report
from mvpose.workspace import Workspace, array_digest, digest_of, value_digest

log = logging.getLogger(__name__)

METRICS_FORMAT = "mvpose.metrics/1"
_LABELS = {
    RAW: "Raw",
    SYNCED: "Synchronised",
    TRUTH: "True clocks",
    "triangulate": "Synchronised, triangulated",
    "voxel": "Synchronised, VoxelPose",
}
_MOST_SHOTS = 6


@dataclass(frozen=True)
class Truth:
    """What is known to be true of a session: its clocks, its poses (on those clocks' session time), or both."""

    clocks: Clocks | None = None
    poses: Poses3D | None = None

    @property
    def digest(self) -> str:
        """What stands for the truth in the digest of the comparison."""
        poses = self.poses
        return digest_of(
            self.clocks and clock_values(self.clocks),
            poses and [poses.skeleton.joint_names, array_digest(poses.time_s), array_digest(poses.xyz_m)],
        )


def read_truth(paths: Sequence[Path]) -> Truth:
    """Read a clocks.json and/or a poses3d.npz, in any order.

    Raises:
        FormatError: A file is neither, or there are two of a kind.
    """
    poses = [path for path in paths if path.suffix == ".npz"]
    clocks = [path for path in paths if path.suffix != ".npz"]
    for kind, found in (("poses", poses), ("clocks", clocks)):
        if len(found) > 1:
            raise FormatError(
                f"{found[1]}: there are two files of true {kind}; give one clocks.json and one poses3d.npz"
            )
    return Truth(read_clocks(clocks[0]) if clocks else None, read_poses(poses[0]) if poses else None)


def compare(
    recording: Recording,
    keypoints: Mapping[str, Keypoints2D],
    offsets: OffsetGraph | None,
    clocks: Clocks,
    workspace: Workspace,
    truth: Truth | None = None,
    progress: Progress = no_progress,
    beside: Method | None = None,
) -> dict[str, dict[str, Any]]:
    """Reconstruct with and without synchronisation, measure both, and write the report.

    All variants have the same people, paired across cameras by the synchronised one: what differs is time alone.

    Args:
        recording: The session.
        keypoints: Each camera's keypoints.
        offsets: What the clocks come from.
        clocks: The estimated clocks.
        workspace: Where the report goes.
        truth: What is known to be true.
        progress: Is told of variants.
        beside: Another way from keypoints to 3D, to be shown beside the settings' own, by the same clocks.

    Returns:
        The metrics of each variant: raw, synced, truth where true clocks are given, and the other method.
    """
    assert recording.rig is not None
    truth = truth or Truth()
    if truth.poses is not None and truth.clocks is None and recording.reference is None:
        raise FormatError(
            "true poses alone do not say on whose time they are: give the true clocks.json beside them, or name the "
            "camera with --reference"
        )
    other = replace(recording, settings=replace(recording.settings, method=beside or recording.settings.method))
    digest = digest_of(_digest(recording, keypoints, clocks, truth, workspace), beside, how_built(other.settings))
    if workspace.is_current("compare", digest):
        return workspace.read(read_metrics, workspace.metrics)
    with workspace.making("compare", digest, clocks=value_digest(clock_values(clocks))) as made:
        all_clocks = {SYNCED: clocks, RAW: raw_clocks(recording, clocks)}
        if truth.clocks is not None:
            all_clocks[TRUTH] = _true_clocks(truth.clocks, clocks)
        built = build_poses(keypoints, recording.rig, clocks, recording.settings)
        done: dict[str, Variant] = {}
        for name, own in all_clocks.items():
            done[name] = _variant(name, own, (built, clocks), recording, keypoints, truth)
            progress("compare", len(done), len(all_clocks) + 1)
        if beside is not None and beside != recording.settings.method:
            rival = (build_poses(keypoints, recording.rig, clocks, other.settings, progress), clocks)
            done[beside] = replace(
                _variant(SYNCED, clocks, rival, other, keypoints, truth), name=beside, label=_LABELS[beside]
            )
        variants = tuple(done[name] for name in (RAW, SYNCED, TRUTH, beside) if name in done)
        rig = recording.rig.subset(name for name in recording.session.names if name in clocks.clocks)
        comparison = Comparison(
            title=recording.session.name,
            variants=variants,
            rig=rig,
            offsets=offsets,
            shots=choose_shots(recording, keypoints, variants, rig),
            warnings=tuple(workspace.warnings),
            provenance={"session": str(recording.session.root), "calibration": str(recording.settings.calib)},
            recorded_s={name: (float(k.time_s[0]), float(k.time_s[-1])) for name, k in keypoints.items()},
        )
        write_poses(done[RAW].poses, made.path(workspace.poses3d_raw))
        with atomic_path(made.path(workspace.report)) as temporary:
            temporary.write_text(render_report(comparison), encoding="utf-8", errors="replace")
        metrics = {v.name: dict(v.metrics) for v in variants}
        content = {"format": METRICS_FORMAT, "session": recording.session.name, "variants": metrics}
        write_json(content, made.path(workspace.metrics))
    progress("compare", len(all_clocks) + 1, len(all_clocks) + 1)
    return metrics


def read_metrics(path: Path) -> dict[str, dict[str, Any]]:
    """Read the metrics of each variant from a metrics.json.

    Raises:
        FormatError: It does not hold metrics, or is of a newer version.
    """
    variants = read_json(path, METRICS_FORMAT).get("variants")
    if not isinstance(variants, dict) or not all(isinstance(v, dict) for v in variants.values()):
        raise FormatError(f"{path} does not hold the metrics of a comparison")
    return variants


def _digest(
    recording: Recording, keypoints: Mapping[str, Keypoints2D], clocks: Clocks, truth: Truth, workspace: Workspace
) -> str:
    """Return what the comparison depends on; the detections' own digests stand for the videos that it shows."""
    return digest_of(
        recording.session.name,
        keypoint_digests(recording, workspace),
        [workspace.stages.get(f"detect:{name}", {}).get("digest") for name in keypoints],
        rig_digest(recording.rig),
        clock_values(clocks),
        truth.digest,
        how_built(recording.settings),
    )


def _variant(
    name: str,
    own: Clocks,
    synced: tuple[Built, Clocks],
    recording: Recording,
    keypoints: Mapping[str, Keypoints2D],
    truth: Truth,
) -> Variant:
    """Reconstruct the people of the synchronised variant with some clocks; nobody where those leave nothing of them."""
    assert recording.rig is not None
    built, estimated = synced
    try:
        if own is not estimated:
            built = rebuild_poses(keypoints, recording.rig, synced, own, recording.settings)
    except ReconstructionError as error:
        log.warning("%s: no reconstruction to compare with: %s", _LABELS[name].lower(), error)
        metrics = {"n_people": 0.0, "joints_found": 0.0, **_timing_errors(own, keypoints, truth)}
        return Variant(name, _LABELS[name], _nobody(built.poses), own, metrics)
    metrics = measure(built, recording.rig.subset(built.aligned.cameras), own, keypoints, truth, estimated)
    return Variant(name, _LABELS[name], built.poses, own, metrics)


def _nobody(poses: Poses3D) -> Poses3D:
    """Return the same times without people."""
    none = np.zeros(0, dtype=int)
    return replace(
        poses,
        xyz_m=poses.xyz_m[:, none],
        person_ids=np.asarray(poses.person_ids)[none],
        reprojection_px=poses.reprojection_px[:, none],
        n_views=poses.n_views[:, none],
        cov_m2=poses.cov_m2[:, none],
    )


def _true_clocks(truth: Clocks, clocks: Clocks) -> Clocks:
    """Express true clocks on the estimate's reference, and leave aside the cameras that have no estimate."""
    if clocks.reference not in truth.clocks:
        raise FormatError(f"the true clocks lack {clocks.reference}, on whose time the others are")
    lacking = [name for name in clocks.clocks if name not in truth.clocks]
    if lacking:
        raise FormatError(f"the true clocks lack {', '.join(lacking)}; leave it out with --skip")
    on_reference = truth.on(clocks.reference)
    return replace(on_reference, clocks={n: c for n, c in on_reference.clocks.items() if n in clocks.clocks})


def measure(
    built: Built,
    rig: CameraRig,
    own: Clocks,
    keypoints: Mapping[str, Keypoints2D],
    truth: Truth,
    clocks: Clocks,
) -> dict[str, float]:
    """Measure one variant: what needs no truth always, MPJPE and timing error where there is one.

    Args:
        built: Poses and the keypoints behind them.
        rig: The cameras of those keypoints.
        own: The clocks of this variant.
        keypoints: Each camera's keypoints, for the middle of its recording.
        truth: What is known.
        clocks: The estimated clocks, on whose reference all variants are.
    """
    metrics: dict[str, float] = dict(evaluate(built.poses, built.aligned, rig))
    if truth.poses is not None:
        poses = truth.poses
        if truth.clocks is not None:
            time_s = truth.clocks[clocks.reference].to_camera(poses.time_s)
            poses = replace(poses, time_s=time_s)
        metrics |= mpjpe(built.poses, poses)
    return metrics | _timing_errors(own, keypoints, truth)


def _timing_errors(own: Clocks, keypoints: Mapping[str, Keypoints2D], truth: Truth) -> dict[str, float]:
    if truth.clocks is None:
        return {}
    middle = {name: float(k.time_s[[0, -1]].mean()) for name, k in keypoints.items()}
    errors = clock_errors(own, truth.clocks, middle)
    return {key: value for key, value in errors.items() if key.startswith("timing_error")}


def choose_shots(
    recording: Recording, keypoints: Mapping[str, Keypoints2D], variants: Sequence[Variant], rig: CameraRig
) -> tuple[Shot, ...]:
    """Pick the frames that show best what synchronisation does: every camera at the moments of the fastest movement."""
    synced = next(v for v in variants if v.name == SYNCED)
    shown = synced.poses.time_s[_shown_by_all(synced.poses.time_s, synced.clocks, variants)]
    moments = fastest_moments(synced.poses, shown, max(1, _MOST_SHOTS // max(len(rig), 1)))
    shots: list[Shot] = []
    for moment in moments:
        for camera in rig:
            clock = synced.clocks[camera.name]
            times = mended(keypoints[camera.name], clock).time_s
            t_camera = float(clock.to_camera(moment))
            index = int(np.argmin(np.abs(times - t_camera)))
            if not times[0] <= t_camera <= times[-1] or len(shots) == _MOST_SHOTS:
                continue
            video = recording.videos.get(camera.name)
            image = video.frame(index) if video is not None and index < video.n_frames else None
            at = {v.name: float(v.clocks[camera.name].to_session(times[index])) for v in variants}
            shots.append(Shot(camera, image, at, f"{camera.name}, frame {index}, {at[SYNCED]:.2f} s"))
    return tuple(shots)


def _shown_by_all(time_s: np.ndarray, clocks: Clocks, variants: Sequence[Variant]) -> np.ndarray:
    """Tell for which session times (T,) every variant has poses at the frame that each camera took then.

    Raw poses end where raw times do: a frame beyond that would stand bare in the picture, and prove nothing.
    """
    shown = np.ones(len(time_s), dtype=bool)
    for variant in variants:
        for name, clock in clocks.clocks.items():
            if name in variant.clocks.clocks and len(variant.poses.time_s):
                at = variant.clocks[name].to_session(clock.to_camera(time_s))
                shown &= (at >= variant.poses.time_s[0]) & (at <= variant.poses.time_s[-1])
    return shown if shown.any() else np.ones(len(time_s), dtype=bool)


def fastest_moments(poses: Poses3D, among_s: np.ndarray, count: int, apart_s: float = 1.0) -> list[float]:
    """Return the session times, seconds, of the fastest movement, at least ``apart_s`` apart; none without poses.

    Args:
        poses: The poses.
        among_s: The times of ``poses`` that may be returned.
        count: How many at most.
        apart_s: How far apart at least, seconds.
    """
    if len(poses.time_s) < 3:
        return []
    step = np.linalg.norm(poses.xyz_m[2:] - poses.xyz_m[:-2], axis=-1)
    seen = np.isfinite(step)
    # A person hardly seen must not win by the one joint that jumps.
    mean = np.where(seen.mean((1, 2)) >= 0.3, np.where(seen, step, 0).sum((1, 2)) / np.maximum(seen.sum((1, 2)), 1), 0)
    mean = np.where(np.isin(poses.time_s[1:-1], among_s), mean, 0)
    moments: list[float] = []
    for index in np.argsort(-mean, kind="stable"):
        t = float(poses.time_s[index + 1])
        if len(moments) == count or mean[index] <= 0 or not math.isfinite(mean[index]):
            break
        if all(abs(t - other) >= apart_s for other in moments):
            moments.append(t)
    return moments
