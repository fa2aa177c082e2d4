from __future__ import annotations

import itertools

import numpy as np
import torch

from posesyn.synthesis.motion.prior.quantizer import EMAQuantizer, ResidualQuantizer


def make(quantizers=3, codes=6, dim=4, seed=0, **options):
    torch.manual_seed(seed)
    quantizer = ResidualQuantizer(quantizers, codes, dim, **options).eval()
    for index, layer in enumerate(quantizer.layers):
        layer.codebook.normal_(std=0.5**index)
    return quantizer


def test_greedy_codes_agree_with_a_float64_loop(rng):
    quantizer, vectors = make(), rng.normal(size=(30, 4))
    for row, codes in zip(vectors, quantizer.assign(torch.from_numpy(vectors).float()).tolist()):
        rest = row.copy()
        for layer, code in zip(quantizer.layers, codes):
            book = layer.codebook.double().numpy()
            assert code == np.square(rest - book).sum(1).argmin()
            rest = rest - book[code]


def test_a_wide_beam_finds_the_best_codes_after_the_first(rng):
    greedy, wide = make(), make(beam=36)
    vectors = torch.from_numpy(rng.normal(size=(20, 4))).float()
    found = wide.assign(vectors)
    torch.testing.assert_close(found[:, 0], greedy.assign(vectors)[:, 0])
    for vector, codes in zip(vectors, found):
        every = [
            (float((vector - wide.lookup(torch.tensor([int(codes[0]), b, c]))).square().sum()), b, c)
            for b, c in itertools.product(range(6), repeat=2)
        ]
        assert codes[1:].tolist() == list(min(every)[1:])


def test_a_beam_is_never_worse(rng):
    vectors = torch.from_numpy(rng.normal(size=(200, 4))).float()
    errors = [float((vectors - q.lookup(q.assign(vectors))).square().sum()) for q in (make(beam=b) for b in (1, 3, 36))]
    assert errors[0] > errors[1] >= errors[2]


def test_the_first_codebooks_alone_are_a_coarser_sum():
    quantizer = make()
    codes = torch.randint(0, 6, (2, 5, 3))
    parts = [layer.lookup(codes[..., i]) for i, layer in enumerate(quantizer.layers)]
    torch.testing.assert_close(quantizer.lookup(codes), sum(parts))
    torch.testing.assert_close(quantizer.lookup(codes[..., :2]), parts[0] + parts[1])


def test_training_uses_all_codebooks_or_the_first_ones():
    torch.manual_seed(0)
    vectors = torch.randn(64, 4, requires_grad=True)
    quantizer = make(dropout=1.0).train()
    quantizer.adopt_codebook()
    touched = set()
    for _ in range(40):
        before = [layer.codebook.clone() for layer in quantizer.layers]
        out, codes, commitment, perplexity = quantizer(vectors)
        moved = [not torch.equal(a, layer.codebook) for a, layer in zip(before, quantizer.layers)]
        assert moved == sorted(moved, reverse=True) and moved[0]
        touched.add(sum(moved))
        assert codes.shape == (64, 3) and float(commitment.detach()) > 0 and 1 <= float(perplexity) <= 6
    assert touched == {1, 2, 3}
    out.sum().backward()
    torch.testing.assert_close(vectors.grad, torch.ones_like(vectors))


def test_frozen_codebooks_stay():
    quantizer = make(dropout=0.5).train()
    quantizer.adopt_codebook()
    quantizer.freeze()
    before = {name: value.clone() for name, value in quantizer.named_buffers()}
    for _ in range(5):
        quantizer(torch.randn(32, 4))
    assert all(torch.equal(value, before[name]) for name, value in quantizer.named_buffers())


def test_one_codebook_in_a_row_is_the_published_one(rng):
    single, row = EMAQuantizer(6, 4).eval(), make(1)
    single.codebook.copy_(row.layers[0].codebook)
    vectors = torch.from_numpy(rng.normal(size=(50, 4))).float()
    torch.testing.assert_close(single.assign(vectors), row.assign(vectors)[:, 0])
    for one, other in zip(single(vectors)[::2], row(vectors)[::2]):
        torch.testing.assert_close(one, other)


def test_no_vectors_give_no_codes():
    assert make().assign(torch.zeros(0, 4)).shape == (0, 3)
