"""Reconcile all pairwise offsets into one clock per camera.

An edge says that session time is one: ``o_a + r_a t_a = o_b + r_b t_b`` with ``t_b = t_a + offset``. With ``r = 1 + ρ``
and ``t_b`` as measured this is linear in the unknowns: ``(o_a + ρ_a t_a) − (o_b + ρ_b t_b) = offset``. While
solving, each ``t`` counts from the middle of its camera's edges, for a camera's own time may be the seconds since 1970.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from mvpose.clock import Clock, Clocks, carried, identity_clock
from mvpose.errors import SyncError
from mvpose.sync.offsets import CLEAR_WEIGHT, FROM_KEYPOINTS, METHODS, Method, OffsetGraph, PairwiseOffset

Pair = tuple[str, str]

_CLAIMS: frozenset[Method] = frozenset({"hint", "timecode"})  # nobody measured them: each may be a plain mistake
_BY_TRUST: tuple[frozenset[Method], ...] = (
    frozenset(METHODS) - _CLAIMS,
    frozenset({"hint"}),
    frozenset({"timecode"}),
)
_BY_CHANCE = 3e-4  # a chance find is no likelier than this where uncalibrated pairs alone tell a clock
_SURPRISE, _LEAST_NEWS = 4.0, 0.25  # standard deviations of a drift beyond clocks'; least share that data have in it
_HEARD_ALIKE = 0.75  # of the variance of a pair's sound edges: the path of sound, and how a camera files sound; chosen


@dataclass(frozen=True)
class SolveOptions:
    """What the solver takes for granted."""

    needed_sigma_s: float = 0.1
    """A clock that is less certain than this in the middle of its recording is none, s."""
    good_sigma_s: float = 0.02
    """A clock that is less certain than this is doubtful, s."""
    good_windows: int = 6
    """A clock that InSynFormer alone knows, from fewer windows over all pairs, is doubtful."""
    rate_sigma: float = 1e-4
    """Spread of consumer clocks' rates about each other before any data."""
    outlier_sigmas: float = 4.0
    """An edge further than this from what the others say is thrown out."""
    slack_s: float = 0.01
    """Beside its sigma, what an edge may be off by unmodelled errors before it is thrown out, s."""
    decisive: float = float(np.log(20.0))
    """Log-odds by which one of two edges that contradict each other must be more credible to be kept."""


def solve_clocks(
    graph: OffsetGraph,
    epochs_s: Mapping[str, float],
    *,
    reference: str | None = None,
    options: SolveOptions | None = None,
) -> tuple[OffsetGraph, Clocks]:
    """Solve for all clocks by robust least squares over the graph.

    Args:
        graph: Estimates; any number of epochs and methods per pair.
        epochs_s: The middle of each camera's recording on its own time; where its clock is judged.
        reference: The camera whose time is the session's; by default the best-connected one of the largest component.
        options: What the solver takes for granted.

    Returns:
        The graph with every edge accepted or rejected with a reason, and the clocks. A camera that the reference does
        not reach, or reaches with too wide a posterior, has no clock and is named with the reason.

    Raises:
        SyncError: The reference is not a camera of the graph.
    """
    options = options or SolveOptions()
    if reference is not None and reference not in graph.cameras:
        raise SyncError(f"the reference camera {reference} is not in the session; it has {', '.join(graph.cameras)}")
    edges = list(graph.edges)
    accepted = [i for i, e in enumerate(edges) if e.accepted]
    kept = _consistent([i for i in accepted if not _is_vague(edges[i], options)], edges, options)
    while True:
        components = _components(graph.cameras, [edges[i] for i in kept])
        chosen = reference or _best_connected(components[0], [edges[i] for i in kept])
        group = next(c for c in components if chosen in c)
        used = [i for i in kept if edges[i].a in group]
        solution = _least_squares([edges[i] for i in used], group, chosen, options)
        residuals = {i: abs(solution.residual(edges[i])) - options.slack_s for i in used}
        worst = max(used, key=lambda i: residuals[i] / edges[i].sigma_s, default=None)
        if worst is None or residuals[worst] <= options.outlier_sigmas * edges[worst].sigma_s:
            break
        kept.remove(worst)
        edges[worst] = edges[worst].rejected(
            f"lies {_ms(solution.residual(edges[worst]))} from what the other edges say, "
            f"at a sigma of {_ms(edges[worst].sigma_s)}"
        )
    vague = [i for i in accepted if _is_vague(edges[i], options) and {edges[i].a, edges[i].b} <= set(group)]
    kept += [i for i in vague if abs(solution.residual(edges[i])) <= options.outlier_sigmas * edges[i].sigma_s]
    rejected = _named_rejections(edges, set(kept), solution, group, options)
    clocks, unsynchronised = _judge(graph, solution, group, chosen, epochs_s, rejected, options)
    cycle_max, cycle_rms = _cycle_residuals(
        [edges[i] for i in used if edges[i].a in clocks and edges[i].b in clocks], solution
    )
    return (
        graph.with_edges(rejected),
        Clocks(chosen, clocks, unsynchronised, _after_judgement(components, group, clocks), cycle_max, cycle_rms),
    )


