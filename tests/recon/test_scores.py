import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from mvpose.errors import ReconstructionError
from mvpose.poses import Poses3D
from mvpose.recon.scores import (
    LIMBS,
    SHELF14,
    match_poses,
    named_joints,
    pooled_scores,
    pose_confidence,
    score_poses,
)
from mvpose.skeleton import CLIP_SKELETON, SKELETONS, Skeleton

COCO = SKELETONS["coco17"]
# Facing +x, z up, metres: hips 1 m high, legs of two limbs of 0.4 m, arms of 0.3 m straight down, chin 1.55, top 1.8.
_SHELF_MAN = {
    "hip": (0, 0.1, 0.9), "knee": (0, 0.1, 0.5), "ankle": (0, 0.1, 0.1),
    "shoulder": (0, 0.2, 1.4), "elbow": (0, 0.2, 1.1), "wrist": (0, 0.2, 0.8),
}  # fmt: skip


def man(skeleton=SHELF14, x=0.0):
    """A stick person (J, 3) standing at (x, 0)."""
    places = {"neck": (0, 0, 1.55), "head_top": (0, 0, 1.8), "nose": (0.2, 0, 1.6)}
    for name, (a, y, z) in _SHELF_MAN.items():
        places |= {f"left_{name}": (a, y, z), f"right_{name}": (a, -y, z)}
    for name, at in (("eye", (0.18, 0.03, 1.64)), ("ear", (0, 0.08, 1.65))):
        places |= {f"left_{name}": at, f"right_{name}": (at[0], -at[1], at[2])}
    return np.array([places.get(name, (np.nan,) * 3) for name in skeleton.joint_names]) + np.array([x, 0, 0])


def poses_of(xyz, skeleton=SHELF14, cov=0.0, time_s=None, up="z"):
    """Poses at 1 fps of people (T, P, J, 3)."""
    xyz = np.asarray(xyz, dtype=float)
    T, P, J = xyz.shape[:3]
    return Poses3D(
        np.arange(T, dtype=float) if time_s is None else time_s, xyz, np.arange(P), np.zeros((T, P, J)),
        np.full((T, P, J), 4), np.broadcast_to(cov * np.eye(3, dtype=np.float32), (T, P, J, 3, 3)), skeleton, up=up,
    )  # fmt: skip


def walk(frames=10, x=(0.0,), skeleton=SHELF14):
    """People standing at places x in every frame, (T, P, J, 3)."""
    return np.repeat(np.stack([man(skeleton, at) for at in x])[None], frames, axis=0)


def index(name):
    return SHELF14.joint_names.index(name)


def test_the_truth_scores_full():
    truth = poses_of(walk(x=(0, 2)))
    scores = score_poses(truth, truth)
    assert scores.mpjpe_mm == 0 and scores.pa_mpjpe_mm < 1e-6 and scores.recall == 1 and scores.joints == 1
    assert scores.ap == {25: 1, 50: 1, 100: 1, 150: 1} and scores.id_switches == 0
    assert scores.pcp.actors == (1, 1) == scores.pcp.matched and scores.pcp.mean == 1
    assert set(scores.pcp.groups) == set(LIMBS) and sum(len(pairs) for pairs in LIMBS.values()) == 10
    assert scores.n_true == 20 == scores.n_estimates


def test_a_shift_is_seen_by_mpjpe_and_ap_but_not_after_alignment():
    truth = walk(x=(0, 2))
    scores = score_poses(poses_of(truth + np.array([0.06, 0, 0.08])), poses_of(truth))
    assert scores.mpjpe_mm == pytest.approx(100) and scores.pa_mpjpe_mm == pytest.approx(0, abs=1e-6)
    assert scores.ap[25] == scores.ap[50] == 0 and scores.ap[150] == 1 and scores.recall == 1


def test_alignment_undoes_a_similarity_and_no_reflection():
    truth = walk(frames=1)
    turn = np.array([[0, -1, 0], [1, 0, 0], [0, 0, 1.0]])
    moved = 1.1 * truth @ turn.T + [0.1, 0, 0]
    assert score_poses(poses_of(moved), poses_of(truth)).pa_mpjpe_mm == pytest.approx(0, abs=1e-6)
    # Off the plane in which this person stands, so that a reflection is not a rotation.
    truth[..., index("left_wrist"), 0] += 0.3
    truth[..., index("right_knee"), 0] += 0.2
    mirrored = truth * [1, -1, 1]
    assert 20 < score_poses(poses_of(mirrored), poses_of(truth)).pa_mpjpe_mm < 200


