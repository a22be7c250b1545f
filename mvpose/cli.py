"""The front door: parse, call, print. Results go to stdout, progress and warnings to stderr."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mvpose import __version__
from mvpose.errors import MvposeError, SessionError

if TYPE_CHECKING:
    from mvpose.clock import Clocks
    from mvpose.pipeline import Recording, Settings
    from mvpose.poses import Poses3D
    from mvpose.workspace import Workspace

# Heavy modules are imported inside the commands, so that --help answers at once.

_DETECTORS = ("auto", "mmpose", "mediapipe")


class Progress:
    """Progress lines on stderr: one that is rewritten on a terminal, one in every tenth elsewhere."""

    def __init__(self) -> None:
        self._started: dict[str, float] = {}
        self._tenth: dict[str, int] = {}
        self._open_line = False

    def __call__(self, what: str, done: int, total: int) -> None:
        """Show that ``done`` of ``total`` is done."""
        start = self._started.setdefault(what, time.monotonic())
        tenth = 10 * done // max(total, 1)
        if sys.stderr.isatty():
            left = (time.monotonic() - start) * (total - done) / done if done else 0.0
            line = f"\r{what}: {done}/{total}" + (f", about {left:.0f} s left" if 0 < done < total else "")
            sys.stderr.write(f"{line:<70}" + ("\n" if done >= total else ""))
            self._open_line = done < total
        elif tenth != self._tenth.get(what):
            sys.stderr.write(f"{what}: {done}/{total}\n")
        self._tenth[what] = tenth
        sys.stderr.flush()

    def break_line(self) -> None:
        """End a line that would have been rewritten, so that another message can follow."""
        if self._open_line:
            sys.stderr.write("\n")
            self._open_line = False


class _Messages(logging.Handler):
    """Shows what the library has to say on stderr, and keeps the warnings for run.json and the report."""

    def __init__(self, progress: Progress) -> None:
        super().__init__(logging.INFO)
        self.progress = progress
        self.warnings: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        if record.levelno >= logging.WARNING:
            if message in self.warnings:
                return
            self.warnings.append(message)
            message = f"warning: {message}"
        self.progress.break_line()
        click.echo(message, err=True)


@contextmanager
def _messages() -> Iterator[tuple[Progress, list[str]]]:
    progress = Progress()
    handler = _Messages(progress)
    logger = logging.getLogger("mvpose")
    level, propagate = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield progress, handler.warnings
    finally:
        progress.break_line()
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = propagate


def main() -> None:
    """Run the command line; exit 0 done, 2 wrong flags, 3 bad input or surroundings, 130 interrupted, 1 a bug."""
    try:
        code = cli.main(standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except MvposeError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(3)
    except click.exceptions.Abort:
        click.echo("interrupted; run the same command again to go on where it stopped", err=True)
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(0)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="mvpose")
def cli() -> None:
    """3D skeletons from several ordinary cameras that nothing synchronises."""


def _session_argument(command: Callable[..., None]) -> Callable[..., None]:
    return click.argument("session", type=click.Path(path_type=Path))(command)


def _options(*names: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Attach the named options of the table below, so that an option is the same in every command."""

    def attach(command: Callable[..., None]) -> Callable[..., None]:
        for name in reversed(names):
            command = _OPTIONS[name](command)
        return command

    return attach


