"""Motions of any length: the prior continues its own tokens in a sliding window.

A prior holds at most 50 tokens (200 frames). Every further window starts from the last tokens of the motion so far, as
a prefix, so what comes next knows where limbs are and where they are going. All tokens are decoded in one pass, and the
features hold velocities, not places, so frames around the border of two windows are made like all others.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from posesyn.errors import InputError
from posesyn.storage.seeds import seed_of
from posesyn.synthesis.motion.prior.prior import MotionPriorModel
from posesyn.synthesis.motion.prior.sampling import seeds_of_rows
from posesyn.synthesis.motion.prior.text import checked_texts

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
    seeds = seeds_of_rows(None, len(rows)) if seeds is None else list(seeds)
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
            seed=[seed_of(seed, f"window/{done}") for seed in seeds],
            **{**options, "max_tokens": window, "min_tokens": window},
        )
        codes = [torch.cat([row[:done].to(new), new[len(old) :]]) for row, old, new in zip(codes, kept, drawn)]
        done = len(codes[0])
    return codes, seams
