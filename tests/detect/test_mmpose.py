import os
from copy import copy
from pathlib import Path

import numpy as np
import pytest

from mvpose.detect import mmpose
from mvpose.detect.mmpose_checkpoint import read_checkpoint, read_config
from mvpose.errors import DetectionError
from mvpose.skeleton import SKELETONS

if not mmpose.is_installed():
    pytest.skip("mmpose is not installed", allow_module_level=True)

import torch

from mvpose.detect.mmpose_compat import import_openmmlab, library_warnings_silenced, suppress_overlaps

with library_warnings_silenced():
    import_openmmlab()


def untrained(scope, config_name):
    """Weights of a network as it is initialised."""
    with library_warnings_silenced():
        from mmdet.registry import MODELS as DETECTORS
        from mmengine.registry import DefaultScope
        from mmpose.registry import MODELS as ESTIMATORS

        config = mmpose._packaged_config(config_name).model
        config.train_cfg = None
        config.backbone.pop("init_cfg", None)
        torch.manual_seed(0)
        with DefaultScope.overwrite_default_scope(scope):
            return (DETECTORS if scope == "mmdet" else ESTIMATORS).build(config).state_dict()


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Untrained networks; the person detector is made to see one large person round every coarse anchor."""
    folder = tmp_path_factory.mktemp("weights")
    person = untrained("mmdet", mmpose._PERSON_CONFIG)
    for name in person:
        if ".rtm_cls." in name:
            person[name] = torch.full_like(person[name], 0.0 if "weight" in name else 5.0 if ".2." in name else -9.0)
        if ".rtm_reg." in name:
            person[name] = torch.full_like(person[name], 0.0 if "weight" in name else 9.0)
    torch.save(person, folder / "person.pth")
    for joints, config in zip((26, 17), mmpose._POSE_CONFIGS, strict=True):
        torch.save({"state_dict": untrained("mmpose", config), "meta": {}}, folder / f"pose{joints}.pth")
    return folder


@pytest.fixture(scope="module")
def engine(weights):
    return mmpose.MmposeDetector(
        checkpoint=weights / "pose26.pth", person_checkpoint=weights / "person.pth", device="cpu"
    )


def test_the_whole_path_runs(engine):
    assert engine.skeleton == SKELETONS["halpe26"]
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 255, (240, 320, 3), dtype=np.uint8) for _ in range(2)]
    found = list(engine.detect(images))
    assert len(found) == 2
    for people in found:
        n = len(people)
        assert n > 0
        assert people.xy_px.shape == (n, 26, 2)
        assert people.score.shape == (n, 26)
        assert people.bbox_px.shape == (n, 4)
        assert (people.bbox_px[:, :2] >= 0).all()
        assert (people.bbox_px[:, 2:] <= (320, 240)).all()
        seen = np.isfinite(people.xy_px).all(axis=-1)
        assert seen.any()
        assert (people.score[~seen] == 0).all()
        assert people.score.min() >= 0
        assert people.score.max() <= 1


def test_images_without_people_keep_their_place(engine):
    strict = copy(engine)
    strict._options = mmpose.MmposeOptions(min_person_score=1.0)
    assert [len(people) for people in strict.detect([np.zeros((64, 48, 3), np.uint8)] * 2)] == [0, 0]


def test_the_default_network_is_the_one_that_fits(weights):
    with library_warnings_silenced():
        _, _, skeleton = mmpose._pose_network(read_checkpoint(weights / "pose17.pth"), "cpu")
    assert skeleton == SKELETONS["coco17"]


def test_a_checkpoint_of_another_network_is_refused(weights):
    with pytest.raises(DetectionError, match=r"person\.pth does not fit RTMPose-m"):
        mmpose.MmposeDetector(checkpoint=weights / "person.pth", person_checkpoint=weights / "person.pth")


def test_a_missing_checkpoint_is_named(tmp_path):
    with pytest.raises(DetectionError, match=r"there is no checkpoint .*absent\.pth"):
        mmpose.MmposeDetector(checkpoint=tmp_path / "absent.pth")


class Harmful:
    def __init__(self, target: Path):
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


def test_a_config_that_no_network_fits_is_named(weights, tmp_path):
    state = torch.load(weights / "pose17.pth", weights_only=True)["state_dict"]
    torch.save({"state_dict": state, "meta": {"cfg": "model = dict(type='Unheard')"}}, tmp_path / "own.pth")
    with pytest.raises(DetectionError, match=r"own\.pth describes cannot be built"):
        mmpose.MmposeDetector(checkpoint=tmp_path / "own.pth")


def test_nothing_that_a_checkpoint_holds_is_executed(tmp_path):
    torch.save({"state_dict": {"w": torch.zeros(1)}, "meta": Harmful(tmp_path / "harm")}, tmp_path / "bad.pth")
    with pytest.raises(DetectionError, match=r"bad\.pth is refused: it would run \w+\.mkdir"):
        read_checkpoint(tmp_path / "bad.pth")
    assert not (tmp_path / "harm").exists()


def test_a_damaged_checkpoint_is_named(tmp_path):
    (tmp_path / "cut.pth").write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(DetectionError, match=r"cut\.pth"):
        read_checkpoint(tmp_path / "cut.pth")


def test_a_checkpoint_of_a_training_run_is_read(tmp_path):
    """Runs of mmengine save numpy values and histories beside the weights."""
    from mmengine.logging import HistoryBuffer

    history = HistoryBuffer()
    history.update(0.5)
    content = {
        "state_dict": {"module.w": torch.ones(2)},
        "message_hub": {"log_scalars": {"loss": history}},
        "meta": {
            "dataset_meta": {
                "keypoint_id2name": {0: "nose", 1: "head"},
                "sigmas": np.array([0.1, 0.2]),
                "weight": np.float32(1.5),
            },
            "cfg": "model = dict(type='TopdownPoseEstimator', head=dict(type='RTMCCHead', size=(192, 256)))",
        },
    }
    torch.save(content, tmp_path / "run.pth")
    checkpoint = read_checkpoint(tmp_path / "run.pth")
    assert list(checkpoint.weights) == ["w"]
    assert checkpoint.joint_names == ("nose", "head")
    assert checkpoint.config == {
        "model": {"type": "TopdownPoseEstimator", "head": {"type": "RTMCCHead", "size": (192, 256)}}
    }


@pytest.mark.parametrize(
    "text",
    ["import os", "a = open('x')", "a = dict(type='os.system', command='true')", "a = [__import__('os')]", "a = ("],
)
def test_a_config_that_is_more_than_values_is_refused(text):
    with pytest.raises(DetectionError, match=r"weights\.pth is refused"):
        read_config(text, Path("weights.pth"))


def test_the_network_is_the_one_that_the_checkpoint_describes(weights, tmp_path):
    from mmengine.config import Config

    config = mmpose._packaged_config(mmpose._POSE_CONFIGS[1])
    state = torch.load(weights / "pose17.pth", weights_only=True)["state_dict"]
    described = {key: config._cfg_dict.to_dict()[key] for key in ("model", "test_dataloader", "train_dataloader")}
    meta = {"cfg": Config(described).pretty_text}
    torch.save({"state_dict": state, "meta": meta}, tmp_path / "own.pth")
    checkpoint = read_checkpoint(tmp_path / "own.pth")
    assert checkpoint.config is not None
    with library_warnings_silenced():
        _, _, skeleton = mmpose._pose_network(checkpoint, "cpu")
    assert skeleton == SKELETONS["coco17"]


def test_overlapping_boxes_are_suppressed():
    boxes = torch.tensor([[0, 0, 10, 10], [0, 0, 10, 9], [0, 0, 10, 5], [20, 0, 30, 10]], dtype=torch.float32)
    scores = torch.tensor([0.5, 0.9, 0.4, 0.7])
    assert suppress_overlaps(boxes, scores, 0.6).tolist() == [1, 3, 2]
    assert suppress_overlaps(boxes[:0], scores[:0], 0.6).tolist() == []
