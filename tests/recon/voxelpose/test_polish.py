"""What is polished, and what stays as the network has it."""

from dataclasses import replace

import numpy as np
import pytest

from mvpose.keypoints import AlignedKeypoints
from mvpose.poses import Poses3D
from mvpose.recon.voxelpose.polish import WILD_M, polish
from mvpose.skeleton import CLIP_SKELETON
from mvpose.synthetic.rigs import ring_rig

SIGMA_M = 0.05
J = len(CLIP_SKELETON)


@pytest.fixture
def found():
    """Two people before four cameras for two frames: the truth, what a network is 9 cm wrong about, true keypoints."""
    rng = np.random.default_rng(0)
    rig = ring_rig(4, rng=rng)
    truth = rng.uniform([-0.6, -0.6, 0.4], [0.6, 0.6, 1.8], (2, 2, J, 3))
    shape = truth.shape[:-1]
    poses = Poses3D(
        time_s=np.arange(2) / 30,
        xyz_m=truth + SIGMA_M,
        person_ids=np.array([0, 1]),
        reprojection_px=np.full(shape, 20.0),
        n_views=np.ones(shape, dtype=int),
        cov_m2=np.broadcast_to(SIGMA_M**2 * np.eye(3, dtype=np.float32), (*shape, 3, 3)),
        skeleton=CLIP_SKELETON,
        cameras=rig.names,
        up=rig.up,
    )
    xy = np.stack([camera.project(truth) for camera in rig], axis=1)
    aligned = AlignedKeypoints(
        rig.names,
        poses.time_s,
        xy,
        np.ones(xy.shape[:-1]),
        np.full(xy.shape[:-1], 3.0),
        np.array([0, 1]),
        CLIP_SKELETON,
    )
    return rig, truth, poses, aligned


def error_m(poses, truth):
    return np.linalg.norm(poses.xyz_m - truth, axis=-1)


def test_joints_that_views_show_are_where_these_say(found):
    rig, truth, poses, aligned = found
    polished = polish(poses, aligned, rig)
    assert error_m(poses, truth).min() > 0.08
    assert error_m(polished, truth).max() < 1e-6
    assert (polished.n_views == 4).all()
    assert np.nanmax(polished.reprojection_px) < 1e-3
    assert 1e-6 < np.trace(polished.cov_m2[0, 0, 0]) < 3 * SIGMA_M**2


@pytest.mark.parametrize("views, sigmas", [(0, 4.0), (1, 2.2), (3, 2.2)])
def test_what_one_view_alone_shows_stays_the_network_s_guess(found, views, sigmas):
    rig, truth, poses, aligned = found
    xy = aligned.xy_px.copy()
    xy[:, 1:, 1, 3] = np.nan
    poses = replace(poses, n_views=np.full_like(poses.n_views, views))
    polished = polish(poses, replace(aligned, xy_px=xy), rig)
    kept = np.zeros((2, 2, J), dtype=bool)
    kept[:, 1, 3] = True
    for name in ("xyz_m", "reprojection_px"):
        assert np.array_equal(getattr(polished, name)[kept], getattr(poses, name)[kept])
    assert np.allclose(polished.cov_m2[kept], sigmas**2 * poses.cov_m2[kept])
    assert (polished.n_views[kept] == min(views, 1)).all()
    assert error_m(polished, truth)[~kept].max() < 1e-6


def test_keypoints_of_somebody_else_are_not_believed(found):
    rig, truth, poses, aligned = found
    elsewhere = truth.copy()
    elsewhere[1, 0, 5, 0] += WILD_M + 0.1
    xy = np.stack([camera.project(elsewhere) for camera in rig], axis=1)
    polished = polish(poses, replace(aligned, xy_px=xy), rig)
    assert np.array_equal(polished.xyz_m[1, 0, 5], poses.xyz_m[1, 0, 5])
    error = elsewhere[1, 0, 5] - poses.xyz_m[1, 0, 5]  # if the views are right after all
    assert 0.5 < error @ np.linalg.inv(polished.cov_m2[1, 0, 5]) @ error / 3 < 1
    elsewhere[1, 0, 5, 0] -= 0.3
    xy = np.stack([camera.project(elsewhere) for camera in rig], axis=1)
    assert error_m(polish(poses, replace(aligned, xy_px=xy), rig), elsewhere).max() < 1e-6


def test_whom_nobody_found_nobody_makes(found):
    rig, _, poses, aligned = found
    gone = poses.xyz_m.copy()
    gone[1, 0] = np.nan
    polished = polish(replace(poses, xyz_m=gone), aligned, rig)
    assert np.isnan(polished.xyz_m[1, 0]).all() and np.isfinite(polished.xyz_m[0, 0]).all()


@pytest.mark.parametrize("joints, there", [(2, False), (3, True)])
def test_who_is_all_guesses_is_missing(found, joints, there):
    rig, _, poses, aligned = found
    xy = aligned.xy_px.copy()
    xy[1, 1:, 0, joints:] = np.nan
    polished = polish(poses, replace(aligned, xy_px=xy), rig)
    assert np.isfinite(polished.xyz_m[1, 0]).all() == there
    assert (np.isfinite(polished.cov_m2[1, 0]).all(), polished.n_views[1, 0].any()) == (there, there)
    assert np.isfinite(polished.xyz_m[1, 1]).all() and np.isfinite(polished.xyz_m[0]).all()
