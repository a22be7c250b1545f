from datetime import datetime, timedelta, timezone

import numpy as np
import pytest

from mvpose.sync.containers import CLOCK_SIGMA_S, timecode_edges
from mvpose.sync.offsets import OffsetGraph
from mvpose.sync.solve import solve_clocks
from mvpose.video import ContainerTime

NOON = datetime(2024, 5, 6, 12, 0, 0, tzinfo=timezone.utc)
NTSC = 30000 / 1001


def told(timecode=None, created=None, fps=25.0, start_s=0.0):
    return ContainerTime(timecode, created, fps, start_s)


def only_edge(a, b):
    (found,) = timecode_edges({"a": a, "b": b})
    assert (found.a, found.b, found.method) == ("a", "b", "timecode")
    return found


def test_the_camera_that_started_later_has_the_smaller_time():
    found = only_edge(told("10:00:00:00"), told("10:00:02:05"))
    assert found.offset_s == pytest.approx(-2.2)
    # b's first frame: 2.2 s on a's time, 0 on its own.
    assert found.at_s == pytest.approx(2.2)
    assert only_edge(told("10:00:02:05"), told("10:00:00:00")).offset_s == pytest.approx(2.2)
    assert only_edge(told("10:00:02:05"), told("10:00:00:00")).at_s == 0.0


def test_a_camera_s_own_time_need_not_begin_at_zero():
    found = only_edge(told("10:00:00:00", start_s=100.0), told("10:00:02:05", start_s=7.0))
    assert found.at_s == pytest.approx(102.2)
    assert found.at_s + found.offset_s == pytest.approx(7.0)


def test_sigma_is_that_of_frames():
    assert only_edge(told("10:00:00:00"), told("10:00:02:05")).sigma_s == pytest.approx(0.04 * np.sqrt(1 + 2 / 12))
    mixed = only_edge(told("10:00:00:00", fps=24.0), told("10:00:02:05", fps=30.0))
    assert mixed.sigma_s == pytest.approx(np.sqrt((1 + 1 / 12) / 24**2 + 1 / 12 / 30**2))
    assert mixed.offset_s == pytest.approx(-2 - 5 / 30)
    assert mixed.modes[0].weight < 0.8


def test_midnight_is_passed():
    assert only_edge(told("23:59:59:00"), told("00:00:01:00")).offset_s == pytest.approx(-2.0)
    late = only_edge(told("23:59:59:00", fps=NTSC), told("00:00:01:00", fps=NTSC))
    assert late.offset_s == pytest.approx(-60 * 1001 / 30000)


@pytest.mark.parametrize(
    ("timecode", "frames"),
    [
        # Numbers 0 and 1 of a minute are left out, except in each tenth (SMPTE ST 12-1).
        ("10:00:59;29", 1799),
        ("10:01:00;02", 1800),
        ("10:09:59;29", 17981),
        ("10:10:00;00", 17982),
        ("11:00:00;00", 107892),
    ],
)
def test_dropped_numbers_are_no_dropped_frames(timecode, frames):
    found = only_edge(told("10:00:00;00", fps=NTSC), told(timecode, fps=NTSC))
    assert found.offset_s == pytest.approx(-frames / NTSC, abs=1e-6)


def test_a_count_that_runs_slow_is_turned_into_seconds():
    found = only_edge(told("10:00:00:00", fps=NTSC), told("10:01:00:00", fps=NTSC))
    assert found.offset_s == pytest.approx(-60.06)


def test_counts_of_unlike_paces_are_not_compared():
    assert not timecode_edges({"a": told("10:00:00:00", fps=NTSC), "b": told("10:00:00:00")})
    # Dropping numbers keeps real time, to 0.1 s in ten hours of the day.
    assert only_edge(told("10:00:00;00", fps=NTSC), told("10:00:00:00")).offset_s == pytest.approx(0.0, abs=0.05)


def test_of_faster_cameras_it_is_not_known_what_they_count():
    found = only_edge(told("10:00:00:20", fps=60.0), told("10:00:07:29", fps=60.0))
    assert found.offset_s == pytest.approx(-7.0)
    assert found.sigma_s == pytest.approx(np.sqrt(2 / 12), rel=0.01)


@pytest.mark.parametrize(
    "timecode",
    [None, "", "10:00:00", "25:00:00:00", "10:60:00:00", "10:00:61:00", "10:00:00:25", "00:00:00:00", "01:00:00:00"],
)
def test_what_is_no_timecode_or_a_default_says_nothing(timecode):
    assert not timecode_edges({"a": told("10:00:00:00"), "b": told(timecode)})


@pytest.mark.parametrize("fps", [0.0, np.nan])
def test_without_a_frame_rate_nothing_can_be_counted(fps):
    assert not timecode_edges({"a": told("10:00:00:00"), "b": told("10:00:00:00", fps=fps)})


def test_creation_times_are_vague():
    later = NOON + timedelta(seconds=75)
    found = only_edge(told(created=NOON), told(created=later, start_s=1.0))
    assert found.offset_s == -74.0
    assert found.sigma_s == pytest.approx(np.sqrt(2) * CLOCK_SIGMA_S)
    elsewhere = NOON.astimezone(timezone(timedelta(hours=9)))
    assert only_edge(told(created=NOON), told(created=elsewhere)).offset_s == 0.0
    assert not timecode_edges({"a": told(created=NOON), "b": told()})


def test_both_are_told_of_all_pairs():
    starts = {name: told("10:00:00:0" + name, NOON) for name in "312"}
    found = timecode_edges(starts)
    assert [(e.a, e.b) for e in found] == [(a, b) for a, b in ("12", "13", "23") for _ in range(2)]
    assert timecode_edges({"a": told("10:00:00:00", NOON)}) == []


def clocks_of(starts, epochs_s):
    return solve_clocks(OffsetGraph(tuple(starts), tuple(timecode_edges(starts))), epochs_s, reference="a")


def test_timecode_gives_a_doubtful_clock_and_a_creation_time_none():
    starts = {"a": told("10:00:00:00", NOON), "b": told("10:00:02:05", NOON), "c": told(None, NOON)}
    graph, clocks = clocks_of(starts, dict.fromkeys("abc", 10.0))
    assert clocks["b"].offset_s == pytest.approx(2.2)
    assert clocks["b"].verdict == "doubtful"
    assert clocks["b"].why == "known by timecode alone: no pair with it could be estimated"
    assert set(clocks.unsynchronised) == {"c"}
    # That of a and b agrees, within 2.8 s.
    assert [e.accepted for e in graph.edges] == [True, True, False, False]


def test_a_clock_set_wrong_is_named():
    starts = {"a": told("10:00:00:00", NOON), "b": told("10:00:02:05", NOON + timedelta(days=400))}
    graph, clocks = clocks_of(starts, dict.fromkeys("ab", 10.0))
    assert clocks["b"].offset_s == pytest.approx(2.2)
    assert [e.accepted for e in graph.edges] == [True, False]
    assert graph.edges[1].reason.startswith("contradicts the other pairs by 34559")
