"""Small recordings whose clocks are known: motion made by code, a ring of cameras, a detector that errs or not."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from mvpose.calib.rig import CameraRig
from mvpose.clock import Clock, Clocks
from mvpose.keypoints import Keypoints2D
from mvpose.skeleton import CLIP_SKELETON
from mvpose.sync.clips import ClipPairs
from mvpose.sync.estimate import estimate_offsets
from mvpose.sync.solve import solve_clocks
from mvpose.synthetic.motion import Motion, generate_motion
from mvpose.synthetic.noise import DetectorNoise
from mvpose.synthetic.rigs import random_rig, ring_rig
from mvpose.synthetic.world import World, observe


@dataclass(frozen=True)
class Recording:
    """What cameras saw, and the truth about them."""

    world: World
    keypoints: dict[str, Keypoints2D]

    @property
    def cameras(self):
        return {camera.name: camera for camera in self.world.rig}

    @property
    def epochs_s(self):
        return {name: float(k.time_s[[0, -1]].mean()) for name, k in self.keypoints.items()}

    def seen(self, **changed):
        """Return the same recording with some cameras' keypoints exchanged."""
        return replace(self, keypoints={**self.keypoints, **changed})

    def solve(self, *, calibrated=True, hints=None, reference=None):
        """Return the judged graph and the clocks."""
        graph = estimate_offsets(self.keypoints, self.cameras if calibrated else None, hints=hints)
        return solve_clocks(graph, self.epochs_s, reference=reference)

    def errors_s(self, clocks: Clocks):
        """Return each clock's error in the middle of its recording, the reference's left out."""
        truth = self.world.true_clocks(clocks.reference)
        return {
            name: float(clock.to_session(self.epochs_s[name]) - truth[name].to_session(self.epochs_s[name]))
            for name, clock in clocks.clocks.items()
            if name != clocks.reference
        }

    def true_offset_s(self, a, b, at_s=0.0):
        """Return t_b − t_a of what camera a sees at its own ``at_s``."""
        return float(self.world.clocks[b].to_camera(self.world.clocks[a].to_session(at_s))) - at_s


def record(
    seed=0, duration_s=8.0, starts=(0.0, 0.7123), fps=(30, 25, 60), *, motion=None, rig=None, ppm=(0, 0, 0), noisy=False
):
    """Let one camera a start record a motion till its end.

    Args:
        seed: Chooses the people, the cameras' places and the detector's errors.
        duration_s: Length of the motion, seconds.
        starts: World time at which each camera takes its first frame, seconds.
        fps: Frames per second of each camera's own clock.
        motion: A motion other than one person who roams; a function of (rng, duration_s).
        rig: Cameras other than a scattered ring.
        ppm: How much each camera's clock is slow, parts per million.
        noisy: Whether the detector errs as measured, or not at all.
    """
    rng = np.random.default_rng(seed)
    moving: Motion = (motion or generate_motion)(rng, duration_s)
    rig: CameraRig = rig or ring_rig(len(starts), rng=rng)
    clocks, times = {}, {}
    for name, start, rate_hz, slow in zip(rig.names, starts, fps, ppm, strict=False):
        rate = 1 + 1e-6 * slow
        clocks[name] = Clock(name, start, rate, np.zeros((2, 2)))
        times[name] = np.arange(int((moving.time_s[-1] - start) / rate * rate_hz)) / rate_hz
    world = World(moving, rig, clocks, times)
    return Recording(world, observe(world, rng, DetectorNoise() if noisy else None))


@pytest.fixture(scope="session")
def make():
    """Give the tests of several files the function that makes recordings."""
    return record


# Clips for networks.

J = len(CLIP_SKELETON)


class Body:
    """Joints that are known at every instant: sums of slow sines about places of a body's size, metres."""

    def __init__(self, seed=0):
        rng = np.random.default_rng(seed)
        self.place = rng.uniform([-0.4, -0.3, 0.1], [0.4, 0.3, 1.7], (J, 3))
        self.frequency, self.phase = rng.uniform(0.3, 1.2, (J, 3, 4)), rng.uniform(0, 2 * np.pi, (J, 3, 4))

    def at(self, time_s):
        angle = 2 * np.pi * self.frequency * np.asarray(time_s)[..., None, None, None] + self.phase
        return self.place + 0.12 * np.sin(angle).sum(-1)


def cameras(seed):
    return [replace(camera, dist=np.zeros(5)) for camera in random_rig(np.random.default_rng(seed), 2)]


def film(bodies, offset_s, *, frames=12, fps=10.0, rigs=None, noise_px=0.0, missing=0.0, seed=0):
    """Pairs of clips (B) of bodies: what a sees at its own t, b sees at t + offset."""
    rng = np.random.default_rng(seed)
    own = np.arange(frames) / fps
    rows = []
    for n, body in enumerate(bodies):
        pair = cameras(n) if rigs is None else rigs[n]
        xy = np.stack([c.project(body.at(own - late)) for c, late in zip(pair, (0.0, offset_s), strict=True)])
        xy += noise_px * rng.standard_normal(xy.shape)
        xy[rng.random(xy.shape[:-1]) < missing] = np.nan
        rows.append((xy, [c.K for c in pair], [c.cam_from_world[:3] for c in pair], [c.size_px for c in pair]))
    xy, K, pose, size = (torch.tensor(np.array(part), dtype=torch.float32) for part in zip(*rows, strict=True))
    seen = torch.isfinite(xy).all(-1)
    time_s = torch.from_numpy(own).float().expand(len(xy), 2, -1)
    return ClipPairs(xy, 0.9 * seen.float(), time_s, K, pose, size)


@dataclass(frozen=True)
class Studio:
    """Where clips of bodies are made."""

    Body = Body
    cameras = staticmethod(cameras)
    film = staticmethod(film)


@pytest.fixture(scope="session")
def studio():
    """Give the tests of several files what makes clips."""
    return Studio()
