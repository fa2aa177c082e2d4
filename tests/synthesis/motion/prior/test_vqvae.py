from __future__ import annotations

import importlib.util
import json

import numpy as np
import pytest
import torch

from posesyn.errors import CheckpointError, FileError, InputError, UnsafeFileError
from posesyn.synthesis.motion.prior.vqvae import MotionVQVAE, VQVAEConfig, feature_weights, start_from_data

TINY = VQVAEConfig(features=10, codes=16, code_dim=8, width=12)


def load_vectors(shared, name):
    folder = shared / "conformance" / name
    spec_file = importlib.util.spec_from_file_location("fill", folder.parent / "fill.py")
    fill = importlib.util.module_from_spec(spec_file)
    spec_file.loader.exec_module(fill)
    return fill, json.loads((folder / "spec.json").read_text()), np.load(folder / "vectors.npz")


@pytest.fixture(scope="module")
def official(shared, tmp_path_factory):
    fill, spec, vectors = load_vectors(shared, "t2mgpt_vqvae")
    path = tmp_path_factory.mktemp("official") / "net_best_fid.pth"
    torch.save({"net": {k: torch.from_numpy(v) for k, v in fill.state(spec, vectors).items()}}, path)
    return fill, spec, vectors, MotionVQVAE.from_official(path)


def test_official_checkpoint_gives_the_published_numbers(official):
    fill, spec, vectors, model = official
    motion = torch.from_numpy(fill.tensor("input:motion", (2, 64, 263), spec["seed"]))
    with torch.no_grad():
        encoded, output = model.encode_vectors(motion), model(motion)
        decoded = model.decode(torch.from_numpy(vectors["codes"]).long())
    close = {"atol": 1e-4, "rtol": 1e-4}
    np.testing.assert_allclose(encoded[:, :, ::4], vectors["encoder_out"], **close)
    np.testing.assert_array_equal(model.encode(motion), vectors["codes_of_motion"])
    np.testing.assert_allclose(output.reconstruction[:, ::4], vectors["reconstruction"], **close)
    np.testing.assert_allclose(output.commitment, vectors["commit_loss"][0], **close)
    np.testing.assert_allclose(output.perplexity, vectors["perplexity"][0], **close)
    np.testing.assert_allclose(decoded, vectors["decoded"], **close)


def test_official_state_has_the_official_keys_and_survives_a_round_trip(official, tmp_path):
    _, spec, _, model = official
    state = model.official_state_dict()
    assert {k: [list(v.shape)] for k, v in state.items()} == {k: [v[0]] for k, v in spec["state_dict"].items()}
    torch.save({"net": state}, tmp_path / "again.pth")
    again = MotionVQVAE.from_official(tmp_path / "again.pth")
    assert all(torch.equal(a, b) for a, b in zip(again.state_dict().values(), model.state_dict().values()))


def test_nearest_code_agrees_with_a_float64_loop(rng):
    model = MotionVQVAE(TINY)
    model.vqvae.quantizer.codebook.copy_(torch.from_numpy(rng.normal(size=(16, 8))))
    vectors = rng.normal(size=(40, 8))
    book = model.vqvae.quantizer.codebook.double().numpy()
    expected = [np.argmin([((v - c) ** 2).sum() for c in book]) for v in vectors]
    np.testing.assert_array_equal(model.vqvae.quantizer.assign(torch.from_numpy(vectors).float()), expected)


def test_rows_are_decoded_independently():
    model = MotionVQVAE(TINY).eval()
    model.vqvae.quantizer.codebook.normal_()
    codes = torch.randint(0, 16, (3, 7))
    together = model.decode(codes)
    assert together.shape == (3, 28, 10)
    for row in range(3):
        torch.testing.assert_close(model.decode(codes[row : row + 1])[0], together[row])


def test_lengths_are_cut_to_whole_tokens():
    assert MotionVQVAE(TINY).eval().encode(torch.randn(2, 19, 10)).shape == (2, 4)


def test_codebook_update_follows_the_published_rule():
    torch.manual_seed(0)
    quantizer = MotionVQVAE(TINY).vqvae.quantizer.train()
    quantizer(torch.randn(64, 8))
    before = {name: value.clone() for name, value in quantizer.named_buffers()}
    vectors = torch.randn(64, 8)
    _, index, _, _ = quantizer(vectors)
    for code in range(16):
        mine = vectors[index == code]
        count = 0.99 * before["ema_count"][code] + 0.01 * len(mine)
        total = 0.99 * before["ema_sum"][code] + 0.01 * mine.sum(0)
        if count >= 1:
            torch.testing.assert_close(quantizer.codebook[code], total / count)
        else:  # a reset code is one of the batch's vectors
            assert (vectors - quantizer.codebook[code]).abs().sum(1).min() < 1e-6


def test_dead_codes_come_from_all_over_the_batch():
    torch.manual_seed(1)
    quantizer = MotionVQVAE(TINY).vqvae.quantizer.train()
    vectors = torch.arange(1000.0)[:, None].repeat(1, 8)
    quantizer(vectors)
    assert quantizer.codebook.max() > 500  # the official code would take rows 0 to 15


