import itertools
import re
from dataclasses import replace

import numpy as np
import pytest

from mvpose.clock import Clock
from mvpose.errors import SyncError
from mvpose.sync.offsets import Mode, OffsetGraph, PairwiseOffset, Support, edge
from mvpose.sync.solve import SolveOptions, solve_clocks

OFFSETS = {"a": 0.0, "b": -3.25, "c": 12.5, "d": 0.4}
EPOCHS = dict.fromkeys("abcdefgh", 30.0)


def true_clocks(offsets, ppm=None):
    return {n: Clock(n, o, 1 + 1e-6 * (ppm or {}).get(n, 0.0), np.zeros((2, 2))) for n, o in offsets.items()}


def measure(clocks, a, b, *, at_s=30.0, sigma_s=0.003, error_s=0.0, method="epipolar", **more):
    """Return the edge that a perfect estimator would find, off by an error."""
    offset = float(clocks[b].to_camera(clocks[a].to_session(at_s))) - at_s + error_s
    return edge(a, b, at_s, offset, sigma_s, method, **more)


def complete(clocks, **more):
    return [measure(clocks, a, b, **more) for a, b in itertools.combinations(sorted(clocks), 2)]


def without(edges, *pairs):
    return [e for e in edges if e.a + e.b not in pairs]


def solve(edges, cameras="abcd", epochs=EPOCHS, **more):
    return solve_clocks(OffsetGraph(tuple(cameras), tuple(edges)), epochs, **more)


def rejected(graph):
    return {e.a + e.b for e in graph.edges if not e.accepted}


def assert_are(found, truth, atol=1e-9):
    """Demand that clocks agree with true ones up to the choice of the reference."""
    base = truth[found.reference]
    for name, clock in found.clocks.items():
        at_s = 30.0
        true_s = base.to_camera(truth[name].to_session(at_s))
        assert float(clock.to_session(at_s)) == pytest.approx(float(true_s), abs=atol), name


# What is exact stays exact.


def test_exact_edges_give_exact_clocks():
    clocks = true_clocks(OFFSETS)
    graph, found = solve(complete(clocks), reference="a")
    assert all(e.accepted and not e.reason for e in graph.edges)
    assert_are(found, clocks)
    assert found["b"].offset_s == pytest.approx(-3.25, abs=1e-9)
    assert (found["a"].offset_s, found["a"].rate) == (0.0, 1.0)
    assert not found["a"].cov.any()
    assert found.components == (("a", "b", "c", "d"),)
    assert not found.unsynchronised
    assert found.cycle_residual_max_s == pytest.approx(0.0, abs=1e-12)
    assert [c.verdict for c in found.clocks.values()] == ["good"] * 4
    assert [c.epoch_s for c in found.clocks.values()] == [30.0] * 4


def test_the_sign_is_that_of_the_later_camera_with_the_smaller_time():
    # b started 2 s after a: what a sees at 5, b sees at 3, and that is 5 on a's clock.
    _, found = solve([edge("a", "b", 5.0, -2.0, 0.003, "epipolar")], "ab", reference="a")
    assert float(found["b"].to_session(3.0)) == pytest.approx(5.0)


def test_a_chain_passes_clocks_on():
    clocks = true_clocks({"a": 0.0, "b": 0.1, "c": -0.2, "d": 0.05})
    chain = [measure(clocks, "a", "b"), measure(clocks, "b", "c"), measure(clocks, "c", "d")]
    _, found = solve(chain, reference="a")
    assert_are(found, clocks)
    sigmas = [found[n].sigma_at_epoch_s for n in "bcd"]
    np.testing.assert_allclose(np.square(sigmas), 0.003**2 * np.arange(1, 4), rtol=0.01)
    assert np.isnan(found.cycle_residual_max_s)
    assert np.isnan(found.cycle_residual_rms_s)


def test_drift_is_recovered_from_epochs():
    clocks = true_clocks({"a": 0.0, "b": 5.0, "c": -1.0}, {"b": 80.0, "c": -60.0})
    rng = np.random.default_rng(0)
    epochs = np.linspace(20, 620, 8)
    edges = [
        measure(clocks, a, b, at_s=t, sigma_s=0.002, error_s=0.002 * rng.standard_normal())
        for a, b in ("ab", "ac", "bc")
        for t in epochs
    ]
    _, found = solve(edges, "abc", dict.fromkeys("abc", 320.0), reference="a")
    for name, ppm in (("b", 80), ("c", -60)):
        clock = found[name]
        assert clock.rate_fitted
        assert 1e-6 < np.sqrt(clock.cov[1, 1]) < 8e-6
        assert abs(clock.rate - (1 + ppm * 1e-6)) < 3 * np.sqrt(clock.cov[1, 1])
        assert abs(float(clock.to_session(320.0)) - float(clocks[name].to_session(320.0))) < 0.003
        # Far from the epochs the rate's uncertainty tells.
        assert clock.sigma_s(5000.0) > 5 * clock.sigma_at_epoch_s


