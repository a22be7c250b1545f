from dataclasses import replace

import numpy as np
import pytest
import torch

from mvpose.calib.camera import Camera
from mvpose.skeleton import CLIP_SKELETON
from mvpose.sync.moments import MARGIN, STEP_S, body_coordinates, epipolar_coordinates, lay_out

J = len(CLIP_SKELETON)


def same(a, b, atol=2e-4):
    np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), atol=atol, rtol=1e-4)


# Geometry.


def test_the_angle_about_the_baseline_is_the_same_in_both_views_whatever_the_depth(studio):
    body = studio.Body(3)
    for seed in range(6):
        for closer in (1.0, 0.6):
            clips = studio.film([body], 0.0, rigs=[studio.cameras(seed)])
            along, about = (epipolar_coordinates(clips) / 2).unbind(-1)
            both = clips.seen.all(1)
            np.testing.assert_allclose(about[:, 0][both], about[:, 1][both], atol=2e-3)
            # Along the baseline the views differ, and neither coordinate is nothing.
            assert float((along[:, 0] - along[:, 1]).abs()[both].median()) > 0.02
            assert float(about.std()) > 0.1
            # Another depth on b's ray changes nothing that b sees, and a sees it in the same plane.
            a, b = studio.cameras(seed)
            far = b.center_m + closer * (body.at(np.arange(12) / 10) - b.center_m)
            moved = clips.xy.clone()
            moved[0, 0] = torch.from_numpy(a.project(far)).float()
            seen = torch.isfinite(moved).all(-1).all(1)
            at_depth = epipolar_coordinates(replace(clips, xy=torch.where(seen[:, None, ..., None], moved, clips.xy)))
            # The unit, a distance from the baseline, depends on where both see the body.
            ratio = (at_depth[:, 0, ..., 1] / at_depth[:, 1, ..., 1])[seen]
            assert float(ratio.median()) == pytest.approx(1.0, abs=0.01)


