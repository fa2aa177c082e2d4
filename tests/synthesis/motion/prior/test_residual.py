from __future__ import annotations

import numpy as np
import pytest
import torch

from posesyn.errors import CheckpointError, InputError
from posesyn.synthesis.motion.prior.normalizer import Normalizer
from posesyn.synthesis.motion.prior.prior import MotionPriorModel
from posesyn.synthesis.motion.prior.quantizer import ResidualConfig, ResidualTransformer
from posesyn.synthesis.motion.prior.sampling import sample_tokens
from posesyn.synthesis.motion.prior.text import HashTextConfig, HashTextEncoder
from posesyn.synthesis.motion.prior.transformer import MotionTransformer, TransformerConfig
from posesyn.synthesis.motion.prior.vqvae import MotionVQVAE, VQVAEConfig

CONFIG = ResidualConfig(quantizers=4, codes=12, code_dim=8, text_dim=10, width=16, layers=1, heads=2, dropout=0.0)


@pytest.fixture
def layered():
    """A whole prior with four codebooks and random weights."""
    torch.manual_seed(0)
    vqvae = MotionVQVAE(
        VQVAEConfig(codes=12, code_dim=8, width=12, quantizers=4, beam=2, linear=True, convolutional_encoder=False)
    )
    for index, layer in enumerate(vqvae.vqvae.quantizer.layers):
        layer.codebook.normal_(std=0.6**index)
    transformer = MotionTransformer(TransformerConfig(codes=12, width=16, text_dim=10, layers=1, heads=2))
    for parameter in transformer.parameters():
        parameter.data.mul_(6)
    residual = ResidualTransformer(CONFIG)
    torch.nn.init.normal_(residual.bias, std=2.0)
    encoder = HashTextEncoder(HashTextConfig(buckets=64, width=8, dim=10))
    normalizer = Normalizer("test", np.linspace(-1, 1, 263), np.full(263, 0.5))
    return MotionPriorModel(vqvae, transformer, encoder, normalizer, "layered", residual=residual)


def test_codes_have_one_more_dimension(layered):
    features = torch.randn(2, 18, 263)
    codes = layered.encode(features)
    assert codes.shape == (2, 4, 4) and codes.dtype == torch.int64
    assert layered.decode(codes).shape == (2, 16, 263)
    coarse = [(layered.decode(codes[..., :n]) - layered.decode(codes)).abs().mean() for n in (1, 2, 3)]
    assert coarse[0] > coarse[2] > 0


