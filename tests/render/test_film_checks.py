"""render/film_checks.py: films that are none or too large, said before memory is asked for."""

import pytest
import torch

from dvc.errors import UserError
from dvc.records import Film
from render import film_checks
from render.film_checks import check_film, check_memory, free_memory
from render.path_render import PathRender
from render.scene import Ball, Material, Scene
from tests.render.ray_scenes import film, from_above

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"rows": 4.5}, "Film.rows: expected a whole number of at least 1, got 4.5"),
        ({"columns": "4"}, "Film.columns: expected a whole number"),
        ({"rows": -1}, "Film.rows: expected a positive number, got -1"),
        ({"scale": torch.tensor(1.0, requires_grad=True)}, "Film.scale: expected a number without gradient"),
        ({"width": None}, "Film.width: expected a positive number of at most 1e.09, got None"),
        ({"top": float("nan")}, "Film.top: expected a finite number from -1e.09 to 1e.09, got nan"),
    ],
)
def test_films_that_are_none(change: dict, words: str) -> None:
    with pytest.raises(UserError, match=words):
        check_film(film(4)._replace(**change))
    with pytest.raises(UserError, match="film: expected Film, got"):
        check_film((4, 4))


def test_a_film_beyond_memory() -> None:
    free = free_memory(CPU)
    assert free is not None and free > 1e8
    check_memory(512, 512, 100, CPU)
    side = int((2 * free / 24) ** 0.5)
    with pytest.raises(UserError, match=r"free memory, got \d+ x \d+ pixels in 2 views, which take"):
        check_memory(min(side, 30_000), min(side, 30_000), 2, CPU) if side < 30_000 else check_memory(*(30_000,) * 2, 2, CPU)
    with pytest.raises(UserError, match="at most 2147483647 pixels"):
        check_memory(100_000, 100_000, 1, CPU)


def test_it_is_said_before_anything_is_allocated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(film_checks, "free_memory", lambda device: 10**9)
    scene = Scene([Ball((0, 0, 0), 0.5, "m")], {"m": Material()}, environment=1.0)
    large = Film(8000, 8000, 0.0, 0.0, 8000, 8000, 1.0)
    with pytest.raises(UserError, match=r"1.0 GB of free memory, got 8000 x 8000 pixels, which take 1.5 GB; remedy") as caught:
        PathRender(samples=1)(scene, from_above(4), large)
    assert "\n" not in str(caught.value)
