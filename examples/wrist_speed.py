"""Use mvpose from Python: reconstruct a session and print how fast each wrist moves.

Run ``python examples/wrist_speed.py SESSION CALIB``; without arguments a generated session of 20 s is made first.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np

from mvpose import pipeline
from mvpose.demo import write_session
from mvpose.poses import Reconstruction
from mvpose.synthetic.motion import generate_motion
from mvpose.synthetic.noise import DetectorNoise
from mvpose.synthetic.rigs import ring_rig
from mvpose.synthetic.world import make_world
from mvpose.workspace import open_workspace


def reconstruct(session: Path, calib: Path) -> Reconstruction:
    recording = pipeline.open_recording(session, pipeline.Settings(calib=calib))
    with open_workspace(session / "mvpose") as workspace:
        return pipeline.reconstruct(recording, pipeline.detect(recording, workspace), workspace)


def wrist_speeds_mps(made: Reconstruction) -> dict[str, float]:
    """Return the 95th percentile of each wrist's speed, over all people."""
    poses = made.poses
    speeds = {}
    for name in ("left_wrist", "right_wrist"):
        xyz = poses.xyz_m[:, :, poses.skeleton.joint_names.index(name)]
        speed = np.linalg.norm(np.diff(xyz, axis=0), axis=-1) * poses.frame_rate
        speeds[name] = float(np.nanpercentile(speed, 95))
    return speeds


def main(arguments: list[str]) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        if arguments:
            session, calib = map(Path, arguments)
        else:
            rng = np.random.default_rng(0)
            session, calib = Path(scratch), Path(scratch) / "calib.json"
            world = make_world(
                rng,
                generate_motion(rng, 20.0),
                ring_rig(3, rng=rng),
                fps=(30, 30, 25),
                max_offset_s=3,
                max_drift_ppm=50,
            )
            write_session(world, rng, session, DetectorNoise())
        made = reconstruct(session, calib)
        for name, clock in made.clocks.clocks.items():
            print(f"{name} started at {clock.offset_s:+.4f} s ± {1e3 * clock.sigma_at_epoch_s:.1f} ms")
        for name, speed in wrist_speeds_mps(made).items():
            print(f"{name}: {speed:.2f} m/s")


if __name__ == "__main__":
    main(sys.argv[1:])
