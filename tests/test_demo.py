"""The demo: what it cuts apart, what it fetches, and what it shows."""

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest

from mvpose import demo
from mvpose.calib.files import read_rig
from mvpose.demo import FIRST_FRAMES, RECORDINGS, cut_apart, cut_clocks, fetch_recordings, kept_times, write_session
from mvpose.errors import MissingDependencyError, VideoError
from mvpose.formats.keypoints2d import read_npz
from mvpose.formats.results import read_clocks, read_poses
from mvpose.pipeline import no_progress
from mvpose.synthetic.motion import generate_motion
from mvpose.synthetic.rigs import ring_rig
from mvpose.synthetic.world import make_world
from mvpose.video import probe, write_video

FPS = 60.0


@pytest.fixture
def counting_videos(tmp_path) -> Path:
    """Two cameras that film the same instants: in frame k, k of 32 fields are white."""
    fields = np.arange(32)
    images = [np.repeat(np.where(fields < k, 255, 0), 8).astype(np.uint8) for k in range(30)]
    frames = [np.broadcast_to(image[None, :, None], (32, 256, 3)).copy() for image in images]
    for camera in ("cam01", "cam02"):
        write_video(tmp_path / "whole" / f"{camera}.mp4", frames, FPS)
    return tmp_path / "whole"


def number_shown(image: np.ndarray) -> int:
    return int((image[16, 4::8, 0] > 127).sum())


def test_a_cut_keeps_every_second_frame_from_its_own_first_on(counting_videos, tmp_path):
    first = {"cam01": 0, "cam02": 5}
    cut_apart(counting_videos, tmp_path / "cut", first, 2)
    clocks = cut_clocks(first, FPS)
    for camera, start in first.items():
        video = probe(camera, (tmp_path / "cut" / f"{camera}.mp4",))
        shown = [number_shown(image) for image in video.frames()]
        assert shown == list(range(start, 30, 2))
        np.testing.assert_allclose(video.time_s, np.arange(len(shown)) / 30, atol=1e-4)
        # By the true clock every frame is shown at the instant it was filmed.
        np.testing.assert_allclose(clocks[camera].to_session(video.time_s), np.array(shown) / FPS, atol=1e-4)


def test_a_cut_that_is_there_is_not_made_again(counting_videos, tmp_path):
    (tmp_path / "cut").mkdir()
    (tmp_path / "cut" / "cam01.mp4").write_bytes(b"there")
    cut_apart(counting_videos, tmp_path / "cut", {"cam01": 3}, 2)
    assert (tmp_path / "cut" / "cam01.mp4").read_bytes() == b"there"


def test_a_cut_of_what_is_not_there_leaves_nothing(tmp_path):
    with pytest.raises(VideoError, match="cam01"):
        cut_apart(tmp_path / "nowhere", tmp_path / "cut", {"cam01": 3}, 2)
    assert not list(tmp_path.rglob("*.mp4"))


def test_kept_times_begin_anew():
    np.testing.assert_allclose(kept_times(np.array([0.0, 0.1, 0.25, 0.3, 0.5]), 1, 2), [0, 0.2])


def test_cut_clocks_are_on_the_first_cameras_time():
    clocks = cut_clocks({"a": 12, "b": 0, "c": 21}, 60.0)
    assert clocks.reference == "a"
    assert {n: c.offset_s for n, c in clocks.clocks.items()} == pytest.approx({"a": 0, "b": -0.2, "c": 0.15})
    assert {c.rate for c in clocks.clocks.values()} == {1.0}


def test_the_demos_cut_has_whole_and_half_frames_and_a_second_in_common():
    """1.7 s at 60 fps; half-frame offsets of 30 fps come from odd cuts."""
    starts = np.array(list(FIRST_FRAMES.values()))
    assert {start % 2 for start in starts} == {0, 1}
    assert len(set(starts)) == len(starts)
    assert 1.7 - starts.max() / 60 >= 1.0


@pytest.fixture
def wheel(tmp_path) -> Path:
    """A wheel like pose2sim's, put where the demo says that it may be put."""
    path = tmp_path / "download" / "pose2sim-0.10.49-py3-none-any.whl"
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w") as archive:
        for name in (*RECORDINGS.values(), "Demo_Batch"):
            archive.writestr(f"Pose2Sim/{name}/calibration/Calib.qca.txt", f"<calib {name}>")
            archive.writestr(f"Pose2Sim/{name}/videos/cam01.mp4", name)
        archive.writestr("Pose2Sim/Pose2Sim.py", "raise SystemExit")
    return path


