"""The front door: parse, call, print. Results go to stdout, progress and warnings to stderr."""

from __future__ import annotations

import io
import logging
import math
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mvpose import __version__
from mvpose.console import (
    PATH,
    InOrder,
    Progress,
    gathered_messages,
    json_option,
    motion_option,
    one_line,
    polish_option,
    print_json,
)
from mvpose.errors import MvposeError, SessionError

if TYPE_CHECKING:
    from mvpose.clock import Clocks
    from mvpose.pipeline import Recording, Settings
    from mvpose.poses import Poses3D
    from mvpose.workspace import Workspace

# Heavy modules are imported inside the commands, so that --help answers at once.

_DETECTORS = ("auto", "mmpose", "mediapipe")


def main() -> None:
    """Run the command line; exit 0 done, 2 wrong flags, 3 bad input or surroundings, 130 interrupted, 1 a bug."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without ± or → must not end the program
    try:
        code = cli.main(standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except MvposeError as error:
        click.echo(f"error: {one_line(error)}", err=True)
        sys.exit(3)
    except OSError as error:
        what = f"{error.filename}: {error.strerror}" if error.filename else error
        click.echo(f"error: {one_line(what)}", err=True)
        sys.exit(3)
    except click.exceptions.Abort:
        click.echo(
            "interrupted; run the same command again to go on where it stopped, a training with --resume", err=True
        )
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)


@click.group(cls=InOrder, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="mvpose")
def cli() -> None:
    """3D skeletons from several ordinary cameras that nothing synchronises.

    A SESSION is a folder: videos/CAMERA.mp4 and so on, keypoints/CAMERA.npz, .json or CAMERA_json/ where 2D keypoints
    are there already, and session.toml for what only you know. Results go to SESSION/mvpose.
    """


def _session_argument(command: Callable[..., None]) -> Callable[..., None]:
    return click.argument("session", type=click.Path(path_type=Path))(command)


def _options(*names: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Attach the named options of the table below, so that an option is the same in every command."""

    def attach(command: Callable[..., None]) -> Callable[..., None]:
        for name in reversed(names):
            command = _OPTIONS[name](command)
        return command

    return attach


class _Finite(click.types.FloatParamType):
    """A number; "nan" and "inf" are none."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Parse and check."""
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a finite number", param, ctx)
        return number


class _FiniteRange(_Finite, click.FloatRange):
    """A number within bounds."""


_OPTIONS: dict[str, Callable[[Callable[..., None]], Callable[..., None]]] = {
    "calib": click.option("--calib", type=PATH, help="Calibration of the cameras, in any known format."),
    "calib!": click.option(
        "--calib", type=PATH, required=True, help="Calibration of the cameras, in any known format."
    ),
    "units": click.option(
        "--units", type=click.Choice(["m", "cm", "mm"]), help="Unit of a calibration that names none."
    ),
    "out": click.option("--out", type=PATH, help="Output folder.  [default: SESSION/mvpose]"),
    "detector": click.option(
        "--detector",
        type=click.Choice(_DETECTORS),
        metavar="NAME",
        default="auto",
        show_default=True,
        help=f"2D pose engine: {', '.join(_DETECTORS[:-1])} or {_DETECTORS[-1]}.",
    ),
    "checkpoint": click.option("--checkpoint", type=PATH, help="Weights of mmpose's pose network, a local file."),
    "jobs": click.option(
        "--jobs",
        type=click.IntRange(1),
        metavar="N",
        default=1,
        show_default=True,
        help="Cameras detected at the same time.",
    ),
    "sync": click.option("--no-sync", is_flag=True, help="Take every camera's own time as it stands."),
    "fps": click.option(
        "--fps",
        type=_FiniteRange(0, 1000, min_open=True),
        metavar="F",
        help="3D poses a second.  [default: the reference camera's]",
    ),
    "start": click.option(
        "--start", "start_s", type=_Finite(), metavar="S", help="First session time to reconstruct, seconds."
    ),
    "end": click.option(
        "--end", "end_s", type=_Finite(), metavar="S", help="Last session time to reconstruct, seconds."
    ),
    "method": click.option(
        "--method",
        type=click.Choice(["triangulate", "voxel"]),
        default="triangulate",
        show_default=True,
        help="How keypoints become 3D: person by person, or by VoxelPose.",
    ),
    "pair methods": click.option(
        "--method",
        "pair_methods",
        type=click.Choice(["insynformer", "epipolar", "correlation"]),
        multiple=True,
        help="How pairs of cameras are estimated; may be repeated.  [default: epipolar with --calib, and insynformer "
        "where that finds nothing; insynformer without]  Other commands estimate pairs anew, by the default.",
    ),
    "weights": click.option("--weights", type=PATH, help="Weights of VoxelPose.  [default: those that ship]"),
    "polish": polish_option,
    "smooth": click.option("--no-smooth", is_flag=True, help="Leave the 3D poses as triangulated."),
    "reference": click.option("--reference", metavar="CAM", help="Camera whose time is the session's."),
    "skip": click.option("--skip", multiple=True, metavar="CAM", help="Leave a camera out; may be repeated."),
    "force": click.option("--force", is_flag=True, help="Do everything anew, whatever is there already."),
    "json": json_option,
    "truth": click.option(
        "--truth", type=PATH, multiple=True, help="A true clocks.json and/or poses3d.npz; may be repeated."
    ),
}


