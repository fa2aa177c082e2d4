"""The demo's data: rendered stand-ins for a lab set, an in-the-wild 2D set, and a labelled held-out part of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from posesyn import skeletons
from posesyn.data.rendered import RenderedClips
from posesyn.demo import captions
from posesyn.storage.clip_store import ClipStore
from posesyn.storage.ledger import rng_of
from posesyn.storage.shards import ClipWriter
from posesyn.synthesis.motion.synthesizer import MotionSynthesizer
from posesyn.synthesis.rendering.renderer import AnimationRenderer, clip_id
from posesyn.types import Motion, Person

ANNOTATION_SKELETON = "coco17"


@dataclass(frozen=True)
class WorldSettings:
    """Sizes of the demo's data; all our own choice, made so that the demo ends within minutes on two cores.

    Args:
        lab_motions: Motions of people who walk and stand, in plain rooms, with 3D labels.
        wild_motions: Motions of dance, gymnastics, martial arts and sports, of which only 2D keypoints are kept.
        held_out_motions: Further wild motions, never trained on, labelled.
        frames_per_motion: Pictures taken of each motion, ``frame_stride`` motion frames (20 per second) apart.
        image_size: Side of the pictures in pixels.
        annotation_noise_px: Standard deviation of the noise on the 2D keypoints, as human annotators make it.
    """

    lab_motions: int = 48
    wild_motions: int = 120
    held_out_motions: int = 80
    frames_per_motion: int = 5
    frame_stride: int = 12
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
    everything = [text for texts in captions.WILD.values() for text in texts]
    parts = {
        "lab": (captions.LAB, settings.lab_motions, "lab"),
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
    renderer = AnimationRenderer("mesh", image_size=(settings.image_size,) * 2, style=style)
    with ClipWriter(folder, plan=list(ids), config={"part": name, "seed": seed}) as writer:
        pending = writer.pending()
        bar = tqdm(total=count, initial=count - len(pending), desc=f"world: {name}", disable=not progress)
        with bar:
            for start in range(0, len(pending), 16):
                chunk = pending[start : start + 16]
                motions = [_motion(synthesizer, motion_id, texts, settings, seed) for motion_id in map(ids.get, chunk)]
                for clip in renderer.render(motions, seed=seed, progress=False):
                    writer.write(clip)
                    bar.update(1)
    return ClipStore(folder)


def _motion(
    synthesizer: MotionSynthesizer, motion_id: str, texts: Sequence[str], settings: WorldSettings, seed: int
) -> Motion:
    rng = rng_of(seed, motion_id)
    text = texts[int(motion_id.rsplit("/", 1)[1]) % len(texts)]
    motion = synthesizer.from_captions([text], seed=int(rng.integers(2**31)), progress=False)[0]
    # A short motion gives fewer pictures, not repeated ones.
    span = (settings.frames_per_motion - 1) * settings.frame_stride + 1
    start = int(rng.integers(max(1, len(motion) - span + 1)))
    rows = np.arange(start, min(start + span, len(motion)), settings.frame_stride)
    return replace(
        motion,
        motion_id=motion_id,
        pose_rotvec=motion.pose_rotvec[rows],
        transl_world=motion.transl_world[rows],
        joints_world=None if motion.joints_world is None else motion.joints_world[rows],
        fps=motion.fps / settings.frame_stride,
    )


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
    )
