"""Whatever is cut from or changed in a calibration file, the answer is a rig or one clear error."""

import pickle
from pathlib import Path

import numpy as np
import pytest

from mvpose.calib.files import FORMATS, read_rig, write_rig
from mvpose.calib.rig import CameraRig
from mvpose.errors import MvposeError

TRIALS = 60


def mutate(data, rng):
    data = bytearray(data)
    kind = rng.integers(4)
    at = int(rng.integers(len(data)))
    if kind == 0:
        del data[at:]
    elif kind == 1:
        del data[at : at + int(rng.integers(1, 40))]
    elif kind == 2:
        data[at] = int(rng.integers(256))
    else:
        tokens = [
            b"null",
            b"[]",
            b"{}",
            b"1e999",
            b"-",
            b'"',
            b"[",
            b"}",
            b"nan",
            b"0",
            b"9" * 400,
            b"\n",
            b":",
            b"\xff",
        ]
        token = tokens[int(rng.integers(len(tokens)))]
        data[at : at + int(rng.integers(1, 8))] = token
    return bytes(data)


def read_mutants(path, data, opened):
    rng = np.random.default_rng(sum(data))
    for _ in range(TRIALS):
        path.write_bytes(mutate(data, rng))
        try:
            rig = read_rig(opened)
        except MvposeError as error:
            assert str(error)
            assert "\n" not in str(error)
        else:
            assert len(rig) >= 1


@pytest.mark.parametrize("to", sorted(FORMATS))
def test_mutants_of_every_format(plain_rig, tmp_path, to):
    rig = CameraRig(plain_rig.cameras, "-y") if to == "panoptic" else plain_rig
    out = tmp_path / "calib"
    write_rig(rig, out, to)
    for path in sorted(out.iterdir()) if out.is_dir() else [out]:
        data = path.read_bytes()
        read_mutants(path, data, out)
        path.write_bytes(data)


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_mutants_of_pickles(plain_rig, tmp_path, protocol):
    camera = plain_rig["left"]
    document = {"distortion": camera.dist[None], "intrinsicMat": camera.K, "imageSize": np.array([[1080], [1920]]),
                "rotation": camera.R, "translation": camera.t[:, None] * 1000}  # fmt: skip
    path = Path(tmp_path / "left.pickle")
    read_mutants(path, pickle.dumps(document, protocol=protocol), path)
