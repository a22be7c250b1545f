"""The report: the synchronised reconstruction beside the raw one, on the same data, in one HTML file, offline.

What stands in it is decided here, how it looks in ``templates/``. Names that come from the user are escaped by the
template engine, and the page forbids itself every request.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import cv2
import numpy as np

from mvpose.calib.camera import MIN_SIDE_PX, Camera
from mvpose.calib.rig import CameraRig
from mvpose.clock import Clock, Clocks
from mvpose.poses import Poses3D
from mvpose.sync.offsets import OffsetGraph
from mvpose.viz.picture import draw_people
from mvpose.viz.scene import body_colours, people_at, positions_at, set_stage

if TYPE_CHECKING:
    from mvpose.viz.plots import Line

RAW, SYNCED, TRUTH = "raw", "synced", "truth"
_COLOURS = {RAW: "#8a94a0", SYNCED: "#00806a", TRUTH: "#7c3aed"}
_OTHER_COLOUR = "#b45309"

_OVERLAY_LIMB_RADIUS_M = 0.016
_SHOT_WIDTH_PX = 640
_LARGEST_SHOT_PX = 4096  # of the image that a shot is cut from: people are drawn at its size
_PLAYBACK_FRAMES, _PLAYBACK_S = 300, 12.0
_PLOT_WINDOW_S = 10.0
_INT16_NAN = -32768


@dataclass(frozen=True)
class Variant:
    """One reconstruction of the same data.

    Attributes:
        name: ``raw``, ``synced`` or ``truth`` (reconstructed with perfect clocks).
        label: What people call it.
        poses: The 3D poses.
        clocks: The clocks that they were made with.
        metrics: Figures by key; a missing or NaN one is shown as a dash.
    """

    name: str
    label: str
    poses: Poses3D
    clocks: Clocks
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class Shot:
    """One video frame to draw the skeletons over.

    Attributes:
        camera: Whose frame.
        image: (H, W, 3) uint8 RGB; None for an empty canvas.
        t_session_s: Session time of the frame by the clocks of each variant, by its name.
        title: What the picture shows.
    """

    camera: Camera
    image: np.ndarray | None
    t_session_s: Mapping[str, float]
    title: str


@dataclass(frozen=True)
class Comparison:
    """All that the report tells.

    Attributes:
        title: Of the session.
        variants: The reconstructions, raw first.
        rig: The cameras.
        offsets: The pairwise estimates; None where nothing was estimated.
        shots: Video frames.
        warnings: One line each.
        provenance: What was done, by name.
        recorded_s: Each camera's first and last frame on its own time, seconds.
    """

    title: str
    variants: tuple[Variant, ...]
    rig: CameraRig
    offsets: OffsetGraph | None
    shots: tuple[Shot, ...] = ()
    warnings: tuple[str, ...] = ()
    provenance: Mapping[str, Any] = field(default_factory=dict)
    recorded_s: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    def variant(self, name: str) -> Variant | None:
        """Return the variant of that name, if there is one."""
        return next((v for v in self.variants if v.name == name), None)


@dataclass(frozen=True)
class Metric:
    """How to show a figure.

    Attributes:
        label: What it is.
        unit: Its unit, or nothing.
        decimals: How many its accuracy deserves.
        better: Which way is better; None where neither.
        scale: Factor from the stored value to the unit.
        hint: How it is made, for who asks.
    """

    label: str
    unit: str = ""
    decimals: int = 2
    better: Literal["low", "high"] | None = None
    scale: float = 1.0
    hint: str = ""

    def show(self, value: float | None) -> str:
        """Return the value as text; a dash where there is none."""
        if not _is_number(value):
            return "–"
        return f"{float(value) * self.scale:,.{self.decimals}f}"  # type: ignore[arg-type]


METRICS: dict[str, Metric] = {
    "reprojection_px_mean": Metric(
        "Reprojection error, mean", "px", 2, "low",
        hint="distance in the image between a keypoint and the 3D joint projected back, over all views that saw it",
    ),
    "reprojection_px_median": Metric("Reprojection error, median", "px", 2, "low"),
    "reprojection_px_p90": Metric("Reprojection error, 90th percentile", "px", 2, "low"),
    "bone_spread_mm": Metric(
        "Bone length spread", "mm", 1, "low", hint="how much a bone's length varies over time (σ), mean over bones"
    ),
    "acceleration_mps2": Metric(
        "Acceleration of joints", "m/s²", 1, "low", hint="people's own, and jitter on top of it, which is error"
    ),
    "joints_found": Metric(
        "Joints found", "%", 1, "high", 100.0, hint="share of the joints of people whom two views or more saw"
    ),
    "n_people": Metric("People", "", 0),
    "mpjpe_mm": Metric("Distance to the true joints, mean", "mm", 1, "low", hint="also called MPJPE, at the true time"),
    "median_mm": Metric("Distance to the true joints, median", "mm", 1, "low"),
    "p90_mm": Metric("Distance to the true joints, 90th percentile", "mm", 1, "low"),
    "mpjpe_fast_mm": Metric(
        "Distance to the true joints, fast ones", "mm", 1, "low", hint="those that truly move at 1.5 m/s or faster"
    ),
    "recall": Metric("True joints found", "%", 1, "high", 100.0),
    "n_matched": Metric("True people found", "", 0, "high"),
    "id_switches": Metric("Identity switches", "", 0, "low", hint="how often a true person's number changes"),
    "timing_error_ms_mean": Metric("Clock error, mean", "ms", 1, "low", hint="against the true clocks, mid-recording"),
    "timing_error_ms_median": Metric("Clock error, median", "ms", 1, "low"),
    "timing_error_ms_max": Metric("Clock error, largest", "ms", 1, "low"),
}  # fmt: skip


def render_report(comparison: Comparison) -> str:
    """Return the report as one HTML page without any outside reference."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=PackageLoader("mvpose.viz", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    playback, clock_rows = playback_data(comparison), _clock_rows(comparison)
    return environment.get_template("report.html").render(
        title=comparison.title,
        subtitle=_subtitle(comparison),
        verdict=verdict(comparison),
        tiles=_tiles(comparison),
        warnings=comparison.warnings,
        unsynchronised=_unsynchronised(comparison),
        variants=[{"label": v.label, "colour": _colour(v)} for v in comparison.variants],
        measures=_measures(comparison),
        playback=Markup(_embedded(playback)) if playback else "",
        playback_views=playback["variants"] if playback else [],
        playback_frames=playback["frames"] if playback else 0,
        shots=[_shot_pictures(shot, comparison.variants) for shot in comparison.shots],
        clocks=clock_rows,
        has_truth=any(row["error"] for row in clock_rows),
        clock_facts=_clock_facts(comparison),
        rejected=_rejected_rows(comparison),
        figures=_figures(comparison),
        provenance=[(key, _plain(value)) for key, value in comparison.provenance.items()],
        hints=[(m.label, m.hint) for key, m in METRICS.items() if m.hint and _anywhere(comparison, key)],
    )