def test_without_epochs_the_rate_stays_at_its_prior():
    clocks = true_clocks(OFFSETS)
    _, found = solve(complete(clocks, at_s=100.0), reference="a", epochs=dict.fromkeys("abcd", 100.0))
    for name in "bcd":
        assert found[name].rate == pytest.approx(1.0, abs=1e-9)
        assert not found[name].rate_fitted
        # Six edges for three clocks: the prior of 100 ppm, widened for the noise that they share, by 2 ** 0.25.
        assert 0.9e-4 < np.sqrt(found[name].cov[1, 1]) < 1.3e-4


def along(ppm, sigma_s, seconds=60.0):
    """Return the clock of b, by three epochs of one pair, whose times run as given."""
    clocks = true_clocks({"a": 0.0, "b": 5.0}, {"b": ppm})
    edges = [measure(clocks, "a", "b", at_s=t, sigma_s=sigma_s) for t in (0.0, seconds / 2, seconds)]
    return solve(edges, "ab", dict.fromkeys("ab", seconds / 2), reference="a")[1]["b"]


def test_a_drift_that_edges_hardly_speak_for_is_none():
    clock = along(40.0, 0.003)
    assert (clock.rate, clock.rate_fitted) == (1.0, False)
    assert 3e-5 < np.sqrt(clock.cov[1, 1]) < 1e-4
    assert clock.sigma_s(0.0) > clock.sigma_at_epoch_s
    assert along(40.0, 0.0003).rate == pytest.approx(1 + 40e-6, abs=5e-6)


@pytest.mark.parametrize("sigma_s", [0.001, 0.003])
def test_a_wrong_frame_rate_is_suspected(sigma_s):
    clock = along(1001.0, sigma_s)  # 30 frames a second, said of 29.97
    assert clock.verdict == "doubtful"
    assert "check the frame rate that its times were made by" in clock.why
    assert clock.rate_fitted
    assert along(200.0, sigma_s).verdict == "good"


# What must not matter does not.


def noisy(seed=0, sigma_s=0.004):
    rng = np.random.default_rng(seed)
    clocks = true_clocks(OFFSETS, {"b": 40, "c": -70})
    return [
        measure(clocks, a, b, at_s=t, sigma_s=sigma_s, error_s=sigma_s * rng.standard_normal())
        for a, b in itertools.combinations("abcd", 2)
        for t in (20.0, 50.0, 80.0)
    ]


def test_a_shift_of_a_camera_s_own_time_shifts_its_clock_alone():
    edges = noisy()
    _, before = solve(edges, reference="a")
    for shift in (100.0, 86_400.0):
        shifted = [
            replace(
                e,
                at_s=e.at_s + shift * (e.a == "b"),
                offset_s=e.offset_s + shift * ((e.b == "b") - (e.a == "b")),
                modes=(),
            )
            for e in edges
        ]
        _, after = solve(shifted, epochs={**EPOCHS, "b": 30.0 + shift}, reference="a")
        for name in "bcd":
            own_s = 30.0 + shift * (name == "b")
            # Rate times measured time is linearised: a slope of 4e-5 times the residuals, 4 ms, is 0.2 µs.
            np.testing.assert_allclose(after[name].to_session(own_s), before[name].to_session(30.0), atol=2e-6)
            np.testing.assert_allclose(after[name].sigma_s(own_s), before[name].sigma_s(30.0), rtol=1e-3)
            np.testing.assert_allclose(after[name].rate, before[name].rate, atol=1e-8)


def test_times_may_count_from_1970():
    now = 1.7e9
    edges = noisy()
    _, before = solve(edges, reference="a")
    graph, after = solve(
        [replace(e, at_s=e.at_s + now) for e in edges], epochs=dict.fromkeys("abcd", now + 30), reference="a"
    )
    assert not rejected(graph)
    for name in "bcd":
        assert float(after[name].to_session(now + 30) - now) == pytest.approx(
            float(before[name].to_session(30.0)), abs=1e-5
        )
        assert after[name].sigma_at_epoch_s == pytest.approx(before[name].sigma_at_epoch_s, rel=1e-6)


def test_names_do_not_matter():
    edges = noisy()
    graph, before = solve(edges, reference="a")
    other = dict(zip("abcd", "dbac", strict=True))  # turns some edges round
    turned = [edge(other[e.a], other[e.b], e.at_s, e.offset_s, e.sigma_s, "epipolar") for e in edges]
    assert any(t.offset_s == -e.offset_s for t, e in zip(turned, edges, strict=True))
    turned_graph, after = solve(turned, "dbac", reference="d")
    assert rejected(graph) == rejected(turned_graph) == set()
    for name in "abcd":
        assert after[other[name]].offset_s == pytest.approx(before[name].offset_s, abs=2e-6)
        np.testing.assert_allclose(after[other[name]].cov, before[name].cov, rtol=1e-3, atol=1e-15)
    assert after.cycle_residual_rms_s == pytest.approx(before.cycle_residual_rms_s, rel=1e-3)


def test_the_order_of_edges_does_not_matter():
    edges = noisy()
    _, before = solve(edges, reference="a")
    _, after = solve(edges[::-1], reference="a")
    assert after["c"].offset_s == pytest.approx(before["c"].offset_s, abs=1e-12)


