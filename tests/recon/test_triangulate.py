from dataclasses import replace

import numpy as np
import pytest

from mvpose.calib.rig import CameraRig
from mvpose.errors import ReconstructionError
from mvpose.geometry import projection_matrices
from mvpose.recon.align import align
from mvpose.recon.associate import associate
from mvpose.recon.triangulate import normalise, triangulate, triangulate_points
from mvpose.skeleton import SKELETONS
from mvpose.synthetic.motion import generate_motion
from mvpose.synthetic.noise import DetectorNoise
from mvpose.synthetic.rigs import ring_rig
from mvpose.synthetic.world import make_world, observe

COCO = SKELETONS["coco17"]


@pytest.fixture
def helix():
    """A person who walks a helix's circle: (T, 1, J, 3)."""

    def make(person, T=40):
        t = np.linspace(0, 2 * np.pi, T)
        return person(np.cos(t), np.sin(t))[:, None]

    return make


def test_project_then_triangulate_is_identity(rig, person, aligned, helix):
    xyz = helix(person)
    poses = triangulate(aligned(rig, xyz), rig)
    assert np.allclose(poses.xyz_m, xyz, atol=1e-6)
    assert (poses.n_views == 4).all() and poses.reprojection_px.max() < 1e-3
    assert poses.cameras == rig.names and poses.up == rig.up


def test_a_planted_outlier_view_is_thrown_out(rig, person, aligned, helix):
    kps = aligned(rig, helix(person))
    xy = kps.xy_px.copy()
    xy[10, 2, 0, 5] += (120, -90)
    poses = triangulate(replace(kps, xy_px=xy), rig)
    assert np.allclose(poses.xyz_m, helix(person), atol=1e-6)
    assert poses.n_views[10, 0, 5] == 3 and (poses.n_views == 4).sum() == poses.n_views.size - 1
    assert poses.reprojection_px[10, 0, 5] < 1e-3


def test_the_two_certain_views_outweigh_two_doubtful_ones(rig, person, aligned, helix):
    kps = aligned(rig, helix(person))
    noise = np.random.default_rng(0).normal(0, 15, kps.xy_px[:, 2:].shape)
    xy, sigma = kps.xy_px.copy(), kps.sigma_px.copy()
    xy[:, 2:] += noise
    flat = triangulate(replace(kps, xy_px=xy), rig).xyz_m
    sigma[:, 2:] = 50.0
    weighed = triangulate(replace(kps, xy_px=xy, sigma_px=sigma), rig).xyz_m
    errors = [np.linalg.norm(x - helix(person), axis=-1).mean() for x in (flat, weighed)]
    assert errors[1] < 0.2 * errors[0]


def test_the_covariance_is_that_of_the_errors(rig):
    rng = np.random.default_rng(1)
    P = projection_matrices(rig.cameras)
    truth = np.array([0.3, -0.2, 1.1])
    x = np.stack([c.undistort(c.project(truth)) for c in rig]) + rng.normal(0, 0.005, (3000, 4, 2))
    points = triangulate_points(P, x, np.full((3000, 4), 0.005))
    error = points.xyz_m - truth
    mahalanobis = np.einsum("mi,mij,mj->m", error, np.linalg.inv(points.cov_m2), error)
    assert 2.0 < mahalanobis.mean() < 3.2  # 3 by theory; a covariance is enlarged where views disagree, never shrunk
    assert np.abs(error.mean(axis=0)).max() < 0.002


@pytest.mark.parametrize(("n_cameras", "low", "high"), [(2, 0.6, 1.3), (3, 0.75, 1.25), (5, 0.8, 1.25)])
def test_the_covariance_holds_for_a_detector_with_gross_errors(n_cameras, low, high):
    """Measured with seeds 0…3, RMS of the error over its σ without the largest 1 %: 0.9, 0.9 to 1.0, 0.9 to 1.0."""
    rng = np.random.default_rng(0)
    world = make_world(
        rng, generate_motion(rng, 20.0), ring_rig(n_cameras, rng=rng), fps=(15,) * n_cameras, max_offset_s=1,
        max_drift_ppm=0,
    )  # fmt: skip
    clocks = world.true_clocks("cam01")
    tracks = align(observe(world, rng, DetectorNoise()), clocks, np.arange(1.5, 17.0, 1 / 15))
    poses = triangulate(associate(tracks, world.rig), world.rig)
    error = (poses.xyz_m - world.truth_poses(poses.time_s, "cam01").xyz_m)[:, 0]
    known = np.isfinite(error).all(axis=-1)
    z2 = np.einsum("mi,mij,mj->m", error[known], np.linalg.inv(poses.cov_m2[:, 0][known].astype(float)), error[known])
    assert known.mean() > 0.8
    assert low < np.sqrt(np.sort(z2 / 3)[: int(0.99 * len(z2))].mean()) < high


