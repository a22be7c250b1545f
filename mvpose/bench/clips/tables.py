"""The comparison as text."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean, stdev

from mvpose.bench.clips.compare import Comparison, Line
from mvpose.bench.clips.diagnose import Diagnosis
from mvpose.bench.clips.protocol import INTEGER, TEST_SEED
from mvpose.bench.clips.rows import ROWS
from mvpose.sync.train.scenes import IFID

_TABLES = {1: "Table 1: methods", 2: "Table 2: losses and attention"}


def format_comparison(comparison: Comparison) -> str:
    """Return everything as text."""
    parts = [_preface(comparison)]
    for number, title in _TABLES.items():
        lines = [line for line in comparison.lines if number in _tables_of(line)]
        if lines:
            parts.append(f"{title}\n\n{format_lines(lines, paper=not comparison.integer)}")
    return "\n\n".join([*parts, *(format_diagnosis(one) for one in comparison.diagnoses)])


def _tables_of(line: Line) -> tuple[int, ...]:
    return ROWS[line.name].tables if line.name in ROWS else (1,)


def _preface(comparison: Comparison) -> str:
    if comparison.integer:
        data, offsets = "NTU-SYN or CMU-SYN", "whole frames −5 … 5"
    else:
        data, offsets = "IFID", "whole frames −5 … 5 plus a fraction"
    recipe = INTEGER if comparison.integer else IFID
    return (
        f"The data are CMU motions seen by virtual cameras, not {data}, whose protocol this is: {recipe.frames} frames "
        f"at {recipe.fps:g} fps,\n{offsets}. {comparison.pairs} pairs, the same for all rows (seed {TEST_SEED}), of "
        "people whom no row was trained on; detector\nnoise as measured on Stacked Hourglass. Networks start from "
        "keypoints, so MB and GFLOPs lack a pose network, which the paper's include.\n"
        "SynNet, SeSyn-Net and CNNSiamese are smaller than published, so that a CPU trains them.\n\n"
        "clips: pairs trained on, in batches, at the highest rate; ex, in: % less than so many frames, tenths off; "
        "Frm.err: mean, frames; ms: error of\nthe signed offset; sign: % with the right one; z: RMS of error over "
        "sigma; /s: pairs on one CPU thread, one at a time and by 128; ±: over seeds"
    )


_COLUMNS = (
    ("ex@1", 100, 1, "ex_1"),
    ("ex@3", 100, 1, "ex_3"),
    ("in@1", 100, 1, "in_1"),
    ("in@3", 100, 1, "in_3"),
    ("in@5", 100, 1, "in_5"),
    ("Frm.err", 1, 3, "frame_error"),
    ("median ms", 1, 1, "median_ms"),
    ("mean ms", 1, 1, "mean_ms"),
    ("p90 ms", 1, 1, "p90_ms"),
    ("sign", 100, 1, "sign"),
    ("z", 1, 2, "z_rms"),
)
_COST_COLUMNS = (
    ("MB", 2, "megabytes"),
    ("GFLOPs", 4, "gflops"),
    ("/s", 0, "alone_per_s"),
    ("/s by 128", 0, "batched_per_s"),
)


def format_lines(lines: Sequence[Line], *, paper: bool) -> str:
    """Return a table; under each line that the paper has, its figures on IFID if wanted."""
    rows = [["", "clips", "batch", "rate", "seeds", *(c[0] for c in _COLUMNS), *(c[0] for c in _COST_COLUMNS)]]
    for line in lines:
        scores = [_cell([getattr(s, key) for s in line.scores], scale, digits) for _, scale, digits, key in _COLUMNS]
        costs = [
            _cell([None if line.cost is None else getattr(line.cost, key)], 1, digits)
            for _, digits, key in _COST_COLUMNS
        ]
        rows.append([line.title, *_training_cells(line), *scores, *costs])
        published = ROWS[line.name].published if line.name in ROWS else ()
        if paper and published:
            known = [*published, None, None][:8]
            digits = (2, 2, 2, 2, 2, 2, 0, 0)
            cells = ["–" if v is None else f"{v:.{d}f}" for v, d in zip(known, digits, strict=True)]
            others = [""] * (len(_COLUMNS) - 6)
            rows.append(["  the paper on IFID", "", "", "", "", *cells[:6], *others, *cells[6:], "", ""])
    return _aligned(rows)


def _training_cells(line: Line) -> list[str]:
    """Return clips, batch, learning rate and number of seeds."""
    if line.trained is None:
        return ["–"] * 4
    known = (line.trained.clips, line.trained.batch, line.trained.learning_rate)
    return [*("–" if number is None else f"{number:.9g}" for number in known), str(len(line.scores))]


def _cell(values: Sequence[float | None], scale: float, digits: int) -> str:
    """Return the mean of what several seeds gave, and its standard deviation between them."""
    known = [scale * value for value in values if value is not None]
    if not known:
        return "–"
    spread = f"±{stdev(known):.{digits}f}" if len(known) > 1 else ""
    return f"{mean(known):.{digits}f}{spread}"


def format_diagnosis(diagnosis: Diagnosis) -> str:
    """Return median and mean error of each estimator, frames, one column a bin."""
    rows = [["", *diagnosis.bins], ["pairs", *map(str, diagnosis.pairs)]]
    for title, medians in diagnosis.median_frames.items():
        cells = zip(medians, diagnosis.mean_frames[title], strict=True)
        rows.append([title, *("–" if a is None or b is None else f"{a:.2f} / {b:.2f}" for a, b in cells)])
    return f"{diagnosis.cause}: median / mean error of the signed offset, frames\n\n{_aligned(rows)}"


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    """Set a table, its first column to the left and the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip() for row in rows
    )
