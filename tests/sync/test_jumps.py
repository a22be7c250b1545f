from dataclasses import replace

import numpy as np
import pytest

from mvpose.clock import Clocks, identity_clock
from mvpose.sync.jumps import (
    Agreement,
    Jump,
    jump_of,
    own_s,
    plainest_first,
    split_of,
    suspected,
    until,
    with_jump,
    written_s,
)

SHIFTS = np.arange(-20, 21) * 0.05


def agreement(*shifts_s):
    """A moment each 0.2 s that agrees with one shift by 3 nats, and speaks against all others by as much."""
    nats = np.where(np.isclose(SHIFTS, np.array(shifts_s)[:, None]), 3.0, -3.0)
    return Agreement("cam", 0.2 * np.arange(len(shifts_s)), SHIFTS, nats)


def clocks(*jumps):
    return Clocks("ref", {"ref": identity_clock("ref"), "cam": replace(identity_clock("cam"), jumps=jumps)})


def test_two_shifts_that_agree_one_after_the_other_are_a_jump():
    split = split_of(agreement(*[0.3] * 10, *[-0.1] * 20))
    assert (split.before_s, split.after_s) == (pytest.approx(0.3), pytest.approx(-0.1))
    assert split.jump_s == pytest.approx(0.4)
    assert split.at_s == pytest.approx(2.0 - 0.1)  # on the camera's own time, which is 0.1 s behind its clock there
    assert split.gain == pytest.approx(10 * 3 + 20 * 3 - (20 - 10) * 3)
    assert not split_of(agreement(*[0.1] * 30)).gain


def test_what_is_too_brief_to_tell_is_no_jump_but_a_doubt():
    brief = split_of(agreement(*[0.0] * 30, *[0.5] * 2))
    assert brief.gain == 0
    assert suspected([brief], clocks()) == {}
    # Nothing agrees for long enough, but five moments speak against the clock as it is.
    lost = split_of(
        replace(agreement(*[0.0] * 30), nats=np.vstack([agreement(*[0.0] * 25).nats, np.full((5, 41), -3.0)]))
    )
    assert lost.gain == 0
    assert "contradict" in suspected([lost], clocks())["cam"]
    # Of several people, others may be in view than elsewhere.
    assert split_of(replace(agreement(*[0.0] * 30), nats=np.full((30, 41), -3.0))).unexplained == 90
    assert split_of(replace(agreement(*[0.0] * 30), nats=np.full((30, 41), -3.0), alone=False)).unexplained == 0


def test_of_a_jump_that_is_not_plain_every_camera_that_shows_it_is_suspected():
    seeming = replace(split_of(agreement(*[0.0] * 30, *[0.3] * 5)), gain=10.0, unexplained=0.0)
    others = [replace(seeming, camera=name, gain=gain) for name, gain in (("b", 7.0), ("c", 4.0))]
    why = suspected([seeming, *others], clocks())
    assert set(why) == {"cam", "b"}
    assert "the times of cam seem to jump by -300 ms about 6.0 s" in why["cam"]
    # Everybody's clock is by the reference's times.
    assert "the times of ref seem" in suspected([replace(seeming, camera="ref")], clocks())["cam"]


def test_a_loss_is_believed_before_something_put_in():
    lost, put_in, other = (Jump(name, 1.0, jump_s, 0.01) for name, jump_s in (("a", 0.1), ("b", -0.1), ("c", 0.02)))
    assert plainest_first([put_in, lost, other], [10.0, 9.0, 2.0]) == [lost, put_in, other]
    assert plainest_first([put_in, lost, other], [10.0, 6.0, 2.0]) == [put_in, lost, other]
    assert plainest_first([], []) == []


def test_jumps_near_each_other_are_one_and_of_whole_frames_where_that_fits():
    def jumps(jump_s, at_s, sigma_s, *others):
        return with_jump(clocks(*others), Jump("cam", at_s, jump_s, sigma_s), 0.1)["cam"].jumps

    assert jumps(0.29, 5.0, 0.01) == ((5.0, pytest.approx(0.3)),)
    assert jumps(0.26, 5.0, 0.01) == ((5.0, 0.26),)
    assert jumps(0.12, 6.0, 0.01, (5.0, 0.2)) == ((5.0, pytest.approx(0.3)),)
    assert jumps(0.12, 9.0, 0.01, (5.0, 0.2)) == ((5.0, 0.2), (9.0, pytest.approx(0.1)))
    assert jumps(-0.19, 6.0, 0.01, (5.0, 0.2)) == ()


def test_written_and_own_times_are_each_other_s_inverse():
    clock = clocks((3.0, 0.5), (7.0, -0.25))["cam"]
    for written in (0.0, 2.9, 3.0, 5.0, 7.5, 9.0):
        assert written_s(clock, own_s(clock, written)) == pytest.approx(written)
    assert own_s(clock, 9.0) == 9.25
    assert written_s(clock, 3.2) == 3.0  # nothing was recorded then


@pytest.mark.parametrize("camera", ["cam", "ref"])
def test_a_split_moves_the_clock_to_what_holds_before(camera):
    split = replace(split_of(agreement(*[0.3] * 10, *[-0.1] * 20)), camera=camera)
    found = with_jump(until(split, clocks()), jump_of(split, clocks()), 0.1)
    assert found["ref"].offset_s == 0
    assert found["cam"].offset_s == pytest.approx(-0.3 if camera == "cam" else 0.3)
    assert found[camera].jumps == ((pytest.approx(1.9), pytest.approx(0.4)),)
