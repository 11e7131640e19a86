"""Silhouettes: their areas, sizes and symmetries."""

import math

import pytest

from dvc.errors import UserError
from experiments.silhouettes import SHAPES, silhouette


def test_a_disc_s_area():
    assert float(silhouette("disc", 64, 0.5).sum()) == pytest.approx(math.pi / 4.0 * 32.0**2, rel=0.01)


def test_a_star_s_area():
    """Of a pentagram of circumradius R: 5 R^2 tan(36 deg) cos^2(72 deg) ... by its ten triangles."""
    mask, height = silhouette("star", 64, 0.9), 0.9 * 64
    circumradius = height / (1.0 + math.cos(math.radians(36.0)))
    inner = circumradius * math.cos(math.radians(72.0)) / math.cos(math.radians(36.0))
    assert float(mask.sum()) == pytest.approx(5.0 * circumradius * inner * math.sin(math.radians(36.0)), rel=0.02)


@pytest.mark.parametrize("name", [*SHAPES, "L", "T"])
def test_size_and_place(name):
    mask = silhouette(name, 40, 0.6)
    rows = (mask.sum(1) > 0).nonzero()[:, 0]
    assert mask.shape == (40, 40) and float(mask.min()) >= 0.0 and float(mask.max()) == 1.0
    assert (int(rows.min()), int(rows.max())) == (8, 31)
    if name in ("disc", "heart", "star"):
        assert float((mask - mask.flip(1)).abs().max()) < 0.2


def test_other_names_are_refused():
    with pytest.raises(UserError, match="heart"):
        silhouette("cow", 32)
