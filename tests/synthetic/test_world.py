from dataclasses import replace

import numpy as np
import pytest

from mvpose.clock import Clock
from mvpose.geometry import projection_matrices, triangulate_linear
from mvpose.skeleton import CLIP_SKELETON
from mvpose.synthetic.motion import crossing_motion, generate_motion
from mvpose.synthetic.noise import DetectorNoise
from mvpose.synthetic.rigs import ring_rig
from mvpose.synthetic.world import (
    World,
    in_image,
    make_world,
    observe,
    observe_labelled,
    project_visible,
    with_lost_frames,
    with_repeats,
)


@pytest.fixture(scope="module")
def world() -> World:
    rng = np.random.default_rng(0)
    motion = crossing_motion(rng, 40.0)
    return make_world(rng, motion, ring_rig(4, rng=rng), fps=[30, 30, 25, 60], max_offset_s=8.0, max_drift_ppm=100.0)


@pytest.fixture(scope="module")
def detected(world):
    return observe_labelled(world, np.random.default_rng(1), DetectorNoise(false_people=0.2))


def test_one_instant_is_one_session_time_whatever_camera_saw_it(world):
    instants = np.linspace(10, 30, 7)
    for reference in world.rig.names:
        clocks = world.true_clocks(reference)
        assert (clocks[reference].offset_s, clocks[reference].rate) == (0.0, 1.0)
        session = [clocks[name].to_session(world.clocks[name].to_camera(instants)) for name in world.rig.names]
        for other in session[1:]:
            np.testing.assert_allclose(other, session[0], atol=1e-9)


def test_cameras_start_and_drift_as_asked_and_record_together(world):
    starts = np.array([world.clocks[name].offset_s for name in world.rig.names])
    ends = np.array([world.clocks[name].to_session(world.frame_times_s[name][-1]) for name in world.rig.names])
    assert 1.0 < np.ptp(starts) <= 8.0
    assert ends.min() - starts.max() >= 40 - 1.25 * 8 - 0.1
    assert starts.min() >= 0
    assert ends.max() <= 40
    drift = np.array([world.clocks[name].rate - 1 for name in world.rig.names])
    assert 1e-6 < np.abs(drift).max() <= 1e-4
    for name, fps in zip(world.rig.names, (30, 30, 25, 60), strict=True):
        assert world.frame_times_s[name][0] == 0
        np.testing.assert_allclose(np.diff(world.frame_times_s[name]), 1 / fps, atol=1e-9)


def test_exact_observations_triangulate_to_the_truth():
    rng = np.random.default_rng(0)
    motion = generate_motion(rng, 6.0)
    rig = ring_rig(3, rng=rng)
    rates = {"cam01": 1.0, "cam02": 1.0001, "cam03": 0.9999}
    starts = {"cam01": 1.0, "cam02": 1.5, "cam03": 2.0 + 1 / 3}
    clocks = {n: Clock(n, starts[n], rates[n], np.zeros((2, 2))) for n in rig.names}
    # Every camera takes frames at the same instants, each on its own clock.
    instants = np.arange(2.4, 5.0, 1 / 30)
    world = World(motion, rig, clocks, {n: clocks[n].to_camera(instants) for n in rig.names})
    keypoints = observe(world, rng)
    x = np.stack([rig[n].undistort(keypoints[n].xy_px) for n in rig.names], axis=-2)
    found = triangulate_linear(projection_matrices(rig.cameras), x, np.ones(3))
    truth = world.truth_poses(keypoints["cam02"].time_s, "cam02")
    visible = np.isfinite(found).all(axis=-1)
    assert visible.mean() > 0.95
    np.testing.assert_allclose(found[visible], truth.xyz_m[:, 0][visible], atol=1e-6)
    session = world.true_clocks("cam02")["cam01"].to_session(keypoints["cam01"].time_s)
    np.testing.assert_allclose(session, keypoints["cam02"].time_s, atol=1e-9)


def test_truth_counts_the_views_and_is_nan_outside_the_motion(world):
    poses = world.truth_poses(np.array([-100.0, 10.0]), "cam01")
    assert poses.skeleton == CLIP_SKELETON
    assert np.isnan(poses.xyz_m[0]).all()
    assert np.isfinite(poses.xyz_m[1]).all()
    assert (poses.n_views[0] == 0).all()
    counted = sum(in_image(camera, poses.xyz_m[1]).astype(int) for camera in world.rig)
    np.testing.assert_array_equal(poses.n_views[1], counted)


