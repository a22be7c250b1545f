from dataclasses import replace

import numpy as np
import pytest

from mvpose.clock import Clock, Clocks, identity_clock
from mvpose.errors import ReconstructionError
from mvpose.poses import Poses3D
from mvpose.recon.metrics import clock_errors, evaluate, mpjpe
from mvpose.recon.triangulate import triangulate
from mvpose.skeleton import SKELETONS

COCO = SKELETONS["coco17"]


def poses_of(xyz, time_s):
    T, P, J = xyz.shape[:3]
    return Poses3D(
        np.asarray(time_s, dtype=float), xyz, np.arange(P), np.zeros((T, P, J)), np.full((T, P, J), 4),
        np.zeros((T, P, J, 3, 3), np.float32), COCO,
    )  # fmt: skip


@pytest.fixture
def two(person):
    """Two people 2 m apart who walk side by side at 1 m/s for 2 s: (T, 2, J, 3)."""
    t = np.arange(61) / 30
    return np.stack([person(t, 1.0), person(t, -1.0)], axis=1)


def test_a_perfect_reconstruction_has_no_errors(rig, aligned, two):
    kps = aligned(rig, two)
    score = evaluate(triangulate(kps, rig), kps, rig)
    assert score["reprojection_px_mean"] < 1e-3 and score["reprojection_px_p90"] < 1e-3
    assert score["joints_found"] == 1 and score["n_people"] == 2
    assert score["bone_spread_mm"] < 1e-3 and score["acceleration_mps2"] < 1e-3


def test_reprojection_counts_the_views_that_were_thrown_out(rig, aligned, two):
    kps = aligned(rig, two)
    xy = kps.xy_px.copy()
    xy[:, 1] += (60, 80)
    poses = triangulate(replace(kps, xy_px=xy), rig)
    assert poses.reprojection_px.max() < 1e-3 and (poses.n_views == 3).all()
    score = evaluate(poses, replace(kps, xy_px=xy), rig)
    assert score["reprojection_px_mean"] == pytest.approx(25, abs=0.01)
    assert score["reprojection_px_median"] < 1e-3 and score["reprojection_px_p90"] == pytest.approx(100, abs=0.01)


def test_a_view_that_sees_a_person_the_wrong_way_round_is_measured_so(rig, aligned, two):
    kps = aligned(rig, two)
    xy = kps.xy_px.copy()
    xy[20:40, 1, 0] = xy[20:40, 1, 0][:, COCO.mirrored]
    score = evaluate(triangulate(kps, rig), replace(kps, xy_px=xy), rig)
    assert score["reprojection_px_mean"] < 1e-3


def test_no_error_counts_for_more_than_the_diagonal_of_the_image(rig, aligned, two):
    kps = aligned(rig, two)
    xy = kps.xy_px.copy()
    xy[:, 1] += 1e7
    diagonal = np.hypot(*rig.cameras[1].size_px)
    score = evaluate(triangulate(kps, rig), replace(kps, xy_px=xy), rig)
    assert score["reprojection_px_mean"] == pytest.approx(diagonal / 4, rel=1e-3)


def test_unclear_keypoints_are_not_counted(rig, aligned, two):
    kps = aligned(rig, two)
    xy, score = kps.xy_px.copy(), kps.score.copy()
    xy[:, 1] += 100
    score[:, 1] = 0.2
    poses = triangulate(kps, rig)
    assert evaluate(poses, replace(kps, xy_px=xy, score=score), rig)["reprojection_px_p90"] < 1e-3


def test_joints_found_is_a_share_of_when_two_views_saw_the_person(rig, aligned, two):
    kps = aligned(rig, two)
    xy, score = kps.xy_px.copy(), kps.score.copy()
    for hidden in (xy, score):
        hidden[:30, 1:, 0] = np.nan if hidden is xy else 0  # one view only: not asked for
        hidden[:, :, 1, 9] = np.nan if hidden is xy else 0  # one joint of 17 is never seen
    poses = triangulate(replace(kps, xy_px=xy, score=score), rig)
    assert evaluate(poses, replace(kps, xy_px=xy, score=score), rig)["joints_found"] == pytest.approx(
        (31 * 17 + 61 * 16) / (31 * 17 + 61 * 17)
    )


def test_acceleration_and_bone_spread_of_known_motion(rig, aligned, person):
    t = np.arange(120) / 60
    xyz = person(0.5 * 3.0 * t**2, 0.0)[:, None]
    kps = aligned(rig, xyz, fps=60.0)
    poses = replace(triangulate(kps, rig), xyz_m=xyz)
    assert evaluate(poses, kps, rig)["acceleration_mps2"] == pytest.approx(3.0)
    longer = xyz.copy()
    longer[:, :, [a for a, _ in COCO.limbs]] *= 1.0
    rng = np.random.default_rng(0)
    scale = 1 + rng.normal(0, 0.01, (120, 1, 1, 1))
    base = xyz.mean(axis=2, keepdims=True)
    lengths = [np.linalg.norm(xyz[0, 0, a] - xyz[0, 0, b]) for a, b in COCO.limbs]
    breathing = evaluate(replace(poses, xyz_m=base + (xyz - base) * scale), kps, rig)["bone_spread_mm"]
    assert breathing == pytest.approx(10 * np.mean(lengths), rel=0.25)