def _is_vague(e: PairwiseOffset, options: SolveOptions) -> bool:
    """Tell whether a container says too little to give a clock: then it is only compared with what the clocks say."""
    return e.method == "timecode" and e.sigma_s > options.needed_sigma_s


@dataclass(frozen=True)
class _Solution:
    """Clocks of one component, reference included at zero: session time − own time, with its covariance.

    That difference is ``offset_s + rate_deviation (t − origin_s)`` at a camera's own time ``t``.
    """

    cameras: tuple[str, ...]
    origin_s: np.ndarray
    offset_s: np.ndarray
    rate_deviation: np.ndarray
    cov: np.ndarray  # (2C, 2C) of (offsets, rate deviations)

    def residual(self, e: PairwiseOffset) -> float:
        """Return the measured minus the solved offset of an edge, seconds."""
        return float(e.offset_s - (self._ahead_s(e.a, e.at_s) - self._ahead_s(e.b, e.at_s + e.offset_s)))

    def _ahead_s(self, camera: str, t_s: float) -> float:
        i = self.cameras.index(camera)
        return float(self.offset_s[i] + self.rate_deviation[i] * (t_s - self.origin_s[i]))

    def clock(self, camera: str, epoch_s: float) -> Clock:
        """Return a camera's clock, its uncertainty at an epoch."""
        i = self.cameras.index(camera)
        pick = [i, i + len(self.cameras)]
        cov = carried(self.cov[np.ix_(pick, pick)], epoch_s - self.origin_s[i])
        return Clock(camera, self._ahead_s(camera, 0.0), 1.0 + float(self.rate_deviation[i]), cov, epoch_s=epoch_s)


def _least_squares(
    edges: Sequence[PairwiseOffset], cameras: Sequence[str], reference: str, options: SolveOptions
) -> _Solution:
    """Solve one component by weighted least squares with a prior on rates.

    Two edges that share a camera share its detector's errors, so they are not independent: see ``_shared_noise``.
    """
    names = tuple(cameras)
    free = [name for name in names if name != reference]
    count = len(free)
    at = {name: index for index, name in enumerate(free)}
    origin = _middle_times(names, edges)
    A = np.zeros((len(edges), 2 * count))
    y = np.array([e.offset_s for e in edges])
    sigma = np.array([e.sigma_s for e in edges]) * _shared_keypoints(edges)
    for row, e in enumerate(edges):
        if e.a in at:
            A[row, at[e.a]], A[row, count + at[e.a]] = 1.0, e.at_s - origin[e.a]
        if e.b in at:
            A[row, at[e.b]], A[row, count + at[e.b]] = -1.0, -(e.at_s + e.offset_s - origin[e.b])
    # Rates in units of their prior keep the normal matrix well conditioned.
    scale = np.concatenate([np.ones(count), np.full(count, options.rate_sigma)])
    rows = decorrelated(np.column_stack([A * scale, y]) / sigma[:, None], edges)
    weighted, y = rows[:, :-1], rows[:, -1]
    # All rates spread alike about a common one, the reference's included: so it does not matter which camera that is.
    prior = np.zeros((2 * count, 2 * count))
    prior[count:, count:] = 2 * (np.eye(count) - 1 / (count + 1))
    covariance = np.linalg.inv(weighted.T @ weighted + prior + 1e-12 * np.eye(2 * count))
    x = covariance @ (weighted.T @ y)
    square = np.square(y - weighted @ x)
    # Sound and claims have generous sigmas, and must not hide that movement disagrees.
    seen = np.array([e.method in FROM_KEYPOINTS for e in edges], dtype=bool)
    excess = max(float(part.sum()) / max(len(part) - count, 1) for part in (square, square[seen]))
    covariance = covariance * max(1.0, excess) * scale[:, None] * scale[None, :]
    x = x * scale
    index = [names.index(name) for name in free]
    offset, rate = np.zeros(len(names)), np.zeros(len(names))
    offset[index], rate[index] = x[:count], x[count:]
    full = np.zeros((2 * len(names), 2 * len(names)))
    both = index + [i + len(names) for i in index]
    full[np.ix_(both, both)] = covariance * _shared_noise(len(names), len({(e.a, e.b) for e in edges}))
    return _Solution(names, np.array([origin[name] for name in names]), offset, rate, full)


