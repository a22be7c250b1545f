"""The corridor: which stage runs when, and what it refuses."""

import json
import shutil
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from mvpose import pipeline
from mvpose.calib.files import read_rig
from mvpose.clock import Clocks
from mvpose.compare import compare
from mvpose.detect import mediapipe
from mvpose.errors import CalibrationError, FormatError, ReconstructionError, SessionError, WorkspaceError
from mvpose.formats.keypoints2d import read_npz, write_keypoints
from mvpose.formats.results import read_clocks, read_poses, write_poses
from mvpose.pipeline import Settings, open_recording
from mvpose.recon.voxelpose import fuse
from mvpose.shutter import global_shutter
from mvpose.sync.estimate import Hint
from mvpose.synthetic.world import with_repeats
from mvpose.workspace import open_workspace, recorded_calib

needs_mediapipe = pytest.mark.skipif(not mediapipe.is_installed(), reason="needs mediapipe to detect with")


def run(session: Path, *, force: bool = False, report: bool = False, **settings) -> set[str]:
    """Run the stages as ``mvpose reconstruct`` does, the slow report on demand; return those that ran anew."""
    settings = {"calib": session / "calib.json", "reference": "cam01", **settings}
    recording = open_recording(session, Settings(**settings))
    workspace = open_workspace(session / "mvpose", force=force)
    before = dict(workspace.stages)
    keypoints = pipeline.detect(recording, workspace)
    offsets, clocks = pipeline.synchronise(recording, keypoints, workspace)
    poses = pipeline.fuse(recording, keypoints, clocks, workspace)
    pipeline.export(poses, workspace)
    if report:
        compare(recording, keypoints, offsets, clocks, workspace)
    # A stage that is run anew is entered anew; one that is not keeps its entry.
    return {name.split(":")[0] for name, stage in workspace.stages.items() if stage is not before.get(name)}


LATER = {"sync", "reconstruct", "export"}
ALL = {"detect", *LATER}


@pytest.fixture
def done(done_template, tmp_path) -> Path:
    """A reconstructed session of the same name, so that nothing about it has changed."""
    return Path(shutil.copytree(done_template, tmp_path / done_template.name))


def test_nothing_runs_twice(done):
    before = {path: path.stat().st_mtime_ns for path in (done / "mvpose").rglob("*") if path.name != "run.json"}
    assert run(done, report=True) == set()
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_force_runs_all(done):
    assert run(done, force=True, report=True) == {*ALL, "compare"}


def test_another_calibration_synchronises_anew_but_does_not_detect(done):
    calib = json.loads((done / "calib.json").read_text())
    calib["cameras"][2]["t"][0] += 0.01
    (done / "calib.json").write_text(json.dumps(calib))
    assert run(done) == LATER


def test_the_same_calibration_elsewhere_changes_nothing(done):
    (done / "calib.json").rename(done / "moved.json")
    assert run(done, calib=done / "moved.json", report=True) == set()


def test_the_calibration_is_recorded_so_that_it_is_found_from_anywhere(done, monkeypatch):
    monkeypatch.chdir(done)
    run(done, calib=Path("calib.json"), units="m", fps=10.0)
    monkeypatch.chdir("/")
    assert recorded_calib(open_workspace(done / "mvpose")) == (done.resolve() / "calib.json", "m")


def test_a_hint_synchronises_anew(done):
    (done / "session.toml").write_text("[cameras.cam02]\noffset_hint_s = 0.5\n")
    assert "sync" in run(done)
    assert run(done) == set()
    (done / "session.toml").write_text("[cameras.cam02]\noffset_hint_s = 0.5\nhint_sigma_s = 0.1\n")
    assert "sync" in run(done)


def test_another_reference_runs_all_after_detection(done):
    assert run(done, reference="cam02") == LATER


def test_other_keypoints_run_all(done):
    path = done / "keypoints" / "cam02.npz"
    with np.load(path) as file:
        fields = {name: file[name] for name in file.files}
    np.savez(path, **{**fields, "xy_px": fields["xy_px"] + 0.01})
    assert run(done) == ALL


def test_other_estimators_of_pairs_synchronise_anew_but_their_order_says_nothing(done):
    assert "sync" in run(done, pair_methods=("correlation", "epipolar"))
    assert run(done, pair_methods=("epipolar", "correlation", "epipolar")) == set()
    assert "sync" in run(done)


@pytest.mark.parametrize(
    "setting",
    [{"fps": 20.0}, {"start_s": 3.0}, {"end_s": 8.0}, {"smooth": False}],
    ids=lambda setting: next(iter(setting)),
)
def test_a_setting_of_the_poses_leaves_the_clocks_alone(done, setting):
    assert run(done, **setting) == {"reconstruct", "export"}
    assert run(done, **setting) == set()