def test_samples_keep_the_prefix_in_all_codebooks(layered):
    texts = layered.embed(["a person walks", "someone jumps"])
    prefix = layered.encode(torch.randn(2, 12, 263))
    rows = layered.sample(texts, prefix, seed=3, max_tokens=9, min_tokens=9, num_samples=2)
    assert [row.shape for row in rows] == [(9, 4)] * 4
    for index, row in enumerate(rows):
        torch.testing.assert_close(row[:3], prefix[index // 2])
    firsts = sample_tokens(
        layered.transformer, texts, prefix[..., 0], seed=3, max_tokens=9, min_tokens=9, num_samples=2, guidance=1.0
    )
    for row, first in zip(rows, firsts):
        torch.testing.assert_close(row[:, 0], first)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_sample_does_not_depend_on_its_batch(layered, temperature):
    texts = layered.embed(["a person walks", "someone jumps", "a man sits"])
    prefixes = [torch.zeros(0, dtype=torch.int64), layered.encode(torch.randn(1, 8, 263))[0], torch.tensor([3])]
    options = {"max_tokens": 12, "residual_temperature": temperature}
    together = layered.sample(texts, prefixes, seed=[5, 6, 7], **options)
    for row in range(3):
        alone = layered.sample(texts[row : row + 1], prefixes[row : row + 1], seed=[5 + row], **options)[0]
        torch.testing.assert_close(together[row], alone)


def test_temperature_draws_and_repeats_with_the_seed(layered):
    texts = layered.embed(["a person walks"])
    options = {"max_tokens": 10, "min_tokens": 10, "residual_temperature": 1.0, "greedy": True}
    one, again, other = (layered.sample(texts, seed=seed, **options)[0] for seed in (1, 1, 2))
    torch.testing.assert_close(one, again)
    torch.testing.assert_close(one[:, 0], other[:, 0])
    assert (one[:, 1:] != other[:, 1:]).any()


def test_scores_are_distances_to_the_codes(layered):
    residual, books = layered.residual, torch.randn(4, 12, 8)
    text, vectors, level = torch.randn(3, 10), torch.randn(3, 5, 8), torch.tensor([1, 2, 3])
    with torch.no_grad():
        residual.bias.zero_()
        scores = residual(text, vectors, level, books)
        spread = scores.log_softmax(2).exp()
        residual.sharpness.fill_(-30.0)
        flat = residual(text, vectors, level, books).softmax(2)
    assert scores.shape == (3, 5, 12)
    assert spread.max() > 0.2
    torch.testing.assert_close(flat, torch.full_like(flat, 1 / 12))


def test_a_fresh_start_gives_the_frequencies(layered):
    books, usage = torch.randn(4, 12, 8), torch.randint(1, 50, (4, 12)).float()
    layered.residual.start_from(books, usage)
    with torch.no_grad():
        scores = layered.residual(torch.randn(1, 10), torch.randn(1, 2, 8), torch.tensor([2]), books)
    expected = (usage[2] + 1) / (usage[2] + 1).sum()
    torch.testing.assert_close(scores.softmax(2)[0], expected.expand(2, -1), atol=1e-4, rtol=1e-3)


def test_padding_plays_no_part(layered):
    text, vectors, level = torch.randn(1, 10), torch.randn(1, 7, 8), torch.tensor([1])
    books, valid = torch.randn(4, 12, 8), torch.arange(7)[None] < 4
    with torch.no_grad():
        cut = layered.residual(text, vectors[:, :4], level, books)
        padded = layered.residual(text, vectors, level, books, valid=valid)[:, :4]
    torch.testing.assert_close(cut, padded, atol=1e-5, rtol=1e-5)


def test_saved_and_loaded_it_is_the_same(layered, tmp_path):
    layered.save(tmp_path / "prior.safetensors", half=False)
    loaded = MotionPriorModel.load(tmp_path / "prior.safetensors")
    texts = layered.embed(["a person walks"])
    for one, other in zip(layered.sample(texts, seed=1), loaded.sample(texts, seed=1)):
        torch.testing.assert_close(one, other)


def test_statistics_of_another_normalizer_are_refused(layered, tmp_path):
    layered.save(tmp_path / "prior.safetensors")
    own = layered.normalizer
    MotionPriorModel.load(tmp_path / "prior.safetensors", normalizer=Normalizer("same", own.mean, own.std))
    other = Normalizer("mdm", own.mean, own.std * np.where(np.arange(263) < 4, 1 / 25, 1))
    with pytest.raises(CheckpointError, match=r"mdm.*0\.04") as caught:
        MotionPriorModel.load(tmp_path / "prior.safetensors", normalizer=other)
    assert "another normaliser" in str(caught.value)


def test_parts_that_do_not_fit_are_refused(layered):
    parts = (layered.vqvae, layered.transformer, layered.text_encoder, layered.normalizer)
    with pytest.raises(InputError, match="several codebooks"):
        MotionPriorModel(*parts)
    small = ResidualTransformer(ResidualConfig(quantizers=3, codes=12, code_dim=8, text_dim=10, width=16, heads=2))
    with pytest.raises(InputError, match="does not fit"):
        MotionPriorModel(*parts, residual=small)


@pytest.mark.parametrize(
    "prefix", [torch.zeros(1, 2, 3, dtype=torch.int64), torch.full((1, 2, 4), 12), torch.full((1, 2, 4), -1)]
)
def test_wrong_prefixes_are_refused(layered, prefix):
    with pytest.raises(InputError, match="prefix"):
        layered.sample(layered.embed(["walk"]), prefix)


def test_too_long_motions_are_refused(layered):
    with pytest.raises(InputError, match="too many"):
        layered.residual(torch.zeros(1, 10), torch.zeros(1, 51, 8), torch.tensor([1]), torch.zeros(4, 12, 8))


def test_end_as_first_token_gives_an_empty_motion(layered):
    layered.transformer.trans_head.head.weight.data[layered.transformer.config.end] = 0
    rows = layered.residual.fill(
        torch.zeros(1, 10), [torch.zeros(0, dtype=torch.int64)], [torch.zeros(0)], layered.vqvae.vqvae.quantizer
    )
    assert rows[0].shape == (0, 4)
