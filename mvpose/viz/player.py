"""Watch a reconstruction: in a window with Open3D (its only importer), or as a picture or film without a screen."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from mvpose.atomic import atomic_path
from mvpose.calib.camera import Camera
from mvpose.calib.rig import CameraRig
from mvpose.errors import MissingDependencyError, MvposeError
from mvpose.poses import Poses3D
from mvpose.video import write_video
from mvpose.viz.picture import PAPER_RGB, annotate, draw_scene, draw_stage
from mvpose.viz.scene import GREY, People, Stage, people_at, set_stage, viewpoint

HELP = (
    "space play/pause · ←/→ one frame · [ / ] one second · home/end start/end · 0–9 jump to tenths · "
    "↑/↓ faster/slower · mouse turns, wheel zooms, ctrl+mouse shifts · R resets the view · Q quits"
)

_FILM_FPS = 30.0
_SUPERSAMPLING = 2
_WINDOW_PX = (1280, 720)
_GLYPH_HEIGHT = 12.0  # of a capital in Open3D's text
_SIDES = 10
_LIMB_RADIUS_M, _JOINT_RADIUS_M = 0.028, 0.036
_SPEEDS = (0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)


@dataclass(frozen=True)
class Playback:
    """Where a film stands, and what each key makes of it.

    Attributes:
        start_s: Session time of the first frame, seconds.
        end_s: Session time of the last frame, seconds.
        step_s: Time between frames, seconds.
        time_s: The moment that is shown.
        speed: Session seconds per second of the viewer's clock.
        playing: Whether time runs.
    """

    start_s: float
    end_s: float
    step_s: float
    time_s: float
    speed: float = 1.0
    playing: bool = True

    def advance(self, elapsed_s: float) -> Playback:
        """Let the viewer's clock run on; after the last frame the film begins again."""
        if not self.playing or self.end_s <= self.start_s:
            return self
        ahead = self.time_s + self.speed * elapsed_s
        return replace(self, time_s=ahead if ahead <= self.end_s else self.start_s)

    def toggle(self) -> Playback:
        """Play or pause."""
        return replace(self, playing=not self.playing)

    def seek(self, time_s: float) -> Playback:
        """Go to a session time, as near as the recording allows."""
        return replace(self, time_s=float(np.clip(time_s, self.start_s, self.end_s)))

    def step(self, frames: int) -> Playback:
        """Pause and go some frames on or back, onto a whole frame."""
        frame = round((self.time_s - self.start_s) / self.step_s)
        return replace(self, playing=False).seek(self.start_s + (frame + frames) * self.step_s)

    def jump(self, share: float) -> Playback:
        """Go to a part of the film, 0 to 1."""
        return self.seek(self.start_s + share * (self.end_s - self.start_s))

    def faster(self, steps: int) -> Playback:
        """Go up or down in the list of speeds."""
        return replace(self, speed=_SPEEDS[int(np.clip(_SPEEDS.index(self.speed) + steps, 0, len(_SPEEDS) - 1))])

    def __str__(self) -> str:
        state = "▶" if self.playing else "⏸"
        return f"{state} {self.time_s:.2f} s of {self.start_s:.2f}–{self.end_s:.2f} s at ×{self.speed:g}"


def playback(poses: Poses3D) -> Playback:
    """Return the beginning of a film of the poses.

    Raises:
        MvposeError: There are no frames.
    """
    if not len(poses.time_s):
        raise MvposeError("there is nothing to view: the reconstruction holds no frames")
    start, end = float(poses.time_s[0]), float(poses.time_s[-1])
    step = 1 / poses.frame_rate if len(poses.time_s) > 1 else 1.0
    return Playback(start, end, step, start)


def render(
    poses: Poses3D,
    rig: CameraRig,
    path: Path,
    size: tuple[int, int] = (1280, 720),
    fps: float | None = None,
    progress: Callable[[float], None] | None = None,
) -> None:
    """Save a film (``.mp4``, in real time) or a picture of the fullest moment (``.png``); needs no screen.

    Args:
        poses: What to show.
        rig: The cameras to show around it.
        path: Where to; the suffix decides what is made.
        size: (width, height), pixels, even numbers for a film.
        fps: Frames per second of the film; the poses' own rate by default, at most 30.
        progress: Told the part that is done, 0 to 1.

    Raises:
        MvposeError: The suffix is another one, there are no frames, or the file cannot be written.
    """
    whole = playback(poses)
    suffix = path.suffix.lower()
    if suffix == ".png":
        moments = np.array([_fullest_moment(poses)])
        (frame,) = _frames(poses, rig, moments, size)
        _write_png(path, frame)
    elif suffix == ".mp4":
        rate = fps or min(1 / whole.step_s, _FILM_FPS)
        moments = np.arange(whole.start_s, whole.end_s + 0.5 / rate, 1 / rate)
        write_video(path, _reporting(_frames(poses, rig, moments, size), len(moments), progress), rate)
    else:
        raise MvposeError(f"{path.name} cannot be saved: the name must end in .mp4 (film) or .png (picture)")