@pytest.mark.parametrize(
    ("name", "stages"),
    [
        ("keypoints2d/cam02.npz", {"detect"}),  # the same comes out, so that nothing after it changes
        ("clocks.json", {"sync"}),
        ("poses3d.npz", {"reconstruct"}),
        ("poses3d.c3d", {"export"}),
        ("report/index.html", {"compare"}),
    ],
)
def test_a_result_that_is_gone_is_made_again(done, name, stages):
    (done / "mvpose" / name).unlink()
    assert run(done, report=True) == stages
    assert (done / "mvpose" / name).is_file()


def test_moved_times_of_given_keypoints_are_read_anew(done):
    (done / "session.toml").write_text("[cameras.cam02]\nstart_s = 100.0\n")
    assert run(done) == ALL
    clocks, truth = read_clocks(done / "mvpose" / "clocks.json"), read_clocks(done / "truth_clocks.json")
    # t_session = offset + rate * t_camera, and cam02 now calls every instant 100 s later.
    assert clocks["cam02"].offset_s == pytest.approx(truth["cam02"].offset_s - 100, abs=0.05)


@needs_mediapipe
def test_moved_times_of_a_video_need_no_new_detection(tmp_path, make_videos):
    make_videos(tmp_path / "videos", cam01=6)

    def detect(**settings):
        workspace = open_workspace(tmp_path / "mvpose")
        before = workspace.stages.get("detect:cam01")
        found = pipeline.detect(open_recording(tmp_path, Settings(**settings)), workspace)["cam01"]
        return found, workspace.stages["detect:cam01"] is not before

    first, ran = detect(detector="mediapipe")
    assert ran
    (tmp_path / "session.toml").write_text("[cameras.cam01]\nstart_s = 7.0\n")
    moved, ran = detect(detector="auto")  # which is content with what mediapipe found
    assert not ran
    np.testing.assert_allclose(moved.time_s, first.time_s + 7)
    np.testing.assert_array_equal(read_npz(tmp_path / "mvpose" / "keypoints2d" / "cam01.npz").time_s, moved.time_s)
    make_videos(tmp_path / "videos", cam01=7)
    longer, ran = detect(detector="auto")
    assert ran
    assert longer.n_frames == 7


@needs_mediapipe
def test_a_wrong_timestamps_file_is_found_before_anything_is_detected(tmp_path, make_videos):
    make_videos(tmp_path / "videos", cam01=6, cam02=6)
    (tmp_path / "cam02.csv").write_text("0\n1\n")
    (tmp_path / "session.toml").write_text("[cameras.cam02]\ntimestamps = 'cam02.csv'\n")
    recording = open_recording(tmp_path, Settings(detector="mediapipe"))
    with pytest.raises(SessionError, match="cam02"):
        pipeline.detect(recording, open_workspace(tmp_path / "mvpose"))
    assert not (tmp_path / "mvpose" / "keypoints2d").exists()


def test_keypoints_and_videos_mix(session, make_videos):
    """A camera with a keypoint file is not detected, whatever its video shows."""
    path = session / "keypoints" / "cam01.npz"
    with np.load(path) as file:
        fields = {name: file[name] for name in file.files}
    length = len(fields["time_s"])
    np.savez(path, **{**fields, "size_px": np.array([128, 96])})
    make_videos(session / "videos", cam01=length)
    keypoints = pipeline.detect(open_recording(session, Settings(detector="mmpose")), open_workspace(session / "out"))
    assert list(keypoints) == ["cam01", "cam02", "cam03"]
    assert keypoints["cam01"].n_frames == length
    assert keypoints["cam01"].is_tracked


def test_exports_of_people_who_are_no_more_are_removed(done):
    workspace = open_workspace(done / "mvpose")
    (done / "mvpose" / "poses3d_mine.trc").write_text("not ours")
    renamed = replace(read_poses(workspace.poses3d), person_ids=np.array([7]))
    write_poses(renamed, workspace.poses3d)
    written = pipeline.export(renamed, workspace)
    assert {path.name for path in written} == {"poses3d_p7.trc", "poses3d.c3d", "poses3d.csv"}
    assert {path.name for path in (done / "mvpose").glob("*.trc")} == {"poses3d_p7.trc", "poses3d_mine.trc"}


def test_a_newer_result_is_refused_and_not_overwritten(done):
    path = done / "mvpose" / "clocks.json"
    newer = path.read_text().replace("mvpose.clocks/1", "mvpose.clocks/2")
    path.write_text(newer)
    with pytest.raises(WorkspaceError, match=r"mvpose\.clocks/2, newer than .*--force"):
        run(done)
    assert path.read_text() == newer