def test_the_reference_is_a_gauge():
    edges = noisy()
    _, on_a = solve(edges, reference="a")
    _, on_c = solve(edges, reference="c")
    moved = on_a.on("c")
    for name in "abd":
        # Whether a clock drifts is decided against its reference, so that rates may differ by what data leave open.
        off_s = float(on_c[name].to_session(30.0) - moved[name].to_session(30.0))
        assert abs(off_s) < 1.5 * on_c[name].sigma_at_epoch_s
        assert abs(on_c[name].rate - moved[name].rate) < 2 * np.sqrt(on_c[name].cov[1, 1])


# Who is the reference.


def test_a_wanted_reference_is_kept_and_an_unknown_one_refused():
    _, found = solve(complete(true_clocks(OFFSETS)), reference="d")
    assert found.reference == "d"
    assert_are(found, true_clocks(OFFSETS))
    with pytest.raises(SyncError, match=r"reference camera z is not in the session; it has a, b, c, d"):
        solve([], reference="z")


def test_the_best_connected_camera_of_the_largest_group_is_the_reference():
    clocks = true_clocks({**OFFSETS, "e": 1.0})
    star = [measure(clocks, "c", n) for n in "abd"]
    assert solve(star)[1].reference == "c"
    pair_and_triple = [measure(clocks, "a", "b", sigma_s=1e-4), measure(clocks, "c", "d"), measure(clocks, "d", "e")]
    assert solve(pair_and_triple, "abcde")[1].reference == "d"
    # Among equals the one with the surest edges.
    triangle = [measure(clocks, *p, sigma_s=s) for p, s in (("ab", 0.01), ("ac", 0.01), ("bc", 0.002))]
    assert solve(triangle, "abc")[1].reference in "bc"


def test_a_lone_camera_has_its_own_time():
    graph, found = solve([], "a", {"a": 7.0})
    assert not graph.edges
    assert list(found.clocks) == ["a"]
    assert found["a"].epoch_s == 7.0
    assert found.components == (("a",),)
    assert np.isnan(found.cycle_residual_max_s)


def test_disconnected_groups_stay_apart():
    clocks = true_clocks({**OFFSETS, "e": 1.0, "f": 2.0})
    edges = [*(measure(clocks, *p) for p in ("ab", "bc", "ac")), measure(clocks, "d", "e")]
    graph = OffsetGraph(tuple("abcdef"), tuple(edges), {"f": "nobody is seen in its view"})
    solved, found = solve_clocks(graph, EPOCHS)
    assert found.components == (("a", "b", "c"), ("d", "e"), ("f",))
    assert sorted(found.clocks) == ["a", "b", "c"]
    assert found.unsynchronised == {
        "d": f"it shares a clock with e, but nothing connects them to {found.reference}",
        "e": f"it shares a clock with d, but nothing connects them to {found.reference}",
        "f": "nobody is seen in its view",
    }
    assert all(e.accepted for e in solved.edges)
    # Asked for the smaller group, one gets it.
    _, small = solve_clocks(graph, EPOCHS, reference="e")
    assert sorted(small.clocks) == ["d", "e"]
    assert_are(small, clocks)


# Wrong edges.


def test_one_wrong_edge_of_a_complete_graph_is_named():
    clocks = true_clocks(OFFSETS)
    for wrong in itertools.combinations("abcd", 2):
        for error in (0.25, -1.1, 40.0):
            edges = [
                replace(e, offset_s=e.offset_s + error, modes=()) if (e.a, e.b) == wrong else e
                for e in complete(clocks)
            ]
            graph, found = solve(edges)
            assert rejected(graph) == {"".join(wrong)}
            (bad,) = (e for e in graph.edges if not e.accepted)
            amount = f"{abs(error) * 1e3:.1f} ms" if abs(error) < 1 else f"{abs(error):.2f} s"
            assert bad.reason == f"contradicts the other pairs by {amount}"
            assert_are(found, clocks)
            assert len(found.clocks) == 4
            assert found.cycle_residual_max_s < 1e-9


def test_the_surest_edge_may_be_the_wrong_one():
    edges = complete(true_clocks(OFFSETS))
    edges[2] = replace(edges[2], offset_s=edges[2].offset_s + 1.1, sigma_s=5e-4, modes=())
    graph, found = solve(edges)
    assert rejected(graph) == {edges[2].a + edges[2].b}
    assert_are(found, true_clocks(OFFSETS))


def test_a_small_error_is_found_against_the_others_sigmas():
    clocks = true_clocks(OFFSETS)
    edges = complete(clocks, sigma_s=0.001)
    edges[0] = replace(edges[0], offset_s=edges[0].offset_s + 0.045, modes=())
    graph, _ = solve(edges)
    assert rejected(graph) == {"ab"}
    # Half of the misclosure is explained away by the fit itself: four sigmas and 10 ms of slack remain.
    assert re.fullmatch(r"lies \d+\.\d ms from what the other edges say, at a sigma of 1\.0 ms", graph.edges[0].reason)


def test_a_few_milliseconds_that_no_sigma_knows_of_throw_out_nothing():
    edges = complete(true_clocks(OFFSETS), sigma_s=5e-4)
    edges[0] = replace(edges[0], offset_s=edges[0].offset_s + 0.009, modes=())
    assert not rejected(solve(edges)[0])


