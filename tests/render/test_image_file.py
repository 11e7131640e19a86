"""render/image_file.py and render/procedural_texture.py: what is written is read back; bad files are refused."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from dvc.errors import UserError
from render.image_file import read_image, write_exr, write_png
from render.procedural_texture import checker, noise
from render.response import srgb_curve


def picture() -> torch.Tensor:
    return torch.rand(5, 7, 3, generator=torch.Generator().manual_seed(0))


def test_exr_is_bit_for_bit(tmp_path: Path) -> None:
    import OpenEXR

    image = picture() * 1e4 - 3.0
    layers = {"depth": picture()[..., 0], "motion": picture()[..., :2], "normal": picture()}
    write_exr(tmp_path / "a.exr", image, layers)
    assert torch.equal(read_image(tmp_path / "a.exr"), image)
    with OpenEXR.File(str(tmp_path / "a.exr"), separate_channels=True) as file:
        channels = {name: channel.pixels for name, channel in file.channels().items()}
    assert set(channels) == {"R", "G", "B", "depth.V", "motion.U", "motion.V", "normal.X", "normal.Y", "normal.Z"}
    assert np.array_equal(channels["motion.V"], layers["motion"][..., 1].numpy())
    assert [p.name for p in tmp_path.iterdir()] == ["a.exr"]


def test_png_goes_through_the_srgb_curve_and_back(tmp_path: Path) -> None:
    image = picture()
    write_png(tmp_path / "a.png", image)
    stored = cv2.imread(str(tmp_path / "a.png"))[..., ::-1]
    assert np.abs(stored - 255.0 * srgb_curve(image).numpy()).max() <= 0.51
    assert float((srgb_curve(read_image(tmp_path / "a.png")) - srgb_curve(image)).abs().max()) <= 0.51 / 255.0
    brighter = write_png(tmp_path / "b.png", image * 0.25, stops=2.0)
    assert brighter.read_bytes() == (tmp_path / "a.png").read_bytes()
    write_png(tmp_path / "c.png", image[..., :1], linear=True)
    assert read_image(tmp_path / "c.png", linear=True).shape == (5, 7, 1)
    assert float((read_image(tmp_path / "c.png", linear=True) - image[..., :1]).abs().max()) <= 0.51 / 255.0


def test_sixteen_bits_and_alpha(tmp_path: Path) -> None:
    stored = np.random.default_rng(0).integers(0, 65536, (4, 3, 4)).astype(np.uint16)
    cv2.imwrite(str(tmp_path / "a.png"), stored)
    found = read_image(tmp_path / "a.png", linear=True)
    assert np.allclose(found.numpy(), stored[..., 2::-1] / 65535.0, atol=1e-6)


def test_bad_files_and_values(tmp_path: Path) -> None:
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "text.exr").write_text("no image")
    for name in ("empty.png", "text.png", "text.exr", "none.png", "a.tga"):
        with pytest.raises(UserError) as error:
            read_image(tmp_path / name)
        assert "\n" not in str(error.value) and name in str(error.value)
    for write in (write_png, write_exr):
        with pytest.raises(UserError, match="finite"):
            write(tmp_path / "x.png", picture() / 0.0)
        with pytest.raises(UserError, match="cannot write"):
            write(tmp_path / "no" / "x.png", picture())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["empty.png", "text.exr", "text.png"]


def test_checks_and_noise() -> None:
    one, two = torch.tensor([1.0, 0.0, 0.0]), torch.tensor([0.0, 0.0, 1.0])
    checks = checker(2, 3, one, two, texels=4)
    assert checks.shape == (1, 12, 8, 3)
    assert torch.equal(checks[0, -1, 0], one) and torch.equal(checks[0, -1, 4], two) and torch.equal(checks[0, 7, 0], two)
    assert float(checks[..., 0].mean()) == 0.5
    field = noise(4, torch.zeros(3), torch.ones(3), octaves=3, resolution=64, seed=1)
    assert field.shape == (1, 64, 64, 3) and 0.0 <= float(field.min()) < 0.35 and 0.65 < float(field.max()) <= 1.0
    assert torch.equal(field, noise(4, torch.zeros(3), torch.ones(3), octaves=3, resolution=64, seed=1))
    steps = (field[0, :, 1:] - field[0, :, :-1]).abs().max()
    assert float((field[0, :, 0] - field[0, :, -1]).abs().max()) <= 1.5 * float(steps)  # no seam


def test_what_is_no_image_is_refused(tmp_path: Path) -> None:
    for write, name in ((write_png, "a.png"), (write_exr, "a.exr")):
        for image in (picture()[None], picture()[..., 0], torch.zeros(2, 2, 5), torch.zeros(0, 2, 3), picture().numpy()):
            with pytest.raises(UserError, match=r"expected an image \(row, column, channel\) .*; remedy: image\[0\]"):
                write(tmp_path / name, image)
    with pytest.raises(UserError, match=r"checker.rows: expected a whole number of at least 1, got 1.5"):
        checker(2, 1.5, (0.0, 0.0, 0.0), 1.0)
    with pytest.raises(UserError, match=r"noise.second: expected numbers of at least 0, got -1"):
        noise(2, 0.0, (-1.0, 0.0, 0.0))
    assert torch.equal(checker(2, 2, (0, 0, 0), 1), checker(2, 2, torch.zeros(3), torch.ones(3)))
