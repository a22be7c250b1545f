"""A small generated session, and the command line to run on it."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from mvpose.cli import main
from mvpose.demo import write_session
from mvpose.synthetic.motion import generate_motion
from mvpose.synthetic.rigs import ring_rig
from mvpose.synthetic.world import make_world
from mvpose.video import write_video

# What a test that starts a process hands over: one thread is quicker than many that quarrel over two cores.
PROCESS_ENV = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONIOENCODING": "utf-8"}


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def errors(self) -> list[str]:
        """The lines of stderr that begin with ``error:``."""
        return [line for line in self.err.splitlines() if line.startswith("error:")]

    @property
    def warnings(self) -> list[str]:
        return [line for line in self.err.splitlines() if line.startswith("warning:")]


@pytest.fixture
def mvpose(monkeypatch, capsys) -> Callable[..., Ended]:
    """Run the command line in this process."""

    def run(*argv: object) -> Ended:
        monkeypatch.setattr(sys, "argv", ["mvpose", *map(str, argv)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as exit_:
            main()
        return Ended(exit_.value.code, *capsys.readouterr())

    return run


@pytest.fixture
def refused(mvpose) -> Callable[..., str]:
    """Run a command that must end with exit code 3; return its one line of error."""

    def run(*argv: object) -> str:
        ended = mvpose(*argv)
        assert ended.code == 3, ended
        assert ended.out == ""
        assert "Traceback" not in ended.err
        assert len(ended.errors) == 1, ended.err
        assert ended.err.splitlines()[-1] == ended.errors[0]
        return ended.errors[0]

    return run


@pytest.fixture
def mvpose_process() -> Callable[..., subprocess.Popen]:
    """Start the command line in a process of its own."""
    started = []

    def run(*argv: object, **more: object) -> subprocess.Popen:
        process = subprocess.Popen(
            [sys.executable, "-m", "mvpose.cli", *map(str, argv)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            **{"env": PROCESS_ENV, **more},
        )  # fmt: skip
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture(scope="session")
def session_template(tmp_path_factory) -> Path:
    """One person, three cameras of 25, 25 and 30 fps that start 0.5 and 1.4 s apart; 12 s, exact keypoints, truth."""
    rng = np.random.default_rng(4)
    world = make_world(
        rng, generate_motion(rng, 12.0), ring_rig(3), fps=(25.0, 25.0, 30.0), max_offset_s=2.0, max_drift_ppm=20.0
    )
    folder = tmp_path_factory.mktemp("template") / "walk"
    write_session(world, rng, folder, None)
    return folder


@pytest.fixture
def session(session_template, tmp_path) -> Path:
    """A session of one's own, to do with as one likes; calibration in ``calib.json``."""
    return Path(shutil.copytree(session_template, tmp_path / "walk"))


@pytest.fixture(scope="session")
def done_template(session_template, tmp_path_factory) -> Path:
    """The same after ``mvpose reconstruct``."""
    folder = Path(shutil.copytree(session_template, tmp_path_factory.mktemp("done") / "walk"))
    subprocess.run(
        [sys.executable, "-m", "mvpose.cli", "reconstruct", folder, "--calib", folder / "calib.json",
         "--reference", "cam01"],
        check=True, capture_output=True, env=PROCESS_ENV,
    )  # fmt: skip
    return folder


@pytest.fixture
def done(done_template, tmp_path) -> Path:
    """A reconstructed session of one's own."""
    return Path(shutil.copytree(done_template, tmp_path / "done"))


@pytest.fixture
def make_videos() -> Callable[..., None]:
    """Write a video of noise for each named camera into a folder."""

    def make(folder: Path, **frames: int) -> None:
        rng = np.random.default_rng(0)
        folder.mkdir(parents=True, exist_ok=True)
        for name, count in frames.items():
            images = rng.integers(0, 255, (count, 96, 128, 3), dtype=np.uint8)
            write_video(folder / f"{name}.mp4", images, 25.0)

    return make


@pytest.fixture(scope="session")
def drifting():
    """Give the tests a function that makes clips of people who all sway by one clock: where they are tells when it is.

    It takes offsets (B,), frames, and gives B pairs of clips at 10 fps of which a share is ``missing``.
    """
    import torch  # here, for most tests need none

    from mvpose.skeleton import CLIP_SKELETON
    from mvpose.sync.clips import ClipPairs

    def make(offset_frames, frames=5, missing=0.0, seed=0):
        generator = torch.Generator().manual_seed(seed)
        count, joints = len(offset_frames), len(CLIP_SKELETON)
        first = torch.stack([offset_frames.clamp(min=0), (-offset_frames).clamp(min=0)], dim=1)  # t_b = t_a + offset
        at = first[..., None] + torch.arange(frames)
        pose = torch.randn(1, 1, 1, joints, 2, generator=generator).expand(count, 2, frames, -1, -1)
        xy = torch.tensor([900.0, 500.0]) + 60 * pose
        wave = torch.sin(0.55 * at[..., None] + torch.rand(joints, generator=generator))
        xy = torch.stack([xy[..., 0], xy[..., 1] + 40 * wave], dim=-1)
        xy[torch.rand(xy.shape[:-1], generator=generator) < missing] = torch.nan
        return ClipPairs(
            xy,
            torch.isfinite(xy).all(-1).float(),
            (torch.arange(frames) / 10).expand(count, 2, -1),
            torch.full((count, 2, 3, 3), torch.nan),
            torch.full((count, 2, 3, 4), torch.nan),
            torch.tensor([1920.0, 1080.0]).expand(count, 2, 2),
        )

    return make