def test_a_disagreement_within_the_sigmas_stays():
    edges = complete(true_clocks(OFFSETS), sigma_s=0.01)
    edges[0] = replace(edges[0], offset_s=edges[0].offset_s + 0.03, modes=())
    graph, found = solve(edges, reference="a")
    assert not rejected(graph)
    # It is shared out: half goes to the edge itself, a quarter into each of the two clocks.
    truth = true_clocks(OFFSETS)
    assert found["b"].offset_s == pytest.approx(OFFSETS["b"] - 0.015, abs=5e-4)
    assert_are(found, {**truth, "b": replace(truth["b"], offset_s=OFFSETS["b"] - 0.015)}, atol=0.008)
    wider = [found[n].sigma_at_epoch_s for n in "bcd"]
    exact = [solve(complete(truth, sigma_s=0.01), reference="a")[1][n].sigma_at_epoch_s for n in "bcd"]
    assert (np.array(wider) > np.array(exact)).all()


def test_of_two_triangles_that_share_a_camera_the_sound_one_survives():
    # a–b–c and c–d–e; d–e is wrong, and nothing tells which edge of c–d–e it is.
    clocks = true_clocks({**OFFSETS, "e": -7.0})
    edges = [measure(clocks, *pair) for pair in ("ab", "ac", "bc", "cd", "ce", "de")]
    edges[5] = replace(edges[5], offset_s=edges[5].offset_s + 0.9, modes=())
    graph, found = solve(edges, "abcde")
    assert rejected(graph) == {"cd", "ce", "de"}
    assert sorted(found.clocks) == ["a", "b", "c"]
    assert_are(found, clocks)
    for name in "de":
        assert found.unsynchronised[name] == "contradicts another pair, and no third one decides between them"


def test_a_far_more_credible_pair_decides_a_contradiction():
    clocks = true_clocks({n: OFFSETS[n] for n in "abc"})

    def triangle(weight):
        wrong = measure(clocks, "b", "c", error_s=0.9)
        rival = Mode(wrong.offset_s - 0.9, 0.003, 1 - weight)
        return [
            measure(clocks, "a", "b"),
            measure(clocks, "a", "c"),
            replace(wrong, modes=(replace(wrong.modes[0], weight=weight), rival)),
        ]

    graph, found = solve(triangle(0.6), "abc")
    assert rejected(graph) == {"bc"}
    assert_are(found, clocks)
    graph, _ = solve(triangle(0.9), "abc")
    assert rejected(graph) == {"ab", "ac", "bc"}


def test_two_wrong_edges_of_five_cameras_are_named():
    clocks = true_clocks({**OFFSETS, "e": -7.0})
    edges = [
        replace(e, offset_s=e.offset_s + {"ab": 1.0, "de": -2.0}.get(e.a + e.b, 0.0), modes=())
        for e in complete(clocks)
    ]
    graph, found = solve(edges, "abcde")
    assert rejected(graph) == {"ab", "de"}
    assert_are(found, clocks)


@pytest.mark.parametrize("error", [0.08, 1.1, -1.1])
def test_a_wrong_epoch_of_a_good_pair_is_left_out_alone(error):
    clocks = true_clocks(OFFSETS)
    edges = [e for t in (10.0, 30.0, 50.0) for e in complete(clocks, at_s=t)]
    edges[0] = replace(edges[0], offset_s=edges[0].offset_s + error, modes=())
    graph, found = solve(edges)
    assert [e for e in graph.edges if not e.accepted] == [graph.edges[0]]
    assert "from what the other edges say" in graph.edges[0].reason
    assert_are(found, clocks, atol=1e-6)


def test_edges_rejected_beforehand_are_not_used():
    clocks = true_clocks(OFFSETS)
    edges = [e.rejected("ambiguous") if e.b == "d" else e for e in complete(clocks)]
    graph, found = solve(edges)
    assert rejected(graph) == {"ad", "bd", "cd"}
    assert found.unsynchronised == {"d": "ambiguous"}
    assert len(found.clocks) == 3


# Hints.


def test_a_hint_connects_what_nothing_else_does():
    clocks = true_clocks(OFFSETS)
    edges = [*without(complete(clocks), "ad", "bd", "cd"), measure(clocks, "a", "d", sigma_s=0.05, method="hint")]
    graph, found = solve(edges)
    assert not rejected(graph)
    assert_are(found, clocks)
    assert 0.049 < found.on("a")["d"].sigma_at_epoch_s < 0.06
    assert found["d"].verdict == "doubtful"


def test_a_hint_too_vague_for_a_clock_gives_none():
    clocks = true_clocks(OFFSETS)
    edges = [*without(complete(clocks), "ad", "bd", "cd"), measure(clocks, "a", "d", sigma_s=0.5, method="hint")]
    graph = OffsetGraph(tuple("abcd"), tuple(edges), {"d": "nobody in its view moves as anybody in a"})
    _, found = solve_clocks(graph, EPOCHS, reference="a")
    assert sorted(found.clocks) == ["a", "b", "c"]
    # 0.53 s: errors that the edges of one camera share are allowed for.
    assert found.unsynchronised["d"] == (
        "its posterior is 0.53 s wide (need 0.1 s): nobody in its view moves as anybody in a"
    )
    assert found.components == (("a", "b", "c"), ("d",))