def test_alignment_is_the_best_there_is():
    """Against scipy's solution of the same problem, with the scale that makes its squares least."""
    rng = np.random.default_rng(0)
    for mirror in (1, -1):
        true = rng.normal(size=(14, 3))
        estimate = 1.3 * true * [1, mirror, 1] + rng.normal(0, 0.1, (14, 3)) + [0.5, 0, 0]
        e, t = estimate - estimate.mean(axis=0), true - true.mean(axis=0)
        moved = Rotation.align_vectors(t, e)[0].apply(e)
        moved *= (moved * t).sum() / (e**2).sum()
        best_mm = 1000 * np.linalg.norm(moved - t, axis=-1).mean()
        matches = match_poses(poses_of(estimate[None, None]), poses_of(true[None, None]))
        assert 1000 * matches.aligned_m[0] == pytest.approx(best_mm) and best_mm > 50


def test_confidences_are_those_of_the_nearest_time():
    estimate = poses_of(walk(frames=3), time_s=np.array([0.0, 1.0, 2.0]))
    truth = poses_of(walk(frames=5), time_s=np.array([0.0, 0.4, 0.6, 1.4, 2.0]))
    matches = match_poses(estimate, truth, np.array([[0.1], [0.2], [0.3]]))
    assert matches.confidence.tolist() == [0.1, 0.1, 0.2, 0.2, 0.3]


def test_alignment_of_one_moved_joint_lies_between_nothing_and_its_error():
    truth, estimate = walk(frames=1), walk(frames=1)
    estimate[0, 0, index("left_wrist"), 0] += 0.14
    scores = score_poses(poses_of(estimate), poses_of(truth))
    assert scores.mpjpe_mm == pytest.approx(10)
    assert 10 < scores.pa_mpjpe_mm < 30  # it makes squares least, so the others move towards it: measured 20.1


def test_pcp_at_half_a_limb():
    """The forearm, 0.3 m, has one end off by d, so the mean of both ends is d / 2: right up to d = 0.3 m."""
    truth = poses_of(walk(frames=4))
    for off, right in ((0.299, 1.0), (0.301, 0.9)):
        estimate = walk(frames=4)
        estimate[:, 0, index("left_wrist"), 0] += off
        pcp = score_poses(poses_of(estimate), truth).pcp
        assert pcp.actors == (pytest.approx(right),)
        assert pcp.groups["lower arms"] == pytest.approx(1 if right == 1 else 0.5)
        assert pcp.groups["upper arms"] == 1


def test_pcp_of_the_torso_goes_from_the_middle_of_the_hips():
    truth = poses_of(walk(frames=1))
    estimate = walk(frames=1)
    # Hips apart along y leave their middle where it is; both thighs are wrong (0.45 / 2 > 0.4 / 2), the torso is not.
    estimate[0, 0, index("left_hip"), 1] += 0.45
    estimate[0, 0, index("right_hip"), 1] -= 0.45
    groups = score_poses(poses_of(estimate), truth).pcp.groups
    assert groups["torso"] == 1 and groups["upper legs"] == 0 and groups["lower legs"] == 1


def test_misses_count_or_do_not():
    """One of two people is found in 6 of 10 frames; the other always."""
    truth = walk(x=(0, 3))
    estimate = truth.copy()
    estimate[6:, 0] = np.nan
    scores = score_poses(poses_of(estimate), poses_of(truth))
    assert scores.pcp.actors == (pytest.approx(0.6), 1) and scores.pcp.mean == pytest.approx(0.8)
    assert scores.pcp.matched == (1, 1) and scores.pcp.mean_matched == 1
    assert scores.recall == pytest.approx(16 / 20) and scores.ap[25] == pytest.approx(16 / 20)
    assert scores.n_estimates == 16 and scores.mpjpe_mm == 0


def test_only_the_first_actors_count_for_pcp():
    truth = walk(x=(0, 3, 6))
    estimate = truth[:, :2]
    assert score_poses(poses_of(estimate), poses_of(truth)).pcp.mean == pytest.approx(2 / 3)
    scores = score_poses(poses_of(estimate), poses_of(truth), actors=2)
    assert scores.pcp.actors == (1, 1) and scores.recall == pytest.approx(2 / 3)


def test_a_person_who_is_never_there_does_not_lower_the_mean():
    truth = walk(x=(0, 3))
    truth[:, 1] = np.nan
    pcp = score_poses(poses_of(walk()), poses_of(truth)).pcp
    assert pcp.actors[0] == 1 and np.isnan(pcp.actors[1]) and pcp.mean == 1


