"""Autoregressive sampling of motion tokens: batched, cached, and reproducible per sample."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from posesyn.errors import InputError
from posesyn.geometry.devices import exact_device
from posesyn.storage.seeds import rng_of, seed_of
from posesyn.synthesis.motion.prior.quantizer import check_codes
from posesyn.synthesis.motion.prior.transformer import KeyValueCache, MotionTransformer

_WHERE = "sample_tokens"


@dataclass(frozen=True)
class SamplingOptions:
    """How tokens are drawn. The defaults draw as T2M-GPT does (plain categorical).

    Attributes:
        max_tokens: Tokens of a motion, prefix included; None for the most the transformer can hold.
        temperature: Divides the scores.
        top_k: Only the k best tokens can be drawn; None for all.
        greedy: Always the best token.
        min_tokens: END cannot be drawn before this many tokens, prefix included.
        guidance: Classifier-free guidance: scores = without text + guidance * (with text - without text), where the
            embedding of no text is zero (Ho & Salimans 2022). 1 switches it off. Only meaningful for a transformer that
            saw zero embeddings in training, as posesyn's does; the official one did not.
        max_run: A token can be drawn so many times in a row at most; None for any number. Small priors need it:
            there a token that stands for a pose held still is its own likeliest successor.
        bfloat16: Matrix products in bfloat16 (autocast), half the memory for keys and values; tokens may differ.
        compile: The steps run through ``torch.compile`` (slow at first; worth it for many motions on a GPU).
    """

    max_tokens: int | None = None
    temperature: float = 1.0
    top_k: int | None = None
    greedy: bool = False
    min_tokens: int = 0
    guidance: float = 1.0
    max_run: int | None = None
    bfloat16: bool = False
    compile: bool = False


def seeds_of_rows(seed: int | Sequence[int] | None, rows: int) -> list[int]:
    """One seed per row: those given, or made of one seed and the row's number, or fresh ones for None.

    Raises:
        InputError: Another number of seeds than rows.
    """
    if seed is None or isinstance(seed, (int, np.integer)):
        run_seed = secrets.randbits(63) if seed is None else int(seed)
        return [seed_of(run_seed, f"row/{row}") for row in range(rows)]
    if len(seed) != rows:
        raise InputError("one seed per sample is needed", where=_WHERE, expected=rows, got=len(seed))
    return [int(value) for value in seed]


def sample_tokens(
    transformer: MotionTransformer,
    text_embedding: Tensor,
    prefix_codes: Tensor | Sequence[Tensor] | None = None,
    num_samples: int = 1,
    seed: int | Sequence[int] | None = None,
    **options: Any,
) -> list[Tensor]:
    """Continues the prefix of every text ``num_samples`` times.

    Args:
        transformer: In evaluation mode, else dropout stays on.
        text_embedding: (B, text_dim).
        prefix_codes: (B, P), or B tensors of any lengths, or None.
        num_samples: Samples per text.
        seed: See :func:`seeds_of_rows`; the rows are B * num_samples. With a seed per row a sample does not depend on
            what else is in the batch.
        options: Fields of :class:`SamplingOptions`.

    Returns:
        B * num_samples int64 tensors, all samples of text 0 first: prefix included, END excluded, at most
        ``max_tokens`` long. A motion is empty when END comes first and there is no prefix.

    Raises:
        InputError: An option out of range, a prefix longer than ``max_tokens`` or with a code outside the codebook,
            an embedding with NaN or of another size.
    """
    chosen = _checked(SamplingOptions(**options), transformer.config.max_tokens)
    embedding, prefixes = _checked_inputs(transformer, text_embedding, prefix_codes, chosen.max_tokens)
    if num_samples < 1:
        raise InputError("num_samples must be positive", where=_WHERE, got=num_samples)
    if len(embedding) == 0:
        return []
    embedding = embedding.repeat_interleave(num_samples, 0)
    prefixes = [prefix for prefix in prefixes for _ in range(num_samples)]
    with torch.inference_mode():
        drawn = _drawn(transformer, embedding, prefixes, seed, chosen)
    return [row.clone() for row in drawn]  # ordinary tensors again, fit for training on them


def _drawn(
    transformer: MotionTransformer,
    embedding: Tensor,
    prefixes: list[Tensor],
    seed: int | Sequence[int] | None,
    options: SamplingOptions,
) -> list[Tensor]:
    """The tokens of each row, all rows at once."""
    config = transformer.config
    rows, device = len(embedding), embedding.device
    exact = exact_device(device)
    most = options.max_tokens or config.max_tokens
    dice = None if options.greedy else _dice(seeds_of_rows(seed, rows), most).to(exact)

    lengths = torch.tensor([len(prefix) for prefix in prefixes], device=device)
    tokens = torch.full((rows, most), config.end, dtype=torch.int64, device=device)
    for row, prefix in enumerate(prefixes):
        tokens[row, : len(prefix)] = prefix.to(device)
    lanes = _Lanes(transformer, embedding, options)
    active = torch.arange(rows, device=device)
    finished = torch.zeros(rows, dtype=torch.bool, device=device)

    shared = int(lengths.min())
    scores = lanes.start(tokens[:, :shared]) if shared < most else None
    for position in range(shared, most):
        scores = _without_long_runs(scores, tokens[active, :position], options.max_run)
        thrown = None if dice is None else dice[active.to(exact), position]
        drawn = _draw(scores.to(exact), position, thrown, options, config.end).to(device)
        forced = position < lengths[active]
        drawn = torch.where(forced, tokens[active, position], drawn)
        drawn = torch.where(finished[active], config.end, drawn)
        tokens[active, position] = drawn
        finished[active] = finished[active] | (drawn == config.end)
        if position + 1 == most or bool(finished[active].all()):
            break
        going = ~finished[active]
        if int(going.sum()) * 2 <= len(active):  # half of the rows are finished: go on with the others only
            active, drawn = active[going], drawn[going]
            lanes.select(going)
        scores = lanes.advance(drawn)
    ends = (tokens == config.end).int()
    stop = torch.where(ends.any(1), ends.argmax(1), most)
    return [row[: int(end)] for row, end in zip(tokens, stop)]


class _Lanes:
    """The rows under way: with text, and without it where guidance asks for that."""

    def __init__(self, transformer: MotionTransformer, embedding: Tensor, options: SamplingOptions) -> None:
        self.step, self.guidance = transformer.step_function(options.compile), options.guidance
        self.bfloat16, self.device = options.bfloat16, embedding.device.type
        like = embedding.bfloat16() if options.bfloat16 else embedding
        self.embeddings = [embedding] if options.guidance == 1 else [embedding, torch.zeros_like(embedding)]
        self.caches = [KeyValueCache(transformer.config, len(embedding), like) for _ in self.embeddings]

    def start(self, prefix: Tensor) -> Tensor:
        return self._mix([self._scores(e, prefix, c) for e, c in zip(self.embeddings, self.caches)])

    def advance(self, drawn: Tensor) -> Tensor:
        return self._mix([self._scores(None, drawn[:, None], cache) for cache in self.caches])

    def _scores(self, embedding: Tensor | None, codes: Tensor, cache: KeyValueCache) -> Tensor:
        with torch.autocast(self.device, torch.bfloat16) if self.bfloat16 else nullcontext():
            return self.step(embedding, codes, cache)[:, -1].float()

    def select(self, rows: Tensor) -> None:
        for cache in self.caches:
            cache.select(rows)

    def _mix(self, scores: list[Tensor]) -> Tensor:
        return scores[0] if len(scores) == 1 else torch.lerp(scores[1], scores[0], self.guidance)


def _without_long_runs(scores: Tensor, past: Tensor, most: int | None) -> Tensor:
    """(R, codes + 1) scores in which no token can follow on ``most`` of its own; ``past`` (R, tokens so far)."""
    if most is None or past.shape[1] < most:
        return scores
    last = past[:, -most:]
    stuck = (last == last[:, :1]).all(1)
    same = torch.arange(scores.shape[1], device=scores.device) == last[:, -1:]
    return scores.masked_fill(stuck[:, None] & same, -torch.inf)


def _draw(scores: Tensor, position: int, dice: Tensor | None, options: SamplingOptions, end: int) -> Tensor:
    """(R, codes + 1) scores → (R,) tokens, by inversion of the cumulative distribution at ``dice``."""
    scores = scores.double()
    if position < options.min_tokens:
        scores[:, end] = -torch.inf
    if dice is None:
        return scores.argmax(1)
    if options.top_k is not None and options.top_k < scores.shape[1]:
        scores = scores.masked_fill(scores < scores.topk(options.top_k, 1).values[:, -1:], -torch.inf)
    cumulative = torch.softmax(scores / options.temperature, 1).cumsum(1)
    return torch.searchsorted(cumulative, dice[:, None] * cumulative[:, -1:], right=True)[:, 0].clamp_max(end)


def _dice(seeds: Sequence[int], count: int) -> Tensor:
    """(rows, count) uniform numbers, each row from a stream of its own."""
    # By NumPy: torch's generator on a CPU would tell seeds apart by their lower 32 bits only.
    return torch.from_numpy(np.stack([rng_of(seed, "tokens").random(count) for seed in seeds]))


def _checked(options: SamplingOptions, most: int) -> SamplingOptions:
    where = _WHERE
    tokens = most if options.max_tokens is None else options.max_tokens
    if not 1 <= tokens <= most:
        expected = f"1 to {most} (prefix + new tokens)"
        raise InputError("max_tokens is out of range", where=where, expected=expected, got=tokens)
    if not options.temperature > 0:
        fix = "use greedy=True for the best token"
        raise InputError("temperature must be positive", where=where, got=options.temperature, fix=fix)
    for name, value in (("top_k", options.top_k), ("max_run", options.max_run)):
        if value is not None and value < 1:
            raise InputError(f"{name} must be positive", where=where, got=value)
    if not 0 <= options.min_tokens <= tokens:
        raise InputError("min_tokens is out of range", where=where, expected=f"0 to {tokens}", got=options.min_tokens)
    return replace(options, max_tokens=tokens)


def _checked_inputs(
    transformer: MotionTransformer, embedding: Tensor, prefixes: Tensor | Sequence[Tensor] | None, most: int
) -> tuple[Tensor, list[Tensor]]:
    where, config = _WHERE, transformer.config
    weight = transformer.trans_base.cond_emb.weight
    embedding = torch.as_tensor(embedding).to(weight)
    if embedding.ndim != 2 or embedding.shape[1] != config.text_dim:
        expected, got = f"(B, {config.text_dim})", tuple(embedding.shape)
        fix = "use the text encoder that the prior was trained with"
        raise InputError("the text embedding has the wrong shape", where=where, expected=expected, got=got, fix=fix)
    if not torch.isfinite(embedding).all():
        raise InputError("the text embedding has NaN or infinite values", where=where)
    if prefixes is None:
        return embedding, [torch.zeros(0, dtype=torch.int64)] * len(embedding)
    prefixes = [torch.as_tensor(prefix, dtype=torch.int64) for prefix in prefixes]
    if len(prefixes) != len(embedding):
        raise InputError("one prefix per text is needed", where=where, expected=len(embedding), got=len(prefixes))
    for index, prefix in enumerate(prefixes):
        if prefix.ndim != 1 or len(prefix) > most:
            where, expected = f"{where}, text {index}", f"at most {most} codes (prefix + new tokens)"
            fix, got = "repeat the pose for fewer frames", tuple(prefix.shape)
            raise InputError("the prefix is too long", where=where, expected=expected, got=got, fix=fix)
        check_codes(prefix, config.codes, "a prefix code", f"{where}, text {index}")
    return embedding, prefixes
