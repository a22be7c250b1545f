from dataclasses import replace

import numpy as np
import pytest

from mvpose.bench.clocks import long_motion
from mvpose.bench.rooms import (
    ALIGN,
    DLT,
    FIND,
    FPS,
    MAX_SHIFT_FRAMES,
    POLISH,
    POSE,
    REST,
    ROOMS,
    Room,
    Stage,
    clocks_of,
    detect_people,
    format_rooms,
    format_speed,
    format_voxel_speed,
    invented_people,
    make_room,
    measure_speed,
    measure_voxel_speed,
    repair_ratios,
    run_rooms,
    share_room,
    visible_truth,
)
from mvpose.synthetic.motion import generate_motion

SMALL = Room(2, 3, "ring", seconds=5.0)


def quiet(what, done, total):
    pass


@pytest.fixture(scope="module")
def rows():
    return run_rooms(None, [0], ["triangulate"], quiet, rooms=[SMALL, Room(1, 3, "random", seconds=5.0)])


def test_every_room_has_three_clocks_and_the_repaired_ones_are_as_good_as_the_perfect(rows):
    assert [(r.room, r.clocks) for r in rows] == [
        (room, kind)
        for room in ("2 people, 3 cameras in a ring", "1 person, 3 cameras anywhere")
        for kind in ("perfect", "desynced", "repaired")
    ]
    ratio = repair_ratios(rows)
    assert len(ratio) == 2 and (np.abs(ratio - 1) < 0.1).all()


def test_the_table_has_a_block_a_room_and_one_of_all(rows):
    text = format_rooms(rows)
    assert text.count("repaired/perfect") == 3
    assert "all (2 recordings)" in text
    assert format_rooms(rows[:3]).splitlines()[0] == "2 people, 3 cameras in a ring (1 recordings)"


def test_the_rooms_cover_what_they_are_to_cover():
    assert {r.people for r in ROOMS} == {1, 2, 3, 4, 5, 6}
    assert {r.cameras for r in ROOMS} == {3, 4, 5, 6, 8}
    assert {r.rig for r in ROOMS if (r.people, r.cameras) == (4, 5)} == {"ring", "random"}
    assert len({str(r) for r in ROOMS}) == len(ROOMS)


def test_clocks_are_shifted_by_up_to_three_frames():
    world = make_room(SMALL, None, 1)
    clocks = clocks_of(world, detect_people(world, 1), 1)
    shift = [1e3 * (clocks["desynced"][n].offset_s - clocks["perfect"][n].offset_s) for n in world.rig.names]
    assert shift[0] == 0
    assert 5 < np.abs(shift[1:]).max() <= 1e3 * MAX_SHIFT_FRAMES / FPS


def test_people_share_a_room_without_walking_through_one_another_all_the_time():
    rng = np.random.default_rng(2)
    clips = {str(i): generate_motion(rng, 8.0) for i in range(4)}
    motion = share_room(rng, [long_motion(rng, clips, 10.0) for _ in range(4)])
    assert motion.n_people == 4 and motion.duration_s > 9.5
    pelvis = motion.xyz_m[:, :, 0, :2]
    apart = np.linalg.norm(pelvis[:, :, None] - pelvis[:, None], axis=-1)[:, np.triu(np.ones((4, 4), bool), 1)]
    assert (apart < 0.3).mean() < 0.05  # measured 0.01


def test_what_one_camera_alone_sees_is_not_asked_for():
    world = make_room(SMALL, None, 1)
    alone = replace(world, rig=replace(world.rig, cameras=world.rig.cameras[:1]))
    at_s = np.array([1.0, 2.0])
    assert np.isfinite(visible_truth(world, at_s, "cam01").xyz_m).any()
    assert np.isnan(visible_truth(alone, at_s, "cam01").xyz_m).all()


def test_people_whom_nobody_is_near_are_counted_as_invented():
    world = make_room(SMALL, None, 1)
    poses = visible_truth(world, np.arange(30) / 30 + 1.0, "cam01")
    assert invented_people(poses, world, "cam01") == (0, 60)
    moved = poses.xyz_m.copy()
    moved[:10, 1] += [0, 0, 3.0]
    moved[:4, 1] = np.nan
    assert invented_people(replace(poses, xyz_m=moved), world, "cam01") == (6, 56)


def test_voxelpose_is_timed_stage_by_stage():
    stages = measure_voxel_speed(None, quiet, room=Room(1, 3, "ring", seconds=3.0), frames=16)
    assert [stage.name for stage in stages] == [FIND, POSE, REST, POLISH]
    assert all(stage.ms > 0 and stage.peak_mb > 100 for stage in stages)
    assert format_voxel_speed(stages).splitlines()[-1].split() == ["all", f"{sum(s.ms for s in stages):.1f}"]


def test_stages_are_timed_beside_a_plain_dlt():
    stages = measure_speed(None, quiet, room=replace(SMALL, seconds=3.0), repeats=1)
    assert all(s.ms > 0 and s.peak_mb > 0 for s in stages) and stages[-1].name == DLT
    text = format_speed([Stage(name, 2.0, 5.0) for name in (s.name for s in stages)])
    assert text.splitlines()[-2].split()[-4:] == ["3.0", "×", "the", "DLT"]
    assert text.splitlines()[-1].split()[-4:] == ["5.0", "×", "the", "DLT"]
    assert ALIGN in text
