"""From keypoints to clocks: every pair of cameras, one clock each, all of them refined together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from mvpose.calib.camera import Camera
from mvpose.clock import Clocks
from mvpose.keypoints import Keypoints2D
from mvpose.sync.estimate import Hint, estimate_offsets
from mvpose.sync.offsets import Method, OffsetGraph, PairwiseOffset
from mvpose.sync.solve import solve_clocks


def synchronise_cameras(
    keypoints: Mapping[str, Keypoints2D],
    cameras: Mapping[str, Camera] | None = None,
    *,
    methods: Sequence[Method] | None = None,
    hints: Mapping[str, Hint] | None = None,
    cues: Sequence[PairwiseOffset] = (),
    reference: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[OffsetGraph, Clocks]:
    """Find every camera's clock.

    Args:
        keypoints: Tracked keypoints of each camera.
        cameras: Their calibration; None without.
        methods: Estimators of pairs to use; see ``estimate_offsets``.
        hints: What the user knows of some cameras' clocks.
        cues: Further estimates, by sound or timecode.
        reference: The camera whose time is the session's; by default the best-connected one.
        progress: Called with (pairs done, pairs in all).

    Returns:
        The estimates, each accepted or rejected with a reason, and the clocks; see ``solve_clocks``.
    """
    graph = estimate_offsets(keypoints, cameras, methods=methods, hints=hints, progress=progress)
    graph = graph.with_edges((*graph.edges, *cues))
    epochs = {name: float(k.time_s[[0, -1]].mean()) for name, k in keypoints.items()}
    return solve_clocks(graph, epochs, reference=reference)