def settled(clock: Clock, rate_sigma: float) -> Clock:
    """Decide whether a clock drifts.

    The odds are those of a rate of exactly 1 against any within the prior (Savage and Dickey's ratio of densities), or
    within twice its sigma: no narrower alternative is worth asking. Where they are for 1, the rate is that, and its
    sigma stays what the data leave open. Not so where the drift is a surprise.

    Args:
        clock: As fitted with a prior on its rate.
        rate_sigma: The prior's standard deviation.
    """
    variance, drift = float(clock.cov[1, 1]), clock.rate - 1
    odds = np.sqrt(2 * max(rate_sigma**2, 4 * variance) / variance) * np.exp(-0.5 * drift**2 / variance)
    if odds <= 1 or _is_surprising(clock, rate_sigma):
        return replace(clock, rate_fitted=True)
    moved_s = drift * (clock.epoch_s - float(clock.cov[0, 1]) / variance)  # what is likeliest with a rate of 1
    return replace(clock, offset_s=clock.offset_s + moved_s, rate=1.0, rate_fitted=False)


def _is_surprising(clock: Clock, rate_sigma: float) -> bool:
    """Tell whether a drift, drawn towards none by its prior, is further off than that lets it be by chance.

    So it is where 30 was written for 29.97 frames a second (1000 ppm).
    """
    news = max(1 - clock.cov[1, 1] / rate_sigma**2, _LEAST_NEWS)  # what the data add to the prior
    return bool((clock.rate - 1) ** 2 > _SURPRISE**2 * rate_sigma**2 * news)


def decorrelated(rows: np.ndarray, edges: Sequence[PairwiseOffset]) -> np.ndarray:
    """Turn equations (E, k), one an edge and in units of its sigma, into as many whose errors are independent.

    What a sound's path and a camera's delay add to a pair's edges by sound is nearly the same at every epoch: it tells
    of drift what it does not tell of the offset. With the correlation ρ between n of them this is R^(−1/2),
    R = (1 − ρ) I + ρ 1 1ᵀ.
    """
    out = rows.copy()
    for pair in dict.fromkeys((e.a, e.b) for e in edges if e.method == "audio"):
        own = [i for i, e in enumerate(edges) if (e.a, e.b) == pair and e.method == "audio"]
        mean = rows[own].mean(axis=0)
        out[own] = (rows[own] - mean) / np.sqrt(1 - _HEARD_ALIKE)
        out[own] += mean / np.sqrt(1 + (len(own) - 1) * _HEARD_ALIKE)
    return out


def _shared_keypoints(edges: Sequence[PairwiseOffset]) -> np.ndarray:
    """Return the factor (E,) on each edge's sigma for what several methods took from the same keypoints.

    Their errors are the detector's, so two of them know hardly more than the better one: the sigmas of a pair are
    widened alike until its information is that of its best method.
    """
    information: dict[Pair, dict[str, float]] = {}
    for e in edges:
        if e.method in FROM_KEYPOINTS:
            methods = information.setdefault((e.a, e.b), {})
            methods[e.method] = methods.get(e.method, 0.0) + e.sigma_s**-2
    factor = {pair: float(np.sqrt(sum(own.values()) / max(own.values()))) for pair, own in information.items()}
    return np.array([factor[e.a, e.b] if e.method in FROM_KEYPOINTS else 1.0 for e in edges])


def _middle_times(cameras: Sequence[str], edges: Sequence[PairwiseOffset]) -> dict[str, float]:
    """Return the mean of each camera's own times at its edges, seconds; 0 where it has none."""
    times: dict[str, list[float]] = {name: [] for name in cameras}
    for e in edges:
        times[e.a].append(e.at_s)
        times[e.b].append(e.at_s + e.offset_s)
    return {name: float(np.mean(own)) if own else 0.0 for name, own in times.items()}


