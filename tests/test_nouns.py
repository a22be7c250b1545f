"""The ground floor: skeletons, 2D keypoints, 3D poses, clocks, errors."""

import inspect
import re
from dataclasses import replace

import numpy as np
import pytest

from mvpose import errors
from mvpose.clock import Clock, Clocks, identity_clock, unsynchronised_clocks
from mvpose.keypoints import UNTRACKED, AlignedKeypoints, Keypoints2D, keypoint_boxes
from mvpose.poses import Poses3D
from mvpose.skeleton import SKELETONS, Skeleton, canonical_joint_name, shared_skeleton, skeleton_of

COCO = SKELETONS["coco17"]
PAIR = Skeleton("custom", ("left_hip", "right_hip"))


def test_the_error_tree_is_drawn_as_it_is():
    drawn = set(re.findall(r"── (\w+)", errors.__doc__))
    classes = {n: c for n, c in inspect.getmembers(errors, inspect.isclass) if n != "MvposeError"}
    assert drawn == set(classes)
    assert all(c.__bases__ == (errors.MvposeError,) for c in classes.values())
    assert all(c.__doc__ for c in classes.values())


@pytest.mark.parametrize("name", SKELETONS)
def test_known_skeletons_are_sound(name):
    skeleton = SKELETONS[name]
    assert skeleton.name == name
    assert len(skeleton) == len(set(skeleton.joint_names)) == int(re.search(r"(\d+)b?$", name)[1])
    # Left and right are each other's partners; mirroring twice changes nothing.
    np.testing.assert_array_equal(skeleton.mirrored[skeleton.mirrored], np.arange(len(skeleton)))
    for joint, partner in enumerate(skeleton.mirrored):
        a, b = skeleton.joint_names[joint], skeleton.joint_names[partner]
        assert a == b or {a.split("_")[0], b.split("_")[0]} == {"left", "right"}
        assert a == canonical_joint_name(a)
    assert skeleton_of(skeleton.joint_names) is skeleton


@pytest.mark.parametrize("name", SKELETONS)
def test_every_arm_and_leg_is_drawn_and_limbs_are_symmetric(name):
    skeleton = SKELETONS[name]
    limbs = {frozenset(skeleton.joint_names[j] for j in limb) for limb in skeleton.limbs}
    for side in ("left", "right"):
        for a, b in (("shoulder", "elbow"), ("elbow", "wrist"), ("hip", "knee"), ("knee", "ankle")):
            assert {f"{side}_{a}", f"{side}_{b}"} in limbs
    mirrored = {frozenset(skeleton.mirrored[list(limb)].tolist()) for limb in skeleton.limbs}
    assert mirrored == {frozenset(limb) for limb in skeleton.limbs}


def test_coco_is_in_the_order_of_its_annotations():
    assert COCO.joint_names[:5] == ("nose", "left_eye", "right_eye", "left_ear", "right_ear")
    assert COCO.joint_names[5:7] == ("left_shoulder", "right_shoulder")
    assert COCO.joint_names[-2:] == ("left_ankle", "right_ankle")


def test_body25_is_in_the_order_of_openpose():
    names = SKELETONS["body25"].joint_names
    assert [names[i] for i in (0, 1, 2, 5, 8, 9, 12, 15, 19, 22, 24)] == [
        "nose", "neck", "right_shoulder", "left_shoulder", "pelvis", "right_hip", "left_hip", "right_eye",
        "left_big_toe", "right_big_toe", "right_heel",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("spelled", "name"),
    [
        ("LShoulder", "left_shoulder"), ("RKnee", "right_knee"), ("left shoulder", "left_shoulder"),
        ("Left-Eye", "left_eye"), ("rightAnkle", "right_ankle"), ("LBigToe", "left_big_toe"), ("MidHip", "pelvis"),
        ("hip", "pelvis"), ("LHip", "left_hip"), ("left_hip", "left_hip"), ("root", "pelvis"), ("NOSE", "nose"),
        ("mouth (right)", "right_mouth"), ("left_foot_index", "left_big_toe"), ("Head_top", "head_top"),
        ("tail  tip", "tail_tip"),
    ],
)  # fmt: skip
def test_joint_names_have_one_spelling(spelled, name):
    assert canonical_joint_name(spelled) == name


