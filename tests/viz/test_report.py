"""The report: whole, offline, escaped, and true to the figures that it is given."""

import base64
import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import cv2
import numpy as np
import pytest

from mvpose.calib.camera import Camera
from mvpose.clock import Clock, Clocks, identity_clock, unsynchronised_clocks
from mvpose.sync.offsets import OffsetGraph, edge
from mvpose.viz.plots import liveliest_window, offset_residual_s
from mvpose.viz.report import (
    Comparison,
    Shot,
    Variant,
    _drawable,
    draw_skeletons,
    playback_data,
    render_report,
    verdict,
)

RAW = {"reprojection_px_mean": 24.1, "bone_spread_mm": 41.3, "joints_found": 0.85, "n_people": 1}
SYNCED = {"reprojection_px_mean": 3.42, "bone_spread_mm": 9.1, "joints_found": 0.993, "n_people": 1}


def clock(camera, offset_s, sigma_s=0.002, rate=1.0, **more):
    return Clock(camera, offset_s, rate, np.diag([sigma_s**2, 0]), epoch_s=1.5, **more)


@pytest.fixture
def comparison(make_poses, make_rig) -> Comparison:
    rig = make_rig()
    clocks = Clocks(
        "cam01",
        {
            "cam01": identity_clock("cam01"),
            "cam02": clock("cam02", -0.3172, rate=1 + 2.1e-5, rate_fitted=True),
            "cam03": clock("cam03", 2.5, verdict="doubtful", why="little motion after 6 s"),
        },
        components=(("cam01", "cam02", "cam03"),),
        cycle_residual_max_s=0.004,
        cycle_residual_rms_s=0.0015,
    )
    offsets = OffsetGraph(
        rig.names,
        (
            edge("cam01", "cam02", 1.0, 0.318, 0.003, "correlation"),
            edge("cam01", "cam03", 1.0, -2.502, 0.004, "epipolar"),
            edge("cam02", "cam03", 1.0, 1.0, 0.004, "epipolar").rejected("its cycle is off by 3.8 s"),
        ),
    )
    image = np.full((480, 640, 3), 90, dtype=np.uint8)
    return Comparison(
        title="walk",
        variants=(
            Variant("raw", "Raw", make_poses(noise_m=0.05, error_px=20), unsynchronised_clocks(rig.names), RAW),
            Variant("synced", "Synchronised", make_poses(), clocks, SYNCED),
        ),
        rig=rig,
        offsets=offsets,
        shots=(Shot(rig.cameras[0], image, {"raw": 6.2, "synced": 6.0}, "frame 10"),),
        warnings=("cam03: 12 frames are missing",),
        provenance={"version": "0.1.0", "options": {"fps": 30.0}},
        recorded_s=dict.fromkeys(rig.names, (0.0, 3.0)),
    )


@pytest.fixture
def tables(comparison, make_poses) -> Comparison:
    """The same without poses and plots, which take their time."""
    variants = tuple(replace(v, poses=make_poses(n_people=0)) for v in comparison.variants)
    return replace(comparison, variants=variants, shots=(), recorded_s={})


