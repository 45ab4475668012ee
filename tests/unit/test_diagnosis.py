"""Each check turns red when the thing it is about is broken, says what to do, and takes no other check down."""

import shutil
import sys
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from vjepa2cli import diagnosis
from vjepa2cli.data import video
from vjepa2cli.diagnosis import devices, pictures, storage
from vjepa2cli.diagnosis.check import Check, run_contained
from vjepa2cli.diagnosis.libraries import check_libraries, requirement, satisfies
from vjepa2cli.diagnosis.samples import CODECS, sample
from vjepa2cli.errors import VideoError

Broken = Callable[[str, str], None]


@pytest.fixture
def broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Broken:
    """Put a module of that name and source before the real one, for other processes."""

    def put(name: str, source: str) -> None:
        (tmp_path / f"{name}.py").write_text(source, encoding="utf-8")
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    return put


def test_a_healthy_library_tells_its_version() -> None:
    (check,) = check_libraries(["h5py"])
    assert check == Check("h5py", True, __import__("h5py").__version__)


def test_opencv_without_its_system_libraries_names_the_debian_packages(broken: Broken) -> None:
    broken("cv2", "raise ImportError('libGL.so.1: cannot open shared object file: No such file or directory')")
    (check,) = check_libraries(["cv2"])
    assert check.ok is False
    assert "libGL.so.1" in check.detail
    assert "libgl1 libglib2.0-0 libxcb1" in check.remedy


def test_a_library_that_crashes_takes_only_its_own_line_down(broken: Broken) -> None:
    broken("zarr", "import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)")
    before, crashed, after = check_libraries(["h5py", "zarr", "av"])
    assert (before.ok, after.ok) == (True, True)
    assert crashed.ok is False
    assert "SIGSEGV" in crashed.detail
    assert "pip install 'zarr" in crashed.remedy


def test_a_library_that_ends_the_process_is_told(broken: Broken) -> None:
    broken("av", "import os\nos._exit(3)")
    (check,) = check_libraries(["av"])
    assert check.ok is False
    assert "exit code 3" in check.detail