def test_the_recordings_are_taken_out_of_a_wheel_that_is_there(wheel, tmp_path):
    found = fetch_recordings(tmp_path)
    for name in RECORDINGS.values():
        assert (found / name / "videos" / "cam01.mp4").read_text() == name
    assert not (found / "Pose2Sim.py").exists()  # data only
    assert not wheel.exists()
    (found / "Demo_MultiPerson" / "videos" / "cam01.mp4").write_text("still mine")
    assert fetch_recordings(tmp_path) == found  # once is enough
    assert (found / "Demo_MultiPerson" / "videos" / "cam01.mp4").read_text() == "still mine"


def test_a_broken_wheel_is_named_and_does_not_pass_for_the_recordings(wheel, tmp_path):
    wheel.write_bytes(wheel.read_bytes()[:300])
    with pytest.raises(MissingDependencyError, match="cannot be unpacked"):
        fetch_recordings(tmp_path)
    assert not (tmp_path / "Pose2Sim").exists()


def test_where_nothing_can_be_fetched_one_line_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "PACKAGE", "pose2sim==0.0.0.dev0")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("UV_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    with pytest.raises(MissingDependencyError, match="start again") as caught:
        fetch_recordings(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_written_session_is_what_its_truth_says(tmp_path):
    rng = np.random.default_rng(0)
    world = make_world(
        rng, generate_motion(rng, 4.0, people=2), ring_rig(2), fps=(25.0, 50.0), max_offset_s=1.0, max_drift_ppm=100.0
    )
    truth = write_session(world, rng, tmp_path / "s", None)
    clocks, poses = read_clocks(tmp_path / "s" / "truth_clocks.json"), read_poses(tmp_path / "s" / "truth_poses3d.npz")
    assert clocks.reference == truth.clocks.reference == "cam01"
    np.testing.assert_array_equal(poses.xyz_m, truth.poses.xyz_m)
    rig = read_rig(tmp_path / "s" / "calib.json")
    for camera in rig:
        # Each frame shows the true joints of its instant, whoever is in which row.
        seen = read_npz(tmp_path / "s" / "keypoints" / f"{camera.name}.npz")
        row = len(seen.xy_px) // 2
        t = clocks[camera.name].to_session(seen.time_s[seen.frame_index[row]])
        true = world.truth_poses(np.array([float(t)]), "cam01").xyz_m[0]
        miss = np.nanmax(np.linalg.norm(camera.project(true) - seen.xy_px[row], axis=-1), axis=-1)
        assert miss.min() < 1e-3
        assert not seen.is_tracked


@pytest.fixture
def small_demo(monkeypatch):
    """The synthetic demo, of half a minute in place of one."""
    whole = demo.generate_motion
    monkeypatch.setattr(demo, "generate_motion", lambda rng, duration_s, people: whole(rng, 30.0, people=people))


def test_the_synthetic_demo_repairs_its_world(mvpose, small_demo, tmp_path):
    ended = mvpose("demo", "--synthetic", "--out", tmp_path / "demo", "--json")
    assert ended.code == 0, ended.err
    (name, result), *others = json.loads(ended.out)["recordings"].items()
    assert (name, others) == ("synthetic", [])
    metrics = result["metrics"]
    assert list(metrics) == ["raw", "synced", "truth"]
    # With detector noise, of a short overlap; measured 2 ms and 28 mm.
    assert metrics["synced"]["timing_error_ms_max"] < 15 < 500 < metrics["raw"]["timing_error_ms_max"]
    assert metrics["synced"]["mpjpe_mm"] < 1.15 * metrics["truth"]["mpjpe_mm"]
    assert metrics["synced"]["n_people"] == 2
    assert Path(result["report"]).stat().st_size > 100_000
    again = mvpose("demo", "--synthetic", "--out", tmp_path / "demo")
    assert "synchronise" not in again.err  # it is all there
    assert again.out.splitlines()[0].startswith("synthetic, generated: 2 people")
    assert again.out.splitlines()[-1] == result["report"]
    assert "MPJPE" in again.out
    warnings = ["of the recording before"]
    (result,) = demo.run_synthetic_demo(tmp_path / "demo", no_progress, warnings)
    assert "of the recording before" not in result.warnings