def test_poses_and_keypoints_must_fit(rig, aligned, two):
    kps = aligned(rig, two)
    with pytest.raises(ValueError, match="differ"):
        evaluate(triangulate(kps, rig), aligned(rig, two[:-1]), rig)


def test_mpjpe_of_a_known_shift_at_other_times(two):
    truth = poses_of(two, np.arange(61) / 30)
    shifted = poses_of(two[::3, ::-1] + [0.03, 0, 0.04], np.arange(61)[::3] / 30)
    score = mpjpe(shifted, truth)
    assert score["mpjpe_mm"] == pytest.approx(50) and score["median_mm"] == pytest.approx(50)
    assert score["recall"] == 1 and score["n_matched"] == 2 and score["id_switches"] == 0
    assert np.isnan(score["mpjpe_fast_mm"])


def test_fast_joints_are_judged_by_themselves(two):
    wrist = COCO.joint_names.index("left_wrist")
    waving = two.copy()
    waving[:, 0, wrist, 2] += 0.5 * np.sin(2 * np.pi * 2 * np.arange(61) / 30)
    estimate = waving.copy()
    estimate[:, 0, wrist] += [0.2, 0, 0]
    score = mpjpe(poses_of(estimate, np.arange(61) / 30), poses_of(waving, np.arange(61) / 30))
    assert score["mpjpe_fast_mm"] == pytest.approx(200) and score["mpjpe_mm"] == pytest.approx(200 / 34)


def test_an_exchange_of_identities_costs_a_switch_for_each(two):
    swapped = two.copy()
    swapped[40:] = two[40:, ::-1]
    score = mpjpe(poses_of(swapped, np.arange(61) / 30), poses_of(two, np.arange(61) / 30))
    assert score["id_switches"] == 2
    assert score["mpjpe_mm"] == pytest.approx(2000 * 21 / 61)


def test_a_new_identity_costs_one_switch_and_recall(two):
    three = np.full((61, 3, 17, 3), np.nan)
    three[:, 0], three[:40, 1], three[40:, 2] = two[:, 0], two[:40, 1], two[40:, 1]
    score = mpjpe(poses_of(three, np.arange(61) / 30), poses_of(two, np.arange(61) / 30))
    assert score["id_switches"] == 1 and score["mpjpe_mm"] < 1e-9
    assert score["recall"] == pytest.approx((61 + 40) / 122)


def test_nobody_found_and_nothing_in_common(two):
    truth = poses_of(two, np.arange(61) / 30)
    score = mpjpe(poses_of(two * np.nan, truth.time_s), truth)
    assert score["recall"] == 0 and score["n_matched"] == 0 and np.isnan(score["mpjpe_mm"])
    with pytest.raises(ReconstructionError, match="no time in common"):
        mpjpe(poses_of(two, truth.time_s + 100), truth)


def clock(camera, offset_s, rate=1.0, sigma_s=0.0):
    return Clock(camera, offset_s, rate, np.diag([sigma_s**2, 0.0]))


def test_clock_errors_do_not_depend_on_the_truth_s_reference():
    truth = Clocks("a", {"a": identity_clock("a"), "b": clock("b", 3.0, 1.0001), "c": clock("c", -1.0)})
    rate = 1 / 1.0001
    again = Clocks(
        "b", {"a": clock("a", -3.0 * rate, rate), "b": identity_clock("b"), "c": clock("c", -4 * rate, rate)}
    )
    estimate = Clocks("a", {"a": identity_clock("a"), "b": clock("b", 3.004, 1.0001, 0.002), "c": clock("c", -1.001)})
    for true in (truth, again):
        score = clock_errors(estimate, true, {"a": 30.0, "b": 30.0, "c": 30.0})
        assert score["timing_error_ms_max"] == pytest.approx(4) and score["timing_error_ms_mean"] == pytest.approx(2.5)
        assert score["cameras"]["c"]["error_ms"] == pytest.approx(-1) and score["timing_z_max"] == pytest.approx(2)
        assert score["n_clocks"] == 2 and score["n_missing"] == 0


def test_a_wrong_rate_is_a_timing_error_at_the_time_asked_for():
    truth = Clocks("a", {"a": identity_clock("a"), "b": clock("b", 0.0, 1.0001)})
    estimate = Clocks("a", {"a": identity_clock("a"), "b": clock("b", 0.0)}, {"c": "it shows nobody"})
    assert clock_errors(estimate, truth, {"b": 60.0})["timing_error_ms_max"] == pytest.approx(6)


def test_clocks_that_are_missing_are_counted_and_a_foreign_reference_refused():
    truth = Clocks("a", {"a": identity_clock("a"), "b": clock("b", 0.0)})
    alone = clock_errors(Clocks("a", {"a": identity_clock("a")}), truth, {"a": 1.0})
    assert alone["n_missing"] == 1 and alone["n_clocks"] == 0 and np.isnan(alone["timing_error_ms_mean"])
    with pytest.raises(ReconstructionError, match="lack x"):
        clock_errors(Clocks("x", {"x": identity_clock("x")}), truth, {})
