"""The comparison: the same data with and without synchronisation, beside the truth where there is one."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mvpose import pipeline
from mvpose.calib.files import read_rig
from mvpose.clock import Clocks
from mvpose.compare import Truth, choose_shots, compare, fastest_moments, measure, read_metrics, read_truth
from mvpose.errors import FormatError, ReconstructionError
from mvpose.formats.keypoints2d import read_npz
from mvpose.formats.results import read_clocks, read_offsets, read_poses, write_json
from mvpose.pipeline import Settings, build_poses, open_recording, raw_clocks
from mvpose.poses import Poses3D
from mvpose.skeleton import Skeleton
from mvpose.viz.report import RAW, SYNCED, Variant


@pytest.fixture
def recording(done):
    return open_recording(done, Settings(calib=done / "calib.json", reference="cam01"))


@pytest.fixture
def keypoints(opened, recording, done):
    return pipeline.detect(recording, opened(done / "mvpose"))


@pytest.fixture
def truth(done) -> Truth:
    return read_truth([done / "truth_poses3d.npz", done / "truth_clocks.json"])


def gliding(speed_mps: np.ndarray, step_s: float = 0.1, people: int = 1) -> Poses3D:
    """One joint a person that moves along x at the given speed (T,) at each step."""
    x = np.concatenate([[0], np.cumsum(speed_mps[:-1] * step_s)])
    xyz = np.zeros((len(x), people, 1, 3))
    xyz[..., 0] = x[:, None, None]
    shape = xyz.shape[:3]
    return Poses3D(
        10 + step_s * np.arange(len(x)), xyz, np.arange(people), np.zeros(shape), np.full(shape, 2),
        np.zeros((*shape, 3, 3)), Skeleton("custom", ("nose",)),
    )  # fmt: skip


def fastest(poses: Poses3D, count: int) -> list[float]:
    return fastest_moments(poses, poses.time_s, count)


def test_the_fastest_moments_lie_apart():
    speed = np.full(100, 0.5)
    speed[20:24], speed[25:29], speed[70:74] = 3.0, 2.5, 2.0
    poses = gliding(speed)
    moments = fastest(poses, 2)
    assert 12.0 <= moments[0] <= 12.4
    assert 17.0 <= moments[1] <= 17.4  # not that beside the first
    assert len(fastest(poses, 50)) <= 10  # one a second
    assert fastest(poses, 0) == []
    late = fastest_moments(poses, poses.time_s[60:], 1)
    assert 17.0 <= late[0] <= 17.4


def test_still_absent_or_too_short_poses_have_no_fastest_moment():
    assert fastest(gliding(np.zeros(30)), 3) == []
    assert fastest(gliding(np.ones(2)), 3) == []
    gone = gliding(np.ones(30))
    assert fastest(replace(gone, xyz_m=np.full_like(gone.xyz_m, np.nan)), 3) == []


def test_one_joint_that_jumps_is_no_fast_moment():
    poses = gliding(np.full(50, 1.0), people=5)
    xyz = poses.xyz_m.copy()
    xyz[29:32, 1:] = np.nan
    xyz[31, 0] += 10  # a fifth of the people, hence not to be trusted
    moment = fastest(replace(poses, xyz_m=xyz), 1)[0]
    assert abs(moment - 13.0) > 0.25


def test_truth_is_read_in_any_order_and_each_part_is_optional(done):
    clocks, poses = done / "truth_clocks.json", done / "truth_poses3d.npz"
    both = read_truth([poses, clocks])
    assert both.clocks.reference == "cam01"
    assert both.poses.frame_rate == pytest.approx(30)
    assert read_truth([clocks]).poses is None
    assert read_truth([poses]).clocks is None
    assert read_truth([]) == Truth()
    for twice in (clocks, poses):
        with pytest.raises(FormatError, match="two files of true"):
            read_truth([twice, twice])


def test_truths_are_told_apart_by_their_values(truth):
    moved = replace(truth.poses, xyz_m=truth.poses.xyz_m + 1e-9)
    later = replace(truth.poses, time_s=truth.poses.time_s + 1e-9)
    slower = {**truth.clocks.clocks, "cam02": replace(truth.clocks["cam02"], rate=1.0)}
    others = [
        Truth(), Truth(clocks=truth.clocks), Truth(poses=truth.poses), truth, replace(truth, poses=moved),
        replace(truth, poses=later), replace(truth, clocks=replace(truth.clocks, clocks=slower)),
    ]  # fmt: skip
    assert len({other.digest for other in others}) == len(others)
    assert replace(truth).digest == truth.digest


def test_perfect_clocks_give_perfect_poses(recording, keypoints, truth):
    built = build_poses(keypoints, recording.rig, truth.clocks, Settings(smooth=False))
    found = measure(built, recording.rig, truth.clocks, keypoints, truth, truth.clocks)
    assert found["timing_error_ms_max"] == 0
    # Exact keypoints interpolated between frames of 25 fps; measured 0.5 mm.
    assert found["mpjpe_mm"] < 2
    assert found["recall"] > 0.99
    assert found["n_people"] == 1


def test_true_poses_are_taken_to_the_time_of_the_estimates_reference(recording, keypoints, truth):
    """The truth is on cam01's time; an estimate on cam03's must not look 1.4 s late."""
    on_cam03 = truth.clocks.on("cam03")
    built = build_poses(keypoints, recording.rig, on_cam03, Settings(smooth=False))
    found = measure(built, recording.rig, on_cam03, keypoints, truth, on_cam03)
    assert found["mpjpe_mm"] < 2
    without = measure(built, recording.rig, on_cam03, keypoints, Truth(poses=truth.poses), on_cam03)
    assert without["mpjpe_mm"] > 100  # then it is taken to be on the estimate's own time
    assert "timing_error_ms_max" not in without


def test_without_truth_nothing_is_claimed_about_it(recording, keypoints, truth):
    built = build_poses(keypoints, recording.rig, truth.clocks, Settings())
    found = measure(built, recording.rig, truth.clocks, keypoints, Truth(), truth.clocks)
    assert not {key for key in found if "mpjpe" in key or "timing" in key}


def variants_of(recording, keypoints, clocks) -> tuple[Variant, ...]:
    found = []
    for name, own in ((RAW, raw_clocks(recording, clocks)), (SYNCED, clocks)):
        poses = build_poses(keypoints, recording.rig, own, Settings()).poses
        found.append(Variant(name, name, poses, own, {}))
    return tuple(found)


def test_shots_show_every_camera_at_the_fastest_moments(recording, keypoints, truth):
    variants = variants_of(recording, keypoints, truth.clocks)
    shots = choose_shots(recording, keypoints, variants, recording.rig)
    assert [shot.camera.name for shot in shots] == ["cam01", "cam02", "cam03"] * 2
    raw, synced = variants
    for shots_of_a_moment in (shots[:3], shots[3:]):
        assert np.ptp([shot.t_session_s[SYNCED] for shot in shots_of_a_moment]) <= 1 / 25 + 1e-6
    for shot in shots:
        name = shot.camera.name
        assert shot.image is None  # there are no videos
        # A frame of that camera, told on the clock of each variant, at a time for which there are poses of each.
        own = truth.clocks[name].to_camera(shot.t_session_s[SYNCED])
        assert np.abs(keypoints[name].time_s - own).min() < 1e-9
        assert shot.t_session_s[RAW] == pytest.approx(own)
        for variant in (raw, synced):
            first, last = variant.poses.time_s[[0, -1]]
            assert first - 0.04 <= shot.t_session_s[variant.name] <= last + 0.04
    speed = np.nanmean(np.linalg.norm(np.gradient(synced.poses.xyz_m, axis=0), axis=-1), axis=(1, 2))
    at = np.interp(shots[0].t_session_s[SYNCED], synced.poses.time_s, speed)
    assert at > np.median(speed)


def test_cameras_that_were_not_recording_are_not_shown(recording, keypoints, truth):
    clocks = truth.clocks
    gone = {**clocks.clocks, "cam03": replace(clocks["cam03"], offset_s=clocks["cam03"].offset_s + 1000)}
    variants = variants_of(recording, keypoints, clocks)
    variants = (variants[0], replace(variants[1], clocks=replace(clocks, clocks=gone)))
    assert {shot.camera.name for shot in choose_shots(recording, keypoints, variants, recording.rig)} == {
        "cam01", "cam02"
    }  # fmt: skip


def test_a_shot_of_a_video_is_its_frame(done, make_videos):
    path = done / "mvpose" / "keypoints2d" / "cam02.npz"
    with np.load(path) as file:
        count = len(file["time_s"])
    make_videos(done / "videos", cam02=count)
    rig = read_rig(done / "calib.json").subset(["cam02"])
    recording = open_recording(done, Settings(reference="cam02"))
    keypoints = {"cam02": read_npz(path)}
    clocks = Clocks("cam02", {"cam02": read_clocks(done / "truth_clocks.json").on("cam02")["cam02"]})
    poses = read_poses(done / "mvpose" / "poses3d.npz")
    shots = choose_shots(recording, keypoints, [Variant(SYNCED, "", poses, clocks, {})], rig)
    index = int(np.argmin(np.abs(keypoints["cam02"].time_s - shots[0].t_session_s[SYNCED])))
    np.testing.assert_array_equal(shots[0].image, recording.videos["cam02"].frame(index))


def test_what_was_left_out_is_in_the_report(opened, recording, keypoints, done):
    workspace = opened(done / "mvpose")
    workspace.warnings.append("cam09 took no part <in this>")
    clocks = read_clocks(workspace.clocks)
    compare(recording, keypoints, read_offsets(workspace.offsets), clocks, workspace)
    page = workspace.report.read_text(encoding="utf-8")
    assert "cam09 took no part &lt;in this&gt;" in page
    assert page.count("<html") == 1


def test_clocks_of_ours_that_leave_nobody_end_it(opened, recording, keypoints, done):
    clocks = read_clocks(done / "truth_clocks.json")
    apart = {n: replace(c, offset_s=100.0 * i) for i, (n, c) in enumerate(clocks.clocks.items())}
    with pytest.raises(ReconstructionError):
        compare(recording, keypoints, None, replace(clocks, clocks=apart), opened(done / "mvpose"))


@pytest.mark.parametrize("variants", [None, 3, {"raw": 3}])
def test_metrics_that_are_none_are_refused(tmp_path, variants):
    write_json({"format": "mvpose.metrics/1", "variants": variants}, tmp_path / "metrics.json")
    with pytest.raises(FormatError, match=r"metrics\.json does not hold"):
        read_metrics(tmp_path / "metrics.json")


def test_metrics_are_read_as_they_were_returned(opened, done_template, tmp_path):
    folder = Path(shutil.copytree(done_template, tmp_path / done_template.name))
    recording = open_recording(folder, Settings(calib=folder / "calib.json", reference="cam01"))
    workspace = opened(folder / "mvpose")
    keypoints = pipeline.detect(recording, workspace)
    clocks = read_clocks(workspace.clocks)
    cached = compare(recording, keypoints, None, clocks, workspace)
    assert cached == read_metrics(workspace.metrics)
    workspace.force = True
    assert compare(recording, keypoints, None, clocks, workspace) == cached