def test_metres_at_the_body_are_metres(studio):
    # Four metres from the baseline; so short a one tells the distance with an error of 3 %.
    a = Camera("a", (1920, 1080), np.array([[900.0, 0, 960], [0, 900, 540], [0, 0, 1]]), np.zeros(5), np.eye(4))
    pose = np.eye(4)
    pose[0, 3] = -1.0
    b = replace(a, name="b", cam_from_world=pose)
    points = np.full((2, J, 3), [0.5, 0.0, 4.0])
    points[:, :, 1] = np.linspace(-0.4, 0.4, J)
    xy = np.stack([c.project(points) for c in (a, b)])
    clips = studio.film([studio.Body()], 0.0, frames=2, rigs=[(a, b)])
    found = epipolar_coordinates(replace(clips, xy=torch.from_numpy(xy[None]).float())) / 2
    np.testing.assert_allclose(found[0, 0, 0, :, 1].abs(), np.abs(np.arctan(points[0, :, 1] / 4) * 4), rtol=0.05)
    assert float(found[0, :, 0, J // 2, 0].abs().max()) < 0.05


def test_body_coordinates_are_centred_and_of_unit_extent(studio):
    clips = studio.film([studio.Body(n) for n in range(4)], 0.234, noise_px=3.0, missing=0.1)
    xy = body_coordinates(clips)
    seen = clips.seen
    assert torch.equal(torch.isfinite(xy).all(-1), seen)
    for pair in range(len(clips)):
        for view in range(2):
            own = xy[pair, view][seen[pair, view]]
            np.testing.assert_allclose(own.mean(0), 0.0, atol=1e-4)
            assert 0.9 < float(own.square().sum(1).mean().sqrt()) < 1.5


# Time.


@pytest.mark.parametrize("first_s", [0.0, 0.02, 0.09])
def test_frames_enter_at_their_times(first_s, studio):
    # A line: between frames interpolation on the grid is exact.
    time_s = (first_s + torch.arange(5) / 10).expand(1, 2, -1)
    xy = (time_s[..., None, None] * torch.tensor([1.0, -2.0])).expand(1, 2, 5, J, 2).contiguous()
    clips = replace(studio.film([studio.Body()], 0.0, frames=5), xy=xy, score=torch.full((1, 2, 5, J), 0.5))
    # The mean duration of a frame counts from the opening, so that of windows is a little longer: not quite a line.
    moments = lay_out(xy, replace(clips, time_s=time_s), first_s + 0.4)
    path, known = (part.unflatten(0, (1, 2)) for part in (moments.path, moments.known))
    grid = (torch.arange(path.shape[2]) - MARGIN) * STEP_S
    inside = (grid >= first_s) & (grid <= first_s + 0.4)
    assert known[:, :, inside].all()
    assert not known[:, :, (grid < first_s - 0.13) | (grid > first_s + 0.53)].any()
    np.testing.assert_allclose(path[0, 0, inside, 0, 0], grid[inside], atol=1e-6 if first_s == 0 else 0.02)
    np.testing.assert_allclose(path[0, 1, inside, 3, 1], -2 * grid[inside], atol=1e-6 if first_s == 0 else 0.04)
    assert path.shape[2] == 2 * moments.features.shape[1]
    np.testing.assert_allclose(moments.features[:, moments.clip_tokens, :, 6][:, 1:4], 0.5, atol=1e-6)


def test_the_grid_reaches_beyond_the_clip_on_either_side(studio):
    clips = studio.film([studio.Body()], 0.0, frames=5)
    moments = lay_out(clips.xy, clips, 0.4)
    assert moments.inside == 9
    assert moments.beyond.tolist() == [*range(12, 0, -1), *[0] * 9, *range(1, 14)]
    assert moments.side.tolist() == [-1.0] * 12 + [1.0] * 22
    assert (moments.beyond[moments.clip] == 0).all()
    assert moments.features[:, moments.clip_tokens].shape[1] == 5


def test_paths_are_bridged_and_carried_on(studio):
    time_s = torch.arange(9) / 10
    xy = (time_s[:, None, None] * torch.tensor([1.0, -2.0])).expand(1, 2, 9, J, 2).contiguous()
    whole = xy[0, 0, :, 0].clone()
    xy[:, :, 3:6, 2] = float("nan")  # a gap
    xy[:, :, 6:, 3] = float("nan")  # an end
    xy[:, :, :, 4] = float("nan")  # nothing at all
    clips = replace(studio.film([studio.Body()], 0.0, frames=9), xy=xy)
    moments = lay_out(xy, clips, 0.8)
    at_frames = moments.path[0, moments.clip][::2]
    np.testing.assert_allclose(at_frames[:, 2], whole, atol=0.07)  # half-way to a gap the last frame still counts
    np.testing.assert_allclose(at_frames[4, 2], whole[4], atol=1e-6)
    np.testing.assert_allclose(at_frames[6:, 3], whole[5].expand(3, 2), atol=1e-6)
    assert (moments.path[:, :, 4] == 0).all()
    # Beyond the clip a path stays where it is, and its velocity is that of its end.
    np.testing.assert_allclose(moments.path[0, -8:, 0], whole[-1].expand(8, 2), atol=1e-6)
    np.testing.assert_allclose(moments.velocity[0, -8:, 0], np.tile([0.1, -0.2], (8, 1)), atol=1e-6)
    assert not moments.known[0, :, 4].any()


def test_features_are_places_and_changes_while_seen(studio):
    xy = torch.zeros(1, 2, 5, J, 2)
    xy[..., 0] = 10.0 * torch.arange(5)[:, None]  # everyone moves to the right
    clips = replace(studio.film([studio.Body()], 0.0, frames=5), xy=xy, score=torch.ones(1, 2, 5, J))
    moments = lay_out(xy, clips, 0.4)
    x, y, before, _, after, _, score, known = moments.features[0, moments.clip_tokens, 5].unbind(-1)
    assert x.tolist() == pytest.approx([0, 10, 20, 30, 40])
    assert before.tolist() == pytest.approx([0, 40, 40, 40, 40], abs=1e-3)  # eight times the change over half a frame
    assert after.tolist() == pytest.approx([40, 40, 40, 40, 0], abs=1e-3)
    assert score.tolist() == known.tolist() == [1] * 5
    assert not y.any()


def test_values_of_missing_joints_do_not_matter(studio):
    clips = studio.film([studio.Body(n) for n in range(4)], 0.2, missing=0.2)
    laid = [
        lay_out(clips.xy, replace(clips, score=score), 1.1)
        for score in (clips.score, torch.where(clips.seen, clips.score, 0.7))
    ]
    for name in ("path", "velocity", "known", "features"):
        assert torch.equal(getattr(laid[0], name), getattr(laid[1], name))


def test_the_world_frame_does_not_matter_to_rays(studio):
    clips = studio.film([studio.Body(n) for n in range(4)], 0.234, noise_px=3.0)
    turn = np.radians(50)
    R = torch.tensor([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]]).float()
    shift = torch.tensor([3.0, -7.0, 0.4])
    pose = clips.cam_from_world
    rotation = pose[..., :3] @ R
    translation = pose[..., 3:] + pose[..., :3] @ shift[:, None]
    moved = replace(clips, cam_from_world=torch.cat([rotation, translation], dim=-1))
    same(epipolar_coordinates(clips), epipolar_coordinates(moved), atol=2e-3)
