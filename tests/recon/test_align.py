from dataclasses import replace

import numpy as np
import pytest

from mvpose.clock import Clock, Clocks, identity_clock, unsynchronised_clocks
from mvpose.errors import ReconstructionError
from mvpose.keypoints import UNTRACKED, Keypoints2D
from mvpose.recon.align import align, interpolate, relative_sigma, slots_of, timeline
from mvpose.skeleton import SKELETONS, Skeleton

FIVE = Skeleton("five", ("nose", "left_wrist", "left_ankle", "left_knee", "neck"))


def track(time_s, xy_of_time, camera="a", track_id=0, score=0.9):
    """One person whose joints stand above each other, 200 px in all, and move as xy_of_time (T, 2)."""
    time_s = np.asarray(time_s, dtype=float)
    xy = xy_of_time(time_s)[:, None] + np.array([[0, 0], [0, 100], [0, 200], [0, 150], [0, 50]])
    n = len(time_s)
    return Keypoints2D(
        camera, time_s, np.arange(n + 1), xy, np.full((n, 5), score), np.full(n, track_id), FIVE, (1000, 1000)
    )


def line(t):
    return np.stack([300 + 120 * t, 400 - 60 * t], axis=-1)


def circle(t):
    return np.stack([300 + 50 * np.cos(3 * t), 400 + 50 * np.sin(3 * t)], axis=-1)


def clock(camera, offset_s, rate=1.0, sigma_s=0.0):
    return Clock(camera, offset_s, rate, np.diag([sigma_s**2, 0.0]))


def test_the_timeline_runs_while_two_cameras_do():
    kps = {name: track(np.arange(0, 10, 1 / 30), line, name) for name in "abc"}
    clocks = Clocks("a", {"a": clock("a", 0), "b": clock("b", 2.02), "c": clock("c", 5.0)})
    t = timeline(kps, clocks)
    assert t[0] == pytest.approx(61 / 30) and t[-1] == pytest.approx(359 / 30)
    assert np.allclose(t * 30, np.round(t * 30)) and np.allclose(np.diff(t), 1 / 30)


def test_the_timeline_is_the_longest_stretch_that_two_cameras_share(caplog):
    kps = {name: track(np.arange(0, 10, 1 / 30), line, name) for name in "abcd"}
    far = {"a": clock("a", 0), "b": clock("b", 6.0), "c": clock("c", 1e9), "d": clock("d", 1e9 + 2)}
    t = timeline(kps, Clocks("a", far))
    assert t[0] == pytest.approx(1e9 + 2, abs=0.04) and t[-1] == pytest.approx(1e9 + 10, abs=0.04)
    assert len(t) < 250 and "2 separate stretches" in caplog.text
    assert len(timeline(kps, Clocks("a", {n: far[n] for n in "abc"}))) == pytest.approx(120, abs=2)


def test_the_timeline_has_the_reference_camera_s_rate_unless_told():
    kps = {"a": track(np.arange(0, 2, 1 / 60), line), "b": track(np.arange(0, 2, 1 / 25), line, "b")}
    clocks = unsynchronised_clocks(kps)
    assert np.diff(timeline(kps, clocks)) == pytest.approx(1 / 60)
    assert np.diff(timeline(kps, replace(clocks, reference="b"))) == pytest.approx(1 / 25)
    assert np.diff(timeline(kps, clocks, fps=10)) == pytest.approx(0.1)
    assert timeline(kps, clocks, fps=10, start_s=0.55, end_s=1.01) == pytest.approx([0.6, 0.7, 0.8, 0.9, 1.0])


@pytest.mark.parametrize(
    ("offset_s", "options", "says"),
    [
        (20.0, {}, "no two cameras were recording at the same time"),
        (0.0, {"start_s": 5.0}, "Change --start, --end or --fps"),
        (0.0, {"start_s": 1e300}, "Change --start, --end or --fps"),
        (0.0, {"start_s": 1.0, "end_s": 0.5}, "Change --start, --end or --fps"),
        (0.0, {"fps": 0.0}, "positive frame rate"),
    ],
)
def test_an_empty_timeline_is_refused(offset_s, options, says):
    kps = {name: track(np.arange(0, 2, 0.1), line, name) for name in "ab"}
    with pytest.raises(ReconstructionError, match=says):
        timeline(kps, Clocks("a", {"a": clock("a", 0), "b": clock("b", offset_s)}), **options)