def draw_skeletons(image: np.ndarray, camera: Camera, poses: Poses3D, t: float) -> np.ndarray:
    """Return a copy of a video frame with the poses at session time ``t`` drawn over it.

    Args:
        image: (H, W, 3) uint8 RGB, as it came from the camera, still distorted.
        camera: The camera that took it.
        poses: The poses, interpolated at ``t``.
        t: Session time, seconds.
    """
    return draw_people(image, camera, people_at(poses, t), _OVERLAY_LIMB_RADIUS_M, halo=True)


def verdict(comparison: Comparison) -> str:
    """Return one sentence that says what synchronisation bought, with numbers."""
    raw, synced = comparison.variant(RAW), comparison.variant(SYNCED)
    if synced is None:
        return "There is no synchronised reconstruction to compare."
    changes = [
        (phrase, METRICS[key], raw.metrics.get(key) if raw else None, synced.metrics.get(key))
        for key, phrase in (
            ("reprojection_px_mean", "the mean reprojection error"),
            ("bone_spread_mm", "the spread of bone lengths"),
            ("mpjpe_mm", "the distance to the true joints"),
        )
    ]
    known = [c for c in changes if _is_number(c[2]) and _is_number(c[3])]
    if not known:
        if raw and not _is_number(raw.metrics.get("reprojection_px_mean")) and _is_number(changes[0][3]):
            return (
                "Without synchronisation nothing could be reconstructed; with it, the mean reprojection error is "
                f"{_rough(changes[0][3])} {changes[0][1].unit}."
            )
        return "Raw and synchronised reconstructions cannot be compared: one of them holds no measures."
    told = _listed([f"{phrase} from {_rough(a)} to {_rough(b)} {m.unit}" for phrase, m, a, b in known[:2]])
    ratio = float(known[0][3]) / max(float(known[0][2]), 1e-12)  # type: ignore[arg-type]
    if ratio < 0.91:
        return f"Synchronising the cameras brought {told}."
    if ratio > 1.1:
        return f"Synchronising the cameras made things worse: it moved {told}."
    return f"Synchronising the cameras changed little: it moved {told}."


