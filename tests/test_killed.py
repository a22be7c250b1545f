"""What a killed run leaves behind is never taken for another run's, and the next run ends as if nothing had been."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mvpose.demo import write_session
from mvpose.formats.keypoints2d import read_npz
from mvpose.synthetic.motion import generate_motion
from mvpose.synthetic.rigs import ring_rig
from mvpose.synthetic.world import make_world
from mvpose.video import write_video_times

PROCESS_ENV = {**os.environ, "OMP_NUM_THREADS": "1"}

OURS = ("--reference", "cam01")
THEIRS = ("--reference", "cam02", "--fps", "15", "--no-smooth")

# What changes a folder: the state after one of these is the state before the next.
CHANGES = frozenset({"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.chmod", "os.truncate", "os.link"})


@pytest.fixture(scope="module")
def worlds(tmp_path_factory) -> Path:
    """One room with one person (ours), and with two (theirs): other keypoints, other files for each person."""
    folder = tmp_path_factory.mktemp("worlds")
    for name, people in (("ours", 1), ("theirs", 2)):
        motion = generate_motion(np.random.default_rng(4), 5.0, people=people)
        rng = np.random.default_rng(1)
        world = make_world(rng, motion, ring_rig(2), fps=(25.0, 20.0), max_offset_s=0.5, max_drift_ppm=0.0)
        write_session(world, rng, folder / name, None)
        # Two cameras and five seconds leave rivals; what is known of the offset decides.
        offset_s = world.true_clocks("cam01")["cam02"].offset_s
        (folder / name / "session.toml").write_text(
            f"[cameras.cam02]\noffset_hint_s = {offset_s:.3f}\nhint_sigma_s = 0.02\n"
        )
    return folder


@pytest.fixture
def walk(worlds, tmp_path) -> Path:
    return Path(shutil.copytree(worlds / "ours", tmp_path / "walk"))


def bring(world: Path, walk: Path) -> None:
    """Give the session the keypoints of a world."""
    shutil.copytree(world / "keypoints", walk / "keypoints", dirs_exist_ok=True)
    shutil.copy(world / "session.toml", walk)


def results(out: Path) -> dict[str, bytes]:
    """Return all files but the record, whose seconds and warnings are its run's own."""
    files = (path for path in out.rglob("*") if not path.is_dir() and path.name != "run.json")
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in files}


def record(out: Path) -> dict[str, Any]:
    stages = json.loads((out / "run.json").read_text(encoding="utf-8"))["stages"]
    return {name: {key: stage[key] for key in stage if key != "seconds"} for name, stage in stages.items()}


_watching: list[Callable[[str, tuple[Any, ...]], None]] = []


def _tell(event: str, args: tuple[Any, ...]) -> None:
    if _watching and event in CHANGES:
        watch = _watching.pop()  # what it does itself is not watched
        watch(event, args)
        _watching.append(watch)


sys.addaudithook(_tell)  # there is no way to take it off again


@contextmanager
def states_of(out: Path, into: Path) -> Iterator[dict[str, Path]]:
    """Copy a folder before each change of it; yields the copies by what was about to happen.

    A kill -9 leaves what the kernel has been told, which is what a copy sees, so each is a killed run. States that
    differ in what is half written alone are kept once.
    """
    states: dict[str, Path] = {}
    seen = set()

    def watch(event: str, args: tuple[Any, ...]) -> None:
        whole = {name: content for name, content in results(out).items() if not name.startswith((".partial-", ".lock"))}
        state = repr((sorted(whole.items()), record(out)))
        if state not in seen:
            seen.add(state)
            what = f"{len(states):03d} {event} {' '.join(str(a) for a in args)}"
            states[what] = Path(shutil.copytree(out, into / str(len(states))))

    _watching.append(watch)
    try:
        yield states
    finally:
        _watching.clear()