def _settings(options: dict[str, Any], beside: str | None = None) -> Settings:
    from mvpose.pipeline import Settings

    for name in ("weights", "no_polish"):
        if options.get(name) and "voxel" not in (options["method"], beside):
            raise click.UsageError(f"--{name.replace('_', '-')} is of VoxelPose; give --method voxel")
    chosen = dict(options)
    chosen["skip"] = tuple(chosen.get("skip", ()))
    if "no_sync" in chosen:
        chosen["synchronise"] = not chosen.pop("no_sync")
    for name in ("polish", "smooth"):
        if f"no_{name}" in chosen:
            chosen[name] = not chosen.pop(f"no_{name}")
    return Settings(**chosen)


@contextmanager
def _opened(
    session: Path, out: Path | None, force: bool, options: dict[str, Any], beside: str | None = None
) -> Iterator[tuple[Recording, Workspace, Progress]]:
    """Open session and output folder; all that is said goes into run.json even if something fails."""
    from mvpose.pipeline import open_recording
    from mvpose.workspace import open_workspace

    with gathered_messages() as (progress, warnings):
        recording = open_recording(session, _settings(options, beside))
        folder = out or session / "mvpose"
        with open_workspace(folder, force=force, options=options, warnings=warnings) as workspace:
            yield recording, workspace, progress


@cli.command(short_help="From videos to 3D skeletons, in one go.")
@_session_argument
@_options(
    "calib!", "units", "out", "detector", "checkpoint", "sync", "method", "weights", "polish", "fps", "start", "end",
    "smooth", "reference", "skip", "jobs", "force", "json",
)  # fmt: skip
def reconstruct(session: Path, out: Path | None, force: bool, as_json: bool, **options: Any) -> None:
    """From videos to 3D skeletons: whatever of detect, sync, reconstruct, export and compare is not yet done."""
    from mvpose import pipeline
    from mvpose.compare import compare

    with _opened(session, out, force, options) as (recording, workspace, progress):
        pipeline.require_cameras(recording)
        keypoints = pipeline.detect(recording, workspace, progress)
        made = pipeline.reconstruct(recording, keypoints, workspace, progress)
        exported = pipeline.export(made.poses, workspace)
        metrics = {}
        if recording.settings.synchronise:
            metrics = compare(recording, keypoints, made.offsets, made.clocks, workspace, progress=progress)
        _report_reconstruction(made.poses, made.clocks, metrics, workspace, exported, as_json)


def _report_reconstruction(
    poses: Poses3D,
    clocks: Clocks,
    metrics: dict[str, dict[str, Any]],
    workspace: Workspace,
    exported: list[Path],
    as_json: bool,
) -> None:
    files = [workspace.clocks, workspace.poses3d, *exported, *([workspace.report] if metrics else [])]
    if as_json:
        print_json(
            {
                "people": len(poses.person_ids),
                "frames": len(poses.time_s),
                "clocks": _clocks_json(clocks),
                "metrics": metrics,
                "files": [str(f) for f in files],
                "warnings": workspace.warnings,
            }
        )
        return
    _print_clocks(clocks)
    people = len(poses.person_ids)
    click.echo(
        f"{people} {'person' if people == 1 else 'people'} in {len(poses.time_s)} frames at {poses.frame_rate:.4g} fps"
    )
    if metrics:
        click.echo("")
        _print_metrics(metrics)
    click.echo("")
    for path in files:
        click.echo(str(path))


