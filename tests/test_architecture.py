"""The floors of the house: which module may import which, and what may be imported only when it is needed."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

PACKAGE = Path(__file__).parents[1] / "mvpose"

# A module may import from lower floors and from its own room; rooms on one floor do not know each other. The longest
# name that fits a module decides, so that sync.offsets is a noun although it lies in the wing where it is made:
# graphs of offsets are read and written (formats) and shown (viz) as clocks and poses are.
FLOORS = {
    # Nouns, and helpers that know of nothing else: whole files, locks, increasing times, smooth tracks, rows at once.
    "errors": 0, "skeleton": 0, "clock": 0, "keypoints": 0, "poses": 0, "sync.offsets": 0, "atomic": 0, "frametimes": 0,
    "smoothing": 0, "shutter": 0, "pickles": 0, "inputs": 0, "lock": 0,
    # What is read and what is made: a session holds videos; rays and synthetic worlds need cameras.
    "calib": 1, "video": 1,
    "geometry": 2, "session": 2, "synthetic": 2,
    # What trainings of both wings stand on.
    "training": 3,
    # The rooms, then the workspace, whose run.json is written the way formats.results writes every JSON file.
    "detect": 4, "sync": 4, "recon": 4, "viz": 4, "formats": 4,
    "workspace": 5,
    "console": 6,  # its JSON is written as formats.results writes it
    "pipeline": 6,
    "compare": 7,
    "demo": 8,
    "bench": 9,  # measures, among others, the recordings that the demo cuts apart
    "cli": 10,
}  # fmt: skip

# Only these may import a package at all; a name that ends in * stands for all modules that begin so.
OWNERS = {
    "av": ("video",),
    "h5py": ("formats.hdf2d",),
    "open3d": ("viz.player",),
    "mmengine": ("detect.mmpose*", "training*", "sync.train*"),
    "mmpose": ("detect.mmpose*",),
    "mmdet": ("detect.mmpose*",),
    "mmcv": ("detect.mmpose*",),
}
VIEWERS = ("pipeline", "compare", "cli")
HEAVY = frozenset(
    {"torch", "torchvision", "mediapipe", "ai_edge_litert", "matplotlib", "ezc3d", "jinja2", "tensorflow", *OWNERS}
)


class Import(NamedTuple):
    """One import: in which module and line, of what, and whether only when a function is called."""

    module: str
    line: int
    target: str
    deferred: bool

    def __str__(self) -> str:
        return f"{self.module}:{self.line} imports {self.target}"


def sources_of(package: Path) -> dict[str, str]:
    """Return each module's text by its name below ``mvpose``; a room's __init__ bears the room's name."""
    sources = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package).with_suffix("").parts
        sources[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path.read_text(encoding="utf-8")
    return sources


def imports_of(sources: dict[str, str]) -> list[Import]:
    return [one for module, text in sources.items() for one in _imports_in(module, text, frozenset(sources))]


@cache
def _imports_in(module: str, text: str, modules: frozenset[str]) -> list[Import]:
    found = []
    for node, deferred in _executed(ast.parse(text), deferred=False):
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}:{node.lineno}: imports are absolute"
            base = node.module or ""
            full = [f"{base}.{alias.name}" for alias in node.names]
            # `from mvpose.viz import report` imports a module, `from mvpose.errors import SyncError` does not.
            targets = [t if t.removeprefix("mvpose.") in modules else base for t in full]
        else:
            continue
        found += [Import(module, node.lineno, target, deferred) for target in targets]
    return found


def _executed(node: ast.AST, deferred: bool) -> Iterator[tuple[ast.AST, bool]]:
    """Yield all nodes that are ever run, and whether that is only when a function is called; types are for mypy."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            for statement in child.orelse:
                yield from _executed(statement, deferred)
            continue
        yield child, deferred
        yield from _executed(child, deferred or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda))


def inner(target: str) -> str | None:
    """Return a module of ours without ``mvpose.`` in front, else None."""
    return target.removeprefix("mvpose").removeprefix(".") if target.split(".")[0] == "mvpose" else None


def place(module: str) -> tuple[str, int]:
    """Return a module's room and floor."""
    parts = module.split(".")
    for end in range(len(parts), 0, -1):
        room = ".".join(parts[:end])
        if room in FLOORS:
            return room, FLOORS[room]
    raise AssertionError(f"{module} stands on no floor; give it one in FLOORS")


def is_one_of(module: str, names: tuple[str, ...]) -> bool:
    return any(module.startswith(n[:-1]) if n.endswith("*") else module in (n, f"{n}.__init__") for n in names)


def peeks(imports: list[Import]) -> list[str]:
    """Imports of the bench by anything but itself and the door: the product does not know what it is compared with."""
    of_bench = [one for one in imports if (inner(one.target) or "").split(".")[0] == "bench"]
    return [str(one) for one in of_bench if not is_one_of(one.module, ("bench*", "cli"))]


def climbs(imports: list[Import]) -> list[str]:
    """Imports that point up, or sideways into another room."""
    found = []
    for one in imports:
        target = inner(one.target)
        if not one.module or not target:  # the package itself holds its version only
            continue
        (room, floor), (other, other_floor) = place(one.module), place(target)
        if other_floor > floor or (other_floor == floor and other != room and floor > 0):
            found.append(str(one))
    return found