def play(poses: Poses3D, rig: CameraRig, tell: Callable[[str], None] = lambda line: None) -> None:
    """Show the skeletons, cameras and ground in a window until it is closed.

    Args:
        poses: What to show.
        rig: The cameras to show around it.
        tell: Told the keys at the start, and where the film stands after each key.

    Raises:
        MissingDependencyError: Open3D is not installed.
        MvposeError: There is no screen, or there are no frames.
    """
    state = playback(poses)
    if sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        raise MvposeError("there is no screen to play on; save a film instead with --save FILE.mp4")
    o3d = _open3d()
    window = o3d.visualization.VisualizerWithKeyCallback()
    if not window.create_window(f"mvpose — {HELP}", *_WINDOW_PX):
        raise MvposeError("no window can be opened on this screen; save a film instead with --save FILE.mp4")
    try:
        _Player(o3d, window, poses, set_stage(poses, rig), state, tell).run()
    finally:
        window.destroy_window()


class _Player:
    """The window's loop; all that it knows of time is a ``Playback``."""

    def __init__(
        self, o3d: Any, window: Any, poses: Poses3D, stage: Stage, state: Playback, tell: Callable[[str], None]
    ) -> None:
        self._o3d, self._window, self._poses, self._stage, self._tell = o3d, window, poses, stage, tell
        self._state = state
        self._view = viewpoint(poses, stage, _WINDOW_PX)
        self._bar_m = _time_bar(stage, self._view)
        self._people, self._mark = o3d.geometry.TriangleMesh(), o3d.geometry.TriangleMesh()
        self._labels = [o3d.geometry.TriangleMesh() for _ in range(len(stage.camera_names) + 1)]
        self._names = [self._glyphs(name) for name in stage.camera_names]
        self._name_size_m = 0.3 * float(np.abs(stage.frusta_m - stage.camera_centers_m[:, None, None]).max(initial=0.4))

    def run(self) -> None:
        options = self._window.get_render_option()
        options.background_color = PAPER_RGB / 255
        options.mesh_show_back_face = True
        self._fill_people()
        self._fill_labels(self._view.R)
        for segments, grey in ((self._stage.ground_m, 0.78), (self._stage.frusta_m, 0.25), (self._bar_m[None], 0.25)):
            self._window.add_geometry(self._lines(segments.reshape(-1, 2, 3), grey))
        for mesh in (self._people, self._mark, *self._labels):
            self._window.add_geometry(mesh)
        self._reset_view()
        self._bind_keys()
        self._tell(HELP)
        shown, before = None, time.monotonic()
        while self._window.poll_events():
            now = time.monotonic()
            self._state, before = self._state.advance(now - before), now
            R = self._window.get_view_control().convert_to_pinhole_camera_parameters().extrinsic[:3, :3]
            if shown != (moment := (self._state.time_s, R.tobytes())):
                self._fill_people()
                self._fill_labels(R)
                for mesh in (self._people, self._mark, *self._labels):
                    self._window.update_geometry(mesh)
                shown = moment
            self._window.update_renderer()
            time.sleep(max(0.0, 1 / 120 - (time.monotonic() - now)))

    def _fill_people(self) -> None:
        self._fill(self._people, *people_mesh(people_at(self._poses, self._state.time_s)))
        at = self._mark_m()
        self._fill(self._mark, *balls(at[None], np.array([GREY], dtype=np.uint8), 0.06))

    def _fill_labels(self, R: np.ndarray) -> None:
        """Write the cameras' names and the time so that they face the viewer, whose rotation is R (3, 3)."""
        above = self._stage.camera_centers_m + 1.4 * self._name_size_m * self._stage.up
        places = [*zip(self._names, above, strict=True)]
        places.append((self._glyphs(f"{self._state.time_s:.2f} s"), self._mark_m() + 0.12 * self._stage.up))
        for mesh, ((glyphs, triangles), at) in zip(self._labels, places, strict=True):
            vertices = at + self._name_size_m * (glyphs[:, :1] * R[0] - glyphs[:, 1:] * R[1])
            self._fill(mesh, vertices, triangles, np.full((len(vertices), 3), 64.0))

    def _mark_m(self) -> np.ndarray:
        """Return the point (3,) of the time bar where the film stands."""
        state = self._state
        share = (state.time_s - state.start_s) / max(state.end_s - state.start_s, 1e-9)
        return self._bar_m[0] + share * (self._bar_m[1] - self._bar_m[0])

    def _glyphs(self, text: str) -> tuple[np.ndarray, np.ndarray]:
        """Return a text as a mesh (V, 2), (F, 3): about 1 high, centred above the origin."""
        mesh = self._o3d.t.geometry.TriangleMesh.create_text(text if text.strip() else "·", depth=0.0).to_legacy()
        vertices, triangles = np.asarray(mesh.vertices)[:, :2], np.asarray(mesh.triangles)
        if not len(triangles):  # characters that its font lacks
            return np.zeros((3, 2)), np.array([[0, 1, 2]])
        low, high = vertices.min(axis=0), vertices.max(axis=0)
        return (vertices - [(low[0] + high[0]) / 2, low[1]]) / _GLYPH_HEIGHT, triangles

    def _lines(self, segments: np.ndarray, grey: float) -> Any:
        o3d = self._o3d
        lines = o3d.geometry.LineSet(
            o3d.utility.Vector3dVector(segments.reshape(-1, 3)),
            o3d.utility.Vector2iVector(np.arange(2 * len(segments)).reshape(-1, 2)),
        )
        return lines.paint_uniform_color((grey, grey, grey))

    def _fill(self, mesh: Any, vertices: np.ndarray, triangles: np.ndarray, rgb: np.ndarray) -> None:
        vector = self._o3d.utility
        mesh.vertices, mesh.triangles = vector.Vector3dVector(vertices), vector.Vector3iVector(triangles)
        mesh.vertex_colors = vector.Vector3dVector(rgb / 255)
        mesh.compute_vertex_normals()

    def _reset_view(self) -> bool:
        control = self._window.get_view_control()
        parameters = control.convert_to_pinhole_camera_parameters()
        size = parameters.intrinsic
        focal = self._view.focal_px * size.height / self._view.size_px[1]
        size.set_intrinsics(size.width, size.height, focal, focal, size.width / 2 - 0.5, size.height / 2 - 0.5)
        parameters.intrinsic, parameters.extrinsic = size, self._view.cam_from_world
        control.convert_from_pinhole_camera_parameters(parameters, allow_arbitrary=True)
        control.set_constant_z_near(0.05)
        control.set_constant_z_far(200.0)
        return True

    def _bind_keys(self) -> None:
        space, right, left, down, up, home, end = 32, 262, 263, 264, 265, 268, 269
        actions: dict[int, Callable[[Playback], Playback]] = {
            space: Playback.toggle,
            right: lambda s: s.step(1),
            left: lambda s: s.step(-1),
            ord("]"): lambda s: s.seek(s.time_s + 1),
            ord("["): lambda s: s.seek(s.time_s - 1),
            home: lambda s: s.jump(0),
            end: lambda s: replace(s.jump(1), playing=False),
            up: lambda s: s.faster(1),
            down: lambda s: s.faster(-1),
            **{ord(str(tenth)): lambda s, share=tenth / 10: s.jump(share) for tenth in range(10)},  # type: ignore[misc]
        }
        for key, action in actions.items():
            self._window.register_key_callback(key, lambda _window, action=action: self._act(action))
        self._window.register_key_callback(ord("R"), lambda _window: self._reset_view())

    def _act(self, action: Callable[[Playback], Playback]) -> bool:
        self._state = action(self._state)
        self._tell(str(self._state))
        return True


