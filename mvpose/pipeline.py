"""The corridor between the rooms. Each stage loads what it needs, makes one pure call and saves what comes of it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Literal

import numpy as np

from mvpose.calib.files import Units, read_rig
from mvpose.calib.rig import CameraRig, listed, match_sizes
from mvpose.clock import Clocks, unsynchronised_clocks
from mvpose.detect.base import PoseDetector
from mvpose.detect.choose import choose_detector
from mvpose.detect.tracks import track_people
from mvpose.detect.videos import detect_video
from mvpose.errors import CalibrationError, FormatError, ReconstructionError, SessionError, SyncError
from mvpose.formats.keypoints2d import read_keypoints, read_npz, write_keypoints
from mvpose.formats.motion import EXPORTS
from mvpose.formats.results import (
    read_clocks,
    read_offsets,
    read_poses,
    write_clocks,
    write_offsets,
    write_poses,
)
from mvpose.inputs import open_file
from mvpose.keypoints import AlignedKeypoints, Keypoints2D
from mvpose.poses import Poses3D, Reconstruction
from mvpose.recon.align import AlignedTracks, align, timeline
from mvpose.recon.associate import associate
from mvpose.recon.identify import by_identity, identified
from mvpose.recon.smooth import smooth
from mvpose.recon.triangulate import triangulate
from mvpose.recon.voxelpose.pretrained import WEIGHTS as VOXELPOSE_WEIGHTS
from mvpose.session import CameraSource, Session, camera_times, open_session, require_two, without
from mvpose.shutter import Readout, global_shutter
from mvpose.sync.containers import timecode_edges
from mvpose.sync.estimate import Hint
from mvpose.sync.mend import mended
from mvpose.sync.offsets import PAIR_METHODS, OffsetGraph, PairMethod, PairwiseOffset
from mvpose.sync.pretrained import WEIGHTS
from mvpose.sync.sound import sound_offsets
from mvpose.sync.synchronise import synchronise_cameras
from mvpose.video import Video, probe
from mvpose.workspace import Making, Workspace, digest_of, file_digest, value_digest, video_digest

log = logging.getLogger(__name__)

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and how much there is."""


def no_progress(what: str, done: int, total: int) -> None:
    """Report nothing."""


Method = Literal["triangulate", "voxel"]
"""How people are found: paired across views, or in voxels by VoxelPose; either way their keypoints are triangulated."""


@dataclass(frozen=True)
class Settings:
    """What a user may choose; every field is an option of the command line."""

    calib: Path | None = None
    units: Units | None = None  # of a calibration whose format has none
    detector: str = "auto"
    checkpoint: Path | None = None  # weights of the pose network, in place of the model zoo's
    synchronise: bool = True
    pair_methods: tuple[PairMethod, ...] = ()  # estimators of pairs; none named: what measures best
    fps: float | None = None  # of the 3D poses; default: the reference camera's
    start_s: float | None = None  # first and last session time of the 3D poses
    end_s: float | None = None
    reference: str | None = None
    skip: tuple[str, ...] = ()
    smooth: bool = True
    method: Method = "triangulate"
    weights: Path | None = None  # of VoxelPose, in place of those that ship
    polish: bool = True  # by triangulation what VoxelPose found
    jobs: int = 1  # cameras detected at the same time


@dataclass(frozen=True)
class Recording:
    """A session with its videos probed and its calibration checked against them, before hours of work."""

    session: Session
    videos: Mapping[str, Video]
    rig: CameraRig | None
    settings: Settings

    @property
    def reference(self) -> str | None:
        """The camera whose time the user wants to be the session's."""
        return self.settings.reference or self.session.reference

    @property
    def hints(self) -> dict[str, Hint]:
        """What the user knows of the clocks; the reference is certain as soon as another camera has a hint."""
        hints = {
            c.name: Hint(c.offset_hint_s, c.hint_sigma_s) for c in self.session.cameras if c.offset_hint_s is not None
        }
        return {self.reference: Hint(0.0, 0.0), **hints} if self.reference and hints else hints

    @property
    def readouts(self) -> dict[str, tuple[float, Readout]]:
        """How long cameras take to read an image, seconds, and where to: by session.toml, else by the calibration."""
        told = {c.name: c.rolling_shutter_s for c in self.session.cameras}
        known = {} if self.rig is None else {camera.name: camera.rolling_shutter_s for camera in self.rig}
        seconds = {name: known.get(name) if own is None else own for name, own in told.items()}
        return {name: (value, self.session[name].readout) for name, value in seconds.items() if value is not None}


