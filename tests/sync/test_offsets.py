import pytest

from mvpose.sync.offsets import Mode, OffsetGraph, PairwiseOffset, Support, edge


def test_an_edge_keeps_its_event_whichever_camera_is_named_first():
    forward = edge("left", "right", 8.0, 2.0, 0.01, "audio", support=Support(1, 13, 20.0))
    turned = edge("right", "left", 10.0, -2.0, 0.01, "audio", support=Support(1, 13, 20.0))
    assert turned == forward
    assert (forward.a, forward.b) == ("left", "right")
    assert forward.at_s + forward.offset_s == 10.0


def test_an_estimate_without_modes_is_its_own_only_one():
    assert edge("a", "b", 0.0, 1.5, 0.02, "hint").modes == (Mode(1.5, 0.02, 1.0),)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"a": "c"}, "from the smaller name to the larger"),
        ({"a": "b"}, "from the smaller name to the larger"),
        ({"method": "guess"}, "unknown method 'guess'"),
        ({"at_s": float("nan")}, "must be finite"),
        ({"offset_s": float("inf")}, "must be finite"),
        ({"sigma_s": 0.0}, "positive and finite"),
        ({"sigma_s": -1.0}, "positive and finite"),
        ({"sigma_s": float("inf")}, "positive and finite"),
        ({"sigma_s": float("nan")}, "positive and finite"),
    ],
)
def test_what_is_no_estimate_is_refused(change, message):
    good = {"a": "a", "b": "b", "at_s": 1.0, "offset_s": 2.0, "sigma_s": 0.1, "method": "epipolar"}
    PairwiseOffset(**good)
    with pytest.raises(ValueError, match=message):
        PairwiseOffset(**{**good, **change})


def test_a_rejected_estimate_keeps_its_figures():
    good = edge("a", "b", 1.0, 2.0, 0.1, "insynformer")
    bad = good.rejected("it contradicts the others")
    assert (bad.accepted, bad.reason) == (False, "it contradicts the others")
    assert (bad.offset_s, bad.at_s, bad.modes) == (good.offset_s, good.at_s, good.modes)
    assert good.accepted


def test_a_graph_knows_the_cameras_of_its_edges():
    e = edge("a", "b", 0.0, 1.0, 0.1, "hint")
    graph = OffsetGraph(["a", "b", "c"], [e])
    assert (graph.cameras, graph.edges) == (("a", "b", "c"), (e,))
    assert graph.with_edges([]).cameras == graph.cameras
    assert graph.with_edges([]).edges == ()
    with pytest.raises(ValueError, match=r"unknown cameras: \['b'\]"):
        OffsetGraph(("a", "c"), (e,))
