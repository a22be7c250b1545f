from dataclasses import replace

import numpy as np
import pytest

from mvpose.bench.scenes import (
    CAMERAS,
    SCENES,
    Absence,
    Scene,
    film,
    format_scenes,
    make_scene,
    run_scenes,
    visible_truth,
)
from mvpose.synthetic.motion import generate_motion, meeting_motion


@pytest.fixture(scope="module")
def motions():
    rng = np.random.default_rng(7)
    return {str(i): generate_motion(rng, 8.0) for i in range(6)}


def test_people_who_meet_come_within_arms_length_twice_and_not_into_each_other():
    for seed in range(4):
        motion = meeting_motion(np.random.default_rng(seed), 30.0)
        pelvis = motion.xyz_m[:, :, motion.skeleton.joint_names.index("pelvis"), :2]
        apart = np.linalg.norm(pelvis[:, 0] - pelvis[:, 1], axis=-1)
        assert 0.1 < apart.min() < 0.5 and apart.max() > 2.5
        near = np.concatenate([[False], apart < 0.6, [False]])
        assert np.count_nonzero(np.diff(near.astype(int)) == 1) >= 2
        assert 0.12 < near.mean() < 0.5


def test_who_is_hidden_is_seen_by_the_other_cameras_alone(motions):
    motion = generate_motion(np.random.default_rng(0), 6.0, 2)
    scene = Scene(motion, (Absence(1, 2.0, 3.0, frozenset({0, 2})),))
    for camera in range(3):
        gone = np.isnan(scene.seen_by(camera).xyz_m).any(axis=(2, 3))
        assert not gone[:, 0].any()
        inside = (motion.time_s >= 2.0) & (motion.time_s < 3.0)
        assert np.array_equal(gone[:, 1], inside if camera != 1 else np.zeros_like(inside))


def test_the_truth_is_what_two_cameras_can_see(motions):
    scene, world = make_scene("one in one view only", motions, 0, seconds=4.0)
    assert scene.motion.n_people == 4
    truth = visible_truth(scene, world, np.arange(10) / 10 + 1.0)
    there = np.isfinite(truth.xyz_m).all(axis=-1).any(axis=-1)
    assert there[:, :3].mean() > 0.8 and not there[:, 3].any()
    keypoints = film(scene, world, 0)
    seen = sorted(np.median(np.diff(k.frame_ptr)) for k in keypoints.values())
    assert seen == [3.0] * (CAMERAS - 1) + [4.0]


@pytest.mark.parametrize("title", ["two meet and touch", "four come and go"])
def test_identities_and_clocks_survive(title, motions):
    """Measured: no switch, clocks within 1.2 and 1.6 ms, nobody invented."""
    (row,) = run_scenes(motions, [2], lambda *call: None, scenes=[title], seconds=12.0)
    assert row.matches.id_switches == 0 and row.found == row.people
    assert row.confidently_wrong == 0 and row.refused == 0
    assert 0 < np.abs(row.clock_ms).max() < 10
    assert row.invented == 0


def test_every_scene_has_a_line(motions):
    (row,) = run_scenes(motions, [0], lambda *call: None, scenes=["two cross"], seconds=6.0)
    lines = format_scenes([row, replace(row, seed=1), replace(row, scene="another", clock_ms=())]).splitlines()
    assert [line.split("  ")[0] for line in lines[1:]] == ["two cross", "another"]
    assert lines[1].split()[2] == "2"
    assert "nan" in lines[2]


def test_scenes_are_as_many_as_they_are_to_be():
    assert {"two cross", "two meet and touch", "four come and go", "one in one view only"} < set(SCENES)