def test_times_rounded_to_milliseconds_do_not_change_the_rate():
    time_s = np.delete(np.round(np.arange(3000) / 30, 3), [100, 1000])
    kps = {name: track(time_s, line, name) for name in "ab"}
    assert np.diff(timeline(kps, unsynchronised_clocks(kps))) == pytest.approx(1 / 30, rel=1e-4)


def test_one_camera_with_a_clock_is_refused():
    kps = {name: track(np.arange(0, 2, 0.1), line, name) for name in "ab"}
    with pytest.raises(ReconstructionError, match="1 of 2 cameras"):
        timeline(kps, Clocks("a", {"a": identity_clock("a")}, {"b": "it shows nobody"}))


def test_a_straight_line_is_read_exactly_through_another_clock():
    at_s = np.arange(3.0, 4.0, 1 / 30)
    own = clock("a", 2.5, 1.001)
    (piece,) = align({"a": track(np.arange(0, 3, 0.04), line)}, Clocks("a", {"a": own}), at_s).tracklets
    assert piece.start == 0 and piece.stop == len(at_s)
    assert np.allclose(piece.xy_px[:, 0], line(own.to_camera(at_s)), atol=1e-9)


def test_curved_motion_is_followed_far_better_than_by_chords():
    at_s = np.arange(0.5, 2.0, 0.007)
    (piece,) = align({"a": track(np.arange(0, 3, 0.1), circle)}, unsynchronised_clocks("a"), at_s).tracklets
    error = np.linalg.norm(piece.xy_px[:, 0] - circle(at_s), axis=-1).max()
    sagitta = 50 * (1 - np.cos(0.15))
    assert 0.01 * sagitta < error < 0.25 * sagitta


def test_the_frames_themselves_are_kept():
    time_s = np.arange(0, 2, 1 / 30)
    kp = track(time_s, circle)
    (piece,) = align({"a": kp}, unsynchronised_clocks("a"), time_s).tracklets
    assert np.array_equal(piece.xy_px, kp.xy_px) and np.allclose(piece.score, 0.9)


def test_an_outlier_does_not_swing_the_frames_beside_it():
    time_s = np.arange(0, 1, 0.1)
    xy = np.zeros((10, 1, 2))
    xy[5, 0, 0] = 100.0
    at_s = np.arange(0, 0.9, 0.01)
    value = interpolate(time_s, xy, at_s, frame_s=0.1, height_px=np.full(len(at_s), 200.0)).xy_px[:, 0, 0]
    assert value.min() == 0.0 and value.max() == 100.0
    assert (value[(at_s < 0.39) | (at_s > 0.61)] == 0.0).all()


def test_short_gaps_are_bridged_with_larger_sigma_and_long_ones_are_not():
    time_s = np.arange(0, 3, 1 / 30)
    short, long = (time_s > 1.0) & (time_s < 1.15), (time_s > 1.5) & (time_s < 1.9)
    kp = track(time_s, line)
    xy = kp.xy_px.copy()
    xy[short | long, 1] = np.nan
    (piece,) = align({"a": replace(kp, xy_px=xy)}, unsynchronised_clocks("a"), time_s).tracklets
    assert np.allclose(piece.xy_px[short, 1], kp.xy_px[short, 1])
    assert (piece.sigma_px[short, 1] > 1.02 * np.nanmedian(piece.sigma_px[:, 1])).all()
    assert np.isnan(piece.xy_px[long, 1]).all() and (piece.score[long, 1] == 0).all()
    assert np.isfinite(piece.xy_px[:, [0, 2, 3, 4]]).all()


def test_a_gap_with_a_jump_is_not_bridged():
    time_s = np.arange(0, 2, 1 / 30)
    kp = track(time_s, lambda t: np.stack([300 + 250.0 * (t > 1.05), np.full_like(t, 400)], axis=-1))
    xy = kp.xy_px.copy()
    inside = (time_s > 0.99) & (time_s < 1.1)
    xy[inside, 1] = np.nan
    (piece,) = align({"a": replace(kp, xy_px=xy)}, unsynchronised_clocks("a"), time_s).tracklets
    assert np.isnan(piece.xy_px[inside, 1]).all()