def test_absent_people_are_not_asked_for():
    """In 4 of 10 frames nobody is there: what is estimated then is left out, as in VoxelPose's evaluation."""
    truth = walk()
    truth[6:] = np.nan
    scores = score_poses(poses_of(walk()), poses_of(truth))
    assert scores.n_true == 6 == scores.n_estimates
    assert scores.recall == 1 and scores.ap[25] == 1 and scores.pcp.mean == 1


def test_average_precision_by_hand():
    """Two people, one frame; ranked: right, false, right. Precision 1, 1/2, 2/3; AP = (1 + 2/3) / 2."""
    truth = poses_of(walk(frames=1, x=(0, 3)))
    estimate = poses_of(walk(frames=1, x=(0, 3.3, 3)))
    for confidence, ap in (([0.9, 0.8, 0.7], 5 / 6), ([0.9, 0.7, 0.8], 1.0), ([0.7, 0.9, 0.8], (2 / 3 + 2 / 3) / 2)):
        scores = score_poses(estimate, truth, np.array([confidence]))
        assert scores.ap[25] == pytest.approx(ap)
        assert scores.recall == 1


def test_two_estimates_of_one_person_are_one_right_and_one_false():
    truth = poses_of(walk(frames=1))
    estimate = walk(frames=1, x=(0.01, 0.02))
    scores = score_poses(poses_of(estimate), truth, np.array([[0.1, 0.9]]))
    assert scores.ap[25] == 1 and scores.n_estimates == 2  # the false one comes after the last true person
    assert scores.mpjpe_mm == pytest.approx(20)  # the surer one is the person


def test_a_missing_joint_costs_precision_but_not_mpjpe():
    """One of 14 joints is missing: 500 mm / 14 = 36 mm."""
    estimate = walk(frames=5)
    estimate[:, 0, index("left_wrist")] = np.nan
    scores = score_poses(poses_of(estimate), poses_of(walk(frames=5)))
    assert scores.mpjpe_mm == 0 and scores.joints == pytest.approx(13 / 14)
    assert scores.ap == {25: 0, 50: 1, 100: 1, 150: 1}
    assert scores.pcp.mean == pytest.approx(0.9)


def test_true_joints_that_are_unknown_are_not_asked_for():
    truth = walk(frames=5)
    truth[:, 0, index("left_wrist")] = np.nan
    estimate = walk(frames=5)
    estimate[:, 0, index("left_wrist")] += 5
    scores = score_poses(poses_of(estimate), poses_of(truth))
    assert scores.mpjpe_mm == 0 and scores.joints == 1 and scores.ap[25] == 1
    assert scores.pcp.mean == 1  # of nine limbs


def test_identity_switches_are_counted():
    truth, estimate = walk(x=(0, 3)), walk(x=(0, 3))
    estimate[5:] = estimate[5:, ::-1]
    scores = score_poses(poses_of(estimate), poses_of(truth))
    assert scores.id_switches == 2 and scores.mpjpe_mm == 0


def test_times_between_and_beyond():
    """The estimate has every second frame and ends early: it is interpolated, and beyond its end nobody is found."""
    t = np.arange(11.0)
    xyz = walk(frames=11) + t[:, None, None, None] * [0.1, 0, 0]
    scores = score_poses(poses_of(xyz[:7:2], time_s=t[:7:2]), poses_of(xyz, time_s=t))
    assert scores.mpjpe_mm == pytest.approx(0, abs=1e-9)
    assert scores.recall == pytest.approx(7 / 11) == scores.pcp.mean
    assert scores.pcp.mean_matched == 1


def test_nobody():
    truth = poses_of(walk())
    none = score_poses(poses_of(np.zeros((10, 0, 14, 3))), truth)
    assert none.recall == 0 and none.ap[150] == 0 and none.pcp.mean == 0 and np.isnan(none.mpjpe_mm)
    assert np.isnan(none.pcp.mean_matched) and none.n_true == 10 and none.n_estimates == 0
    empty = score_poses(truth, poses_of(np.zeros((10, 0, 14, 3))))
    assert empty.n_true == 0 and np.isnan(empty.recall) and np.isnan(empty.ap[25]) and empty.pcp is None


def test_no_common_joint():
    with pytest.raises(ReconstructionError, match="no joint in common"):
        score_poses(poses_of(np.zeros((1, 1, 1, 3)), Skeleton("custom", ("tail",))), poses_of(walk(1)))