def test_a_library_of_the_wrong_version_is_red(broken: Broken, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vjepa2cli.diagnosis.libraries.metadata.requires", lambda name: ["h5py>=3.12"])
    broken("h5py", "__version__ = '3.1.0'")
    (check,) = check_libraries(["h5py"])
    assert check.ok is False
    assert check.detail == "3.1.0, but we need h5py>=3.12"


@pytest.mark.parametrize(("name", "ok"), [("snakemake", False), ("mujoco", None)])
def test_an_absent_library_is_red_only_where_every_step_needs_it(broken: Broken, name: str, ok: bool | None) -> None:
    broken(name, f"raise ModuleNotFoundError(\"No module named '{name}'\", name='{name}')")
    (check,) = check_libraries([name])
    assert check.ok is ok
    assert check.detail == "is not installed"
    assert "pip install" in check.remedy


@pytest.mark.parametrize(
    ("version", "wanted", "fits"),
    [
        ("2.13.0+cpu", "torch<2.14,>=2.8", True),
        ("2.14.0", "torch<2.14,>=2.8", False),
        ("2.7.1", "torch<2.14,>=2.8", False),
        ("2.8", "torch>=2.8.0", True),
        ("18.1.0", "av>=14", True),
        ("3.1.6", "zarr", True),
        ("4.10.0.84", "opencv-python>=4.10", True),
        ("3.9.0rc1", "matplotlib>=3.9", True),
    ],
)
def test_a_version_is_held_against_both_bounds(version: str, wanted: str, fits: bool) -> None:
    assert satisfies(version, wanted) is fits


def test_a_requirement_is_found_by_its_whole_name(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = ["torchvision>=0.1", "torch<2.14,>=2.8", 'mujoco>=3.3; extra == "sim"']
    monkeypatch.setattr("vjepa2cli.diagnosis.libraries.metadata.requires", lambda name: lines)
    assert [requirement(name) for name in ("torch", "mujoco", "zarr")] == ["torch<2.14,>=2.8", "mujoco>=3.3", "zarr"]


def test_every_codec_decodes_and_an_mp4_is_written() -> None:
    checks = pictures.check_codecs()
    assert [check.name for check in checks] == [*(f"video: {codec}" for codec in CODECS), "video: writing mp4"]
    assert [check for check in checks if not check.ok] == []


def test_a_codec_that_does_not_decode_is_red_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    damaged = {"hevc": sample("hevc")[:200]}
    monkeypatch.setattr(pictures, "sample", lambda codec: damaged.get(codec, sample(codec)))
    checks = {check.name: check for check in pictures.check_codecs(["h264", "hevc"])}
    assert [checks[name].ok for name in ("video: h264", "video: hevc", "video: writing mp4")] == [True, False, True]
    assert "VideoError" in checks["video: hevc"].detail
    assert "--only-binary av av" in checks["video: hevc"].remedy


def test_a_codec_that_gives_other_colours_is_red(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "LEFT", (40, 220, 40))
    (check, _) = pictures.check_codecs(["av1"])
    assert check.ok is False
    assert "colours within" in check.detail


def test_an_encoder_that_fails_is_red(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise VideoError("written.mp4: cannot encode H.264: Encoder not found")

    monkeypatch.setattr(video, "write_video", refuse)
    assert [check.ok for check in pictures.check_codecs(["vp9"])] == [True, False]


def test_a_decoder_that_does_not_import_is_one_red_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vjepa2cli.data.video", None)
    (check,) = pictures.check_codecs()
    assert check.ok is False
    assert "libgl1" in check.remedy


def test_a_gl_that_is_not_there_names_the_debian_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mujoco")
    monkeypatch.setenv("MUJOCO_GL", "nonsense")
    check = pictures.check_simulator()
    assert check.ok is False
    assert "nonsense" in check.detail
    assert all(word in check.remedy for word in ("libegl1", "libosmesa6", "MUJOCO_GL"))


def test_a_gl_that_crashes_is_contained(broken: Broken, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUJOCO_GL", "egl")
    broken("mujoco", "import os, signal\nos.kill(os.getpid(), signal.SIGABRT)")
    check = pictures.check_simulator()
    assert check.ok is False
    assert "SIGABRT" in check.detail
    assert "libegl1" in check.remedy


def test_no_mujoco_is_not_red_but_names_the_extra(broken: Broken, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUJOCO_GL", "egl")
    broken("mujoco", "raise ModuleNotFoundError(\"No module named 'mujoco'\", name='mujoco')")
    check = pictures.check_simulator()
    assert check.ok is None
    assert "vjepa2cli[sim]" in check.remedy


def test_a_graphics_card_that_torch_cannot_use_is_red(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("torch uses the graphics card of this machine")
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\n", encoding="utf-8")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert devices.check_cuda().ok is False
    assert devices.check_cuda().remedy
    monkeypatch.setenv("PATH", "")
    assert devices.check_cuda().ok is None


@pytest.mark.parametrize(("speeds", "ok"), [((9.0, 5.0), True), ((5.0, 9.0), None)])
def test_bf16_is_held_against_fp32(monkeypatch: pytest.MonkeyPatch, speeds: tuple[float, float], ok: bool | None) -> None:
    left = list(speeds)
    monkeypatch.setattr(devices, "_speed", lambda multiply, wait: left.pop(0))
    check = devices.check_bf16("cpu")
    assert check.ok is ok
    assert bool(check.remedy) is (ok is None)


def test_wrong_bf16_products_are_red(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "_WORST_ERROR", 0.0)
    check = devices.check_bf16("cpu")
    assert check.ok is False
    assert "precision=fp32" in check.remedy


def test_a_full_disk_is_red_and_says_how_much_to_free(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    usage = namedtuple("usage", "total used free")
    for free, ok in ((2**30, False), (8 * 2**30, None), (90 * 2**30, True)):
        monkeypatch.setattr(shutil, "disk_usage", lambda path, free=free: usage(2**40, 0, free))
        assert storage.check_disk("disk", tmp_path / "not" / "yet").ok is ok
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(2**40, 0, 2**30))
    assert "3.0 GiB" in storage.check_disk("disk", tmp_path).remedy


def test_a_cache_that_cannot_be_written_is_red(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    monkeypatch.setenv("VJEPA2_HOME", str(tmp_path / "file" / "cache"))
    check = storage.check_cache()
    assert check.ok is False
    assert "VJEPA2_HOME" in check.remedy
    monkeypatch.setenv("VJEPA2_HOME", str(tmp_path / "cache"))
    assert storage.check_cache().ok is True
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_script_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vjepa2cli.diagnosis.check._TIMEOUT", 1)
    lines, ending = run_contained("import time\ntime.sleep(60)")
    assert lines == []
    assert "did not end" in ending


def test_what_a_library_prints_is_no_report() -> None:
    lines, ending = run_contained("print('noise')\nreport('name', 'ok\\tline\\n two')\nprint('more noise')")
    assert lines == [["name", "ok line two"]]
    assert "exit code 0" in ending


def test_diagnosis_covers_every_subject_and_each_red_line_has_a_remedy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(diagnosis, "check_libraries", lambda: check_libraries(["h5py"]))
    monkeypatch.setenv("VJEPA2_HOME", str(tmp_path / "cache"))
    checks = diagnosis.diagnose(tmp_path)
    names = [check.name for check in checks]
    subjects = (
        "python",
        "h5py",
        "cpu",
        "cuda",
        "bf16 on cpu",
        "video: av1",
        "simulator",
        "disk of results",
        "disk of the cache",
        "cache",
    )
    assert set(subjects) <= set(names)
    assert len(names) == len(set(names))
    assert [check for check in checks if check.ok is False and not check.remedy] == []
    assert [check for check in checks if "\n" in check.detail + check.remedy] == []
