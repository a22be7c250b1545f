from dataclasses import replace

import numpy as np
import pytest

from mvpose.calib.camera import Camera
from mvpose.keypoints import Keypoints2D
from mvpose.skeleton import SKELETONS, skeleton_of
from mvpose.sync.trajectories import (
    STEP_S,
    Trajectory,
    all_trajectories,
    camera_trajectories,
    sample_slots,
    smooth_track,
    timing_skeleton,
)

BODY = skeleton_of(["nose", "left_wrist", "right_wrist", "left_ankle"])
POSE = np.array([[0.0, -0.5], [-0.3, 0.0], [0.3, 0.1], [0.0, 0.5]])


def keypoints(time_s, xy, *, track=0, skeleton=BODY, score=None, camera="cam"):
    """Return one person's keypoints (T, J, 2), one row a frame; frames in which all joints are NaN have no row."""
    there = np.isfinite(xy).any(axis=(1, 2))
    n = int(there.sum())
    return Keypoints2D(
        camera,
        time_s,
        np.concatenate([[0], np.cumsum(there)]),
        xy[there],
        np.ones((n, xy.shape[1])) if score is None else score[there],
        np.broadcast_to(track, len(time_s))[there],
        skeleton,
        (1280, 720),
    )


def moving(time_s):
    """Return a body (T, J, 2) on a smooth path, with its velocity."""
    t = np.asarray(time_s)[:, None, None]
    xy = POSE + np.concatenate([0.3 * np.sin(2 * t), 0.2 * np.cos(1.5 * t)], axis=-1)
    velocity = np.concatenate([0.6 * np.cos(2 * t), -0.3 * np.sin(1.5 * t)], axis=-1)
    return xy, np.broadcast_to(velocity, xy.shape)


def line(start_s, end_s, value=1.0):
    """Return a trajectory whose joints all lie at ``(value · t, −value)``."""
    time_s = start_s + STEP_S * np.arange(round((end_s - start_s) / STEP_S) + 1)
    xy = np.stack([value * time_s, np.full(len(time_s), -value)], axis=-1)[:, None].repeat(2, axis=1)
    velocity = np.broadcast_to([value, 0.0], xy.shape)
    return Trajectory(start_s, xy, velocity, np.full(len(time_s), 1.0))


# Trajectories.


def test_interpolation_goes_through_the_grid_and_along_straight_lines():
    track = line(3.0, 5.0, 2.0)
    t = np.array([3.0, 3.02, 3.031, 4.999, 5.0])
    xy, size = track.at(t)
    np.testing.assert_allclose(xy[:, 0, 0], 2 * t, atol=1e-9)
    np.testing.assert_allclose(xy[:, 1, 1], -2.0)
    np.testing.assert_allclose(size, 1.0)
    np.testing.assert_allclose(track.velocity_at(t)[:, 0], [[2.0, 0.0]] * 5)
    assert track.end_s == pytest.approx(5.0)


def test_outside_its_time_a_trajectory_is_nowhere():
    xy, size = line(3.0, 5.0).at(np.array([2.99, 5.001]))
    assert np.isnan(xy).all()
    assert np.isnan(size).all()
    assert np.isnan(line(3.0, 5.0).velocity_at(np.array([2.99, 5.001]))).all()


def test_a_smoothed_track_follows_the_motion():
    for rate_hz, bound in ((60.0, 1e-5), (25.0, 1e-5), (10.0, 4e-4)):
        time_s = 100.0 + np.arange(0, 6, 1 / rate_hz)
        track = smooth_track(time_s, moving(time_s)[0], np.ones((len(time_s), 4)))
        t = np.linspace(100.5, 105.4, 40)
        xy, size = track.at(t)
        truth, velocity = moving(t)
        assert np.abs(xy - truth).max() < bound  # of a movement of 0.6; measured 7e-7, 8e-7 and 1.1e-4
        assert np.abs(track.velocity_at(t) - velocity).max() < 0.05  # of 0.6; measured 0.005, 0.005, 0.024
        np.testing.assert_allclose(size, 1.0, atol=1e-6)  # from nose to ankle
        assert track.start_s == 100.0


def test_the_size_is_the_longer_side_of_the_body_and_forgets_single_frames():
    time_s = np.arange(0, 4, 1 / 30)
    xy = np.tile(POSE * [4.0, 1.0], (120, 1, 1))  # 2.4 wide, 1 high
    xy[60] *= 5
    np.testing.assert_allclose(smooth_track(time_s, xy, np.ones((120, 4))).size, 2.4, atol=1e-9)


# From keypoints to trajectories.