def test_nothing_is_extrapolated_and_a_long_absence_ends_a_tracklet():
    time_s = np.concatenate([np.arange(1, 2, 0.1), np.arange(3, 4, 0.1)])
    at_s = np.arange(0, 50) / 10
    pieces = align({"a": track(time_s, line)}, unsynchronised_clocks("a"), at_s).tracklets
    assert [(p.start, p.stop) for p in pieces] == [(10, 20), (30, 40)]
    assert {p.track_id for p in pieces} == {0}


def test_sigma_follows_height_joint_score_and_clock():
    time_s = np.arange(0, 2, 1 / 30)

    def sigma(score=0.9, clock_sigma_s=0.0):
        clocks = Clocks("a", {"a": clock("a", 0.0, sigma_s=clock_sigma_s)})
        (piece,) = align({"a": track(time_s, line, score=score)}, clocks, time_s).tracklets
        return piece.sigma_px[30]

    assert sigma() == pytest.approx(200 * relative_sigma(FIVE))
    assert sigma()[1] > sigma()[2]
    assert sigma(score=0.35) == pytest.approx(2 * sigma())
    speed = np.hypot(120, 60)
    assert sigma(clock_sigma_s=0.05) == pytest.approx(np.hypot(sigma(), 0.05 * speed))


def test_hardly_scored_keypoints_are_missing():
    time_s = np.arange(0, 2, 0.1)
    assert align({"a": track(time_s, line, score=0.05)}, unsynchronised_clocks("a"), time_s).tracklets == ()


def test_untracked_detections_are_left_out_with_a_warning(caplog):
    time_s = np.arange(0, 2, 0.1)
    kp = track(time_s, line, track_id=UNTRACKED)
    assert align({"a": kp}, unsynchronised_clocks("a"), time_s).tracklets == ()
    assert "20 of 20 detections" in caplog.text


def test_cameras_without_a_clock_and_joints_not_shared_are_left_aside():
    time_s = np.arange(0, 2, 0.1)
    n = len(time_s)
    coco = SKELETONS["coco17"]
    xy = np.linspace(100, 300, n * 34).reshape(n, 17, 2)
    other = Keypoints2D("b", time_s, np.arange(n + 1), xy, np.ones((n, 17)), np.zeros(n, int), coco, (1000, 1000))
    kps = {"a": track(time_s, line), "b": other, "c": track(time_s, line, "c")}
    tracks = align(kps, unsynchronised_clocks("ab"), time_s)
    shared = ("nose", "left_wrist", "left_ankle", "left_knee")
    assert tracks.cameras == ("a", "b") and tracks.skeleton.joint_names == shared
    assert np.allclose(tracks.tracklets[1].xy_px, xy[:, coco.indices(shared)])


def test_a_camera_without_people_has_no_tracklets():
    time_s = np.arange(0, 2, 0.1)
    empty = Keypoints2D(
        "b", time_s, np.zeros(21, int), np.zeros((0, 5, 2)), np.zeros((0, 5)), np.zeros(0, int), FIVE, (9, 9)
    )
    tracks = align({"a": track(time_s, line), "b": empty}, unsynchronised_clocks("ab"), time_s)
    assert tracks.cameras == ("a", "b") and [t.camera for t in tracks.tracklets] == ["a"]


def test_tracklets_share_a_slot_unless_they_overlap():
    spans = {0: (0.0, 2.0), 1: (1.0, 3.0), 2: (2.5, 4.0), 3: (2.6, 3.5)}  # of one camera, seconds
    t = np.arange(0, 4.0, 0.1)
    shown = [(i, k) for i in range(len(t)) for k, (start, stop) in spans.items() if start <= t[i] < stop]
    one = track(t, line)
    many = Keypoints2D(
        "a",
        t,
        np.searchsorted([i for i, _ in shown], np.arange(len(t) + 1)),
        one.xy_px[[i for i, _ in shown]],
        one.score[[i for i, _ in shown]],
        np.array([k for _, k in shown]),
        FIVE,
        (1000, 1000),
    )
    kps = {"a": many, "b": track(t, line, "b")}
    tracks = align(kps, unsynchronised_clocks(kps), t)
    slot = {(x.camera, x.track_id): int(k) for x, k in zip(tracks.tracklets, slots_of(tracks), strict=True)}
    assert slot == {("a", 0): 0, ("a", 1): 1, ("a", 2): 0, ("a", 3): 2, ("b", 0): 0}