@cli.command(short_help="2D keypoints only.")
@_session_argument
@_options("out", "detector", "checkpoint", "skip", "jobs", "force", "json")
def detect(session: Path, out: Path | None, force: bool, as_json: bool, **options: Any) -> None:
    """2D keypoints only: every camera's people, tracked."""
    from mvpose import pipeline

    with _opened(session, out, force, options) as (recording, workspace, progress):
        keypoints = pipeline.detect(recording, workspace, progress)
        found = {
            name: {
                "frames": k.n_frames,
                "detections": len(k.xy_px),
                "tracks": len(set(k.track_id.tolist())),
                "skeleton": k.skeleton.name,
                "joints": len(k.skeleton),
                "file": str(workspace.keypoints2d(name)),
            }
            for name, k in keypoints.items()
        }
        if as_json:
            print_json({"cameras": found, "warnings": workspace.warnings})
            return
        width = max(len(name) for name in found)
        for name, facts in found.items():
            click.echo(
                f"{name:<{width}}  {facts['frames']} frames, {facts['detections']} detections of {facts['joints']} "
                f"joints ({facts['skeleton']}), {facts['tracks']} track{'s' * (facts['tracks'] != 1)}"
            )
        click.echo("")
        for facts in found.values():
            click.echo(facts["file"])


@cli.command(short_help="Clocks only.")
@_session_argument
@_options(
    "calib", "units", "pair methods", "out", "detector", "checkpoint", "reference", "skip", "jobs", "force", "json"
)
def sync(session: Path, out: Path | None, force: bool, as_json: bool, **options: Any) -> None:
    """Clocks only.

    Without --calib they come from InSynFormer, a network that has learnt how people's movements look from two sides.
    """
    from mvpose import pipeline

    with _opened(session, out, force, options) as (recording, workspace, progress):
        pipeline.require_cameras(recording)
        keypoints = pipeline.detect(recording, workspace, progress)
        _, clocks = pipeline.synchronise(recording, keypoints, workspace, progress)
        if as_json:
            print_json({**_clocks_json(clocks), "file": str(workspace.clocks), "warnings": workspace.warnings})
            return
        _print_clocks(clocks)
        click.echo(str(workspace.clocks))


@cli.command(short_help="Synchronised against raw: report and metrics.")
@_session_argument
@_options(
    "calib!", "units", "truth", "out", "detector", "checkpoint", "method", "weights", "polish", "fps", "start", "end",
    "smooth", "reference", "skip", "jobs", "force", "json",
)  # fmt: skip
@click.option("--beside", type=click.Choice(["triangulate", "voxel"]), help="Show another --method beside it.")
def compare(
    session: Path,
    truth: tuple[Path, ...],
    out: Path | None,
    force: bool,
    as_json: bool,
    beside: Any,
    **options: Any,
) -> None:
    """Set the synchronised reconstruction beside the raw one: report/index.html and report/metrics.json."""
    from mvpose import pipeline
    from mvpose.compare import compare as compare_variants
    from mvpose.compare import read_truth

    if beside == options["method"]:
        raise click.BadParameter(f"{beside} is --method already", param_hint="--beside")
    known = read_truth(truth)
    with _opened(session, out, force, options, beside) as (recording, workspace, progress):
        pipeline.require_cameras(recording)
        keypoints = pipeline.detect(recording, workspace, progress)
        made = pipeline.reconstruct(recording, keypoints, workspace, progress)
        metrics = compare_variants(recording, keypoints, made.offsets, made.clocks, workspace, known, progress, beside)
        if as_json:
            print_json({"metrics": metrics, "report": str(workspace.report), "warnings": workspace.warnings})
            return
        _print_metrics(metrics)
        click.echo(str(workspace.report))


@cli.command(short_help="Open3D playback, film or picture of the skeletons.")
@_session_argument
@_options("calib", "units", "out")
@click.option("--save", type=PATH, metavar="FILE", help="Render to a .mp4 or .png, without a screen.")
@click.option("--raw", is_flag=True, help="Show the reconstruction without synchronisation.")
def view(session: Path, calib: Path | None, units: Any, out: Path | None, save: Path | None, raw: bool) -> None:
    """Open3D playback of the skeletons, with cameras and ground.

    \b
    space         play, pause
    left, right   one frame back, on
    [ and ]       one second back, on
    home, end     to the start, to the end
    0 to 9        to so many tenths of the recording
    up, down      faster, slower
    mouse         drag turns, wheel zooms, ctrl+drag shifts
    R, Q          reset the view, quit
    """  # noqa: D301
    from mvpose.calib.files import read_rig
    from mvpose.formats.results import read_poses
    from mvpose.viz.player import play, render
    from mvpose.workspace import read_workspace, recorded_calib

    workspace = read_workspace(out or session / "mvpose")
    poses_file = workspace.poses3d_raw if raw else workspace.poses3d
    with gathered_messages() as (progress, _):
        _require_made(poses_file, workspace, session)
        poses = read_poses(poses_file)
        if calib is None:
            calib, units = recorded_calib(workspace)
        rig = read_rig(calib, units=units).subset(poses.cameras)
        if save is None:
            play(poses, rig, lambda line: click.echo(line, err=True))
        else:
            render(poses, rig, save, progress=lambda share: progress("render", round(100 * share), 100))
            click.echo(str(save))