def test_a_measurement_overrules_a_wrong_hint_and_outweighs_a_right_one():
    clocks = true_clocks(OFFSETS)
    for error, kept in ((3.0, False), (0.4, True)):
        hint = measure(clocks, "a", "b", sigma_s=0.5, error_s=error, method="hint")
        graph, found = solve([*complete(clocks), hint])
        assert graph.edges[-1].accepted == kept
        assert bool(graph.edges[-1].reason) != kept
        assert rejected(graph) == (set() if kept else {"ab"})
        assert_are(found, clocks, atol=1e-4)


def test_a_hint_that_is_too_sure_of_itself_is_no_better_than_a_measurement():
    clocks = true_clocks({n: OFFSETS[n] for n in "ab"})
    hint = measure(clocks, "a", "b", sigma_s=0.001, error_s=3.0, method="hint")
    graph, found = solve([measure(clocks, "a", "b"), hint], "ab")
    assert [e.accepted for e in graph.edges] == [True, False]
    assert graph.edges[1].reason == "contradicts the other pairs by 3.00 s"
    assert_are(found, clocks)


# Refusals and doubts.


def test_a_posterior_that_is_too_wide_is_refused_by_name():
    clocks = true_clocks({n: OFFSETS[n] for n in "abc"})
    edges = [measure(clocks, "a", "b"), measure(clocks, "b", "c", sigma_s=0.3)]
    _, found = solve(edges, "abc", reference="a")
    assert found.unsynchronised == {"c": "its posterior is 0.3 s wide (need 0.1 s)"}
    _, lenient = solve(edges, "abc", reference="a", options=SolveOptions(needed_sigma_s=0.5))
    assert sorted(lenient.clocks) == ["a", "b", "c"]


def test_a_clock_that_is_uncertain_far_from_its_epochs_is_refused():
    # One epoch at 30 s, judged at 5000 s: 100 ppm of unknown rate is half a second.
    clocks = true_clocks({n: OFFSETS[n] for n in "ab"})
    _, found = solve([measure(clocks, "a", "b")], "ab", {"a": 30.0, "b": 5000.0}, reference="a")
    assert found.unsynchronised["b"].startswith("its posterior is 0.5 s wide (need 0.1 s)")


def test_an_uncertain_clock_is_doubtful():
    clocks = true_clocks({n: OFFSETS[n] for n in "ab"})
    _, found = solve([measure(clocks, "a", "b", sigma_s=0.03)], "ab", reference="a")
    assert (found["b"].verdict, found["a"].verdict) == ("doubtful", "good")
    assert found["b"].why.startswith("uncertain by 30.0 ms")


def test_a_likely_rival_makes_a_lone_pair_doubtful_and_company_settles_it():
    clocks = true_clocks(OFFSETS)
    both = (Mode(3.25, 0.003, 0.85), Mode(4.35, 0.003, 0.15))
    lone = measure(clocks, "a", "b", modes=both)
    _, found = solve([lone], "ab", reference="a")
    assert found["b"].verdict == "doubtful"
    assert found["b"].why == "an offset of 4.35 s would fit nearly as well, and no other pair decides"
    _, found = solve([lone, *without(complete(clocks), "ab")], reference="a")
    assert found["b"].verdict == "good"
    _, found = solve([replace(lone, modes=(both[0], replace(both[1], weight=0.04)))], "ab", reference="a")
    assert found["b"].verdict == "good"


def test_a_camera_most_of_whose_pairs_are_rejected_is_doubtful():
    clocks = true_clocks(OFFSETS)
    edges = [e.rejected("ambiguous") if e.a + e.b in ("bd", "cd") else e for e in complete(clocks)]
    _, found = solve(edges, reference="a")
    assert found["d"].why == "2 of its 3 pairs do not agree with the rest; for one, ambiguous"
    assert found["b"].verdict == "good"


# Cycles and covariances.


def test_cycle_residuals_are_those_of_a_known_misclosure():
    clocks = true_clocks({n: OFFSETS[n] for n in "abc"})
    edges = complete(clocks, sigma_s=0.01)
    edges[1] = replace(edges[1], offset_s=edges[1].offset_s + 0.012, modes=())
    _, found = solve(edges, "abc")
    assert found.cycle_residual_max_s == pytest.approx(0.012, abs=5e-5)
    assert found.cycle_residual_rms_s == pytest.approx(0.012, abs=5e-5)


def test_cycle_residuals_of_all_triangles_are_summed_up():
    edges = complete(true_clocks(OFFSETS), sigma_s=0.01)
    edges[0] = replace(edges[0], offset_s=edges[0].offset_s + 0.012, modes=())
    _, found = solve(edges)
    # The edge lies on two of the four triangles.
    assert found.cycle_residual_max_s == pytest.approx(0.012, abs=5e-5)
    assert found.cycle_residual_rms_s == pytest.approx(0.012 / np.sqrt(2), abs=5e-5)


