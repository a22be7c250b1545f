"""The native format, units, the up axis, and every way to be wrong."""

import json

import numpy as np
import pytest

from mvpose.calib.files import read_rig, write_rig
from mvpose.calib.rig import CameraRig
from mvpose.errors import CalibrationError, WorkspaceError


def native(rig, **changes):
    cameras = [
        {"name": c.name, "size_px": list(c.size_px), "K": c.K.tolist(), "dist": c.dist.tolist(), "model": c.model,
         "R": c.R.tolist(), "t": c.t.tolist()}
        for c in rig
    ]  # fmt: skip
    return {"format": "mvpose.calib/1", "units": "m", "up": rig.up, "cameras": cameras} | changes


@pytest.fixture
def write(tmp_path):
    def write_text(document):
        path = tmp_path / "calib.json"
        path.write_text(document if isinstance(document, str) else json.dumps(document))
        return path

    return write_text


def test_native(rig, same, write):
    same(read_rig(write(native(rig))), rig, atol=0)


def test_native_round_trip_keeps_every_bit(camera_at, tmp_path):
    rig = CameraRig(
        (
            camera_at("a", (4.0, 0.5, 1.6), fps=29.97, rolling_shutter_s=0.011),
            camera_at("b", (-1, 3.0, 1.6), dist=(0.1, 0.2, 0.3, 0.4), model="fisheye"),
            camera_at("c", (-4, -3.0, 1.6), dist=np.linspace(-0.1, 0.1, 14), size_known=False),
        ),
        "-x",
    )
    write_rig(rig, tmp_path / "calib.json")
    read = read_rig(tmp_path / "calib.json")
    assert read.up == "-x"
    for a, b in zip(read, rig, strict=True):
        for field in ("K", "dist", "cam_from_world"):
            np.testing.assert_array_equal(getattr(a, field), getattr(b, field))
        for field in ("name", "size_px", "model", "fps", "rolling_shutter_s", "size_known"):
            assert getattr(a, field) == getattr(b, field)


@pytest.mark.parametrize(("units", "metres"), [("cm", 0.01), ("mm", 0.001)])
def test_native_units(rig, same, write, units, metres):
    document = native(rig, units=units)
    for camera in document["cameras"]:
        camera["t"] = [x / metres for x in camera["t"]]
    same(read_rig(write(document)), rig)


def test_millimetres_called_metres(rig, same, write):
    document = native(rig)
    for camera in document["cameras"]:
        camera["t"] = [x * 1000 for x in camera["t"]]
    with pytest.raises(
        CalibrationError, match=r"calib\.json: its cameras are \d+ m apart .* looks like mm.*--units mm"
    ):
        read_rig(write(document))
    same(read_rig(write(document), units="mm"), rig)


def test_metres_called_millimetres(rig, write):
    with pytest.raises(CalibrationError, match=r"looks like m: correct it or pass --units m$"):
        read_rig(write(native(rig, units="mm")))


def broken(document, change):
    document = json.loads(json.dumps(document))
    change(document)
    return document


def cam(**changes):
    return lambda document: document["cameras"][1].update(changes)


