"""The output folder: what is current, what is on record, and files that are there whole or not at all."""

import errno
import json
import os
import platform
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock

from mvpose.atomic import atomic_path
from mvpose.errors import FormatError, WorkspaceError
from mvpose.workspace import (
    RUN_FORMAT,
    Workspace,
    array_digest,
    digest_of,
    file_digest,
    open_workspace,
    read_workspace,
    recorded_calib,
    video_digest,
)


@pytest.fixture
def workspace(opened, tmp_path) -> Workspace:
    return opened(tmp_path / "out")


def make(workspace: Workspace, stage: str = "sync", digest: str = "d", **texts: str) -> None:
    """Run a stage that writes some files; the dot in a file's name is an underscore here."""
    with workspace.making(stage, digest, people=2) as made:
        for name, text in (texts or {"clocks_json": "{}"}).items():
            path = made.path(workspace.root / name.replace("_", "."))
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)


def test_a_stage_is_current_while_its_inputs_and_files_are_the_same(workspace):
    assert not workspace.is_current("sync", "d")
    make(workspace)
    assert workspace.is_current("sync", "d")
    assert not workspace.is_current("sync", "other")
    assert not workspace.is_current("reconstruct", "d")
    workspace.clocks.write_text("[]")
    assert not workspace.is_current("sync", "d")
    workspace.clocks.unlink()
    assert not workspace.is_current("sync", "d")


def test_the_files_of_a_stage_take_their_places_together(workspace):
    make(workspace, a_txt="old", b_txt="old")
    with workspace.making("sync", "new") as made:
        for name in ("a.txt", "c.txt"):
            made.path(workspace.root / name).write_text("new")
        assert workspace.is_current("sync", "d")
        made.facts["people"] = 3
    assert workspace.is_current("sync", "new")
    assert workspace.stages["sync"]["people"] == 3
    assert texts(workspace.root) == {"a.txt": "new", "c.txt": "new"}


def texts(root: Path) -> dict[str, str]:
    files = (path for path in root.rglob("*") if path.is_file() and path.name != "run.json")
    return {path.name: path.read_text() for path in files if not path.name.startswith(".lock")}


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_stage_that_fails_leaves_the_last_run_as_it_was(workspace, error):
    make(workspace, a_txt="old")
    record = workspace.run.read_text()
    with pytest.raises(error), workspace.making("sync", "new") as made:
        made.path(workspace.root / "a.txt").write_text("new")
        raise error
    assert workspace.run.read_text() == record
    assert texts(workspace.root) == {"a.txt": "old"}
    assert workspace.is_current("sync", "d")
    assert not list(workspace.root.glob(".partial-*"))


def test_a_stage_that_fails_amidst_its_files_is_run_again_and_leaves_none_of_its_own(opened, workspace):
    """A folder in a file's place stops it as a kill would; b.txt, which is new, must not stay for good."""
    make(workspace, a_txt="old", c_txt="old")
    (workspace.root / "c.txt").unlink()
    (workspace.root / "c.txt" / "deep").mkdir(parents=True)
    with pytest.raises(WorkspaceError, match=r"out/c\.txt cannot be written"):
        make(workspace, digest="new", a_txt="new", b_txt="new", c_txt="new")
    (workspace.root / "c.txt" / "deep").rmdir()
    (workspace.root / "c.txt").rmdir()
    again = opened(workspace.root)
    assert not again.is_current("sync", "d")
    assert not again.is_current("sync", "new")
    make(again, a_txt="old", c_txt="old")
    assert texts(workspace.root) == {"a.txt": "old", "c.txt": "old"}


def test_the_record_of_an_older_version_is_read_and_its_files_are_not_taken_for_current(opened, tmp_path):
    with open_workspace(tmp_path / "out") as workspace:
        make(workspace)
    record = json.loads(workspace.run.read_text())
    record["format"] = "mvpose.run/1"
    record["stages"]["sync"]["files"] = ["clocks.json"]
    workspace.run.write_text(json.dumps(record))
    again = opened(workspace.root)
    assert again.files("sync") == [workspace.clocks]
    assert not again.is_current("sync", "d")


def test_a_reopened_workspace_remembers_and_force_forgets(opened, workspace):
    make(workspace)
    again = opened(workspace.root)
    assert again.is_current("sync", "d")
    assert again.files("sync") == [workspace.clocks]
    assert again.stages["sync"]["people"] == 2
    assert 0 <= again.stages["sync"]["seconds"] < 60
    assert not opened(workspace.root, force=True).is_current("sync", "d")


def test_a_stage_without_files_is_none(workspace):
    assert workspace.files("sync") == []
    assert not workspace.is_current("sync", "")


