import json
import pickle
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from mvpose.bench.datasets import lay_out_session, list_parts, open_dataset
from mvpose.bench.recon_datasets import evaluate_dataset
from mvpose.calib.files import write_rig
from mvpose.errors import DetectionError, FormatError
from mvpose.recon.scores import SHELF14, named_joints
from mvpose.skeleton import SKELETONS
from mvpose.video import probe

FIRST = 300
COCO = SKELETONS["coco17"]


def cells(items, shape):
    out = np.empty(len(items), dtype=object)
    for index, item in enumerate(items):
        out[index] = item
    return out.reshape(shape)


def write_actors(path, poses):
    """Poses (F, P, 14, 3) as MATLAB cells of cells; (1, 0) where somebody is absent."""
    people = [
        cells([cells([p if np.isfinite(p).all() else np.zeros((1, 0))], (1, 1)) for p in poses[:, a]], (-1, 1))
        for a in range(poses.shape[1])
    ]
    savemat(path, {"actor3D": cells(people, (1, -1))})


@pytest.fixture
def shelf(make_scene, tmp_path):
    """A folder of Shelf: 60 frames from number 300 on, in the first 20 of which person 1 is not annotated."""

    def write(kind="shelf", predictions=True):
        size, cameras = ((1032, 776), 5) if kind == "shelf" else ((360, 288), 3)
        scene = make_scene(60, 25.0, cameras=cameras, size_px=size).named([str(i) for i in range(cameras)])
        coco = scene.coco()
        truth = np.full((FIRST + 60, 2, 14, 3), np.nan)
        truth[FIRST:] = named_joints(coco, COCO, SHELF14.joint_names, "z", kind)
        truth[FIRST : FIRST + 20, 1] = np.nan
        write_rig(scene.rig, tmp_path / f"calibration_{kind}.json", "voxelpose")
        write_actors(tmp_path / "actorsGT.mat", truth)
        if predictions:
            seen = scene.seen(coco, np.random.default_rng(0))
            table = {
                f"{c}_{FIRST + n}": [{"pred": person.tolist(), "score": np.float32(0.9)} for person in frame]
                for c, view in seen.items() for n, frame in enumerate(view)
            }  # fmt: skip
            (tmp_path / f"pred_{kind}_maskrcnn_hrnet_coco.pkl").write_bytes(pickle.dumps(table, protocol=2))
        return scene, truth

    return write


def test_what_is_read_is_what_was_written(shelf, tmp_path):
    scene, truth = shelf()
    assert list_parts(tmp_path) == ("shelf",)
    dataset = open_dataset(tmp_path)
    np.testing.assert_array_equal(dataset.frames, np.arange(300, 360))
    np.testing.assert_allclose(dataset.truth.xyz_m, truth[300:], atol=1e-9)
    np.testing.assert_allclose(dataset.truth.time_s, np.arange(300, 360) / 25)
    assert dataset.rig.up == "z" and dataset.truth.skeleton == SHELF14 and dataset.protocol.actors == 3
    for camera in scene.rig:
        read, own = dataset.rig[camera.name], dataset.keypoints[camera.name]
        assert read.size_px == (1032, 776) and read.size_known
        np.testing.assert_allclose(read.center_m, camera.center_m, atol=1e-9)
        np.testing.assert_allclose(own.time_s, dataset.truth.time_s)
        error = own.xy_px.reshape(60, 2, 17, 2) - camera.project(scene.coco())
        assert 0.9 < error.std() < 1.1 and (own.score == 0.9).all() and not own.is_tracked