def without(key):
    return lambda document: document["cameras"][1].pop(key)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (cam(R=np.diag([1, 1, -1]).tolist()), "camera left: R is a reflection"),
        (cam(R=(2 * np.eye(3)).tolist()), "camera left: R is not a rotation"),
        (cam(R=[1e200] * 9), "camera left: R holds values that are not finite or beyond all measure"),
        (cam(R=[1, 2, 3]), "camera left: R has 3 numbers, expected 9"),
        (cam(t=[0, 0]), "camera left: t has 2 numbers, expected 3"),
        (cam(t="here"), "camera left: t does not hold numbers only"),
        (cam(t=[1, 2, None]), "camera left: t"),
        (cam(K=[[1, 0, 0], [0, 1, 0], [0, 0, 2]]), "camera left: K is not an intrinsic matrix"),
        (cam(dist=[0, 0]), "camera left: 2 distortion values"),
        (cam(dist=[]), "camera left: dist has 0 numbers"),
        (cam(model="omni"), "camera left: model 'omni' is not one of pinhole, fisheye"),
        (cam(model=["pinhole"]), "camera left: model"),
        (cam(size_px=[1920, 0]), "camera left: image size 1920 x 0"),
        (cam(size_px=[1920.5, 1080]), "camera left: image size 1920.5 x 1080"),
        (cam(size_px=[10**400, 1080]), "camera left: size_px holds values that are not finite"),
        (cam(size_px=[1, 1]), "camera left: image size 1 x 1 is not that of a video"),
        (cam(size_px=[30000, 30000]), "camera left: image size 30000 x 30000"),
        (cam(size_px=[1, 100000]), "camera left: image size 1 x 100000"),
        (cam(K=[[1400, 1e12, 960], [0, 1400, 540], [0, 0, 1]]), "its skew is 1e+12 px"),
        (cam(K=[[1400, 0, 960], [5, 1400, 540], [0, 0, 1]]), "camera left: K is not an intrinsic matrix"),
        (cam(K=[[1e9, 0, 960], [0, 1400, 540], [0, 0, 1]]), "camera left: fx 1e+09 px is no focal length"),
        (cam(K=[[1400, 0, -1e6], [0, 1400, 540], [0, 0, 1]]), "camera left: its principal point -1e+06, 540"),
        (cam(dist=[0, 0, 0, 0, -1e12]), "camera left: dist 0, 0, 0, 0, -1e+12 is not a lens"),
        (cam(dist=[0, 0, 1e6, 0, 0]), "camera left: dist 0, 0, 1e+06, 0, 0 is not a lens"),
        (cam(fps=-1), "camera left: fps -1 is no frame rate"),
        (cam(rolling_shutter_s=-0.01), "camera left: rolling_shutter_s -0.01"),
        (cam(t=[0, 0, 1e9]), "its cameras are 1e+09 m apart"),
        (lambda d: d.update(cameras=d["cameras"] * 1000), "holds 3000 cameras, more than 2000"),
        (cam(name="cam01"), "names cam01 more than once"),
        (cam(name=""), "cannot be a camera's name"),
        (without("name"), "a camera has no 'name'"),
        (without("K"), "camera left has no 'K'"),
        (without("size_px"), "camera left has no 'size_px'"),
        (without("model"), "camera left has no 'model'"),
        (lambda d: d.update(format="mvpose.calib/2"), "update mvpose"),
        (lambda d: d.update(format="mvpose.clocks/1"), "not mvpose.calib/1"),
        (lambda d: d.update(units="inch"), "units 'inch' is not one of m, cm, mm"),
        (lambda d: d.update(units={}), "units {} is not one of"),
        (lambda d: d.update(up="w"), "up 'w' is not one of"),
        (lambda d: d.pop("up"), "has no 'up'"),
        (lambda d: d.update(cameras=[]), "holds no camera"),
        (lambda d: d.update(cameras={}), "'cameras' is not a list"),
        (lambda d: d.update(cameras=["cam01"]), "a camera is not a table"),
    ],
)
def test_wrong_native_files(rig, write, change, message):
    path = write(broken(native(rig), change))
    with pytest.raises(CalibrationError) as caught:
        read_rig(path)
    assert message in str(caught.value)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("  \n ", "is empty"),
        ("{", "not valid JSON"),
        ("[]", "no calibration"),
        ("{}", "no calibration that mvpose knows"),
        ('{"a": 1, "a": 2}', "a stands more than once"),
        ('{"a": NaN}', "holds NaN"),
        ("[" * 100_000, "no calibration"),
        ('{"a":' * 100_000, "not valid JSON"),
        ("a = \n", "not valid TOML"),
        ("[pose]\nmodel = 3\n", "this TOML is no calibration"),
        ("%YAML:1.0\n---\na: [1", "not valid YAML (line 3)"),
        ("%YAML:1.0\n---\na: 1\n", "this YAML is no calibration"),
        ("K_1: 3\nK_1: 4\n", "K_1 stands more than once"),
        ("<calibration><cameras>", "not valid XML"),
        ("<a/>", "this XML is no calibration"),
        ("<calibration/>", "holds no camera"),
        ("<!DOCTYPE a [<!ENTITY b 'c'>]><calibration>&b;</calibration>", "XML entities"),
        ("hello there", "of no calibration format that mvpose knows"),
    ],
)
def test_files_of_no_known_format(write, text, message):
    with pytest.raises(CalibrationError, match=r"calib\.json: ") as caught:
        read_rig(write(text))
    assert message in str(caught.value)


