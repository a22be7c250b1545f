"""What all rows are tested on: the pairs of clips of IFID's protocol, or of NTU-SYN's and CMU-SYN's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from mvpose.errors import FormatError
from mvpose.sync.train.scenes import IFID, LabelledPairs, Recipe, draw_pairs
from mvpose.synthetic.bvh import read_bvh_folder
from mvpose.synthetic.motion import read_motion_pack
from mvpose.training.motions import MotionBank, motion_bank

INTEGER = replace(IFID, fps=30.0, fractions=False)
"""NTU-SYN and CMU-SYN as the paper narrows them: 30 fps, 5 frames, offsets of −5 … 5 whole frames."""

TEST_SEED, VAL_SEED = 20_240, 20_241
"""Of the pairs, whatever the seed of the weights."""


def draw_seeded(bank: MotionBank, recipe: Recipe, count: int, seed: int) -> LabelledPairs:
    """Draw the same pairs for everyone."""
    return draw_pairs(torch.Generator().manual_seed(seed), bank, recipe, count)


def read_test_bank(folder: Path) -> MotionBank:
    """Read the motions that nothing is trained on: packs ``*_test.npz``, or BVH files in the subfolder ``test``.

    Raises:
        FormatError: There are none, or they cannot be read.
    """
    motions = [motion for pack in sorted(folder.glob("*_test.npz")) for motion in read_motion_pack(pack).values()]
    if not motions and (folder / "test").is_dir():
        motions = list(read_bvh_folder(folder / "test").values())
    if not motions:
        raise FormatError(
            f"{folder} holds no motion to test on: neither *_test.npz with index.csv nor BVH files in test; name its "
            "folder by --data"
        )
    return motion_bank(motions)