def _shared_noise(cameras: int, pairs: int) -> float:
    """Return the variance factor between independent edges and edges that are differences of camera errors.

    In a complete graph of n cameras independent edges of variance s² give a clock variance of 2 s²/n, errors that
    belong to cameras s². Real residuals lie between; the geometric mean stands for them. A tree has nothing to share.
    """
    surplus = (pairs - (cameras - 1)) / max(cameras * (cameras - 1) / 2 - (cameras - 1), 1)
    return float((cameras / 2) ** (0.5 * surplus)) if cameras > 2 else 1.0


def _components(cameras: Iterable[str], edges: Sequence[PairwiseOffset]) -> list[tuple[str, ...]]:
    """Return groups of connected cameras in the session's order, largest first."""
    names = list(cameras)
    group = {name: {name} for name in names}
    for e in edges:
        if group[e.a] is not group[e.b]:
            merged = group[e.a] | group[e.b]
            for name in merged:
                group[name] = merged
    unique = {id(g): g for g in group.values()}.values()
    ordered = [tuple(n for n in names if n in g) for g in unique]
    return sorted(ordered, key=lambda g: -len(g))


def _best_connected(group: Sequence[str], edges: Sequence[PairwiseOffset]) -> str:
    """Return the camera with the most partners; among equals the one with the most information."""

    def rank(name: str) -> tuple[int, float]:
        own = [e for e in edges if name in (e.a, e.b)]
        return len({(e.a, e.b) for e in own}), sum(e.sigma_s**-2 for e in own)

    return max(group, key=rank)


def _consistent(candidates: Sequence[int], edges: Sequence[PairwiseOffset], options: SolveOptions) -> list[int]:
    """Return those candidates whose pairs agree round cycles, judged pair by pair before any least squares.

    Measurements are reconciled first, then what users say, then what containers say: each connects only what nothing
    more trustworthy connects, and otherwise has to agree with it.
    """
    kept: list[int] = []
    for methods in _BY_TRUST:
        own = [i for i in candidates if edges[i].method in methods]
        if not own:
            continue
        firm = _pair_votes([edges[i] for i in kept])
        votes = {**_pair_votes([edges[i] for i in own]), **firm}
        good = _agreeing_pairs(votes, firm, options)
        kept += [
            i for i in own if (pair := (edges[i].a, edges[i].b)) in good and _fits(edges[i], firm.get(pair), options)
        ]
    return sorted(kept)


def _agreeing_pairs(votes: Mapping[Pair, _Vote], firm: Mapping[Pair, _Vote], options: SolveOptions) -> set[Pair]:
    """Return the pairs that agree with each other, those that are beyond doubt among them.

    Every pair has one vote at its own middle. The spanning tree whose offsets most other pairs confirm wins. Where two
    pairs contradict each other and nothing else decides, neither is kept.
    """
    tree = _best_tree(votes, firm, options)
    agree = {pair for pair in votes if pair in firm or _confirmed(votes, tree, pair, options)}
    doubtful = {
        suspect
        for wrong in set(votes) - agree
        for suspect in _bridges_between(agree, *wrong)
        if votes[suspect].log_odds - votes[wrong].log_odds < options.decisive
    }
    return agree - (doubtful - set(firm))


@dataclass(frozen=True)
class _Vote:
    offset_s: float
    sigma_s: float
    at_s: float
    log_odds: float


def _pair_votes(edges: Sequence[PairwiseOffset]) -> dict[Pair, _Vote]:
    """Summarise each pair by its weighted median over epochs."""
    votes = {}
    for pair in dict.fromkeys((e.a, e.b) for e in edges):
        own = [e for e in edges if (e.a, e.b) == pair]
        order = np.argsort([e.offset_s for e in own])
        weight = np.array([own[i].sigma_s ** -2 for i in order])
        median = own[order[int(np.searchsorted(np.cumsum(weight), weight.sum() / 2))]]
        top = float(np.clip(median.modes[0].weight, 0.02, 0.98))
        votes[pair] = _Vote(median.offset_s, median.sigma_s, median.at_s, float(np.log(top / (1 - top))))
    return votes


