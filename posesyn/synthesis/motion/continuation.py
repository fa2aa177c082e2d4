"""Motions of any length: the prior continues its own tokens in a sliding window.

A prior holds at most 50 tokens (200 frames). Every further window starts from the last tokens of the motion so far, as
a prefix, so what comes next knows where limbs are and where they are going. All tokens are decoded in one pass, and the
features hold velocities, not places, so frames around the border of two windows are made like all others.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from posesyn.body.inverse_kinematics import fit_pose
from posesyn.errors import InputError
from posesyn.settings.synthesis import MAX_FRAMES
from posesyn.synthesis.motion.cleanup import settled
from posesyn.synthesis.motion.prior.features import FPS, recover_joints
from posesyn.synthesis.motion.prior.prior import MotionPriorModel
from posesyn.synthesis.motion.prior.sampling import row_seed
from posesyn.synthesis.motion.prior.text import checked_texts
from posesyn.types import Motion, batched

if TYPE_CHECKING:
    from posesyn.synthesis.motion.synthesizer import MotionSynthesizer

# Tokens that a window takes over from the one before: half of what the prior holds. Our own choice; fewer windows make
# a long motion quicker, more context makes it steadier.
CONTEXT_SHARE = 0.5


def continue_codes(
    prior: MotionPriorModel,
    texts: Sequence[Sequence[str]],
    num_tokens: int,
    prefixes: Sequence[Tensor] | None = None,
    seeds: Sequence[int] | None = None,
    context_tokens: int | None = None,
    **options: Any,
) -> tuple[list[Tensor], list[int]]:
    """``num_tokens`` codes for each row, whatever the length that the prior holds.

    Args:
        prior: The motion prior.
        texts: B rows of one or more captions, which share the time evenly, in order.
        num_tokens: Length, prefix included. END is not drawn.
        prefixes: B tensors of codes to start from, all of one length, as ``prior.encode`` gives them.
        seeds: One seed per row.
        context_tokens: Tokens that every window takes over; None takes half of what the prior holds.
        options: Of ``SamplingOptions``: temperature, top_k, greedy, guidance.

    Returns:
        B tensors (num_tokens,) or (num_tokens, quantizers), and the tokens at which new windows begin.

    Raises:
        InputError: num_tokens < 1, context outside 1 .. the prior's tokens - 1, prefixes of differing length or longer
            than ``num_tokens``, an empty caption.
    """
    where, most = "continue_codes", prior.max_tokens
    context = max(1, int(most * CONTEXT_SHARE)) if context_tokens is None else context_tokens
    if not 1 <= context < most:
        raise InputError("context_tokens is out of range", where=where, expected=f"1 to {most - 1}", got=context)
    if num_tokens < 1:
        raise InputError("num_tokens must be positive", where=where, got=num_tokens)
    rows = [checked_texts(row, f"{where}, row {index}") for index, row in enumerate(texts)]
    if not all(rows):
        raise InputError("each row needs a caption", where=where, got=[len(row) for row in rows])
    seeds = [row_seed(torch.seed(), index) for index in range(len(rows))] if seeds is None else list(seeds)
    empty = torch.zeros(0, dtype=torch.int64)
    codes = [empty] * len(rows) if prefixes is None else [torch.as_tensor(prefix) for prefix in prefixes]
    if len(codes) != len(rows) or len(seeds) != len(rows):
        raise InputError(
            "one prefix and one seed per row are needed", where=where, expected=len(rows), got=(len(codes), len(seeds))
        )
    lengths = sorted({len(row) for row in codes})
    if len(lengths) > 1 or (lengths and lengths[0] > num_tokens):
        raise InputError(
            "the prefixes are too long or of differing length",
            where=where,
            expected=f"at most {num_tokens} tokens, all the same",
            got=lengths,
        )
    seams: list[int] = []
    done = lengths[0] if lengths else num_tokens
    while done < num_tokens:
        # The first window keeps as much of a long prefix as leaves room for new tokens.
        kept = [row if done < most and not seams else row[-context:] for row in codes]
        window = min(most, len(kept[0]) + num_tokens - done)
        if len(kept[0]):
            seams.append(done)
        embedding = prior.embed([row[min(done * len(row) // num_tokens, len(row) - 1)] for row in rows])
        drawn = prior.sample(
            embedding,
            kept,
            seed=[row_seed(seed, "window", done) for seed in seeds],
            **{**options, "max_tokens": window, "min_tokens": window},
        )
        codes = [torch.cat([row[:done].to(new), new[len(old) :]]) for row, old, new in zip(codes, kept, drawn)]
        done = len(codes[0])
    return codes, seams


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
            raise InputError(
                f"{name} is out of range", where=where, expected=f"1 to {most}" if most else "1 or more", got=value
            )
    if isinstance(captions, str):
        raise InputError("captions must be a sequence", where=where, got="one text", fix="pass [text]")
    stories = [[story] if isinstance(story, str) else list(story) for story in captions]
    tokens = -(-frames // prior.frames_per_token)
    jobs = [(row, k) for row in range(len(stories)) for k in range(num_motions)]
    options = {"temperature": settings.temperature, "top_k": settings.top_k}
    if settings.guidance is not None:
        options["guidance"] = settings.guidance
    motions = []
    for part in batched(jobs, settings.batch_rows):
        seeds = [row_seed(seed, *stories[row], k) for row, k in part]
        texts = [stories[row] for row, _ in part]
        codes, seams = continue_codes(prior, texts, tokens, seeds=seeds, context_tokens=context_tokens, **options)
        for (row, k), own, code in zip(part, seeds, codes):
            joints = recover_joints(prior.decode(code[None]))[0].numpy()[:frames]
            joints = settled(joints, settings.smoothing)
            fitted = fit_pose(joints, synthesizer.body, betas=np.zeros(10, np.float32))
            lift = np.array([0.0, synthesizer._sole_depth(), 0.0], np.float32)
            meta = {
                "seed": own,
                "prior": prior.name,
                "captions": stories[row],
                "seams": [seam * prior.frames_per_token for seam in seams],
            }
            motions.append(
                Motion(
                    f"long{row}/m{k:03d}",
                    fitted.pose_rotvec,
                    fitted.transl + lift,
                    fitted.betas,
                    FPS,
                    joints + lift,
                    caption=", then ".join(stories[row]),
                    meta=meta,
                )
            )
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
