import numpy as np
import pytest

from mvpose.calib.camera import Camera
from mvpose.geometry import (
    epipolar_residual,
    essential_matrix,
    homogeneous,
    projection_matrices,
    rays,
    sampson_distance,
    skew,
    triangulate_linear,
)
from mvpose.synthetic.rigs import ring_rig


def camera(name="a", R=None, center=(0.0, 0.0, 0.0)):
    cam_from_world = np.eye(4)
    cam_from_world[:3, :3] = np.eye(3) if R is None else R
    cam_from_world[:3, 3] = -cam_from_world[:3, :3] @ np.array(center)
    K = np.array([[1000.0, 0, 640], [0, 1000, 360], [0, 0, 1]])
    return Camera(name, (1280, 720), K, np.zeros(5), cam_from_world)


@pytest.fixture(scope="module")
def rig():
    return ring_rig(4, rng=np.random.default_rng(0))


@pytest.fixture(scope="module")
def points():
    return np.random.default_rng(1).uniform([-1, -1, 0], [1, 1, 2], (50, 3))


def normalised(cam, xyz):
    return cam.undistort(cam.project(xyz))


def test_skew_is_the_cross_product():
    v, w = np.array([1.0, -2, 3]), np.array([0.5, 4, -1])
    np.testing.assert_allclose(skew(v) @ w, np.cross(v, w))


def test_both_images_of_a_point_satisfy_the_essential_matrix(rig, points):
    for a in rig:
        for b in rig:
            if a is not b:
                E = essential_matrix(a, b)
                x_a, x_b = homogeneous(normalised(a, points)), homogeneous(normalised(b, points))
                np.testing.assert_allclose(np.einsum("ni,ij,nj->n", x_b, E, x_a), 0, atol=1e-7)
                np.testing.assert_allclose(np.linalg.svd(E)[1], [1, 1, 0], atol=1e-9)  # Hartley & Zisserman, 9.17
                both = essential_matrix(b, a)
                assert min(np.abs(both - E.T).max(), np.abs(both + E.T).max()) < 1e-9


def test_the_essential_matrix_of_a_rectified_pair_is_known():
    # b stands 2 m to the right of a: a point keeps its row. t = (−2, 0, 0), of unit length (−1, 0, 0).
    E = essential_matrix(camera("a"), camera("b", center=(2, 0, 0)))
    np.testing.assert_allclose(E, [[0, 0, 0], [0, 0, 1], [0, -1, 0]], atol=1e-12)
    rows = np.array([0.1, 0.13])
    x_a, x_b = np.array([0.3, rows[0]]), np.array([-0.2, rows[1]])
    assert sampson_distance(x_a, x_b, E) == pytest.approx((rows[1] - rows[0]) / np.sqrt(2))
    assert epipolar_residual(x_a, x_b, E, 0.03, 0.04) == pytest.approx((rows[1] - rows[0]) / 0.05)


def test_cameras_at_one_place_still_constrain_their_images(points):
    turn = np.array([[0.0, 0, -1], [0, 1, 0], [1, 0, 0]])
    half = np.array([[np.sqrt(0.5), 0, -np.sqrt(0.5)], [0, 1, 0], [np.sqrt(0.5), 0, np.sqrt(0.5)]])
    a, b = camera("a", R=np.eye(3), center=(1, 2, 3)), camera("b", R=half, center=(1, 2, 3))
    E = essential_matrix(a, b)
    assert np.linalg.norm(E) > 0.5
    seen = points + np.array([3, 2, 5])
    x_a, x_b = normalised(a, seen), normalised(b, seen)
    both = np.isfinite(x_a).all(-1) & np.isfinite(x_b).all(-1)
    assert both.any()
    np.testing.assert_allclose(sampson_distance(x_a[both], x_b[both], E), 0, atol=1e-9)
    assert np.linalg.norm(essential_matrix(a, camera("c", R=turn, center=(1, 2, 3)))) > 0.5