def test_hints_make_the_reference_certain(session):
    (session / "session.toml").write_text("reference = 'cam03'\n[cameras.cam01]\noffset_hint_s = 3\n")
    assert open_recording(session, Settings()).hints == {"cam03": Hint(0.0, 0.0), "cam01": Hint(3.0, 0.5)}
    assert open_recording(session, Settings(reference="cam02")).hints["cam02"] == Hint(0.0, 0.0)
    (session / "session.toml").write_text("reference = 'cam03'\n")
    assert open_recording(session, Settings()).hints == {}


def test_a_read_out_time_runs_all_after_detection(done):
    for told in ("rolling_shutter_s = 0.02", "rolling_shutter_s = 0.01", "rolling_shutter_s = 0.01\nreadout = 'up'"):
        (done / "session.toml").write_text(f"[cameras.cam02]\n{told}\n")
        assert run(done) == LATER
        assert run(done) == set()


def test_rows_are_read_at_once_but_for_the_file_of_what_was_seen(session):
    calib = json.loads((session / "calib.json").read_text())
    calib["cameras"][0]["rolling_shutter_s"] = calib["cameras"][1]["rolling_shutter_s"] = 0.03
    (session / "calib.json").write_text(json.dumps(calib))
    (session / "session.toml").write_text(
        "[cameras.cam01]\nreadout = 'left'\n"
        "[cameras.cam02]\nrolling_shutter_s = 0.01\n"
        "[cameras.cam03]\nreadout = 'up'\n"
    )
    recording = open_recording(session, Settings(calib=session / "calib.json"))
    assert recording.readouts == {"cam01": (0.03, "left"), "cam02": (0.01, "down")}
    workspace = open_workspace(session / "out")
    for _ in range(2):  # detected, and detected before
        found = pipeline.detect(recording, workspace)
        for name, keypoints in found.items():
            seen = read_npz(workspace.keypoints2d(name))
            np.testing.assert_array_equal(seen.xy_px, read_npz(session / "keypoints" / f"{name}.npz").xy_px)
            readout = recording.readouts.get(name)
            expected = seen if readout is None else global_shutter(seen, *readout)
            np.testing.assert_array_equal(keypoints.xy_px, expected.xy_px)
            assert (np.nanmax(np.abs(keypoints.xy_px - seen.xy_px)) > 1) == (readout is not None)


def test_the_calibration_s_read_out_time_can_be_denied(session):
    calib = json.loads((session / "calib.json").read_text())
    calib["cameras"][0]["rolling_shutter_s"] = 0.03
    (session / "calib.json").write_text(json.dumps(calib))
    (session / "session.toml").write_text("[cameras.cam01]\nrolling_shutter_s = 0\n")
    assert open_recording(session, Settings(calib=session / "calib.json")).readouts == {"cam01": (0.0, "down")}


def test_repeated_frames_are_named_and_show_nobody(session, caplog):
    path = session / "keypoints" / "cam02.npz"
    repeated = with_repeats(np.random.default_rng(0), read_npz(path), 0.1)
    write_keypoints(repeated, path)
    _, repeats = repeated.without_repeats()
    workspace = open_workspace(session / "out")
    found = pipeline.detect(open_recording(session, Settings()), workspace)["cam02"]
    assert 10 < len(repeats) < 40
    assert (np.diff(found.frame_ptr)[repeats] == 0).all()
    assert len(found.xy_px) == len(repeated.xy_px) - len(repeats)
    np.testing.assert_array_equal(read_npz(workspace.keypoints2d("cam02")).xy_px, repeated.xy_px)
    (warning,) = (record.getMessage() for record in caplog.records if "repeat" in record.getMessage())
    assert warning.startswith(f"cam02: {len(repeats)} of {found.n_frames} frames repeat the frame before")
    assert f"at {found.time_s[repeats[0]]:.2f} s" in warning