def open_recording(path: Path, settings: Settings) -> Recording:
    """Look at everything a session brings before working on any of it.

    Raises:
        SessionError: The folder does not hold a usable session.
        VideoError: A video is damaged.
        CalibrationError: The calibration is wrong, or lacks a camera, or is of other images.
        SyncError: Epipolar geometry is asked for without a calibration.
        FormatError: The file of weights holds none of VoxelPose.
    """
    session = without(open_session(path), settings.skip)
    if settings.reference is not None and settings.reference not in session.names:
        raise SessionError(
            f"--reference {settings.reference} is no camera of {path}; it has {', '.join(session.names)}"
        )
    rig = (
        None if settings.calib is None else _covering(read_rig(settings.calib, units=settings.units), session, settings)
    )
    if settings.checkpoint is not None:
        open_file(settings.checkpoint).close()  # its digest is taken before anybody reads it
    if rig is None and "epipolar" in settings.pair_methods:
        raise SyncError("epipolar geometry needs a calibration: give --calib, or another --method")
    if settings.weights is not None:
        from mvpose.recon.voxelpose.fuse import load_voxelpose  # torch

        load_voxelpose(settings.weights)
    videos = {source.name: probe(source.name, source.videos) for source in session.cameras if source.videos}
    told = _told_sizes(session, videos)
    if rig is not None:
        rig = match_sizes(rig, {name: video.size_px for name, video in videos.items()})
        rig = match_sizes(rig, told, "size_px in session.toml")
    recording = Recording(session, videos, rig, settings)
    if len(recording.hints) == 1:
        log.warning(
            "offset_hint_s of %s is not used: it says nothing without a camera that it counts from; name that one as "
            "reference",
            *recording.hints,
        )
    return recording


def _told_sizes(session: Session, videos: Mapping[str, Video]) -> dict[str, tuple[int, int]]:
    """Return what session.toml says of the size of images that no video shows; where one does, both must agree."""
    told = {source.name: source.size_px for source in session.cameras if source.size_px is not None}
    for name, (width, height) in told.items():
        if name in videos and videos[name].size_px != (width, height):
            raise SessionError(
                f"cameras.{name}.size_px in session.toml is {width} x {height}, and the video of {name} shows images "
                "of {} x {}; leave size_px out.".format(*videos[name].size_px)
            )
    return {name: size_px for name, size_px in told.items() if name not in videos}


def _covering(rig: CameraRig, session: Session, settings: Settings) -> CameraRig:
    """Return the session's cameras of a calibration, which may have more."""
    missing = [name for name in session.names if name not in rig.names]
    if missing:
        why = "; ".join(rig.incomplete[name] for name in missing if name in rig.incomplete)
        raise CalibrationError(
            f"{settings.calib} has no camera {listed(missing)}{f' ({why})' if why else ''}; it has "
            f"{listed(rig.names)}. Name videos and cameras alike, or leave some out with --skip."
        )
    return rig.subset(session.names)


def detect(recording: Recording, workspace: Workspace, progress: Progress = no_progress) -> dict[str, Keypoints2D]:
    """Get every camera's tracked keypoints: from an earlier run, else from its keypoint file, else from its video.

    What is kept on disk is what was seen; what is returned is as it was at the frames' times, see ``_at_frame_times``.
    """
    keypoints: dict[str, Keypoints2D] = {}
    missing: dict[str, str] = {}
    for source in recording.session.cameras:
        digest = _source_digest(source, recording)
        if _is_detected(source, digest, recording, workspace):
            keypoints[source.name] = _detected_before(source, digest, recording, workspace)
        elif source.keypoints is None:
            missing[source.name] = digest
        else:
            with workspace.making(_stage(source), digest) as made:
                keypoints[source.name] = _given_keypoints(source, recording)
                _write_keypoints(keypoints[source.name], workspace, made)
    keypoints |= _detect_videos(missing, recording, workspace, progress)
    return {name: _at_frame_times(keypoints[name], recording) for name in recording.session.names}