def test_killed_at_any_change_of_the_folder_another_runs_results_are_never_ours(mvpose, worlds, walk, tmp_path):
    out = walk / "mvpose"
    command = ["reconstruct", walk, "--calib", walk / "calib.json"]
    assert mvpose(*command, *OURS).code == 0
    expected, on_record = results(out), record(out)
    bring(worlds / "theirs", walk)
    with states_of(out, tmp_path) as states:
        assert mvpose(*command, *THEIRS).code == 0
    bring(worlds / "ours", walk)
    # Each file was replaced on its own, all differ from ours, and some was on its way when the process died.
    theirs = results(out)
    assert {name for name in expected if theirs[name] == expected[name]} == set()
    assert len(states) > len(theirs)
    assert any(list(state.glob(".partial-*")) for state in states.values())
    for what, state in states.items():
        shutil.rmtree(out)
        shutil.copytree(state, out)
        assert mvpose(*command, *OURS).code == 0, what
        assert results(out) == expected, f"killed before {what}"
        assert record(out) == on_record


needs_kills = pytest.mark.skipif("not config.getoption('--kills')", reason="takes minutes: --kills N")

# Forks a process for each command, so that none has to import everything; tells its id and, when asked, how it ended:
# until then the id is nobody else's. One that is to die does so just before it puts its n-th file in place. In place of
# a detector that takes minutes, one reads in each frame which of the worlds' frames it is.
_SERVER = """
import json, os, signal, sys
import numpy as np
import mvpose.compare, mvpose.pipeline, mvpose.viz.plots
from mvpose.cli import main
from mvpose.detect.base import Detections
from mvpose.formats.keypoints2d import read_npz

class Reader:
    name = "reader"

    def __init__(self, *args, **options):
        self.seen = [read_npz(path) for path in FILES.split(os.pathsep)]
        self.skeleton = self.seen[0].skeleton

    def detect(self, images):
        for image in images:
            number = int("".join("01"[int(block > 127)] for block in image[10, 10::20, 0]), 2)
            seen, frame = self.seen[number >> 9], number & 511
            rows = slice(seen.frame_ptr[frame], seen.frame_ptr[frame + 1])
            xy = (seen.xy_px[rows] + 0.5) / 6 - 0.5
            yield Detections(xy, seen.score[rows], np.concatenate([np.nanmin(xy, 1), np.nanmax(xy, 1)], 1))

FILES = sys.argv[1]
mvpose.pipeline.choose_detector = Reader

def run(argv, errors, left):
    def count(event, args):
        nonlocal left
        left -= event == "os.rename"
        if event == "os.rename" and left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.dup2(os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
    sys.argv = ["mvpose", *argv]
    try:
        main()
    except SystemExit as end:
        os._exit(end.code or 0)

for line in sys.stdin:
    pid = os.fork()
    if not pid:
        run(*json.loads(line))
    print(pid, flush=True)
    sys.stdin.readline()
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""


class Commands:
    """Runs commands, in processes that can be killed."""

    def __init__(self, worlds: Path, folder: Path) -> None:
        self._errors = folder / "stderr"
        self._server = subprocess.Popen(
            [sys.executable, "-c", _SERVER, os.pathsep.join(map(str, keypoint_files(worlds)))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=PROCESS_ENV,
        )

    def start(self, argv: list[object], dies_at: int = 0) -> int:
        """Start a command; return its process."""
        self._ask(json.dumps(([str(a) for a in argv], str(self._errors), dies_at)))
        return int(self._server.stdout.readline())

    def _ask(self, line: str) -> None:
        self._server.stdin.write(line + "\n")
        self._server.stdin.flush()

    def end(self) -> int:
        """Wait for the end; return the exit code, or minus the signal."""
        self._ask("")
        return int(self._server.stdout.readline())

    def run(self, argv: list[object]) -> float:
        """Run a command that must end well; return how long it took, seconds."""
        since = time.monotonic()
        self.start(argv)
        assert self.end() == 0, self._errors.read_text()
        return time.monotonic() - since

    def close(self) -> None:
        self._server.stdin.close()
        self._server.wait()
        self._server.stdout.close()


@pytest.fixture
def commands(worlds, tmp_path) -> Iterator[Commands]:
    made = Commands(worlds, tmp_path)
    yield made
    made.close()


@dataclass(frozen=True)
class Case:
    """A session, and what brings it to be ours, or theirs."""

    out: Path
    ours: Callable[[], list[object]]
    theirs: Callable[[], list[object]]


@pytest.fixture
def of_keypoints(worlds, walk) -> Case:
    command = ["reconstruct", walk, "--calib", walk / "calib.json"]

    def brought(name: str, options: tuple[str, ...]) -> list[object]:
        bring(worlds / name, walk)
        return [*command, *options]

    return Case(walk / "mvpose", lambda: brought("ours", OURS), lambda: brought("theirs", THEIRS))


def keypoint_files(worlds: Path) -> list[Path]:
    return sorted(worlds.glob("*/keypoints/*.npz"))


@pytest.fixture
def of_videos(worlds, walk, tmp_path) -> Case:
    """The same from videos of a sixth of the size, whose frames show in black and white which frame of which file."""
    for number, path in enumerate(keypoint_files(worlds)):
        seen = read_npz(path)
        assert (seen.n_frames < 512, seen.size_px) == (True, (1920, 1080))
        bits = ([int(bit) for bit in f"{number * 512 + frame:016b}"] for frame in range(seen.n_frames))
        images = (np.kron(255 * np.array([own] * 9, dtype=np.uint8)[..., None], np.ones((20, 20, 3))) for own in bits)
        videos = tmp_path / path.parts[-3] / "videos"
        videos.mkdir(parents=True, exist_ok=True)
        write_video_times(videos / f"{path.stem}.mp4", (image.astype(np.uint8) for image in images), seen.time_s)
    shutil.rmtree(walk / "keypoints")
    command = ["reconstruct", walk, "--calib", walk / "calib.json"]

    def brought(name: str, options: tuple[str, ...]) -> list[object]:
        shutil.copytree(tmp_path / name / "videos", walk / "videos", dirs_exist_ok=True)
        shutil.copy(worlds / name / "session.toml", walk)
        return [*command, *options]

    return Case(walk / "mvpose", lambda: brought("ours", OURS), lambda: brought("theirs", THEIRS))


@needs_kills
@pytest.mark.parametrize("over", [True, False], ids=["over another run's", "from nothing"])
def test_killed_at_every_replacement_the_rerun_equals_an_undisturbed_run(of_keypoints, commands, over):
    case, ours = of_keypoints, of_keypoints.ours()
    commands.run(ours)
    expected, on_record = results(case.out), record(case.out)
    kills = 0
    while True:
        if not over:
            shutil.rmtree(case.out)
        commands.start(case.theirs() if over else ours, dies_at=kills + 1)
        if (code := commands.end()) == 0:
            break
        assert code == -signal.SIGKILL
        kills += 1
        commands.run(case.ours())
        assert results(case.out) == expected, f"killed at replacement {kills}"
        assert record(case.out) == on_record
        print(f"replacement {kills}: equal", flush=True)
    assert kills > len(expected)


@needs_kills
@pytest.mark.parametrize("kind", ["of_keypoints", "of_videos"])
def test_killed_at_random_moments_the_rerun_equals_an_undisturbed_run(request, commands, kind):
    case, rng = request.getfixturevalue(kind), random.Random(0)
    commands.run(case.ours())
    expected, on_record = results(case.out), record(case.out)
    total_s = commands.run(case.theirs())
    commands.run(case.ours())
    moments = [rng.uniform(0, total_s) for _ in range(request.config.getoption("--kills"))]
    for number, moment in enumerate(moments):
        if number % 2:  # from nothing, else over what was finished before
            shutil.rmtree(case.out)
        process = commands.start(case.theirs())
        time.sleep(moment)
        os.kill(process, signal.SIGKILL)
        code = commands.end()
        left = len(list(case.out.glob(".partial-*")))
        commands.run(case.ours())
        assert results(case.out) == expected, f"killed at moment {number}"
        assert record(case.out) == on_record
        print(f"{moment:.1f} of {total_s:.1f} s, exit code {code}, {left} partial: equal", flush=True)
