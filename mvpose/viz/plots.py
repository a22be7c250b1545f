"""Plots of the report, each an inline SVG that takes its text colour from the page.

Everything is drawn on a ``Figure`` of its own, never through pyplot, so that no plot depends on another.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import matplotlib
import numpy as np
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from mvpose.clock import Clock, Clocks
from mvpose.poses import Poses3D
from mvpose.sync.offsets import OffsetGraph, PairwiseOffset

GOOD, BAD, RAW = "#00806a", "#c2410c", "#8a94a0"
# Stands for the page's text colour; no plot uses it for anything else.
_INK = "#010203"
_WIDTH_IN = 8.4
_MOST_POINTS = 600
_STYLE: Any = {
    "font.family": "sans-serif",
    "font.size": 9,
    "svg.fonttype": "none",
    "svg.hashsalt": "mvpose",
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.edgecolor": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.grid": True,
    "grid.color": _INK,
    "grid.alpha": 0.1,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "lines.linewidth": 1.3,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
}


@dataclass(frozen=True)
class Line:
    """One reconstruction as the plots show it.

    Attributes:
        label: What the legend says.
        poses: What to show.
        colour: Hex colour.
        dash: Matplotlib's line style.
    """

    label: str
    poses: Poses3D
    colour: str
    dash: str = "-"


def plot_recordings(clocks: Clocks, recorded_s: Mapping[str, tuple[float, float]]) -> str:
    """Draw when each camera recorded, in session time; without a clock, in a hollow bar at the camera's own time.

    Args:
        clocks: The clocks.
        recorded_s: Each camera's first and last frame on its own time, seconds.
    """
    cameras = list(recorded_s)
    with _figure(0.55 + 0.3 * len(cameras)) as (figure, svg):
        axes = figure.subplots()
        spans = {name: _session_span(clocks.clocks.get(name), recorded_s[name]) for name in cameras}
        for row, name in enumerate(cameras):
            known, (low, high) = name in clocks.clocks, spans[name]
            edge, fill, dash = (GOOD, GOOD, "-") if known else (BAD, "none", "--")
            width = max(high - low, 1e-3)
            axes.barh(row, width, left=low, height=0.5, zorder=2, facecolor=fill, edgecolor=edge, linestyle=dash)
        shared = [spans[name] for name in cameras if name in clocks.clocks]
        if len(shared) > 1:
            low, high = max(s[0] for s in shared), min(s[1] for s in shared)
            if high > low:
                axes.axvspan(low, high, color=_INK, alpha=0.06, lw=0, zorder=0)
                axes.set_title(f"all {len(shared)} synchronised cameras record for {high - low:.1f} s (shaded)")
        axes.set_yticks(range(len(cameras)), [_literal(name) for name in cameras])
        axes.set_ylim(len(cameras) - 0.4, -0.6)
        axes.grid(axis="y", visible=False)
        axes.set_xlabel("session time, s")
        return svg("When each camera recorded, in session time")


def plot_clock_errors(clocks: Clocks, truth: Clocks | None) -> str:
    """Draw each clock's error against the truth, with two standard deviations; without truth, these about zero."""
    names = [name for name in clocks.clocks if name != clocks.reference]
    compared = truth is not None and truth.reference == clocks.reference
    with _figure(0.75 + 0.28 * max(len(names), 1)) as (figure, svg):
        axes = figure.subplots()
        for row, name in enumerate(names):
            clock = clocks[name]
            error = _clock_error_s(clock, truth.clocks.get(name)) if compared and truth else 0.0
            colour = GOOD if clock.verdict == "good" else BAD
            if np.isfinite(error):
                axes.errorbar(
                    1e3 * error, row, xerr=2e3 * clock.sigma_at_epoch_s, fmt="o" if compared else "none", ms=4.5,
                    color=colour, capsize=3, lw=1.6,
                )  # fmt: skip
        axes.axvline(0, color=_INK, lw=0.8)
        reach = 1.1 * max(abs(value) for value in axes.get_xlim())
        axes.set_xlim(-reach, reach)
        axes.set_yticks(range(len(names)), [_literal(name) for name in names])
        axes.set_ylim(len(names) - 0.4, -0.6)
        axes.set_xlabel(
            "error against the true clock in mid-recording, ms (bar: ±2σ)" if compared else "±2σ in mid-recording, ms"
        )
        return svg("Error and uncertainty of each camera's clock, milliseconds")


