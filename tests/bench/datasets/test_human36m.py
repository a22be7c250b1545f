import json

import numpy as np
import pytest

from mvpose.bench.datasets import list_parts, open_dataset
from mvpose.bench.recon_datasets import evaluate_dataset, evaluate_folder, format_evaluation
from mvpose.errors import CalibrationError, FormatError
from mvpose.skeleton import SKELETONS

CAMERAS = ("54138969", "55011271", "58860488", "60457274")
H36M = SKELETONS["h36m17"].joint_names
PLACES = [0, 1, 2, 3, 6, 7, 8, 12, 13, 14, 15, 17, 18, 19, 25, 26, 27]  # of these among Human3.6M's 32 joints
SYMMETRY = {"h36m": [[4, 5, 6, 11, 12, 13], [1, 2, 3, 14, 15, 16]],
            "coco": [[1, 3, 5, 7, 9, 11, 13, 15], [2, 4, 6, 8, 10, 12, 14, 16]]}  # fmt: skip
PART = "S9/Walking 1"


@pytest.fixture
def h36m(make_scene, tmp_path):
    """VideoPose3D's files, with one recording that is tested and one that is not; 2D has three frames more."""

    def write(layout="h36m", source="cpn_ft_h36m_dbb"):
        room = make_scene(103, 50.0, people=1, size_px=(1000, 1002), focal_px=900, rng=np.random.default_rng(5))
        scene = room.named(CAMERAS)
        joints = scene.joints(H36M)
        xyz = np.zeros((100, 32, 3), np.float32)
        xyz[:, PLACES] = joints[:100, 0]
        np.savez_compressed(
            tmp_path / "data_3d_h36m.npz", positions_3d={"S1": {"Posing": xyz[:10]}, "S9": {"Walking 1": xyz}}
        )
        seen = scene.seen(joints if layout == "h36m" else scene.coco(), np.random.default_rng(0))
        np.savez_compressed(
            tmp_path / f"data_2d_h36m_{source}.npz",
            positions_2d={"S9": {"Walking 1": [seen[c][:, 0, :, :2].astype(np.float32) for c in CAMERAS]}},
            metadata={"layout_name": layout, "num_joints": 17, "keypoints_symmetry": SYMMETRY[layout]},
        )
        document = {
            "intrinsics": {
                c.name: {"calibration_matrix": c.K.tolist(), "distortion": c.dist.tolist()} for c in scene.rig
            },
            "extrinsics": {"S9": {c.name: {"R": c.R.tolist(), "t": (c.t[:, None] * 1000).tolist()} for c in scene.rig}},
        }
        (tmp_path / "camera-parameters.json").write_text(json.dumps(document))
        return scene, joints

    return write


def test_what_is_read_is_what_was_written(h36m, tmp_path):
    scene, joints = h36m()
    assert list_parts(tmp_path) == (PART,)
    dataset = open_dataset(tmp_path)
    assert dataset.name == f"Human3.6M {PART}" and dataset.source == "cpn_ft_h36m_dbb"
    assert dataset.rig.up == "z" and dataset.rig.names == CAMERAS and dataset.rig["55011271"].size_px == (1000, 1000)
    np.testing.assert_allclose(dataset.truth.xyz_m, joints[:100], atol=1e-6)
    assert dataset.truth.skeleton.joint_names == H36M and dataset.fps == 50
    for camera in dataset.rig:
        own = dataset.keypoints[camera.name]
        assert own.n_frames == 100 and own.skeleton.joint_names == H36M
        error = own.xy_px - camera.project(dataset.truth.xyz_m[:, 0])
        assert 0.9 < error.std() < 1.1
        np.testing.assert_allclose(camera.center_m, scene.rig[camera.name].center_m, atol=1e-9)


@pytest.mark.parametrize("layout", ["h36m", "coco"])
def test_reconstructed_keypoints_score_as_their_noise_lets_them(h36m, tmp_path, layout):
    h36m(layout)
    scores = evaluate_dataset(open_dataset(tmp_path))
    assert 1.5 < scores.mpjpe_mm < 5 and 1 < scores.pa_mpjpe_mm < scores.mpjpe_mm  # measured 2.7 and 2.6; PA 2.4, 2.3
    assert scores.recall == 1 and scores.ap[25] == 1 and scores.id_switches == 0 and scores.pcp.mean == 1


def test_a_table_without_published_rows(h36m, tmp_path):
    h36m()
    table = format_evaluation(evaluate_folder(tmp_path))
    assert "published" not in table and f"Human3.6M {PART}" in table and "cpn_ft_h36m_dbb" in table


def test_the_best_detections_are_taken_and_true_projections_last(h36m, tmp_path):
    for source in ("gt", "sh_ft_h36m", "detectron_ft_h36m", "cpn_ft_h36m_dbb"):
        h36m(source=source)
        assert open_dataset(tmp_path).source == source


def test_what_is_wrong_is_named(h36m, tmp_path):
    h36m()
    detections = tmp_path / "data_2d_h36m_cpn_ft_h36m_dbb.npz"
    views = [np.zeros((100, 17, 2), np.float32)] * 4
    meta = {"keypoints_symmetry": SYMMETRY["h36m"]}
    for positions, metadata, words in (
        ({"S9": {}}, meta, "no keypoints of S9/Walking 1"),
        ({"S9": {"Walking 1": views[:3]}}, meta, "one array of keypoints"),
        ({"S9": {"Walking 1": [1, 2, 3, 4]}}, meta, "no array of numbers"),
        ({"S9": {"Walking 1": views}}, {"keypoints_symmetry": [[3], [4]]}, "neither those of Human3.6M's"),
        ({"S9": {"Walking 1": [v[:, :5] for v in views]}}, meta, r"not \(T, 17, 2\)"),
        ({"S9": print}, meta, "wants to run builtins.print"),
    ):
        np.savez(detections, positions_2d=positions, metadata=metadata)
        with pytest.raises(FormatError, match=words):
            open_dataset(tmp_path)
    detections.unlink()
    with pytest.raises(FormatError, match="no data_2d_h36m_"):
        open_dataset(tmp_path)
    cameras = tmp_path / "camera-parameters.json"
    document = json.loads(cameras.read_text())
    del document["extrinsics"]["S9"]
    cameras.write_text(json.dumps(document))
    with pytest.raises(CalibrationError, match=r"camera-parameters\.json: extrinsics has no 'S9'"):
        open_dataset(tmp_path)
    cameras.unlink()
    with pytest.raises(FormatError, match=r"no camera-parameters\.json"):
        open_dataset(tmp_path)