def _fits(e: PairwiseOffset, vote: _Vote | None, options: SolveOptions) -> bool:
    if vote is None:
        return True
    return abs(e.offset_s - vote.offset_s) <= options.outlier_sigmas * np.hypot(e.sigma_s, vote.sigma_s)


def _potentials(votes: Mapping[Pair, _Vote], tree: Iterable[Pair]) -> dict[str, tuple[int, float, float]]:
    """Walk a forest: for each camera its root, its clock's offset against the root's, and that offset's variance."""
    neighbours: dict[str, list[tuple[str, float, float]]] = {}
    for a, b in tree:
        vote = votes[a, b]
        neighbours.setdefault(a, []).append((b, -vote.offset_s, vote.sigma_s**2))
        neighbours.setdefault(b, []).append((a, vote.offset_s, vote.sigma_s**2))
    found: dict[str, tuple[int, float, float]] = {}
    for root_index, root in enumerate(neighbours):
        stack = [(root, 0.0, 0.0)] if root not in found else []
        while stack:
            name, offset, variance = stack.pop()
            if name not in found:
                found[name] = (root_index, offset, variance)
                stack += [(n, offset + d, variance + v) for n, d, v in neighbours[name] if n not in found]
    return found


_DRIFT_SLACK_S = 0.05  # votes are taken at different epochs: 200 ppm over four minutes


def _confirmed(votes: Mapping[Pair, _Vote], tree: Iterable[Pair], pair: Pair, options: SolveOptions) -> bool:
    potentials = _potentials(votes, tree)
    (_, offset_a, variance_a), (_, offset_b, variance_b) = potentials[pair[0]], potentials[pair[1]]
    error = abs(votes[pair].offset_s - (offset_a - offset_b))
    return bool(
        error <= options.outlier_sigmas * np.sqrt(votes[pair].sigma_s ** 2 + variance_a + variance_b) + _DRIFT_SLACK_S
    )


def _best_tree(votes: Mapping[Pair, _Vote], firm: Iterable[Pair], options: SolveOptions) -> list[Pair]:
    """Return the spanning forest that the most credible pairs confirm, among many drawn at random.

    All of them begin with the pairs that are beyond doubt. The first one goes on with the most certain pairs; the rest
    are drawn with a fixed seed, so the answer is repeatable.
    """
    pairs = list(votes)
    rng = np.random.default_rng(0)
    certain = sorted(pairs, key=lambda p: votes[p].sigma_s)
    best, best_score = _spanning_forest([*firm, *certain]), -np.inf
    for attempt in range(1 if len(pairs) < 3 else 200):
        rest = certain if attempt == 0 else [pairs[i] for i in rng.permutation(len(pairs))]
        tree = _spanning_forest([*firm, *rest])
        score = sum(votes[p].log_odds for p in pairs if _confirmed(votes, tree, p, options))
        if score > best_score + 1e-9:
            best, best_score = tree, score
    return best


def _spanning_forest(pairs: Sequence[Pair]) -> list[Pair]:
    root: dict[str, str] = {}

    def find(name: str) -> str:
        while root.setdefault(name, name) != name:
            name = root[name]
        return name

    tree = []
    for a, b in pairs:
        if find(a) != find(b):
            root[find(a)] = find(b)
            tree.append((a, b))
    return tree


def _bridges_between(pairs: set[Pair], a: str, b: str) -> list[Pair]:
    """Return the pairs without which ``a`` and ``b`` would no longer be connected."""

    def connected(without: Pair) -> bool:
        reached, stack = {a}, [a]
        while stack:
            name = stack.pop()
            for p, q in pairs - {without}:
                for here, there in ((p, q), (q, p)):
                    if here == name and there not in reached:
                        reached.add(there)
                        stack.append(there)
        return b in reached

    return [pair for pair in pairs if not connected(pair)]


def _named_rejections(
    edges: Sequence[PairwiseOffset], kept: set[int], solution: _Solution, group: Sequence[str], options: SolveOptions
) -> list[PairwiseOffset]:
    named = []
    for index, e in enumerate(edges):
        if index in kept or e.reason:
            named.append(e)
        elif e.a in group and e.b in group:
            named.append(e.rejected(f"contradicts the other pairs by {_ms(solution.residual(e))}"))
        elif _is_vague(e, options):
            named.append(
                e.rejected(f"a sigma of {_ms(e.sigma_s)} is too much for a clock (need {options.needed_sigma_s:g} s)")
            )
        else:
            named.append(e.rejected("contradicts another pair, and no third one decides between them"))
    return named