def test_recordings_pool_as_one():
    """Ranked together the false estimate of the second comes first, so pooled AP is not the mean of both."""
    one = poses_of(walk(frames=1))
    good = match_poses(one, one, np.array([[0.5]]))
    bad = match_poses(poses_of(walk(frames=1, x=(0.2,))), one, np.array([[0.9]]))
    pooled = pooled_scores([good, bad])
    assert pooled.ap[25] == pytest.approx(0.25) and pooled.ap[150] == pytest.approx(0.25)
    assert pooled.recall == 1 and pooled.mpjpe_mm == pytest.approx(100) and pooled.n_true == 2
    alone = [pooled_scores([m]).pcp.mean for m in (good, bad)]
    assert pooled.pcp.mean == pytest.approx(np.mean(alone))


def test_confidence_falls_with_uncertainty_and_missing_joints():
    sure = pose_confidence(poses_of(walk(frames=1)))
    assert sure == pytest.approx(1)
    assert pose_confidence(poses_of(walk(frames=1), cov=0.01 / 3)) == pytest.approx(np.exp(-1))  # σ = 0.1 m
    half = walk(frames=1)
    half[:, :, :7] = np.nan
    assert pose_confidence(poses_of(half)) == pytest.approx(0.5)
    assert pose_confidence(poses_of(walk(frames=1), cov=np.nan)) == pytest.approx(np.exp(-1))


def test_heads_as_voxelpose_makes_them():
    """Its own formulas, written out for this person: s = (0, 0, 1.4), e = (0, 0, 1.65), n = (0.2, 0, 1.6)."""
    xyz = man(COCO)[None, None]
    wanted = ("neck", "head_top", "pelvis")
    campus = named_joints(xyz, COCO, wanted, "z", "campus")[0, 0]
    np.testing.assert_allclose(campus, [[0, 0, 1.525], [0, 0, 1.775], [0, 0, 0.9]])
    shelf = named_joints(xyz, COCO, wanted, "z", "shelf")[0, 0]
    nose_bottom, nose_top = np.array([0.1, 0, 1.5]), np.array([0.15, 0, 1.4 + 0.2 * 1.5])
    np.testing.assert_allclose(shelf[0], 0.75 * nose_bottom + 0.25 * campus[0])
    np.testing.assert_allclose(shelf[1], 0.75 * nose_top + 0.25 * campus[1])
    plain = named_joints(xyz, COCO, wanted, "z", "plain")[0, 0]
    np.testing.assert_allclose(plain[0], [0, 0, 1.4])
    assert np.isnan(plain[1]).all()
    own = named_joints(xyz, COCO, wanted, "z", "own")[0, 0]
    assert np.isnan(own[:2]).all() and own[2].tolist() == [0, 0, 0.9]


def test_heads_follow_the_up_axis():
    xyz = man(COCO)[None, None]
    y_down = np.array([[1, 0, 0], [0, 0, -1], [0, 1, 0]])  # z up becomes −y up
    turned = named_joints(xyz @ y_down.T, COCO, ("neck", "head_top"), "-y", "shelf")
    np.testing.assert_allclose(
        turned, named_joints(xyz, COCO, ("neck", "head_top"), "z", "shelf") @ y_down.T, atol=1e-12
    )


def test_heads_without_ears_or_with_their_own():
    clip = named_joints(man(CLIP_SKELETON)[None, None], CLIP_SKELETON, ("neck", "head_top"), "z", "campus")[0, 0]
    np.testing.assert_allclose(clip, [[0.1, 0, 1.5], [0.15, 0, 1.7]])
    own = named_joints(man()[None, None], SHELF14, ("neck", "head_top"), "z", "campus")[0, 0]
    np.testing.assert_allclose(own, [[0, 0, 1.55], [0, 0, 1.8]])


def test_limbs_that_the_set_of_joints_lacks_are_not_asked_for():
    names = [name for name in SHELF14.joint_names if not name.endswith("wrist")]
    skeleton = Skeleton("custom", tuple(names))
    scores = score_poses(poses_of(walk(skeleton=skeleton), skeleton), poses_of(walk()))
    assert scores.pcp.mean == 1 and np.isnan(scores.pcp.groups["lower arms"]) and scores.joints == 1


def test_coco_poses_against_shelf_truth():
    """The ends of the head are 8.7 and 13.9 cm off by the approximation, half its length is 12.5: PCP is full."""
    scores = score_poses(poses_of(walk(skeleton=COCO), COCO), poses_of(walk()))
    assert scores.pcp.mean == 1 and scores.joints == 1
    assert scores.mpjpe_mm == pytest.approx((87 + 139) / 14, abs=0.1)
