"""The paper's comparison, tables 1 and 2 of Liu et al. (AAAI 2024), with what it left out and the physical limit.

The data are motions of the CMU motion-capture database seen by virtual cameras through measured detector noise, under
the protocol of IFID, which cannot be had; all rows see the same pairs. Rows whose weights are not in the work folder
are trained on the spot.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from mvpose.bench.clips.cost import Cost, measure_cost
from mvpose.bench.clips.diagnose import Diagnosis, diagnose
from mvpose.bench.clips.estimators import Estimator, Trained, loaded_row, ready_row, trained_row
from mvpose.bench.clips.protocol import INTEGER, TEST_SEED, VAL_SEED, draw_seeded, read_test_bank
from mvpose.bench.clips.rows import READY, ROWS, check_known, table_rows, training_of
from mvpose.errors import FormatError
from mvpose.pipeline import Progress
from mvpose.sync.clips import Decision
from mvpose.sync.train.metrics import Score, score_decisions
from mvpose.sync.train.rows import Row
from mvpose.sync.train.scenes import IFID, LabelledPairs, Recipe
from mvpose.training.folder import MotionFolder

_CHOOSING = 2048  # pairs on which the two best rows are chosen


@dataclass(frozen=True)
class Plan:
    """What is to be compared.

    Attributes:
        data: Folder of motion, with splits train, val and test.
        work_dir: Where weights are and are put, ``<row>[-whole][-seedN].safetensors``.
        rows: Names in ``ROWS`` or ``READY``, in the order of the tables.
        clips: Pairs that a row without settings of its own is trained on.
        seeds: Trainings of each row in ``seed_rows``; the others have one.
        seed_rows: Those of the rows whose spread is shown; the two best on val if None.
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
    seed_rows: tuple[str, ...] | None = None
    pairs: int = 8192
    integer: bool = False
    weights: tuple[tuple[str, Path], ...] = ()
    diagnose: bool = False

    def __post_init__(self) -> None:
        check_known(self.rows, (*ROWS, *READY))
        check_known(self.seed_rows or (), [name for name in self.rows if name in ROWS])
        if self.seed_rows and self.seeds < 2:
            raise FormatError("rows are named for several seeds, but there is one; give --seeds 2 or more")
        check_known([name for name, _ in self.weights], tuple(ROWS))
        for one in (*self.rows, *self.weights):
            if (*self.rows, *self.weights).count(one) > 1:
                raise FormatError(f"{one if isinstance(one, str) else one[1]} is named twice; once is enough")

    @property
    def recipe(self) -> Recipe:
        """What pairs are drawn from, to train as to test."""
        return INTEGER if self.integer else IFID


@dataclass(frozen=True)
class Line:
    """One line of the tables.

    Attributes:
        name: Of its row.
        title: What it is called.
        scores: One a seed.
        trained: By what; None of one that learns nothing.
        cost: None of what is no network.
    """

    name: str
    title: str
    scores: tuple[Score, ...]
    trained: Trained | None
    cost: Cost | None


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
    bank = read_test_bank(plan.data)
    test = draw_seeded(bank, plan.recipe, plan.pairs, TEST_SEED)
    trained = {name: [_trained(name, 0, plan, progress)] for name in plan.rows if name in ROWS}
    if plan.seeds > 1 and trained:
        for name in _best_on_val(trained, plan) if plan.seed_rows is None else plan.seed_rows:
            trained[name] += [_trained(name, seed, plan, progress) for seed in range(1, plan.seeds)]
    rows = [trained[name] if name in ROWS else [ready_row(name, plan.recipe)] for name in plan.rows]
    rows += [[loaded_row(_titled(name, path, plan), path)] for name, path in plan.weights]
    rows.sort(key=lambda seeds: seeds[0].name == "oracle")  # last
    lines = []
    for done, seeds in enumerate(rows):
        progress("test", done, len(rows))
        scores = tuple(_score(one, test, plan) for one in seeds)
        first = seeds[0]
        cost = None if first.network is None else measure_cost(first.network, test.pairs)
        lines.append(Line(first.name, first.title, scores, first.trained, cost))
    progress("test", len(rows), len(rows))
    diagnoses = diagnose([seeds[0] for seeds in rows], plan.recipe, bank) if plan.diagnose else ()
    return Comparison(plan.integer, plan.pairs, tuple(lines), diagnoses)


def _trained(name: str, seed: int, plan: Plan, progress: Progress) -> Estimator:
    training = training_of(name, plan.clips, plan.recipe, seed)
    stem = name + "-whole" * plan.integer + f"-seed{seed}" * (seed > 0)
    return trained_row(training, MotionFolder(plan.data), plan.work_dir / f"{stem}.safetensors", progress)


def _best_on_val(trained: Mapping[str, list[Estimator]], plan: Plan) -> list[str]:
    val = draw_seeded(MotionFolder(plan.data).bank("val"), plan.recipe, _CHOOSING, VAL_SEED)
    return best_rows({name: _score(one, val, plan) for name, (one,) in trained.items()}, 2)


def best_rows(scores: Mapping[str, Score], count: int) -> list[str]:
    """Return the rows with the smallest frame errors, best first; whole frames alone are no match for tenths."""
    return sorted(scores, key=lambda name: (scores[name].in_1 is None, scores[name].frame_error))[:count]


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
    return Decision(nearest.abs().long(), None, nearest, decision.sigma_frames)


def _titled(name: str, path: Path, plan: Plan) -> Row:
    row = table_rows(whole_frames=plan.integer)[name].row
    alone = sum(path.stem == other.stem for _, other in plan.weights) == 1  # trainings name their files by the row
    return replace(row, title=f"{row.title}, {path.stem if alone else path.with_suffix('')}")
