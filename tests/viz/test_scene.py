"""What is drawn at time t."""

from dataclasses import replace

import numpy as np
import pytest

from mvpose.poses import Poses3D
from mvpose.skeleton import SKELETONS
from mvpose.viz.scene import (
    BLUE,
    GREY,
    VERMILLION,
    body_colours,
    people_at,
    positions_at,
    set_stage,
    viewpoint,
)


def turned(poses: Poses3D, up: str) -> Poses3D:
    """The same people in a world whose up is another axis (cyclic, so handedness stays)."""
    order = {"z": (0, 1, 2), "y": (1, 2, 0), "x": (2, 0, 1)}[up[-1]]
    xyz = poses.xyz_m[..., order]
    if up.startswith("-"):  # half a turn about an axis of the ground
        axis = {"z": 0, "y": 2, "x": 1}[up[-1]]
        xyz = np.where(np.arange(3) == axis, xyz, -xyz)
    return replace(poses, xyz_m=xyz, up=up)


def test_positions_lie_on_the_straight_line_between_frames(make_poses):
    poses = make_poses(speed_mps=0.5)
    at = positions_at(poses, 5.17)
    assert at.shape == (1, 17, 3)
    np.testing.assert_allclose(at[0, :9, 0], poses.xyz_m[0, 0, :9, 0] + 0.5 * 0.17, atol=1e-12)


def test_beside_a_missing_frame_the_nearer_one_decides(make_poses):
    poses = make_poses()
    poses.xyz_m[1, 0, 0] = np.nan
    np.testing.assert_array_equal(positions_at(poses, 5.04)[0, 0], poses.xyz_m[0, 0, 0])
    assert np.isnan(positions_at(poses, 5.06)[0, 0]).all()
    assert np.isfinite(positions_at(poses, 5.06)[0, 1]).all()


@pytest.mark.parametrize("t", [4.9, 8.1, np.nan])
def test_outside_the_recording_nobody_is_there(make_poses, t):
    assert np.isnan(positions_at(make_poses(), t)).all()


def test_the_last_frame_itself_is_there(make_poses):
    poses = make_poses()
    np.testing.assert_array_equal(positions_at(poses, float(poses.time_s[-1])), poses.xyz_m[-1])


def test_a_limb_is_there_only_with_both_ends(make_poses):
    poses = make_poses()
    poses.xyz_m[:, 0, 7] = np.nan  # left elbow
    people = people_at(poses, 6.0)
    missing = {limb for limb, ends in zip(poses.skeleton.limbs, people.limbs_m, strict=True) if np.isnan(ends).any()}
    assert missing == {limb for limb in poses.skeleton.limbs if 7 in limb}
    assert np.isnan(people.limbs_m[[limb in missing for limb in poses.skeleton.limbs]]).all()


def test_nobody_is_an_empty_scene(make_poses):
    people = people_at(make_poses(n_people=0), 6.0)
    assert people.joints_m.shape == (0, 3)
    assert people.limbs_m.shape == (0, 2, 3)


def test_one_person_is_coloured_by_side():
    skeleton = SKELETONS["coco17"]
    joints, limbs = body_colours(skeleton, 1)
    assert [tuple(joints[skeleton.joint_names.index(n)]) for n in ("left_wrist", "right_wrist", "nose")] == [
        BLUE, VERMILLION, GREY,
    ]  # fmt: skip
    colour = {
        tuple(skeleton.joint_names[i] for i in limb): tuple(c) for limb, c in zip(skeleton.limbs, limbs, strict=True)
    }
    assert colour["left_elbow", "left_wrist"] == BLUE
    assert colour["right_knee", "right_ankle"] == VERMILLION
    assert colour["left_hip", "right_hip"] == GREY


def test_several_people_have_one_colour_each():
    joints, limbs = body_colours(SKELETONS["coco17"], 3)
    assert joints.shape == (51, 3)
    assert len({tuple(c) for c in joints[17:34]}) == 1
    assert len({tuple(c) for c in limbs}) == 3


@pytest.mark.parametrize("up", ["z", "y", "x", "-z", "-y", "-x"])
def test_the_ground_is_level_and_under_the_feet(make_poses, make_rig, up):
    poses = make_poses()
    poses = turned(replace(poses, xyz_m=poses.xyz_m + np.array([0, 0, 3.0])), up)
    stage = set_stage(poses, replace(make_rig(), up=up))
    heights = stage.ground_m @ stage.up
    np.testing.assert_allclose(heights, 3.08, atol=1e-9)  # the ankles' height
    assert (poses.xyz_m @ stage.up).min() >= 3.08 - 1e-9


def test_ground_near_the_worlds_zero_is_zero(make_poses, make_rig):
    stage = set_stage(make_poses(), make_rig())
    assert (stage.ground_m[..., 2] == 0).all()


def test_ground_consists_of_metre_cells_around_the_people(make_poses, make_rig):
    stage = set_stage(make_poses(), make_rig())
    np.testing.assert_allclose(np.linalg.norm(np.diff(stage.ground_m, axis=1), axis=-1), 1.0)
    low, high = stage.ground_m.min(axis=(0, 1)), stage.ground_m.max(axis=(0, 1))
    assert (low[:2] < -2).all()
    assert (high[:2] > 2).all()


def test_frusta_start_at_the_centre_and_open_forwards(make_poses, make_rig):
    rig = make_rig()
    stage = set_stage(make_poses(), rig)
    for camera, frustum in zip(rig, stage.frusta_m, strict=True):
        np.testing.assert_allclose(frustum[:4, 0], np.tile(camera.center_m, (4, 1)), atol=1e-12)
        corners = camera.project(frustum[:4, 1])
        np.testing.assert_allclose(corners, [[0, 0], [640, 0], [640, 480], [0, 480]], atol=1e-6)


@pytest.mark.parametrize("size_px", [(1280, 720), (600, 900)])
@pytest.mark.parametrize("up", ["z", "-y"])
def test_the_viewpoint_shows_everybody_upright_and_from_the_front(make_poses, make_rig, size_px, up):
    poses = turned(make_poses(n_people=3), up)
    stage = set_stage(poses, replace(make_rig(), up=up))
    view = viewpoint(poses, stage, size_px)
    assert view.sees(poses.xyz_m).all()
    nose, ankle = view.project(poses.xyz_m[0, 0, [0, 15]])
    assert nose[1] < ankle[1] - 50
    left, right = view.project(poses.xyz_m[0, 0, [5, 6]])
    assert left[0] > right[0]  # a person who faces the viewer has their left on the right of the picture


def test_stage_and_viewpoint_of_nobody(make_poses, make_rig):
    poses = make_poses(n_people=0)
    stage = set_stage(poses, make_rig())
    assert viewpoint(poses, stage, (640, 360)).sees(stage.camera_centers_m).all()


def test_a_lone_joint_can_be_viewed(make_poses, make_rig):
    poses = make_poses()
    poses.xyz_m[:, :, 1:] = np.nan
    poses.xyz_m[1:] = np.nan
    stage = set_stage(poses, make_rig())
    assert viewpoint(poses, stage, (640, 360)).sees(poses.xyz_m[0, 0, 0])