def _at_frame_times(found: Keypoints2D, recording: Recording) -> Keypoints2D:
    """Leave out what repeated frames show of an earlier instant, and read the rows of all others at once."""
    kept, repeats = found.without_repeats()
    if len(repeats):
        log.warning(
            "%s: %d of %d frames repeat the frame before, the first at %.2f s; people are interpolated there",
            found.camera,
            len(repeats),
            found.n_frames,
            found.time_s[repeats[0]],
        )
    readout = recording.readouts.get(found.camera)
    return kept if readout is None else global_shutter(kept, *readout)


def _stage(source: CameraSource) -> str:
    return f"detect:{source.name}"


def _write_keypoints(found: Keypoints2D, workspace: Workspace, made: Making) -> None:
    write_keypoints(found, made.path(workspace.keypoints2d(found.camera)))
    made.facts.update(frames=found.n_frames, skeleton=found.skeleton.name)


def _is_detected(source: CameraSource, digest: str, recording: Recording, workspace: Workspace) -> bool:
    """Tell whether an earlier run's keypoints will do; ``auto`` is content with those of any engine."""
    engine = workspace.facts(_stage(source)).get("engine")
    is_wanted = source.keypoints is not None or recording.settings.detector in ("auto", engine)
    return is_wanted and workspace.is_current(_stage(source), digest)


def _source_digest(source: CameraSource, recording: Recording) -> str:
    """Return what a camera's keypoints depend on; for those of a video, its times are not among it."""
    videos = [video_digest(path) for path in source.videos]
    if source.keypoints is None:
        checkpoint = recording.settings.checkpoint
        return digest_of(videos, None if checkpoint is None else file_digest(checkpoint))
    session = recording.session
    return digest_of(
        videos,
        file_digest(source.keypoints),
        None if source.timestamps is None else file_digest(source.timestamps),
        (source.fps, source.start_s, session.skeleton, session.frame_base, source.frame_base),
        _told_size(source, recording),
    )


def _detected_before(source: CameraSource, digest: str, recording: Recording, workspace: Workspace) -> Keypoints2D:
    """Read an earlier run's keypoints. The session may since have moved a camera's times: no reason to detect anew."""
    found = workspace.read(read_npz, workspace.keypoints2d(source.name))
    if source.keypoints is None:
        time_s = camera_times(source, recording.videos[source.name])
        if not np.array_equal(time_s, found.time_s):
            found = replace(found, time_s=time_s)
            with workspace.making(_stage(source), digest, **workspace.facts(_stage(source))) as made:
                _write_keypoints(found, workspace, made)
    return found


def _given_keypoints(source: CameraSource, recording: Recording) -> Keypoints2D:
    session = recording.session
    keypoints = read_keypoints(
        source,
        recording.videos.get(source.name),
        skeleton=session.skeleton,
        frame_base=session.frame_base,
        size_px=_told_size(source, recording),
    )
    return keypoints if keypoints.is_tracked else track_people(keypoints)


def _told_size(source: CameraSource, recording: Recording) -> tuple[int, int] | None:
    """Return how large a camera's images are, by the calibration, which session.toml agrees with, else by that."""
    return source.size_px if recording.rig is None else recording.rig[source.name].size_px


class _StoppedError(Exception):
    """Another camera failed or the user interrupted: this one's detection ends early."""