def _judge(
    graph: OffsetGraph,
    solution: _Solution,
    group: Sequence[str],
    reference: str,
    epochs_s: Mapping[str, float],
    edges: Sequence[PairwiseOffset],
    options: SolveOptions,
) -> tuple[dict[str, Clock], dict[str, str]]:
    """Give each camera its clock and verdict, or the reason why it has none."""
    clocks = {}
    unsynchronised = {}
    for name in graph.cameras:
        own = [e for e in edges if name in (e.a, e.b) and not _is_vague(e, options)]
        if name == reference:
            clocks[name] = identity_clock(name, epochs_s[name])
        elif name not in group:
            unsynchronised[name] = _why_unconnected(name, graph, own, reference)
        else:
            clock = _clock(name, solution, epochs_s[name], own, len(group), options)
            if clock.sigma_at_epoch_s <= options.needed_sigma_s:
                clocks[name] = clock
            else:
                unsynchronised[name] = (
                    f"its posterior is {clock.sigma_at_epoch_s:.2g} s wide (need {options.needed_sigma_s:g} s)"
                    + (f": {graph.notes[name]}" if name in graph.notes else "")
                )
    return clocks, unsynchronised


def _why_unconnected(name: str, graph: OffsetGraph, own: Sequence[PairwiseOffset], reference: str) -> str:
    accepted = sorted({e.b if e.a == name else e.a for e in own if e.accepted})
    if accepted:
        return f"it shares a clock with {', '.join(accepted)}, but nothing connects them to {reference}"
    if own:
        return next(e.reason for e in own)
    return graph.notes.get(name, "no pair with it could be estimated")


def _clock(
    name: str,
    solution: _Solution,
    epoch_s: float,
    own: Sequence[PairwiseOffset],
    cameras: int,
    options: SolveOptions,
) -> Clock:
    clock = settled(solution.clock(name, epoch_s), options.rate_sigma)
    why = doubts(clock, own, cameras, options)
    return replace(clock, verdict="doubtful", why=why) if why else clock


def doubts(clock: Clock, own: Sequence[PairwiseOffset], cameras: int, options: SolveOptions) -> str:
    """Return why a clock should not be trusted blindly; empty if it may.

    Args:
        clock: The clock.
        own: All estimates of pairs with its camera.
        cameras: How many cameras have a clock, it and the reference among them.
        options: What the solver takes for granted.
    """
    own = [e for e in own if not _is_vague(e, options)]
    methods = {e.method for e in own if e.accepted}
    if methods and methods <= _CLAIMS:
        told = " and ".join({"hint": "offset_hint_s", "timecode": "timecode"}[m] for m in sorted(methods))
        return f"known by {told} alone: no pair with it could be estimated"
    if methods == {"correlation"}:
        return "by the correlation of movements alone: give --calib for clocks to a few milliseconds"
    windows = [e.support.windows for e in own if e.accepted]
    if all(windows) and sum(windows) < options.good_windows:
        total = sum(windows)
        return f"by {total} windows of movement alone, which may repeat itself: give --calib or a longer recording"
    if _is_surprising(clock, options.rate_sigma):
        ppm = f"{1e6 * (clock.rate - 1):+.0f} ppm or more"  # the prior has drawn it towards none
        return f"its drift, {ppm}, is more than that of clocks: check the frame rate that its times were made by"
    if clock.sigma_at_epoch_s > options.good_sigma_s:
        little = "too little moves across the lines of sight" if methods & FROM_KEYPOINTS else "sound tells no more"
        return f"uncertain by {_ms(clock.sigma_at_epoch_s)}: {little}"
    apart = _methods_apart(own, options)
    accepted = {(e.a, e.b) for e in own if e.accepted}
    if 2 * len(apart) >= len(accepted) and apart:
        return f"{next(iter(apart.values()))}, and too few other pairs decide"
    # What one method finds ambiguous is so, however sure another one is of the same movement.
    measured = [e for e in own if e.method not in _CLAIMS]
    votes = {pair: [e.accepted for e in measured if (e.a, e.b) == pair] for pair in {(e.a, e.b) for e in measured}}
    heard = {(e.a, e.b) for e in measured if e.accepted and e.method == "audio"}  # which repeats itself less
    disputed = {pair for pair, kept in votes.items() if 2 * sum(kept) <= len(kept)} - heard
    if disputed and len(disputed) >= len(accepted - disputed):
        reason = next(e.reason for e in measured if not e.accepted)
        return f"{len(disputed)} of its {len(votes)} pairs do not agree with the rest; for one, {reason}"
    if all(windows) and accepted:
        sure = {(e.a, e.b): e.modes[0].weight for e in own if e.accepted}
        chance = float(np.prod([1 - weight for weight in sure.values()]))
        if chance > _BY_CHANCE:
            return f"unrelated movements would agree as well with a probability of {chance:.1g}"
        if len(accepted) == 1 and cameras > 2:
            return "one pair alone says so, and no other camera's movements are found again in its view"
    # Movement repeats itself where sound does not.
    telling = [e for e in own if e.accepted and e.method == "audio"] or [e for e in own if e.accepted]
    rivals = [m for e in telling for m in e.modes[1:] if m.weight > 0.05]
    if len(accepted) == 1 and rivals:
        best = max(rivals, key=lambda m: m.weight)
        return f"an offset of {best.offset_s:.2f} s would fit nearly as well, and no other pair decides"
    return ""


