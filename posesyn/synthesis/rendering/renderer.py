"""Motions in, labelled clips out: the third stage of posesyn."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from posesyn.errors import InputError
from posesyn.interfaces import BodyModel, RenderBackend
from posesyn.settings.stages import check_style
from posesyn.storage.seeds import seed_of
from posesyn.synthesis.rendering.appearance.appearance import Appearance
from posesyn.synthesis.rendering.likeness import likeness
from posesyn.types import Clip, Motion, Person, ScoredPerson

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
        fix="register it with posesyn.synthesis.rendering.renderer.register_backend",
    )


def _mesh(**settings: Any) -> RenderBackend:
    from posesyn.synthesis.rendering.mesh.backend import MeshBackend  # loads torch

    return MeshBackend(**settings)


register_backend("mesh", _mesh)


_KEPT_LOOKS = 64  # own choice: persons whose look (with their picture) is kept in memory


class AnimationRenderer:
    """Renders motions as clips with exact labels.

    Args:
        backend: ``"mesh"``, another registered name, or an object with ``render(motion, appearance, *, seed)``.
        image_size: (height, width) or one side, pixels.
        body: Body to draw; default the small free body, which looks the same as the full one up to 256 px.
        backgrounds: Folder with photographs, or ``"procedural"`` (default).
        style: ``"wild"`` (all appearances, scenes, lights and cameras) or ``"lab"`` (few and plain).
        options: Passed to the backend; the mesh backend takes ``camera`` ("auto", "fixed", "tracking"),
            ``supersample`` (1 or 2) and ``frames_per_pass``.

    Raises:
        InputError: Unknown backend or bad settings.
        FileError: A background folder that cannot be used.

    Example:
        >>> renderer = AnimationRenderer(image_size=64, style="lab")
        >>> standing = Motion("stand", np.zeros((2, 24, 3)), np.zeros((2, 3)), np.zeros(10), fps=20.0)
        >>> renderer.render([standing], seed=0, progress=False).to_list()[0].frames.shape
        (2, 64, 64, 3)
    """

    def __init__(
        self,
        backend: str | RenderBackend = "mesh",
        image_size: int | tuple[int, int] = (256, 256),
        body: BodyModel | None = None,
        backgrounds: str | Path | None = None,
        style: str = "wild",
        **options: Any,
    ) -> None:
        check_style(style)
        size = (image_size, image_size) if isinstance(image_size, int) else tuple(image_size)
        self.style = style
        if isinstance(backend, str):
            settings = {"image_size": size, "body": body, "backgrounds": backgrounds, "style": style}
            self.backend: RenderBackend = make_backend(backend, **settings, **options)
        elif hasattr(backend, "render"):
            self.backend = backend
        else:
            raise InputError("a render backend needs a method render(motion, appearance, *, seed)", got=type(backend))
        self._looks: OrderedDict[tuple[str, int], Appearance] = OrderedDict()

    def render(
        self,
        motions: Sequence[Motion],
        appearances: Sequence[ScoredPerson | Person | Appearance] | None = None,
        seed: int = 0,
        frame_stride: int = 1,
        progress: bool = True,
    ) -> ClipStream:
        """Renders lazily: each pass over the result draws the clips anew, one at a time.

        Args:
            motions: World frame; their ids must differ.
            appearances: Persons whose colours and surroundings the rendered persons take over, one drawn per motion;
                with None or an empty list all looks are random. What a person's image cannot tell (too small, hidden)
                is drawn at random and listed in ``clip.meta["appearance"]["notes"]``.
            seed: With the motion's id, decides everything random in its clip, whatever else is rendered.
            frame_stride: Takes every n-th frame; ``clip.fps`` is divided by it.
            progress: Shows a progress bar.

        Returns:
            An iterable of clips with a length; ``.to_list()`` holds them all in memory.

        Raises:
            InputError: Two motions with one id, or a stride below 1.
        """
        motions = list(motions)
        names = [motion.motion_id for motion in motions]
        if len(set(names)) < len(names):
            double = sorted({name for name in names if names.count(name) > 1})
            raise InputError(
                "motion ids must differ, since a clip's randomness comes from them", where="render()", got=double[:5]
            )
        if frame_stride < 1:
            raise InputError("frame_stride must be at least 1", where="render()", got=frame_stride)
        return ClipStream(self, motions, list(appearances or ()), int(seed), int(frame_stride), progress)

    def render_one(
        self,
        motion: Motion,
        appearances: Sequence[ScoredPerson | Person | Appearance] = (),
        seed: int = 0,
        frame_stride: int = 1,
    ) -> Clip:
        """One motion as a clip; the same bytes as within a longer :meth:`render`."""
        own_seed = seed_of(seed, motion.motion_id)
        look = self._look(appearances, own_seed, seed) if appearances else None
        motion = _strided(motion, frame_stride)
        clip = self.backend.render(motion, look, seed=own_seed)
        meta = {**clip.meta, "run_seed": seed, "frame_stride": frame_stride}
        if motion.anchor_frame is not None:
            meta["anchor_frame"] = motion.anchor_frame
        return replace(clip, clip_id=clip_id(motion.motion_id, seed), meta=meta)

    def _look(
        self, appearances: Sequence[ScoredPerson | Person | Appearance], own_seed: int, run_seed: int
    ) -> Appearance:
        chosen = appearances[int(np.random.default_rng((own_seed, 1)).integers(len(appearances)))]
        if isinstance(chosen, Appearance):
            return chosen
        person = chosen.person if isinstance(chosen, ScoredPerson) else chosen
        key = (person.person_id, run_seed)
        if key not in self._looks:
            # A person keeps one look throughout a run, also in what its picture does not tell.
            rng = np.random.default_rng((seed_of(run_seed, person.person_id), 2))
            self._looks[key] = likeness(chosen, rng, self.style, getattr(self.backend, "body", None))
            if len(self._looks) > _KEPT_LOOKS:
                self._looks.popitem(last=False)
        return self._looks[key]


class ClipStream:
    """Clips that are rendered when they are asked for; can be passed over several times."""

    def __init__(
        self,
        renderer: AnimationRenderer,
        motions: list[Motion],
        appearances: list[ScoredPerson | Person | Appearance],
        seed: int,
        frame_stride: int,
        progress: bool,
    ) -> None:
        self._renderer, self._motions, self._appearances = renderer, motions, appearances
        self._seed, self._stride, self._progress = seed, frame_stride, progress

    def __len__(self) -> int:
        return len(self._motions)

    def __getitem__(self, index: int) -> Clip:
        return self._renderer.render_one(self._motions[index], self._appearances, self._seed, self._stride)

    def __iter__(self) -> Iterator[Clip]:
        for index in tqdm(range(len(self)), desc="rendering", unit="clip", disable=not self._progress):
            yield self[index]

    def to_list(self) -> list[Clip]:
        """All clips at once. A clip of 100 frames at 256 px takes about 40 MB."""
        return list(self)


def clip_id(motion_id: str, seed: int) -> str:
    """Name of the clip that :meth:`AnimationRenderer.render` makes of a motion, known before it is rendered."""
    return f"{motion_id}/s{seed}"


def _strided(motion: Motion, stride: int) -> Motion:
    if stride == 1:
        return motion
    anchor = motion.anchor_frame
    start = anchor % stride if anchor is not None else 0  # keeps the anchor among the frames
    return motion.take(np.arange(start, len(motion), stride))