def test_faces_and_hands_do_not_count_twice():
    assert timing_skeleton([keypoints(np.arange(4.0), moving(np.arange(4.0))[0])]).joint_names == BODY.joint_names
    blaze = keypoints(np.arange(4.0), np.zeros((4, 33, 2)), skeleton=SKELETONS["blazepose33"])
    coco = keypoints(np.arange(4.0), np.zeros((4, 17, 2)), skeleton=SKELETONS["coco17"])
    names = timing_skeleton([blaze, coco]).joint_names
    assert "left_eye" not in names
    assert "left_index" not in names
    assert len(names) == 13
    unknown = keypoints(np.arange(4.0), np.zeros((4, 2, 2)), skeleton=skeleton_of(["tail", "left_ear"]))
    assert timing_skeleton([unknown]).joint_names == ("tail", "left_ear")
    with pytest.raises(ValueError, match="share no joint"):
        timing_skeleton([unknown, keypoints(np.arange(4.0), np.zeros((4, 1, 2)), skeleton=skeleton_of(["nose"]))])


def test_each_track_is_a_trajectory_split_at_gaps():
    time_s = np.arange(0, 10, 1 / 30)
    xy = moving(time_s)[0]
    ids = np.where(time_s < 4, 7, 3)
    xy[(time_s > 6) & (time_s < 7)] = np.nan  # a second out of view
    xy[(time_s > 8) & (time_s < 8.3)] = np.nan  # shorter than half a second: one appearance
    tracks = camera_trajectories(keypoints(time_s, xy, track=ids), BODY)
    spans = sorted((round(t.start_s, 2), round(t.end_s, 1)) for t in tracks)
    assert spans == [(0.0, 4.0), (4.0, 6.0), (7.0, 10.0)]


def test_what_is_seen_for_a_moment_is_no_trajectory():
    time_s = np.arange(0, 3, 1 / 30)
    k = keypoints(time_s, moving(time_s)[0], track=np.where(time_s < 0.25, 1, 2))
    assert [round(t.start_s, 2) for t in camera_trajectories(k, BODY)] == [0.27]
    slow = np.arange(0, 0.6, 0.2)  # three frames
    assert camera_trajectories(keypoints(slow, moving(slow)[0]), BODY) == []
    assert camera_trajectories(replace(k, track_id=np.full(len(k.track_id), -1)), BODY) == []
    nobody = replace(k, xy_px=np.full_like(k.xy_px, np.nan))
    assert camera_trajectories(nobody, BODY) == []


def test_a_calibrated_camera_s_trajectories_are_undistorted():
    K = np.array([[800.0, 0, 640], [0, 800, 360], [0, 0, 1]])
    cam = Camera("cam", (1280, 720), K, np.array([-0.2, 0.05, 0, 0, 0]), np.eye(4))
    time_s = np.arange(0, 2, 1 / 30)
    xy = moving(time_s)[0] * 0.3
    xyz = np.concatenate([xy, np.ones((*xy.shape[:-1], 1))], axis=-1)
    k = {"cam": keypoints(time_s, cam.project(xyz))}
    (calibrated,) = all_trajectories(k, {"cam": cam})["cam"]
    np.testing.assert_allclose(calibrated.at(time_s[10:50])[0], xy[10:50], atol=5e-4)
    (raw,) = all_trajectories(k, None)["cam"]
    np.testing.assert_allclose(raw.at(time_s[10:50])[0], cam.project(xyz)[10:50], atol=0.5)
    assert 100 < np.median(raw.size) < 300  # pixels


def test_all_cameras_are_compared_in_the_joints_that_they_share():
    time_s = np.arange(0, 2, 1 / 30)
    xy = moving(time_s)[0]
    swapped = skeleton_of(["left_ankle", "nose"])
    tracks = all_trajectories(
        {"a": keypoints(time_s, xy), "b": keypoints(time_s, xy[:, [3, 0]], skeleton=swapped, camera="b")}, None
    )
    np.testing.assert_allclose(tracks["a"][0].xy, tracks["b"][0].xy)
    assert tracks["a"][0].xy.shape[1] == 2


# Slots.


def test_slots_hold_everybody_and_nobody_twice():
    tracks = [line(0.0, 2.0, 1.0), line(1.0, 3.0, 2.0), line(2.5, 4.0, 3.0)]
    time_s = np.arange(0, 4.5, 0.05)
    xy, size = sample_slots(tracks, time_s)
    assert xy.shape == (90, 2, 2, 2)
    values = -xy[:, :, 0, 1]
    for value, start, end in ((1.0, 0.0, 2.0), (2.0, 1.0, 3.0), (3.0, 2.5, 4.0)):
        inside = (time_s > start + 1e-6) & (time_s < end - 1e-6)
        outside = (time_s < start - 1e-6) | (time_s > end + 1e-6)
        assert ((values == value).sum(axis=1)[inside] == 1).all()
        assert not (values == value).any(axis=1)[outside].any()
    np.testing.assert_array_equal(np.isfinite(size), np.isfinite(values))


def test_no_people_fill_no_slots():
    xy, size = sample_slots([], np.arange(3.0))
    assert xy.shape == (3, 0, 0, 2)
    assert size.shape == (3, 0)
    # Between two samples somebody may come and go.
    assert sample_slots([line(0.1, 0.4)], np.arange(3.0))[0].shape[1] == 0