def test_rows_are_who_they_are_said_to_be_in_no_order(world, detected):
    for camera in world.rig:
        k, person = detected[camera.name].keypoints, detected[camera.name].truth_person
        xyz = world.motion.at(world.clocks[camera.name].to_session(k.time_s))
        joints = world.motion.skeleton.indices(CLIP_SKELETON.joint_names)
        real = person >= 0
        truth = camera.project(xyz[k.frame_index[real], person[real]][:, joints])
        height = np.ptp(truth[..., 1], axis=1)
        error = np.nanmedian(np.linalg.norm(k.xy_px[real] - truth, axis=-1), axis=1) / height
        assert np.median(error) < 0.04
        two = np.flatnonzero((k.frame_ptr[1:] - k.frame_ptr[:-1]) == 2)
        first = person[k.frame_ptr[two]]
        assert 0.35 < first[first >= 0].mean() < 0.65
        assert 0.05 < (~real).sum() / k.n_frames < 0.45  # 0.2 wanted; some 7 appearances in 35 s
        assert not set(k.track_id[~real]) & set(k.track_id[real])


def test_track_ids_mostly_last(detected):
    for observation in detected.values():
        ids, person = observation.keypoints.track_id, observation.truth_person
        assert (ids >= 0).all()
        tracks = np.unique(ids[person >= 0])
        assert 2 <= len(tracks) <= 20
        for p in (0, 1):
            assert (np.diff(ids[person == p]) != 0).mean() < 0.01


def test_trackers_err_at_overlaps_over_many_recordings():
    rng = np.random.default_rng(0)
    impure = []
    for _ in range(6):
        motion = generate_motion(rng, 60.0, 3)
        world = make_world(rng, motion, ring_rig(2, rng=rng), fps=[15, 15], max_offset_s=1.0, max_drift_ppm=0.0)
        for observation in observe_labelled(world, rng, DetectorNoise()).values():
            pairs = set(zip(observation.keypoints.track_id, observation.truth_person, strict=True))
            impure.append(len(pairs) > len({track for track, _ in pairs}))
    assert 0.2 < np.mean(impure) <= 1.0  # three people in a small room meet often; 12 recordings


def test_without_noise_identities_are_right_and_joints_exact(world):
    for name, observation in observe_labelled(world, np.random.default_rng(0)).items():
        np.testing.assert_array_equal(observation.keypoints.track_id, observation.truth_person)
        assert set(np.unique(observation.keypoints.score)) <= {0.0, 1.0}
        assert np.isfinite(observation.keypoints.xy_px).all(axis=-1).mean() > 0.8, name


def test_untracked_rows_carry_no_identity(world):
    keypoints = observe(world, np.random.default_rng(0), DetectorNoise(), tracked=False)
    assert all((k.track_id == -1).all() for k in keypoints.values())


def test_dropped_and_jittered_frames_keep_true_times():
    rng = np.random.default_rng(0)
    motion = generate_motion(rng, 60.0)
    rig = ring_rig(2)
    world = make_world(
        rng, motion, rig, fps=[30, 30], max_offset_s=2.0, max_drift_ppm=0.0, dropped_frames=0.1, jitter_s=0.003
    )
    for name in rig.names:
        gaps = np.diff(world.frame_times_s[name])
        assert (gaps > 0).all()
        assert len(gaps) / (world.frame_times_s[name][-1] * 30) == pytest.approx(0.9, abs=0.03)
        assert np.std(gaps[gaps < 0.05]) == pytest.approx(0.003 * np.sqrt(2), rel=0.2)
        assert (gaps > 0.05).mean() == pytest.approx(0.1, abs=0.03)


def test_absent_people_are_not_observed():
    rng = np.random.default_rng(0)
    motion = generate_motion(rng, 10.0, 2)
    xyz = motion.xyz_m.copy()
    xyz[motion.time_s > 5, 1] = np.nan
    motion = replace(motion, xyz_m=xyz)
    world = make_world(rng, motion, ring_rig(2), fps=[30, 30], max_offset_s=1.0, max_drift_ppm=0.0)
    for name, observation in observe_labelled(world, rng, DetectorNoise()).items():
        k = observation.keypoints
        when = world.clocks[name].to_session(k.time_s[k.frame_index])
        assert when[observation.truth_person == 1].max() <= 5
        assert when[observation.truth_person == 0].max() > 8


