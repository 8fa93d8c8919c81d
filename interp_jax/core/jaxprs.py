"""What differs between versions of jax, in one place: closed jaxprs, scan counts, equations bound again."""

from contextlib import AbstractContextManager, ExitStack, nullcontext
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr


def closed(jaxpr: Any) -> Any:
    """A jaxpr with its constants: 0.10 has open and closed ones, 0.12 one class."""
    return jaxpr if isinstance(jaxpr, ClosedJaxpr) else ClosedJaxpr(jaxpr, ())


def subjaxprs(eqn: Any) -> list[Any]:
    """The closed jaxprs among the parameters of an equation."""
    found = []
    for value in eqn.params.values():
        for item in value if isinstance(value, (tuple, list)) else (value,):
            if isinstance(item, (ClosedJaxpr, Jaxpr)):
                found.append(closed(item))
    return found


def expansion(eqn: Any) -> Any:
    """What an equation stands for in other primitives, a closed jaxpr of its operands, where it says so (`hijax`, from
    jax 0.12 on: `jnp.ldexp`, `jnp.searchsorted`); else None."""
    primitive = next((p for p in eqn.params.values() if hasattr(p, "expand") and hasattr(p, "in_tree")), None)
    if primitive is None:
        return None
    operands = [jax.ShapeDtypeStruct(var.aval.shape, var.aval.dtype) for var in eqn.invars]
    return jax.make_jaxpr(lambda *flat: primitive.expand(*jax.tree.unflatten(primitive.in_tree, flat)))(*operands)


def calls_back(jaxpr: Any) -> bool:
    """Whether a program calls Python while it runs."""
    return any(
        "callback" in eqn.primitive.name or any(map(calls_back, subjaxprs(eqn))) for eqn in closed(jaxpr).jaxpr.eqns
    )


def scan_counts(eqn: Any) -> tuple[int, int]:
    """The numbers of constants and of carries of a scan equation."""
    params = eqn.params
    if "num_consts" in params:
        return params["num_consts"], params["num_carry"]
    consts, carry, _ = params["ft_in"].unpack()
    return len(list(consts)), len(list(carry))


def rebind(eqn: Any, args: list[Any]) -> list[Any]:
    """Evaluates an equation as it stands on new operands."""
    bound = eqn.primitive.get_bind_params(eqn.params)
    functions, params = bound if isinstance(bound, tuple) else ((), bound)
    out = eqn.primitive.bind(*functions, *args, **params)
    return list(out) if eqn.primitive.multiple_results else [out]


def context(eqn: Any) -> AbstractContextManager[Any]:
    """What an equation was traced under: its mesh and settings, and the user's named scopes."""
    scopes = [part.name for part in eqn.source_info.name_stack.stack if not _is_transform(part)]
    if not scopes:
        return eqn.ctx.manager
    stack = ExitStack()
    stack.enter_context(eqn.ctx.manager)
    for scope in scopes:
        stack.enter_context(jax.named_scope(scope))
    return stack


def is_differentiated(eqn: Any) -> bool:
    """Whether an equation was traced by jvp, grad or vjp, as far as its name stack tells."""
    return any(_is_transform(part) and part.name == "jvp" for part in eqn.source_info.name_stack.stack)


def _is_transform(part: Any) -> bool:
    return type(part).__name__ == "Transform"


def varying_axes(aval: Any) -> frozenset[str]:
    """The manual mesh axes of an enclosing shard_map over which a value varies."""
    kind = getattr(aval, "manual_axis_type", None)
    return frozenset() if kind is None else frozenset(kind.varying)


def varying(x: Any, axes: frozenset[str]) -> Any:
    """`x` marked as varying over every one of `axes`."""
    missing = tuple(sorted(axes - varying_axes(jax.typeof(x))))
    return jax.lax.pcast(x, missing, to="varying") if missing else x


def is_shard(x: Any) -> bool:
    """Whether a value is one shard of a shard_map."""
    return jax.sharding.AxisType.Manual in jax.typeof(x).sharding.mesh.axis_types


def conform(x: Any, like: Any) -> Any:
    """`x` as sharded as `like` on a mesh of explicit axes, and as varying in a shard_map: so it can stand for it."""
    aval, wanted = jax.typeof(x), jax.typeof(like)
    if aval.sharding.spec != wanted.sharding.spec:
        x = jax.sharding.reshard(x, wanted.sharding)
    return varying(x, varying_axes(wanted))


def mesh_of(aval: Any) -> AbstractContextManager[Any]:
    """The mesh of a value, which auto_axes and explicit_axes change, as the context of what is computed with it."""
    mesh = aval.sharding.mesh
    return nullcontext() if mesh == jax.sharding.get_abstract_mesh() else jax.sharding.use_abstract_mesh(mesh)


def zeros(like: Any) -> jax.Array:
    """Zeros of an abstract value, that can stand for it anywhere."""
    explicit = jax.sharding.AxisType.Explicit in like.sharding.mesh.axis_types
    with mesh_of(like):
        x = jax.lax.full(like.shape, 0, like.dtype, sharding=like.sharding if explicit else None)
        return varying(x, varying_axes(like))


def out_avals(fn: Any, *args: Any) -> Any:
    """The abstract values of `fn(*args)`, with their meshes, which `jax.eval_shape` leaves out."""
    jaxpr, shapes = jax.make_jaxpr(fn, return_shape=True)(*args)
    return jax.tree.unflatten(jax.tree.structure(shapes), jaxpr.out_avals)
