"""Official T2M-GPT files of other seeds, sizes and lengths against the networks written out plainly in float64.

The conformance vectors fix one seed; here the layers are spelled out from the published description (key names, kernel
sizes, the order of dilations), so that nothing is right by the choice of one input.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional

from posesyn.synthesis.motion.prior.sampling import sample_tokens
from posesyn.synthesis.motion.prior.transformer import MotionTransformer, TransformerConfig
from posesyn.synthesis.motion.prior.vqvae import MotionVQVAE, VQVAEConfig


def conv(state, key, x, **options):
    return functional.conv1d(x, state[f"{key}.weight"], state[f"{key}.bias"], **options)


def linear(state, key, x):
    return x @ state[f"{key}.weight"].T + state[f"{key}.bias"]


def blocks(state, key, x):
    for number, dilation in enumerate((9, 3, 1)):
        y = conv(state, f"{key}.model.{number}.conv1", x.relu(), padding=dilation, dilation=dilation)
        x = x + conv(state, f"{key}.model.{number}.conv2", y.relu())
    return x


def encoded(state, motion):
    x = conv(state, "vqvae.encoder.model.0", motion.mT, padding=1).relu()
    for stage in (2, 3):
        x = conv(state, f"vqvae.encoder.model.{stage}.0", x, stride=2, padding=1)
        x = blocks(state, f"vqvae.encoder.model.{stage}.1", x)
    return conv(state, "vqvae.encoder.model.4", x, padding=1).mT


def decoded(state, vectors):
    x = conv(state, "vqvae.decoder.model.0", vectors.mT, padding=1).relu()
    for stage in (2, 3):
        x = blocks(state, f"vqvae.decoder.model.{stage}.0", x).repeat_interleave(2, -1)
        x = conv(state, f"vqvae.decoder.model.{stage}.2", x, padding=1)
    x = conv(state, "vqvae.decoder.model.4", x, padding=1).relu()
    return conv(state, "vqvae.decoder.model.6", x, padding=1).mT


@pytest.mark.parametrize(("seed", "width", "codes", "rows", "frames"), [(1, 12, 9, 1, 4), (2, 20, 31, 3, 43)])
def test_tokeniser(tmp_path, seed, width, codes, rows, frames):
    torch.manual_seed(seed)
    config = VQVAEConfig(codes=codes, code_dim=7, width=width)
    state = {k: torch.randn_like(v) / 4 for k, v in MotionVQVAE(config).official_state_dict().items()}
    torch.save({"net": state}, tmp_path / "net.pth")
    model = MotionVQVAE.from_official(tmp_path / "net.pth", config)
    state = {key: value.double() for key, value in state.items()}
    motion = torch.randn(rows, frames, 263)
    vectors = encoded(state, motion.double()[:, : frames // 4 * 4])
    book = state["vqvae.quantizer.codebook"]
    nearest = (vectors[:, :, None] - book).square().sum(-1).argmin(-1)
    assert torch.equal(model.encode(motion), nearest)
    scale = float(decoded(state, book[nearest]).abs().max())
    torch.testing.assert_close(
        model.decode(nearest).double(), decoded(state, book[nearest]), atol=1e-5 * scale, rtol=1e-4
    )


def scores(state, config, tokens, text):
    """(B, N + 1, codes + 1) by the published forward."""
    base, width = "trans_base", config.width
    x = torch.cat([linear(state, f"{base}.cond_emb", text)[:, None], state[f"{base}.tok_emb.weight"][tokens]], 1)
    count = x.shape[1]
    angle = torch.arange(count)[:, None] * 10000.0 ** (-torch.arange(0, width, 2).double() / width)
    x = x + torch.stack([angle.sin(), angle.cos()], -1).flatten(1)
    for half in (base, "trans_head"):
        for number in range(config.layers):
            key = f"{half}.blocks.{number}"

            def norm(x, name):
                return functional.layer_norm(x, (width,), state[f"{name}.weight"], state[f"{name}.bias"])

            y = norm(x, f"{key}.ln1")
            q, k, v = (
                linear(state, f"{key}.attn.{n}", y).unflatten(-1, (config.heads, -1)).transpose(1, 2)
                for n in ("query", "key", "value")
            )
            weights = q @ k.mT / math.sqrt(width // config.heads)
            weights = weights.masked_fill(torch.ones(count, count).triu(1) > 0, -torch.inf).softmax(-1)
            x = x + linear(state, f"{key}.attn.proj", (weights @ v).transpose(1, 2).flatten(2))
            y = linear(state, f"{key}.mlp.0", norm(x, f"{key}.ln2"))
            x = x + linear(state, f"{key}.mlp.2", y * 0.5 * (1 + torch.erf(y / math.sqrt(2))))
    x = functional.layer_norm(x, (width,), state["trans_head.ln_f.weight"], state["trans_head.ln_f.bias"])
    return x @ state["trans_head.head.weight"].T


@pytest.mark.parametrize(
    ("seed", "config"),
    [
        (3, TransformerConfig(codes=11, width=8, text_dim=3, layers=1, heads=1, block_size=6)),
        (4, TransformerConfig(codes=40, width=48, text_dim=20, layers=3, heads=4, block_size=51)),
        (5, TransformerConfig(codes=17, width=128, text_dim=9, layers=2, heads=2, block_size=13, mlp_factor=3)),
    ],
)
def test_transformer(tmp_path, seed, config):
    torch.manual_seed(seed)
    state = MotionTransformer(config).state_dict()
    fixed = [key for key in state if key.endswith(("attn.mask", "pos_embed.embed"))]
    state = {k: v if k in fixed else torch.randn_like(v) * 0.3 for k, v in state.items()}
    torch.save({"trans": state}, tmp_path / "trans.pth")
    told = None if config.width == 64 * config.heads else config  # heads of other widths cannot be seen in a file
    model = MotionTransformer.from_official(tmp_path / "trans.pth", told)
    assert replace(model.config, dropout=config.dropout) == config
    state = {key: value.double() for key, value in state.items()}
    text = torch.randn(3, config.text_dim)
    tokens = torch.randint(config.codes + 2, (3, config.max_tokens))
    truth = scores(state, config, tokens, text.double())
    torch.testing.assert_close(model(tokens, text).double(), truth, atol=2e-4, rtol=2e-4)
    for row, drawn in enumerate(sample_tokens(model, text, greedy=True)):
        plain: list[int] = []
        while len(plain) < config.max_tokens:
            best = int(
                scores(state, config, torch.tensor([plain], dtype=torch.int64), text[row : row + 1].double())[
                    0, -1
                ].argmax()
            )
            if best == config.end:
                break
            plain.append(best)
        np.testing.assert_array_equal(drawn, plain)
