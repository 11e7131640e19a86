"""`diffvc render`: what is written, and every wrong setting in one line."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from dvc.cli import main
from render.image_file import read_image
from render.response import srgb_curve


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()
    yield tmp_path
    torch.set_num_threads(threads)


def test_pictures_of_a_scene_of_the_package(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    aov = "depth,normal,mask,instance,motion,position,albedo"
    assert (
        main(["render", "cornell_box", "out=box.png,box.exr,box.npz", "width=48", "samples=70", "depth=3", f"aov={aov}"]) == 0
    )
    output = capfd.readouterr().out
    assert "48 x 48 px, 70 samples, depth 3" in output and "image: box.exr" in output and "instance: 0 floor" in output
    linear = read_image("box.exr")
    arrays = np.load("box.npz")
    assert linear.shape == (48, 48, 3) and np.array_equal(arrays["image"], linear.numpy())
    assert set(arrays) == {"image", *aov.split(",")}
    shown = 255.0 * srgb_curve(linear * 2.0**0.7).clamp(0.0, 1.0).numpy()
    assert np.abs(cv2.imread("box.png")[..., ::-1] - shown).max() <= 0.51
    assert {p.name for p in folder.glob("*.png")} == {"box.png", *(f"box_{name}.png" for name in aov.split(","))}
    red, green = linear[20:40, 2:6].mean((0, 1)), linear[20:40, -6:-2].mean((0, 1))  # the walls to the left and right
    assert red[0] > 2.0 * red[1] and green[1] > green[0]
    assert arrays["instance"][24, 3] == 3 and arrays["instance"][24, 44] == 4 and arrays["instance"].dtype == np.int32
    assert 5.8 < arrays["depth"][10, 24] < 5.95  # the back wall


def test_the_same_seed_gives_the_same_picture(folder: Path) -> None:
    pictures = []
    for seed in (0, 0, 1):
        assert main(["render", "cornell_box", "out=a.exr", "width=16", "samples=2", "depth=2", f"seed={seed}"]) == 0
        pictures.append(read_image("a.exr"))
    assert torch.equal(pictures[0], pictures[1]) and not torch.equal(pictures[0], pictures[2])


def test_a_black_picture_says_so(folder: Path) -> None:
    Path("dark.yaml").write_text(
        "camera: {position: [0, -3, 0], target: [0, 0, 0], fov: 40}\nfilm: {width: 8, height: 8}\n"
        "materials: {clay: {}}\nbodies: [{sphere: 1.0, material: clay}]\n"
    )
    with pytest.warns(UserWarning, match="black"):
        assert main(["render", "dark.yaml", "samples=1"]) == 0
    assert Path("dark.png").exists()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["none.yaml"], "scene 'none.yaml': no such file"),
        (["cornel_box"], "did you mean 'cornell_box'?"),
        (["cornell_box", "sampels=4"], "no setting 'sampels'; did you mean 'samples'?"),
        (["cornell_box", "samples=many"], "render.samples: expected a whole number or null, got 'many'"),
        (["cornell_box", "samples=0"], "samples: expected a whole number of at least 1, got 0"),
        (["cornell_box", "seed=-1"], "seed: expected a whole number"),
        (["cornell_box", "out=a.jpg"], "out: expected a file ending with .png, .exr, .npz, got 'a.jpg'"),
        (["cornell_box", "out=no/a.png"], "out: no folder 'no'"),
        (["cornell_box", "aov=depht"], "aov: no image 'depht'; did you mean 'depth'?"),
        (["cornell_box", "width=10", "height=20"], "expected the film's proportions"),
        (["cornell_box", "device=tpu"], "device: expected auto, cpu, cuda or cuda:N"),
        (["cornell_box", "threads=0"], "threads: expected a whole number of at least 1"),
        (["cornell_box", "samples=[1"], "samples: expected a value"),
        (["cornell_box", "other.yaml"], "expected one scene"),
        ([], "SCENE"),
    ],
)
def test_wrong_settings_are_one_line(
    folder: Path, capfd: pytest.CaptureFixture[str], arguments: list[str], expected: str
) -> None:
    assert main(["render", *arguments]) == 2
    errors = capfd.readouterr().err
    assert errors.startswith("diffvc: error: ") and errors.count("\n") == 1 and expected in errors, errors
    assert not list(folder.iterdir())


def test_help(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["render", "--help"]) == 0
    assert "cornell_box" in capfd.readouterr().out