def _detect_videos(
    digests: Mapping[str, str], recording: Recording, workspace: Workspace, progress: Progress
) -> dict[str, Keypoints2D]:
    """Detect ``jobs`` cameras at a time; each is kept as soon as it is finished, whatever becomes of the others."""
    if not digests:
        return {}
    settings = recording.settings
    sources = [recording.session[name] for name in digests]
    times = {source.name: camera_times(source, recording.videos[source.name]) for source in sources}
    engines: SimpleQueue[PoseDetector] = SimpleQueue()
    jobs = min(settings.jobs, len(sources))
    for _ in range(jobs):
        engines.put(choose_detector(settings.detector, checkpoint=settings.checkpoint))
    stop = threading.Event()

    def run(source: CameraSource) -> Keypoints2D:
        def tell(done: int, total: int) -> None:
            if stop.is_set():
                raise _StoppedError
            progress(f"detect {source.name}", done, total)

        engine = engines.get()
        with workspace.making(_stage(source), digests[source.name], engine=engine.name) as made:
            found = detect_video(recording.videos[source.name], times[source.name], engine, progress=tell)
            engines.put(engine)
            _write_keypoints(found, workspace, made)
        return found

    with ThreadPoolExecutor(jobs) as pool:
        futures = {pool.submit(run, source): source.name for source in sources}
        try:
            return {futures[future]: future.result() for future in as_completed(futures)}
        except BaseException:
            stop.set()
            pool.shutdown(cancel_futures=True)
            raise


def synchronise(
    recording: Recording, keypoints: Mapping[str, Keypoints2D], workspace: Workspace, progress: Progress = no_progress
) -> tuple[OffsetGraph, Clocks]:
    """Estimate all pairs, solve for the clocks, and name whoever has none."""
    reference = recording.reference
    rig = recording.rig
    hints = recording.hints
    methods = [method for method in PAIR_METHODS if method in recording.settings.pair_methods]
    digest = digest_of(
        keypoint_digests(recording, workspace),
        rig_digest(rig),
        reference,
        sorted(hints.items()),
        methods,
        [video_digest(path) for video in recording.videos.values() for path in video.paths],
        [file_digest(path) for path in sorted(WEIGHTS.glob("*.safetensors"))],
    )
    if workspace.is_current("sync", digest):
        graph = workspace.read(read_offsets, workspace.offsets)
        clocks = workspace.read(read_clocks, workspace.clocks)
    else:
        before = workspace.stages.get("sync", {}).get("methods", [])
        if before and before != methods:  # somebody asked for the clocks that go
            log.warning(
                "the clocks that sync --method made are replaced: pairs are estimated by %s, no longer by %s",
                " and ".join(methods) or "what measures best",
                " and ".join(map(str, before)) if isinstance(before, list) else before,
            )
        with workspace.making("sync", digest, methods=methods) as made:
            cameras = None if rig is None else {camera.name: camera for camera in rig}
            tell = _telling("synchronise", progress)
            cues, wanting = _cues(recording, progress)
            graph, clocks = synchronise_cameras(
                keypoints,
                cameras,
                methods=methods or None,
                hints=hints,
                cues=cues,
                reference=reference,
                told=recording.readouts,
                progress=tell,
            )
            reasons = {n: "; ".join(filter(None, (why, wanting.get(n)))) for n, why in clocks.unsynchronised.items()}
            clocks = replace(clocks, unsynchronised=reasons)
            write_offsets(graph, made.path(workspace.offsets))
            write_clocks(clocks, made.path(workspace.clocks))
    for (teller, a, b), reason in _unheeded(graph, clocks).items():
        log.warning("what %s says of %s and %s is not used: %s", teller, a, b, reason)
    for name, why in clocks.unsynchronised.items():
        log.warning(
            "%s is not synchronised: %s. It is left out; check that it shows the same people, or give "
            "offset_hint_s in session.toml",
            name,
            why,
        )
    for name, clock in clocks.clocks.items():
        for at_s, jump_s in clock.jumps:
            log.warning(
                "%s %s %.0f ms about %.1f s of its own time, although its times go on evenly",
                name,
                "lost" if jump_s > 0 else "did not record",
                1e3 * abs(jump_s),
                at_s,
            )
        if clock.readout_s is not None:
            log.warning(
                "%s reads its rows over about %.0f ms, which is taken into account; if you know better, put "
                "rolling_shutter_s into session.toml",
                name,
                1e3 * clock.readout_s,
            )
        if clock.verdict != "good":
            log.warning("the clock of %s is doubtful: %s", name, clock.why)
    return graph, clocks


_SAME_PACE_S = 0.005