def test_two_views_that_do_not_meet_give_nothing(rig, person, aligned, helix):
    kps = aligned(rig, helix(person))
    xy = kps.xy_px.copy()
    xy[:, 2:] = np.nan
    xy[5, 1, 0, 9, 1] += 200
    poses = triangulate(replace(kps, xy_px=xy), rig)
    assert np.isnan(poses.xyz_m[5, 0, 9]).all() and poses.n_views[5, 0, 9] == 0
    assert np.isnan(poses.reprojection_px[5, 0, 9]) and np.isnan(poses.cov_m2[5, 0, 9]).all()
    assert np.isfinite(np.delete(poses.xyz_m, 5, axis=0)).all()


def test_nearly_parallel_rays_give_nothing(rig, person, aligned, helix):
    near = rig.cameras[0]
    shifted = near.cam_from_world.copy()
    shifted[0, 3] += 0.03  # a baseline of 3 cm at 5 m is 0.3°
    twins = CameraRig((near, replace(near, name="twin", cam_from_world=shifted)))
    assert np.isnan(triangulate(aligned(twins, helix(person)), twins).xyz_m).all()


def test_one_view_and_none_give_nothing(rig, person, aligned, helix):
    kps = aligned(rig, helix(person))
    xy = kps.xy_px.copy()
    xy[3, 1:, :, 4] = np.nan
    xy[4] = np.nan
    poses = triangulate(replace(kps, xy_px=xy), rig)
    missing = np.isnan(poses.xyz_m).any(axis=-1)
    assert missing[4].all() and missing[3, 0, 4] and missing.sum() == 18
    assert (poses.n_views[missing] == 0).all()


def test_points_behind_a_camera_are_refused(rig):
    a, b = rig.cameras[:2]
    P = projection_matrices([a, b])
    behind = a.center_m + (a.center_m - np.array([0, 0, 1.0]))  # on the far side of camera a
    cam = P[:, :, :3] @ behind + P[:, :, 3]
    x = (cam[:, :2] / cam[:, 2:])[None]
    assert np.isnan(triangulate_points(P, x, np.full((1, 2), 0.005)).xyz_m).all()


def test_a_view_that_takes_left_for_right_is_put_right(rig, person, aligned, helix):
    kps = aligned(rig, helix(person))
    xy = kps.xy_px.copy()
    left, right = COCO.indices(["left_ankle", "right_ankle"])
    xy[20:25, 1, 0, [left, right]] = kps.xy_px[20:25, 1, 0, [right, left]]
    sigma = np.full_like(kps.sigma_px, 1.0)
    poses = triangulate(replace(kps, xy_px=xy, sigma_px=sigma), rig)
    assert np.allclose(poses.xyz_m, helix(person), atol=1e-6)
    assert (poses.n_views == 4).all() and poses.reprojection_px.max() < 1e-3


def test_the_order_of_cameras_changes_nothing(rig, person, aligned, helix):
    rng = np.random.default_rng(2)
    kps = aligned(rig, helix(person))
    kps = replace(kps, xy_px=kps.xy_px + rng.standard_t(2, kps.xy_px.shape) * 5)
    order = [2, 0, 3, 1]
    turned = replace(
        kps,
        cameras=tuple(kps.cameras[i] for i in order),
        xy_px=kps.xy_px[:, order],
        score=kps.score[:, order],
        sigma_px=kps.sigma_px[:, order],
    )
    one, two = triangulate(kps, rig), triangulate(turned, rig)
    assert np.allclose(one.xyz_m, two.xyz_m, atol=1e-6, equal_nan=True)
    assert np.array_equal(one.n_views, two.n_views)


def test_ten_cameras_are_all_used(make_rig, person, aligned, helix):
    ring = make_rig(np.arange(10) * 36)
    kps = aligned(ring, helix(person))
    xy = kps.xy_px.copy()
    xy[:, :3] += 150  # the first three are wrong, each in the same way
    poses = triangulate(replace(kps, xy_px=xy), ring)
    assert np.allclose(poses.xyz_m, helix(person), atol=1e-6) and (poses.n_views == 7).all()


def test_normalised_sigma_is_in_focal_lengths(rig, person, aligned, helix):
    kps = aligned(rig, helix(person))
    x, sigma = normalise(kps.xy_px, kps.sigma_px, rig.cameras)
    assert np.allclose(sigma, 5 / 900)
    assert np.allclose(rig.cameras[1].undistort(kps.xy_px[3, 1, 0]), x[3, 1, 0])


def test_nobody_is_refused_with_a_clear_line(rig, person, aligned, helix):
    with pytest.raises(ReconstructionError, match="no person is seen by two cameras"):
        triangulate(aligned(rig, helix(person)[:, :0]), rig)
