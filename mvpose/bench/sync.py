"""The paper's comparison, tables 1 and 2 of Liu et al. (AAAI 2024), with what it left out and the physical limit.

The data are motions of the CMU motion-capture database seen by virtual cameras through measured detector noise, under
the protocol of IFID, which cannot be had; all rows see the same pairs. Rows whose weights are not in the work folder
are trained on the spot.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from itertools import pairwise
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch
from torch import Tensor

from mvpose.bench.cost import Cost, measure_cost
from mvpose.bench.oracle import find_offsets
from mvpose.errors import FormatError, WorkspaceError
from mvpose.pipeline import Progress
from mvpose.sync.baselines.correlation import correlate
from mvpose.sync.clips import Decision
from mvpose.sync.pretrained import WEIGHTS
from mvpose.sync.train.config import Training
from mvpose.sync.train.metrics import Score, join_decisions, score_decisions
from mvpose.sync.train.rows import ROWS, Row, comparison
from mvpose.sync.train.scenes import IFID, LabelledPairs, Recipe, draw_pairs
from mvpose.synthetic.bvh import read_bvh_folder
from mvpose.synthetic.motion import read_motion_pack
from mvpose.training.folder import MotionFolder
from mvpose.training.motions import MotionBank, motion_bank
from mvpose.training.weights import load_weights

INTEGER = replace(IFID, fps=30.0, fractions=False)
"""NTU-SYN and CMU-SYN as the paper narrows them: 30 fps, 5 frames, offsets of −5 … 5 whole frames."""

READY = ("correlation", "lagformer-shipped", "lagformer-rays-shipped", "oracle")
"""Rows that are not trained here: two that learn nothing, and what the package comes with, however it was trained."""

_ONLY_IN_TABLE_2 = ("synnet-ce", "insynformer-ce-mhsa", "insynformer-hxe-mhsa", "insynformer-ce")
_IN_TABLE_2 = (*_ONLY_IN_TABLE_2, "synnet-hxe", "insynformer-hxe")

_TEST_SEED, _VAL_SEED = 20_240, 20_241  # of the pairs, whatever the seed of the weights
_CHOOSING = 2048  # pairs on which the two best rows are chosen
_DIAGNOSING = 2048  # pairs of each diagnosis
_BATCH = 256
_TRAIN_BATCH = 128

# What the paper reports on IFID: ex@1, ex@3, in@1, in@3, in@5 in %, Frm.err, and with the pose network MB and GFLOPs.
_PAPER: dict[str, tuple[float | None, ...]] = {
    "synnet-ce": (59.78, 90.91, 20.56, 57.84, 79.40, 1.27),
    "synnet-hxe": (60.41, 91.37, 31.78, 70.12, 85.62, 1.26, 240, 238),
    "sesyn": (79.93, 92.44, None, None, None, 0.87, 122, 196),
    "cnnsiamese": (36.42, 76.34, None, None, None, 2.04, 40, 170),
    "insynformer-ce-mhsa": (75.83, 91.10, 19.78, 57.89, 83.58, 1.15),
    "insynformer-hxe-mhsa": (75.88, 91.22, 35.65, 74.23, 87.40, 1.13),
    "insynformer-ce": (80.27, 94.35, 49.84, 77.62, 92.63, 0.83),
    "insynformer-hxe": (80.86, 94.35, 61.30, 90.69, 95.49, 0.83, 138.49, 212),
}


@dataclass(frozen=True)
class Plan:
    """What is to be compared.

    Attributes:
        data: Folder of motion, with splits train, val and test.
        work_dir: Where weights are and are put, ``<row>[-whole][-seedN].safetensors``.
        rows: Names in ``ROWS`` or ``READY``, in the order of the tables.
        clips: Pairs that every row is trained on.
        seeds: Trainings of the two best rows; the others have one.
        pairs: Pairs of clips to test on.
        integer: Whether offsets are whole frames at 30 fps, by rows trained for that.
        weights: Further lines: a name in ``ROWS`` and a file of its weights, however they were trained.
        diagnose: Whether errors are also told apart by what may cause them.
    """

    data: Path
    work_dir: Path
    rows: tuple[str, ...] = (*ROWS, *READY)
    clips: int = 160_000
    seeds: int = 3
    pairs: int = 8192
    integer: bool = False
    weights: tuple[tuple[str, Path], ...] = ()
    diagnose: bool = False

    def __post_init__(self) -> None:
        _check_known(self.rows, (*ROWS, *READY))
        _check_known([name for name, _ in self.weights], tuple(ROWS))
        for one in (*self.rows, *self.weights):
            if (*self.rows, *self.weights).count(one) > 1:
                raise FormatError(f"{one if isinstance(one, str) else one[1]} is named twice; once is enough")

    @property
    def recipe(self) -> Recipe:
        """What pairs are drawn from, to train as to test."""
        return INTEGER if self.integer else IFID


def _check_known(names: Sequence[str], known: Sequence[str]) -> None:
    for name in names:
        if name not in known:
            near = get_close_matches(name, known, 1)
            meant = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}"
            raise FormatError(f"there is no row {name!r}; {meant}")


@dataclass(frozen=True)
class Estimator:
    """Something that decides on pairs.

    Attributes:
        name: Of its row.
        title: What it is called in the tables.
        decide: Its decisions; all but the oracle look at the pairs alone.
        clips: Pairs that it was trained on; None if it was not.
        network: None if it has none.
        any_length: Whether it is made for clips of any length, and not of 5 frames.
    """

    name: str
    title: str
    decide: Callable[[LabelledPairs], Decision]
    clips: int | None = None
    network: Any = None
    any_length: bool = True


@dataclass(frozen=True)
class Line:
    """One line of the tables.

    Attributes:
        name: Of its row.
        title: What it is called.
        scores: One a seed.
        clips: Pairs that it was trained on; None if it was not.
        cost: None of what is no network.
    """

    name: str
    title: str
    scores: tuple[Score, ...]
    clips: int | None
    cost: Cost | None


@dataclass(frozen=True)
class Diagnosis:
    """Errors told apart by one thing that may cause them.

    Attributes:
        cause: What, with its unit.
        bins: What it is in each column.
        pairs: How many pairs of each.
        median_frames: By title, the median of the signed errors' sizes, frames; None where an estimator has none.
        mean_frames: By title, their mean.
    """

    cause: str
    bins: tuple[str, ...]
    pairs: tuple[int, ...]
    median_frames: dict[str, tuple[float | None, ...]]
    mean_frames: dict[str, tuple[float | None, ...]]


@dataclass(frozen=True)
class Comparison:
    """All that came out.

    Attributes:
        integer: Whether offsets are whole frames, at 30 fps; else they are IFID's.
        pairs: How many were tested on.
        lines: Of the tables, the oracle last.
        diagnoses: Empty if there were to be none.
    """

    integer: bool
    pairs: int
    lines: tuple[Line, ...]
    diagnoses: tuple[Diagnosis, ...]


def compare_rows(plan: Plan, progress: Progress) -> Comparison:
    """Train what is not trained yet, and test everything on the same pairs.

    Raises:
        FormatError: The motions or a file of weights cannot be read.
        WorkspaceError: The work folder holds weights that were trained otherwise, or cannot be written.
        MvposeError: A training fails.
    """
    bank = _test_bank(plan.data)
    test = draw_seeded(bank, plan.recipe, plan.pairs, _TEST_SEED)
    trained = {name: [trained_row(name, 0, plan, progress)] for name in plan.rows if name in ROWS}
    if plan.seeds > 1 and trained:
        val = draw_seeded(MotionFolder(plan.data).bank("val"), plan.recipe, _CHOOSING, _VAL_SEED)
        for name in best_rows({name: _score(one, val, plan) for name, (one,) in trained.items()}, 2):
            trained[name] += [trained_row(name, seed, plan, progress) for seed in range(1, plan.seeds)]
    rows = [trained[name] if name in ROWS else [ready_row(name, plan.recipe)] for name in plan.rows]
    rows += [[_loaded(_titled(name, path, plan), path)] for name, path in plan.weights]
    rows.sort(key=lambda seeds: seeds[0].name == "oracle")  # last
    lines = []
    for done, seeds in enumerate(rows):
        progress("test", done, len(rows))
        scores = tuple(_score(one, test, plan) for one in seeds)
        first = seeds[0]
        cost = None if first.network is None else measure_cost(first.network, test.pairs)
        lines.append(Line(first.name, first.title, scores, first.clips, cost))
    progress("test", len(rows), len(rows))
    diagnoses = diagnose([seeds[0] for seeds in rows], plan.recipe, bank) if plan.diagnose else ()
    return Comparison(plan.integer, plan.pairs, tuple(lines), diagnoses)


def draw_seeded(bank: MotionBank, recipe: Recipe, count: int, seed: int) -> LabelledPairs:
    """Draw the same pairs for everyone."""
    return draw_pairs(torch.Generator().manual_seed(seed), bank, recipe, count)


def _test_bank(folder: Path) -> MotionBank:
    """Read the motions that nothing is trained on: packs ``*_test.npz``, or BVH files in the subfolder ``test``."""
    motions = [motion for pack in sorted(folder.glob("*_test.npz")) for motion in read_motion_pack(pack).values()]
    if not motions and (folder / "test").is_dir():
        motions = list(read_bvh_folder(folder / "test").values())
    if not motions:
        raise FormatError(
            f"{folder} holds no motion to test on: neither *_test.npz with index.csv nor BVH files in test; name its "
            "folder by --data"
        )
    return motion_bank(motions)


def _score(estimator: Estimator, labelled: LabelledPairs, plan: Plan) -> Score:
    decision = estimator.decide(labelled)
    return score_decisions(
        in_whole_frames(decision) if plan.integer else decision, labelled.offset_frames, labelled.frame_s
    )


def in_whole_frames(decision: Decision, reach: int = 5) -> Decision:
    """Return what an estimator that knows more than frames says where offsets are whole frames."""
    if decision.tenth is None:
        return decision
    nearest = decision.offset_frames.round().clamp(-reach, reach)
    return Decision(nearest.abs().long(), None, nearest)


def best_rows(scores: Mapping[str, Score], count: int) -> list[str]:
    """Return the rows with the smallest frame errors, best first; whole frames alone are no match for tenths."""
    return sorted(scores, key=lambda name: (scores[name].in_1 is None, scores[name].frame_error))[:count]


# Estimators.


def ready_row(name: str, recipe: Recipe) -> Estimator:
    """Return one of ``READY``.

    Raises:
        FormatError: Weights that come with the package are damaged.
    """
    if name == "correlation":
        return Estimator(name, "correlation", lambda labelled: correlate(labelled.pairs))
    if name == "oracle":
        return Estimator(name, "oracle", lambda labelled: find_offsets(labelled, recipe))
    row = ROWS[name.removesuffix("-shipped")]
    return _loaded(replace(row, name=name, title=f"{row.title}, as shipped"), WEIGHTS / f"{row.name}.safetensors")


def trained_row(name: str, seed: int, plan: Plan, progress: Progress) -> Estimator:
    """Return a row of the comparison, trained now if its weights are not in the work folder.

    Raises:
        FormatError: The weights or the motions cannot be read.
        WorkspaceError: The weights were trained otherwise, or cannot be written.
        MvposeError: The training fails.
    """
    kind = _WholeFrames if plan.integer else Training
    recipes = ((1.0, plan.recipe),)
    # No more to validate on than to train on.
    training = kind(
        row=name,
        clips=plan.clips,
        batch=min(_TRAIN_BATCH, plan.clips),
        recipes=recipes,
        seed=seed,
        val_clips=min(2048, plan.clips),
    )
    stem = name + "-whole" * plan.integer + f"-seed{seed}" * (seed > 0)
    path = plan.work_dir / f"{stem}.safetensors"
    data = MotionFolder(plan.data)
    if not path.is_file():
        from mvpose.sync.train.run import train  # mmengine is needed to train only

        train(training, data, plan.work_dir / stem, progress, resume=True, command="mvpose bench sync")
        (plan.work_dir / stem / f"{name}.safetensors").replace(path)
    network = training.network.build()
    check_training(path, load_weights(network, path), training, data.digest())
    return network_row(training.network, network, training.clips // training.batch * training.batch)


class _WholeFrames(Training):
    """A training of a network that counts whole frames."""

    @property
    def network(self) -> Row:
        """The row of the integer protocols."""
        return comparison(whole_frames=True)[self.row]


def check_training(path: Path, metadata: Mapping[str, object], training: Training, digest: str) -> None:
    """See that weights were trained as all the others are.

    Raises:
        WorkspaceError: On other motions, other clips or from another seed.
    """
    course = json.loads(json.dumps(training.course()))
    wanted = {key: course[key] for key in ("row", "clips", "recipes", "seed")} | {"data": digest}
    noted = metadata.get("training")
    found = {**(noted if isinstance(noted, dict) else {}), "data": metadata.get("data")}
    for key, value in wanted.items():
        if found.get(key) != value:
            raise WorkspaceError(
                f"{path} was trained with {key} {found.get(key)!r}, not {value!r}; choose another --work-dir, or "
                "delete the file and the folder of its name to train anew"
            )


def network_row(row: Row, network: Any, clips: int | None) -> Estimator:
    """Return what a trained network decides."""
    network.eval()

    def decide(labelled: LabelledPairs) -> Decision:
        with torch.inference_mode():
            parts = (labelled.pairs.rows(slice(k, k + _BATCH)) for k in range(0, len(labelled.pairs), _BATCH))
            return join_decisions([network.decide(network(part)) for part in parts])

    return Estimator(row.name, row.title, decide, clips, network, row.any_clips)


def _titled(name: str, path: Path, plan: Plan) -> Row:
    row = comparison(whole_frames=plan.integer)[name]
    alone = sum(path.stem == other.stem for _, other in plan.weights) == 1  # trainings name their files by the row
    return replace(row, title=f"{row.title}, {path.stem if alone else path.with_suffix('')}")


def _loaded(row: Row, path: Path) -> Estimator:
    """Return a row with weights that were not trained here."""
    network = row.build()
    clips = load_weights(network, path).get("clips")
    return network_row(row, network, clips if isinstance(clips, int) else None)


# Diagnoses.


def diagnose(estimators: Sequence[Estimator], recipe: Recipe, bank: MotionBank) -> tuple[Diagnosis, ...]:
    """Tell errors apart by the motion's speed, view angle and offset, and by noise and clip length of further sets."""
    drawn = draw_seeded(bank, recipe, _DIAGNOSING, _TEST_SEED)
    errors = {one.title: _errors(one, drawn, recipe) for one in estimators}
    causes: list[tuple[str, Tensor, Sequence[float]]] = [
        ("speed of the joints, m/s", drawn.scenes.speed_mps(recipe.duration_s), (0.3, 0.6, 1.2)),
        ("angle between the views, degrees", drawn.scenes.view_angle_deg(), (45, 90, 135)),
        ("|offset|, frames (clips of 5 overlap below 5)", drawn.offset_frames.abs(), (1, 2, 3, 4, 5)),
    ]
    noises = {f"× {factor:g}": replace(recipe, noise=(factor, factor)) for factor in (0.5, 1.0, 2.0)}
    lengths = {str(frames): replace(recipe, frames=frames) for frames in (5, 10, 20)}
    return (
        *(by_bins(cause, value, edges, errors) for cause, value, edges in causes),
        _by_recipe("noise, of the measured", noises, estimators, bank),
        _by_recipe("length of the clips, frames", lengths, estimators, bank),
    )


