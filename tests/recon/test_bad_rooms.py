"""Rooms that cannot be reconstructed well: a clear line or a poorer answer that says so, and nobody invented."""

from dataclasses import replace

import numpy as np
import pytest

from mvpose.bench.clocks import Case, record
from mvpose.bench.rooms import invented_people
from mvpose.calib.rig import CameraRig
from mvpose.detect.tracks import track_people
from mvpose.errors import ReconstructionError
from mvpose.pipeline import Settings, build_poses
from mvpose.recon.align import timeline
from mvpose.recon.metrics import mpjpe
from mvpose.synthetic.motion import generate_motion
from mvpose.synthetic.noise import DetectorNoise
from mvpose.synthetic.rigs import ring_rig
from mvpose.synthetic.world import observe

SECONDS = 8.0


def film(rig, seed=0, people=2, noise=None):
    """A world of two people before the rig, and its tracked keypoints."""
    rng = np.random.default_rng(seed)
    motion = generate_motion(rng, SECONDS + 2, people)
    world = record(rng, motion, rig, Case(SECONDS, (30.0,) * len(rig), max_offset_s=0.5))
    seen = observe(world, np.random.default_rng(1000 + seed), noise or DetectorNoise(), tracked=False)
    return world, {name: track_people(keypoints) for name, keypoints in seen.items()}


def ring(seed=0, cameras=5):
    return ring_rig(cameras, rng=np.random.default_rng(50 + seed))


def build(world, keypoints, rig=None, method="triangulate"):
    """Reconstruct all frames, or by voxels, which are slow, six of them."""
    clocks, settings = world.true_clocks("cam01"), Settings(fps=30.0)
    if method == "voxel":
        start_s = timeline(keypoints, clocks, fps=5.0)[0] + 0.5
        settings = Settings(method="voxel", fps=5.0, start_s=start_s, end_s=start_s + 1.1)
    return build_poses(keypoints, rig or world.rig, clocks, settings).poses


def truth(world, poses):
    return world.truth_poses(poses.time_s, "cam01")


def normalised_error(world, poses):
    """Return the RMS of the error over its σ, without the largest 1 %."""
    true = truth(world, poses).xyz_m
    apart = np.linalg.norm(poses.xyz_m[:, :, None] - true[:, None], axis=-1)
    who = np.nanmean(apart, axis=(0, 3)).argmin(axis=1)
    error = poses.xyz_m - true[:, who]
    known = np.isfinite(error).all(axis=-1)
    z2 = np.einsum("mi,mij,mj->m", error[known], np.linalg.inv(poses.cov_m2[known].astype(float)), error[known]) / 3
    return np.sqrt(np.sort(z2)[: int(0.99 * len(z2))].mean())


def moved(camera, *, turn_deg=0.0, right_m=0.0):
    """The camera turned about its vertical axis, and moved to its right."""
    c, s = np.cos(np.radians(turn_deg)), np.sin(np.radians(turn_deg))
    change = np.eye(4)
    change[:3, :3] = [[c, 0, s], [0, 1, 0], [-s, 0, c]]
    change[0, 3] = -right_m
    return replace(camera, cam_from_world=change @ camera.cam_from_world)


def with_camera(rig, index, camera):
    return CameraRig((*rig.cameras[:index], camera, *rig.cameras[index + 1 :]))


def test_one_view_is_refused_in_one_line():
    world, keypoints = film(ring())
    with pytest.raises(ReconstructionError, match="3D needs two") as refusal:
        build(world, {"cam01": keypoints["cam01"]})
    assert "\n" not in str(refusal.value)


def test_nobody_there_is_refused_in_one_line():
    world, keypoints = film(ring())
    nobody = {name: k.only(np.arange(0)) for name, k in keypoints.items()}
    for seen in (nobody, {**nobody, "cam02": keypoints["cam02"]}):
        with pytest.raises(ReconstructionError, match="no person is seen by two cameras at once") as refusal:
            build(world, seen)
        assert "\n" not in str(refusal.value)


def test_two_views_that_are_nearly_parallel_say_how_little_they_know():
    """Measured with seeds 0…3: σ of 0.30 to 0.38 m at a baseline of half a metre, and errors of 0.9 to 1.0 σ."""
    first = ring().cameras[0]
    world, keypoints = film(CameraRig((first, moved(replace(first, name="cam02"), right_m=0.5))))
    poses = build(world, keypoints)
    known = np.isfinite(poses.xyz_m).all(axis=-1)
    sigma_m = np.sqrt(np.trace(poses.cov_m2, axis1=-2, axis2=-1)[known])
    assert set(np.unique(poses.n_views)) <= {0, 2}
    assert 0.15 < np.median(sigma_m) < 0.5
    assert 0.6 < normalised_error(world, poses) < 1.5