def test_skeletons_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="at least one"):
        Skeleton("custom", ())
    with pytest.raises(ValueError, match="twice"):
        skeleton_of(["LHip", "left hip"])
    with pytest.raises(KeyError):
        COCO.indices(["tail"])


def test_the_shared_skeleton_has_what_all_have_in_the_first_ones_order():
    shared = shared_skeleton([SKELETONS["body25"], COCO, SKELETONS["halpe26"]])
    assert shared.joint_names == tuple(n for n in SKELETONS["body25"].joint_names if n in COCO.joint_names)
    assert shared_skeleton([COCO, COCO]) is COCO
    assert shared_skeleton([SKELETONS["halpe26"], COCO]) is COCO  # known by its joints, not only by where it is from
    with pytest.raises(ValueError, match="share no joint"):
        shared_skeleton([COCO, Skeleton("custom", ("tail",))])


def keypoints(**changes) -> Keypoints2D:
    """Three frames with one, none and two people of two joints."""
    fields = {
        "camera": "cam01",
        "time_s": np.array([0.0, 0.04, 0.08]),
        "frame_ptr": np.array([0, 1, 1, 3]),
        "xy_px": np.arange(12.0).reshape(3, 2, 2),
        "score": np.full((3, 2), 0.5),
        "track_id": np.array([4, 4, 9]),
        "skeleton": PAIR,
        "size_px": (640, 480),
    }
    return Keypoints2D(**{**fields, **changes})


def test_rows_know_their_frame():
    assert keypoints().n_frames == 3
    assert keypoints().frame_index.tolist() == [0, 2, 2]
    assert keypoints().is_tracked
    assert not keypoints(track_id=np.array([4, UNTRACKED, 9])).is_tracked


def test_a_joint_half_missing_is_missing_and_scores_nothing():
    xy = np.arange(12.0).reshape(3, 2, 2)
    xy[1, 0, 1] = np.nan
    found = keypoints(xy_px=xy)
    assert np.isnan(found.xy_px[1, 0]).all()
    assert found.score[1].tolist() == [0.0, 0.5]
    assert np.isfinite(xy[1, 0, 0])  # the caller's array is left alone


def test_the_frame_rate_is_that_between_dropped_frames_and_rounded_times():
    frames = np.delete(np.arange(300), [40, 41, 200])
    time_s = np.round(frames / 29.97, 3)  # as a container counts in milliseconds
    empty = {"xy_px": np.empty((0, 2, 2)), "score": np.empty((0, 2)), "track_id": np.empty(0, int)}
    found = keypoints(time_s=time_s, frame_ptr=np.zeros(len(time_s) + 1, int), **empty)
    assert found.frame_rate == pytest.approx(29.97, abs=0.005)
    assert np.isnan(keypoints(time_s=np.array([0.0]), frame_ptr=np.zeros(2, int), **empty).frame_rate)


def test_boxes_bound_what_is_seen():
    xy = np.array([[[1.0, 5.0], [3.0, 2.0]], [[7.0, 7.0], [np.nan, np.nan]], [[np.nan] * 2] * 2])
    np.testing.assert_array_equal(keypoint_boxes(xy), [[1, 2, 3, 5], [7, 7, 7, 7], [np.nan] * 4])
    assert keypoint_boxes(np.empty((0, 2, 2))).shape == (0, 4)
    np.testing.assert_array_equal(keypoints().bbox_px[0], [0, 1, 2, 3])
    given = np.ones((3, 4))
    np.testing.assert_array_equal(keypoints(bbox_px=given).bbox_px, given)


def shown(instants) -> Keypoints2D:
    """Frames that show the given instants, with two people each; a joint of one is always missing."""
    xy = np.random.default_rng(0).uniform(0, 400, (max(instants) + 1, 2, 2, 2))[instants]
    xy[:, 0, 1] = np.nan
    return keypoints(
        time_s=np.arange(len(instants)) / 25,
        frame_ptr=2 * np.arange(len(instants) + 1),
        xy_px=xy.reshape(-1, 2, 2),
        score=np.full((2 * len(instants), 2), 0.5),
        track_id=np.tile([0, 1], len(instants)),
    )