@cli.command(short_help="Write the 3D poses for other programs.")
@_session_argument
@_options("out")
@click.option("--to", "kind", type=click.Choice(["trc", "c3d", "csv"]), required=True, help="Format.")
def export(session: Path, out: Path | None, kind: str) -> None:
    """Write the 3D poses for other programs."""
    from mvpose.formats.motion import EXPORTS
    from mvpose.formats.results import read_poses
    from mvpose.lock import locked
    from mvpose.workspace import read_workspace

    workspace = read_workspace(out or session / "mvpose")
    with gathered_messages():
        _require_made(workspace.poses3d, workspace, session)
        with locked(workspace.root):
            for path in EXPORTS[kind](read_poses(workspace.poses3d), workspace.exports):
                click.echo(str(path))


def _require_made(poses_file: Path, workspace: Workspace, session: Path) -> None:
    """Refuse poses that are not there, and warn of those that a later run has left behind."""
    from mvpose.pipeline import doubts_about

    if not poses_file.is_file():
        raise SessionError(f"{poses_file} is not there; run mvpose reconstruct {session} first")
    if why := doubts_about(poses_file, workspace):
        logging.getLogger(__name__).warning("%s: %s; run mvpose reconstruct again", poses_file, why)


@cli.command("convert-calib", short_help="Turn one calibration format into another.")
@click.argument("source", metavar="IN", type=PATH)
@click.argument("target", metavar="OUT", type=PATH)
@click.option("--to", metavar="FORMAT", help="Format to write.  [default: by OUT's suffix]")
@_options("units")
def convert_calib(source: Path, target: Path, to: str | None, units: Any) -> None:
    """Read any known calibration format and write another."""
    from mvpose.calib.files import FORMATS, read_rig, write_rig

    if to is not None and to not in FORMATS:
        raise click.BadParameter(f"{to!r} is not one of {', '.join(FORMATS)}", param_hint="--to")
    with gathered_messages():
        rig = read_rig(source, units=units)
        write_rig(rig, target, to)
        click.echo(f"{len(rig)} cameras: {', '.join(rig.names)} → {target}")


@cli.command(short_help="Cut real recordings apart in time and repair them.")
@click.option("--synthetic", is_flag=True, help="A generated world in place of real video.")
@click.option("--out", "folder", type=PATH, default=Path("mvpose-demo"), help="Folder.  [default: mvpose-demo]")
@_options("detector", "jobs", "json")
def demo(synthetic: bool, folder: Path, detector: str, jobs: int, as_json: bool) -> None:
    """Cut real 4-camera recordings apart in time, repair them, and show what that bought.

    The table sets three reconstructions of the same keypoints side by side: raw as recorded, synced by mvpose, and
    with the true clocks, which are known because the cut is.
    """
    from mvpose.demo import run_demo, run_synthetic_demo

    with gathered_messages() as (progress, warnings):
        if synthetic:
            results = run_synthetic_demo(folder, progress, warnings)
        else:
            results = run_demo(folder, progress, warnings, detector=detector, jobs=jobs)
    if as_json:
        print_json(
            {
                "recordings": {
                    r.name: {"metrics": r.metrics, "report": str(r.report), "warnings": r.warnings} for r in results
                }
            }
        )
        return
    for number, result in enumerate(results):
        click.echo("\n" * (number > 0) + f"{result.name}, {result.what}\n")
        _print_metrics(result.metrics)
        click.echo(f"\n{result.report}")