def test_drift_between_epochs_is_no_misclosure():
    clocks = true_clocks({n: OFFSETS[n] for n in "abc"}, {"b": 90, "c": -90})
    edges = [measure(clocks, a, b, at_s=t) for a, b in ("ab", "ac", "bc") for t in (0.0, 300.0, 600.0)]
    edges = [e for e in edges if (e.a + e.b, e.at_s) not in {("ab", 600.0), ("bc", 0.0)}]
    _, found = solve(edges, "abc", dict.fromkeys("abc", 300.0))
    assert len(found.clocks) == 3
    assert found.cycle_residual_max_s < 5e-4  # of 54 ms of drift in ten minutes


def z_scores(cameras, error, *, epochs=(10.0, 50.0), draws=150):
    """Return the z-scores of clocks at 30 s over many graphs, their pairs chosen by name."""
    rng = np.random.default_rng(0)
    names = sorted({name for pair in cameras for name in pair})
    found = []
    for _ in range(draws):
        truth = {
            n: Clock(n, rng.normal(0, 20), 1 + 1e-4 * rng.standard_normal() / np.sqrt(2), np.zeros((2, 2)))
            for n in names
        }
        edges = error(rng, truth, cameras, epochs)
        _, clocks = solve(edges, names)
        base = truth[clocks.reference]
        for name in set(clocks.clocks) - {clocks.reference}:
            true = float(base.to_camera(truth[name].to_session(30.0)))
            found.append((float(clocks[name].to_session(30.0)) - true) / clocks[name].sigma_at_epoch_s)
    assert len(found) == draws * (len(names) - 1)
    return np.array(found)


def independent_errors(rng, truth, pairs, epochs, sigma_s=0.004):
    return [
        measure(truth, *p, at_s=t, sigma_s=sigma_s, error_s=sigma_s * rng.standard_normal())
        for p in pairs
        for t in epochs
    ]


def errors_of_cameras(rng, truth, pairs, epochs, sigma_s=0.004):
    """Errors that belong to cameras: a pair's is the difference of two, so every cycle closes."""
    own = {(n, t): sigma_s / np.sqrt(2) * rng.standard_normal() for n in truth for t in epochs}
    return [
        measure(truth, *p, at_s=t, sigma_s=sigma_s, error_s=own[p[1], t] - own[p[0], t]) for p in pairs for t in epochs
    ]


@pytest.mark.parametrize(
    ("pairs", "error", "low", "high"),
    [
        # Measured with 1500 draws: 0.93, 0.96, 0.83 and 1.14; bounds leave 15 % for 150.
        (("ab",), independent_errors, 0.79, 1.07),
        (("ab", "bc", "cd"), independent_errors, 0.82, 1.1),
        # Real errors lie between independent edges and errors of cameras; the sigma is made for the middle:
        # off by 2 ** −0.25 = 0.84 and 2 ** 0.25 = 1.19 for four cameras.
        (("ab", "ac", "ad", "bc", "bd", "cd"), independent_errors, 0.71, 0.95),
        (("ab", "ac", "ad", "bc", "bd", "cd"), errors_of_cameras, 0.97, 1.31),
    ],
)
def test_sigmas_are_those_of_the_errors(pairs, error, low, high):
    z = z_scores(pairs, error)
    assert low < np.sqrt(np.mean(z**2)) < high
    assert abs(z.mean()) < 0.15


# Several methods on the same keypoints.


def sigma_of_b(*edges):
    """The clock's sigma of b in a graph of one pair, and its offset; agreeing edges, so that nothing widens it."""
    clock = solve(edges, "ab", reference="a")[1]["b"]
    return clock.sigma_at_epoch_s, clock.offset_s


def pair(method, sigma_s, offset_s=-2.0, at_s=30.0):
    return edge("a", "b", at_s, offset_s, sigma_s, method)


def test_a_second_method_on_the_same_keypoints_adds_no_certainty():
    (alone, _), (twice, _) = sigma_of_b(pair("epipolar", 0.004)), sigma_of_b(*[pair("epipolar", 0.004)] * 2)
    assert twice == pytest.approx(alone / np.sqrt(2), rel=0.01)  # two epochs of one method are news
    for sigma_s in (0.004, 0.008, 0.05):
        both, _ = sigma_of_b(pair("epipolar", 0.004), pair("insynformer", sigma_s))
        assert both == pytest.approx(alone, rel=1e-3)
    three, _ = sigma_of_b(pair("epipolar", 0.004), pair("insynformer", 0.006), pair("correlation", 0.03))
    assert three == pytest.approx(alone, rel=1e-3)


def test_epochs_of_several_methods_are_as_certain_as_those_of_the_best():
    epochs = [pair("epipolar", 0.004, at_s=t) for t in (20.0, 40.0)]
    alone, _ = sigma_of_b(*epochs)
    both, _ = sigma_of_b(*epochs, *(pair("insynformer", 0.006, at_s=t) for t in (20.0, 30.0, 40.0)))
    # Three of 0.006 know a little less than two of 0.004.
    assert both == pytest.approx(alone, rel=0.01)
    reverse, _ = sigma_of_b(*epochs, *(pair("insynformer", 0.004, at_s=t) for t in (20.0, 30.0, 40.0)))
    assert reverse == pytest.approx(0.004 / np.sqrt(3), rel=0.01)


