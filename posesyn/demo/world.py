"""The demo's data: rendered stand-ins for a lab set, an in-the-wild 2D set, and a labelled held-out part of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from posesyn import skeletons
from posesyn.data.persons.rendered import RenderedClips
from posesyn.pipeline.stages import LAYOUT
from posesyn.progress import progress_over
from posesyn.storage.clip_store import ClipStore
from posesyn.storage.clip_writer import ClipWriter
from posesyn.storage.seeds import rng_of, seed_of
from posesyn.synthesis.motion.synthesizer import MotionSynthesizer
from posesyn.synthesis.rendering.renderer import AnimationRenderer, clip_id
from posesyn.types import Motion, Person

LAB = (
    "a person walks forward",
    "a person walks slowly in a circle",
    "a person stands still",
    "a person stands and looks around",
    "a person walks forward and stops",
    "a person walks and turns around",
    "someone walks in a straight line",
    "a person stands and moves the arms a little",
)

WILD = {
    "dance": (
        "a person dances ballet and does a pirouette",
        "a dancer moves the arms expressively",
        "a person dances salsa steps with turns",
        "someone dances and spins on one leg",
        "a dancer leaps and lifts one leg high",
        "a person dances with big arm movements",
    ),
    "gymnastics": (
        "a person does a cartwheel",
        "someone does gymnastics and stretches the legs wide",
        "a person bends down and touches the floor",
        "a gymnast balances on one leg with arms raised",
        "a person crouches and stands up again",
    ),
    "martial arts": (
        "a person kicks and punches",
        "someone practises karate",
        "a martial artist does a high kick",
        "a person boxes and ducks",
        "a person performs tai chi",
    ),
    "sports": (
        "a person jumps forward with both feet",
        "a person throws a ball",
        "someone climbs using hands and feet",
        "a person runs and leaps over an obstacle",
        "a person swings a golf club",
        "a person jumps up and down doing jumping jacks",
    ),
}


ANNOTATION_SKELETON = "coco17"


@dataclass(frozen=True)
class WorldSettings:
    """Sizes of the demo's data; all our own choice, made so that the demo ends within minutes on two cores.

    Args:
        lab_motions: Motions of people who walk and stand, in plain rooms, with 3D labels.
        wild_motions: Motions of dance, gymnastics, martial arts and sports, of which only 2D keypoints are kept.
        held_out_motions: Further wild motions, never trained on, labelled.
        frames_per_motion: Pictures taken of each motion, ``frame_stride`` motion frames (20 per second) apart.
        shape_spread: Standard deviation of the bodies' betas.
        image_size: Side of the pictures in pixels.
        annotation_noise_px: Standard deviation of the noise on the 2D keypoints, as human annotators make it.
    """

    lab_motions: int = 48
    wild_motions: int = 154
    held_out_motions: int = 88
    frames_per_motion: int = 5
    frame_stride: int = 12
    shape_spread: float = 0.8
    image_size: int = 192
    annotation_noise_px: float = 1.5


@dataclass(frozen=True)
class DemoWorld:
    """lab: labelled; wild: 2D only; held_out: labelled, for the final table only."""

    lab: Sequence[Person]
    wild: Sequence[Person]
    held_out: Sequence[Person]


def build_world(
    out: Path, synthesizer: MotionSynthesizer, settings: WorldSettings, seed: int, progress: bool = True
) -> DemoWorld:
    """Renders the three parts into ``out``, or reads them if they are there."""
    everything = [text for texts in WILD.values() for text in texts]
    parts = {
        "lab": (LAB, settings.lab_motions, "lab"),
        "wild": (everything, settings.wild_motions, "wild"),
        "held_out": (everything, settings.held_out_motions, "wild"),
    }
    stores = {}
    for name, (texts, count, style) in parts.items():
        stores[name] = _render_part(out / name, name, texts, count, style, synthesizer, settings, seed, progress)
    wild = RenderedClips(stores["wild"])
    annotated = [as_2d_annotation(person, settings.annotation_noise_px, seed) for person in wild]
    return DemoWorld(RenderedClips(stores["lab"]), annotated, RenderedClips(stores["held_out"]))


def _render_part(
    folder: Path,
    name: str,
    texts: Sequence[str],
    count: int,
    style: str,
    synthesizer: MotionSynthesizer,
    settings: WorldSettings,
    seed: int,
    progress: bool,
) -> ClipStore:
    ids = {clip_id(motion_id, seed): motion_id for motion_id in (f"{name}/{index:04d}" for index in range(count))}
    renderer = AnimationRenderer("mesh", image_size=settings.image_size, style=style)
    with ClipWriter(
        folder, plan=list(ids), config={"layout": LAYOUT, "part": name, "seed": seed, **asdict(settings)}
    ) as writer:
        pending = [ids[clip] for clip in writer.pending()]
        if pending:
            motions = _motions(synthesizer, list(ids.values()), texts, settings, seed_of(seed, name), progress)
            todo = [motion for motion in motions if motion.motion_id in set(pending)]
            stream = renderer.render(todo, seed=seed, progress=False)
            made = count - len(todo)
            for clip in progress_over(stream, f"{name}: render", "clip", total=count, initial=made, shown=progress):
                writer.write(clip)
    return ClipStore(folder)


def _motions(
    synthesizer: MotionSynthesizer,
    names: Sequence[str],
    texts: Sequence[str],
    settings: WorldSettings,
    seed: int,
    progress: bool,
) -> list[Motion]:
    """One motion per name, the captions in turn, each cut to a few frames at a random place."""
    if progress:
        print(f"sampling {len(names)} motions", flush=True)
    each = -(-len(names) // len(texts))
    sampled = synthesizer.from_captions(texts, num_motions=each, seed=seed, progress=progress)
    # The prior answers caption by caption; here they take turns.
    ordered = [sampled[row * each + turn] for turn in range(each) for row in range(len(texts))]
    motions = []
    for name, motion in zip(names, ordered):
        rng = rng_of(seed, name)
        span = (settings.frames_per_motion - 1) * settings.frame_stride + 1
        start = int(rng.integers(max(1, len(motion) - span + 1)))
        # A short motion gives fewer pictures, not repeated ones.
        rows = np.arange(start, min(start + span, len(motion)), settings.frame_stride)
        betas = rng.normal(0, settings.shape_spread, 10).astype(np.float32)
        motions.append(motion.take(rows, motion_id=name, betas=betas, joints_world=None))
    return motions


def as_2d_annotation(person: Person, noise_px: float, seed: int) -> Person:
    """The person as a 2D data set would hold it: COCO keypoints with an annotator's noise, no 3D."""
    points, present = skeletons.convert(
        person.keypoints_px, person.skeleton, ANNOTATION_SKELETON, visible=person.visible
    )
    noise = rng_of(seed, person.person_id).normal(0, noise_px, points.shape)
    return replace(
        person,
        keypoints_px=(points + noise).astype(np.float32),
        visible=present,
        skeleton=ANNOTATION_SKELETON,
        labels=None,
        meta={},
    )