def playback_data(comparison: Comparison) -> dict[str, Any] | None:
    """Return what the page's 3D player shows: at most 300 frames of the liveliest stretch, side by side.

    Positions are int16 millimetres from the middle of the ground in axes (side, front, up), base64, little endian,
    (frames, people, joints, 3); −32768 is missing. None where nobody is.
    """
    from mvpose.viz.plots import liveliest_window

    shown = [v for v in comparison.variants if np.isfinite(v.poses.xyz_m).any()]
    if not shown:
        return None
    main = next((v for v in shown if v.name == SYNCED), shown[-1])
    start, end = liveliest_window(main.poses, _PLAYBACK_S)
    rate = min(
        main.poses.frame_rate if len(main.poses.time_s) > 1 else 1.0, (_PLAYBACK_FRAMES - 1) / max(end - start, 1e-9)
    )
    times = start + np.arange(min(_PLAYBACK_FRAMES, math.floor((end - start) * rate + 1e-6) + 1)) / rate
    stage = set_stage(main.poses, comparison.rig)
    side = np.eye(3)[(int(np.abs(stage.up).argmax()) + 1) % 3]
    axes = np.stack([side, np.cross(stage.up, side), stage.up])

    def packed(xyz: np.ndarray) -> str:
        mm = 1000 * (xyz - stage.ground_center_m) @ axes.T
        there = np.isfinite(mm).all(axis=-1, keepdims=True) & (np.abs(mm) < 32000).all(axis=-1, keepdims=True)
        whole = np.where(there, np.round(np.where(there, mm, 0)), _INT16_NAN).astype("<i2")
        return base64.b64encode(whole.tobytes()).decode()

    return {
        "start_s": round(float(times[0]), 4),
        "rate": round(float(rate), 4),
        "frames": len(times),
        "cameras": list(stage.camera_names),
        "centers": packed(stage.camera_centers_m),
        "frusta": packed(stage.frusta_m),
        "variants": [
            {
                "label": v.label,
                "colour": _colour(v),
                "joints": len(v.poses.skeleton),
                "people": len(v.poses.person_ids),
                "limbs": [list(limb) for limb in v.poses.skeleton.limbs],
                "colours": [_hex(rgb) for rgb in body_colours(v.poses.skeleton, len(v.poses.person_ids))[1]],
                "xyz": packed(np.stack([positions_at(v.poses, t) for t in times.tolist()])),
            }
            for v in shown
        ],
    }


def _subtitle(comparison: Comparison) -> str:
    """Return what was recorded, in a few words."""
    main = comparison.variant(SYNCED) or next(iter(comparison.variants), None)
    cameras = len(set(comparison.rig.names) | set(main.clocks.unsynchronised if main else ()))
    parts = [f"{cameras} camera" + "s" * (cameras != 1)]
    if main is not None:
        people, times = len(main.poses.person_ids), main.poses.time_s
        parts.append("nobody" if not people else "1 person" if people == 1 else f"{people} people")
        if len(times):
            parts.append(f"{times[-1] - times[0]:.1f} s at {main.poses.frame_rate:.4g} frames per second")
    return " · ".join(parts)


