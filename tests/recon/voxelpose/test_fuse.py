"""From aligned tracks to poses, by a network that needs no training: places and joints straight from the voxels."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from mvpose.detect.tracks import track_people
from mvpose.errors import FormatError, ReconstructionError
from mvpose.recon.align import align, timeline
from mvpose.recon.metrics import mpjpe
from mvpose.recon.voxelpose import fuse
from mvpose.recon.voxelpose.follow import follow
from mvpose.recon.voxelpose.fuse import _laid_out, _proposed, fuse_voxels, load_voxelpose
from mvpose.recon.voxelpose.model import VoxelPose
from mvpose.recon.voxelpose.polish import polish
from mvpose.recon.voxelpose.space import room_of
from mvpose.recon.voxelpose.train.scenes import HIPS
from mvpose.skeleton import skeleton_of
from mvpose.synthetic.motion import generate_motion
from mvpose.synthetic.noise import DetectorNoise
from mvpose.synthetic.rigs import ring_rig
from mvpose.synthetic.world import make_world, observe


class _Plain(nn.Module):
    """Finds roots where both hips shine, and joints where each shines most: the voxels' own word."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.outputs = outputs
        self.none = nn.Parameter(torch.zeros(1))

    def forward(self, x):
        if self.outputs == 1:
            near = nn.functional.max_pool3d(x, 3, stride=1, padding=1)  # hips are not in the same voxel
            return nn.functional.avg_pool3d(near[:, HIPS].amin(1, keepdim=True), 3, stride=1, padding=1)
        return x


@pytest.fixture(scope="module")
def plain():
    network = VoxelPose("cubes", width=8, cube_cells=40)
    network.finder.net, network.poser.net = _Plain(13, 1), _Plain(13, 13)
    return network.eval()


def world_of(people, cameras=4, seconds=1.5, seed=0, noise=None, beside_m=None):
    """People before a ring of cameras; beside_m: one of them, and as many others so far beside each as there are."""
    rng = np.random.default_rng(seed)
    rig = ring_rig(cameras, rng=rng)
    motion = generate_motion(rng, seconds, people=people if beside_m is None else 1)
    if beside_m is not None:
        steps = np.arange(people)[:, None, None] * np.array([beside_m, 0, 0])
        motion = replace(motion, xyz_m=motion.xyz_m + steps)
    world = make_world(rng, motion, rig, fps=[15.0] * cameras, max_offset_s=0.1, max_drift_ppm=0)
    keypoints = {n: track_people(k) for n, k in observe(world, rng, noise, tracked=False).items()}
    clocks = world.true_clocks("cam01")
    time_s = timeline(keypoints, clocks, fps=15.0)
    return world, align(keypoints, clocks, time_s)


def test_people_are_found_where_they_are(plain):
    world, tracks = world_of(1)
    poses, aligned = fuse_voxels(tracks, world.rig, plain)
    truth = world.truth_poses(tracks.time_s, "cam01")
    found = mpjpe(poses, truth)
    assert found["n_matched"] == len(poses.person_ids) == 1
    assert 10 < found["mpjpe_mm"] < 45  # 32 mm: voxels of 5 cm, without a trained network
    assert found["recall"] > 0.95
    assert found["id_switches"] == 0
    assert poses.n_views.max() in (3, 4)
    assert aligned.xy_px.shape == (*poses.n_views.shape[:1], 4, 1, len(poses.skeleton), 2)
    assert np.nanmedian(poses.reprojection_px) < 30


def test_people_are_found_wherever_the_networks_are(elsewhere):
    """A GPU that is not there: what runs on it is all there, and the results are the CPU's."""
    world, tracks = world_of(2, seconds=1.0, noise=DetectorNoise())
    network = load_voxelpose()
    near, _ = fuse_voxels(tracks, world.rig, network)
    elsewhere.enter(network)
    far, _ = fuse_voxels(tracks, world.rig, network)
    assert np.array_equal(near.xyz_m, far.xyz_m, equal_nan=True)
    assert np.array_equal(near.cov_m2, far.cov_m2, equal_nan=True)


def test_people_are_followed_by_the_tracks_that_show_them(plain, monkeypatch):
    world, tracks = world_of(2)
    told = []
    monkeypatch.setattr(
        fuse, "follow", lambda time_s, frames, shown: told.extend(shown) or follow(time_s, frames, shown)
    )
    fuse_voxels(tracks, world.rig, plain)
    shown = [(t, c, i) for t, own in enumerate(told) for row in own for c, i in enumerate(row.tolist()) if i >= 0]
    assert len(shown) > 0.8 * 2 * 4 * len(tracks.time_s)
    for t, c, i in shown:
        tracklet = tracks.tracklets[i]
        assert tracklet.camera == tracks.cameras[c]
        assert tracklet.start <= t < tracklet.stop


