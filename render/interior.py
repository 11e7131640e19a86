r"""The loop of the gradient's interior part over pixels and samples: paths are traced, kept and pulled back."""

from typing import Any

import warp as wp

from render.film_rays import film_ray
from render.gradient_sink import Sink, collect, deposit
from render.intersector import Intersector
from render.path_trace import PathHistory, PathVertex, trace_path
from render.scene_data import MISSED, FilmPlan, Hit, SceneNumbers, SceneTables


def interior_kernel_of(pull: Any) -> Any:
    """A kernel for one way to pull a path's gradient back, `render.path_adjoint` or `render.material_adjoint`.

    One kernel for both would be slower: a function that a kernel calls in more than one place is not made part of it, and the
    scene's arrays are copied for each call.
    """

    @wp.kernel(enable_backward=False, module="unique")
    def interior_kernel(
        scene: SceneNumbers,
        tables: SceneTables,
        film: FilmPlan,
        tracer: Intersector,
        seed: wp.array(dtype=int),
        view: int,
        first: int,
        slots: int,
        adjoint: wp.array3d(dtype=wp.vec3),
        vertices: wp.array2d(dtype=PathVertex),
        sink: Sink,
        derivative: wp.array3d(dtype=wp.vec3),
    ):
        """Pixels first, first + 1, ... of one view: hands their gradient to the sink; forward mode writes their derivative."""
        pixel = wp.tid() + first
        row = pixel / film.width
        column = pixel - row * film.width
        world = view / film.views_per_world
        share = 1.0 / float(film.gradient_samples)
        at_pixel = wp.vec3(share, share, share)
        channels = int(3)
        if sink.forward == 0:
            channels = 1
            at_pixel = adjoint[view, row, column] * share
            if wp.dot(at_pixel, at_pixel) == 0.0:
                return
        state = wp.rand_init(seed[view] + 0x1B873593, view * film.width * film.height + pixel)
        shift = wp.vec3(wp.randf(state), wp.randf(state), wp.randf(state))
        slot = wp.tid() % slots
        sink.slot = slot
        history = PathHistory()
        history.vertices = vertices
        history.slot = slot
        total = wp.vec3(0.0, 0.0, 0.0)
        for k in range(film.gradient_samples):
            ray = film_ray(scene, film, view, row, column, shift, k)
            _value, count = trace_path(
                scene, tables, film, tracer, view, world, ray.moment, Hit(), 0, ray.o, ray.d, 1, 1, 0, wp.vec3(0.0, 0.0, 0.0),
                wp.rand_init(int(state), k), history,
            )  # fmt: skip
            seen_plate = count == 1 and vertices[slot, 0].hit.kind == MISSED and scene.plate.shape[1] > 0
            for c in range(channels):
                along = at_pixel
                if channels == 3:
                    along = wp.vec3(0.0, 0.0, 0.0)
                    along[c] = share
                if seen_plate:
                    deposit(sink, sink.numbers.plate, view, row, column, along)
                else:
                    pull(scene, tables, film, sink, view, world, ray, count, history, along)
                if channels == 3:
                    total[c] = total[c] + collect(sink)
        if sink.forward != 0:
            derivative[view, row, column] = total

    return interior_kernel