def test_frames_that_repeat_the_frame_before_lose_their_people_but_not_their_times():
    frozen = shown([0, 1, 1, 1, 2, 3, 1, 4])
    kept, repeats = frozen.without_repeats()
    assert repeats.tolist() == [2, 3]
    assert np.diff(kept.frame_ptr).tolist() == [2, 2, 0, 0, 2, 2, 2, 2]
    np.testing.assert_array_equal(kept.time_s, frozen.time_s)
    np.testing.assert_array_equal(kept.xy_px, frozen.xy_px[[*range(4), *range(8, 16)]])
    again, none = kept.without_repeats()
    assert again is kept
    assert len(none) == 0


@pytest.mark.parametrize("change", ["place", "missing"])
def test_frames_that_differ_in_one_joint_are_no_repeats(change):
    frozen = shown([0, 1, 1, 2])
    xy = frozen.xy_px.copy()
    xy[5, 0] = xy[5, 0] + 100 if change == "place" else np.nan
    assert frozen.without_repeats()[1].tolist() == [2]
    assert keypoints(**{**vars(frozen), "xy_px": xy}).without_repeats()[1].tolist() == []


def test_frames_that_were_encoded_anew_are_repeats_still_and_noise_at_rest_is_none():
    rng = np.random.default_rng(2)
    instants = np.maximum.accumulate(np.where(rng.random(200) < 0.25, 0, np.arange(200)))
    xy = shown(range(200)).xy_px / 400 * 1.5 + 200  # somebody at rest, as a detector with an error of a pixel sees it
    rest = keypoints(**{**vars(shown(range(200))), "xy_px": xy})
    assert len(rest.without_repeats()[1]) == 0
    again = xy.reshape(200, 2, 2, 2)[instants].reshape(xy.shape) + rng.normal(0, 0.02, xy.shape)
    repeats = keypoints(**{**vars(rest), "xy_px": again}).without_repeats()[1]
    true = np.flatnonzero(np.diff(instants, prepend=-1) == 0)
    assert set(repeats) <= set(true)
    assert len(repeats) > 0.9 * len(true)


@pytest.mark.parametrize("is_tracked", [True, False])
def test_people_listed_in_any_order_are_no_repeats(is_tracked):
    rng = np.random.default_rng(3)
    walk = np.cumsum(rng.normal(0, 3.0, (200, 1, 2, 2)), axis=0)
    xy = np.concatenate([walk + np.array([300.0, 400.0]), walk[::-1] + np.array([900.0, 400.0])], axis=1)
    order = rng.permuted(np.tile([0, 1], (200, 1)), axis=1)
    shuffled = keypoints(
        time_s=np.arange(200) / 25,
        frame_ptr=2 * np.arange(201),
        xy_px=np.take_along_axis(xy, order[..., None, None], axis=1).reshape(-1, 2, 2),
        score=np.full((400, 2), 0.5),
        track_id=order.ravel() if is_tracked else np.full(400, -1),
    )
    assert shuffled.without_repeats()[1].tolist() == []


def test_a_frame_with_one_person_less_is_no_repeat():
    frozen = shown([0, 1, 1, 2])
    assert frozen.only(np.array([0, 1, 2, 3, 4, 6, 7])).without_repeats()[1].tolist() == []
    assert frozen.only(np.array([0, 1, 2, 4, 6, 7])).without_repeats()[1].tolist() == [2]
    assert frozen.only(np.array([], dtype=int)).without_repeats()[1].tolist() == []


@pytest.mark.parametrize("times", [2, 3, 4])
def test_a_video_of_a_multiplied_rate_keeps_one_frame_of_each_instant(times):
    kept, repeats = shown(np.repeat(np.arange(20), times)).without_repeats()
    assert len(repeats) == 20 * (times - 1)
    np.testing.assert_array_equal(np.flatnonzero(np.diff(kept.frame_ptr)), times * np.arange(20))


