"""Scenes made to lose identities: people who cross, meet, come and go, and hide; who follows whom, and what clocks say.

Five cameras, a detector of measured noise, untracked detections. Motion of the test split and seeds below 100 are for
reporting; constants were chosen on others.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from mvpose.bench.clocks import Case, long_motion, record
from mvpose.bench.rooms import FPS, invented_people, share_room
from mvpose.detect.tracks import track_people
from mvpose.keypoints import Keypoints2D
from mvpose.pipeline import Progress, Settings, build_poses
from mvpose.poses import Poses3D
from mvpose.recon.metrics import clock_errors
from mvpose.recon.scores import Matches, match_poses, pooled_scores
from mvpose.sync.synchronise import synchronise_cameras
from mvpose.synthetic.motion import Motion, crossing_motion, meeting_motion
from mvpose.synthetic.noise import DetectorNoise
from mvpose.synthetic.rigs import random_rig, ring_rig
from mvpose.synthetic.world import World, in_image, observe

CAMERAS = 5
SECONDS = 30.0
_PEOPLE = 4
_MIN_JOINTS = 3


@dataclass(frozen=True)
class Absence:
    """A person whom some cameras do not see from one world time to another, as behind furniture."""

    person: int
    start_s: float
    stop_s: float
    cameras: frozenset[int]


@dataclass(frozen=True)
class Scene:
    """People who move, and what is hidden of them."""

    motion: Motion
    absences: tuple[Absence, ...] = ()

    def seen_by(self, camera: int) -> Motion:
        """Return what a camera could see: the motion without those who are hidden from it."""
        xyz = self.motion.xyz_m.copy()
        for one in self.absences:
            if camera in one.cameras:
                hidden = (self.motion.time_s >= one.start_s) & (self.motion.time_s < one.stop_s)
                xyz[hidden, one.person] = np.nan
        return replace(self.motion, xyz_m=xyz)


Motions = Mapping[str, Motion]
MakeScene = Callable[[np.random.Generator, Motions, float], Scene]


def _several(rng: np.random.Generator, motions: Motions, seconds: float) -> Motion:
    return share_room(rng, [long_motion(rng, motions, seconds) for _ in range(_PEOPLE)])


def _come_and_go(rng: np.random.Generator, motions: Motions, seconds: float) -> Scene:
    """Two come late and two leave early, one of them both."""
    motion = _several(rng, motions, seconds)
    xyz = motion.xyz_m.copy()
    for person, (late, early) in enumerate([(False, False), (True, False), (False, True), (True, True)]):
        first_s = rng.uniform(0, seconds / 2 - 4) if late else 0.0
        last_s = rng.uniform(seconds / 2 + 4, seconds) if early else np.inf
        xyz[(motion.time_s < first_s) | (motion.time_s > last_s), person] = np.nan
    return Scene(replace(motion, xyz_m=xyz))


def _hiding(hidden_s: float, cameras: int) -> MakeScene:
    """Let everybody hide once every ten seconds, from so many cameras."""

    def make(rng: np.random.Generator, motions: Motions, seconds: float) -> Scene:
        motion = _several(rng, motions, seconds)
        absences = []
        for person, begin_s in itertools.product(range(_PEOPLE), np.arange(2.0, seconds - 10, 10)):
            start_s = begin_s + rng.uniform(0, 9 - hidden_s)
            blind = frozenset(rng.permutation(CAMERAS)[:cameras].tolist())
            absences.append(Absence(person, start_s, start_s + hidden_s, blind))
        return Scene(motion, tuple(absences))

    return make


def _in_one_view(rng: np.random.Generator, motions: Motions, seconds: float) -> Scene:
    """Hide the last person from all cameras but one, all the time."""
    blind = frozenset(rng.permutation(CAMERAS)[1:].tolist())
    return Scene(_several(rng, motions, seconds), (Absence(_PEOPLE - 1, -np.inf, np.inf, blind),))


SCENES: Mapping[str, MakeScene] = {
    "two cross": lambda rng, motions, seconds: Scene(crossing_motion(rng, seconds)),
    "two meet and touch": lambda rng, motions, seconds: Scene(meeting_motion(rng, seconds)),
    "four come and go": _come_and_go,
    "four hide for 1 s": _hiding(1.0, CAMERAS),
    "four hide for 2 s": _hiding(2.0, CAMERAS),
    "four in one view for 4 s": _hiding(4.0, CAMERAS - 1),
    "one in one view only": _in_one_view,
}


@dataclass(frozen=True)
class SceneRow:
    """What became of one scene.

    Attributes:
        scene: Its title.
        seed: What it was made from.
        matches: The poses, by true clocks, beside those true ones that two cameras could see.
        people: How many there are, whom two cameras could see at some time.
        found: How many identities were made of them.
        invented: People times frames with an estimate far from everybody.
        clock_ms: Errors of the clocks found from the same keypoints.
        clock_z: The same in standard deviations.
        confidently_wrong: Clocks whose verdict is good and that are off by more than 4 σ and 5 ms.
        refused: Cameras without a clock.
    """

    scene: str
    seed: int
    matches: Matches
    people: int
    found: int
    invented: int
    clock_ms: tuple[float, ...]
    clock_z: tuple[float, ...]
    confidently_wrong: int
    refused: int


def run_scenes(
    motions: Motions,
    seeds: Sequence[int],
    progress: Progress,
    *,
    scenes: Sequence[str] = tuple(SCENES),
    seconds: float = SECONDS,
) -> list[SceneRow]:
    """Reconstruct every scene under true clocks, and look for the clocks.

    Args:
        motions: Clips of one person each that people move by.
        seeds: One recording of each scene for each; odd ones stand cameras anywhere, even ones in a ring.
        progress: Called with (what, done, total).
        scenes: Which scenes.
        seconds: How long all cameras record together.
    """
    rows = []
    for done, (title, seed) in enumerate(itertools.product(scenes, seeds)):
        scene, world = make_scene(title, motions, seed, seconds)
        keypoints = film(scene, world, seed)
        clocks = world.true_clocks(world.rig.names[0])
        poses = build_poses(keypoints, world.rig, clocks, Settings(fps=FPS)).poses
        truth = visible_truth(scene, world, poses.time_s)
        people = int(np.isfinite(truth.xyz_m).all(axis=-1).any(axis=(0, 2)).sum())
        invented, _ = invented_people(poses, world, clocks.reference)
        matches = match_poses(poses, truth)
        figures = _clock_figures(world, keypoints)
        rows.append(SceneRow(title, seed, matches, people, len(poses.person_ids), invented, *figures))
        progress("scenes", done + 1, len(scenes) * len(seeds))
    return rows


def make_scene(title: str, motions: Motions, seed: int, seconds: float = SECONDS) -> tuple[Scene, World]:
    """Make one recording of a scene."""
    rng = np.random.default_rng(seed)
    scene = SCENES[title](rng, motions, seconds + 2)
    rig = random_rig(rng, CAMERAS) if seed % 2 else ring_rig(CAMERAS, rng=rng)
    return scene, record(rng, scene.motion, rig, Case(seconds, (FPS,) * CAMERAS, max_offset_s=0.5))


def film(scene: Scene, world: World, seed: int) -> dict[str, Keypoints2D]:
    """Return the tracked keypoints of each camera, of those whom it can see."""
    rng = np.random.default_rng(1000 + seed)
    keypoints = {}
    for index, camera in enumerate(world.rig):
        motion = scene.seen_by(index)
        ever = np.isfinite(motion.xyz_m).any(axis=(0, 2, 3))
        motion = replace(motion, xyz_m=motion.xyz_m[:, ever])
        alone = replace(world, motion=motion, rig=replace(world.rig, cameras=(camera,)))
        keypoints[camera.name] = track_people(observe(alone, rng, DetectorNoise(), tracked=False)[camera.name])
    return keypoints


def visible_truth(scene: Scene, world: World, time_s: np.ndarray) -> Poses3D:
    """Return the true poses with the joints that two cameras can see, at times (T,) of the first camera."""
    reference = world.rig.names[0]
    truth = world.truth_poses(time_s, reference)
    world_s = world.clocks[reference].to_session(time_s)
    views = np.zeros(truth.n_views.shape, dtype=int)
    for index, camera in enumerate(world.rig):
        there = np.isfinite(scene.seen_by(index).at(world_s)).all(axis=(2, 3))
        views += in_image(camera, truth.xyz_m) & there[..., None]
    seen = views >= 2
    seen &= (seen.sum(axis=-1) >= _MIN_JOINTS)[..., None]
    return replace(truth, xyz_m=np.where(seen[..., None], truth.xyz_m, np.nan))


def _clock_figures(
    world: World, keypoints: Mapping[str, Keypoints2D]
) -> tuple[tuple[float, ...], tuple[float, ...], int, int]:
    """Return the clocks' errors, ms and σ, how many are confidently wrong, and how many are missing."""
    reference = world.rig.names[0]
    _, clocks = synchronise_cameras(keypoints, {camera.name: camera for camera in world.rig}, reference=reference)
    middle = {name: float(k.time_s[[0, -1]].mean()) for name, k in keypoints.items()}
    found = clock_errors(clocks, world.true_clocks(clocks.reference), middle)["cameras"]
    wrong = sum(
        abs(e["error_ms"]) > 5 and abs(e["z"]) > 4 and clocks[name].verdict == "good" for name, e in found.items()
    )
    errors, z = tuple(e["error_ms"] for e in found.values()), tuple(e["z"] for e in found.values())
    return errors, z, wrong, len(clocks.unsynchronised)


def format_scenes(rows: Sequence[SceneRow]) -> str:
    """Return a line for each scene; errors of clocks are medians and the largest, the rest sums or pooled."""
    lines = [
        f"{'':<26}recordings  switches  identities of  invented  MPJPE  AP@100  recall  clocks: median    max ms"
        "  wrong  refused"
    ]
    for title in dict.fromkeys(row.scene for row in rows):
        own = [row for row in rows if row.scene == title]
        s = pooled_scores([row.matches for row in own])
        error = np.abs([e for row in own for e in row.clock_ms])
        median, most = (np.median(error), error.max()) if len(error) else (np.nan, np.nan)
        found, people = sum(row.found for row in own), sum(row.people for row in own)
        lines.append(
            f"{title:<26}{len(own):>10}{s.id_switches:>10}{found:>12}/{people:<2}{sum(row.invented for row in own):>10}"
            f"{s.mpjpe_mm:>7.1f}{s.ap[100]:>8.3f}{s.recall:>8.3f}{median:>16.1f}{most:>10.1f}"
            f"{sum(row.confidently_wrong for row in own):>7}{sum(row.refused for row in own):>9}"
        )
    return "\n".join(lines)
