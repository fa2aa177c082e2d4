from __future__ import annotations

import importlib.util
import itertools
import json

import numpy as np
import pytest
import torch

from posesyn.errors import CheckpointError, InputError
from posesyn.synthesis.motion.prior.sampling import sample_tokens
from posesyn.synthesis.motion.prior.transformer import MotionTransformer, TransformerConfig, official_sizes

TINY = TransformerConfig(codes=20, width=32, text_dim=6, layers=2, heads=4)


@pytest.fixture
def tiny():
    torch.manual_seed(0)
    model = MotionTransformer(TINY).eval()
    for parameter in model.parameters():
        parameter.data.mul_(8)  # scores with some contrast
    model.trans_head.head.weight.data[TINY.end] *= 1.5
    return model


def load_official(shared, name, folder):
    base = shared / "conformance" / name
    spec_file = importlib.util.spec_from_file_location("fill", base.parent / "fill.py")
    fill = importlib.util.module_from_spec(spec_file)
    spec_file.loader.exec_module(fill)
    spec, vectors = json.loads((base / "spec.json").read_text()), np.load(base / "vectors.npz")
    c = spec["config"]
    config = TransformerConfig(
        codes=c["num_vq"], width=c["embed_dim"], text_dim=c["clip_dim"], layers=c["num_layers"], heads=c["n_head"]
    )
    path = folder / "net_best_fid.pth"
    torch.save({"trans": {k: torch.from_numpy(v) for k, v in fill.state(spec, vectors).items()}}, path)
    return fill, spec, vectors, MotionTransformer.from_official(path, config)


def check_official(fill, spec, vectors, model, thin):
    text = torch.from_numpy(fill.tensor("input:text", (2, 512), spec["seed"]))
    prefix = torch.from_numpy(vectors["prefix"]).long()
    close = {"atol": 1e-4, "rtol": 1e-4}
    with torch.no_grad():
        np.testing.assert_allclose(model(prefix, text)[..., thin], vectors["logits"], **close)
        np.testing.assert_allclose(model(None, text)[..., thin], vectors["logits_empty"], **close)
    names = spec["inputs"]["greedy_text"]["names"]
    text = torch.from_numpy(np.concatenate([fill.tensor(name, (1, 512), spec["seed"]) for name in names]))
    expected = [row[row >= 0].tolist() for row in vectors["greedy"]]
    assert [codes.tolist() for codes in sample_tokens(model, text, greedy=True)] == expected
    assert set(model.state_dict()) == set(spec["state_dict"])


def test_official_layout_gives_the_published_numbers(shared, tmp_path):
    check_official(*load_official(shared, "t2mgpt_transformer", tmp_path), slice(None))


@pytest.mark.integration
def test_official_size_gives_the_published_numbers(shared, tmp_path):
    check_official(*load_official(shared, "t2mgpt_transformer_full", tmp_path), slice(None, None, 4))


def naive_greedy(model, text, prefix, limit):
    """The published sampler: the whole prefix again at every step, one text at a time."""
    codes = list(prefix)
    while len(codes) < limit:
        best = int(model(torch.tensor([codes], dtype=torch.int64), text[None])[0, -1].argmax())
        if best == model.config.end:
            break
        codes.append(best)
    return codes


@torch.no_grad()
def test_cached_batched_sampling_equals_the_plain_loop(tiny):
    text = torch.randn(6, 6)
    prefixes = [torch.randint(0, 20, (n,)) for n in (0, 3, 1, 7, 0, 30)]
    got = sample_tokens(tiny, text, prefixes, greedy=True)
    for row in range(6):
        assert got[row].tolist() == naive_greedy(tiny, text[row], prefixes[row].tolist(), 50)


def test_a_sample_does_not_depend_on_its_batch(tiny):
    text, seeds = torch.randn(5, 6), [11, 12, 13, 14, 15]
    together = sample_tokens(
        tiny, text, torch.randint(0, 20, (5, 2), generator=torch.Generator().manual_seed(0)), seed=seeds
    )
    prefixes = torch.randint(0, 20, (5, 2), generator=torch.Generator().manual_seed(0))
    for row in range(5):
        alone = sample_tokens(tiny, text[row : row + 1], prefixes[row : row + 1], seed=[seeds[row]])[0]
        assert alone.tolist() == together[row].tolist()


def test_samples_of_one_text_differ_and_repeat_with_the_seed(tiny):
    text = torch.randn(1, 6)
    first, again = (sample_tokens(tiny, text, num_samples=6, seed=3) for _ in range(2))
    assert [a.tolist() for a in first] == [b.tolist() for b in again]
    assert len({tuple(a.tolist()) for a in first}) > 1
    assert [a.tolist() for a in sample_tokens(tiny, text, num_samples=6, seed=4)] != [a.tolist() for a in first]


