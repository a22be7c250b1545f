"""Skeletons painted over images."""

import numpy as np

from mvpose.viz.picture import PAPER_RGB, draw_people, draw_scene, draw_stage
from mvpose.viz.scene import BLUE, VERMILLION, people_at, set_stage, viewpoint


def near(image: np.ndarray, xy: np.ndarray, rgb: tuple[int, int, int], within: int = 2) -> bool:
    """Whether a pixel of about that hue lies near a place."""
    x, y = np.round(xy).astype(int)
    patch = image[max(y - within, 0) : y + within + 1, max(x - within, 0) : x + within + 1].reshape(-1, 3).astype(float)
    hue = patch / np.maximum(patch.max(axis=1, keepdims=True), 1)
    return bool((np.abs(hue - np.array(rgb) / max(rgb)).max(axis=1) < 0.3).any())


def test_skeletons_lie_where_the_distorted_camera_sees_them(make_poses, make_rig):
    poses, camera = make_poses(), make_rig(dist=(-0.25, 0.05, 0.0, 0.0)).cameras[0]
    grey = np.full((480, 640, 3), 128, dtype=np.uint8)
    image = draw_people(grey, camera, people_at(poses, 5.0))
    left, right = camera.project(poses.xyz_m[0, 0, [9, 10]])
    assert near(image, left, BLUE)
    assert near(image, right, VERMILLION)
    assert not near(image, right, BLUE)
    changed = np.argwhere((image != 128).any(axis=-1))[:, ::-1]
    xy = camera.project(poses.xyz_m[0, 0])
    assert (changed >= xy.min(axis=0) - 10).all()
    assert (changed <= xy.max(axis=0) + 10).all()


def test_the_image_given_stays_as_it_was(make_poses, make_rig):
    grey = np.full((480, 640, 3), 128, dtype=np.uint8)
    draw_people(grey, make_rig().cameras[0], people_at(make_poses(), 5.0), halo=True)
    assert (grey == 128).all()


def test_the_nearer_person_hides_the_farther(make_poses, make_rig):
    poses, camera = make_poses(n_people=2), make_rig().cameras[0]  # on +x, looking along −x
    poses.xyz_m[:, 1] = poses.xyz_m[:, 0] - [0.5, 0, 0]
    people = people_at(poses, 5.0)
    poses.xyz_m[:, 1] += [1.0, 0, 0]
    swapped = people_at(poses, 5.0)
    grey = np.full((480, 640, 3), 128, dtype=np.uint8)
    hip_blue_in_front = camera.project(people.joints_m[11])
    hip_red_in_front = camera.project(swapped.joints_m[17 + 11])
    assert near(draw_people(grey, camera, people), hip_blue_in_front, BLUE, 0)
    assert near(draw_people(grey, camera, swapped), hip_red_in_front, VERMILLION, 0)


def test_nobody_and_people_behind_the_camera_leave_the_image_alone(make_poses, make_rig):
    camera = make_rig().cameras[0]
    grey = np.full((480, 640, 3), 128, dtype=np.uint8)
    behind = make_poses()
    behind.xyz_m[..., 0] += 10
    for poses in (make_poses(n_people=0), behind):
        assert (draw_people(grey, camera, people_at(poses, 5.0), halo=True) == 128).all()


def test_a_joint_beside_the_lens_does_not_break_the_picture(make_poses, make_rig):
    camera = make_rig().cameras[0]
    poses = make_poses()
    poses.xyz_m[:, 0, 0] = camera.center_m + camera.R.T @ [5.0, 5.0, 1e-5]
    image = np.zeros((480, 640, 3), dtype=np.uint8)
    assert draw_people(image, camera, people_at(poses, 5.0)).any()


def test_a_scene_shows_ground_cameras_people_and_their_shadow(make_poses, make_rig):
    poses = make_poses()
    stage = set_stage(poses, make_rig())
    view = viewpoint(poses, stage, (640, 360))
    empty = draw_stage(stage, view)
    assert empty.shape == (360, 640, 3)
    assert (empty == PAPER_RGB).all(axis=-1).any()
    assert (empty.sum(axis=-1) < 300).any()  # frusta, dark
    image = draw_scene(empty, view, stage, people_at(poses, 5.0))
    foot = poses.xyz_m[0, 0, 15] * [1, 1, 0]
    x, y = np.round(view.project(foot)).astype(int)
    assert image[y, x].sum() < empty[y, x].sum()