def _tiles(comparison: Comparison) -> list[dict[str, str]]:
    """Return the few figures that stand at the top, before and after."""
    raw, synced = comparison.variant(RAW), comparison.variant(SYNCED)
    if synced is None:
        return []
    tiles: list[dict[str, str]] = []
    for key in ("reprojection_px_mean", "bone_spread_mm", "mpjpe_mm", "timing_error_ms_max"):
        metric, after = METRICS[key], synced.metrics.get(key)
        if _is_number(after) and len(tiles) < 3:
            before = metric.show(raw.metrics.get(key)) if raw else "–"
            tiles.append({"label": metric.label, "before": before, "after": metric.show(after), "unit": metric.unit})
    known, unknown = len(synced.clocks.clocks), len(synced.clocks.unsynchronised)
    share = {"label": "Cameras on one clock", "before": "", "after": f"{known}", "unit": f"of {known + unknown}"}
    return [*tiles, share]


def _measures(comparison: Comparison) -> list[dict[str, Any]]:
    """Return the rows of the table of measures; the better of raw and synced is marked."""
    keys = [key for key in METRICS if _anywhere(comparison, key)]
    keys += sorted({key for v in comparison.variants for key in v.metrics} - set(METRICS))
    rows = []
    for key in keys:
        metric = METRICS.get(key, Metric(key, "", 3))
        values = {v.name: v.metrics.get(key) for v in comparison.variants}
        shown = {name: metric.show(value) for name, value in values.items()}
        best = _better(values.get(RAW), values.get(SYNCED), metric) if shown.get(RAW) != shown.get(SYNCED) else None
        cells = [{"text": shown[v.name], "best": v.name == best} for v in comparison.variants]
        rows.append({"label": metric.label, "unit": metric.unit, "cells": cells})
    return rows


def _better(raw: float | None, synced: float | None, metric: Metric) -> str | None:
    if metric.better is None or not _is_number(raw) or not _is_number(synced):
        return None
    return SYNCED if (float(synced) < float(raw)) == (metric.better == "low") else RAW  # type: ignore[arg-type]


def _clock_rows(comparison: Comparison) -> list[dict[str, str]]:
    synced, truth = comparison.variant(SYNCED), comparison.variant(TRUTH)
    if synced is None:
        return []
    clocks = synced.clocks
    names = [name for name in comparison.rig.names if name in clocks.clocks]
    names += [name for name in clocks.clocks if name not in names]
    return [_clock_row(clocks, clocks[name], truth.clocks if truth else None) for name in names]


def _clock_row(clocks: Clocks, clock: Clock, truth: Clocks | None) -> dict[str, str]:
    row = {"camera": clock.camera, "verdict": clock.verdict, "why": clock.why, "sigma": "", "drift": "", "error": ""}
    if clock.camera == clocks.reference:
        return {**row, "offset": "0", "verdict": "reference", "why": "its own time is the session's time"}
    row["offset"] = _signed(clock.offset_at_epoch_s, 4)
    row["sigma"] = f"± {1e3 * clock.sigma_at_epoch_s:.1f}" if clock.sigma_at_epoch_s > 0 else "unknown"
    if clock.rate_fitted:
        sigma_rate = math.sqrt(max(float(clock.cov[1, 1]), 0.0))
        row["drift"] = _signed(1e6 * (clock.rate - 1), 1) + (f" ± {1e6 * sigma_rate:.1f}" if sigma_rate > 0 else "")
    else:
        row["drift"] = "not estimated"
    true = truth.clocks.get(clock.camera) if truth and truth.reference == clocks.reference else None
    if true is not None:
        error_s = float(clock.to_session(clock.epoch_s) - true.to_session(clock.epoch_s))
        row["error"] = _signed(1e3 * error_s, 1)
    return row


def _clock_facts(comparison: Comparison) -> list[str]:
    synced = comparison.variant(SYNCED)
    if synced is None:
        return []
    clocks, facts = synced.clocks, []
    offsets = [clock.offset_s for clock in clocks.clocks.values()]
    if len(offsets) > 1:
        facts.append(f"The cameras' own clocks lie up to {max(offsets) - min(offsets):,.3f} s apart.")
    if math.isfinite(clocks.cycle_residual_max_s):
        facts.append(
            f"Round closed loops of cameras the estimates disagree by {1e3 * clocks.cycle_residual_rms_s:.1f} ms RMS, "
            f"{1e3 * clocks.cycle_residual_max_s:.1f} ms at most."
        )
    if len(clocks.components) > 1:
        groups = "; ".join(", ".join(group) for group in clocks.components)
        facts.append(f"The cameras fall into {len(clocks.components)} groups without a common clock: {groups}.")
    return facts