def test_seeds_count_with_all_their_bits(tiny):
    """torch's generator on a CPU would take the lower 32 bits only."""
    seeds = [5, 5 + 2**32, -5, 5]
    rows = [
        tuple(row.tolist()) for row in sample_tokens(tiny, torch.randn(1, 6), num_samples=4, min_tokens=9, seed=seeds)
    ]
    assert len(set(rows)) == 3 and rows[0] == rows[3]
    whole = sample_tokens(tiny, torch.zeros(1, 6), seed=np.int64(3))
    assert whole[0].tolist() == sample_tokens(tiny, torch.zeros(1, 6), seed=3)[0].tolist()


def test_without_a_seed_samples_differ_and_other_random_numbers_stay(tiny):
    before = torch.get_rng_state()
    rows = [tuple(sample_tokens(tiny, torch.zeros(1, 6), min_tokens=9)[0].tolist()) for _ in range(2)]
    assert rows[0] != rows[1] and torch.equal(before, torch.get_rng_state())


def test_the_drawn_tokens_follow_the_distribution(tiny):
    text = torch.randn(1, 6)
    drawn = sample_tokens(tiny, text, num_samples=4000, max_tokens=1, seed=0, temperature=2.0)
    counts = np.bincount([int(codes[0]) if len(codes) else TINY.end for codes in drawn], minlength=21)
    expected = torch.softmax(tiny(None, text)[0, 0].detach() / 2.0, 0).numpy()
    np.testing.assert_allclose(counts / 4000, expected, atol=0.03)


def test_top_k_draws_only_from_the_best(tiny):
    text = torch.randn(1, 6)
    allowed = set(tiny(None, text)[0, 0].topk(3).indices.tolist())
    drawn = sample_tokens(tiny, text, num_samples=300, max_tokens=1, seed=0, top_k=3)
    assert {int(codes[0]) if len(codes) else TINY.end for codes in drawn} <= allowed


def force_end(model):
    """END scores above all else, whatever comes in."""
    model.trans_head.ln_f.weight.data.zero_()
    model.trans_head.ln_f.bias.data.fill_(1.0)
    model.trans_head.head.weight.data.zero_()
    model.trans_head.head.weight.data[TINY.end] = 1.0


def test_samples_are_ordinary_tensors(tiny):
    """Sampling runs in inference mode; what it returns can still be trained on."""
    codes = sample_tokens(tiny, torch.randn(2, 6), seed=0)[0]
    assert not codes.is_inference() and not codes.requires_grad
    tiny(codes[None], torch.randn(1, 6)).sum().backward()


def test_end_as_first_token_gives_the_prefix_alone(tiny):
    force_end(tiny)
    assert [len(codes) for codes in sample_tokens(tiny, torch.randn(2, 6), greedy=True)] == [0, 0]
    prefix = torch.tensor([[1, 2], [3, 4]])
    assert [codes.tolist() for codes in sample_tokens(tiny, torch.randn(2, 6), prefix, greedy=True)] == prefix.tolist()


def test_min_tokens_holds_back_the_end(tiny):
    force_end(tiny)
    assert [len(codes) for codes in sample_tokens(tiny, torch.randn(2, 6), greedy=True, min_tokens=5)] == [5, 5]


def test_prefix_and_new_tokens_stay_within_the_block(tiny):
    tiny.trans_head.head.weight.data[TINY.end] = -100 * tiny.trans_head.ln_f.bias.data - 100
    prefix = torch.zeros(1, 50, dtype=torch.int64)
    assert sample_tokens(tiny, torch.randn(1, 6), prefix, seed=0)[0].tolist() == prefix[0].tolist()
    with pytest.raises(InputError, match="prefix is too long"):
        sample_tokens(tiny, torch.randn(1, 6), torch.zeros(1, 51, dtype=torch.int64))
    with pytest.raises(InputError, match="prefix is too long"):
        sample_tokens(tiny, torch.randn(1, 6), torch.zeros(1, 11, dtype=torch.int64), max_tokens=10)
    assert all(len(codes) <= 50 for codes in sample_tokens(tiny, torch.randn(3, 6), seed=1))


def test_guidance_mixes_with_the_scores_without_text(tiny):
    text = torch.randn(1, 6)
    with_text, without = tiny(None, text)[0, 0], tiny(None, torch.zeros(1, 6))[0, 0]
    best = int((without + 3 * (with_text - without)).argmax())
    got = sample_tokens(tiny, text, max_tokens=1, greedy=True, guidance=3.0)[0]
    assert (got.tolist() or [TINY.end]) == [best]


@pytest.mark.parametrize(
    "options",
    [
        {"num_samples": 0},
        {"max_tokens": 0},
        {"max_tokens": 51},
        {"temperature": 0.0},
        {"top_k": 0},
        {"min_tokens": 51},
        {"seed": [1, 2, 3]},
        {"prefix_codes": torch.tensor([[20]])},
        {"prefix_codes": torch.tensor([[1], [2]])},
    ],
)
def test_bad_options_are_refused(tiny, options):
    with pytest.raises(InputError):
        sample_tokens(tiny, torch.randn(1, 6), **options)


