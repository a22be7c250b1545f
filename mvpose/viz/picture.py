"""Draw a scene through a camera with OpenCV: for pictures and films without a screen, and over video frames.

Limbs are painted back to front as capsules of their size in the world. The camera may be a real one with its
distortion, or a viewpoint made up for the picture.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from mvpose.calib.camera import Camera
from mvpose.viz.scene import BLUE, VERMILLION, People, Stage

if TYPE_CHECKING:
    from PIL.ImageFont import FreeTypeFont

PAPER_RGB = np.array([248, 249, 250])
_INK_RGB = np.array([55, 65, 81])
_GRID_RGB = np.array([196, 203, 211])
_SHADOW_RGB = np.array([192, 198, 206])
_LIMB_RADIUS_M = 0.028
_SUBPIXEL_BITS = 4


def draw_people(
    image: np.ndarray, camera: Camera, people: People, limb_radius_m: float = _LIMB_RADIUS_M, halo: bool = False
) -> np.ndarray:
    """Return a copy of ``image`` with the people painted over it.

    Args:
        image: (H, W, 3) uint8 RGB, of the camera's size.
        camera: Where from; its distortion is applied.
        people: Whom to draw.
        limb_radius_m: How thick the limbs are in the world, metres; joints are a little thicker.
        halo: Paint a white rim, so that limbs stand out from a photograph.
    """
    image = np.ascontiguousarray(image).copy()
    ends, joints = camera.project(people.limbs_m), camera.project(people.joints_m)
    limb_z = (people.limbs_m @ camera.R[2] + camera.t[2]).mean(axis=-1)
    joint_z = people.joints_m @ camera.R[2] + camera.t[2]
    least = max(image.shape[:2]) / 900
    limbs_there, joints_there = np.isfinite(ends).all(axis=(1, 2)), np.isfinite(joints).all(axis=-1)
    strokes = [(limb_z[i], ends[i], people.limb_rgb[i], limb_radius_m) for i in np.flatnonzero(limbs_there)]
    dots = [
        (joint_z[i], joints[i][None], people.joint_rgb[i], 1.3 * limb_radius_m) for i in np.flatnonzero(joints_there)
    ]
    # A joint lies in front of the limbs that meet in it.
    far_to_near = sorted(strokes + dots, key=lambda item: -item[0] + (0.05 if len(item[1]) == 1 else 0.0))
    sized = [(xy, rgb, max(radius * camera.focal_px / z, least)) for z, xy, rgb, radius in far_to_near]
    if halo:
        for xy, _, radius in sized:
            _capsule(image, xy, radius + 1.5 * least, np.array([255, 255, 255]))
    for xy, rgb, radius in sized:
        _capsule(image, xy, radius, 0.62 * rgb)
        _capsule(image, xy, max(radius - 0.9 * least, 0.5), rgb)
        _capsule(image, xy - 0.3 * radius, 0.3 * radius, 0.55 * rgb + 0.45 * 255)
    return image


def draw_stage(stage: Stage, camera: Camera) -> np.ndarray:
    """Return a picture (H, W, 3) of the empty stage: ground grid and cameras, without their names."""
    width, height = camera.size_px
    image = np.full((height, width, 3), PAPER_RGB, dtype=np.uint8)
    least = max(camera.size_px) / 900
    away = np.linalg.norm(stage.ground_m.mean(axis=1) - stage.ground_center_m, axis=-1)
    fade = np.clip(away / max(float(away.max(initial=1.0)), 1e-9), 0, 1)[:, None] ** 2
    colours = (1 - fade) * _GRID_RGB + fade * PAPER_RGB
    for xy, rgb in zip(camera.project(stage.ground_m), colours, strict=True):
        _line(image, xy, 0.9 * least, rgb)
    for frustum in camera.project(stage.frusta_m):
        for xy in frustum:
            _line(image, xy, 1.3 * least, _INK_RGB)
    return image


def draw_scene(background: np.ndarray, camera: Camera, stage: Stage, people: People) -> np.ndarray:
    """Return ``background`` (from ``draw_stage``) with the people and their shadows on the ground."""
    shadows = background.copy()
    drop = people.limbs_m - ((people.limbs_m - stage.ground_center_m) @ stage.up)[..., None] * stage.up
    depth = (drop @ camera.R[2] + camera.t[2]).mean(axis=-1)
    for xy, z in zip(camera.project(drop), depth, strict=True):
        _line(shadows, xy, 2.6 * _LIMB_RADIUS_M * camera.focal_px / max(z, 0.1), _SHADOW_RGB)
    return draw_people(shadows, camera, people)


def annotate(image: np.ndarray, camera: Camera, stage: Stage, caption: str, share: float, sides: bool) -> np.ndarray:
    """Return ``image`` with the cameras' names, a caption, how far the film has come, and which colour is which side.

    Args:
        image: (H, W, 3) uint8 RGB.
        camera: The viewpoint, of that size.
        stage: Whose cameras to name.
        caption: What stands at the lower left.
        share: Part of the film that has passed, 0 to 1.
        sides: Whether colours mean left and right.
    """
    from PIL import Image, ImageDraw

    picture = Image.fromarray(image)
    draw = ImageDraw.Draw(picture)
    width, height = picture.size
    em = max(11, round(min(width, height) / 45))
    font, margin, ink = _font(em), 1.4 * em, tuple(_INK_RGB.tolist())
    for name, (x, y) in zip(stage.camera_names, camera.project(stage.camera_centers_m), strict=True):
        if np.isfinite([x, y]).all():
            draw.text(
                (x, y - 0.5 * em), name, font=font, fill=ink, anchor="mb", stroke_width=2, stroke_fill=(248, 249, 250)
            )
    draw.text((margin, height - margin), caption, font=font, fill=ink, anchor="ls")
    if sides:
        x = width - margin
        for text, colour in (("right", VERMILLION), ("left", BLUE)):
            draw.text((x, height - margin), text, font=font, fill=colour, anchor="rs")
            x -= draw.textlength(text, font=font) + em
    draw.rectangle((0, height - 0.25 * em, share * width, height), fill=ink)
    return np.asarray(picture)


def _font(size_px: int) -> FreeTypeFont:
    import matplotlib
    from PIL import ImageFont

    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf"), size_px)


def _capsule(image: np.ndarray, xy: np.ndarray, radius: float, rgb: np.ndarray) -> None:
    """Paint a thick line between two points, or a disc around one, in place."""
    if len(xy) == 1:
        center = _fixed(xy)
        if center is not None:
            cv2.circle(
                image, center[0], round(radius * 2**_SUBPIXEL_BITS), _colour(rgb), -1, cv2.LINE_AA, _SUBPIXEL_BITS
            )
    else:
        _line(image, xy, 2 * radius, rgb)


def _line(image: np.ndarray, xy: np.ndarray, thickness: float, rgb: np.ndarray) -> None:
    """Paint a line of (2, 2) pixels, in place; nothing where an end is missing or far outside."""
    ends = _fixed(xy)
    if ends is not None:
        cv2.line(image, ends[0], ends[1], _colour(rgb), max(1, round(thickness)), cv2.LINE_AA, _SUBPIXEL_BITS)


def _fixed(xy: np.ndarray) -> list[tuple[int, int]] | None:
    """Return points in OpenCV's fixed-point pixels, or None where one cannot be drawn."""
    if not (np.abs(xy) < 30_000).all():
        return None
    return [(int(x), int(y)) for x, y in np.round(xy * 2**_SUBPIXEL_BITS)]


def _colour(rgb: np.ndarray) -> tuple[int, int, int]:
    r, g, b = (int(value) for value in np.clip(rgb, 0, 255))
    return r, g, b
