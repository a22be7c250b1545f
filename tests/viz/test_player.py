"""Playback and films."""

import os
import subprocess
import sys

import cv2
import numpy as np
import pytest

from mvpose.errors import MvposeError, WorkspaceError
from mvpose.viz.player import Playback, balls, people_mesh, play, playback, render, tubes
from mvpose.viz.scene import people_at


@pytest.fixture
def film() -> Playback:
    return Playback(start_s=5.0, end_s=8.0, step_s=0.1, time_s=6.0)


def test_time_runs_at_the_chosen_speed_and_begins_again(film):
    assert film.advance(0.5).time_s == pytest.approx(6.5)
    assert film.faster(-1).advance(0.5).time_s == pytest.approx(6.25)
    assert film.advance(2.5).time_s == 5.0
    assert film.toggle().advance(0.5) == film.toggle()


def test_a_step_pauses_and_lands_on_a_frame(film):
    off_frame = film.seek(6.04)
    assert (off_frame.step(1).time_s, off_frame.step(1).playing) == (pytest.approx(6.1), False)
    assert off_frame.step(-1).time_s == pytest.approx(5.9)
    assert film.seek(5.0).step(-1).time_s == 5.0
    assert film.seek(8.0).step(1).time_s == 8.0


def test_scrubbing_stays_inside_the_recording(film):
    assert film.seek(99).time_s == 8.0
    assert film.seek(-99).time_s == 5.0
    assert film.jump(0.5).time_s == 6.5


def test_speeds_have_ends(film):
    for _ in range(20):
        film = film.faster(1)
    assert film.speed == 8.0
    for _ in range(20):
        film = film.faster(-1)
    assert film.speed == 0.1


def test_a_single_frame_plays_without_moving(make_poses):
    film = playback(make_poses(n_frames=1))
    assert film.advance(3.0).time_s == film.step(1).time_s == 5.0


def test_nothing_to_view_is_said(make_poses, make_rig, tmp_path):
    with pytest.raises(MvposeError, match="no frames"):
        render(make_poses(n_frames=0), make_rig(), tmp_path / "a.png")


def test_a_picture_has_its_size_and_somebody_in_it(make_poses, make_rig, tmp_path):
    render(make_poses(), make_rig(), tmp_path / "a.png", size=(480, 270))
    image = cv2.imread(str(tmp_path / "a.png"))
    assert image.shape == (270, 480, 3)
    assert ((image[..., 0].astype(int) - image[..., 2]) > 60).any()  # blue: the left side
    assert ((image[..., 2].astype(int) - image[..., 0]) > 60).any()  # vermillion: the right side
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


@pytest.mark.parametrize("people", [0, 2])
def test_a_film_lasts_as_long_as_the_recording(make_poses, make_rig, tmp_path, people):
    import av

    told = []
    render(make_poses(n_people=people), make_rig(), tmp_path / "a.mp4", size=(320, 180), progress=told.append)
    with av.open(str(tmp_path / "a.mp4")) as container:
        times = [float(frame.time) for frame in container.decode(video=0)]
    np.testing.assert_allclose(times, np.arange(31) / 10, atol=1e-3)
    assert told == pytest.approx(np.arange(1, 32) / 31)


def test_a_film_can_have_another_rate(make_poses, make_rig, tmp_path):
    import av

    render(make_poses(), make_rig(), tmp_path / "a.mp4", size=(320, 180), fps=5)
    with av.open(str(tmp_path / "a.mp4")) as container:
        assert sum(1 for _ in container.decode(video=0)) == 16


def test_another_suffix_is_refused(make_poses, make_rig, tmp_path):
    with pytest.raises(MvposeError, match=r"a\.gif cannot be saved: .* \.mp4 .* \.png"):
        render(make_poses(), make_rig(), tmp_path / "a.gif")


def test_a_folder_that_cannot_be_is_named(make_poses, make_rig, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(WorkspaceError, match="cannot be written"):
        render(make_poses(), make_rig(), tmp_path / "file" / "a.png")


def test_without_a_screen_play_says_how_to_go_on(make_poses, make_rig, monkeypatch):
    if sys.platform != "linux":
        pytest.skip("only Linux tells by its environment whether there is a screen")
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    with pytest.raises(MvposeError, match=r"no screen .* --save"):
        play(make_poses(), make_rig())


def test_importing_the_player_imports_nothing_heavy():
    heavy = "('open3d', 'matplotlib', 'PIL', 'torch')"
    code = f"import sys, mvpose.viz.player; print([m for m in {heavy} if m in sys.modules])"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.strip() == "[]"


def test_tubes_lie_at_their_radius_around_the_limb():
    ends = np.array([[[0, 0, 0], [0, 0, 2.0]], [[1, 1, 1], [2, 3, 1.0]]])
    vertices, triangles, rgb = tubes(ends, np.array([[1, 2, 3], [4, 5, 6]]), 0.1)
    for (a, b), corners in zip(ends, vertices.reshape(2, -1, 3), strict=True):
        along = (b - a) / np.linalg.norm(b - a)
        across = (corners - a) - np.outer((corners - a) @ along, along)
        np.testing.assert_allclose(np.linalg.norm(across, axis=1), 0.1)
    assert triangles.max() == len(vertices) - 1
    edges = np.linalg.norm(vertices[triangles] - vertices[np.roll(triangles, 1, axis=1)], axis=-1)
    assert edges.max() < 2.3  # no triangle spans two tubes
    assert rgb[-1].tolist() == [4, 5, 6]


def test_balls_are_round_and_face_outwards():
    vertices, triangles, _ = balls(np.array([[1.0, 2.0, 3.0]]), np.array([[0, 0, 0]]), 0.5)
    np.testing.assert_allclose(np.linalg.norm(vertices - [1, 2, 3], axis=1), 0.5)
    a, b, c = np.moveaxis(vertices[triangles] - [1, 2, 3], 1, 0)
    assert (np.einsum("ij,ij->i", np.cross(b - a, c - a), a + b + c) >= -1e-12).all()


def test_the_mesh_of_nobody_can_still_be_shown(make_poses):
    vertices, triangles, rgb = people_mesh(people_at(make_poses(n_people=0), 5.0))
    assert len(vertices) == len(rgb) == 3
    assert triangles.tolist() == [[0, 1, 2]]


def test_the_mesh_leaves_out_what_is_missing(make_poses):
    poses = make_poses()
    whole = people_mesh(people_at(poses, 5.0))[0]
    poses.xyz_m[:, 0, 9] = np.nan  # a wrist: one joint, one limb
    vertices, triangles, _ = people_mesh(people_at(poses, 5.0))
    assert np.isfinite(vertices).all()
    assert len(whole) - len(vertices) == 20 + 70
    assert triangles.max() == len(vertices) - 1