def test_a_rolling_shutter_sees_each_joint_at_the_time_of_its_row():
    readout_s = {"cam01": 0.02, "cam02": 0.0}
    motion = generate_motion(np.random.default_rng(0), 12.0, 2)
    rig = ring_rig(2)
    options = {"fps": [30, 30], "max_offset_s": 1.0, "max_drift_ppm": 100.0}
    world = make_world(np.random.default_rng(0), motion, rig, readout_s=list(readout_s.values()), **options)
    assert world.readout_s == readout_s
    joints = motion.skeleton.indices(CLIP_SKELETON.joint_names)
    for camera in rig:
        observed = observe_labelled(world, np.random.default_rng(0))[camera.name]
        k, person, clock = observed.keypoints, observed.truth_person, world.clocks[camera.name]
        frame_s = k.time_s[k.frame_index]
        late_s = readout_s[camera.name] * k.xy_px[..., 1] / (camera.size_px[1] - 1)

        def seen_at(joint, own_s, camera=camera, clock=clock, person=person):
            xyz = motion.at(clock.to_session(np.nan_to_num(own_s)))
            return camera.project(xyz[np.arange(len(person)), person, joints[joint]])

        at_once = np.stack([seen_at(j, frame_s) for j in range(len(joints))], axis=1)
        at_its_row = np.stack([seen_at(j, frame_s + late_s[:, j]) for j in range(len(joints))], axis=1)
        assert np.nanmax(np.abs(k.xy_px - at_its_row)) < 0.002  # measured: 0.0001
        # A joint has moved on by its speed in the image times its lateness.
        speed = np.stack([seen_at(j, frame_s + 1e-3) - seen_at(j, frame_s - 1e-3) for j in range(len(joints))], axis=1)
        expected = speed / 2e-3 * late_s[..., None]
        moved = k.xy_px - at_once
        if readout_s[camera.name] == 0:
            assert np.nanmax(np.abs(moved)) < 1e-9
        else:
            # Measured: 0.96 px on average and up to 19; the rest, 0.03 px, is acceleration.
            assert 0.8 < np.nanmean(np.abs(moved)) < 1.2
            assert np.nanmax(np.abs(moved)) > 10
            assert np.nanmean(np.abs(moved - expected)) < 0.06


def test_lost_frames_close_up_in_the_written_times_only():
    motion = generate_motion(np.random.default_rng(0), 12.0)
    options = {"fps": [30, 30], "max_offset_s": 1.0, "max_drift_ppm": 0.0, "jitter_s": 0.003}
    whole = make_world(np.random.default_rng(0), motion, ring_rig(2), **options)
    world = with_lost_frames(with_lost_frames(whole, "cam01", 4.0, 5), "cam01", 2.0, 1)
    before, written = whole.frame_times_s["cam01"], world.frame_times_s["cam01"]
    lost = [*np.flatnonzero(before >= 2.0)[:1], *np.flatnonzero(before >= 4.0)[:5]]
    np.testing.assert_array_equal(world.taken_s("cam01"), np.delete(before, lost))
    np.testing.assert_array_equal(world.taken_s("cam02"), whole.frame_times_s["cam02"])
    lag = world.taken_s("cam01") - written
    assert len(np.unique(lag.round(9))) == 3  # nothing, one frame, six frames
    assert lag[[0, -1]] == pytest.approx([0, 6 / 30], abs=0.03)
    assert np.diff(written).max() < 1.9 / 30

    seen, all_seen = (observe(w, np.random.default_rng(0))["cam01"] for w in (world, whole))
    np.testing.assert_array_equal(seen.time_s, written)
    np.testing.assert_array_equal(seen.xy_px, all_seen.only(np.flatnonzero(~np.isin(all_seen.frame_index, lost))).xy_px)
    with pytest.raises(ValueError, match="cam01 has no frame after"):
        with_lost_frames(whole, "cam01", before[-3], 3)


def test_repeated_frames_show_what_the_frame_before_showed_and_keep_their_times(detected):
    keypoints = detected["cam01"].keypoints
    repeated = with_repeats(np.random.default_rng(0), keypoints, 0.2)
    np.testing.assert_array_equal(repeated.time_s, keypoints.time_s)

    def frames(k):
        return [
            k.xy_px[a:b].tobytes() + k.score[a:b].tobytes() for a, b in zip(k.frame_ptr, k.frame_ptr[1:], strict=False)
        ]

    old, new = frames(keypoints), frames(repeated)
    changed = [f for f in range(len(old)) if new[f] != old[f]]
    assert all(new[f] == new[f - 1] for f in changed)
    assert len(changed) / len(old) == pytest.approx(0.2, abs=0.04)
    assert set(repeated.without_repeats()[1]) == {f for f in changed if new[f]}
    assert keypoints.without_repeats()[0] is keypoints


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"duration_s": 11.0}, "motion lasts"),
        ({"max_offset_s": 6.0}, "need a session"),
        ({"fps": [30]}, "1 frame rates for 2 cameras"),
    ],
)
def test_impossible_worlds_are_refused(change, message):
    options = {"fps": [30, 30], "max_offset_s": 1.0, "max_drift_ppm": 0.0} | change
    with pytest.raises(ValueError, match=message):
        make_world(np.random.default_rng(0), generate_motion(np.random.default_rng(0), 10.0), ring_rig(2), **options)


def test_a_lens_does_not_fold_far_points_into_the_image():
    camera = replace(ring_rig(1).cameras[0], dist=np.array([-0.4, 0.0, 0.0, 0.0, 0.0]))
    direction = np.array([1.6, 0.0, 1.0]) @ camera.R + camera.center_m
    assert camera.sees(direction)  # the bare polynomial folds it
    assert not in_image(camera, direction)
    assert np.isnan(project_visible(camera, direction[None])).all()
