"""2D pose by OpenMMLab: RTMDet finds the people, RTMPose their joints, a batch of frames at a time.

RTMDet: Lyu et al., "RTMDet: An Empirical Study of Designing Real-Time Object Detectors", 2022. RTMPose: Jiang et al.,
"RTMPose: Real-Time Multi-Person Pose Estimation based on MMPose", 2023. Configs come from the packages of mmpose and
mmdet, weights from OpenMMLab's model zoo.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from mvpose.detect.base import Detections
from mvpose.detect.mmpose_checkpoint import Checkpoint, cached_weights, fetch_weights, is_reachable, read_checkpoint
from mvpose.detect.mmpose_compat import import_openmmlab, library_warnings_silenced
from mvpose.detect.similarity import distinct_people, poses_of
from mvpose.errors import DetectionError, MissingDependencyError
from mvpose.skeleton import Skeleton, skeleton_of

PIP_LINE = 'pip install "mvpose[mmpose]" && pip install --no-deps mmpose==1.3.2'

_ZOO = "https://download.openmmlab.com/mmpose/v1/projects/rtmposev1/"
PERSON_WEIGHTS_URL = _ZOO + "rtmdet_m_8xb32-100e_coco-obj365-person-235e8209.pth"
POSE_WEIGHTS_URL = _ZOO + "rtmpose-m_simcc-body7_pt-body7-halpe26_700e-256x192-4d3e73dd_20230605.pth"

# Inside mmpose/.mim, the part of its wheel that holds what is not code.
_PERSON_CONFIG = "demo/mmdetection_cfg/rtmdet_m_640-8xb32_coco-person.py"
_POSE_CONFIGS = (
    "configs/body_2d_keypoint/rtmpose/body8/rtmpose-m_8xb512-700e_body8-halpe26-256x192.py",
    "configs/body_2d_keypoint/rtmpose/body8/rtmpose-m_8xb256-420e_body8-256x192.py",
)


@dataclass(frozen=True)
class MmposeOptions:
    """What counts as a person, and how much is computed at once."""

    min_person_score: float = 0.4  # of RTMDet, 0..1
    duplicate_similarity: float = 0.8  # keypoint similarity above which two poses are one person, 0..1
    images_per_batch: int | None = None  # None: 16 on a GPU, 4 without
    crops_per_batch: int = 128  # bound on memory in a crowd


class MmposeDetector:
    """RTMPose on people found by RTMDet.

    Attributes:
        name: ``mmpose``.
        skeleton: The joints of the pose network.
    """

    name = "mmpose"

    def __init__(
        self,
        *,
        checkpoint: Path | None = None,
        person_checkpoint: Path | None = None,
        device: str | None = None,
        options: MmposeOptions | None = None,
    ) -> None:
        """Build both networks and load their weights.

        Args:
            checkpoint: Weights of the pose network; the model zoo's by default. The network is the one whose config
                the file holds, else RTMPose-m with 26 or 17 joints, whichever fits.
            person_checkpoint: Weights of the person detector; the model zoo's by default.
            device: E.g. ``cuda:0`` or ``cpu``; a GPU by default if there is one.
            options: See ``MmposeOptions``.

        Raises:
            MissingDependencyError: mmpose or what it needs is not installed.
            DetectionError: Weights cannot be had or do not fit.
        """
        if not is_installed():
            raise MissingDependencyError(f"the detector mmpose is not installed: {PIP_LINE}")
        try:
            import torch

            import_openmmlab()
        except (ImportError, AssertionError, RuntimeError) as error:  # how packages that do not fit each other show it
            raise MissingDependencyError(f"mmpose cannot be imported ({error}): {PIP_LINE}") from error
        self._options = options or MmposeOptions()
        self._device = device or ("cuda:0" if torch.cuda.is_available() else "cpu")
        # The given file first: a wrong one should not cost a download.
        pose = read_checkpoint(checkpoint if checkpoint is not None else fetch_weights(POSE_WEIGHTS_URL))
        with library_warnings_silenced():
            self._pose, self._pose_pipeline, self.skeleton = _pose_network(pose, self._device)
        person = read_checkpoint(
            person_checkpoint if person_checkpoint is not None else fetch_weights(PERSON_WEIGHTS_URL)
        )
        with library_warnings_silenced():
            self._person, self._person_pipeline = _person_network(person, self._device)

    def detect(self, images: Iterable[np.ndarray]) -> Iterator[Detections]:
        """Yield the people of each image (H, W, 3) uint8 RGB."""
        on_gpu = not self._device.startswith("cpu")
        size = self._options.images_per_batch or (16 if on_gpu else 4)
        remaining = iter(images)
        while batch := [np.ascontiguousarray(image[..., ::-1]) for image in islice(remaining, size)]:
            yield from self._poses(batch, self._people(batch))

    def _people(self, images_bgr: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Boxes (n, 4) of the people in each image."""
        inputs = [self._person_pipeline({"img": image, "img_id": 0}) for image in images_bgr]
        boxes = []
        for image, result in zip(images_bgr, _run(self._person, inputs), strict=True):
            found = result.pred_instances
            person = (found.labels == 0) & (found.scores >= self._options.min_person_score)
            box = found.bboxes[person].cpu().numpy().astype(float)
            box = box.clip(0, np.tile([image.shape[1], image.shape[0]], 2))  # the network pads images to a square
            boxes.append(box[np.all(box[:, 2:] - box[:, :2] > 1, axis=1)])
        return boxes

    def _poses(self, images_bgr: Sequence[np.ndarray], boxes: Sequence[np.ndarray]) -> Iterator[Detections]:
        """Landmark all crops of the batch together."""
        owner = np.repeat(np.arange(len(boxes)), [len(box) for box in boxes])
        inputs = (
            self._pose_pipeline({"img": images_bgr[index], "bbox": box[None].astype(np.float32), "bbox_score": _ONE})
            for index, image_boxes in enumerate(boxes)
            for box in image_boxes
        )
        xy = np.empty((len(owner), len(self.skeleton), 2))
        score = np.empty(xy.shape[:2])
        done = 0
        while crops := list(islice(inputs, self._options.crops_per_batch)):
            for result in _run(self._pose, crops):
                xy[done] = result.pred_instances.keypoints[0]
                score[done] = np.clip(result.pred_instances.keypoint_scores[0], 0, 1)
                done += 1
        for index, (image, box) in enumerate(zip(images_bgr, boxes, strict=True)):
            mine = np.flatnonzero(owner == index)
            yield self._detections(xy[mine], score[mine], box, image)

    def _detections(self, xy: np.ndarray, score: np.ndarray, box: np.ndarray, image: np.ndarray) -> Detections:
        """Leave out repetitions, and call joints outside the image missing."""
        height, width = image.shape[:2]
        outside = np.any((xy < -0.5) | (xy > (width - 0.5, height - 0.5)), axis=-1)
        xy, score = np.where(outside[..., None], np.nan, xy), np.where(outside, 0.0, score)
        kept = distinct_people(poses_of(xy, score), score.sum(axis=1), self._options.duplicate_similarity)
        return Detections(xy[kept], score[kept], box[kept])


