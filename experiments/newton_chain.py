"""The swinging chain in Newton (extra `bench`): what its Featherstone solver returns for the same distance and its gradient.

Newton takes masses, inertias and joint frames; what they are of lengths, radii and densities is computed by our graph, so
that both gradients are of the same numbers: d distance / d p = sum over Newton's arrays a of (d distance / d a by its tape)
(d a / d p).
"""

import itertools
from typing import Any

import numpy as np
import torch
import warp as wp
from torch import Tensor

from dvc.errors import UserError
from dvc.trace import start_warp
from experiments.chain_motion import SwingingChain


@wp.kernel
def end_kernel(body: int, place: wp.array(dtype=wp.transform), tip: wp.array(dtype=wp.vec3), distance: wp.array(dtype=float)):
    distance[0] = wp.transform_point(place[body], tip[0])[0]


def newton_gradient(chain: SwingingChain, length: Tensor, radius: Tensor, density: Tensor) -> tuple[float, list[Tensor]]:
    """Distance [m] and its gradient to length, radius and density, each (1, link).

    Raises: UserError where Newton is not installed.
    """
    try:
        import newton
    except ImportError as error:
        raise UserError("newton: not installed; remedy: pip install 'diffvc[bench]'") from error
    start_warp()
    inputs = [t.detach().clone().requires_grad_() for t in (length, radius, density)]
    linkage = chain.linkage(*inputs)
    model = _model(newton, linkage, chain.links)
    model.joint_q.assign(chain.start()[0].numpy().astype(np.float32))
    solver = newton.solvers.SolverFeatherstone(model, angular_damping=0.0)
    steps = chain.rollout.frame_count * chain.rollout.substeps
    states = [model.state(requires_grad=True) for _ in range(steps + 1)]
    control = model.control()
    tip = wp.array([[float(length.detach()[0, -1]), 0.0, 0.0]], dtype=wp.vec3, requires_grad=True)
    distance = wp.zeros(1, dtype=float, requires_grad=True)
    with wp.Tape() as tape:
        newton.eval_fk(model, model.joint_q, model.joint_qd, states[0])
        for before, after in itertools.pairwise(states):
            before.clear_forces()
            solver.step(before, after, control, None, chain.step)  # type: ignore[arg-type]
        wp.launch(end_kernel, 1, [chain.links - 1, states[-1].body_q, tip], [distance])
    tape.backward(distance)

    def of(array: Any) -> Tensor:
        return torch.from_numpy(array.grad.numpy().copy()).float()

    pulled = (
        (linkage.mass[0] * of(model.body_mass)).sum()
        + (linkage.inertia[0] * of(model.body_inertia).reshape(-1, 3, 3)).sum()
        + (linkage.center_of_mass[0] * of(model.body_com)).sum()
        + (linkage.position[0] * of(model.joint_X_p)[:, :3]).sum()
        + inputs[0][0, -1] * of(tip)[0, 0]
    )
    return float(distance.numpy()[0]), list(torch.autograd.grad(pulled, inputs))


def _model(newton: Any, linkage: Any, links: int) -> Any:
    builder = newton.ModelBuilder(gravity=(0.0, 0.0, -9.81))
    joints = []
    for i in range(links):
        mass, com, inertia = (t[0, i].detach().numpy() for t in (linkage.mass, linkage.center_of_mass, linkage.inertia))
        body = builder.add_link(mass=float(mass), com=wp.vec3(*com.tolist()), inertia=wp.mat33(*inertia.flatten().tolist()))
        place = wp.transform(tuple(linkage.position[0, i].detach().tolist()), wp.quat_identity())
        joints.append(builder.add_joint_revolute(
            i - 1, body, parent_xform=place, axis=(0.0, 1.0, 0.0), limit_lower=-1e6, limit_upper=1e6, limit_ke=0.0,
            limit_kd=0.0, armature=0.0, target_ke=0.0, target_kd=0.0, friction=0.0,
        ))  # fmt: skip
    builder.add_articulation(joints)
    model = builder.finalize(device="cpu", requires_grad=True)
    for array in (model.joint_q, model.body_com, model.joint_X_p):
        array.requires_grad = True
    return model