def people_mesh(people: People) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return limbs as tubes and joints as balls: vertices (V, 3) m, triangles (F, 3), colours (V, 3) 0–255.

    Never empty: where nobody is there, one triangle without area stands in, because a window cannot hold an empty mesh.
    """
    limbs = np.isfinite(people.limbs_m).all(axis=(1, 2))
    joints = np.isfinite(people.joints_m).all(axis=1)
    parts = [
        tubes(people.limbs_m[limbs], people.limb_rgb[limbs], _LIMB_RADIUS_M),
        balls(people.joints_m[joints], people.joint_rgb[joints], _JOINT_RADIUS_M),
        (np.zeros((3, 3)), np.array([[0, 1, 2]]), np.zeros((3, 3))),
    ]
    before = np.cumsum([0] + [len(vertices) for vertices, _, _ in parts[:-1]])
    vertices, triangles, rgb = zip(*parts, strict=True)
    joined = np.concatenate([t + n for t, n in zip(triangles, before, strict=True)])
    return np.concatenate(vertices), joined, np.concatenate(rgb)


def tubes(ends: np.ndarray, rgb: np.ndarray, radius: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return open tubes around segments (M, 2, 3): vertices, triangles, colours as of ``people_mesh``."""
    along = ends[:, 1] - ends[:, 0]
    along = along / np.maximum(np.linalg.norm(along, axis=-1, keepdims=True), 1e-9)
    least = np.eye(3)[np.abs(along).argmin(axis=-1)]
    across = np.cross(along, least)
    across /= np.maximum(np.linalg.norm(across, axis=-1, keepdims=True), 1e-9)
    angle = 2 * np.pi * np.arange(_SIDES) / _SIDES
    ring = np.cos(angle)[:, None] * across[:, None] + np.sin(angle)[:, None] * np.cross(along, across)[:, None]
    vertices = ends[:, :, None] + radius * ring[:, None]  # (M, 2, S, 3)
    k = np.arange(_SIDES)
    following = (k + 1) % _SIDES
    one = np.concatenate(
        [np.stack([k, following, k + _SIDES], 1), np.stack([following, following + _SIDES, k + _SIDES], 1)]
    )
    return _repeated(vertices.reshape(len(ends), 2 * _SIDES, 3), one, rgb)


