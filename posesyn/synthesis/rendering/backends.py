"""Names of renderers. Other packages add theirs by :func:`register_backend` or by an entry point."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Any

from posesyn.errors import InputError
from posesyn.protocols import RenderBackend

ENTRY_POINT_GROUP = "posesyn.render_backends"

_FACTORIES: dict[str, Callable[..., RenderBackend]] = {}


def register_backend(name: str, factory: Callable[..., RenderBackend]) -> None:
    """Makes ``AnimationRenderer(name, ...)`` call ``factory`` with the renderer's settings as keyword arguments.

    Args:
        name: Short name; a taken one is refused.
        factory: Takes ``image_size, body, backgrounds, style`` and options of its own, returns an object with
            ``render(motion, appearance, *, seed) -> Clip``.

    Raises:
        InputError: The name is taken by another factory.
    """
    if _FACTORIES.get(name, factory) is not factory:
        raise InputError("a render backend of this name exists", where=name, fix="choose another name")
    _FACTORIES[name] = factory


def make_backend(name: str, **settings: Any) -> RenderBackend:
    """Builds the backend of a name, looking into the entry points ``posesyn.render_backends`` last.

    Raises:
        InputError: Unknown name; the message lists the known ones.
    """
    if name in _FACTORIES:
        return _FACTORIES[name](**settings)
    found = {point.name: point for point in entry_points(group=ENTRY_POINT_GROUP)}
    if name in found:
        return found[name].load()(**settings)
    known = sorted({*_FACTORIES, *found})
    raise InputError(
        "unknown render backend",
        where=repr(name),
        expected=" or ".join(known),
        fix="register it with posesyn.synthesis.rendering.backends.register_backend",
    )


def _mesh(**settings: Any) -> RenderBackend:
    from posesyn.synthesis.rendering.mesh_backend import MeshBackend  # loads torch

    return MeshBackend(**settings)


register_backend("mesh", _mesh)