_PATH = click.Path(path_type=Path)
_OPTIONS = {
    "calib": click.option("--calib", type=_PATH, help="Calibration of the cameras, in any known format."),
    "calib!": click.option(
        "--calib", type=_PATH, required=True, help="Calibration of the cameras, in any known format."
    ),
    "units": click.option(
        "--units", type=click.Choice(["m", "cm", "mm"]), help="Unit of a calibration that names none."
    ),
    "out": click.option("--out", type=_PATH, help="Output folder.  [default: SESSION/mvpose]"),
    "detector": click.option(
        "--detector", type=click.Choice(_DETECTORS), default="auto", show_default=True, help="2D pose engine."
    ),
    "checkpoint": click.option("--checkpoint", type=_PATH, help="Weights of mmpose's pose network, a local file."),
    "jobs": click.option(
        "--jobs", type=click.IntRange(1), default=1, show_default=True, help="Cameras detected at the same time."
    ),
    "sync": click.option("--no-sync", is_flag=True, help="Take every camera's own time as it stands."),
    "fps": click.option(
        "--fps", type=click.FloatRange(0, min_open=True), help="3D poses a second.  [default: the reference camera's]"
    ),
    "start": click.option("--start", "start_s", type=float, help="First session time to reconstruct, seconds."),
    "end": click.option("--end", "end_s", type=float, help="Last session time to reconstruct, seconds."),
    "smooth": click.option("--no-smooth", is_flag=True, help="Leave the 3D poses as triangulated."),
    "reference": click.option("--reference", metavar="CAM", help="Camera whose time is the session's."),
    "skip": click.option("--skip", multiple=True, metavar="CAM", help="Leave a camera out; may be repeated."),
    "force": click.option("--force", is_flag=True, help="Do everything anew, whatever is there already."),
    "json": click.option("--json", "as_json", is_flag=True, help="Print one machine-readable object."),
    "truth": click.option(
        "--truth", type=_PATH, multiple=True, help="A true clocks.json and/or poses3d.npz; may be repeated."
    ),
}


def _settings(options: dict[str, Any]) -> Settings:
    from mvpose.pipeline import Settings

    chosen = dict(options)
    chosen["skip"] = tuple(chosen.get("skip", ()))
    if "no_sync" in chosen:
        chosen["synchronise"] = not chosen.pop("no_sync")
    if "no_smooth" in chosen:
        chosen["smooth"] = not chosen.pop("no_smooth")
    return Settings(**chosen)


@contextmanager
def _opened(
    session: Path, out: Path | None, force: bool, options: dict[str, Any]
) -> Iterator[tuple[Recording, Workspace, Progress]]:
    """Open session and output folder, and put all that is said into run.json even if something fails."""
    from mvpose.pipeline import open_recording
    from mvpose.workspace import open_workspace

    with _messages() as (progress, warnings):
        recording = open_recording(session, _settings(options))
        workspace = open_workspace(out or session / "mvpose", force=force, options=options)
        workspace.warnings = warnings
        yield recording, workspace, progress
        workspace.save()