def test_methods_that_differ_are_weighed_by_their_information():
    _, offset = sigma_of_b(pair("epipolar", 0.004, -2.0), pair("insynformer", 0.008, -2.005))
    assert offset == pytest.approx(2.0 + 0.005 / 5, abs=1e-6)
    # The difference tells that both are worse than they say.
    (alone, _), (apart, _) = (
        sigma_of_b(pair("epipolar", 0.004, -2.0), pair("insynformer", 0.004, -2.0 + d)) for d in (0.0, 0.012)
    )
    assert apart == pytest.approx(alone * 0.012 / 0.004 / np.sqrt(2) / np.sqrt(2), rel=0.01)


def test_sound_and_hints_are_news_beside_keypoints():
    (alone, _), (audio, _) = (sigma_of_b(pair("epipolar", 0.004), *more) for more in ((), (pair("audio", 0.004),)))
    assert audio == pytest.approx(alone / np.sqrt(2), rel=0.01)
    hinted, _ = sigma_of_b(pair("epipolar", 0.004), pair("insynformer", 0.004), pair("hint", 0.004))
    assert hinted == pytest.approx(alone / np.sqrt(2), rel=0.01)


def test_what_is_shared_is_counted_pair_by_pair():
    clocks = true_clocks({n: OFFSETS[n] for n in "abc"})
    chain = [measure(clocks, "a", "b"), measure(clocks, "b", "c")]
    before = solve(chain, "abc", reference="a")[1]
    after = solve([*chain, measure(clocks, "b", "c", method="insynformer")], "abc", reference="a")[1]
    for name in "bc":
        assert after[name].sigma_at_epoch_s == pytest.approx(before[name].sigma_at_epoch_s, rel=1e-3)


def test_a_method_that_is_wrong_on_one_pair_is_thrown_out_by_the_others():
    clocks = true_clocks(OFFSETS)
    edges = [*complete(clocks), *complete(clocks, method="insynformer", sigma_s=0.006)]
    wrong = next(i for i, e in enumerate(edges) if e.method == "insynformer" and e.a + e.b == "bc")
    edges[wrong] = replace(edges[wrong], offset_s=edges[wrong].offset_s + 0.9, modes=())
    graph, found = solve(edges, reference="a")
    assert [i for i, e in enumerate(graph.edges) if not e.accepted] == [wrong]
    assert_are(found, clocks)


@pytest.mark.parametrize("sigmas", [(0.003, 0.008), (0.008, 0.003)])
def test_two_methods_that_contradict_each_other_make_a_clock_doubtful(sigmas):
    edges = [
        PairwiseOffset("a", "b", 5.0, 1.0, sigmas[0], "epipolar"),
        PairwiseOffset("a", "b", 5.0, 2.1, sigmas[1], "insynformer", support=Support(windows=20)),
    ]
    _, clocks = solve_clocks(OffsetGraph(("a", "b"), tuple(edges)), {"a": 5.0, "b": 5.0}, reference="a")
    assert clocks["b"].verdict == "doubtful"
    assert "epipolar and insynformer differ by 1.10 s" in clocks["b"].why


# Sound, and what containers say.


def test_sound_that_contradicts_movement_is_named_and_not_averaged():
    clocks = true_clocks({n: OFFSETS[n] for n in "ab"})
    seen = [measure(clocks, "a", "b", at_s=t) for t in (10.0, 30.0, 50.0)]
    heard = [measure(clocks, "a", "b", at_s=t, sigma_s=0.01, error_s=0.3, method="audio") for t in (10.0, 30.0, 50.0)]
    graph, found = solve([*seen, *heard], "ab", reference="a")
    assert [e.accepted for e in graph.edges] == [True] * 3 + [False] * 3
    assert all("ms from what the other edges say, at a sigma of 10.0 ms" in e.reason for e in graph.edges[3:])
    assert found["b"].offset_s == pytest.approx(OFFSETS["b"], abs=1e-6)
    assert found["b"].verdict == "doubtful"
    assert "epipolar and audio differ by 300.0 ms for a and b" in found["b"].why


def test_epochs_of_sound_know_of_drift_what_they_do_not_know_of_the_offset():
    clocks = true_clocks({"a": 0.0, "b": 5.0}, {"b": 80.0})
    times = np.linspace(20, 620, 8)
    edges = [measure(clocks, "a", "b", at_s=t, sigma_s=0.01, method="audio") for t in times]
    _, found = solve(edges, "ab", dict.fromkeys("ab", 320.0), reference="a")
    # Three quarters of the variance are common to all epochs, the rest is each one's own.
    assert found["b"].sigma_at_epoch_s == pytest.approx(0.01 * np.sqrt(0.75 + 0.25 / 8), rel=0.01)
    own = 0.01 * np.sqrt(0.25) / np.sqrt(np.square(times - times.mean()).sum())
    assert np.sqrt(found["b"].cov[1, 1]) == pytest.approx(1 / np.hypot(1 / own, 1e4), rel=0.02)
    # A single edge is what it is.
    _, one = solve(edges[:1], "ab", dict.fromkeys("ab", 20.0), reference="a")
    assert one["b"].sigma_at_epoch_s == pytest.approx(0.01, rel=0.01)