def test_the_record_is_on_disk_as_soon_as_a_stage_is_done(workspace):
    from mvpose import __version__

    workspace.warnings.append("cam02 is doubtful")
    workspace.options.update(calib=Path("rig.json"), fps=None)
    make(workspace)
    record = json.loads(workspace.run.read_text())
    assert record["format"] == RUN_FORMAT
    assert record["version"] == __version__
    assert record["options"] == {"calib": "rig.json", "fps": None}
    assert record["warnings"] == ["cam02 is doubtful"]
    assert record["stages"]["sync"]["files"] == {"clocks.json": file_digest(workspace.clocks)}


def test_files_are_recorded_relative_so_that_a_folder_may_be_moved(opened, tmp_path):
    with open_workspace(tmp_path / "out") as workspace:
        make(workspace)
    workspace.root.rename(tmp_path / "moved")
    assert opened(tmp_path / "moved").is_current("sync", "d")


@pytest.mark.parametrize(
    "text",
    [
        "", "nonsense", "[]", "{}", '{"format": "mvpose.run/3"}', '{"format": "mvpose.clocks/1"}',
        '{"format": "mvpose.run/1", "stages": 3}', '{"format": "mvpose.run/1", "stages": {"sync": 3}}',
        '{"format": "mvpose.run/1", "stages": {"sync": {"files": "clocks.json"}}}',
        '{"format": "mvpose.run/1", "stages": {"sync": {"files": [3]}}}',
    ],
)  # fmt: skip
def test_a_record_that_cannot_be_used_is_refused_and_kept(tmp_path, text):
    run = tmp_path / "run.json"
    run.write_text(text)
    with pytest.raises(WorkspaceError, match=r"run\.json .*--force"), open_workspace(tmp_path):
        pass
    assert run.read_text() == text
    with open_workspace(tmp_path, force=True) as workspace:
        assert workspace.stages == {}
    assert json.loads(run.read_text())["format"] == RUN_FORMAT


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("mine")
    for root in (tmp_path / "file", tmp_path / "file" / "out"):
        with pytest.raises(WorkspaceError, match="--out"), open_workspace(root):
            pass
    assert (tmp_path / "file").read_text() == "mine"


def test_what_cannot_be_read_again_tells_of_force(workspace):
    def reader(path):
        raise FormatError(f"{path.name} is odd.")

    with pytest.raises(WorkspaceError, match=r"^clocks\.json is odd; --force makes it anew$"):
        workspace.read(reader, workspace.clocks)
    assert workspace.read(Path.exists, workspace.clocks) is False


def test_the_calibration_is_on_record(workspace, tmp_path):
    with pytest.raises(WorkspaceError, match="--calib"):
        recorded_calib(workspace)
    rig = tmp_path / "rig.json"
    rig.write_text("{}")
    with workspace.making("reconstruct", "d", calib=str(rig), units="mm"):
        pass
    assert recorded_calib(workspace) == (rig, "mm")
    rig.unlink()
    with pytest.raises(WorkspaceError, match="--calib"):
        recorded_calib(workspace)
    rig.write_text("{}")
    assert recorded_calib(read_workspace(workspace.root)) == (rig, "mm")
    workspace.run.write_text("nonsense")
    with pytest.raises(WorkspaceError, match="--calib"):
        recorded_calib(read_workspace(workspace.root))


def test_a_digest_is_of_the_content_not_of_name_or_time(tmp_path):
    a, b = tmp_path / "a", tmp_path / "b"
    a.write_bytes(b"same")
    b.write_bytes(b"same")
    os.utime(b, (0, 0))
    assert file_digest(a) == file_digest(b)
    b.write_bytes(b"Same")
    assert file_digest(a) != file_digest(b)


LARGE = 5_000_000


