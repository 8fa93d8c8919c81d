"""Where the parameters of a model go on a mesh: heads, neurons and vocabulary are split, all else is replicated."""

from typing import Any

from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

AXIS = "model"
# The axis of each parameter that is split (Shoeybi et al. 2019), counted from the left, without a layer axis.
_SPLIT = {
    **dict.fromkeys(("w_q", "w_k", "w_v", "w_in", "w_gate", "w_u"), 1),
    **dict.fromkeys(("w_o", "w_out", "w_e", "b_q", "b_k", "b_v", "b_in", "b_gate", "b_u"), 0),
}


def placed(mesh: Mesh, path: str, shape: tuple[int, ...], *, stacked: bool) -> NamedSharding:
    """The sharding of one parameter. An axis that the devices do not divide is replicated.

    Args:
      mesh: has an axis named "model"; others are for the data. Its axes are taken as Auto: the compiler divides the
        forward pass as the parameters are.
      path: such as `blocks.0.attn.w_q`.
      shape: of the whole parameter.
      stacked: the shape has a leading layer axis.

    Raises:
      ValueError: the mesh has no such axis.
    """
    if AXIS not in mesh.axis_names:
        raise ValueError(
            f"load: the mesh has axes {tuple(mesh.axis_names)}; weights are split over one named {AXIS!r}: "
            f"jax.make_mesh((n_devices,), ({AXIS!r},))"
        )
    auto = Mesh(mesh.devices, mesh.axis_names, axis_types=(AxisType.Auto,) * len(mesh.axis_names))
    names: list[Any] = [None] * len(shape)
    axis = _SPLIT.get(path.rsplit(".", 1)[-1])
    if axis is not None and shape[axis + stacked] % mesh.shape[AXIS] == 0:
        names[axis + stacked] = AXIS
    return NamedSharding(auto, PartitionSpec(*names))