def _unsynchronised(comparison: Comparison) -> list[tuple[str, str]]:
    synced = comparison.variant(SYNCED)
    return list(synced.clocks.unsynchronised.items()) if synced else []


def _rejected_rows(comparison: Comparison) -> list[dict[str, str]]:
    if comparison.offsets is None:
        return []
    return [
        {"pair": f"{e.a} – {e.b}", "at": f"{e.at_s:.1f}", "offset": _signed(e.offset_s, 3), "method": e.method,
         "sigma": f"{1e3 * e.sigma_s:.1f}", "reason": e.reason or "no reason given"}
        for e in comparison.offsets.edges
        if not e.accepted
    ]  # fmt: skip


def _figures(comparison: Comparison) -> dict[str, str]:
    """Return the plots by name, as SVG; those without data are left out."""
    from mvpose.viz import plots

    synced, truth = comparison.variant(SYNCED), comparison.variant(TRUTH)
    lines = [
        plots.Line(v.label, v.poses, _colour(v), "--" if v.name == TRUTH else "-")
        for v in comparison.variants
        if np.isfinite(v.poses.xyz_m).any()
    ]
    figures = {}
    if synced is not None:
        if comparison.recorded_s:
            figures["recordings"] = plots.plot_recordings(synced.clocks, comparison.recorded_s)
        if len(synced.clocks.clocks) > 1:
            figures["clock_errors"] = plots.plot_clock_errors(synced.clocks, truth.clocks if truth else None)
        if comparison.offsets is not None and comparison.offsets.edges:
            figures["offset_graph"] = plots.plot_offset_graph(comparison.offsets, synced.clocks)
    if lines:
        main = next((line for line in lines if synced is not None and line.poses is synced.poses), lines[-1])
        window = plots.liveliest_window(main.poses, _PLOT_WINDOW_S)
        people = _same_person(main, lines)
        figures["reprojection"] = plots.plot_reprojection(lines)
        figures["bones"] = plots.plot_bones(lines, people, window)
        figures["motion"] = plots.plot_motion(lines, people, comparison.rig.up_vector, window)
    return figures