_TELLERS = {"hint": "offset_hint_s", "audio": "the sound", "timecode": "the containers' time"}


def _unheeded(graph: OffsetGraph, clocks: Clocks) -> dict[tuple[str, str, str], str]:
    """Return why what was told or heard of two cameras is not used, where nothing of it is."""
    used = {(e.method, e.a, e.b) for e in graph.edges if e.accepted}
    return {
        (_TELLERS[e.method], e.a, e.b): e.reason
        for e in graph.edges
        if e.method in _TELLERS and (e.method, e.a, e.b) not in used
        # Dates are checked against clocks, where there are any; that they give none is no news.
        if e.method != "timecode" or {e.a, e.b} <= set(clocks.clocks)
    }


def _cues(recording: Recording, progress: Progress) -> tuple[list[PairwiseOffset], dict[str, str]]:
    """Return what sound and containers say of the cameras' offsets, and what sound was found wanting."""
    own_s = {}
    for source in recording.session.cameras:
        if (video := recording.videos.get(source.name)) is not None:
            shift_s = camera_times(source, video) - video.time_s
            if np.ptp(shift_s) < _SAME_PACE_S:  # else a table of frame times says when pictures were taken, not sounds
                own_s[source.name] = float(shift_s[0])
    heard = {name: recording.videos[name].audio() for name in own_s if recording.videos[name].has_audio}
    sounds = {name: replace(s, start_s=s.start_s + own_s[name]) for name, s in heard.items() if s is not None}
    known = None if recording.rig is None else {camera.name: camera for camera in recording.rig}
    by_sound = sound_offsets(sounds, known, progress=_telling("listen", progress)) if len(sounds) > 1 else None
    starts = {name: replace(recording.videos[name].container_time(), start_s=at_s) for name, at_s in own_s.items()}
    edges = [*(by_sound.edges if by_sound else ()), *timecode_edges(starts)]
    return edges, by_sound.notes if by_sound else {}


def _telling(what: str, progress: Progress) -> Callable[[int, int], None]:
    return lambda done, total: progress(what, done, total)


def keypoint_digests(recording: Recording, workspace: Workspace) -> list[Any]:
    """Return what stands for the keypoints in the digest of a later stage."""
    files = [workspace.made_of(_stage(source)) for source in recording.session.cameras]
    return [files, sorted(recording.readouts.items())]


def rig_digest(rig: CameraRig | None) -> str:
    """Return what stands for a calibration in the digest of a stage."""
    if rig is None:
        return ""
    return digest_of(
        rig.up,
        [(c.name, c.size_px, c.K.tolist(), c.dist.tolist(), c.cam_from_world.tolist(), c.model) for c in rig],
    )


@dataclass(frozen=True)
class Built:
    """3D poses and the aligned keypoints that they were made from."""

    poses: Poses3D
    aligned: AlignedKeypoints


def build_poses(
    keypoints: Mapping[str, Keypoints2D],
    rig: CameraRig,
    clocks: Clocks,
    settings: Settings,
    progress: Progress = no_progress,
) -> Built:
    """Fuse keypoints and clocks into poses: align → associate, or VoxelPose → triangulate → smooth.

    Raises:
        ReconstructionError: Fewer than two cameras have a clock, or nobody is seen by two of them.
    """
    keypoints = _mended(keypoints, clocks)
    time_s = _timeline(keypoints, clocks, settings)
    tracks = align(keypoints, clocks, time_s)
    if settings.method == "voxel":
        return _built_of_voxels(tracks, rig, settings, progress)
    return _built(associate(tracks, rig), rig, settings)


