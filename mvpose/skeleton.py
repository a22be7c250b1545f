"""Keypoint sets: joint names, limbs, left/right partners, and the mapping from one set to another by name.

A skeleton is an ordered tuple of joint names. Everything else follows from the names: limbs are those bones of the body
whose two ends are present, and partners differ in ``left_``/``right_``. Sets of different detectors therefore meet in
the joints that they share, without a table for each pair of sets.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

_SIDED_BONES = (
    ("shoulder", "elbow"),
    ("elbow", "wrist"),
    ("hip", "knee"),
    ("knee", "ankle"),
    ("ankle", "heel"),
    ("ankle", "big_toe"),
    ("ankle", "toe"),
    ("big_toe", "small_toe"),
    ("eye", "ear"),
    ("wrist", "index"),
    ("wrist", "pinky"),
    ("wrist", "thumb"),
)
_BONES: tuple[tuple[str, str], ...] = (
    *((f"{side}_{a}", f"{side}_{b}") for a, b in _SIDED_BONES for side in ("left", "right")),
    ("left_shoulder", "right_shoulder"),
    ("left_hip", "right_hip"),
    ("left_shoulder", "left_hip"),
    ("right_shoulder", "right_hip"),
    ("nose", "left_eye"),
    ("nose", "right_eye"),
    ("pelvis", "left_hip"),
    ("pelvis", "right_hip"),
    ("pelvis", "spine"),
    ("spine", "thorax"),
    ("thorax", "neck"),
    ("neck", "head"),
    ("neck", "nose"),
    ("head", "head_top"),
)

# Names that other programs give to the joints of this module. Some call two joints so that both would bear one name, as
# MMPose's thorax and neck_base: a name that is the module's own holds, and the other takes what is in _SECOND_ALIASES.
_ALIASES = {
    "hip": "pelvis", "root": "pelvis", "midhip": "pelvis", "mid_hip": "pelvis", "bottom_torso": "pelvis",
    "top_head": "head_top", "headtop": "head_top", "belly": "spine", "torso": "spine",
    "upper_neck": "neck", "head_bottom": "neck", "neck_base": "thorax",
    "left_foot_index": "left_big_toe", "right_foot_index": "right_big_toe",
    "mouth_left": "left_mouth", "mouth_right": "right_mouth",
    "left_foot": "left_ankle", "right_foot": "right_ankle",
}  # fmt: skip
_SECOND_ALIASES = {"neck_base": "neck"}


@dataclass(frozen=True)
class Skeleton:
    """An ordered set of named joints.

    Attributes:
        name: What the set is called, e.g. ``coco17``; ``custom`` for a set that only its file names.
        joint_names: (J,) unique names, ``left_``/``right_`` first where a joint has a side.
    """

    name: str
    joint_names: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.joint_names:
            raise ValueError("a skeleton needs at least one joint")
        if len(set(self.joint_names)) != len(self.joint_names):
            raise ValueError(f"skeleton {self.name!r} names a joint twice")

    def __len__(self) -> int:
        return len(self.joint_names)

    @cached_property
    def limbs(self) -> tuple[tuple[int, int], ...]:
        """Bones as pairs of joint indices; to draw and to measure lengths of."""
        at = {name: index for index, name in enumerate(self.joint_names)}
        return tuple((at[a], at[b]) for a, b in _BONES if a in at and b in at)

    @cached_property
    def mirrored(self) -> np.ndarray:
        """(J,) index of each joint's left/right partner, its own where it has none.

        >>> SKELETONS["coco17"].mirrored[:5].tolist()
        [0, 2, 1, 4, 3]
        """
        at = {name: index for index, name in enumerate(self.joint_names)}
        return np.array([at.get(_other_side(name), index) for index, name in enumerate(self.joint_names)])

    def indices(self, joint_names: Iterable[str]) -> np.ndarray:
        """Index of each named joint.

        Raises:
            KeyError: A joint is not in this set.
        """
        at = {name: index for index, name in enumerate(self.joint_names)}
        return np.array([at[name] for name in joint_names], dtype=int)


def _other_side(name: str) -> str:
    if name.startswith("left_"):
        return "right_" + name[5:]
    if name.startswith("right_"):
        return "left_" + name[6:]
    return name


def canonical_joint_name(name: str) -> str:
    """Spell a joint as this module does; several joints of one set by :func:`canonical_joint_names`.

    >>> [canonical_joint_name(n) for n in ("LShoulder", "left shoulder", "MidHip", "RBigToe", "mouth (left)")]
    ['left_shoulder', 'left_shoulder', 'pelvis', 'right_big_toe', 'left_mouth']
    """
    snake = _snake_case(name)
    return _ALIASES.get(snake, snake)


def _snake_case(name: str) -> str:
    spelled = "".join(c if c.isalnum() else "_" for c in name.strip()).strip("_")
    if len(spelled) > 1 and spelled[0] in "LR" and spelled[1].isupper() and not spelled.isupper():
        spelled = {"L": "left", "R": "right"}[spelled[0]] + spelled[1:]
    snake = "".join(
        f"_{c.lower()}" if c.isupper() and i and (spelled[i - 1].islower() or spelled[i - 1].isdigit()) else c.lower()
        for i, c in enumerate(spelled)
    )
    return re.sub(r"__+", "_", snake)


def canonical_joint_names(names: Iterable[str]) -> tuple[str, ...]:
    """Spell the joints of a set as this module does, no two of them alike if that can be.

    >>> canonical_joint_names(["root", "thorax", "neck_base", "head"])
    ('pelvis', 'thorax', 'neck', 'head')
    """
    spelled = [(canonical_joint_name(name), _snake_case(name)) for name in names]
    own = {snake for name, snake in spelled if name == snake}
    return tuple(
        _SECOND_ALIASES.get(snake, snake) if name != snake and name in own else name for name, snake in spelled
    )


def _sided(*names: str) -> tuple[str, ...]:
    return tuple(f"{side}_{name}" for name in names for side in ("left", "right"))


_COCO17 = ("nose", *_sided("eye", "ear", "shoulder", "elbow", "wrist", "hip", "knee", "ankle"))
_RIGHT_THEN_LEFT_LEG = tuple(f"{side}_{name}" for side in ("right", "left") for name in ("hip", "knee", "ankle"))

SKELETONS: dict[str, Skeleton] = {
    s.name: s
    for s in (
        Skeleton("coco17", _COCO17),
        Skeleton(
            "halpe26",
            (*_COCO17, "head_top", "neck", "pelvis", *_sided("big_toe", "small_toe", "heel")),
        ),
        Skeleton(
            "body25",
            (
                "nose", "neck", "right_shoulder", "right_elbow", "right_wrist",
                "left_shoulder", "left_elbow", "left_wrist",
                "pelvis", *_RIGHT_THEN_LEFT_LEG, "right_eye", "left_eye", "right_ear", "left_ear",
                "left_big_toe", "left_small_toe", "left_heel", "right_big_toe", "right_small_toe", "right_heel",
            ),
        ),
        Skeleton(
            "body25b",
            (
                *_COCO17, "neck", "head_top",
                "left_big_toe", "left_small_toe", "left_heel", "right_big_toe", "right_small_toe", "right_heel",
            ),
        ),
        Skeleton(
            "coco_wholebody23",
            (
                *_COCO17,
                "left_big_toe", "left_small_toe", "left_heel", "right_big_toe", "right_small_toe", "right_heel",
            ),
        ),
        Skeleton(
            "body18",
            (
                "nose", "neck", "right_shoulder", "right_elbow", "right_wrist",
                "left_shoulder", "left_elbow", "left_wrist",
                *_RIGHT_THEN_LEFT_LEG, "right_eye", "left_eye", "right_ear", "left_ear",
            ),
        ),
        Skeleton(
            "blazepose33",
            (
                "nose", "left_eye_inner", "left_eye", "left_eye_outer",
                "right_eye_inner", "right_eye", "right_eye_outer",
                *_sided("ear", "mouth", "shoulder", "elbow", "wrist", "pinky", "index", "thumb", "hip", "knee", "ankle",
                        "heel", "big_toe"),
            ),
        ),
        Skeleton(
            "h36m17",
            (
                "pelvis", *_RIGHT_THEN_LEFT_LEG, "spine", "thorax", "neck", "head",
                "left_shoulder", "left_elbow", "left_wrist", "right_shoulder", "right_elbow", "right_wrist",
            ),
        ),
        Skeleton(
            "cmu21",
            (
                "pelvis", "right_hip", "right_knee", "right_ankle", "right_toe", "left_hip", "left_knee", "left_ankle",
                "left_toe", "spine", "thorax", "neck", "head", "left_shoulder", "left_elbow", "left_wrist",
                "right_shoulder", "right_elbow", "right_wrist", "nose", "head_top",
            ),
        ),
    )
}  # fmt: skip


LAYOUTS: dict[str, tuple[int, Skeleton]] = {
    **{name: (len(skeleton), skeleton) for name, skeleton in SKELETONS.items()},
    "coco_wholebody133": (133, SKELETONS["coco_wholebody23"]),
    "halpe136": (136, SKELETONS["halpe26"]),
}
"""What detectors write for a person: the number of points, and the joints of which those are the first. Points after
them, of faces and hands, are left out."""


def skeleton_of(joint_names: Sequence[str]) -> Skeleton:
    """Return the known set with exactly these joints in this order, or a ``custom`` one.

    Raises:
        ValueError: Two joints have one canonical name.

    >>> skeleton_of(["Nose", "LEye", "REye"]).name
    'custom'
    """
    names = canonical_joint_names(joint_names)
    of_halpe = tuple("head_top" if name == "head" else name for name in names)
    if of_halpe == SKELETONS["halpe26"].joint_names:  # MMPose calls the top of the head `head` there
        return SKELETONS["halpe26"]
    for skeleton in SKELETONS.values():
        if skeleton.joint_names == names:
            return skeleton
    return Skeleton("custom", names)


CLIP_SKELETON = skeleton_of(("nose", *_sided("shoulder", "elbow", "wrist", "hip", "knee", "ankle")))
"""The joints that detectors and motion capture both have: COCO's without eyes and ears; networks know these."""


def shared_skeleton(skeletons: Sequence[Skeleton]) -> Skeleton:
    """Return the joints that all sets have, in the order of the first."""
    first, *others = skeletons
    if all(other.joint_names == first.joint_names for other in others):
        return first
    names = [name for name in first.joint_names if all(name in other.joint_names for other in others)]
    if not names:
        raise ValueError("the keypoint sets share no joint")
    return skeleton_of(names)
