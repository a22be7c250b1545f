"""Clips whose motion has a closed form: every joint sways, in both views alike; and folders of generated motion."""

import csv

import numpy as np
import pytest
import torch

from mvpose.skeleton import CLIP_SKELETON
from mvpose.sync.clips import ClipPairs, Decision
from mvpose.sync.train.metrics import score_decisions
from mvpose.synthetic.motion import generate_motion
from mvpose.training.motions import motion_bank

torch.set_num_threads(1)


def sway(offset_frames, frames=5, seed=0):
    """Return pairs of clips at 10 fps of people who sway at 0.3 … 1.5 Hz, seen a little larger by b than by a."""
    generator = torch.Generator().manual_seed(seed)
    offset = torch.as_tensor(offset_frames, dtype=torch.float32)
    count, joints = len(offset), len(CLIP_SKELETON)
    pose, rate, phase = (torch.rand(count, 1, 1, joints, 2, generator=generator) for _ in range(3))
    first = torch.stack([offset.clamp(min=0), (-offset).clamp(min=0)], dim=1)  # t_b = t_a + offset
    at = (first[..., None] + torch.arange(frames)) / 10
    angle = 2 * torch.pi * ((0.3 + 1.2 * rate) * at[..., None, None] + phase)
    size = torch.tensor([100.0, 120.0])[:, None, None, None]
    xy = torch.tensor([900.0, 500.0]) + size * (2 * pose - 1 + 0.4 * angle.sin())
    return ClipPairs(
        xy,
        torch.ones(xy.shape[:-1]),
        (torch.arange(frames) / 10).expand(count, 2, -1),
        torch.full((count, 2, 3, 3), torch.nan),
        torch.full((count, 2, 3, 4), torch.nan),
        torch.tensor([1920.0, 1080.0]).expand(count, 2, 2),
    )


@pytest.fixture(scope="session")
def swaying():
    """Give the tests the function that makes clips."""
    return sway


@pytest.fixture(scope="session")
def motion():
    return generate_motion(np.random.default_rng(0), 20.0, people=1)


@pytest.fixture(scope="session")
def bank(motion):
    return motion_bank([motion])


@pytest.fixture
def folder(tmp_path, motion):
    """A folder of motion as the CMU pack is one."""
    data = tmp_path / "motion"
    data.mkdir()
    for split in ("train", "val", "test"):
        joints = {split: motion.xyz_m[:, 0].astype(np.float32)}
        np.savez(data / f"pack_{split}.npz", joint_names=np.array(motion.skeleton.joint_names), **joints)
    rate = 1 / np.diff(motion.time_s).mean()
    with (data / "index.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("clip_id", "fps"), ("train", rate), ("val", rate), ("test", rate)])
    return data


def score_of(ex, tenth=None, truth=2.0):
    """Score decisions on pairs that are all apart by the same."""
    ex = torch.tensor(ex)
    offset = ex.float() if tenth is None else ex + torch.tensor(tenth) / 10
    return score_decisions(
        Decision(ex, None if tenth is None else torch.tensor(tenth), offset), torch.full((len(ex),), truth), 0.1
    )


@pytest.fixture(scope="session")
def score():
    """Give the tests the function that scores."""
    return score_of
