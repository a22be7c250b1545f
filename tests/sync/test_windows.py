from dataclasses import replace

import numpy as np
import pytest

from mvpose.calib.camera import Camera
from mvpose.keypoints import UNTRACKED, Keypoints2D
from mvpose.skeleton import CLIP_SKELETON, SKELETONS, skeleton_of
from mvpose.sync.windows import WINDOW_S, Track, clip_tracks, cut_windows, every_window, frames_per_window
from mvpose.synthetic.rigs import ring_rig

J = len(CLIP_SKELETON)


def keypoints(time_s, people=1, skeleton=CLIP_SKELETON):
    """Every joint of person p shows 100 p + time in x and its own index in y; people are rows in turn."""
    time_s = np.asarray(time_s, dtype=float)
    xy = np.zeros((len(time_s), people, len(skeleton), 2))
    xy[..., 0] = time_s[:, None, None] + 100.0 * np.arange(people)[:, None]
    xy[..., 1] = np.arange(len(skeleton))
    score, ids = np.full((len(time_s) * people, len(skeleton)), 0.8), np.tile(np.arange(people), len(time_s))
    rows = people * np.arange(len(time_s) + 1)
    return Keypoints2D("cam", time_s, rows, xy.reshape(-1, len(skeleton), 2), score, ids, skeleton, (1920, 1080))


def track(start_s, end_s, fps=10.0):
    (made,) = clip_tracks(keypoints(start_s + np.arange(round((end_s - start_s) * fps) + 1) / fps), None)
    return made


# Tracks.


def test_tracks_are_people_and_their_own_times():
    k = keypoints(np.arange(50) / 25, people=3)
    tracks = clip_tracks(k, None)
    assert len(tracks) == 3
    for p, found in enumerate(tracks):
        np.testing.assert_array_equal(found.time_s, k.time_s)
        np.testing.assert_allclose(found.xy_px[..., 0] - 100 * p, np.tile(k.time_s[:, None], (1, J)))
        assert (found.score == 0.8).all()
        assert found.span_s == (0.0, 49 / 25)


@pytest.mark.parametrize("name", ["coco17", "halpe26", "body25", "blazepose33", "h36m17"])
def test_joints_are_found_by_name(name):
    skeleton = SKELETONS[name]
    (found,) = clip_tracks(keypoints(np.arange(20) / 10, skeleton=skeleton), None)
    for index, joint in enumerate(CLIP_SKELETON.joint_names):
        if joint in skeleton.joint_names:
            assert (found.xy_px[:, index, 1] == skeleton.joint_names.index(joint)).all()
            assert (found.score[:, index] == 0.8).all()
        else:
            assert np.isnan(found.xy_px[:, index]).all()
            assert (found.score[:, index] == 0).all()
    lacking = [j for j in CLIP_SKELETON.joint_names if j not in skeleton.joint_names]
    assert lacking == (["nose"] if name == "h36m17" else [])


def test_a_set_without_any_of_the_joints_has_no_tracks():
    for names in (["left_heel", "right_heel", "neck"], ["left_wrist", "neck"]):  # one joint has no extent
        assert clip_tracks(keypoints(np.arange(20) / 10, skeleton=skeleton_of(names)), None) == []


def test_gaps_part_a_track_and_short_ones_go():
    times = np.concatenate(
        [np.arange(0, 1, 0.1), np.arange(1.3, 2, 0.1), np.arange(2.55, 2.7, 0.1), np.arange(3.3, 3.95, 0.1)]
    )
    spans = [found.span_s for found in clip_tracks(keypoints(times), None)]
    # A gap of 0.4 s is none, one of 0.65 s is; a fifth of a second is not worth a window.
    np.testing.assert_allclose(spans, [(0.0, 1.9), (3.3, 3.9)])
    assert clip_tracks(keypoints([0.0, 0.4]), None) == []
    assert clip_tracks(keypoints([0.0, 0.1, 0.25]), None) == []
    assert len(clip_tracks(keypoints([0.0, 0.1, 0.3]), None)) == 1


def test_frames_without_joints_and_untracked_people_are_left_out():
    k = keypoints(np.arange(30) / 10)
    xy = k.xy_px.copy()
    xy[5, 1:] = np.nan
    xy[10] = np.nan
    (found,) = clip_tracks(replace(k, xy_px=xy, bbox_px=None), None)
    assert len(found.time_s) == 28
    assert {5, 10}.isdisjoint(np.round(10 * found.time_s).astype(int))
    assert clip_tracks(replace(k, track_id=np.full(30, UNTRACKED)), None) == []
    nobody = Keypoints2D("cam", k.time_s, np.zeros(31, int), np.zeros((0, J, 2)), np.zeros((0, J)), np.zeros(0, int),
                         CLIP_SKELETON, (1920, 1080))  # fmt: skip
    assert clip_tracks(nobody, None) == []


def test_a_calibrated_camera_s_distortion_is_undone():
    lens = ring_rig(1, rng=np.random.default_rng(0)).cameras[0]
    lens = Camera("cam", lens.size_px, lens.K, np.array([-0.15, 0.05, 1e-3, -5e-4, 0.0]), lens.cam_from_world)
    pinhole = replace(lens, dist=np.zeros(5))
    points = np.random.default_rng(1).uniform([-1.2, -1.2, -0.2], [1.2, 1.2, 2.2], (20, J, 3))
    k = keypoints(np.arange(20) / 10)
    seen = replace(k, xy_px=lens.project(points), bbox_px=None)
    (straight,), (bent,) = clip_tracks(seen, lens), clip_tracks(seen, None)
    np.testing.assert_allclose(straight.xy_px, pinhole.project(points), atol=1e-3)
    assert np.abs(bent.xy_px - straight.xy_px).max() > 3
    np.testing.assert_array_equal(bent.xy_px, seen.xy_px)