def balls(centers: np.ndarray, rgb: np.ndarray, radius: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return balls around points (N, 3): vertices, triangles, colours as of ``people_mesh``."""
    rows = 6
    latitude = np.pi * np.arange(rows + 1) / rows
    longitude = 2 * np.pi * np.arange(_SIDES) / _SIDES
    lat, lon = (a.ravel() for a in np.meshgrid(latitude, longitude, indexing="ij"))
    unit = np.stack([np.sin(lat) * np.cos(lon), np.sin(lat) * np.sin(lon), np.cos(lat)], axis=-1)
    row, k = (a.ravel() for a in np.meshgrid(np.arange(rows), np.arange(_SIDES), indexing="ij"))
    here, there = row * _SIDES + k, row * _SIDES + (k + 1) % _SIDES
    one = np.concatenate(
        [np.stack([here, here + _SIDES, there], 1), np.stack([there, here + _SIDES, there + _SIDES], 1)]
    )
    return _repeated(centers[:, None] + radius * unit, one, rgb)


def _repeated(
    vertices: np.ndarray, triangles: np.ndarray, rgb: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Join N copies (N, V, 3) of one body with its triangles (F, 3) and a colour (N, 3) each."""
    n, v = vertices.shape[:2]
    joined = (triangles + v * np.arange(n)[:, None, None]).reshape(-1, 3)
    return vertices.reshape(-1, 3), joined, np.repeat(rgb.astype(float), v, axis=0)


def _time_bar(stage: Stage, view: Camera) -> np.ndarray:
    """Return the (2, 3) ends of a line on the ground before the viewer, along which a mark shows the time."""
    away = view.R[2] - (view.R[2] @ stage.up) * stage.up
    return stage.ground_center_m - 2.2 * away / np.linalg.norm(away) + np.array([[-1.2], [1.2]]) * view.R[0]


def _fullest_moment(poses: Poses3D) -> float:
    """Return the session time at which most joints are there, the middle one among equals."""
    joints = np.isfinite(poses.xyz_m).all(axis=-1).sum(axis=(1, 2))
    fullest = np.flatnonzero(joints == joints.max())
    return float(poses.time_s[fullest[len(fullest) // 2]])


def _frames(poses: Poses3D, rig: CameraRig, moments: np.ndarray, size: tuple[int, int]) -> Iterator[np.ndarray]:
    """Draw the poses at each moment (N,), painted large and scaled down for smooth edges."""
    stage = set_stage(poses, rig)
    view = viewpoint(poses, stage, size)
    large = viewpoint(poses, stage, (_SUPERSAMPLING * size[0], _SUPERSAMPLING * size[1]))
    empty = draw_stage(stage, large)
    for number, moment in enumerate(moments.tolist(), start=1):
        painted = draw_scene(empty, large, stage, people_at(poses, moment))
        frame = cv2.resize(painted, size, interpolation=cv2.INTER_AREA)
        yield annotate(frame, view, stage, f"{moment:.2f} s", number / len(moments), len(poses.person_ids) == 1)


def _reporting(
    frames: Iterator[np.ndarray], count: int, progress: Callable[[float], None] | None
) -> Iterator[np.ndarray]:
    for number, frame in enumerate(frames, start=1):
        yield frame
        if progress:
            progress(number / count)


def _write_png(path: Path, image: np.ndarray) -> None:
    done, data = cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    if not done:
        raise MvposeError(f"{path} cannot be encoded as PNG")
    with atomic_path(path) as temporary:
        temporary.write_bytes(data.tobytes())


def _open3d() -> Any:
    try:
        import open3d
    except (ImportError, OSError) as error:
        raise MissingDependencyError(
            "the player needs Open3D: pip install 'mvpose[view]', or save a film instead with --save FILE.mp4"
        ) from error
    return open3d
