"""A folder of motion to learn from, split by person."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from mvpose.errors import FormatError
from mvpose.synthetic.bvh import read_bvh_folder
from mvpose.synthetic.motion import Motion, read_motion_pack
from mvpose.training.motions import MotionBank, motion_bank

Split = Literal["train", "val"]

_VAL_SHARE = 10  # one in so many files of a folder without subfolders


@dataclass(frozen=True)
class MotionFolder:
    """A folder of motion: packs ``*_train.npz`` and ``*_val.npz`` with ``index.csv``, or BVH files.

    BVH files lie in subfolders ``train`` and ``val`` (and ``test``, which no training sees); in a folder without any of
    these, a hash of its name puts one file in ten into val. Better split them by person.
    """

    path: Path

    def motions(self, split: Split) -> list[Motion]:
        """Read one side of the split.

        Raises:
            FormatError: The folder is missing, holds no motion for this split, or a file is broken.
        """
        packs = self._packs(split)
        if packs:
            found = [motion for pack in packs for motion in read_motion_pack(pack).values()]
        elif (self.path / split).is_dir():
            found = list(read_bvh_folder(self.path / split).values())
        elif not any((self.path / part).is_dir() for part in ("train", "val", "test")) and self._bvh_files():
            by_name = read_bvh_folder(self.path)
            found = [motion for name, motion in by_name.items() if (_hash_of(name) == 0) == (split == "val")]
        else:
            found = []
        if not found:
            raise FormatError(
                f"{self.path} holds no motion to learn from for {split}: neither *_{split}.npz with index.csv nor BVH "
                f"files, in {split} if there are splits; name its folder by --data"
            )
        return found

    def bank(self, split: Split) -> MotionBank:
        """Read one side of the split into one tensor.

        Raises:
            FormatError: As ``motions``, or a coordinate is not a number.
        """
        bank = motion_bank(self.motions(split))
        if not torch.isfinite(bank.xyz_m).all():
            raise FormatError(f"{self.path}: a motion for {split} has coordinates that are not finite; leave it out")
        return bank

    def digest(self) -> str:
        """Return 16 hexadecimal digits that stand for all files of both splits."""
        digest = hashlib.sha256()
        files = [pack for split in ("train", "val") for pack in self._packs(split)] or self._bvh_files()
        for file in files:
            digest.update(file.relative_to(self.path).as_posix().encode(errors="replace"))
            digest.update(hashlib.sha256(file.read_bytes()).digest())
        return digest.hexdigest()[:16]

    def _packs(self, split: str) -> list[Path]:
        return sorted(self.path.glob(f"*_{split}.npz"))

    def _bvh_files(self) -> list[Path]:
        return sorted(path for path in self.path.rglob("*") if path.suffix.lower() == ".bvh")


def _hash_of(name: str) -> int:
    return int(hashlib.sha256(name.encode(errors="replace")).hexdigest(), 16) % _VAL_SHARE


def seed_of(*numbers: int) -> int:
    """Return one seed for several numbers, none of which may be exchanged for another."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])
