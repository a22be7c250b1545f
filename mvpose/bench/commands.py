"""The door to all tables: ``mvpose bench``. Each command parses, calls one module of the bench, and prints."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from mvpose.console import (
    PATH,
    InOrder,
    Progress,
    gathered_messages,
    json_option,
    motion_option,
    polish_option,
    print_json,
)

# As in the front door, heavy modules are imported inside the commands.


@click.group(cls=InOrder)
def bench() -> None:
    """Tables that anyone can rerun."""


class _Names(click.ParamType):
    """Names with commas between them."""

    name = "A,B"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        return value if isinstance(value, tuple) else tuple(value.split(","))


def _seeds_option(default: int, what: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    return click.option("--seeds", type=click.IntRange(1), default=default, show_default=True, help=what)


def _split_option(default: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    return click.option(
        "--split",
        type=click.Choice(["train", "val", "test"]),
        default=default,
        show_default=True,
        help="Split of the pack that people move by; nothing is to be tuned on test.",
    )


@bench.command("clips", short_help="The InSynFormer paper's tables: two short clips, by every method.")
@motion_option("packs *_train.npz, *_val.npz and *_test.npz.")
@click.option(
    "--work-dir", type=PATH, default=Path("work_dirs/bench"), show_default=True, help="Weights, logs, checkpoints."
)
@click.option("--rows", type=_Names(), help="Names of rows.  [default: all]")
@click.option(
    "--clips",
    type=click.IntRange(1),
    default=160_000,
    show_default=True,
    help="Pairs to train each row on, but for rows with a recipe of their own.",
)
@_seeds_option(3, "Trainings of each row of --seed-rows; the others have one.")
@click.option("--seed-rows", type=_Names(), help="Rows to be trained so often.  [default: the two best on val]")
@click.option("--pairs", type=click.IntRange(128), default=8192, show_default=True, help="Pairs to test on.")
@click.option("--integer", is_flag=True, help="Whole frames only, as in NTU-SYN and CMU-SYN; trains rows for that.")
@click.option("--weights", multiple=True, metavar="ROW=FILE", help="A further line, with weights of any training.")
@click.option("--diagnose", is_flag=True, help="Errors against speed, view angle, offset, noise and clip length, too.")
@json_option
def bench_clips(
    data: Path, work_dir: Path, rows: tuple[str, ...] | None, weights: tuple[str, ...], as_json: bool, **options: Any
) -> None:
    """Tables 1 and 2 of the InSynFormer paper, on real motion seen by virtual cameras.

    Rows whose weights are not in the work folder are trained first, which takes some ten minutes each.
    """
    from mvpose.bench.clips.compare import Plan, compare_rows
    from mvpose.bench.clips.tables import format_comparison

    files = []
    for word in weights:
        row, equals, file = word.partition("=")
        if not equals:
            raise click.BadParameter(f"{word!r} is not ROW=FILE", param_hint="--weights")
        files.append((row, Path(file)))
    if rows is not None:
        options["rows"] = rows
    with gathered_messages() as (progress, warnings):
        compared = compare_rows(Plan(data, work_dir, weights=tuple(files), **options), progress)
    if as_json:
        print_json({**asdict(compared), "warnings": warnings})
        return
    click.echo(format_comparison(compared))


@bench.command("recordings", short_help="Clocks of whole recordings of many kinds, by every estimator.")
@motion_option("packs *_test.npz.")
@_seeds_option(2, "Recordings of each kind; of the longest ones the first alone.")
@click.option("--estimators", type=_Names(), help="Names of rows, see below.  [default: all]")
@click.option("--cases", metavar="TEXT", default="", help="Kinds whose description holds TEXT.  [default: all]")
@click.option("--no-poses", is_flag=True, help="Leave out what clocks do to 3D poses.")
@click.option("--no-speed", is_flag=True, help="Leave out the time it takes.")
@_split_option("test")
@json_option
def bench_recordings(
    data: Path,
    seeds: int,
    estimators: tuple[str, ...] | None,
    cases: str,
    no_poses: bool,
    no_speed: bool,
    split: str,
    as_json: bool,
) -> None:
    """Clocks of whole recordings of known ones; what they do to 3D poses; the speed. All takes about half an hour.

    Rows: correlation, insynformer and uncalibrated (the default) without a calibration; epipolar, rays and calibrated (the
    default) with one. Kinds are described as the tables do: --cases "5 s at 10 fps", --cases "rolling shutter".
    """
    from mvpose.bench import clocks

    rows = clocks.choose_estimators(estimators)
    chosen = clocks.choose_cases(clocks.grid(), cases)
    repaired = [] if no_poses else [case for case in clocks.REPAIRED if cases in str(case)]
    with gathered_messages() as (progress, _):
        motions, numbers = clocks.read_motion(data, split), range(seeds)
        trials = clocks.run_trials(chosen, motions, rows, numbers, progress)
        repairs = clocks.run_repairs(repaired, motions, numbers, progress)
        speeds = [] if no_speed else clocks.measure_speed(motions, clocks.TIMED_S, progress)
    if as_json:
        parts: dict[str, list[Any]] = {"trials": trials, "repairs": repairs, "speeds": speeds}
        print_json({name: [asdict(row) for row in part] for name, part in parts.items()})
        return
    click.echo(clocks.format_trials(trials))
    if repairs:
        click.echo("\n" + clocks.format_repairs(repairs))
    if speeds:
        click.echo("\n" + clocks.format_speeds(speeds))


@bench.command("adversarial", short_help="Recordings made to mislead: is any clock good by its verdict, but wrong?")
@motion_option("packs *_test.npz.")
@_seeds_option(200, "Recordings in all, of all kinds in turn.")
@json_option
def bench_adversarial(data: Path, seeds: int, as_json: bool) -> None:
    """Recordings made to mislead: whether any clock is good by its verdict, but wrong. Takes about half an hour."""
    from mvpose.bench.adversarial import format_adversarial, run_adversarial
    from mvpose.bench.clocks import read_motion

    with gathered_messages() as (progress, _):
        outcomes = run_adversarial(read_motion(data), range(seeds), progress)
    if as_json:
        print_json({"outcomes": [asdict(outcome) for outcome in outcomes]})
        return
    click.echo(format_adversarial(outcomes))


class _Rates(click.ParamType):
    """Frame rates with commas between them."""

    name = "F,F"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, ...]:
        if isinstance(value, tuple):
            return value
        try:
            rates = tuple(float(rate) for rate in value.split(","))
        except ValueError:
            rates = ()
        if not all(0 < rate <= 1000 for rate in rates) or len(rates) < 2:
            self.fail(f"{value!r} is not two frame rates or more, such as 30,25", param, ctx)
        return rates


@bench.command("generated", short_help="Generated motion through the whole chain: clocks, 3D poses, time and memory.")
@_seeds_option(5, "How many recordings.")
@click.option("--first-seed", type=click.IntRange(0), default=0, show_default=True, help="Reports are below 100.")
@click.option("--duration", "duration_s", default=300.0, show_default=True, help="Length of the session, seconds.")
@click.option("--max-offset", "max_offset_s", default=120.0, show_default=True, help="How far apart cameras start.")
@click.option("--drift-ppm", default=100.0, show_default=True, help="Clock rates are uniform in 1 ± this.")
@click.option("--fps", type=_Rates(), default="30,30,25,60", show_default=True, help="Frame rates; one camera each.")
@click.option("--people", type=click.IntRange(1), default=1, show_default=True, help="How many.")
@click.option("--crossing", is_flag=True, help="Two people who cross twice a minute, in place of --people.")
@click.option("--noise", default=1.0, show_default=True, help="Factor on the measured detector noise.")
@click.option("--no-raw", is_flag=True, help="Leave out the reconstruction without synchronisation.")
def bench_generated(seeds: int, first_seed: int, no_raw: bool, **options: Any) -> None:
    """Generated recordings of five minutes through the whole chain: a line each as it is done, then the summary."""
    from mvpose.bench import generated

    rows = []
    with gathered_messages():
        for seed in range(first_seed, first_seed + seeds):
            rows.append(generated.run_seed(generated.Session(**options), seed, raw=not no_raw))
            click.echo(f"seed {seed}: {generated.format_row(rows[-1])}")
    click.echo(generated.format_summary(rows))


@bench.command("cut", short_help="Real recordings cut apart by known amounts.")
@click.option("--recordings", type=PATH, help="Folder of the recordings.  [default: fetched]")
@click.option("--detector", metavar="NAME", default="mediapipe", show_default=True, help="2D pose engine.")
def bench_cut(recordings: Path | None, detector: str) -> None:
    """Real recordings cut apart by known amounts: clocks against the cut, and 3D raw, synchronised and uncut."""
    from mvpose.bench.cut import run_cuts

    with tempfile.TemporaryDirectory() as scratch, gathered_messages():
        _echo_blocks(run_cuts(recordings, detector, Path(scratch)))


@bench.command("ablation", short_help="What each part of the joint refinement of clocks buys.")
@motion_option("packs *_test.npz.")
@_seeds_option(8, "Recordings of each kind.")
@_split_option("test")
def bench_ablation(data: Path, seeds: int, split: str) -> None:
    """What each part of the joint refinement of clocks buys: errors over all frames without it, kind by kind."""
    from mvpose.bench.ablation import run_ablation
    from mvpose.bench.clocks import read_motion

    with gathered_messages():
        _echo_blocks(run_ablation(read_motion(data, split), range(seeds)))


@bench.command("refinements", short_help="Other ways of refining all clocks together, beside the one that is used.")
@motion_option("packs *_val.npz.")
@_seeds_option(12, "Recordings of each kind.")
@_split_option("val")
def bench_refinements(data: Path, seeds: int, split: str) -> None:
    """Other ways of refining all clocks together, beside the one that is used: errors and CPU seconds, kind by kind."""
    from mvpose.bench.clocks import read_motion
    from mvpose.bench.refinements import run_refinements

    with gathered_messages():
        _echo_blocks(run_refinements(read_motion(data, split), range(seeds)))


@bench.command("detection", short_help="Seconds and peak memory of 2D detection.")
@click.argument("video", type=PATH)
@click.option(
    "--seconds", "lengths", type=click.FloatRange(0, min_open=True), multiple=True, default=(30.0, 120.0),
    show_default=True, help="Length to which the video is looped; may be repeated.",
)  # fmt: skip
@click.option("--every", type=click.IntRange(1), default=2, show_default=True, help="Keep every n-th frame.")
@click.option("--detector", metavar="NAME", default="mediapipe", show_default=True, help="2D pose engine.")
def bench_detection(video: Path, lengths: Sequence[float], every: int, detector: str) -> None:
    """Seconds and peak memory of detection on one VIDEO looped to several lengths; memory must not grow."""
    from mvpose.bench.detection import measure_detection

    with gathered_messages():
        _echo_blocks(measure_detection(video, lengths, every, detector))


def _echo_blocks(blocks: Iterable[str]) -> None:
    """Print each part of a long table as soon as it is there."""
    for block in blocks:
        click.echo(block)


@bench.command("recon", short_help="Poses of several people: synthetic rooms, data sets, unseen rigs, speed.")
@click.option(
    "--data",
    type=PATH,
    metavar="DIR",
    help="A folder of motion (packs *_test.npz) for people to move by, or of Shelf, Campus, Panoptic, Human3.6M or "
    "TotalCapture.  [default: generated motion]",
)
@click.option(
    "--method",
    "methods",
    type=click.Choice(["triangulate", "voxel"]),
    multiple=True,
    help="How keypoints become 3D; may be repeated.  [default: triangulate]",
)
@_seeds_option(1, "Recordings of each room.")
@click.option("--seconds", type=click.FloatRange(1), help="Of each room, so much is reconstructed.  [default: all]")
@click.option("--part", metavar="NAME", help="One recording of a data set.  [default: all]")
@click.option("--lay-out", is_flag=True, help="Make sessions of a data set's videos, for mvpose detect, and stop.")
@click.option("--scenes", is_flag=True, help="People who cross, meet, come, go and hide, in place of rooms.")
@click.option("--speed", is_flag=True, help="Stage by stage: time and memory, in place of rooms.")
@click.option("--rigs", type=click.IntRange(1), metavar="N", help="VoxelPose on N unseen rigs, in place of rooms.")
@click.option("--weights", multiple=True, type=PATH, help="With --rigs: further weights of VoxelPose; may be repeated.")
@polish_option
@json_option
def bench_recon(
    data: Path | None,
    methods: tuple[Any, ...],
    seeds: int,
    seconds: float | None,
    part: str | None,
    lay_out: bool,
    scenes: bool,
    speed: bool,
    rigs: int | None,
    weights: tuple[Path, ...],
    no_polish: bool,
    as_json: bool,
) -> None:
    """Poses of several people against the truth: MPJPE, AP, PCP, recall, identity switches.

    In synthetic rooms, under true, shifted and repaired clocks; or, with the folder of a data set, by that one's
    protocol beside the published figures.
    """
    from mvpose.bench.clocks import read_motion
    from mvpose.bench.datasets import list_parts

    methods = methods or ("triangulate",)
    if speed + scenes + (rigs is not None) > 1:
        raise click.UsageError("--scenes, --speed and --rigs are three benches; run one after the other")
    if lay_out:
        _lay_out(_required(data, "--lay-out", "the folder of a data set"), part)
        return
    if data is not None and not any(data.glob("*_test.npz")) and list_parts(data):
        _bench_dataset(data, methods, part, as_json)
        return
    rows: list[Any]
    with gathered_messages() as (progress, _):
        motions = None if data is None else read_motion(data)
        if rigs is not None:
            text, rows = _bench_rigs(motions, rigs, weights, progress)
        elif scenes:
            from mvpose.bench.scenes import format_scenes, run_scenes

            rows = list(run_scenes(_required(motions, "--scenes"), range(seeds), progress))
            text = format_scenes(rows)
        else:
            from mvpose.bench import rooms

            if speed:
                rows = list(rooms.measure_speed(motions, progress))
                text = rooms.format_speed(rows)
                if "voxel" in methods:
                    voxels = rooms.measure_voxel_speed(motions, progress)
                    text, rows = f"{text}\n\n{rooms.format_voxel_speed(voxels)}", rows + voxels
            else:
                rows = list(
                    rooms.run_rooms(motions, range(seeds), methods, progress, seconds=seconds, polish=not no_polish)
                )
                text = rooms.format_rooms(rows)
    if as_json:
        print_json({"rows": [asdict(row) for row in rows]})
        return
    click.echo(text)


def _required(given: Any, what: str, kind: str = "a folder of motion") -> Any:
    if given is None:
        raise click.UsageError(f"{what} needs {kind}: give --data")
    return given


def _lay_out(folder: Path, part: str | None) -> None:
    from mvpose.bench.datasets import lay_out_session, list_parts

    with gathered_messages():
        for name in [part] if part is not None else list_parts(folder) or [None]:
            click.echo(str(lay_out_session(folder, name)))


def _bench_rigs(motions: Any, count: int, weights: tuple[Path, ...], progress: Progress) -> tuple[str, list[Any]]:
    from mvpose.bench import rigs
    from mvpose.recon.voxelpose.fuse import load_voxelpose
    from mvpose.training.motions import motion_bank

    networks = {"shipped": load_voxelpose(), **{path.parent.name: load_voxelpose(path) for path in weights}}
    drawn = [rigs.unseen_rig(number) for number in range(count)]
    scores = rigs.run_rigs(networks, motion_bank(_required(motions, "--rigs").values()), drawn, rigs.FRAMES, progress)
    return rigs.format_rigs(scores, drawn), [score for own in scores.values() for score in own]


def _bench_dataset(data: Path, methods: tuple[Any, ...], part: str | None, as_json: bool) -> None:
    from mvpose.bench.recon_datasets import evaluate_folder, format_evaluation

    with gathered_messages() as (progress, _):
        found = {m: evaluate_folder(data, m, part=part, progress=progress) for m in methods}
    if as_json:
        print_json({method: asdict(evaluation.pooled) for method, evaluation in found.items()})
        return
    for method, evaluation in found.items():
        click.echo(format_evaluation(evaluation, f"mvpose, {method}"))
