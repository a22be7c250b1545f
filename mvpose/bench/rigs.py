"""VoxelPose on rigs that it was never trained on, beside networks that were trained further on the rig itself.

Frames by themselves, drawn as in training but of other people: nothing is tracked, smoothed or filtered by support.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain

import numpy as np
import torch

from mvpose.calib.rig import CameraRig
from mvpose.pipeline import Progress
from mvpose.poses import Poses3D
from mvpose.recon.scores import Matches, PoseScores, match_poses, pooled_scores
from mvpose.recon.voxelpose.fuse import LEAST_SCORE
from mvpose.recon.voxelpose.model import VoxelPose
from mvpose.recon.voxelpose.train.scenes import Recipe, Scenes, draw_scenes, draw_stage, stage_of
from mvpose.training.motions import MotionBank

RECIPE = Recipe(people=(1, 4), noise=(1.0, 1.0), missing_person=0.05, absent=0.0, stature=(1.0, 1.0), crowded=0.5)
_STREAM = 77_000  # far from any training's
_BATCH = 8
FRAMES = 64
"""Of each rig."""


def unseen_rig(number: int) -> CameraRig:
    """Draw a rig that no training has drawn."""
    return draw_stage(torch.Generator().manual_seed(_STREAM + number), Recipe(cameras=(3, 8))).rig


def run_rig(network: VoxelPose, bank: MotionBank, rig: CameraRig, frames: int, seed: int = 0) -> list[Matches]:
    """Let networks find the people of some frames before a rig, and match them to the true ones."""
    stage, device, matches = stage_of(rig), next(network.parameters()).device, []
    with torch.inference_mode():
        for first in range(0, frames, _BATCH):
            generator = torch.Generator().manual_seed(_STREAM + 1000 * seed + first)
            scenes = draw_scenes(generator, bank, RECIPE, min(_BATCH, frames - first), stage).to(device)
            matches.append(_matches(network, scenes))
    return matches


def run_rigs(
    networks: Mapping[str, VoxelPose], bank: MotionBank, rigs: Sequence[CameraRig], frames: int, progress: Progress
) -> dict[str, list[PoseScores]]:
    """Score networks on several rigs; the last scores of each are of all rigs as if they were one."""
    found: dict[str, list[list[Matches]]] = {name: [] for name in networks}
    for done, rig in enumerate(rigs, start=1):
        for name, network in networks.items():
            found[name].append(run_rig(network, bank, rig, frames, done))
        progress("rigs", done, len(rigs))
    return {name: [pooled_scores(m) for m in [*own, list(chain(*own))]] for name, own in found.items()}


def _matches(network: VoxelPose, scenes: Scenes) -> Matches:
    """Take every scene for a frame, and its people, likeliest first, for people of that number."""
    proposed = network.find(scenes.maps, scenes.views, scenes.room)
    frame, place = torch.nonzero(proposed.score >= LEAST_SCORE, as_tuple=True)
    B, K = proposed.score.shape
    xyz = np.full((B, K, len(network.joints), 3), np.nan)
    if len(frame):
        center = scenes.room.to_world(proposed.cell[frame, place].cpu().numpy())
        center_m = torch.as_tensor(center, dtype=torch.float32, device=frame.device)
        posed = network.pose(scenes.maps, scenes.views, scenes.axes, frame, center_m)
        xyz[frame.cpu().numpy(), place.cpu().numpy()] = posed.xyz_m.cpu().double().numpy()
    truth = np.where(scenes.there.cpu().numpy()[..., None, None], scenes.xyz_m.cpu().double().numpy(), np.nan)
    return match_poses(_poses(xyz, network), _poses(truth, network), proposed.score.cpu().double().numpy())


def _poses(xyz: np.ndarray, network: VoxelPose) -> Poses3D:
    there = np.isfinite(xyz[..., 0])
    return Poses3D(
        time_s=np.arange(len(xyz), dtype=float),
        xyz_m=xyz,
        person_ids=np.arange(xyz.shape[1]),
        reprojection_px=np.where(there, 0.0, np.nan),
        n_views=there.astype(int) * 2,
        cov_m2=np.zeros((*there.shape, 3, 3), dtype=np.float32),
        skeleton=network.joints,
    )


def format_rigs(scores: Mapping[str, Sequence[PoseScores]], rigs: Sequence[CameraRig]) -> str:
    """Return a table of every rig and of all."""
    lines = [f"{'rig':<22}{'network':<22}MPJPE    PA  AP@25    50   100   150  recall"]
    titles = [f"{i:>3}, {len(rig)} cameras" for i, rig in enumerate(rigs)] + ["all"]
    lines += [_line(title, name, own[i]) for i, title in enumerate(titles) for name, own in scores.items()]
    return "\n".join(lines)


def _line(rig: str, name: str, s: PoseScores) -> str:
    ap = "".join(f"{value:>6.3f}" for value in s.ap.values())
    return f"{rig:<22}{name:<22}{s.mpjpe_mm:>5.1f}{s.pa_mpjpe_mm:>6.1f} {ap}{s.recall:>8.3f}"