def by_bins(cause: str, value: Tensor, edges: Sequence[float], errors: Mapping[str, Tensor]) -> Diagnosis:
    """Tell errors (B,) apart by where a value (B,) lies between the edges."""
    where = torch.bucketize(value, torch.tensor(edges), right=True)
    names = (f"< {edges[0]:g}", *(f"{a:g}–{b:g}" for a, b in pairwise(edges)), f"≥ {edges[-1]:g}")
    parts = {title: [error[where == k] for k in range(len(names))] for title, error in errors.items()}
    return _diagnosis(cause, names, [int((where == k).sum()) for k in range(len(names))], parts)


def _by_recipe(
    cause: str, recipes: Mapping[str, Recipe], estimators: Sequence[Estimator], bank: MotionBank
) -> Diagnosis:
    parts: dict[str, list[Tensor]] = {one.title: [] for one in estimators}
    for recipe in recipes.values():
        drawn = draw_seeded(bank, recipe, _DIAGNOSING // 2, _TEST_SEED)
        for one in estimators:
            knows = one.any_length or recipe.frames == IFID.frames
            parts[one.title].append(_errors(one, drawn, recipe) if knows else torch.empty(0))
    return _diagnosis(cause, tuple(recipes), [_DIAGNOSING // 2] * len(recipes), parts)


def _errors(estimator: Estimator, labelled: LabelledPairs, recipe: Recipe) -> Tensor:
    """Return the sizes (B,) of the signed errors, frames; the oracle is told what the pairs were drawn from."""
    knowing = ready_row("oracle", recipe) if estimator.name == "oracle" else estimator
    return (knowing.decide(labelled).offset_frames - labelled.offset_frames).abs()


def _diagnosis(
    cause: str, bins: tuple[str, ...], pairs: Sequence[int], parts: Mapping[str, Sequence[Tensor]]
) -> Diagnosis:
    def of(measure: Callable[[Tensor], Tensor]) -> dict[str, tuple[float | None, ...]]:
        return {
            title: tuple(float(measure(part)) if len(part) else None for part in each) for title, each in parts.items()
        }

    return Diagnosis(cause, bins, tuple(pairs), of(torch.median), of(torch.mean))


# Text.


def format_comparison(comparison: Comparison) -> str:
    """Return everything as text."""
    parts = [_preface(comparison)]
    table_1 = [line for line in comparison.lines if line.name not in _ONLY_IN_TABLE_2]
    table_2 = [line for line in comparison.lines if line.name in _IN_TABLE_2]
    for title, lines in (("Table 1: methods", table_1), ("Table 2: losses and attention", table_2)):
        if lines:
            parts.append(f"{title}\n\n{format_lines(lines, paper=not comparison.integer)}")
    return "\n\n".join([*parts, *(format_diagnosis(one) for one in comparison.diagnoses)])


def _preface(comparison: Comparison) -> str:
    if comparison.integer:
        data, offsets = "NTU-SYN or CMU-SYN", "whole frames −5 … 5"
    else:
        data, offsets = "IFID", "whole frames −5 … 5 plus a fraction"
    recipe = INTEGER if comparison.integer else IFID
    return (
        f"The data are CMU motions seen by virtual cameras, not {data}, whose protocol this is: {recipe.frames} frames "
        f"at {recipe.fps:g} fps,\n{offsets}. {comparison.pairs} pairs, the same for all rows (seed {_TEST_SEED}), of "
        "people whom no row was trained on; detector\nnoise as measured on Stacked Hourglass. Networks start from "
        "keypoints, so MB and GFLOPs lack a pose network, which the paper's include.\n"
        "SynNet, SeSyn-Net and CNNSiamese are smaller than published, so that a CPU trains them.\n\n"
        "clips: pairs trained on; ex, in: % less than so many frames, tenths off; Frm.err: mean, frames; ms: error of "
        "the signed offset;\nsign: % with the right one; z: RMS of error over sigma; /s: pairs on one CPU thread, one "
        "at a time and by 128; ±: over seeds"
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
    rows = [["", "clips", "seeds", *(c[0] for c in _COLUMNS), *(c[0] for c in _COST_COLUMNS)]]
    for line in lines:
        scores = [_cell([getattr(s, key) for s in line.scores], scale, digits) for _, scale, digits, key in _COLUMNS]
        costs = [
            _cell([None if line.cost is None else getattr(line.cost, key)], 1, digits)
            for _, digits, key in _COST_COLUMNS
        ]
        seeds = "–" if line.clips is None else str(len(line.scores))
        rows.append([line.title, "–" if line.clips is None else str(line.clips), seeds, *scores, *costs])
        if paper and line.name in _PAPER:
            known = [*_PAPER[line.name], None, None][:8]
            digits = (2, 2, 2, 2, 2, 2, 0, 0)
            cells = ["–" if v is None else f"{v:.{d}f}" for v, d in zip(known, digits, strict=True)]
            others = [""] * (len(_COLUMNS) - 6)
            rows.append(["  the paper on IFID", "", "", *cells[:6], *others, *cells[6:], "", ""])
    return _aligned(rows)


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
