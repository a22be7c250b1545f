"""The front door: what a user types, sees and finds on disk, and above all what happens to bad input."""

import io
import json
import logging
import os
import pickle
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import click
import numpy as np
import pytest

from mvpose.calib.files import read_rig
from mvpose.cli import cli
from mvpose.console import Progress, gathered_messages
from mvpose.demo import write_session
from mvpose.detect import mediapipe
from mvpose.formats.keypoints2d import read_npz
from mvpose.formats.results import read_clocks, read_offsets, read_poses
from mvpose.skeleton import SKELETONS
from mvpose.sync.offsets import PAIR_METHODS
from mvpose.synthetic.motion import generate_motion, still_motion
from mvpose.synthetic.noise import DetectorNoise
from mvpose.synthetic.rigs import ring_rig
from mvpose.synthetic.world import make_world

COMMANDS = ["reconstruct", "detect", "sync", "compare", "view", "export", "convert-calib", "demo", "train", "bench"]


def partial_files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.name.startswith(".")]


def read(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


def edit_json(path: Path, change) -> None:
    value = read(path)
    change(value)
    path.write_text(json.dumps(value), encoding="utf-8")


def edit_npz(path: Path, **fields) -> None:
    with np.load(path) as file:
        value = {name: file[name] for name in file.files}
    np.savez(path, **{**value, **fields})


def test_help_lists_the_commands_that_there_are_the_main_one_first(mvpose):
    ended = mvpose("--help")
    assert ended.code == 0
    listed = ended.out.split("Commands:")[1]
    assert re.findall(r"^  ([a-z-]+)  +\S", listed, re.MULTILINE) == COMMANDS
    assert "..." not in listed  # no summary is cut off
    assert max(map(len, ended.out.splitlines())) <= 80


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_and_option_has_help(mvpose, command):
    ended = mvpose(command, "--help")
    assert ended.code == 0
    undescribed = [p.name for p in cli.commands[command].params if isinstance(p, click.Option) and not p.help]
    assert undescribed == []
    assert max(map(len, ended.out.splitlines())) <= 80


def test_view_help_names_the_keys_of_the_player(mvpose):
    from mvpose.viz.player import HELP

    ours = mvpose("view", "--help").out
    for key in ("space", "home", "end", "[", "]", "wheel", "ctrl+", "R", "Q"):
        assert key in HELP
        assert key in ours


@pytest.mark.parametrize(
    "argv",
    [
        ["reconstruct"],
        ["reconstruct", "S"],  # no --calib
        ["reconstruct", "S", "--calib"],
        ["reconstruct", "S", "--calib", "c.json", "--fps", "0"],
        ["reconstruct", "S", "--calib", "c.json", "--fps", "inf"],
        ["reconstruct", "S", "--calib", "c.json", "--jobs", "0"],
        ["reconstruct", "S", "--calib", "c.json", "--detector", "magic"],
        ["compare", "S"],
        ["export", "S"],
        ["export", "S", "--to", "fbx"],
        ["convert-calib", "a.json"],
        ["train"],
        ["train", "c.py", "--seed", "-1"],
        ["train", "c.py", "--launcher", "slurm"],
        ["convert-calib", "a.json", "b.json", "--to", "sketch"],
        ["dance"],
        ["--dance"],
    ],
    ids=" ".join,
)
def test_wrong_flags_end_with_2(mvpose, argv):
    ended = mvpose(*argv)
    assert ended.code == 2
    assert ended.out == ""
    assert "Error: " in ended.err


def test_version_is_that_of_the_package(mvpose):
    from mvpose import __version__

    assert mvpose("--version").out.strip().endswith(__version__)


def test_reconstruct_writes_what_the_contract_names_and_prints_results_only(mvpose, session):
    ended = mvpose("reconstruct", session, "--calib", session / "calib.json", "--reference", "cam01")
    assert ended.code == 0
    assert ended.warnings == []
    out = session / "mvpose"
    produced = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    assert produced == {
        "keypoints2d/cam01.npz", "keypoints2d/cam02.npz", "keypoints2d/cam03.npz", "offsets.json", "clocks.json",
        "poses3d.npz", "poses3d_raw.npz", "poses3d_p0.trc", "poses3d.c3d", "poses3d.csv", "report/index.html",
        "report/metrics.json", "run.json",
    }  # fmt: skip
    for path in re.findall(r"^\S+/mvpose/\S+$", ended.out, re.MULTILINE):
        assert Path(path).is_file()
    assert "synchronise: 3/3" in ended.err
    assert "synchronise" not in ended.out

    clocks, truth = read_clocks(out / "clocks.json"), read_clocks(session / "truth_clocks.json")
    for name in ("cam02", "cam03"):
        # Exact keypoints, so a thousandth of a frame; measured 0.05 ms.
        assert clocks[name].offset_s == pytest.approx(truth[name].offset_s, abs=1e-3)
    metrics = read(out / "report" / "metrics.json")["variants"]
    assert metrics["synced"]["reprojection_px_mean"] < 0.1 < 5 < metrics["raw"]["reprojection_px_mean"]


def test_json_is_one_object_on_stdout(mvpose, done):
    calib = ["--calib", done / "calib.json"]
    reference = ["--reference", "cam01"]
    answer = json.loads(mvpose("reconstruct", done, *calib, *reference, "--json").out)
    assert answer["people"] == 1
    reference_clock = answer["clocks"]["clocks"]["cam01"]
    assert reference_clock.pop("epoch_s") > 1
    assert reference_clock == {
        "offset_s": 0.0, "rate": 1.0, "offset_at_epoch_s": 0.0, "sigma_at_epoch_s": 0.0, "verdict": "good"
    }  # fmt: skip
    assert all(Path(path).is_file() for path in answer["files"])
    assert answer["warnings"] == []

    answer = json.loads(mvpose("detect", done, "--json").out)
    with np.load(done / "keypoints" / "cam02.npz") as given:
        assert answer["cameras"]["cam02"]["frames"] == len(given["time_s"])
    answer = json.loads(mvpose("sync", done, *calib, *reference, "--json").out)
    assert set(answer["clocks"]) == {"cam01", "cam02", "cam03"}
    answer = json.loads(mvpose("compare", done, *calib, *reference, "--json").out)
    assert answer["metrics"]["synced"]["n_people"] == 1


@pytest.mark.parametrize("flag", ["--start", "--end", "--fps"])
@pytest.mark.parametrize("value", ["nan", "inf", "abc"])
def test_what_is_no_number_is_a_wrong_flag(mvpose, session, flag, value):
    assert mvpose("reconstruct", session, "--calib", session / "calib.json", flag, value).code == 2


def test_a_hint_that_nothing_counts_from_is_named(mvpose, session):
    (session / "session.toml").write_text("[cameras.cam02]\noffset_hint_s = 0.5\n")
    warnings = mvpose("sync", session, "--calib", session / "calib.json").warnings
    assert any("offset_hint_s of cam02 is not used" in line and "reference" in line for line in warnings)


def test_a_hint_that_the_video_contradicts_is_named(mvpose, session):
    (session / "session.toml").write_text(
        "reference = 'cam01'\n[cameras.cam02]\noffset_hint_s = 40.0\nhint_sigma_s = 0.05\n"
    )
    warnings = mvpose("sync", session, "--calib", session / "calib.json").warnings
    assert any("cam01 and cam02 is not used" in line and "contradicts" in line for line in warnings)


def test_without_sync_nothing_of_an_earlier_synchronisation_is_left(mvpose, done):
    out = done / "mvpose"
    assert (out / "offsets.json").is_file() and (out / "report" / "index.html").is_file()
    ended = mvpose("reconstruct", done, "--calib", done / "calib.json", "--no-sync", "--reference", "cam01")
    assert ended.code == 0 and "± " not in ended.out
    for gone in ("offsets.json", "report/index.html", "report/metrics.json", "poses3d_raw.npz"):
        assert not (out / gone).exists()
    assert mvpose("reconstruct", done, "--calib", done / "calib.json", "--reference", "cam01").code == 0
    assert (out / "report" / "index.html").is_file()


def test_a_record_cannot_make_files_outside_disappear(mvpose, done):
    record = done / "mvpose" / "run.json"
    content = json.loads(record.read_text())
    content["stages"]["compare"]["files"] = ["../calib.json"]
    record.write_text(json.dumps(content))
    assert mvpose("reconstruct", done, "--calib", done / "calib.json", "--no-sync").code == 0
    assert (done / "calib.json").is_file()


def test_true_poses_alone_need_a_reference(mvpose, refused, done):
    given = ["compare", done, "--calib", done / "calib.json", "--truth", done / "truth_poses3d.npz"]
    assert "--reference" in refused(*given)
    assert mvpose(*given, "--reference", "cam01").code == 0


def test_poses_that_newer_clocks_have_left_behind_are_named(mvpose, done):
    clocks = done / "mvpose" / "clocks.json"
    later = (done / "mvpose" / "poses3d.npz").stat().st_mtime + 5
    os.utime(clocks, (later, later))
    assert any("older than clocks.json" in line for line in mvpose("export", done, "--to", "csv").warnings)


def test_without_sync_every_camera_keeps_its_own_time(mvpose, session):
    calib = ["--calib", session / "calib.json"]
    ended = mvpose("reconstruct", session, *calib, "--no-sync", "--reference", "cam02")
    assert ended.code == 0
    clocks = read_clocks(session / "mvpose" / "clocks.json")
    assert [(c.offset_s, c.rate) for c in clocks.clocks.values()] == [(0.0, 1.0)] * 3
    assert clocks.reference == "cam02"
    assert clocks["cam01"].verdict == "doubtful"
    assert not (session / "mvpose" / "report").exists()
    assert not (session / "mvpose" / "offsets.json").exists()

    # The clocks that were not estimated must not pass for such in the next run.
    assert mvpose("sync", session, *calib, "--reference", "cam02").code == 0
    assert abs(read_clocks(session / "mvpose" / "clocks.json")["cam01"].offset_s) > 0.1


def test_no_sync_after_sync_replaces_the_clocks(mvpose, done):
    argv = ["reconstruct", done, "--calib", done / "calib.json", "--reference", "cam01"]
    assert mvpose(*argv, "--no-sync").code == 0
    assert read_clocks(done / "mvpose" / "clocks.json")["cam02"].offset_s == 0.0
    assert mvpose(*argv).code == 0
    assert read_clocks(done / "mvpose" / "clocks.json")["cam02"].offset_s != 0.0


def test_fps_start_end_and_smoothing_shape_the_timeline(mvpose, done):
    argv = ["reconstruct", done, "--calib", done / "calib.json", "--reference", "cam01", "--no-sync"]
    assert mvpose(*argv, "--fps", 50, "--start", 2.5, "--end", 4.01, "--no-smooth").code == 0
    poses = read_poses(done / "mvpose" / "poses3d.npz")
    assert not poses.smoothed
    np.testing.assert_allclose(np.diff(poses.time_s), 0.02, atol=1e-12)
    np.testing.assert_allclose(poses.time_s[[0, -1]], [2.5, 4.0], atol=1e-12)
    assert mvpose(*argv).code == 0
    poses = read_poses(done / "mvpose" / "poses3d.npz")
    assert poses.smoothed
    assert poses.frame_rate == pytest.approx(25.0)  # the reference camera's


@pytest.mark.parametrize("bounds", [("--start", 5, "--end", 4), ("--start", 1000), ("--end", -1)])
def test_bounds_that_leave_nothing_are_refused(refused, done, bounds):
    error = refused("reconstruct", done, "--calib", done / "calib.json", "--reference", "cam01", *bounds)
    assert "Change --start, --end or --fps" in error
    assert len(read_poses(done / "mvpose" / "poses3d.npz").time_s)  # the earlier result is still there


def test_bounds_outside_the_raw_recordings_leave_raw_without_people(mvpose, done):
    # By its own clock one camera only goes on after 10.92 s; by the true clocks two do until 11.47 s.
    argv = ["reconstruct", done, "--calib", done / "calib.json", "--reference", "cam01"]
    ended = mvpose(*argv, "--start", 11, "--json")
    assert ended.code == 0
    answer = json.loads(ended.out)
    assert answer["metrics"]["raw"]["n_people"] == 0
    assert answer["metrics"]["synced"]["n_people"] == 1
    assert any(line.startswith("warning: raw: no reconstruction") for line in ended.warnings)
    assert len(read_poses(done / "mvpose" / "poses3d_raw.npz").person_ids) == 0


def test_the_reference_camera_is_exactly_0_and_1(mvpose, done):
    assert mvpose("sync", done, "--calib", done / "calib.json", "--reference", "cam02").code == 0
    clock = read_clocks(done / "mvpose" / "clocks.json")["cam02"]
    assert (clock.offset_s, clock.rate) == (0.0, 1.0)
    assert not clock.cov.any()


def test_skipped_cameras_take_no_part(mvpose, session):
    ended = mvpose("sync", session, "--calib", session / "calib.json", "--skip", "cam03", "--json")
    assert set(json.loads(ended.out)["clocks"]) == {"cam01", "cam02"}
    assert not (session / "mvpose" / "keypoints2d" / "cam03.npz").exists()


def test_unknown_and_contradicting_cameras_are_refused(refused, session):
    calib = ["--calib", session / "calib.json"]
    assert "cam09" in refused("sync", session, *calib, "--reference", "cam09")
    assert "cam01" in refused("sync", session, *calib, "--skip", "cam09")  # names those that there are
    assert "cam02" in refused("sync", session, *calib, "--skip", "cam02", "--reference", "cam02")


def test_sync_without_calibration_is_good_to_hundredths(mvpose, session):
    assert mvpose("sync", session, "--reference", "cam01").code == 0
    clocks, truth = (read_clocks(p) for p in (session / "mvpose" / "clocks.json", session / "truth_clocks.json"))
    for name in ("cam02", "cam03"):
        assert clocks[name].offset_s == pytest.approx(truth[name].offset_s, abs=0.04)
    assert {e.method for e in read_offsets(session / "mvpose" / "offsets.json").edges} <= {"insynformer", "epipolar"}


def as_foreign(session, kind):
    """Put another program's files in place of a session's keypoints, and take its calibration away."""
    (session / "calib.json").rename(session.parent / "calib.json")
    lines = []
    for path in sorted((session / "keypoints").glob("*.npz")):
        k = read_npz(path)
        lines.append(f"[cameras.{k.camera}]\nfps = {round(k.frame_rate)}\n")
        names = SKELETONS["coco17"].joint_names
        has = [k.skeleton.joint_names.index(name) if name in k.skeleton.joint_names else None for name in names]
        people = [
            (int(frame), [[0.0, 0.0, 0.0] if j is None or not s[j] else [*map(float, xy[j]), float(s[j])] for j in has])
            for frame, xy, s in zip(k.frame_index, k.xy_px, k.score, strict=True)
        ]
        path.unlink()
        if kind == "openpose":
            folder = session / "keypoints" / f"{k.camera}_json"
            folder.mkdir()
            for frame in range(k.n_frames):
                own = [{"pose_keypoints_2d": np.ravel(points).tolist()} for f, points in people if f == frame]
                (folder / f"{frame:06d}_keypoints.json").write_text(json.dumps({"people": own}))
        elif kind == "coco":
            rows = [{"image_id": f, "category_id": 1, "keypoints": np.ravel(points).tolist()} for f, points in people]
            path.with_suffix(".json").write_text(json.dumps(rows))
        else:
            frames = {frame: [] for frame in range(k.n_frames)}
            for f, points in people:
                frames[f].append({"keypoints": [p[:2] for p in points], "keypoint_scores": [p[2] for p in points]})
            listed = [{"frame_id": frame, "instances": own} for frame, own in frames.items()]
            content = {"meta_info": {"keypoint_id2name": dict(enumerate(names))}, "instance_info": listed}
            path.with_suffix(".json").write_text(json.dumps(content))
    (session / "session.toml").write_text("".join(lines))
    return session


@pytest.mark.parametrize("kind", ["mmpose", "coco", "openpose"])
def test_keypoint_files_alone_are_enough_to_synchronise(mvpose, session, kind):
    as_foreign(session, kind)
    assert mvpose("sync", session, "--reference", "cam01").code == 0
    clocks, truth = (read_clocks(p) for p in (session / "mvpose" / "clocks.json", session / "truth_clocks.json"))
    for name in ("cam02", "cam03"):
        assert clocks[name].offset_s == pytest.approx(truth[name].offset_s, abs=0.04)
    assert read_npz(session / "mvpose" / "keypoints2d" / "cam01.npz").size_px is None
    # With a calibration the size is that one's, and what was read before is read anew.
    calib = session.parent / "calib.json"
    assert mvpose("sync", session, "--calib", calib, "--reference", "cam01").code == 0
    assert read_npz(session / "mvpose" / "keypoints2d" / "cam01.npz").size_px == read_rig(calib)["cam01"].size_px


def test_geometry_that_needs_the_size_of_images_asks_for_it(mvpose, refused, session):
    as_foreign(session, "coco")
    toml = session / "session.toml"
    toml.write_text(toml.read_text().replace("[cameras.cam02]", "[cameras.cam02]\nrolling_shutter_s = 0.02"))
    assert "set cameras.cam02.size_px = [width, height]" in refused("sync", session)
    toml.write_text(toml.read_text().replace("[cameras.cam02]", "[cameras.cam02]\nsize_px = [1920, 1080]"))
    assert mvpose("sync", session).code == 0
    assert read_npz(session / "mvpose" / "keypoints2d" / "cam02.npz").size_px == (1920, 1080)


def test_a_size_that_calibration_or_video_contradicts_is_refused(refused, session, make_videos):
    toml, calib = session / "session.toml", session / "calib.json"
    as_foreign(session, "coco")
    calib = session.parent / "calib.json"
    told = toml.read_text()
    toml.write_text(told.replace("[cameras.cam02]", "[cameras.cam02]\nsize_px = [640, 480]"))
    error = refused("sync", session, "--calib", calib)
    assert "camera cam02: size_px in session.toml is 640 x 480" in error
    assert "1920 x 1080" in error
    make_videos(session / "videos", cam02=5)  # 128 x 96
    assert "cameras.cam02.size_px in session.toml is 640 x 480, and the video" in refused("sync", session)


def test_with_a_calibration_geometry_tells_the_offsets(mvpose, session):
    assert mvpose("sync", session, "--calib", session / "calib.json", "--reference", "cam01").code == 0
    edges = read_offsets(session / "mvpose" / "offsets.json").edges
    methods = {}
    for e in edges:
        methods.setdefault((e.a, e.b), set()).add(e.method)
    pairs = [("cam01", "cam02"), ("cam01", "cam03"), ("cam02", "cam03")]
    assert methods == {pair: {"epipolar"} for pair in pairs}


def methods_used(session):
    return {e.method for e in read_offsets(session / "mvpose" / "offsets.json").edges}


@pytest.mark.parametrize(
    ("asked", "calibrated", "used"),
    [
        (["correlation"], False, {"correlation"}),
        (["correlation"], True, {"correlation"}),
        (["insynformer"], True, {"insynformer"}),
        (["correlation", "epipolar", "correlation"], True, {"correlation", "epipolar"}),
    ],
    ids=str,
)
def test_sync_estimates_pairs_by_the_methods_asked_for(mvpose, session, asked, calibrated, used):
    options = [word for method in asked for word in ("--method", method)]
    calib = ["--calib", session / "calib.json"] if calibrated else []
    assert mvpose("sync", session, *calib, *options, "--reference", "cam01").code == 0
    assert methods_used(session) == used
    edges = read_offsets(session / "mvpose" / "offsets.json").edges
    # 12 s are one epoch: a method named twice estimates once.
    assert len(edges) == len({(e.a, e.b, e.method) for e in edges})


def test_epipolar_geometry_without_a_calibration_is_refused_before_any_work(refused, session):
    assert "give --calib" in refused("sync", session, "--method", "epipolar", "--method", "insynformer")
    assert not (session / "mvpose").exists()


def test_a_method_that_is_none_is_a_wrong_flag(mvpose, session):
    ended = mvpose("sync", session, "--method", "learned")
    assert ended.code == 2
    assert all(method in ended.err for method in PAIR_METHODS)


def test_reconstruct_replaces_the_clocks_of_another_method_and_says_so(mvpose, session):
    argv = [session, "--calib", session / "calib.json", "--reference", "cam01"]
    assert mvpose("sync", *argv, "--method", "correlation").code == 0
    ended = mvpose("reconstruct", *argv)
    assert ended.code == 0
    assert any("no longer by correlation" in line for line in ended.warnings)
    assert methods_used(session) == {"epipolar"}
    assert not any("no longer by" in line for line in mvpose("reconstruct", *argv).warnings)


def test_out_keeps_the_session_as_it_is(mvpose, session, tmp_path):
    before = sorted(session.rglob("*"))
    assert mvpose("sync", session, "--out", tmp_path / "a" / "b").code == 0
    assert (tmp_path / "a" / "b" / "clocks.json").is_file()
    assert sorted(session.rglob("*")) == before


def test_compare_with_the_truth_measures_time_and_place(mvpose, done):
    truth = ["--truth", done / "truth_clocks.json", "--truth", done / "truth_poses3d.npz"]
    argv = ["compare", done, "--calib", done / "calib.json", "--reference", "cam01"]
    metrics = json.loads(mvpose(*argv, *truth, "--json").out)["metrics"]
    assert list(metrics) == ["raw", "synced", "truth"]
    assert metrics["truth"]["timing_error_ms_max"] == 0
    assert metrics["synced"]["timing_error_ms_max"] < 1 < 100 < metrics["raw"]["timing_error_ms_max"]
    # Linear interpolation between frames of 25 fps, and smoothing; measured 3 mm.
    assert metrics["synced"]["mpjpe_mm"] < 10 < 50 < metrics["raw"]["mpjpe_mm"]
    assert read(done / "mvpose" / "report" / "metrics.json")["variants"]["synced"] == metrics["synced"]
    assert "mpjpe_mm" not in json.loads(mvpose(*argv, "--json").out)["metrics"]["synced"]  # no truth, no claim


def test_truth_that_does_not_fit_is_refused(refused, done):
    argv = ["compare", done, "--calib", done / "calib.json", "--truth"]
    assert "nowhere.json" in refused(*argv, done / "nowhere.json")
    assert "run.json" in refused(*argv, done / "mvpose" / "run.json")
    assert "two files" in refused(*argv, done / "truth_clocks.json", "--truth", done / "mvpose" / "clocks.json")
    edit_json(done / "truth_clocks.json", lambda truth: truth["clocks"].pop("cam02"))
    assert "cam02" in refused(*argv, done / "truth_clocks.json")


@pytest.mark.parametrize(("kind", "name"), [("trc", "poses3d_p0.trc"), ("c3d", "poses3d.c3d"), ("csv", "poses3d.csv")])
def test_export_writes_the_format_anew(mvpose, done, kind, name):
    before = (done / "mvpose" / name).read_bytes()
    (done / "mvpose" / name).unlink()
    ended = mvpose("export", done, "--to", kind)
    assert ended.code == 0
    assert ended.out.split() == [str(done / "mvpose" / name)]
    assert len((done / "mvpose" / name).read_bytes()) == len(before)


def test_view_saves_a_picture_without_being_told_the_calibration(mvpose, done, tmp_path, monkeypatch):
    import cv2

    monkeypatch.chdir(tmp_path)  # the calibration is found from wherever one looks
    ended = mvpose("view", done, "--save", "look.png")
    assert ended.code == 0
    assert ended.out.split() == ["look.png"]
    picture = cv2.imread(str(tmp_path / "look.png"))
    assert picture.shape == (720, 1280, 3)
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 50


def test_view_of_what_is_not_there_says_what_to_do(refused, session, done):
    assert "mvpose reconstruct" in refused("view", session, "--save", "a.png")
    assert "mvpose reconstruct" in refused("export", session, "--to", "csv")
    assert ".mp4" in refused("view", done, "--save", done / "a.gif")
    edit_json(done / "mvpose" / "run.json", lambda run: run["stages"]["reconstruct"].update(calib="/gone.json"))
    assert "--calib" in refused("view", done, "--save", done / "a.png")
    assert not (done / "a.png").exists()


def test_convert_calib_goes_round(mvpose, session, tmp_path):
    ended = mvpose("convert-calib", session / "calib.json", tmp_path / "rig.toml")
    assert ended.code == 0
    assert "3 cameras: cam01, cam02, cam03" in ended.out
    back = mvpose("convert-calib", tmp_path / "rig.toml", tmp_path / "rig.json")
    assert back.code == 0
    for before, after in zip(read_rig(session / "calib.json"), read_rig(tmp_path / "rig.json"), strict=True):
        np.testing.assert_allclose(after.cam_from_world, before.cam_from_world, atol=1e-9)
        np.testing.assert_allclose(after.K, before.K, atol=1e-9)


def test_a_session_that_is_not_there(refused, session, tmp_path):
    calib = ["--calib", session / "calib.json"]
    for command in ("reconstruct", "sync", "compare"):
        assert "nowhere" in refused(command, tmp_path / "nowhere", *calib)
    assert "calib.json" in refused("detect", session / "calib.json")
    assert not (tmp_path / "nowhere").exists()


def test_no_video(refused, session, tmp_path):
    (tmp_path / "bare" / "videos").mkdir(parents=True)
    assert "holds no camera" in refused("reconstruct", tmp_path / "bare", "--calib", session / "calib.json")
    assert not (tmp_path / "bare" / "mvpose").exists()


def test_one_camera_only(refused, session):
    for name in ("cam02", "cam03"):
        (session / "keypoints" / f"{name}.npz").unlink()
    assert "one camera only" in refused("reconstruct", session, "--calib", session / "calib.json")
    assert "one camera only" in refused("sync", session)


@pytest.mark.parametrize("damage", ["empty", "truncated", "no video"])
def test_damaged_videos(refused, session, make_videos, damage):
    make_videos(session / "videos", cam01=30)
    path = session / "videos" / "cam02.mp4"
    good = (session / "videos" / "cam01.mp4").read_bytes()
    path.write_bytes({"empty": b"", "truncated": good[: len(good) // 2], "no video": b"hello " * 500}[damage])
    error = refused("reconstruct", session, "--calib", session / "calib.json")
    assert "cam02" in error
    assert "cam02.mp4" in error
    assert not (session / "mvpose").exists()


@pytest.mark.parametrize(("size_px", "why"), [((160, 80), "shape"), ((96, 128), "swapped")])
def test_a_video_of_another_size_than_calibrated(refused, session, make_videos, size_px, why):
    make_videos(session / "videos", cam01=5)  # 128 x 96

    def resize(calib):
        middle = [(side - 1) / 2 for side in size_px]
        calib["cameras"][0].update(size_px=size_px, K=[[100, 0, middle[0]], [0, 100, middle[1]], [0, 0, 1]])

    edit_json(session / "calib.json", resize)
    error = refused("reconstruct", session, "--calib", session / "calib.json")
    assert why in error
    assert "cam01" in error


def _reflect(calib):
    rotation = calib["cameras"][1]["R"]
    rotation[0] = [-value for value in rotation[0]]


def _to_millimetres(calib):
    for camera in calib["cameras"]:
        camera["t"] = [1000 * value for value in camera["t"]]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda calib: calib["cameras"].pop(1), "no camera cam02"),
        (_reflect, "cam02"),
        (_to_millimetres, "mm"),
        (lambda calib: calib["cameras"].append(calib["cameras"][0]), "cam01 more than once"),
        (lambda calib: calib.update(format="mvpose.calib/2"), "newer"),
        (lambda calib: calib.update(format="someone.else/1"), "calib.json"),
    ],
    ids=["camera missing", "reflection", "millimetres", "twice", "newer", "foreign"],
)
def test_wrong_calibrations(refused, session, change, words):
    edit_json(session / "calib.json", change)
    assert words in refused("reconstruct", session, "--calib", session / "calib.json")
    assert not (session / "mvpose").exists()


@pytest.mark.parametrize(
    "content", [b"", b"hello", b"\x00\xff" * 50, b"[1, 2]", b"{", b"<a>", b"a = [", b"%YAML:1.0\n-"]
)
def test_calibrations_of_unknown_format(refused, session, content):
    (session / "calib.any").write_bytes(content)
    assert "calib.any" in refused("reconstruct", session, "--calib", session / "calib.any")
    assert "calib.any" in refused("convert-calib", session / "calib.any", session / "out.json")
    assert not (session / "out.json").exists()


def test_a_calibration_that_is_not_there(refused, session):
    assert "nowhere.toml" in refused("reconstruct", session, "--calib", session / "nowhere.toml")


class _Touch:
    """Unpickling this makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_pickles_are_not_executed(refused, session, tmp_path):
    bait = tmp_path / "executed"
    evil = pickle.dumps(_Touch(bait))
    pickle.loads(evil)
    assert bait.exists()  # it would work
    bait.unlink()

    (session / "cam.pickle").write_bytes(evil)
    assert "cam.pickle" in refused("reconstruct", session, "--calib", session / "cam.pickle")
    (session / "keypoints" / "cam01.npz").write_bytes(evil)
    assert "cam01.npz" in refused("reconstruct", session, "--calib", session / "calib.json")
    hidden = np.empty(1, dtype=object)
    hidden[0] = _Touch(bait)
    np.savez(session / "keypoints" / "cam01.npz", format="mvpose.keypoints2d/1", xy_px=hidden)
    assert "cam01.npz" in refused("reconstruct", session, "--calib", session / "calib.json")
    np.savez(session / "poses.npz", format="mvpose.poses3d/1", xyz_m=hidden)
    argv = ["compare", session, "--calib", session / "calib.json", "--truth"]
    assert "poses.npz" in refused(*argv, session / "poses.npz")
    assert not bait.exists()


@pytest.mark.parametrize(
    ("field", "change", "words"),
    [
        ("xy_px", lambda xy: xy[:, :-1], "xy_px"),
        ("score", lambda score: score[:, :-1], "score"),
        ("score", lambda score: np.full_like(score, np.nan), "scores"),
        ("score", lambda score: score + 7, "scores"),
        ("time_s", lambda time_s: time_s[::-1], "increase"),
        ("time_s", lambda time_s: np.where(time_s > 1, np.nan, time_s), "finite"),
        ("joint_names", lambda names: names[:-1], "xy_px"),
        ("format", lambda _: "mvpose.keypoints2d/9", "newer"),
    ],
)
def test_wrong_keypoint_files(refused, session, field, change, words):
    path = session / "keypoints" / "cam02.npz"
    with np.load(path) as file:
        edited = change(file[field])
    edit_npz(path, **{field: edited})
    error = refused("reconstruct", session, "--calib", session / "calib.json")
    assert "cam02" in error
    assert words in error


@pytest.mark.parametrize(
    ("results", "words"),
    [
        ([{"image_id": 0, "category_id": 1, "keypoints": [1.0, 2.0, 0.5] * 16, "score": 0.9}], "17"),
        ([{"image_id": 0, "category_id": 1, "keypoints": "none", "score": 0.9}], "keypoints"),
        ({"nothing": "known"}, "cam02.json"),
        ([], "cam02.json"),
    ],
    ids=["16 joints", "text", "unknown", "empty"],
)
def test_wrong_foreign_keypoint_files(refused, session, results, words):
    (session / "keypoints" / "cam02.npz").unlink()
    (session / "keypoints" / "cam02.json").write_text(json.dumps(results))
    (session / "session.toml").write_text("[cameras.cam02]\nfps = 25\n")
    error = refused("reconstruct", session, "--calib", session / "calib.json")
    assert words in error
    assert "cam02" in error


@pytest.fixture
def deserted(session):
    """A session in whose keypoints nobody is."""
    for name in ("cam01", "cam02", "cam03"):
        path = session / "keypoints" / f"{name}.npz"
        edit_npz(path, xy_px=np.full_like(np.load(path)["xy_px"], np.nan))
    return session


@pytest.mark.parametrize("command", ["reconstruct", "compare"])
def test_keypoints_of_nobody_at_all(refused, deserted, command):
    assert "nobody" in refused(command, deserted, "--calib", deserted / "calib.json")


def test_sync_of_nobody_says_so_and_ends_well(mvpose, deserted):
    ended = mvpose("sync", deserted)
    assert ended.code == 0
    assert sum("is not synchronised: nobody is seen" in line for line in ended.warnings) == 2
    assert len(read_clocks(deserted / "mvpose" / "clocks.json").clocks) == 1


def test_hints_alone_give_clocks_where_nobody_is_seen(mvpose, deserted):
    (deserted / "session.toml").write_text(
        "reference = 'cam01'\n[cameras.cam02]\noffset_hint_s = 2.5\nhint_sigma_s = 0.05\n"
    )
    ended = mvpose("sync", deserted)
    assert ended.code == 0
    clocks = read_clocks(deserted / "mvpose" / "clocks.json")
    assert clocks["cam02"].offset_s == pytest.approx(2.5)
    assert "known by offset_hint_s alone" in clocks["cam02"].why


def test_a_camera_in_which_nobody_is_seen_is_named_and_left_out(mvpose, session):
    path = session / "keypoints" / "cam02.npz"
    edit_npz(path, xy_px=np.full_like(np.load(path)["xy_px"], np.nan))
    ended = mvpose("reconstruct", session, "--calib", session / "calib.json")
    assert ended.code == 0
    assert any("cam02 is not synchronised" in line for line in ended.warnings)
    assert set(read_poses(session / "mvpose" / "poses3d.npz").cameras) == {"cam01", "cam03"}
    assert "cam02" in "".join(read(session / "mvpose" / "run.json")["warnings"])


def test_cameras_that_share_no_motion_are_named_and_the_rest_goes_on(mvpose, session, tmp_path):
    rng = np.random.default_rng(11)
    other = make_world(rng, generate_motion(rng, 12.0), ring_rig(3), fps=[25.0] * 3, max_offset_s=2, max_drift_ppm=0)
    write_session(other, rng, tmp_path / "other", None)
    shutil.copy(tmp_path / "other" / "keypoints" / "cam03.npz", session / "keypoints" / "cam03.npz")
    ended = mvpose("reconstruct", session, "--calib", session / "calib.json")
    assert ended.code == 0
    assert any("cam03 is not synchronised" in line for line in ended.warnings)
    clocks = read_clocks(session / "mvpose" / "clocks.json")
    assert set(clocks.clocks) == {"cam01", "cam02"}
    assert clocks.unsynchronised["cam03"]
    assert ("cam03",) in clocks.components
    assert re.search(r"^cam03 +no clock: \S", ended.out, re.MULTILINE)


@pytest.mark.parametrize("noise", [None, DetectorNoise()], ids=["exact", "noisy"])
def test_a_still_person_tells_no_time(mvpose, refused, tmp_path, noise):
    rng = np.random.default_rng(5)
    world = make_world(rng, still_motion(rng, 8.0), ring_rig(3), fps=[25.0] * 3, max_offset_s=2, max_drift_ppm=0)
    write_session(world, rng, tmp_path / "still", noise)
    argv = [tmp_path / "still", "--calib", tmp_path / "still" / "calib.json"]
    assert "fewer than two cameras" in refused("reconstruct", *argv)
    warnings = read(tmp_path / "still" / "mvpose" / "run.json")["warnings"]  # though the command failed
    assert len([w for w in warnings if "is not synchronised" in w]) == 2
    assert "fewer than two cameras" in refused("compare", *argv)
    ended = mvpose("sync", *argv)  # whose job is to say just that
    assert ended.code == 0
    assert len([w for w in ended.warnings if "is not synchronised" in w]) == 2
    clocks = read_clocks(tmp_path / "still" / "mvpose" / "clocks.json")
    assert len(clocks.clocks) == 1
    assert len(clocks.unsynchronised) == 2
    assert not (tmp_path / "still" / "mvpose" / "poses3d.npz").exists()


def test_broken_session_tomls(refused, session):
    for text, words in [
        ("reference = 3", "reference"),
        ("referenc = 'cam01'", "did you mean 'reference'"),
        ("reference = 'cam09'", "cam09"),
        ("[cameras.cam02]\ntimestamps = '../../etc/passwd'", "leads out"),
        ("[cameras.cam02", "session.toml"),
    ]:
        (session / "session.toml").write_text(text)
        assert words in refused("reconstruct", session, "--calib", session / "calib.json")


def test_a_file_where_the_output_folder_should_be(refused, session):
    (session / "mvpose").write_text("mine")
    assert "cannot be made" in refused("reconstruct", session, "--calib", session / "calib.json")
    assert (session / "mvpose").read_text() == "mine"
    assert "cannot be made" in refused("sync", session, "--out", session / "calib.json" / "out")
    assert "cannot be written" in refused("convert-calib", session / "calib.json", session / "mvpose" / "a.json")


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs a folder that not even root can write: /proc")
def test_an_output_folder_that_cannot_be_written(refused, session):
    assert "--out" in refused("reconstruct", session, "--calib", session / "calib.json", "--out", "/proc/self/task")


def test_an_unreadable_checkpoint_is_named(refused, session, make_videos):
    make_videos(session / "videos", cam01=5)
    (session / "keypoints" / "cam01.npz").unlink()
    assert "nowhere.pth" in refused("detect", session, "--checkpoint", session / "nowhere.pth")


@pytest.mark.parametrize(
    ("limit", "name"),
    [(100, "run.json"), (30_000, "cam01.npz"), (150_000, "poses3d.npz"), (300_000, "index.html")],
)
def test_a_full_disk_leaves_no_partial_file_and_nothing_is_lost(mvpose, mvpose_process, session, limit, name):
    before = {path: path.read_bytes() for path in session.rglob("*") if path.is_file()}
    argv = ["reconstruct", session, "--calib", session / "calib.json"]
    process = mvpose_process(*argv, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)))
    out, err = process.communicate(timeout=60)
    assert process.returncode == 3, err
    assert out == ""
    assert "Traceback" not in err
    assert len([line for line in err.splitlines() if line.startswith("error:")]) == 1
    assert f"{name} cannot be written" in err
    assert partial_files(session) == []
    assert {path: path.read_bytes() for path in before} == before
    for path in (session / "mvpose").rglob("*.npz"):
        with np.load(path) as file:
            assert all(file[name] is not None for name in file.files)
    for path in (session / "mvpose").rglob("*.json"):
        assert read(path)["format"]
    kept = {path: path.stat().st_mtime_ns for path in (session / "mvpose" / "keypoints2d").glob("*.npz")}
    assert mvpose(*argv).code == 0
    assert {path: path.stat().st_mtime_ns for path in kept} == kept


needs_mediapipe = pytest.mark.skipif(not mediapipe.is_installed(), reason="needs mediapipe to detect with")


def _wait_for(process: subprocess.Popen, path: Path, words: str) -> None:
    """Wait until a file says something; 60 s at most."""
    for _ in range(1200):
        if path.is_file() and words in path.read_text():
            return
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.05)
    raise AssertionError(f"{path} never said {words}")


@needs_mediapipe
@pytest.mark.parametrize("jobs", [1, 2])
def test_an_interrupted_detection_goes_on_where_it_stopped(mvpose, mvpose_process, make_videos, tmp_path, jobs):
    session = tmp_path / "recording"
    make_videos(session / "videos", cam01=10, cam02=800)
    argv = ["detect", session, "--detector", "mediapipe", "--jobs", jobs]
    process = mvpose_process(*argv, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
    _wait_for(process, session / "mvpose" / "run.json", "detect:cam01")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert out == ""
    assert "Traceback" not in err
    assert err.splitlines()[-1].startswith("interrupted")
    assert partial_files(session) == []
    stages = read(session / "mvpose" / "run.json")["stages"]
    assert list(stages) == ["detect:cam01"]  # it did not go on to the end of cam02 first
    assert stages["detect:cam01"]["engine"] == "mediapipe"

    kept = (session / "mvpose" / "keypoints2d" / "cam01.npz").stat().st_mtime_ns
    make_videos(session / "videos", cam02=12)
    ended = mvpose(*argv)
    assert ended.code == 0
    assert "detect cam01" not in ended.err
    assert "detect cam02: 12/12" in ended.err
    again = read(session / "mvpose" / "run.json")["stages"]
    assert again["detect:cam01"] == stages["detect:cam01"]
    assert (session / "mvpose" / "keypoints2d" / "cam01.npz").stat().st_mtime_ns == kept


@needs_mediapipe
def test_a_camera_that_fails_costs_no_other_its_detections(mvpose, session, tmp_path, make_videos):
    recording = tmp_path / "recording"
    make_videos(recording / "videos", cam01=8, cam02=8)
    (recording / "mvpose" / "keypoints2d" / "cam02.npz").mkdir(parents=True)  # nothing can be written here
    ended = mvpose("detect", recording, "--detector", "mediapipe")
    assert ended.code == 3
    assert "cam02.npz" in ended.errors[0]
    assert read_npz(recording / "mvpose" / "keypoints2d" / "cam01.npz").n_frames == 8


def test_a_reader_who_leaves_ends_it_quietly(done):
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "mvpose.cli", "export", str(done), "--to", "csv"]
    process = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, check=False)
    os.close(writer)
    assert process.stderr == b""


def test_a_terminal_without_our_letters_still_gets_its_result(mvpose_process, done):
    argv = ["sync", done, "--calib", done / "calib.json", "--reference", "cam01"]
    process = mvpose_process(*argv, env={**os.environ, "PYTHONIOENCODING": "iso8859-5"})
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert re.search(r"^cam02 .* s  \? +\d+\.\d ms", out, re.MULTILINE)


def test_an_error_is_one_line_whatever_names_the_user_chose(refused, tmp_path):
    (tmp_path / "two\nlines").mkdir()
    assert "two lines" in refused("detect", tmp_path / "two\nlines")


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such file names")
def test_file_names_that_are_no_text(mvpose, refused, session):
    odd = Path(os.fsdecode(os.fsencode(session.parent / "caf") + b"\xe9"))
    session.rename(odd)
    calib = odd / "calib.json"
    assert "--out" in refused("reconstruct", odd, "--calib", calib)
    out = odd.parent / "out"
    ended = mvpose("reconstruct", odd, "--calib", calib, "--out", out)
    assert ended.code == 0
    assert "caf?" in (out / "run.json").read_text(encoding="utf-8")
    assert (out / "report" / "index.html").is_file()
    (odd / "keypoints" / "cam01.npz").rename(os.fsdecode(os.fsencode(odd / "keypoints") + b"/cam\xe9.npz"))
    assert "not UTF-8" in refused("reconstruct", odd, "--calib", calib)


def test_everything_is_said_once_and_warnings_are_kept(capsys):
    log = logging.getLogger("mvpose.somewhere")
    with gathered_messages() as (_, warnings):
        for _ in range(2):
            log.warning("cam02 is\ndoubtful")
            log.info("detector: %s", "mediapipe")
        log.debug("of no interest")
    log.info("nobody listens any more")
    assert capsys.readouterr().err.splitlines() == ["warning: cam02 is doubtful", "detector: mediapipe"]
    assert warnings == ["cam02 is doubtful"]


def test_progress_on_a_terminal_is_one_line_that_is_rewritten(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr(sys, "stderr", Terminal())
    progress = Progress()
    for done in (1, 2):
        progress("detect a", done, 2)
        progress("detect b", done, 30)
    progress.break_line()
    lines = sys.stderr.getvalue().split("\r\x1b[K")
    assert lines[1:4] == ["detect a: 1/2", "detect a: 1/2 · detect b: 1/30", "detect a: 2/2\n"]
    assert re.match(r"detect b: 2/30, about \d s left", lines[4])
    assert lines[4].endswith("\n")


# Training.


@pytest.fixture
def motion(tmp_path):
    """A folder with one generated person to learn from and another to validate on."""
    folder = tmp_path / "motion"
    folder.mkdir()
    for seed, split in enumerate(("train", "val")):
        made = generate_motion(np.random.default_rng(seed), 8.0)
        clip = {f"{split}_1": made.xyz_m[:, 0]}
        np.savez(folder / f"small_{split}.npz", joint_names=np.array(made.skeleton.joint_names), **clip)
    (folder / "index.csv").write_text("clip_id,fps\ntrain_1,60\nval_1,60\n", encoding="utf-8")
    return folder


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "small.py"
    path.write_text(
        "row = 'insynformer'\nclips = 8\nbatch = 4\nval_clips = 4\nthreads = 1\nrecipes = [(1.0, dict())]\n",
        encoding="utf-8",
    )
    return path


def test_train_writes_weights_and_prints_figures_and_file(mvpose, refused, config, motion, tmp_path, monkeypatch):
    from mvpose.sync.train.rows import ROWS
    from mvpose.training.weights import load_weights

    monkeypatch.chdir(tmp_path)
    argv = ["train", "small.py", "--data", motion, "--seed", 5, "--option", "half=True"]
    ended = mvpose(*argv)
    assert ended.code == 0, ended.err
    figures, file = ended.out.splitlines()
    assert re.fullmatch(r"val: loss \d\.\d+, ex@1 \d\.\d+, Frm\.err \d\.\d+, median error \d\.\d+ frames", figures)
    assert file == "work_dirs/small/insynformer.safetensors"
    assert "train insynformer: 2/2" in ended.err
    assert "2 of 2: val loss" in ended.err
    metadata = load_weights(ROWS["insynformer"].build(), tmp_path / file)
    assert metadata["clips"] == 8
    assert metadata["command"] == "mvpose train small.py --seed 5 --option half=True"
    assert "holds a training; go on with --resume" in refused(*argv)
    assert mvpose(*argv, "--resume").out == ended.out


def test_train_refuses_in_one_line(refused, config, motion, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MVPOSE_MOTION", raising=False)
    assert "data/cmu_motion holds no motion to learn from for train" in refused("train", config)
    assert "did you mean 'val_clips'" in refused("train", config, "--data", motion, "--option", "val_clip=3")
    assert "nowhere.py is not there" in refused("train", "nowhere.py", "--data", motion)
    (motion / "small_val.npz").write_bytes(b"no zip")
    assert "small_val.npz is not a motion pack" in refused("train", config, "--data", motion)
    (tmp_path / "occupied").write_text("", encoding="utf-8")
    (motion / "small_val.npz").write_bytes((motion / "small_train.npz").read_bytes())
    assert "occupied" in refused("train", config, "--data", motion, "--work-dir", tmp_path / "occupied")


def test_train_finds_its_data_by_the_environment(mvpose, config, motion, tmp_path, monkeypatch):
    monkeypatch.setenv("MVPOSE_MOTION", str(motion))
    assert mvpose("train", config, "--work-dir", tmp_path / "w").code == 0


def test_processes_of_torchrun_train_one_network_together(config, motion, tmp_path):
    from safetensors.torch import load_file

    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "mvpose.cli",
        "train", config, "--data", motion, "--work-dir", tmp_path / "w", "--launcher", "pytorch",
        "--option", "clips=16",
    ]  # fmt: skip
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("insynformer.safetensors") == 1
    assert (tmp_path / "w" / "last_checkpoint").read_text().endswith("iter_2.pth")
    assert len(load_file(tmp_path / "w" / "insynformer.safetensors")) > 10


def test_processes_train_voxelpose_together_in_parts_though_some_rooms_are_empty(motion, tmp_path):
    """Nobody is missed in train's rooms of nobody: those leave the networks that pose without a part in the loss."""
    planes = Path(__file__).parents[1] / "configs" / "voxelpose" / "planes.py"
    options = ["scenes=32", "batch=2", "people=2", "part=16", "cube_cells=8", "width=8", "val_scenes=4", "threads=1"]
    options += ["checkpoint_every=1", "log_every=1", "recipe={'people': (0, 1)}"]
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "mvpose.cli",
        "train", planes, "--data", motion, "--work-dir", tmp_path / "w", "--launcher", "pytorch", "--resume",
        *(word for option in options for word in ("--option", option)),
    ]  # fmt: skip
    env = {**os.environ, "OMP_NUM_THREADS": "1"}

    def run(*more):
        return subprocess.run([*command, *more], capture_output=True, text=True, env=env, check=False, timeout=300)

    part = run("--option", "minutes=1e-6")
    assert part.returncode == 0, part.stderr
    assert part.stderr.count("voxelpose was trained for 1 of 8 iterations; go on with --resume") == 1
    whole = run()
    assert whole.returncode == 0, whole.stderr
    assert (tmp_path / "w" / "voxelpose.safetensors").is_file()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--weights", "w.safetensors"), "--weights is of VoxelPose; give --method voxel"),
        (("--no-polish",), "--no-polish is of VoxelPose; give --method voxel"),
        (("--beside", "triangulate"), "triangulate is --method already"),
        (("--method", "voxel", "--beside", "voxel"), "voxel is --method already"),
        (("--beside", "voxel", "--weights", "w.safetensors"), "w.safetensors"),
    ],
)
def test_options_without_effect_are_refused_and_wrong_weights_before_anything_is_done(mvpose, session, options, said):
    ended = mvpose("compare", session, "--calib", session / "calib.json", *options)
    assert ended.code in (2, 3)
    assert said in ended.err
    assert not (session / "mvpose").exists()