class _Page(HTMLParser):
    """What a browser would make of the page: tags, attributes, texts; every tag closed."""

    VOID = frozenset({"meta", "link", "img", "input", "br", "path", "use"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags, self.texts, self.open, self.references = [], [], [], []
        self.feed(html)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.references += [value for name, value in attrs if name in {"src", "href", "srcset", "data", "action"}]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if not self.open or self.open[-1] not in {"script", "style"}:
            self.texts.append(data.strip())

    @property
    def text(self) -> str:
        return " ".join(filter(None, self.texts))


def rows_of(html: str, first_cell: str) -> list[str]:
    """The text of the cells of the table row that begins with a heading."""
    row = next(r for r in re.findall(r"<tr>.*?</tr>", html, re.DOTALL) if f'row">{first_cell}</th>' in r)
    return [re.sub(r"<[^>]*>", "", cell) for cell in re.findall(r"<td.*?</td>", row)]


def test_the_page_refers_to_nothing_outside_itself(comparison):
    html = render_report(comparison)
    page = _Page(html)
    assert all(ref.startswith(("data:", "#")) for ref in page.references)
    assert "http" not in re.sub(r'http-equiv="[^"]*"', "", html)
    assert "@import" not in html
    assert not re.search(r"url\((?!#)", html)
    assert "default-src 'none'" in html


def test_headline_says_what_it_bought_with_numbers(comparison):
    assert verdict(comparison) == (
        "Synchronising the cameras brought the mean reprojection error from 24 to 3.4 px "
        "and the spread of bone lengths from 41 to 9.1 mm."
    )
    assert verdict(comparison) in _Page(render_report(comparison)).text


@pytest.mark.parametrize(
    ("raw", "synced", "expected"),
    [
        ({"reprojection_px_mean": 3.0}, {"reprojection_px_mean": 9.0}, "made things worse"),
        ({"reprojection_px_mean": 3.0}, {"reprojection_px_mean": 3.1}, "changed little"),
        ({"reprojection_px_mean": float("nan")}, {"reprojection_px_mean": 3.1}, "Without synchronisation nothing"),
        ({}, {}, "cannot be compared"),
    ],
)
def test_headline_is_honest(tables, raw, synced, expected):
    before, after = tables.variants
    changed = replace(tables, variants=(replace(before, metrics=raw), replace(after, metrics=synced)))
    assert expected in verdict(changed)
    assert expected in _Page(render_report(changed)).text


def test_the_better_of_raw_and_synced_is_marked_whichever_it_is(tables):
    before, after = tables.variants
    metrics = {"joints_found": 0.9, "reprojection_px_mean": 5.0, "n_people": 2, "bone_spread_mm": 3.0, "odd": 1.5}
    changed = replace(
        tables,
        variants=(
            replace(before, metrics=metrics),
            replace(after, metrics={**metrics, "joints_found": 0.8, "reprojection_px_mean": 2.0, "n_people": 3}),
        ),
    )
    html = render_report(changed)
    best = {
        re.search(r'row">(.*?)</th>', row)[1]: [
            i for i, cell in enumerate(re.findall(r"<td.*?>", row)) if "best" in cell
        ]
        for row in re.findall(r"<tr>.*?</tr>", html, re.DOTALL)
        if 'row">' in row
    }
    assert best["Joints found"] == [0]
    assert best["Reprojection error, mean"] == [1]
    assert best["People"] == best["Bone length spread"] == best["odd"] == []
    assert rows_of(html, "Joints found") == ["90.0", "80.0", "%"]
    assert rows_of(html, "odd")[:2] == ["1.500", "1.500"]


def test_clocks_are_told_with_their_uncertainty(tables):
    html = render_report(tables)
    assert rows_of(html, "cam01")[:4] == ["0", "", "", "reference"]
    assert rows_of(html, "cam02")[:4] == ["−0.3172", "± 2.0", "+21.0", "good"]
    assert rows_of(html, "cam03") == ["+2.5000", "± 2.0", "not estimated", "doubtful", "little motion after 6 s"]
    text = _Page(html).text
    assert "up to 2.817 s apart" in text
    assert "1.5 ms RMS, 4.0 ms at most" in text
    assert "its cycle is off by 3.8 s" in text


def test_a_clock_without_sigma_says_so(tables):
    before, after = tables.variants
    clocks = replace(after.clocks, clocks={**after.clocks.clocks, "cam02": clock("cam02", 1.0, sigma_s=0.0)})
    html = render_report(replace(tables, variants=(before, replace(after, clocks=clocks))))
    assert rows_of(html, "cam02")[1] == "unknown"


def test_true_clocks_give_each_clock_its_error(tables):
    true = Clocks("cam01", {"cam01": identity_clock("cam01"), "cam02": clock("cam02", -0.3172 + 2.1e-5 * 1.5 - 0.004)})
    truth = replace(tables.variants[1], name="truth", label="True clocks", clocks=true)
    html = render_report(replace(tables, variants=(*tables.variants, truth)))
    assert rows_of(html, "cam02")[3] == "+4.0"
    assert rows_of(html, "cam03")[3] == ""


def test_cameras_without_a_clock_stand_at_the_top_with_the_reason(tables):
    before, after = tables.variants
    clocks = replace(
        after.clocks,
        clocks={n: after.clocks[n] for n in ("cam01", "cam02")},
        unsynchronised={"cam03": "nobody in its view moves"},
        components=(("cam01", "cam02"), ("cam03",)),
    )
    html = render_report(replace(tables, variants=(before, replace(after, clocks=clocks))))
    assert html.index("nobody in its view moves") < html.index("Measures")
    assert "2 of 3" in " ".join(_Page(html).text.split())
    assert rows_of(html, "cam03")[3:] == ["no clock", "nobody in its view moves"]


def test_names_from_the_user_are_text_and_never_markup(comparison, make_poses, make_rig):
    evil = ("</script><script>alert(1)</script>", "<b>$x_1$</b>", "a & 'b' \"c\"")
    rig = make_rig(evil)
    clocks = Clocks(evil[0], {evil[0]: identity_clock(evil[0])}, {evil[1]: "<i>why</i>", evil[2]: "x"})
    synced = replace(comparison.variants[1], label="<u>s</u>", clocks=clocks)
    edges = (edge(evil[0], evil[1], 0.0, 1.0, 0.1, "hint"),)
    html = render_report(
        replace(
            comparison,
            title="<h1>&",
            variants=(comparison.variants[0], synced),
            rig=rig,
            offsets=OffsetGraph(evil, edges),
            shots=(Shot(rig.cameras[0], None, {"synced": 6.0}, "<img src=x>"),),
            warnings=("<script>w</script>",),
            provenance={"<k>": "<v>"},
            recorded_s=dict.fromkeys(evil, (0.0, 3.0)),
        )
    )
    page = _Page(html)
    assert page.tags.count("script") == 2
    assert not {"b", "i", "u", "k", "v"} & set(page.tags)
    assert page.tags.count("h1") == 1
    for name in evil:
        assert name in page.text


def test_a_name_in_a_script_that_the_font_lacks_passes(comparison, make_rig):
    names = ("カメラ", "cam02", "cam03")
    clocks = unsynchronised_clocks(names)
    synced = replace(comparison.variants[1], clocks=clocks)
    changed = replace(
        comparison, rig=make_rig(names), variants=(comparison.variants[0], synced), shots=(),
        offsets=OffsetGraph(names, (edge("cam02", "カメラ", 0.0, 1.0, 0.1, "hint"),)),
        recorded_s={"カメラ": (0.0, 1.0)},
    )  # fmt: skip
    assert "カメラ" in _Page(render_report(changed)).text


@pytest.mark.parametrize("frames", [0, 31])
def test_a_report_of_nobody_is_still_a_report(comparison, make_poses, frames):
    empty = make_poses(n_people=0, n_frames=frames)
    variants = tuple(
        replace(v, poses=empty, metrics={"reprojection_px_mean": float("nan")}) for v in comparison.variants
    )
    html = render_report(replace(comparison, variants=variants, shots=()))
    page = _Page(html)
    assert "nobody" in page.text
    assert "canvas" not in page.tags
    assert rows_of(html, "Reprojection error, mean")[:2] == ["–", "–"]


def test_a_variant_without_people_leaves_the_other_to_be_seen(comparison, make_poses):
    before, after = comparison.variants
    html = render_report(replace(comparison, variants=(replace(before, poses=make_poses(n_people=0)), after)))
    assert _Page(html).tags.count("canvas") == 1


def test_without_offsets_shots_and_recordings(comparison):
    bare = Comparison("bare", comparison.variants, comparison.rig, None)
    page = _Page(render_report(bare))
    assert "img" not in page.tags
    assert "Which pairs" not in page.text


def test_only_raw_is_reported_as_such(tables):
    alone = replace(tables, variants=tables.variants[:1])
    assert "no synchronised reconstruction" in _Page(render_report(alone)).text


def test_playback_holds_the_poses_in_millimetres_on_the_ground(comparison):
    data = playback_data(comparison)
    synced = data["variants"][1]
    raw = np.frombuffer(base64.b64decode(synced["xyz"]), "<i2").reshape(data["frames"], 1, 17, 3)
    poses = comparison.variants[1].poses
    assert data["frames"] == 31
    assert data["start_s"] + (data["frames"] - 1) / data["rate"] == pytest.approx(poses.time_s[-1])
    np.testing.assert_allclose(np.diff(raw[:, 0, 0, 0]), np.diff(1000 * poses.xyz_m[:, 0, 0, 0]), atol=1.01)
    np.testing.assert_allclose(raw[..., 2] / 1000, poses.xyz_m[..., 2], atol=0.001)


def test_playback_marks_what_is_missing_and_far_away(comparison):
    poses = comparison.variants[1].poses
    poses.xyz_m[3, 0, 4] = np.nan
    poses.xyz_m[4, 0, 4] = 1e6
    data = playback_data(comparison)
    raw = np.frombuffer(base64.b64decode(data["variants"][1]["xyz"]), "<i2").reshape(31, 17, 3)
    assert sorted({(f, j) for f, j, _ in np.argwhere(raw == -32768)}) == [(3, 4), (4, 4)]


def test_playback_of_a_long_recording_is_short(comparison, make_poses):
    long = tuple(replace(v, poses=make_poses(n_frames=6000, rate=60.0)) for v in comparison.variants)
    data = playback_data(replace(comparison, variants=long))
    assert data["frames"] <= 300
    assert data["rate"] >= 20
    assert len(json.dumps(data)) < 250_000


@pytest.mark.parametrize(("t_raw", "differ"), [(6.5, True), (6.0, False)])
def test_pictures_show_each_variant_at_its_own_time(comparison, t_raw, differ):
    poses = comparison.variants[1].poses
    variants = tuple(replace(v, poses=poses) for v in comparison.variants)
    shot = replace(comparison.shots[0], t_session_s={"raw": t_raw, "synced": 6.0})
    html = render_report(replace(comparison, variants=variants, shots=(shot,), offsets=None, recorded_s={}))
    sources = re.findall(r'src="data:image/jpeg;base64,([^"]*)"', html)
    images = [cv2.imdecode(np.frombuffer(base64.b64decode(s), np.uint8), cv2.IMREAD_COLOR) for s in sources]
    assert len(images) == 2
    assert images[0].shape == images[1].shape
    assert (images[0] != images[1]).any() == differ
    assert f"{t_raw:.3f} s" in html


def test_skeletons_are_interpolated_between_frames(make_poses, make_rig):
    poses, camera = make_poses(speed_mps=2.0), make_rig().cameras[1]
    canvas = np.full((480, 640, 3), 255, dtype=np.uint8)
    drawn = draw_skeletons(canvas, camera, poses, 5.05)
    between = (poses.xyz_m[0, 0, 15] + poses.xyz_m[1, 0, 15]) / 2
    x, y = np.round(camera.project(between)).astype(int)
    assert drawn[y, x].sum() < 600
    assert (canvas == 255).all()


def test_residual_is_zero_for_an_estimate_that_agrees(comparison):
    clocks = comparison.variants[1].clocks
    t_a = 1.3
    t_b = float(clocks["cam02"].to_camera(clocks["cam01"].to_session(t_a)))
    agreeing = edge("cam01", "cam02", t_a, t_b - t_a, 0.01, "hint")
    assert offset_residual_s(agreeing, clocks) == pytest.approx(0, abs=1e-12)
    assert offset_residual_s(replace(agreeing, offset_s=agreeing.offset_s + 0.2), clocks) == pytest.approx(0.2)
    assert np.isnan(offset_residual_s(agreeing, Clocks("cam01", {"cam01": identity_clock("cam01")})))


def test_the_liveliest_window_holds_the_movement(make_poses):
    poses = make_poses(n_frames=600, speed_mps=0.0)
    poses.xyz_m[...] = poses.xyz_m[:1]
    poses.xyz_m[400:450, ..., 0] += np.linspace(0, 3, 50)[:, None, None]
    poses.xyz_m[450:, ..., 0] += 3
    low, high = liveliest_window(poses, 10.0)
    assert high - low == pytest.approx(10.0)
    assert low <= poses.time_s[400]
    assert poses.time_s[449] <= high


def test_the_same_report_is_the_same_file(tables):
    assert "<svg" in render_report(tables)
    assert render_report(tables) == render_report(tables)


def test_playback_turns_any_up_axis_upwards(comparison, make_rig):
    def y_up(poses):
        return replace(poses, xyz_m=poses.xyz_m[..., [1, 2, 0]], up="y")

    variants = tuple(replace(v, poses=y_up(v.poses)) for v in comparison.variants)
    data = playback_data(replace(comparison, variants=variants, rig=replace(comparison.rig, up="y")))
    xyz = np.frombuffer(base64.b64decode(data["variants"][1]["xyz"]), "<i2").reshape(31, 17, 3) / 1000
    np.testing.assert_allclose(xyz[..., 2], comparison.variants[1].poses.xyz_m[:, 0, :, 2], atol=0.001)


def test_pictures_are_cropped_to_the_people(comparison):
    poses = comparison.variants[1].poses
    poses.xyz_m[..., :2] *= 0.5
    poses.xyz_m[..., 2] = 1 + 0.5 * (poses.xyz_m[..., 2] - 1)  # half as tall, in the middle of the image
    synced = replace(comparison.variants[1], poses=poses)
    shot = replace(comparison.shots[0], t_session_s={"synced": 6.0})
    html = render_report(replace(comparison, variants=(synced,), shots=(shot,), offsets=None, recorded_s={}))
    source = re.search(r'src="data:image/jpeg;base64,([^"]*)"', html)[1]
    image = cv2.imdecode(np.frombuffer(base64.b64decode(source), np.uint8), cv2.IMREAD_COLOR).astype(int)
    rows = np.flatnonzero((np.abs(image - 90) > 40).any(axis=(1, 2)))
    assert 0.55 < (rows[-1] - rows[0]) / len(image) < 0.95


@pytest.mark.parametrize("size", [(16_384, 16_384), (16_384, 16), (1920, 1080)])
def test_shots_are_not_larger_than_they_are_shown(size):
    """A calibration that names images of 30,000² cost 7.9 GB."""
    K = np.array([[1.2 * size[0], 0, size[0] / 2], [0, 1.2 * size[0], size[1] / 2], [0, 0, 1]])
    camera = Camera("cam01", size, K, np.array([-0.1, 0.02, 0.001, 0.002]), np.eye(4))
    small = _drawable(camera)
    assert max(small.size_px) == min(4096, max(size))
    points = np.array([[0.1, 0.002, 4.0], [-0.5, 0.0, 4.0]])
    scale = max(small.size_px) / max(size)
    np.testing.assert_allclose(small.project(points), (camera.project(points) + 0.5) * scale - 0.5)
