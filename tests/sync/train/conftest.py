"""A small folder of motion to train on."""

import csv

import numpy as np
import pytest

from mvpose.synthetic.motion import CMU21, generate_motion


def write_pack(folder, split, seeds, seconds=12.0, fps=60.0):
    """Write generated people as a pack of motion capture, and add them to the folder's index."""
    folder.mkdir(parents=True, exist_ok=True)
    clips = {
        f"{split}_{seed}": generate_motion(np.random.default_rng(seed), seconds, rate_hz=fps).xyz_m[:, 0].astype("f4")
        for seed in seeds
    }
    np.savez(folder / f"small_{split}.npz", joint_names=np.array(CMU21.joint_names), **clips)
    new = not (folder / "index.csv").exists()
    with (folder / "index.csv").open("a", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["clip_id", "fps"]] * new + [[name, fps] for name in clips])


@pytest.fixture(scope="session")
def motion(tmp_path_factory):
    folder = tmp_path_factory.mktemp("motion")
    write_pack(folder, "train", (1, 2))
    write_pack(folder, "val", (3,))
    return folder