_ONE = np.ones(1, dtype=np.float32)


def is_installed() -> bool:
    """Whether mmpose and what it needs are here; nothing is imported."""
    return all(
        importlib.util.find_spec(package) is not None for package in ("torch", "mmengine", "mmcv", "mmdet", "mmpose")
    )


def unreachable_weights() -> str | None:
    """Return the address of default weights that are neither downloaded nor reachable now, if there is one."""
    for url in (POSE_WEIGHTS_URL, PERSON_WEIGHTS_URL):
        if not cached_weights(url).is_file() and not is_reachable(url):
            return url
    return None


def _run(network: Any, inputs: Sequence[Mapping[str, Any]]) -> list[Any]:
    import torch
    from mmengine.dataset import pseudo_collate

    if not inputs:
        return []
    with torch.inference_mode(), library_warnings_silenced():
        return network.test_step(pseudo_collate(inputs))


def _person_network(checkpoint: Checkpoint, device: str) -> tuple[Any, Any]:
    from mmcv.transforms import Compose
    from mmdet.registry import MODELS
    from mmengine.registry import DefaultScope

    config = _packaged_config(_PERSON_CONFIG)
    with DefaultScope.overwrite_default_scope("mmdet"):
        network = _fitted(MODELS, config.model, checkpoint, device)
        if network is None:
            raise DetectionError(f"checkpoint {checkpoint.path} does not fit the person detector RTMDet-m")
        steps = list(config.test_dataloader.dataset.pipeline)
        steps[0] = {"type": "mmdet.LoadImageFromNDArray"}
        return network, Compose([step for step in steps if step["type"] != "LoadAnnotations"])


def _pose_network(checkpoint: Checkpoint, device: str) -> tuple[Any, Any, Skeleton]:
    from mmengine.config import Config
    from mmengine.dataset import Compose
    from mmengine.registry import DefaultScope
    from mmpose.registry import MODELS

    if checkpoint.config is not None:
        configs = [Config(dict(checkpoint.config))]
    else:
        configs = [_packaged_config(name) for name in _POSE_CONFIGS]
    with DefaultScope.overwrite_default_scope("mmpose"):
        for config in configs:
            try:
                network = _fitted(MODELS, config.model, checkpoint, device)
                if network is not None:
                    network.test_cfg["flip_test"] = False
                    return network, Compose(config.test_dataloader.dataset.pipeline), _skeleton(checkpoint, config)
            except (AttributeError, KeyError, TypeError, ValueError) as error:
                raise DetectionError(
                    f"the network that checkpoint {checkpoint.path} describes cannot be built: {error}"
                ) from error
    own = "the config that it holds" if checkpoint.config is not None else "RTMPose-m with 26 or 17 joints"
    raise DetectionError(f"checkpoint {checkpoint.path} does not fit {own}")


def _packaged_config(name: str) -> Any:
    import mmpose
    from mmengine.config import Config

    return Config.fromfile(Path(mmpose.__file__).parent / ".mim" / name)


def _fitted(registry: Any, config: Any, checkpoint: Checkpoint, device: str) -> Any | None:
    """Build a network and load its weights; None where they do not fit it."""
    from mmengine.model.utils import revert_sync_batchnorm

    config = config.copy()
    config.train_cfg = None
    config.backbone.pop("init_cfg", None)  # it would download weights that the checkpoint replaces
    network = revert_sync_batchnorm(registry.build(config))
    try:
        network.load_state_dict(dict(checkpoint.weights), strict=True)
    except RuntimeError:
        return None
    return network.to(device).eval()


def _skeleton(checkpoint: Checkpoint, config: Any) -> Skeleton:
    from mmpose.datasets.datasets.utils import parse_pose_metainfo

    names = checkpoint.joint_names
    if names is None:
        meta = parse_pose_metainfo(config.train_dataloader.dataset.metainfo)
        names = tuple(meta["keypoint_id2name"].values())
    return skeleton_of(names)