@pytest.mark.parametrize(("kind", "frames"), [("shelf", range(300, 360)), ("campus", range(350, 360))])
def test_reconstructed_keypoints_score_as_their_noise_lets_them(shelf, tmp_path, kind, frames):
    """Measured: MPJPE 4.6 mm on Shelf, 18.6 mm on Campus, whose pixels are thrice as large; PCP 100 % on both."""
    shelf(kind)
    dataset = open_dataset(tmp_path)
    np.testing.assert_array_equal(dataset.frames, frames)
    assert dataset.protocol.heads == kind and dataset.protocol.actors == 3
    scores = evaluate_dataset(dataset)
    assert scores.pcp.actors == (pytest.approx(1, abs=0.02),) * 2 and scores.recall == 1
    low, high = (2, 9) if kind == "shelf" else (9, 35)
    assert low < scores.mpjpe_mm < high and scores.pa_mpjpe_mm < scores.mpjpe_mm


def test_the_protocol_says_whose_limbs_count(shelf, tmp_path):
    shelf()
    dataset = open_dataset(tmp_path)
    only_first = replace(dataset, protocol=replace(dataset.protocol, actors=1))
    assert len(evaluate_dataset(only_first).pcp.actors) == 1


def test_own_detections_stand_in_for_the_published_ones(shelf, write_detections, tmp_path):
    scene, _ = shelf(predictions=False)
    with pytest.raises(DetectionError, match=r"keypoints2d.*0, 1, 2, 3, 4"):
        open_dataset(tmp_path)
    for camera in "01234":
        for n in range(3):
            path = tmp_path / f"Camera{camera}" / f"img_{FIRST + n:06d}.png"
            path.parent.mkdir(exist_ok=True)
            Image.new("RGB", (1032, 776), (80 * n, 0, 0)).save(path)
    with pytest.raises(DetectionError, match=r"mvpose detect .*session"):
        open_dataset(tmp_path)
    session = lay_out_session(tmp_path)
    assert session == tmp_path / "session"
    assert sorted(p.name for p in (session / "videos").iterdir()) == [f"{c}.mp4" for c in "01234"]
    video = probe("0", [session / "videos" / "0.mp4"])
    assert video.n_frames == 3 and video.size_px == (1032, 776) and video.frame_rate == pytest.approx(25)
    assert lay_out_session(tmp_path) == session  # what is there stays
    write_detections(session / "mvpose" / "keypoints2d", scene, scene.seen(scene.coco(), np.random.default_rng(1)))
    dataset = open_dataset(tmp_path)
    assert dataset.source == "mvpose detect"
    np.testing.assert_allclose(dataset.keypoints["3"].time_s, np.arange(300, 360) / 25)


def test_what_is_wrong_is_named(shelf, tmp_path):
    shelf()
    predictions = tmp_path / "pred_shelf_maskrcnn_hrnet_coco.pkl"
    table = pickle.loads(predictions.read_bytes())
    for broken in ([], {"0_300": [{"box": 1}]}, {"0_300": [{"pred": [[1, 2, 3]]}]}, {"x": []}, {}):
        predictions.write_bytes(pickle.dumps(broken))
        with pytest.raises(FormatError, match=r"pred_shelf_maskrcnn_hrnet_coco\.pkl"):
            open_dataset(tmp_path)
    predictions.write_bytes(pickle.dumps({**table, "evil": json.loads}))
    with pytest.raises(FormatError, match=r"wants to run json\.loads"):
        open_dataset(tmp_path)
    (tmp_path / "actorsGT.mat").write_bytes(b"no mat")
    with pytest.raises(FormatError, match=r"actorsGT\.mat does not hold"):
        open_dataset(tmp_path)
    savemat(tmp_path / "actorsGT.mat", {"actor3D": cells([cells([np.zeros((13, 3))] * 2, (-1, 1))], (1, 1))})
    with pytest.raises(FormatError, match=r"actor 1 has a pose of \(13, 3\)"):
        open_dataset(tmp_path)
    (tmp_path / "calibration_shelf.json").unlink()
    with pytest.raises(FormatError, match="neither calibration_shelf"):
        open_dataset(tmp_path)


def test_other_folders_are_not_ours(tmp_path):
    assert open_dataset(tmp_path) is None and list_parts(tmp_path) == ()
    assert open_dataset(tmp_path / "nowhere") is None
    with pytest.raises(FormatError, match="no data set"):
        lay_out_session(tmp_path)