def plot_offset_graph(graph: OffsetGraph, clocks: Clocks) -> str:
    """Draw which cameras were compared, and how far each estimate lies from the solved clocks."""
    edges = graph.edges
    with _figure(3.1) as (figure, svg):
        left, right = figure.subplots(1, 2, width_ratios=(1, 1.7))
        angle = np.pi / 2 - 2 * np.pi * np.arange(len(graph.cameras)) / max(len(graph.cameras), 1)
        place = dict(zip(graph.cameras, np.stack([np.cos(angle), np.sin(angle)], axis=-1), strict=True))
        for pair in sorted({(e.a, e.b) for e in edges}):
            used = any(e.accepted for e in edges if (e.a, e.b) == pair)
            x, y = np.stack([place[name] for name in pair]).T
            left.plot(x, y, color=GOOD if used else BAD, ls="-" if used else "--", lw=1.8 if used else 1.2, zorder=1)
        for name, (x, y) in place.items():
            has_clock = name in clocks.clocks
            left.plot(x, y, "o", ms=9, color=GOOD if has_clock else BAD, mfc=GOOD if has_clock else "none", zorder=2)
            left.annotate(
                _literal(name), (x, y), (13 * x, 13 * y), textcoords="offset points", va="center",
                ha="center" if abs(x) < 0.3 else "left" if x > 0 else "right",
            )  # fmt: skip
        left.set_aspect("equal")
        left.set_xlim(-1.9, 1.9)
        left.set_ylim(-1.45, 1.45)
        left.set_axis_off()
        if any(not e.accepted for e in edges):
            left.set_title("dashed: no estimate of the pair was used", loc="center")
        _draw_residuals(right, edges, clocks)
        return svg("Pairs of cameras that were compared, and the residual of each estimate")


def plot_reprojection(lines: Sequence[Line]) -> str:
    """Draw over time the reprojection error in the views used and how many these are, means over people and joints."""
    with _figure(3.3) as (figure, svg):
        error_axes, views_axes = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1))
        for line in lines:
            poses, look = line.poses, {"color": line.colour, "linestyle": line.dash}
            error_axes.plot(*_thinned(poses.time_s, _nanmean(poses.reprojection_px, (1, 2))), label=line.label, **look)
            views = np.where(poses.n_views > 0, poses.n_views, np.nan)
            views_axes.plot(*_thinned(poses.time_s, _nanmean(views, (1, 2))), **look)
        error_axes.set_ylim(bottom=0)
        error_axes.set_ylabel("error, px")
        views_axes.set_ylim(bottom=0)
        views_axes.set_ylabel("views used")
        views_axes.set_xlabel("session time, s")
        _legend(figure, error_axes)
        return svg("Reprojection error and number of views over time")