def test_a_person_whom_one_view_shows_is_not_invented(plain):
    world, tracks = world_of(2)
    one = next(t for t in tracks.tracklets if t.camera == "cam02")
    alone = replace(one, track_id=9, xy_px=one.xy_px + np.array([180.0, 0]))
    more = replace(tracks, tracklets=(*tracks.tracklets, alone))
    poses, aligned = fuse_voxels(more, world.rig, plain)
    assert len(poses.person_ids) == 2
    assert not np.isclose(np.nan_to_num(aligned.xy_px[5, 1, :, 7]), alone.xy_px[5, 7]).all(axis=-1).any()


def test_nobody_and_keypoints_without_hips_are_refused_in_words(plain):
    world, tracks = world_of(1)
    empty = replace(tracks, tracklets=())
    with pytest.raises(ReconstructionError, match="no person is found"):
        fuse_voxels(empty, world.rig, plain)
    hands = replace(tracks, tracklets=(), skeleton=skeleton_of(["nose", "left_wrist", "right_wrist"]))
    with pytest.raises(ReconstructionError, match="both hips"):
        fuse_voxels(hands, world.rig, plain)


def test_keypoints_of_few_joints_are_said_to_find_fewer_people(caplog):
    world, tracks = world_of(1)
    joints = ["nose", "left_hip", "right_hip"]
    own = tracks.skeleton.indices(joints)
    few = [
        replace(t, xy_px=t.xy_px[:, own], score=t.score[:, own], sigma_px=t.sigma_px[:, own]) for t in tracks.tracklets
    ]
    fuse_voxels(replace(tracks, tracklets=tuple(few), skeleton=skeleton_of(joints)), world.rig, load_voxelpose())
    assert "the keypoints have 3 of the 13 joints by which VoxelPose finds people" in caplog.text


def test_what_ships_finds_people_of_measured_noise():
    """Measured: see the model card; a studio of four cameras and two people, half of a second."""
    world, tracks = world_of(2, seconds=1.0, noise=DetectorNoise())
    poses, _ = fuse_voxels(tracks, world.rig, load_voxelpose())
    found = mpjpe(poses, world.truth_poses(tracks.time_s, "cam01"))
    assert found["n_matched"] == 2
    assert 15 < found["mpjpe_mm"] < 80


def test_people_too_close_to_be_told_apart_are_found_by_looking_again():
    """At 0.3 m the first look finds one (recall 0.46); whom that one does not explain is the other."""
    world, tracks = world_of(2, seconds=0.6, beside_m=0.3)
    poses, aligned = fuse_voxels(tracks, world.rig, load_voxelpose())
    found = mpjpe(polish(poses, aligned, world.rig), world.truth_poses(tracks.time_s, "cam01"))
    assert found["n_matched"] == 2 and found["recall"] > 0.95
    assert found["mpjpe_mm"] < 1  # keypoints are true; 0.02 mm


def test_four_people_before_five_cameras_are_polished():
    """Measured: 38 mm as the network has them, 31 mm polished."""
    world, tracks = world_of(4, cameras=5, seconds=0.6, noise=DetectorNoise())
    poses, aligned = fuse_voxels(tracks, world.rig, load_voxelpose())
    truth = world.truth_poses(tracks.time_s, "cam01")
    rough, fine = mpjpe(poses, truth), mpjpe(polish(poses, aligned, world.rig), truth)
    assert rough["n_matched"] == fine["n_matched"] == 4
    assert fine["recall"] > 0.95
    assert 20 < fine["mpjpe_mm"] < 0.95 * rough["mpjpe_mm"] < 60


def test_cameras_that_do_not_record_change_nothing(plain):
    """A room that two cameras of six record is as if the others were not there."""
    world, tracks = world_of(1, cameras=6, seconds=0.6)
    on = np.array([0, 2])
    seen = _laid_out(tracks, tracks.skeleton.joint_names, plain)[:2]
    seen.xy_px[:, [1, 3, 4, 5]] = np.nan
    room, cameras = room_of(world.rig), world.rig.cameras
    with torch.inference_mode():
        every = _proposed(seen, seen.there, cameras, room, plain, 0.3)
        two = seen[np.ix_([0, 1], on)]
        alone = _proposed(two, two.there, [cameras[c] for c in on], room, plain, 0.3)
    assert [len(people) for people in every] == [len(people) for people in alone]
    assert len(every[0]) > 0 and every[0].detection.shape == (len(every[0]), 6)
    assert np.array_equal(every[0].xyz_m, alone[0].xyz_m)


def test_files_that_hold_no_voxelpose_are_named(tmp_path):
    with pytest.raises(FormatError, match="cannot be read"):
        load_voxelpose(tmp_path / "none.safetensors")
    from mvpose.sync.pretrained import WEIGHTS

    with pytest.raises(FormatError, match="does not hold weights of VoxelPose"):
        load_voxelpose(WEIGHTS / "insynformer.safetensors")