def _same_person(main: Line, lines: Sequence[Line]) -> dict[str, int]:
    """Return, by label, the index of the person of ``main`` who shows timing best, found in the others by nearness."""
    person = _liveliest_person(main.poses)
    times = main.poses.time_s[:: max(1, len(main.poses.time_s) // 100)].tolist()
    track = np.stack([_middles(positions_at(main.poses, t))[person] for t in times])
    found = {}
    for line in lines:
        others = np.stack([_middles(positions_at(line.poses, t)) for t in times])
        apart = np.linalg.norm(others - track[:, None], axis=-1)
        typical = [np.median(a[np.isfinite(a)]) if np.isfinite(a).any() else np.inf for a in apart.T]
        if len(typical) and np.isfinite(min(typical)):
            found[line.label] = int(np.argmin(typical))
    return found


def _liveliest_person(poses: Poses3D) -> int:
    """Return the index of the person who moves most, among those who are in sight for at least half as long as any."""
    in_sight = np.isfinite(poses.xyz_m).all(axis=-1).sum(axis=(0, 2))
    step = np.linalg.norm(np.diff(poses.xyz_m, axis=0), axis=-1)
    # The median over time and joints: a bystander far away jitters more at times than a dancer moves.
    typical = [float(np.median(s[np.isfinite(s)])) if np.isfinite(s).any() else 0.0 for s in np.moveaxis(step, 1, 0)]
    return int(np.argmax(np.where(in_sight >= in_sight.max() / 2, typical, -1.0)))


def _middles(xyz: np.ndarray) -> np.ndarray:
    """Return the mean (P, 3) of the joints (P, J, 3) that are there; NaN where none is."""
    there = np.isfinite(xyz).all(axis=-1, keepdims=True)
    count = there.sum(axis=1)
    return np.where(count > 0, np.where(there, xyz, 0).sum(axis=1) / np.maximum(count, 1), np.nan)


def _shot_pictures(shot: Shot, variants: Sequence[Variant]) -> dict[str, Any]:
    """Draw every variant over a shot, cropped to the people so that what differs is large enough to see."""
    camera = _drawable(shot.camera)
    width, height = camera.size_px
    image = np.full((height, width, 3), 236, dtype=np.uint8) if shot.image is None else shot.image
    if image.shape[1::-1] != (width, height):
        image = np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA))
    shown = [v for v in variants if v.name in shot.t_session_s]
    spots = [camera.project(positions_at(v.poses, shot.t_session_s[v.name])).reshape(-1, 2) for v in shown]
    left, top, right, bottom = _crop(np.concatenate(spots) if spots else np.zeros((0, 2)), camera.size_px)
    pictures = []
    for v in shown:
        t = shot.t_session_s[v.name]
        drawn = draw_skeletons(image, camera, v.poses, t)[top:bottom, left:right]
        scale = min(1.0, _SHOT_WIDTH_PX / drawn.shape[1])
        size = (max(1, round(scale * drawn.shape[1])), max(1, round(scale * drawn.shape[0])))
        small = cv2.resize(drawn, size, interpolation=cv2.INTER_AREA)
        pictures.append(
            {
                "label": v.label,
                "colour": _colour(v),
                "time": f"{t:.3f}",
                "src": _jpeg(small),
                "alt": f"{shot.title}: skeletons of the {v.label} reconstruction",
            }
        )
    return {"title": shot.title, "pictures": pictures}


def _drawable(camera: Camera) -> Camera:
    """Return the camera for a picture that is no larger than it has to be, whatever size the calibration names."""
    scale = _LARGEST_SHOT_PX / max(camera.size_px)
    if scale >= 1:
        return camera
    K = camera.K.copy()
    K[:2] *= scale
    K[:2, 2] += (scale - 1) / 2
    width, height = (max(MIN_SIDE_PX, round(scale * side)) for side in camera.size_px)
    return replace(camera, K=K, size_px=(width, height))


def _crop(xy: np.ndarray, size_px: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return left, top, right, bottom of a part of the image, of its own shape, around the points (N, 2) inside it."""
    size = np.array(size_px, dtype=float)
    inside = xy[((xy >= 0) & (xy < size)).all(axis=-1)]
    if not len(inside):
        return (0, 0, size_px[0], size_px[1])
    low, high = inside.min(axis=0), inside.max(axis=0)
    share = float(np.clip(1.35 * ((high - low) / size).max(), 0.3, 1.0))
    corner = np.clip((low + high) / 2 - share * size / 2, 0, size - share * size)
    left, top = (int(value) for value in corner)
    return (left, top, left + int(share * size[0]), top + int(share * size[1]))


def _jpeg(image: np.ndarray) -> str:
    """Return an RGB image as a data URI."""
    _, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 84])
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode()


def _embedded(data: dict[str, Any]) -> str:
    """Return JSON that can stand inside a script element whatever names it holds."""
    return json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")


def _anywhere(comparison: Comparison, key: str) -> bool:
    return any(key in v.metrics for v in comparison.variants)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float | np.number) and math.isfinite(float(value))


def _rough(value: float | None) -> str:
    """Return a figure as one says it: two digits, or whole numbers above 10."""
    number = float(value)  # type: ignore[arg-type]
    return f"{number:,.0f}" if abs(number) >= 9.95 else f"{number:.2g}"


def _signed(value: float, decimals: int) -> str:
    return f"{value:+,.{decimals}f}".replace("-", "−")


def _listed(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]


def _colour(variant: Variant) -> str:
    return _COLOURS.get(variant.name, _OTHER_COLOUR)


def _hex(rgb: np.ndarray) -> str:
    return "#" + "".join(f"{int(value):02x}" for value in rgb)


def _plain(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)