def plot_bones(lines: Sequence[Line], of_person: Mapping[str, int], window_s: tuple[float, float]) -> str:
    """Draw the lengths of up to four bones of one person over time; in truth they are constant.

    Args:
        lines: The reconstructions.
        of_person: For each label, which person (index) to take.
        window_s: Session times to show.
    """
    bones = _telling_bones(lines)
    with _figure(1.2 + 1.15 * ((len(bones) + 1) // 2)) as (figure, svg):
        grid = figure.subplots((len(bones) + 1) // 2 or 1, 2, sharex=True, squeeze=False).ravel()
        for axes, (a, b) in zip(grid, bones, strict=False):
            shown = []
            for line in lines:
                names = line.poses.skeleton.joint_names
                if line.label in of_person and {a, b} <= set(names):
                    inside = _inside(line.poses.time_s, window_s)
                    body = line.poses.xyz_m[inside, of_person[line.label]]
                    length = 100 * np.linalg.norm(body[:, names.index(a)] - body[:, names.index(b)], axis=-1)
                    t, length = _thinned(line.poses.time_s[inside], length)
                    axes.plot(t, length, line.dash, color=line.colour, label=line.label)
                    shown.append(length[np.isfinite(length)])
            _robust_limits(axes, shown, least=4.0)
            axes.set_title(f"{a} – {b}".replace("_", " "))
            axes.set_ylabel("cm")
        for axes in grid[len(bones) :]:
            axes.set_axis_off()
        for axes in grid[max(len(bones) - 2, 0) : len(bones)]:
            axes.set_xlabel("session time, s")
            axes.tick_params(labelbottom=True)
        if bones:
            _legend(figure, grid[0])
        return svg("Bone lengths over time")


def plot_motion(
    lines: Sequence[Line], of_person: Mapping[str, int], up: np.ndarray, window_s: tuple[float, float]
) -> str:
    """Draw the speed of a wrist over time, and its path seen from above.

    Args:
        lines: The reconstructions.
        of_person: For each label, which person (index) to take.
        up: (3,) the world's up.
        window_s: Session times to show.
    """
    with _figure(2.7) as (figure, svg):
        left, right = figure.subplots(1, 2, width_ratios=(1.7, 1))
        side = np.eye(3)[(int(np.abs(up).argmax()) + 1) % 3]
        joint = _telling_joint(lines)
        speeds = []
        for line in lines:
            if line.label not in of_person or joint not in line.poses.skeleton.joint_names:
                continue
            inside = _inside(line.poses.time_s, window_s)
            path = line.poses.xyz_m[inside, of_person[line.label], line.poses.skeleton.joint_names.index(joint)]
            t = line.poses.time_s[inside]
            if len(t) < 2:
                continue
            speed = np.linalg.norm(np.gradient(path, t, axis=0), axis=-1)
            left.plot(t, speed, line.dash, color=line.colour, label=line.label)
            right.plot(path @ side, path @ np.cross(up, side), line.dash, color=line.colour, lw=1.0)
            speeds.append(speed[np.isfinite(speed)])
        _robust_limits(left, speeds, least=1.0)
        left.set_ylim(bottom=0)
        left.set_title(f"speed of the {joint.replace('_', ' ')}")
        left.set_xlabel("session time, s")
        left.set_ylabel("m/s")
        _legend(figure, left)
        right.set_aspect("equal", adjustable="datalim")
        right.set_title("its path from above")
        right.set_xlabel("m")
        right.set_ylabel("m")
        return svg("Speed of a wrist over time and its path from above")


def offset_residual_s(edge: PairwiseOffset, clocks: Clocks) -> float:
    """Return how far an estimate lies from what the clocks say of its pair, seconds; NaN where one has no clock."""
    if edge.a not in clocks.clocks or edge.b not in clocks.clocks:
        return float("nan")
    t_b = clocks[edge.b].to_camera(clocks[edge.a].to_session(edge.at_s))
    return float(edge.offset_s - (t_b - edge.at_s))


def liveliest_window(poses: Poses3D, length_s: float) -> tuple[float, float]:
    """Return the session times (start, end) of the stretch of at most ``length_s`` with most movement in it."""
    times = poses.time_s
    if not len(times):
        return (0.0, length_s)
    if times[-1] - times[0] <= length_s or len(times) < 3:
        return (float(times[0]), float(times[-1]))
    step = np.linalg.norm(np.diff(poses.xyz_m, axis=0), axis=-1)
    # A jump of more than 0.3 m between frames is an error, not liveliness.
    moved = np.where(np.isfinite(step) & (step < 0.3), step, 0.0).sum(axis=(1, 2))
    n = min(max(1, round(length_s * poses.frame_rate)), len(moved))
    total = np.concatenate([[0.0], np.cumsum(moved)])
    start = int((total[n:] - total[:-n]).argmax())
    return (float(times[start]), float(times[start + n]))


@contextmanager
def _figure(height_in: float) -> Iterator[tuple[Figure, Callable[[str], str]]]:
    """Yield a figure in the report's style, and the function that turns it into an SVG of a given description."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(_WIDTH_IN, height_in), layout="constrained")
        FigureCanvasSVG(figure)
        yield figure, partial(_inline_svg, figure)


def _inline_svg(figure: Figure, description: str) -> str:
    """Return the figure as an ``<svg>`` element that scales with the page and names nothing outside it."""
    file = io.StringIO()
    with warnings.catch_warnings():
        # Names stay text, and the browser has fonts for them that matplotlib lacks.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = file.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\sxmlns(:\w+)?="[^"]*"', "", svg)
    svg = re.sub(r'(<g) id="[^"]*"', r"\1", svg)
    svg = re.sub(r'<svg width="[^"]*" height="[^"]*"', "<svg", svg.replace("xlink:href", "href"))
    svg = svg.replace("<svg", f'<svg role="img" aria-label="{description}"', 1)
    return svg.replace(_INK, "currentColor")


def _session_span(clock: Clock | None, span_s: tuple[float, float]) -> tuple[float, float]:
    return (float(clock.to_session(span_s[0])), float(clock.to_session(span_s[1]))) if clock else span_s


def _clock_error_s(clock: Clock, truth: Clock | None) -> float:
    if truth is None:
        return float("nan")
    return float(clock.to_session(clock.epoch_s) - truth.to_session(clock.epoch_s))


def _draw_residuals(axes: Any, edges: Sequence[PairwiseOffset], clocks: Clocks) -> None:
    pairs = sorted({(e.a, e.b) for e in edges})
    residuals = np.array([1e3 * offset_residual_s(e, clocks) for e in edges])
    known = np.isfinite(residuals)
    used = [r for r, e in zip(residuals, edges, strict=True) if e.accepted and np.isfinite(r)]
    reach = 1.4 * max([10.0, *(abs(r) for r in used), *(2e3 * e.sigma_s for e in edges if e.accepted)])
    for e, residual in zip(edges, residuals, strict=True):
        if not np.isfinite(residual):
            continue
        row, colour = pairs.index((e.a, e.b)), GOOD if e.accepted else BAD
        if abs(residual) > reach:
            axes.annotate(
                f"{residual:+,.0f} ms", (np.sign(residual) * reach, row), color=colour, va="center",
                ha="right" if residual > 0 else "left", fontsize=8,
            )  # fmt: skip
        else:
            axes.errorbar(residual, row, xerr=1e3 * e.sigma_s, fmt="o" if e.accepted else "x", ms=4, color=colour, lw=1)
    axes.axvline(0, color=_INK, lw=0.8)
    axes.set_xlim(-reach, reach)
    axes.set_yticks(range(len(pairs)), [_literal(f"{a} – {b}") for a, b in pairs])
    axes.set_ylim(len(pairs) - 0.4, -0.6)
    axes.set_xlabel("estimate − solved clocks, ms (bar: ±σ)")
    if not known.any():
        axes.set_title("no pair has two clocks")


def _legend(figure: Figure, axes: Any) -> None:
    """Explain the lines of ``axes`` in one row above everything."""
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, ncols=len(labels), loc="outside upper left")


def _literal(text: str) -> str:
    """Keep matplotlib from reading mathematics into a name."""
    return text.replace("$", r"\$")


def _inside(time_s: np.ndarray, window_s: tuple[float, float]) -> np.ndarray:
    return (time_s >= window_s[0] - 1e-9) & (time_s <= window_s[1] + 1e-9)


def _nanmean(values: np.ndarray, axis: tuple[int, ...]) -> np.ndarray:
    """Return the mean of what is there, NaN where nothing is."""
    there = np.isfinite(values)
    count = there.sum(axis=axis)
    total = np.where(there, values, 0.0).sum(axis=axis)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _thinned(t: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Average (T,) values over blocks, so that a long recording stays a small picture; gaps stay gaps."""
    block = -(-len(t) // _MOST_POINTS)
    if block <= 1:
        return t, values
    whole = len(t) // block * block
    return t[:whole].reshape(-1, block).mean(axis=1), _nanmean(values[:whole].reshape(-1, block), (1,))


def _robust_limits(axes: Any, shown: Sequence[np.ndarray], least: float) -> None:
    """Show the bulk of the values; single wild ones may leave the picture."""
    values = np.concatenate(shown) if shown else np.zeros(0)
    if len(values):
        low, high = np.percentile(values, [1, 99])
        margin = max(0.15 * (high - low), (least - (high - low)) / 2)
        axes.set_ylim(low - margin, high + margin)


def _telling_bones(lines: Sequence[Line]) -> list[tuple[str, str]]:
    """Return up to four bones that all skeletons have: the ends of arms and legs suffer first from bad clocks."""
    if not lines:
        return []
    shared = set.intersection(*(set(line.poses.skeleton.joint_names) for line in lines))
    wanted = [
        (f"{side}_{a}", f"{side}_{b}")
        for a, b in (("elbow", "wrist"), ("knee", "ankle"), ("shoulder", "elbow"), ("hip", "knee"))
        for side in ("left", "right")
    ]
    first = lines[0].poses.skeleton
    others = [(first.joint_names[a], first.joint_names[b]) for a, b in first.limbs]
    return [bone for bone in [*wanted, *others] if set(bone) <= shared][:4]


def _telling_joint(lines: Sequence[Line]) -> str:
    names = lines[0].poses.skeleton.joint_names if lines else ()
    return next(
        (name for name in ("right_wrist", "left_wrist", "right_ankle") if name in names), names[0] if names else ""
    )
