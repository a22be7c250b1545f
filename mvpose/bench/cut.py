"""Real recordings cut apart by known amounts: clocks against the cut, and reprojection raw, synchronised and uncut.

Run ``mvpose bench cut``. The recordings' own synchronisation is only believed, so the clocks estimated on the
uncut videos are printed too, and the errors against the cut are given with and without them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from mvpose import pipeline
from mvpose.clock import Clocks
from mvpose.compare import Truth, compare
from mvpose.demo import RECORDINGS, cut_apart, cut_clocks, fetch_recordings
from mvpose.pipeline import Settings
from mvpose.sync.synchronise import synchronise_cameras
from mvpose.workspace import open_workspace

CUTS: Mapping[str, tuple[tuple[int, int, int, int], int]] = {
    "uncut, 60 fps": ((0, 0, 0, 0), 1),
    "whole frames of 60 fps": ((0, 9, 20, 31), 1),
    "half frames of 30 fps": ((0, 13, 24, 35), 2),
    "thirds of frames of 20 fps": ((0, 10, 23, 35), 3),
}
"""First frame of each camera, and every how many-th frame is kept."""


@dataclass(frozen=True)
class Outcome:
    """What came of one recording, cut in one way.

    Attributes:
        clocks: By the calibrated chain.
        learned: By the learned network alone, without the calibration.
        truth: By the cut.
        metrics: Of each variant of the reconstruction.
    """

    clocks: Clocks
    learned: Clocks
    truth: Clocks
    metrics: dict[str, dict[str, float]]


def run_cut(source: Path, first: Mapping[str, int], every: int, detector: str, folder: Path) -> Outcome:
    """Cut one recording and take it through the chain."""
    cut_apart(source / "videos", folder / "videos", first, every)
    truth = cut_clocks(first, 60.0)
    settings = Settings(calib=source / "calibration" / "Calib.qca.txt", detector=detector, reference="cam01")
    recording = pipeline.open_recording(folder, settings)
    workspace = open_workspace(folder / "mvpose")
    keypoints = pipeline.detect(recording, workspace)
    offsets, clocks = pipeline.synchronise(recording, keypoints, workspace)
    _, learned = synchronise_cameras(keypoints, reference="cam01")
    return Outcome(
        clocks, learned, truth, compare(recording, keypoints, offsets, clocks, workspace, Truth(clocks=truth))
    )


def _beyond(truth: Clocks, uncut: Clocks) -> Clocks:
    """Add to the cut what the uncut videos are estimated to be off themselves."""
    clocks = {
        name: replace(clock, offset_s=clock.offset_s + uncut[name].offset_s)
        for name, clock in truth.clocks.items()
        if name in uncut.clocks
    }
    return replace(truth, clocks=clocks)


def _errors(clocks: Clocks, truth: Clocks) -> str:
    pairs = [(clocks[n], truth[n]) for n in clocks.clocks if n in truth.clocks and n != clocks.reference]
    errors = np.array([float(own.to_session(own.epoch_s) - true.to_session(own.epoch_s)) for own, true in pairs])
    shown = ", ".join(f"{own.camera} {1e3 * e:+.1f}" for (own, _), e in zip(pairs, errors, strict=True))
    return f"{shown} ms (mean |error| {1e3 * np.abs(errors).mean():.1f})" if pairs else "no clocks"


def run_cuts(recordings: Path | None, detector: str, scratch: Path) -> Iterator[str]:
    """Yield clocks and metrics of every recording and cut, as text.

    Args:
        recordings: Folder of the recordings; fetched if None.
        detector: 2D pose engine.
        scratch: Folder for what is made.
    """
    source = recordings or fetch_recordings(scratch / "recordings")
    for name, folder in RECORDINGS.items():
        uncut: Clocks | None = None
        for label, (frames, every) in CUTS.items():
            first = {f"cam{i + 1:02d}": frame for i, frame in enumerate(frames)}
            found = run_cut(source / folder, first, every, detector, scratch / f"{name} {label}")
            yield f"\n{name}, {label}\n{format_outcome(found, uncut)}"
            uncut = uncut or found.clocks


def format_outcome(found: Outcome, uncut: Clocks | None) -> str:
    """Return clocks and metrics as text.

    Args:
        found: What came of a recording.
        uncut: What its uncut videos were estimated to be off themselves; None where nothing was cut.
    """
    clocks, truth = found.clocks, found.truth
    if uncut is None:
        own = ", ".join(
            f"{c.camera} {1e3 * c.offset_s:+.1f} ± {1e3 * c.sigma_at_epoch_s:.1f}" for c in clocks.clocks.values()
        )
        lines = [f"its own clocks: {own} ms"]
    else:
        both = _beyond(truth, uncut)
        lines = [
            f"against the cut alone: {_errors(clocks, truth)}",
            f"against the cut and the uncut clocks: {_errors(clocks, both)}",
            f"without calibration, against both: {_errors(found.learned, both)}",
        ]
    lines += [f"no clock for {camera}: {why}" for camera, why in clocks.unsynchronised.items()]
    lines += [
        f"without calibration, no clock for {camera}: {why}" for camera, why in found.learned.unsynchronised.items()
    ]
    lines += [
        f"{variant:<7} reprojection mean {values['reprojection_px_mean']:.2f} median "
        f"{values['reprojection_px_median']:.2f} px, bone spread {values['bone_spread_mm']:.1f} mm, "
        f"joints found {100 * values['joints_found']:.1f} %, {values['n_people']:.0f} people"
        for variant, values in found.metrics.items()
    ]
    return "\n".join(f"  {line}" for line in lines)