@pytest.mark.parametrize("leaf", ["[1, 1, 1]", "[]"])
def test_aliases_that_multiply_are_no_trap(write, leaf):
    lines = ["%YAML:1.0", f"a0: &a0 {leaf}"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 30)]
    with pytest.raises(CalibrationError, match="camera_matrix"):
        read_rig(write("\n".join([*lines, "camera_matrix: *a29\n"])))


def test_files_that_are_not_there_or_not_text(tmp_path):
    with pytest.raises(CalibrationError, match="there is no such file"):
        read_rig(tmp_path / "nothing.json")
    with pytest.raises(CalibrationError, match="this folder holds no calibration"):
        read_rig(tmp_path)
    (tmp_path / "video.mp4").write_bytes(bytes(range(255, -1, -1)))
    with pytest.raises(CalibrationError, match="neither text nor a pickle"):
        read_rig(tmp_path / "video.mp4")
    with pytest.raises(CalibrationError, match="cannot be read"):
        read_rig(tmp_path / ("x" * 300))


def test_unknown_key_is_named_with_its_nearest(rig, write, caplog):
    read_rig(write(broken(native(rig), cam(rolling_shuter_s=0.01))))
    assert "camera left: unknown key 'rolling_shuter_s' is ignored (meant 'rolling_shutter_s'?)" in caplog.text


def pair(apart):
    """Two cameras side by side, as a file without units says."""
    text = ""
    for index in (0, 1):
        text += f"[cam_{index}]\nname = 'c{index}'\nsize = [1920, 1080]\nmatrix = [[1400.0, 0.0, 960.0], "
        text += "[0.0, 1400.0, 540.0], [0.0, 0.0, 1.0]]\ndistortions = [0.0, 0.0, 0.0, 0.0, 0.0]\n"
        text += f"rotation = [0.0, 0.0, 0.0]\ntranslation = [{-index * apart}, 0.0, 0.0]\n"
    return text


@pytest.mark.parametrize(
    ("apart", "unit"),
    [(0.5, "m"), (4.0, "m"), (25.0, "m"), (60.0, None), (200.0, "cm"), (600.0, "cm"), (1000.0, None), (1300.0, None),
     (3000.0, "mm"), (50_000.0, "mm"), (0.05, None), (1e6, None), (0.0, None)],
)  # fmt: skip
def test_unit_guessed_from_spacing(write, apart, unit):
    if unit is None:
        with pytest.raises(CalibrationError, match="pass --units m, cm or mm"):
            read_rig(write(pair(apart)))
        assert len(read_rig(write(pair(apart)), units="m")) == 2
    else:
        metres = {"m": 1, "cm": 0.01, "mm": 0.001}[unit]
        assert read_rig(write(pair(apart)))["c1"].center_m == pytest.approx([apart * metres, 0, 0])


def test_single_camera_without_unit_needs_one(write):
    one = pair(4.0).split("[cam_1]")[0]
    with pytest.raises(CalibrationError, match="single camera; pass --units"):
        read_rig(write(one))
    assert read_rig(write(one), units="m").names == ("c0",)


def test_output_of_unknown_kind_or_place(rig, tmp_path):
    with pytest.raises(CalibrationError, match="--to: mvpose, pose2sim"):
        write_rig(rig, tmp_path / "out.xyz")
    with pytest.raises(CalibrationError, match="'opensim' is not a format"):
        write_rig(rig, tmp_path / "out.json", "opensim")
    with pytest.raises(CalibrationError, match="give a folder"):
        write_rig(rig, tmp_path / "intri.yml", "easymocap")
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").write_text("")
    with pytest.raises(WorkspaceError, match="cannot be written"):
        write_rig(rig, tmp_path / "file" / "calib.json")


def test_a_failed_write_leaves_what_was_there(rig, tmp_path):
    (tmp_path / "calib.json").mkdir()
    with pytest.raises(WorkspaceError):
        write_rig(rig, tmp_path / "calib.json")
    assert [p.name for p in tmp_path.iterdir()] == ["calib.json"]


def test_suffix_chooses_the_format(rig, tmp_path):
    write_rig(rig, tmp_path / "a.json")
    write_rig(rig, tmp_path / "a.toml")
    assert "mvpose.calib/1" in (tmp_path / "a.json").read_text()
    assert "fisheye = false" in (tmp_path / "a.toml").read_text()


def test_declared_up_against_the_images(rig, write, caplog):
    assert read_rig(write(native(rig, up="y"))).up == "y"
    assert "says that y is up, but its cameras' images are upright along z" in caplog.text