def _methods_apart(edges: Sequence[PairwiseOffset], options: SolveOptions) -> dict[Pair, str]:
    """Return the pairs whose methods, each by its weighted mean, contradict each other, and how."""
    apart = {}
    for pair in dict.fromkeys((e.a, e.b) for e in edges):
        by_method: dict[str, list[PairwiseOffset]] = {}
        for e in edges:
            if (e.a, e.b) == pair and e.method not in _CLAIMS and e.modes[0].weight >= CLEAR_WEIGHT:
                by_method.setdefault(e.method, []).append(e)
        means = {method: _weighted_mean(own) for method, own in by_method.items()}
        for (m, (mean_m, sigma_m)), (n, (mean_n, sigma_n)) in itertools.combinations(means.items(), 2):
            gap = abs(mean_m - mean_n)
            if gap > options.outlier_sigmas * np.hypot(sigma_m, sigma_n) + _DRIFT_SLACK_S:
                apart[pair] = f"{m} and {n} differ by {_ms(gap)} for {pair[0]} and {pair[1]}"
    return apart


def _weighted_mean(edges: Sequence[PairwiseOffset]) -> tuple[float, float]:
    """Return the mean offset of one pair's edges, and the smallest of their sigmas: bias does not average out."""
    sigma = np.array([e.sigma_s for e in edges])
    return float(np.average([e.offset_s for e in edges], weights=sigma**-2)), float(sigma.min())


def _after_judgement(
    components: Sequence[tuple[str, ...]], group: tuple[str, ...], clocks: Mapping[str, Clock]
) -> tuple[tuple[str, ...], ...]:
    """Return the components with the cameras whose clock was refused each on its own."""
    split = [c for c in components if c != group]
    split += [tuple(n for n in group if n in clocks)] + [(n,) for n in group if n not in clocks]
    return tuple(sorted(split, key=lambda c: -len(c)))


def _cycle_residuals(edges: Sequence[PairwiseOffset], solution: _Solution) -> tuple[float, float]:
    """Return the largest and the root mean square misclosure of all triangles, seconds; NaN where there is none.

    Residuals against the solution stand for offsets: the solution closes every cycle, and cancels drift between epochs.
    """
    misfit: dict[Pair, float] = {}
    for pair in {(e.a, e.b) for e in edges}:
        own = [e for e in edges if (e.a, e.b) == pair]
        misfit[pair] = float(np.average([solution.residual(e) for e in own], weights=[e.sigma_s**-2 for e in own]))
    names = sorted({name for pair in misfit for name in pair})
    closures = [
        misfit[a, b] + misfit[b, c] - misfit[a, c]
        for a, b, c in itertools.combinations(names, 3)
        if {(a, b), (b, c), (a, c)} <= set(misfit)
    ]
    if not closures:
        return float("nan"), float("nan")
    return float(np.max(np.abs(closures))), float(np.sqrt(np.mean(np.square(closures))))


def _ms(seconds: float) -> str:
    return f"{abs(seconds) * 1e3:.1f} ms" if abs(seconds) < 1 else f"{abs(seconds):.2f} s"