@pytest.mark.parametrize(
    ("digest", "places"),
    [(file_digest, [0, 1_100_000, LARGE // 2, LARGE - 1]), (video_digest, [0, LARGE // 2, LARGE - 1])],
)
def test_a_large_file_that_keeps_its_size_is_known_by_every_byte_a_video_by_its_ends_and_middle(
    tmp_path, digest, places
):
    path = tmp_path / "large"
    path.write_bytes(bytes(LARGE))
    digests = {digest(path)}
    for place in places:
        content = bytearray(LARGE)
        content[place] = 1
        path.write_bytes(content)
        digests.add(digest(path))
    path.write_bytes(bytes(LARGE + 1))
    assert len(digests | {digest(path)}) == len(places) + 2


def test_the_digest_of_a_folder_is_of_its_files_and_their_names(tmp_path):
    folder = tmp_path / "frames"
    folder.mkdir()
    (folder / "a.json").write_text("1")
    before = file_digest(folder)
    (folder / "b.json").write_text("1")
    more = file_digest(folder)
    (folder / "a.json").unlink()
    assert len({before, more, file_digest(folder)}) == 3


def test_digests_of_values_tell_them_apart():
    values = [(), (None,), ("",), (0,), ("0",), ({"a": 1},), ([1, 2],), ([1], [2]), (1.0, 2.0), (Path("a"),)]
    assert len({digest_of(*v) for v in values}) == len(values)
    assert digest_of({"a": 1, "b": 2}) == digest_of({"b": 2, "a": 1})


def test_digests_of_arrays_tell_values_apart_and_not_their_layout():
    a = np.arange(6.0).reshape(2, 3)
    assert array_digest(a) == array_digest(np.asfortranarray(a))
    assert array_digest(a) != array_digest(a + 1e-12)


def test_a_file_takes_its_name_when_it_is_whole(tmp_path):
    path = tmp_path / "deep" / "er" / "a.txt"
    with atomic_path(path) as temporary:
        assert temporary.parent == path.parent
        assert temporary.suffix == ".txt"
        temporary.write_text("new")
        assert not path.exists()
    assert path.read_text() == "new"
    assert list(path.parent.iterdir()) == [path]
    reference = tmp_path / "plain.txt"
    reference.write_text("as readable as any other")
    assert path.stat().st_mode == reference.stat().st_mode


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, OSError(28, "No space left on device")])
def test_what_fails_half_way_leaves_the_old_file_and_no_other(tmp_path, error):
    path = tmp_path / "a.txt"
    path.write_text("old")
    raised = WorkspaceError if isinstance(error, OSError) else error
    with pytest.raises(raised), atomic_path(path) as temporary:
        temporary.write_text("ne")
        raise error
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_in_the_files_place_is_named(tmp_path):
    (tmp_path / "a.txt").mkdir()
    with pytest.raises(WorkspaceError, match=r"a\.txt cannot be written"), atomic_path(tmp_path / "a.txt") as temporary:
        temporary.write_text("new")
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_what_a_killed_run_left_half_written_is_removed_and_nothing_else(opened, tmp_path):
    left = [
        tmp_path / n for n in (".partial-1-run.json", "report/.partial-2-index.html", "keypoints2d/.partial-3-a.npz")
    ]
    kept = [tmp_path / n for n in (".mine", "mine/.partial-1", "poses3d.trc")]
    for path in (*left, *kept, tmp_path / ".partial-4" / "keypoints2d" / ".partial-5-b.npz"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    opened(tmp_path)
    assert sorted(tmp_path.rglob(".partial-*")) == [tmp_path / "mine/.partial-1"]
    assert all(path.is_file() for path in kept)


def test_a_folder_is_one_process_s_and_says_whose(tmp_path):
    with open_workspace(tmp_path) as workspace:
        make(workspace)
        (tmp_path / ".partial-1").write_text("a file on its way")
        with pytest.raises(WorkspaceError) as refused, open_workspace(tmp_path, force=True):
            pass
        assert workspace.is_current("sync", "d")
        assert (tmp_path / ".partial-1").is_file()
    holder = f"process {os.getpid()} on {platform.node()} since 20"
    assert f"{tmp_path} is in use by {holder}" in str(refused.value)
    assert "pytest" in str(refused.value)
    assert str(refused.value).endswith("wait until that has ended, or choose another --out")
    assert [path.name for path in tmp_path.iterdir() if "lock" in path.name] == ["clocks.json"]
    with open_workspace(tmp_path) as again:
        assert again.is_current("sync", "d")


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"pid": 3}'])
def test_a_holder_who_cannot_be_read_is_another_process(tmp_path, text):
    with open_workspace(tmp_path):
        (tmp_path / ".lock.json").write_text(text)
        with pytest.raises(WorkspaceError, match="in use by another process; wait"), open_workspace(tmp_path):
            pass


def test_the_lock_of_a_dead_process_is_nobody_s(opened, tmp_path):
    (tmp_path / ".lock").write_text("")
    (tmp_path / ".lock.json").write_text('{"pid": 1, "host": "here", "since": "yesterday", "command": "mvpose"}')
    opened(tmp_path)
    assert json.loads((tmp_path / ".lock.json").read_text())["pid"] == os.getpid()


def test_a_file_system_without_locks_is_named_and_worked_on(tmp_path, monkeypatch, caplog):
    def lockless(self, **options):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(FileLock, "acquire", lockless)
    with open_workspace(tmp_path) as workspace:
        make(workspace)
    assert "one command at a time" in caplog.text
    assert workspace.clocks.is_file()