def test_somebody_at_rest_is_kept():
    still = shown([0, *[1] * 50, 2, 3])
    assert still.without_repeats()[0] is still
    assert shown([0] * 50).without_repeats()[1].tolist() == []
    # At 25 fps a pause of 0.16 s is bridged, one of 0.2 s is not.
    assert shown([0, 0, 0, 0, 1, 2]).without_repeats()[1].tolist() == [1, 2, 3]
    assert shown([0, 0, 0, 0, 0, 1]).without_repeats()[1].tolist() == []


def test_joints_are_chosen_by_name():
    turned = keypoints().with_skeleton(Skeleton("custom", ("right_hip", "left_hip")))
    np.testing.assert_array_equal(turned.xy_px, keypoints().xy_px[:, ::-1])
    same = keypoints()
    assert same.with_skeleton(PAIR) is same
    with pytest.raises(KeyError):
        same.with_skeleton(COCO)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"xy_px": np.zeros((3, 3, 2))}, "2 joints"),
        ({"score": np.zeros((3, 3))}, "2 joints"),
        ({"track_id": np.zeros(2)}, "fit N"),
        ({"score": np.full((3, 2), 1.5)}, "scores"),
        ({"score": np.full((3, 2), -0.1)}, "scores"),
        ({"score": np.full((3, 2), np.nan)}, "scores"),
        ({"time_s": np.array([0.0, 0.0, 1.0])}, "increase"),
        ({"time_s": np.array([0.0, 1.0, np.nan])}, "finite"),
        ({"time_s": np.array([0.0, 1.0])}, "frame_ptr"),
        ({"frame_ptr": np.array([0, 2, 1, 3])}, "rise"),
        ({"frame_ptr": np.array([0, 1, 1, 2])}, "rise"),
        ({"frame_ptr": np.array([1, 1, 1, 3])}, "rise"),
        ({"bbox_px": np.zeros((3, 2))}, "bbox_px"),
    ],
)
def test_keypoints_that_cannot_be_are_refused_and_the_camera_named(changes, words):
    with pytest.raises(ValueError, match=f"cam01: .*{words}"):
        keypoints(**changes)


def test_aligned_keypoints_agree_in_shape():
    shape = (5, 2, 1, 2)
    fields = {
        "cameras": ("a", "b"), "time_s": np.arange(5.0), "xy_px": np.zeros((*shape, 2)), "score": np.zeros(shape),
        "sigma_px": np.zeros(shape), "person_ids": np.array([0]), "skeleton": PAIR,
    }  # fmt: skip
    AlignedKeypoints(**fields)
    for name in ("xy_px", "score", "sigma_px"):
        with pytest.raises(ValueError, match=r"\(5, 2, 1, 2\)"):
            AlignedKeypoints(**{**fields, name: fields[name][:, :1]})


def poses(**changes) -> Poses3D:
    shape = (4, 2, 2)
    fields = {
        "time_s": np.arange(4) / 50, "xyz_m": np.zeros((*shape, 3)), "person_ids": np.array([0, 3]),
        "reprojection_px": np.zeros(shape), "n_views": np.zeros(shape, int), "cov_m2": np.zeros((*shape, 3, 3)),
        "skeleton": PAIR,
    }  # fmt: skip
    return Poses3D(**{**fields, **changes})


def test_poses_tell_their_frame_rate():
    assert poses().frame_rate == pytest.approx(50)
    one = {k: v[:1] for k, v in vars(poses()).items() if isinstance(v, np.ndarray) and k != "person_ids"}
    assert np.isnan(poses(**one).frame_rate)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"xyz_m": np.zeros((4, 2, 2, 2))}, "xyz_m"),
        ({"xyz_m": np.zeros((3, 2, 2, 3))}, "xyz_m"),
        ({"n_views": np.zeros((4, 2, 3))}, "n_views"),
        ({"reprojection_px": np.zeros((4, 2))}, "reprojection_px"),
        ({"cov_m2": np.zeros((4, 2, 2, 3))}, "cov_m2"),
        ({"person_ids": np.array([3, 3])}, "unique"),
        ({"person_ids": np.array([3])}, "xyz_m"),
    ],
)
def test_poses_that_cannot_be_are_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        poses(**changes)