# Windows.


def test_windows_cover_a_track_from_end_to_end():
    tracks = [track(0, 7.3), track(5, 7), track(3, 4.2)]
    opens, whose = every_window(tracks, 1.0)
    long = opens[whose == 0]
    assert long[0] == 0.0
    assert long[-1] + WINDOW_S == pytest.approx(7.3)
    assert (np.diff(long) <= 1.0 + 1e-9).all() and (np.diff(long) > 0.5).all()
    assert opens[whose == 1].tolist() == [5.0]
    # A shorter one lies in the middle.
    np.testing.assert_allclose(opens[whose == 2], 3.6 - WINDOW_S / 2)
    assert len(every_window([], 1.0)[0]) == 0


def test_a_window_holds_the_frames_that_fall_into_it_at_their_times():
    tracks = [track(0, 6), track(10, 16, 25.0)]
    opens, whose = np.array([1.23, 12.0, 4.99]), np.array([0, 1, 0])
    windows = cut_windows(tracks, opens, whose, 60)
    assert windows.xy_px.shape == (3, 60, J, 2)
    assert len(windows) == 3
    for n, (start, source) in enumerate(zip(opens, [tracks[i] for i in whose], strict=True)):
        there = np.isfinite(windows.xy_px[n]).all((1, 2))
        inside = source.time_s[(source.time_s >= start) & (source.time_s < start + WINDOW_S)]
        np.testing.assert_allclose(start + windows.time_s[n, there], inside, atol=1e-5)
        # What a joint shows is the time.
        np.testing.assert_allclose(windows.xy_px[n, there, 0, 0], inside, atol=1e-5)
        assert (windows.score[n, there] == np.float32(0.8)).all() and (windows.score[n, ~there] == 0).all()
        # Padding goes on at the frame rate.
        step = np.median(np.diff(source.time_s))
        np.testing.assert_allclose(np.diff(windows.time_s[n]), step, atol=1e-5)
    kept = windows.rows(np.array([2, 0]))
    assert kept.opens_s.tolist() == [4.99, 1.23]
    assert kept.track.tolist() == [0, 0]
    np.testing.assert_array_equal(kept.xy_px[0], windows.xy_px[2])


def test_a_window_beside_its_track_is_empty():
    windows = cut_windows([track(0, 3)], np.array([50.0, -9.0, 2.5]), np.zeros(3, int), 25)
    assert np.isnan(windows.xy_px[:2]).all()
    assert (np.diff(windows.time_s) > 0).all()
    assert np.isfinite(windows.xy_px[2]).any()


def test_long_recordings_keep_the_precision_of_their_times():
    late = 1.7e9
    tracks = [Track(t.time_s + late, t.xy_px, t.score) for t in [track(0, 6)]]
    windows = cut_windows(tracks, np.array([late + 1.03]), np.zeros(1, int), 25)
    np.testing.assert_allclose(windows.time_s[0, :5], [0.07, 0.17, 0.27, 0.37, 0.47], atol=1e-6)


def test_as_many_frames_as_any_window_has():
    uneven = np.cumsum(np.random.default_rng(0).choice([0.03, 0.04], 300))
    tracks = [track(0, 6), track(0, 8, 60.0), *clip_tracks(keypoints(uneven), None)]
    for some in ([tracks[0]], [tracks[2]], tracks):
        frames = frames_per_window(some)
        windows = cut_windows(some, *every_window(some, 0.25), frames)
        counts = np.isfinite(windows.xy_px).all((2, 3)).sum(1)
        whole = cut_windows(some, *every_window(some, 0.25), 500)
        np.testing.assert_array_equal(counts, np.isfinite(whole.xy_px).all((2, 3)).sum(1))  # none is cut short
        assert 0.8 * frames < counts.max() + 3 <= frames + 3
    assert frames_per_window(tracks) > frames_per_window(tracks[:1])
    assert frames_per_window([]) >= 2


def test_motion_is_how_far_joints_range_in_bodies():
    time_s = np.arange(21) / 10
    body = np.random.default_rng(0).normal(size=(J, 2))
    body -= body.mean(0)
    extent = np.sqrt(np.square(body).sum(1).mean())

    def window(swing, scale=100.0):
        xy = scale * (body / extent + swing * np.sin(2 * np.pi * time_s / 2)[:, None, None] * [1.0, 0.0])
        source = Track(time_s, xy + 700, np.ones((21, J)))
        return cut_windows([source], np.zeros(1), np.zeros(1, int), 23).motion()[0]

    # The root mean square of a whole sine's swing, whatever the size in the image.
    assert window(0.3) == pytest.approx(0.3 / np.sqrt(2), rel=0.02)
    assert window(0.3, 400.0) == pytest.approx(window(0.3), rel=1e-4)
    assert window(0.0) == pytest.approx(0.0, abs=1e-5)
    empty = cut_windows([track(0, 3)], np.array([50.0]), np.zeros(1, int), 23)
    assert empty.motion().tolist() == [0.0]
    assert len(empty.rows(np.zeros(0, int)).motion()) == 0