def write_with_sound(path, n_frames, loudness):
    """Write black pictures at 25 fps, and bangs that come at random but the same in every video."""
    bangs = np.random.default_rng(0).normal(size=48000 * 12) * (np.random.default_rng(1).random(48000 * 12) < 1e-4)
    heard = np.convolve(bangs, np.exp(-np.arange(2000) / 300), "same").astype(np.float32) * loudness
    with av.open(str(path), "w") as container:
        video, audio = container.add_stream("mpeg4", rate=25), container.add_stream("pcm_s16le", 48000, layout="mono")
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        for _ in range(n_frames):
            container.mux(video.encode(av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="rgb24")))
        container.mux(video.encode())
        for first in range(0, len(heard) - 1024, 1024):
            wave = (np.clip(heard[None, first : first + 1024], -1, 1) * 32767).astype(np.int16)
            frame = av.AudioFrame.from_ndarray(wave, format="s16", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = 48000, first, Fraction(1, 48000)
            container.mux(audio.encode(frame))
        container.mux(audio.encode())


def test_what_sound_was_found_wanting_is_said(session):
    (session / "videos").mkdir()
    for name, loudness in (("cam01", 0.3), ("cam02", 0.3), ("cam03", 0.0)):
        path = session / "keypoints" / f"{name}.npz"
        seen = replace(read_npz(path).only(np.array([], int)), size_px=(64, 48))
        write_keypoints(seen, path)
        write_with_sound(session / "videos" / f"{name}.mov", seen.n_frames, loudness)
    recording, workspace = open_recording(session, Settings(reference="cam01")), open_workspace(session / "out")
    _, clocks = pipeline.synchronise(recording, pipeline.detect(recording, workspace), workspace)
    assert set(clocks.clocks) == {"cam01", "cam02"}
    assert clocks.unsynchronised["cam03"] == "nobody is seen in its view; its sound is silent"


def test_a_calibration_may_have_more_cameras_but_not_fewer(session):
    recording = open_recording(session, Settings(calib=session / "calib.json", skip=("cam02",)))
    assert recording.rig.names == ("cam01", "cam03")
    calib = json.loads((session / "calib.json").read_text())
    del calib["cameras"][:2]
    (session / "calib.json").write_text(json.dumps(calib))
    with pytest.raises(CalibrationError, match=r"has no camera cam01, cam02; it has cam03\. .*--skip"):
        open_recording(session, Settings(calib=session / "calib.json"))


def test_poses_need_a_calibration(done):
    recording = open_recording(done, Settings(reference="cam01"))
    workspace = open_workspace(done / "mvpose")
    keypoints = pipeline.detect(recording, workspace)
    clocks = read_clocks(workspace.clocks)
    with pytest.raises(ReconstructionError, match="--calib"):
        pipeline.fuse(recording, keypoints, clocks, workspace)


def test_raw_clocks_are_those_of_the_same_cameras(done):
    recording = open_recording(done, Settings(reference="cam01"))
    clocks = read_clocks(done / "mvpose" / "clocks.json").on("cam03")
    raw = pipeline.raw_clocks(recording, clocks)
    assert list(raw.clocks) == ["cam03", "cam01", "cam02"]
    assert raw.reference == "cam03"
    assert {(c.offset_s, c.rate) for c in raw.clocks.values()} == {(0.0, 1.0)}


def test_build_poses_uses_synchronised_cameras_only(done):
    recording = open_recording(done, Settings())
    keypoints = {name: read_npz(done / "mvpose" / "keypoints2d" / f"{name}.npz") for name in recording.session.names}
    clocks = read_clocks(done / "truth_clocks.json")
    without = Clocks("cam01", {n: clocks[n] for n in ("cam01", "cam02")}, unsynchronised={"cam03": "says the test"})
    built = pipeline.build_poses(keypoints, read_rig(done / "calib.json"), without, Settings())
    assert built.poses.cameras == ("cam01", "cam02")
    assert built.aligned.cameras == ("cam01", "cam02")
    assert built.poses.n_views.max() == 2


def test_another_method_reconstructs_anew_and_both_stand_side_by_side(done):
    assert run(done, method="voxel", end_s=3.0) == {"reconstruct", "export"}
    assert run(done, method="voxel", end_s=3.0) == set()
    voxels = read_poses(done / "mvpose" / "poses3d.npz")
    recording = open_recording(done, Settings(calib=done / "calib.json", reference="cam01", end_s=3.0))
    workspace = open_workspace(done / "mvpose")
    keypoints = pipeline.detect(recording, workspace)
    offsets, clocks = pipeline.synchronise(recording, keypoints, workspace)
    metrics = compare(recording, keypoints, offsets, clocks, workspace, beside="voxel")
    assert list(metrics) == ["raw", "synced", "voxel"]
    assert metrics["voxel"]["n_people"] == len(voxels.person_ids) == metrics["synced"]["n_people"]
    plain = replace(recording, settings=replace(recording.settings, polish=False))
    unpolished = compare(plain, keypoints, offsets, clocks, workspace, beside="voxel")
    assert unpolished["synced"] == metrics["synced"]
    assert unpolished["voxel"]["reprojection_px_mean"] > metrics["voxel"]["reprojection_px_mean"]
    assert "Synchronised, VoxelPose" in (done / "mvpose" / "report" / "index.html").read_text(encoding="utf-8")


def test_weights_that_are_none_are_named(done):
    with pytest.raises(FormatError, match=r"none\.safetensors cannot be read"):
        run(done, method="voxel", weights=done / "none.safetensors")


def test_a_gpu_that_is_too_small_for_voxelpose_is_said_in_words(monkeypatch):
    def too_small(*args):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr(fuse, "fuse_voxels", too_small)
    with pytest.raises(ReconstructionError, match="set CUDA_VISIBLE_DEVICES= to let the CPU do it"):
        pipeline._built_of_voxels(None, None, Settings(method="voxel"))