def test_training_resumes_from_a_saved_state_without_losing_the_codebook():
    torch.manual_seed(0)
    model = MotionVQVAE(TINY).train()
    for _ in range(3):
        model(torch.randn(8, 16, 10))
    resumed = MotionVQVAE(TINY).train()
    resumed.load_state_dict(model.state_dict())
    batch = torch.randn(8, 16, 10)
    torch.manual_seed(5)
    model(batch)
    torch.manual_seed(5)
    resumed(batch)
    torch.testing.assert_close(resumed.vqvae.quantizer.codebook, model.vqvae.quantizer.codebook)


def test_fine_tuning_an_official_file_keeps_its_codebook(tmp_path):
    model = MotionVQVAE(TINY)
    model.vqvae.quantizer.codebook.normal_()
    torch.save({"net": model.official_state_dict()}, tmp_path / "net.pth")
    loaded = MotionVQVAE.from_official(tmp_path / "net.pth", TINY).train()
    loaded(torch.randn(4, 16, 10))
    assert (loaded.vqvae.quantizer.codebook - model.vqvae.quantizer.codebook).abs().max() < 0.5


def test_gradient_passes_straight_through():
    model = MotionVQVAE(TINY).train()
    output = model(torch.randn(4, 16, 10))
    output.reconstruction.sum().backward()
    assert model.vqvae.encoder.model[0].weight.grad.abs().sum() > 0


@pytest.mark.parametrize("shape", [(2, 16, 9), (16, 10), (1, 3, 10)])
def test_wrong_features_are_refused(shape):
    with pytest.raises(InputError, match="MotionVQVAE"):
        MotionVQVAE(TINY).encode(torch.zeros(shape))


@pytest.mark.parametrize("codes", [[[16]], [[-1]], [[]]])
def test_wrong_codes_are_refused(codes):
    with pytest.raises(InputError):
        MotionVQVAE(TINY).decode(torch.tensor(codes, dtype=torch.int64))


class Evil:
    def __reduce__(self):
        return (print, ("ran",))


def test_wrong_files_are_refused(tmp_path, capsys):
    model, path = MotionVQVAE(TINY), tmp_path / "file.pth"
    with pytest.raises(FileError, match="No such file"):
        MotionVQVAE.from_official(path)
    path.write_bytes(b"PK\x03\x04 broken")
    with pytest.raises(FileError, match="not a readable checkpoint"):
        MotionVQVAE.from_official(path)
    torch.save({"net": Evil()}, path)
    with pytest.raises(UnsafeFileError):
        MotionVQVAE.from_official(path)
    assert "ran" not in capsys.readouterr().out
    torch.save({"trans": {}}, path)
    with pytest.raises(CheckpointError, match="'net'"):
        MotionVQVAE.from_official(path)
    state = model.official_state_dict()
    state["surplus"] = state.pop("vqvae.encoder.model.0.bias")
    torch.save({"net": state}, path)
    with pytest.raises(CheckpointError, match=r"1 missing: vqvae\.encoder\.model\.0\.bias; 1 unexpected: surplus"):
        MotionVQVAE.from_official(path, TINY)
    with pytest.raises(CheckpointError, match="of another shape"):
        MotionVQVAE.from_official(path)


LINEAR = VQVAEConfig(
    features=10, codes=8, code_dim=40, width=12, quantizers=3, linear=True, convolutional_encoder=False
)


def test_the_linear_start_is_the_principal_components(rng):
    """As many components as numbers: encoding and decoding without codes must be exact."""
    patches = torch.from_numpy(rng.normal(size=(300, 4, 10)) @ rng.normal(size=(10, 10)) + 2).float()
    model = MotionVQVAE(LINEAR).eval()
    start_from_data(model, patches)
    with torch.no_grad():
        vectors = model.encode_vectors(patches)
        decoded = model.decode_vectors(vectors)
    # a bias per feature serves all four frames, so their means may differ a little
    spread = patches.mean(0) - patches.mean((0, 1))
    torch.testing.assert_close(decoded + spread, patches, atol=1e-3, rtol=1e-3)
    assert vectors.square().mean().item() == pytest.approx(1.0, rel=0.05)


def test_more_codebooks_leave_less_over(rng):
    patches = torch.from_numpy(rng.normal(size=(500, 4, 10)) @ np.diag(np.arange(1, 11) / 5)).float()
    model = MotionVQVAE(LINEAR).eval()
    start_from_data(model, patches, seed=1)
    codes = model.encode(patches)
    errors = [float((model.decode(codes[..., :n]) - patches).square().mean()) for n in (1, 2, 3)]
    assert errors[0] > errors[1] > errors[2]
    again = MotionVQVAE(LINEAR).eval()
    start_from_data(again, patches, seed=1)
    torch.testing.assert_close(again.encode(patches), codes)


def test_weights_cover_every_feature():
    weights = feature_weights()
    assert weights.shape == (263,) and (weights > 0).all() and weights[0] > weights[10] > weights[100]


def test_impossible_starts_are_refused(rng):
    with pytest.raises(InputError, match="linear path"):
        start_from_data(MotionVQVAE(VQVAEConfig(features=10, codes=8, code_dim=8, width=12)), torch.zeros(99, 4, 10))
    with pytest.raises(InputError, match="patches"):
        start_from_data(MotionVQVAE(LINEAR), torch.zeros(5, 4, 10))
    with pytest.raises(InputError, match="encoder"):
        VQVAEConfig(convolutional_encoder=False)