def clock(name: str = "b", offset_s: float = 2.0, rate: float = 1.25, cov=((0.04, 0.0), (0.0, 0.0))) -> Clock:
    return Clock(name, offset_s, rate, np.array(cov))


def test_session_time_is_offset_plus_rate_times_camera_time():
    np.testing.assert_allclose(clock().to_session([0.0, 4.0]), [2.0, 7.0])
    np.testing.assert_allclose(clock().to_camera([2.0, 7.0]), [0.0, 4.0])


def test_uncertainty_is_that_of_the_mapped_time():
    # Var(o + r t) = Var o + 2 t Cov + t² Var r, smallest at t = 4 where the two are made to cancel.
    cov = ((0.16, -0.04), (-0.04, 0.01))
    np.testing.assert_allclose(clock(cov=cov).sigma_s([0.0, 4.0, 8.0]), [0.4, 0.0, 0.4], atol=1e-6)
    assert Clock("b", 0, 1, np.array(cov), epoch_s=8.0).sigma_at_epoch_s == pytest.approx(0.4)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"rate": 0.0}, "rate"),
        ({"rate": -1.0}, "rate"),
        ({"offset_s": np.nan}, "finite"),
        ({"cov": np.eye(3)}, r"\(2, 2\)"),
        ({"cov": [[1, 0.5], [0, 1]]}, "symmetric"),
        ({"cov": [[np.inf, 0], [0, 1]]}, "finite"),
    ],
)
def test_clocks_that_cannot_be_are_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        clock(**changes)


def test_changing_the_reference_maps_the_same_instants():
    clocks = Clocks("a", {"a": identity_clock("a"), "b": clock("b"), "c": clock("c", -1.0, 0.8)})
    on_b = clocks.on("b")
    assert on_b.reference == "b"
    assert (on_b["b"].offset_s, on_b["b"].rate) == (0.0, 1.0)
    assert not on_b["b"].cov.any()
    t = np.array([0.0, 3.0, 10.0])
    for name in "abc":
        # On b's time, an instant is when b's own clock says it is.
        np.testing.assert_allclose(on_b[name].to_session(t), clocks["b"].to_camera(clocks[name].to_session(t)))
    np.testing.assert_allclose(on_b.on("a")["c"].to_session(t), clocks["c"].to_session(t))


def test_sets_of_clocks_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="reference"):
        Clocks("a", {"b": clock()})
    with pytest.raises(ValueError, match="belongs to"):
        Clocks("a", {"a": clock("b")})
    with pytest.raises(ValueError, match="with a clock and without"):
        Clocks("b", {"b": clock()}, unsynchronised={"b": "why"})


def test_unsynchronised_clocks_leave_times_as_they_are():
    clocks = unsynchronised_clocks(["b", "a"])
    assert clocks.reference == "b"
    assert clocks.components == (("b", "a"),)
    assert all(c.to_session(3.25) == 3.25 for c in clocks.clocks.values())


def test_joints_that_no_image_can_show_are_missing():
    """One coordinate of 1e308 broke the 2D tracker."""
    xy = np.array([[[1e308, 5.0], [7.0, 8.0]], [[5.0, -1e7], [np.inf, 1.0]]])
    keypoints = Keypoints2D(
        "a", np.arange(1.0), np.array([0, 2]), xy, np.ones((2, 2)), np.zeros(2, int), PAIR, (64, 48)
    )
    np.testing.assert_array_equal(np.isfinite(keypoints.xy_px).all(-1), [[False, True], [False, False]])
    np.testing.assert_array_equal(keypoints.score, [[0, 1], [0, 0]])
    np.testing.assert_array_equal(keypoints.bbox_px, [[7, 8, 7, 8], [np.nan] * 4])
    with pytest.raises(ValueError, match="finite"):
        replace(keypoints, time_s=np.array([1e300]))