def test_two_views_from_one_place_show_voxels_nobody():
    """Without the joints that two views place, two people, 1.1 m wrong."""
    first = ring().cameras[0]
    world, keypoints = film(CameraRig((first, replace(first, name="cam02"))))
    with pytest.raises(ReconstructionError, match="no person is found"):
        build(world, keypoints, method="voxel")


def test_two_views_from_one_place_show_next_to_nothing():
    first = ring().cameras[0]
    world, keypoints = film(CameraRig((first, moved(replace(first, name="cam02"), right_m=0.1))))
    poses = build(world, keypoints)
    assert np.isfinite(poses.xyz_m).all(axis=-1).mean() < 0.01  # measured with seeds 0…3: 0 to 0.5 %


def test_cameras_that_look_elsewhere_do_no_harm():
    """Measured with seeds 0…3: 37 to 45 mm with the three others, recall 0.96 to 1.00."""
    rig = ring()
    for index in (3, 4):
        rig = with_camera(rig, index, moved(rig.cameras[index], turn_deg=180.0))
    world, keypoints = film(rig)
    assert not len(keypoints["cam04"].xy_px)
    poses = build(world, keypoints)
    score = mpjpe(poses, truth(world, poses))
    assert 15 < score["mpjpe_mm"] < 60 and score["recall"] > 0.95
    assert poses.n_views.max() <= 3
    assert invented_people(poses, world, "cam01")[0] == 0


@pytest.mark.parametrize("seed", [0, 1])
def test_twenty_false_people_a_frame_are_not_believed(seed):
    """Measured with seeds 0…5: 25 to 37 mm, recall 0.94 to 1.00, nobody invented but for 7 frames with one seed.

    ``MIN_EVIDENCE`` was chosen by these; of seeds 200…207 one has an invented person of 3 s.
    """
    world, keypoints = film(ring(seed), seed, noise=DetectorNoise(false_people=20.0))
    assert np.diff(keypoints["cam01"].frame_ptr).mean() > 15
    poses = build(world, keypoints)
    score = mpjpe(poses, truth(world, poses))
    assert 12 < score["mpjpe_mm"] < 50 and score["recall"] > 0.92
    invented, found = invented_people(poses, world, "cam01")
    assert invented < 0.02 * found


@pytest.mark.parametrize("wrong", ["another's pose", "turned by 15°", "turned by 3°"])
def test_a_wrong_camera_is_left_out_and_named(wrong, caplog):
    """Measured with seeds 0…3: 29 to 34 mm, and 25 to 27 with five good cameras."""
    world, keypoints = film(ring())
    second, third = world.rig.cameras[1:3]
    camera = {
        "another's pose": replace(second, cam_from_world=third.cam_from_world),
        "turned by 15°": moved(second, turn_deg=15.0),
        "turned by 3°": moved(second, turn_deg=3.0),
    }[wrong]
    poses = build(world, keypoints, with_camera(world.rig, 1, camera))
    score = mpjpe(poses, truth(world, poses))
    assert 12 < score["mpjpe_mm"] < 50 and score["recall"] > 0.95 and score["id_switches"] == 0
    assert invented_people(poses, world, "cam01")[0] == 0
    assert (poses.n_views == 5).mean() < 0.05
    assert 0.6 < normalised_error(world, poses) < 1.5
    named = [record.message for record in caplog.records if "check its calibration" in record.message]
    assert len(named) == 1 and named[0].startswith("cam02: only")


def test_a_good_room_warns_of_nobody(caplog):
    world, keypoints = film(ring())
    poses = build(world, keypoints)
    assert (poses.n_views >= 4).mean() > 0.8
    assert not caplog.records


def test_voxels_name_a_wrong_camera_too_and_no_good_one(caplog):
    world, keypoints = film(ring())
    build(world, keypoints, method="voxel")
    assert not caplog.records
    second = moved(world.rig.cameras[1], turn_deg=15.0)
    poses = build(world, keypoints, with_camera(world.rig, 1, second), method="voxel")
    assert invented_people(poses, world, "cam01")[0] == 0
    named = [record.message for record in caplog.records if "check its calibration" in record.message]
    assert len(named) == 1 and named[0].startswith("cam02: only")