def rebuild_poses(
    keypoints: Mapping[str, Keypoints2D],
    rig: CameraRig,
    first: tuple[Built, Clocks],
    clocks: Clocks,
    settings: Settings,
) -> Built:
    """Make the poses of the same people under other clocks, so that only what clocks do differs.

    VoxelPose, which pairs nobody, finds whom it finds.

    Args:
        keypoints: Each camera's keypoints.
        rig: The cameras.
        first: What was built, and with which clocks; says who is who in every camera.
        clocks: The other clocks.
        settings: The user's choices.

    Raises:
        ReconstructionError: No two cameras were recording at once by those clocks, or nobody is left to triangulate.
    """
    built, own = first
    keypoints = _mended(keypoints, own)
    time_s = _timeline(keypoints, clocks, settings)
    named = identified(keypoints, own, built.aligned)
    tracks = align(named, clocks, time_s)
    if settings.method == "voxel":
        return _built_of_voxels(tracks, rig, settings)
    return _built(by_identity(tracks, built.aligned.person_ids), rig, settings)


def _mended(keypoints: Mapping[str, Keypoints2D], clocks: Clocks) -> dict[str, Keypoints2D]:
    return {name: mended(k, clocks[name]) if name in clocks.clocks else k for name, k in keypoints.items()}


def _timeline(keypoints: Mapping[str, Keypoints2D], clocks: Clocks, settings: Settings) -> np.ndarray:
    return timeline(keypoints, clocks, fps=settings.fps, start_s=settings.start_s, end_s=settings.end_s)


def _built(aligned: AlignedKeypoints, rig: CameraRig, settings: Settings) -> Built:
    poses = triangulate(aligned, rig)
    return Built(smooth(poses) if settings.smooth else poses, aligned)


def _built_of_voxels(
    tracks: AlignedTracks, rig: CameraRig, settings: Settings, progress: Progress = no_progress
) -> Built:
    import torch

    from mvpose.recon.voxelpose.fuse import fuse_voxels, load_voxelpose
    from mvpose.recon.voxelpose.polish import polish

    try:
        poses, aligned = fuse_voxels(tracks, rig, load_voxelpose(settings.weights), _telling("voxels", progress))
    except torch.OutOfMemoryError as error:
        raise ReconstructionError(
            "the GPU has too little memory for VoxelPose; set CUDA_VISIBLE_DEVICES= to let the CPU do it"
        ) from error
    if settings.polish:
        poses = polish(poses, aligned, rig)
    return Built(smooth(poses) if settings.smooth else poses, aligned)


def fuse(
    recording: Recording,
    keypoints: Mapping[str, Keypoints2D],
    clocks: Clocks,
    workspace: Workspace,
    progress: Progress = no_progress,
) -> Poses3D:
    """Make the 3D poses and save them.

    Raises:
        SyncError: Fewer than two cameras have a clock.
        ReconstructionError: Nobody is seen by two cameras at once.
    """
    if len(clocks.clocks) < 2:
        reasons = "; ".join(f"{name}: {why}" for name, why in clocks.unsynchronised.items())
        raise SyncError(f"fewer than two cameras share a clock, so there is no 3D: {reasons}")
    rig = _calibrated(recording)
    s = recording.settings
    digest = digest_of(
        keypoint_digests(recording, workspace),
        rig_digest(rig),
        clock_values(clocks),
        how_built(s),
    )
    if workspace.is_current("reconstruct", digest):
        return workspace.read(read_poses, workspace.poses3d)
    with workspace.making("reconstruct", digest) as made:
        poses = build_poses(keypoints, rig, clocks, s, progress).poses
        if not len(poses.person_ids):
            raise ReconstructionError(
                "nobody is seen by two synchronised cameras at once, so there is no 3D. Check that the cameras see the "
                "same people and that the calibration belongs to this recording."
            )
        write_poses(poses, made.path(workspace.poses3d))
        made.facts.update(
            frames=len(poses.time_s),
            people=len(poses.person_ids),
            method=s.method,
            calib=str(s.calib and s.calib.resolve()),
            units=s.units,
            clocks=value_digest(clock_values(clocks)),
        )
    return poses


def doubts_about(poses_file: Path, workspace: Workspace) -> str | None:
    """Return why poses may not be what the record and clocks.json say of them; None where nothing speaks for that."""
    stage = "compare" if poses_file == workspace.poses3d_raw else "reconstruct"
    if poses_file in workspace.changed(stage):
        return "it is not what the last finished run wrote"
    made_with = workspace.facts(stage).get("clocks")
    if made_with is None or not workspace.clocks.is_file():
        return None
    try:
        is_same = made_with == value_digest(clock_values(read_clocks(workspace.clocks)))
    except FormatError:
        is_same = False
    return None if is_same else f"it was made with other clocks than {workspace.clocks.name} holds"