def test_epipolar_residuals_of_noisy_images_are_standard_normal(rig, points):
    rng = np.random.default_rng(2)
    a, b = rig.cameras[:2]
    sigma_a, sigma_b = 1e-3, 3e-3
    many = np.repeat(points, 400, axis=0)
    x_a = normalised(a, many) + sigma_a * rng.standard_normal((len(many), 2))
    x_b = normalised(b, many) + sigma_b * rng.standard_normal((len(many), 2))
    residual = epipolar_residual(x_a, x_b, essential_matrix(a, b), sigma_a, np.full(len(many), sigma_b))
    assert abs(residual.mean()) < 0.03
    assert 0.98 < residual.std() < 1.02


def test_missing_points_have_no_residual(rig):
    x = np.array([[0.1, 0.2], [np.nan, np.nan]])
    residual = sampson_distance(x, x, essential_matrix(*rig.cameras[:2]))
    np.testing.assert_array_equal(np.isnan(residual), [False, True])


def test_rays_run_from_the_camera_through_the_point(rig, points):
    for cam in rig:
        direction = rays(cam, cam.project(points))
        np.testing.assert_allclose(np.linalg.norm(direction, axis=-1), 1)
        towards = points - cam.center_m
        towards /= np.linalg.norm(towards, axis=-1, keepdims=True)
        np.testing.assert_allclose(direction, towards, atol=1e-6)
        assert np.isnan(rays(cam, np.full((1, 2), np.nan))).all()


def test_projected_points_are_triangulated_to_themselves(rig, points):
    P = projection_matrices(rig.cameras)
    assert P.shape == (4, 3, 4)
    x = np.stack([normalised(cam, points) for cam in rig], axis=-2)
    for weight in (np.ones(4), np.array([1, 0, 0.2, 0]), np.array([0, 3.0, 1, 1])):
        np.testing.assert_allclose(triangulate_linear(P, x, weight), points, atol=1e-6)
    batched = triangulate_linear(P, x.reshape(5, 10, 4, 2), np.ones((5, 10, 4)))
    np.testing.assert_allclose(batched.reshape(-1, 3), points, atol=1e-6)


def test_a_view_without_weight_or_image_says_nothing(rig, points):
    P = projection_matrices(rig.cameras)
    x = np.stack([normalised(cam, points) for cam in rig], axis=-2)
    wrong = x.copy()
    wrong[:, 2] += 0.3
    np.testing.assert_allclose(triangulate_linear(P, wrong, np.array([1, 1, 0, 1])), points, atol=1e-6)
    wrong[:, 2] = np.nan
    np.testing.assert_allclose(triangulate_linear(P, wrong, np.ones(4)), points, atol=1e-6)


def test_heavier_views_pull_a_point_to_their_rays():
    cameras = [camera("a"), camera("b", center=(1, 0, 0)), camera("c", center=(-1, 0, 0))]
    point = np.array([0.0, 0.0, 5.0])
    x = np.stack([normalised(c, point) for c in cameras])
    x[2, 1] += 0.02  # the third sees it lower
    P = projection_matrices(cameras)
    heights = [triangulate_linear(P, x, np.array([1, 1, w]))[1] for w in (0.1, 1.0, 10.0)]
    assert 0 < heights[0] < heights[1] < heights[2] < 0.1


def test_what_cannot_be_triangulated_is_missing(rig, points):
    P = projection_matrices(rig.cameras)
    x = np.stack([normalised(cam, points[:3]) for cam in rig], axis=-2)
    assert np.isnan(triangulate_linear(P, x, np.array([1.0, 0, 0, 0]))).all()
    assert np.isnan(triangulate_linear(P, x, np.zeros(4))).all()
    x[0, 1:] = np.nan
    np.testing.assert_array_equal(np.isnan(triangulate_linear(P, x, np.ones(4))).all(-1), [True, False, False])
    parallel = projection_matrices([camera("a"), camera("b", center=(1, 0, 0))])
    assert np.isnan(triangulate_linear(parallel, np.array([[0.1, 0.2], [0.1, 0.2]]), np.ones(2))).all()