@cli.command(short_help="Train a network of the synchronisation, or VoxelPose.")
@click.argument("config", type=PATH)
@motion_option("packs *_train.npz and *_val.npz, or BVH files.")
@click.option("--work-dir", type=PATH, help="Logs, checkpoints, weights.  [default: work_dirs/CONFIG]")
@click.option("--resume", is_flag=True, help="Go on from the last checkpoint, if there is one.")
@click.option("--seed", type=click.IntRange(0), metavar="N", help="Of weights and clips.  [default: CONFIG's, else 0]")
@click.option(
    "--launcher",
    type=click.Choice(["none", "pytorch"]),
    default="none",
    show_default=True,
    help="How processes that train together were started.",
)
@click.option("--option", "options", multiple=True, metavar="KEY=VALUE", help="Over CONFIG's; may be repeated.")
def train(
    config: Path,
    data: Path,
    work_dir: Path | None,
    resume: bool,
    seed: int | None,
    launcher: str,
    options: tuple[str, ...],
) -> None:
    """Train a network on real motion seen by virtual cameras; writes its weights.

    CONFIG is a file of mmengine such as configs/sync/insynformer.py or configs/voxelpose/planes.py, and is executed.

    Several processes train together by: torchrun --nproc-per-node N -m mvpose.cli train CONFIG --launcher pytorch

    In parts, of 8 minutes each: --option minutes=8 --resume, until it is done.
    """
    from mvpose.recon.voxelpose.train.run import run_config as train_voxelpose
    from mvpose.sync.train.run import run_config as train_row
    from mvpose.training.config import read_values

    run_config = train_voxelpose if "voxelpose" in read_values(config, (), None) else train_row
    with gathered_messages() as (progress, _):
        trained = run_config(
            config,
            data,
            work_dir or Path("work_dirs") / config.stem,
            progress,
            resume=resume,
            seed=seed,
            launcher=launcher,
            options=options,
        )
        if trained is None:  # to be resumed; or the first of several processes speaks for them all
            return
        weights, figures = trained
        click.echo(f"val: {figures}")
        click.echo(str(weights))


class _Bench(InOrder):
    """Its commands are read when one of them is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        from mvpose.bench.commands import bench

        return bench.list_commands(ctx)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        from mvpose.bench.commands import bench

        return bench.get_command(ctx, cmd_name)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            raise click.UsageError(f"{error.message} There are {', '.join(self.list_commands(ctx))}.", ctx) from error


@cli.group(cls=_Bench, short_help="Tables that anyone can rerun.")
def bench() -> None:
    """Tables that anyone can rerun."""


def _clocks_json(clocks: Clocks) -> dict[str, Any]:
    return {
        "reference": clocks.reference,
        "clocks": {
            name: {
                "offset_s": c.offset_s,
                "rate": c.rate,
                "epoch_s": c.epoch_s,
                "offset_at_epoch_s": c.offset_at_epoch_s,
                "sigma_at_epoch_s": c.sigma_at_epoch_s,
                "verdict": c.verdict,
            }
            for name, c in clocks.clocks.items()
        },
        "unsynchronised": dict(clocks.unsynchronised),
    }


def _print_clocks(clocks: Clocks) -> None:
    width = max(len(name) for name in (*clocks.clocks, *clocks.unsynchronised))
    for name, c in clocks.clocks.items():
        if name == clocks.reference:
            click.echo(f"{name:<{width}}  reference")
            continue
        drift = f"{1e6 * (c.rate - 1):+.1f} ppm" if c.rate_fitted else ""
        verdict = f"{c.verdict}: {c.why}" if c.why else c.verdict
        sigma = f"± {1e3 * c.sigma_at_epoch_s:5.1f} ms" if c.cov.any() else "not estimated"
        click.echo(f"{name:<{width}}  {c.offset_at_epoch_s:+10.4f} s  {sigma}  {drift:>10}  {verdict}")
    for name, why in clocks.unsynchronised.items():
        click.echo(f"{name:<{width}}  no clock: {why}")


_SHOWN = (
    ("timing_error_ms_mean", "timing error, mean", "ms", 1.0, 1),
    ("timing_error_ms_max", "timing error, worst camera", "ms", 1.0, 1),
    ("mpjpe_mm", "MPJPE", "mm", 1.0, 1),
    ("reprojection_px_mean", "reprojection error, mean", "px", 1.0, 2),
    ("reprojection_px_p90", "reprojection error, p90", "px", 1.0, 2),
    ("bone_spread_mm", "bone-length spread", "mm", 1.0, 1),
    ("acceleration_mps2", "acceleration", "m/s²", 1.0, 1),
    ("joints_found", "joints found", "%", 100.0, 1),
    ("n_people", "people", "", 1.0, 0),
)


def _print_metrics(metrics: Mapping[str, Mapping[str, Any]]) -> None:
    click.echo(f"{'':<30}" + "".join(f"{name:>12}" for name in metrics))
    for key, label, unit, scale, decimals in _SHOWN:
        values = [m.get(key) for m in metrics.values()]
        if any(v is not None for v in values):
            cells = "".join("           –" if v is None or v != v else f"{v * scale:>12.{decimals}f}" for v in values)
            click.echo(f"{label:<30}{cells} {unit}".rstrip())


if __name__ == "__main__":
    main()