def _calibrated(recording: Recording) -> CameraRig:
    if recording.rig is None:
        raise ReconstructionError("3D needs a calibration: give --calib")
    return recording.rig


def how_built(settings: Settings) -> list[Any]:
    """Return what stands for the user's choices in the digest of poses."""
    s = settings
    of_voxels = [file_digest(s.weights or VOXELPOSE_WEIGHTS), s.polish] if s.method == "voxel" else []
    return [s.fps, s.start_s, s.end_s, s.smooth, s.method, *of_voxels]


def clock_values(clocks: Clocks) -> list[Any]:
    """Return what stands for clocks in the digest of a stage."""
    return [(name, c.offset_s, c.rate, c.cov.tolist(), c.jumps, c.readout_s) for name, c in clocks.clocks.items()]


def export(poses: Poses3D, workspace: Workspace, kinds: Sequence[str] = tuple(EXPORTS)) -> list[Path]:
    """Write the poses for other programs and return the files; those of people who are no more are removed."""
    digest = digest_of(file_digest(workspace.poses3d), list(kinds))
    if not workspace.is_current("export", digest):
        with workspace.making("export", digest) as made:
            for kind in kinds:
                EXPORTS[kind](poses, made.path(workspace.exports))
    return workspace.files("export")


def raw_clocks(recording: Recording, clocks: Clocks) -> Clocks:
    """Return the clocks of the same cameras as if nothing had been synchronised."""
    names = [clocks.reference, *(n for n in recording.session.names if n in clocks.clocks and n != clocks.reference)]
    return unsynchronised_clocks(names)


def taken_as_they_stand(recording: Recording, workspace: Workspace) -> Clocks:
    """Return and save clocks for ``--no-sync``: each camera's own time, with a verdict that says so."""
    reference = recording.reference or recording.session.names[0]
    names = [reference, *(n for n in recording.session.names if n != reference)]
    plain = unsynchronised_clocks(names)
    why = "taken as it stands (--no-sync)"
    clocks = {n: c if n == reference else replace(c, verdict="doubtful", why=why) for n, c in plain.clocks.items()}
    plain = replace(plain, clocks=clocks)
    # What an earlier run compared would stand beside clocks that it does not belong to.
    workspace.forget("compare")
    with workspace.making("sync", digest_of("as they stand", clock_values(plain))) as made:
        write_clocks(plain, made.path(workspace.clocks))
    return plain


def reconstruct(
    recording: Recording,
    keypoints: Mapping[str, Keypoints2D],
    workspace: Workspace,
    progress: Progress = no_progress,
) -> Reconstruction:
    """Take keypoints to 3D: clocks (estimated, unless told not to), then poses; both saved.

    Raises:
        SyncError: Nobody is seen, or fewer than two cameras share a clock.
        ReconstructionError: There is no calibration, or nobody is seen by two cameras at once.
    """
    require_people(keypoints)
    offsets: OffsetGraph | None = None
    if recording.settings.synchronise:
        offsets, clocks = synchronise(recording, keypoints, workspace, progress)
    else:
        clocks = taken_as_they_stand(recording, workspace)
    poses = fuse(recording, keypoints, clocks, workspace, progress)
    return Reconstruction(poses, _calibrated(recording).subset(poses.cameras), clocks, offsets, workspace.options)


def require_people(keypoints: Mapping[str, Keypoints2D]) -> None:
    """Refuse a session in which nobody is seen at all.

    Raises:
        SyncError: No camera has a single person.
    """
    if not _shows_people(keypoints):
        raise SyncError(f"nobody is seen in any of {', '.join(keypoints)}; there is nothing to reconstruct")


def _shows_people(keypoints: Mapping[str, Keypoints2D]) -> bool:
    return any(np.isfinite(k.xy_px).any() for k in keypoints.values())


def require_cameras(recording: Recording) -> None:
    """Refuse a session of fewer than two cameras."""
    require_two(recording.session)