def test_sound_settles_which_step_of_a_walk_is_meant():
    clocks = true_clocks({n: OFFSETS[n] for n in "ab"})
    seen = measure(clocks, "a", "b")
    step = replace(seen, modes=(replace(seen.modes[0], weight=0.85), Mode(seen.offset_s + 1.1, 0.003, 0.15)))
    assert solve([step], "ab", reference="a")[1]["b"].verdict == "doubtful"
    heard = measure(clocks, "a", "b", sigma_s=0.01, method="audio")
    assert solve([step, heard], "ab", reference="a")[1]["b"].verdict == "good"


def test_agreeing_sound_does_not_hide_that_movement_disagrees():
    edges = [pair("epipolar", 0.004, -2.0 + d, t) for d, t in ((0.012, 29.99), (-0.012, 30.01))]
    alone, _ = sigma_of_b(*edges)
    beside, _ = sigma_of_b(*edges, *(pair("audio", 0.02, at_s=29.9 + 0.1 * k) for k in range(3)))
    assert beside > 0.9 * alone


def test_vague_sound_is_doubtful():
    _, found = solve([pair("audio", 0.03)], "ab", reference="a")
    assert found["b"].verdict == "doubtful"
    assert found["b"].why == "uncertain by 30.0 ms: sound tells no more"


def vague(clocks, **more):
    return complete(clocks, sigma_s=2.8, method="timecode", **more)


def test_dates_of_containers_disturb_nothing():
    clocks = true_clocks(OFFSETS)
    seen = [*noisy()[:9], measure(clocks, "c", "d", error_s=0.006)]
    before_graph, before = solve(seen, reference="a")
    graph, after = solve([*seen, *vague(clocks, error_s=1.5)], reference="a")
    assert all(e.accepted for e in graph.edges)
    assert graph.edges[: len(seen)] == before_graph.edges
    for name in "abcd":
        np.testing.assert_equal(after[name].__dict__, before[name].__dict__)
    assert before.cycle_residual_max_s == after.cycle_residual_max_s > 0


def test_a_wrong_date_is_named_and_harms_nobody():
    clocks = true_clocks(OFFSETS)
    late = [replace(e, offset_s=e.offset_s + 3600.0 * (e.b == "d"), modes=()) for e in vague(clocks)]
    graph, found = solve([*complete(clocks), *late], reference="a")
    assert rejected(graph) == {"ad", "bd", "cd"}
    assert [e.reason for e in graph.edges if not e.accepted] == ["contradicts the other pairs by 3600.00 s"] * 3
    assert [c.verdict for c in found.clocks.values()] == ["good"] * 4
    assert_are(found, clocks)


def test_dates_connect_nobody():
    clocks = true_clocks({**OFFSETS, "e": 1.0, "f": 2.0})
    seen = [measure(clocks, *p) for p in ("ab", "cd", "de", "ce")]
    graph = OffsetGraph(tuple("abcdef"), (*seen, *vague(clocks)), {"f": "nobody is seen in its view"})
    solved, found = solve_clocks(graph, EPOCHS)
    assert found.components == (("c", "d", "e"), ("a", "b"), ("f",))
    assert found.reference in "cde"
    assert found.unsynchronised["a"] == f"it shares a clock with b, but nothing connects them to {found.reference}"
    assert found.unsynchronised["f"] == "nobody is seen in its view"
    between = next(e for e in solved.edges if (e.a, e.b, e.method) == ("a", "c", "timecode"))
    assert between.reason == "a sigma of 2.80 s is too much for a clock (need 0.1 s)"


@pytest.mark.parametrize("method", ["hint", "timecode"])
def test_a_wrong_claim_between_cameras_that_a_chain_connects_harms_nobody(method):
    clocks = true_clocks({n: OFFSETS[n] for n in "abc"})
    chain = [measure(clocks, "a", "b"), measure(clocks, "b", "c")]
    chain = [replace(e, modes=(replace(e.modes[0], weight=0.85),)) for e in chain]
    right = measure(clocks, "a", "b", sigma_s=0.04, method=method)
    wrong = measure(clocks, "a", "c", sigma_s=0.04, error_s=1.5, method=method)
    graph, found = solve([*chain, right, wrong], "abc", reference="a")
    assert rejected(graph) == {"ac"}
    assert graph.edges[3].reason == "contradicts the other pairs by 1.50 s"
    assert_are(found, clocks)


def test_the_user_is_believed_before_a_container():
    clocks = true_clocks({n: OFFSETS[n] for n in "ab"})
    hint = measure(clocks, "a", "b", sigma_s=0.05, method="hint")
    timecode = measure(clocks, "a", "b", sigma_s=0.035, error_s=5.0, method="timecode")
    graph, found = solve([timecode, hint], "ab", reference="a")
    assert [e.accepted for e in graph.edges] == [False, True]
    assert found["b"].why == "known by offset_hint_s alone: no pair with it could be estimated"
    _, both = solve([replace(timecode, offset_s=hint.offset_s, modes=()), hint], "ab", reference="a")
    assert both["b"].why == "known by offset_hint_s and timecode alone: no pair with it could be estimated"
