"""Motions in, labelled clips out: the third stage of posesyn."""

from __future__ import annotations

import inspect
import json
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, replace
from typing import Any

import numpy as np
import torch

from posesyn.errors import InputError
from posesyn.geometry.procrustes import similarity_align
from posesyn.interfaces import BodyModel, RenderBackend
from posesyn.progress import progress_over
from posesyn.registry import Registry
from posesyn.settings.base import identity, plain, with_changes
from posesyn.settings.stages import RenderingSettings
from posesyn.storage.checkpoints import fingerprint
from posesyn.storage.files import dump_json
from posesyn.storage.seeds import rng_of, seed_of
from posesyn.synthesis.rendering.appearance.appearance import Appearance
from posesyn.synthesis.rendering.likeness import likeness
from posesyn.types import Clip, Motion, Person, ScoredPerson
from posesyn.types.arguments import check_several
from posesyn.types.looks import changes_of, short_repr

# A backend is made by calling the thing of its name with ``image_size`` (height, width), ``body``, ``backgrounds``,
# ``style``, ``device`` and options of its own; it has ``render(motion, appearance, *, seed) -> Clip`` and may have
# ``identity() -> dict``: what of all this decides its pictures, as JSON values under the same names.
BACKENDS: Registry[Callable[..., RenderBackend]] = Registry(
    "render backend",
    {"mesh": "posesyn.synthesis.rendering.mesh.backend:MeshBackend"},
    group="posesyn.render_backends",
    fix="register one with posesyn.synthesis.rendering.renderer.BACKENDS.register(name, factory)",
)
_KEPT_LOOKS = 64  # own choice: persons whose look (with their picture) is kept in memory