@cli.command()
@_session_argument
@_options(
    "calib!", "units", "out", "detector", "checkpoint", "sync", "fps", "start", "end", "smooth", "reference", "skip",
    "jobs", "force", "json",
)  # fmt: skip
def reconstruct(session: Path, out: Path | None, force: bool, as_json: bool, **options: Any) -> None:
    """From videos to 3D skeletons: detect, synchronise, triangulate, export, compare; whatever is not yet done."""
    from mvpose import pipeline
    from mvpose.compare import compare

    with _opened(session, out, force, options) as (recording, workspace, progress):
        pipeline.require_cameras(recording)
        keypoints = pipeline.detect(recording, workspace, progress)
        pipeline.require_people(keypoints)
        if recording.settings.synchronise:
            offsets, clocks = pipeline.synchronise(recording, keypoints, workspace, progress)
        else:
            offsets, clocks = None, pipeline.taken_as_they_stand(recording, workspace)
        poses = pipeline.fuse(recording, keypoints, clocks, workspace)
        exported = pipeline.export(poses, workspace)
        metrics = {}
        if recording.settings.synchronise:
            metrics = compare(recording, keypoints, offsets, clocks, workspace, progress=progress)
        _report_reconstruction(poses, clocks, metrics, workspace, exported, as_json)


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
        _print_json(
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
    click.echo(f"{len(poses.person_ids)} people in {len(poses.time_s)} frames at {poses.frame_rate:.4g} fps")
    if metrics:
        click.echo("")
        _print_metrics(metrics)
    click.echo("")
    for path in files:
        click.echo(str(path))


@cli.command()
@_session_argument
@_options("out", "detector", "checkpoint", "skip", "jobs", "force", "json")
def detect(session: Path, out: Path | None, force: bool, as_json: bool, **options: Any) -> None:
    """2D keypoints only."""
    from mvpose import pipeline

    with _opened(session, out, force, options) as (recording, workspace, progress):
        keypoints = pipeline.detect(recording, workspace, progress)
        found = {
            name: {
                "frames": k.n_frames,
                "detections": len(k.xy_px),
                "tracks": len(set(k.track_id.tolist())),
                "skeleton": k.skeleton.name,
                "file": str(workspace.keypoints2d(name)),
            }
            for name, k in keypoints.items()
        }
        if as_json:
            _print_json({"cameras": found, "warnings": workspace.warnings})
            return
        for name, facts in found.items():
            click.echo(
                f"{name}: {facts['detections']} people in {facts['frames']} frames, {facts['tracks']} tracks, "
                f"{facts['skeleton']} → {facts['file']}"
            )


@cli.command()
@_session_argument
@_options("calib", "units", "out", "detector", "checkpoint", "reference", "skip", "jobs", "force", "json")
def sync(session: Path, out: Path | None, force: bool, as_json: bool, **options: Any) -> None:
    """Clocks only. Without --calib from the correlation of movements, which is good to some hundredths of a second."""
    from mvpose import pipeline

    with _opened(session, out, force, options) as (recording, workspace, progress):
        pipeline.require_cameras(recording)
        keypoints = pipeline.detect(recording, workspace, progress)
        pipeline.require_people(keypoints)
        _, clocks = pipeline.synchronise(recording, keypoints, workspace, progress)
        if as_json:
            _print_json({**_clocks_json(clocks), "file": str(workspace.clocks), "warnings": workspace.warnings})
            return
        _print_clocks(clocks)
        click.echo(str(workspace.clocks))


@cli.command()
@_session_argument
@_options(
    "calib!", "units", "truth", "out", "detector", "checkpoint", "fps", "start", "end", "smooth", "reference", "skip",
    "jobs", "force", "json",
)  # fmt: skip
def compare(
    session: Path, truth: tuple[Path, ...], out: Path | None, force: bool, as_json: bool, **options: Any
) -> None:
    """Synchronised against raw: report/index.html and report/metrics.json."""
    from mvpose import pipeline
    from mvpose.compare import compare as compare_variants
    from mvpose.compare import read_truth

    known = read_truth(truth)
    with _opened(session, out, force, options) as (recording, workspace, progress):
        pipeline.require_cameras(recording)
        keypoints = pipeline.detect(recording, workspace, progress)
        pipeline.require_people(keypoints)
        offsets, clocks = pipeline.synchronise(recording, keypoints, workspace, progress)
        pipeline.fuse(recording, keypoints, clocks, workspace)
        metrics = compare_variants(recording, keypoints, offsets, clocks, workspace, known, progress)
        if as_json:
            _print_json({"metrics": metrics, "report": str(workspace.report), "warnings": workspace.warnings})
            return
        _print_metrics(metrics)
        click.echo(str(workspace.report))


@cli.command()
@_session_argument
@_options("calib", "units", "out")
@click.option("--save", type=_PATH, metavar="FILE", help="Render to a .mp4 or .png, without a screen.")
@click.option("--raw", is_flag=True, help="Show the reconstruction without synchronisation.")
def view(session: Path, calib: Path | None, units: Any, out: Path | None, save: Path | None, raw: bool) -> None:
    """Open3D playback: space plays and pauses, arrows step, [ and ] scrub."""
    from mvpose.calib.files import read_rig
    from mvpose.formats.results import read_poses
    from mvpose.viz.player import play, render
    from mvpose.workspace import Workspace, recorded_calib

    workspace = Workspace(out or session / "mvpose")
    poses_file = workspace.poses3d_raw if raw else workspace.poses3d
    if not poses_file.is_file():
        raise SessionError(f"{poses_file} is not there; run mvpose reconstruct {session} first")
    poses = read_poses(poses_file)
    with _messages() as (progress, _):
        calib = calib or recorded_calib(workspace)
        rig = read_rig(calib, units=units).subset(poses.cameras)
        if save is None:
            play(poses, rig, lambda line: click.echo(line, err=True))
        else:
            render(poses, rig, save, progress=lambda share: progress("render", round(100 * share), 100))
            click.echo(str(save))


@cli.command()
@_session_argument
@_options("out")
@click.option("--to", "kind", type=click.Choice(["trc", "c3d", "csv"]), required=True, help="Format.")
def export(session: Path, out: Path | None, kind: str) -> None:
    """Write the 3D poses for other programs."""
    from mvpose.formats.motion import EXPORTS
    from mvpose.formats.results import read_poses
    from mvpose.workspace import Workspace

    workspace = Workspace(out or session / "mvpose")
    if not workspace.poses3d.is_file():
        raise SessionError(f"{workspace.poses3d} is not there; run mvpose reconstruct {session} first")
    with _messages():
        for path in EXPORTS[kind](read_poses(workspace.poses3d), workspace.exports):
            click.echo(str(path))


@cli.command("convert-calib")
@click.argument("source", metavar="IN", type=_PATH)
@click.argument("target", metavar="OUT", type=_PATH)
@click.option("--to", metavar="FORMAT", help="Format to write.  [default: by OUT's suffix]")
@_options("units")
def convert_calib(source: Path, target: Path, to: str | None, units: Any) -> None:
    """Read any known calibration format and write another."""
    from mvpose.calib.files import FORMATS, read_rig, write_rig

    if to is not None and to not in FORMATS:
        raise click.BadParameter(f"{to!r} is not one of {', '.join(FORMATS)}", param_hint="--to")
    with _messages():
        rig = read_rig(source, units=units)
        write_rig(rig, target, to)
        click.echo(f"{len(rig)} cameras: {', '.join(rig.names)} → {target}")


@cli.command()
@click.option("--synthetic", is_flag=True, help="A generated world in place of real video.")
@_options("out", "detector", "jobs", "json")
def demo(synthetic: bool, out: Path | None, detector: str, jobs: int, as_json: bool) -> None:
    """Cut real 4-camera recordings apart in time, repair them, and show what that bought."""
    from mvpose.demo import run_demo, run_synthetic_demo

    folder = out or Path("mvpose-demo")
    with _messages() as (progress, warnings):
        if synthetic:
            results = run_synthetic_demo(folder, progress, warnings)
        else:
            results = run_demo(folder, progress, warnings, detector=detector, jobs=jobs)
    if as_json:
        _print_json({"recordings": {r.name: {"metrics": r.metrics, "report": str(r.report)} for r in results}})
        return
    for result in results:
        click.echo(f"\n{result.name}: {result.what}")
        _print_metrics(result.metrics)
        click.echo(str(result.report))


def _print_json(value: dict[str, Any]) -> None:
    from mvpose.formats.results import plain

    click.echo(json.dumps(plain(value), indent=1, ensure_ascii=False))


def _clocks_json(clocks: Clocks) -> dict[str, Any]:
    return {
        "reference": clocks.reference,
        "clocks": {
            name: {"offset_s": c.offset_s, "rate": c.rate, "sigma_at_epoch_s": c.sigma_at_epoch_s, "verdict": c.verdict}
            for name, c in clocks.clocks.items()
        },
        "unsynchronised": dict(clocks.unsynchronised),
    }


def _print_clocks(clocks: Clocks) -> None:
    for name, c in clocks.clocks.items():
        if name == clocks.reference:
            click.echo(f"{name:<16} reference")
            continue
        drift = f"{1e6 * (c.rate - 1):+8.1f} ppm" if c.rate_fitted else "  rate 1     "
        sigma = f"± {1e3 * c.sigma_at_epoch_s:.1f} ms"
        click.echo(f"{name:<16} {c.offset_s:+12.4f} s {sigma:<12} {drift}  {c.verdict}{': ' + c.why if c.why else ''}")
    for name, why in clocks.unsynchronised.items():
        click.echo(f"{name:<16} no clock: {why}")


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
            click.echo(f"{label:<30}{cells} {unit}")


if __name__ == "__main__":
    main()
