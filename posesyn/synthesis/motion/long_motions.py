"""Motions longer than the prior's 200 frames, of one caption or of several that follow each other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from posesyn.errors import InputError
from posesyn.settings.synthesis import MAX_FRAMES
from posesyn.storage.files import dump_json
from posesyn.storage.seeds import seed_of
from posesyn.synthesis.motion.prior.prior import continue_codes
from posesyn.synthesis.motion.synthesizer import MotionSynthesizer
from posesyn.types import Motion, batched


def long_motions(
    synthesizer: MotionSynthesizer,
    captions: Sequence[str | Sequence[str]],
    frames: int,
    num_motions: int = 1,
    seed: int = 0,
    context_tokens: int | None = None,
) -> list[Motion]:
    """``num_motions`` motions of ``frames`` frames (20 per second) for every caption; all of caption 0 first.

    A motion depends on (seed, its captions, its number, frames). ``Motion.resampled`` brings it to another rate.

    Args:
        synthesizer: Its prior, body and settings are used.
        captions: One caption per motion, or several that follow each other in time
            (``[["a person walks", "a person sits down"]]``).
        frames: Length of each motion.
        num_motions: Samples of each caption.
        seed: Run seed.
        context_tokens: See :func:`continue_codes`.

    Returns:
        Motions with ``meta``: seed, prior, captions, seams (frames at which the prior's windows meet).

    Raises:
        InputError: frames outside 1 .. 100,000, num_motions < 1, no or empty captions, one text in place of several.
    """
    where, settings, prior = "long_motions", synthesizer.settings, synthesizer.prior
    for name, value, most in (("frames", frames, MAX_FRAMES), ("num_motions", num_motions, None)):
        if not isinstance(value, int) or value < 1 or (most is not None and value > most):
            expected = f"1 to {most}" if most else "1 or more"
            raise InputError(f"{name} is out of range", where=where, expected=expected, got=value)
    if isinstance(captions, str):
        raise InputError("captions must be a sequence", where=where, got="one text", fix="pass [text]")
    stories = [[story] if isinstance(story, str) else list(story) for story in captions]
    step = prior.frames_per_token
    options = synthesizer.sampler.drawing(settings) | {"context_tokens": context_tokens}
    motions = []
    for part in batched([(row, k) for row in range(len(stories)) for k in range(num_motions)], settings.batch_rows):
        seeds = [seed_of(seed, f"story/{k}/{dump_json(stories[row])}") for row, k in part]
        texts = [stories[row] for row, _ in part]
        codes, seams = continue_codes(prior, texts, -(-frames // step), seeds=seeds, **options)
        for (row, k), own, story, code in zip(part, seeds, texts, codes):
            joints = synthesizer.sampler.joints(code, settings.smoothing, frames=frames)
            meta = {"seed": own, "prior": prior.name, "captions": story, "seams": [seam * step for seam in seams]}
            motions.append(synthesizer.embodied(f"long{row}/m{k:03d}", joints, ", then ".join(story), meta))
    return motions


def seam_jump(joints: np.ndarray, seams: Sequence[int]) -> tuple[float, float]:
    """Mean change of joint velocity at the seams and elsewhere, metres per frame squared.

    Args:
        joints: (T, 22, 3).
        seams: First frames of new windows; the two changes on either side of the border count as its own.

    Raises:
        InputError: No seam inside the motion.
    """
    change = np.linalg.norm(np.diff(np.asarray(joints, np.float64), n=2, axis=0), axis=-1).mean(1)
    at = np.zeros(len(change), bool)
    for seam in seams:
        # change[t] is about frame t + 1; the border lies between frames seam - 1 and seam.
        at[max(seam - 2, 0) : seam] = True
    if not at.any() or at.all():
        raise InputError("there is no seam inside the motion", where="seam_jump", got=(len(joints), list(seams)[:5]))
    return float(change[at].mean()), float(change[~at].mean())