def test_bad_embeddings_are_refused(tiny):
    with pytest.raises(InputError, match="shape"):
        sample_tokens(tiny, torch.randn(1, 7))
    with pytest.raises(InputError, match="NaN"):
        sample_tokens(tiny, torch.full((1, 6), torch.nan))
    assert sample_tokens(tiny, torch.zeros(0, 6)) == []


def test_too_many_tokens_are_refused(tiny):
    with pytest.raises(InputError, match="too many"):
        tiny(torch.zeros(1, 51, dtype=torch.int64), torch.randn(1, 6))


def test_another_models_file_is_refused(tiny, tmp_path):
    torch.save({"trans": tiny.state_dict()}, tmp_path / "trans.pth")
    with pytest.raises(CheckpointError, match="of another shape"):
        MotionTransformer.from_official(
            tmp_path / "trans.pth", TransformerConfig(codes=20, width=16, text_dim=6, layers=2, heads=4)
        )
    with pytest.raises(CheckpointError, match="missing"):
        MotionTransformer.from_official(
            tmp_path / "trans.pth", TransformerConfig(codes=20, width=32, text_dim=6, layers=3, heads=4)
        )


def test_a_damaged_official_file_is_named(tiny, tmp_path):
    assert official_sizes({}) == TransformerConfig()
    whole = MotionTransformer(TransformerConfig(codes=20, width=64, text_dim=6, layers=2, heads=1)).state_dict()
    for key in ("trans_base.tok_emb.weight", "trans_base.blocks.1.ln1.bias", "trans_head.head.weight"):
        state = {name: value for name, value in whole.items() if name != key}
        torch.save({"trans": state}, tmp_path / "trans.pth")
        with pytest.raises(CheckpointError, match=f"missing: {key}"):
            MotionTransformer.from_official(tmp_path / "trans.pth")
    state = {**whole, "trans_head.blocks.0.mlp.0.weight": torch.zeros(7, 64)}
    torch.save({"trans": state}, tmp_path / "trans.pth")
    with pytest.raises(CheckpointError, match="of another shape"):
        MotionTransformer.from_official(tmp_path / "trans.pth")


def test_bfloat16_draws_nearly_the_same(tiny):
    text = torch.randn(6, tiny.config.text_dim)
    exact, rough = (sample_tokens(tiny, text, greedy=True, max_tokens=6, bfloat16=half) for half in (False, True))
    assert sum(torch.equal(a, b) for a, b in zip(exact, rough)) >= 3


def test_compiled_steps_draw_the_same(tiny, monkeypatch):
    calls = []

    def traced(function, **options):
        calls.append(options)
        return function

    monkeypatch.setattr(torch, "compile", traced)
    text = torch.randn(2, tiny.config.text_dim)
    plain = sample_tokens(tiny, text, seed=1)
    for row, other in zip(plain, sample_tokens(tiny, text, seed=1, compile=True)):
        assert torch.equal(row, other)
    sample_tokens(tiny, text, seed=2, compile=True)
    assert calls == [{"dynamic": True}]  # once
    assert not any("compiled" in name for name in tiny.state_dict())


@pytest.mark.slow
def test_really_compiled_steps_draw_the_same(tiny):
    text = torch.randn(2, tiny.config.text_dim)
    for row, other in zip(sample_tokens(tiny, text, greedy=True), sample_tokens(tiny, text, greedy=True, compile=True)):
        assert torch.equal(row, other)


def test_runs_of_one_token_can_be_bounded(tiny):
    model = MotionTransformer(TINY).eval()
    torch.nn.init.zeros_(model.trans_head.ln_f.weight)
    torch.nn.init.ones_(model.trans_head.ln_f.bias)
    torch.nn.init.zeros_(model.trans_head.head.weight)
    model.trans_head.head.weight.data[7] = 1.0  # the output is constant and token 7 always the best
    text = torch.randn(3, 6)
    free = sample_tokens(model, text, greedy=True, max_tokens=12, min_tokens=12)
    assert all(row.tolist() == [7] * 12 for row in free)
    for most in (1, 3):
        for row in sample_tokens(model, text, greedy=True, max_tokens=12, min_tokens=12, max_run=most):
            runs = [len(list(group)) for _, group in itertools.groupby(row.tolist())]
            assert max(runs) <= most
    held = torch.full((1, 5), 7)
    assert (
        sample_tokens(model, text[:1], held, greedy=True, max_tokens=7, min_tokens=7, max_run=3)[0].tolist()[:5]
        == [7] * 5
    )
    with pytest.raises(InputError, match="max_run"):
        sample_tokens(model, text, max_run=0)