def trespasses(imports: list[Import]) -> list[str]:
    """Packages that are imported outside the one place that may know them, and views looked at from elsewhere."""
    found = []
    for one in imports:
        owners = OWNERS.get(one.target.split(".")[0])
        looks = (inner(one.target) or "").split(".")[0] == "viz" and one.module.split(".")[0] != "viz"
        if (owners and not is_one_of(one.module, owners)) or (looks and not is_one_of(one.module, VIEWERS)):
            found.append(str(one))
    return found


def eager(imports: list[Import]) -> list[str]:
    """Heavy packages imported on the way in: at the top of a module that a light one imports at its top."""
    at_once = [one for one in imports if not one.deferred]
    heavy = {one.module for one in at_once if one.target.split(".")[0] in HEAVY}
    while more := {one.module for one in at_once if inner(one.target) in heavy and _is_heavy_room(one.module)} - heavy:
        heavy |= more
    return [str(one) for one in at_once if inner(one.target) in heavy and one.module not in heavy]


def _is_heavy_room(module: str) -> bool:
    """Tell whether a module may be as heavy as what it imports: networks and their training, and what measures them."""
    return is_one_of(module, ("sync.train*", "recon.voxelpose*", "training*", "bench*"))


SOURCES = sources_of(PACKAGE)


@pytest.fixture
def imports() -> list[Import]:
    return imports_of(SOURCES)


def test_imports_point_down(imports):
    assert climbs(imports) == []


def test_nothing_but_the_door_knows_the_bench(imports):
    assert peeks(imports) == []


def test_sync_and_recon_never_meet(imports):
    wings = [(one, {one.module.split(".")[0], (inner(one.target) or "").split(".")[0]}) for one in imports]
    assert [str(one) for one, pair in wings if pair == {"sync", "recon"}] == []


def test_packages_are_known_in_one_place_and_only_corridor_and_door_look(imports):
    assert trespasses(imports) == []


def test_heavy_packages_are_imported_when_they_are_needed(imports):
    assert eager(imports) == []


def test_every_floor_is_inhabited():
    assert [room for room in FLOORS if room not in SOURCES] == []


@pytest.mark.parametrize(
    ("module", "text", "check"),
    [
        ("sync.estimate", "from mvpose.recon.align import align", climbs),
        ("recon.track", "def f():\n    from mvpose.sync import solve", climbs),
        ("skeleton", "import mvpose.calib.rig", climbs),
        ("calib.rig", "from mvpose.session import Session", climbs),
        ("workspace", "from mvpose.pipeline import detect", climbs),
        ("formats.motion", "from mvpose.viz.scene import set_stage", climbs),
        ("compare", "import mvpose.demo", climbs),
        ("sync.train.rows", "def f():\n    from mvpose.bench.clips.synnet import SynNet", peeks),
        ("pipeline", "import mvpose.bench.clocks", peeks),
        ("demo", "from mvpose.viz import report", trespasses),
        ("session", "def f():\n    import av.container", trespasses),
        ("viz.scene", "def f():\n    import open3d as o3d", trespasses),
        ("detect.mediapipe", "def f():\n    from mmengine import Config", trespasses),
        ("viz.report", "from mvpose.viz.plots import Line", eager),
        ("pipeline", "class A:\n    from mvpose.viz import plots", eager),
    ],
)
def test_a_planted_violation_is_found(module, text, check):
    planted = f"{SOURCES[module]}\n{text}\n"
    found = set(check(imports_of({**SOURCES, module: planted}))) - set(check(imports_of(SOURCES)))
    assert [line.split(":")[0] for line in found] == [module]


def test_a_module_without_a_floor_is_named():
    with pytest.raises(AssertionError, match=r"attic\.trunk stands on no floor"):
        place("attic.trunk")


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("mvpose", {*HEAVY, "cv2", "numpy", "scipy"}),
        ("mvpose.cli", {*HEAVY, "cv2", "numpy", "scipy", "mvpose.bench"}),
        ("mvpose.pipeline", HEAVY),
        ("mvpose.demo", HEAVY),
        ("mvpose.viz.player", HEAVY),
        ("mvpose.sync.learned", HEAVY - {"torch"}),
    ],
)
def test_importing_loads_nothing_heavy(module, absent):
    code = f"import sys, {module}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert module in loaded
    assert loaded & absent == set()


@pytest.mark.parametrize("word", ["allow_pickle=True", "weights_only=False"])
def test_nothing_is_unpickled(word):
    assert [module for module, text in SOURCES.items() if word in text] == []


@pytest.mark.parametrize("function", ["eval", "exec", "print"])
def test_nothing_is_executed_or_printed(function):
    library = {module: text for module, text in SOURCES.items() if not module.startswith("bench")}
    assert [module for module, text in library.items() if calls(text, function)] == []
    assert calls(f"if x:\n    y = {function}(x)", function)


def calls(text: str, function: str) -> bool:
    nodes = ast.walk(ast.parse(text))
    return any(isinstance(n, ast.Call) and isinstance(n.func, ast.Name) and n.func.id == function for n in nodes)