class AnimationRenderer:
    """Renders motions as clips with exact labels.

    Args:
        backend: ``"mesh"``, another name of :data:`BACKENDS`, or an object with ``render(...)`` of that kind;
            None takes the settings' one.
        settings: What is drawn, and how; see :class:`~posesyn.settings.stages.RenderingSettings`.
        body: Body to draw; default the small free body, which looks the same as the full one up to 256 px.
        device: ``"auto"`` (a GPU if there is one that the backend can use), ``"cpu"`` or ``"cuda"``.
        changes: Single settings in place of those of ``settings``, ``image_size`` also as (height, width); and options
            of the backend: ``camera``, ``supersample``, ``frames_per_pass`` of the mesh backend.

    Attributes:
        settings: As given, with the changes.
        image_size: (height, width) in pixels.

    Raises:
        InputError: Unknown backend, bad settings, or no such device.
        FileError: A background folder that cannot be used.

    Example:
        >>> renderer = AnimationRenderer(image_size=64, style="lab")
        >>> standing = Motion("stand", np.zeros((2, 24, 3)), np.zeros((2, 3)), np.zeros(10), fps=20.0)
        >>> renderer.render([standing], seed=0, progress=False).to_list()[0].frames.shape
        (2, 64, 64, 3)
    """

    def __init__(
        self,
        backend: str | RenderBackend | None = None,
        settings: RenderingSettings | None = None,
        *,
        body: BodyModel | None = None,
        device: str | torch.device | None = "auto",
        **changes: Any,
    ) -> None:
        if isinstance(backend, str):
            changes["backend"] = backend
        size = changes.get("image_size")
        if size is not None and not isinstance(size, int):
            changes["image_size"] = max(size)
        factory = None
        if backend is None or isinstance(backend, str):
            factory = BACKENDS[changes.get("backend") or (settings or RenderingSettings()).backend]
        elif not hasattr(backend, "render"):
            raise InputError("a render backend needs a method render(motion, appearance, *, seed)", got=type(backend))
        # What the backend does not take must be a setting: with_changes names the nearest one.
        options = {name: changes.pop(name) for name in list(changes) if _takes(factory, name)}
        self.settings = with_changes(RenderingSettings, settings, changes)
        side = self.settings.image_size
        self.image_size = (side, side) if size is None or isinstance(size, int) else tuple(size)
        self.style = self.settings.style
        self.backend: RenderBackend = backend  # type: ignore[assignment]
        self._given, self._options = factory is None, {"image_size": self.image_size, "body": body, **options}
        if factory is not None:
            backgrounds = self.settings.backgrounds
            self.backend = factory(backgrounds=backgrounds, style=self.style, device=device, **self._options)
        self._looks: OrderedDict[tuple[str, int], Appearance] = OrderedDict()

    def __repr__(self) -> str:
        parts = {**changes_of(self.settings), "backend": type(self.backend).__name__, "image_size": self.image_size}
        return short_repr(self, **parts, device=str(getattr(self.backend, "device", "")))

    def identity(self) -> dict[str, Any]:
        """What decides the clips apart from motions, appearances and seed, as JSON values; a run is only continued with
        the same. ``backend_options`` holds what the settings do not tell: what the backend's ``identity()`` states,
        else the options that it was made with, and the class of an object that is no backend of the settings' name."""
        kind, state = type(self.backend), getattr(self.backend, "identity", None)
        stated = state() if callable(state) else {name: _as_json(value) for name, value in self._options.items()}
        if self._given and kind is not BACKENDS[self.settings.backend]:
            stated["class"] = f"{kind.__module__}.{kind.__qualname__}"
        side, backgrounds = self.settings.image_size, plain(self.settings.backgrounds)
        known = {"image_size": [side, side], "style": self.style, "backgrounds": backgrounds, "body": None}
        own = {name: value for name, value in stated.items() if name not in known or value != known[name]}
        return {**identity(self.settings), **({"backend_options": own} if own else {})}

    def prepare(self, motion: Motion, seed: int = 0) -> Motion:
        """What the settings ask to be drawn: frames ``frame_stride`` apart (closer where ``max_drift`` asks for it), at
        most ``frames_per_motion`` and as evenly around the anchor frame (else the middle) as the ends allow, on a body
        with betas of deviation ``shape_spread``, which the seed and the motion's id decide."""
        settings, length = self.settings, len(motion)
        anchor = length // 2 if motion.anchor_frame is None else motion.anchor_frame
        stride = self._stride(motion)
        rows = np.arange(anchor % stride, length, stride)
        count = len(rows) if settings.frames_per_motion is None else settings.frames_per_motion
        start = max(0, min(int(np.searchsorted(rows, anchor)) - count // 2, len(rows) - count))
        some = motion.take(rows[start : start + count])
        if settings.shape_spread == 0:
            return some
        betas = rng_of(seed, motion.motion_id).normal(0, settings.shape_spread, 10).astype(np.float32)
        # The joints were those of another body.
        return replace(some, betas=betas, joints_world=None)

    def _stride(self, motion: Motion) -> int:
        """The widest stride with which the frames rendered keep near the pose of the anchor frame."""
        settings, joints, anchor = self.settings, motion.joints_world, motion.anchor_frame
        if joints is None or anchor is None or settings.frames_per_motion is None or settings.max_drift is None:
            return settings.frame_stride
        around = np.arange(settings.frames_per_motion) - settings.frames_per_motion // 2
        poses = torch.from_numpy(joints).double()
        drift = (similarity_align(poses, poses[anchor].expand_as(poses)) - poses[anchor]).norm(dim=-1).mean(-1)
        for stride in range(settings.frame_stride, 1, -1):
            if drift[np.clip(anchor + stride * around, 0, len(drift) - 1)].mean() <= settings.max_drift:
                return stride
        return 1

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
        check_several(motions, Motion, "render")
        if appearances is not None:
            check_several(appearances, (ScoredPerson, Person, Appearance), "render")
        motions = list(motions)
        double = [name for name, count in Counter(motion.motion_id for motion in motions).items() if count > 1]
        if double:
            problem = "motion ids must differ, since a clip's randomness comes from them"
            raise InputError(problem, where="render()", got=sorted(double)[:5])
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
        if frame_stride != 1:
            start = (motion.anchor_frame or 0) % frame_stride  # keeps the anchor among the frames
            motion = motion.take(np.arange(start, len(motion), frame_stride))
        clip = self.backend.render(motion, look, seed=own_seed)
        meta = {**clip.meta, "run_seed": seed, "frame_stride": frame_stride}
        if motion.anchor_frame is not None:
            meta["anchor_frame"] = motion.anchor_frame
        return replace(clip, clip_id=clip_id(motion.motion_id, seed), meta=meta)

    def _look(self, appearances: Sequence, own_seed: int, run_seed: int) -> Appearance:
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
        self._renderer, self._motions, self._progress = renderer, motions, progress
        self._drawn_with = (appearances, seed, frame_stride)

    def __len__(self) -> int:
        return len(self._motions)

    def __repr__(self) -> str:
        appearances, seed, _ = self._drawn_with
        return f"ClipStream({len(self)} motions, {len(appearances)} appearances, seed={seed})"

    def __getitem__(self, index: int) -> Clip:
        return self._renderer.render_one(self._motions[index], *self._drawn_with)

    def __iter__(self) -> Iterator[Clip]:
        for index in progress_over(range(len(self)), "render", "clip", shown=self._progress):
            yield self[index]

    def to_list(self) -> list[Clip]:
        """All clips at once. A clip of 100 frames at 256 px takes about 40 MB."""
        return list(self)


def _takes(factory: Callable[..., RenderBackend] | None, option: str) -> bool:
    """Whether a backend has an option that is no setting."""
    if factory is None or option in {one.name for one in fields(RenderingSettings)}:
        return False
    parameters = inspect.signature(factory).parameters
    return option in parameters or any(one.kind is one.VAR_KEYWORD for one in parameters.values())


def _as_json(value: Any) -> Any:
    """What tells an option of a backend from another one: its value, else a hash of its weights, else its class."""
    if isinstance(value, torch.nn.Module):
        return fingerprint(value)
    try:
        return json.loads(dump_json(plain(value)))
    except InputError:
        return f"{type(value).__module__}.{type(value).__qualname__}"


def clip_id(motion_id: str, seed: int) -> str:
    """Name of the clip that :meth:`AnimationRenderer.render` makes of a motion, known before it is rendered."""
    return f"{motion_id}/s{seed}"
