from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch.nn import functional

from posesyn.errors import InputError
from posesyn.synthesis.motion.prior.features import bone_offsets, motion_features, recover_joints, still_features
from posesyn.synthesis.motion.prior.normalizer import Normalizer
from posesyn.synthesis.motion.prior.quantizer import ResidualConfig, ResidualQuantizer
from posesyn.synthesis.motion.prior.text import HashTextConfig, HashTextEncoder
from posesyn.synthesis.motion.prior.transformer import TransformerConfig
from posesyn.synthesis.motion.prior.vqvae import VQVAEConfig
from posesyn.training.prior.data import (
    FeatureClip,
    FeatureWindows,
    MixedWindows,
    MotionDataModule,
    TokenClip,
    TokenRecipe,
    TokenWindows,
    features_of,
    reconstruction_error_mm,
    tokenize,
    warped,
)
from posesyn.training.prior.modules import (
    MotionResidualModule,
    MotionTransformerModule,
    MotionVQVAEModule,
    ResidualRecipe,
    Schedule,
    TransformerRecipe,
    VQVAERecipe,
)

VQ = VQVAEConfig(codes=12, code_dim=8, width=12)
GPT = TransformerConfig(codes=12, width=16, text_dim=10, layers=1, heads=2)


@dataclass
class Mocap:
    motion_id: str
    joints_world: np.ndarray
    captions: tuple[str, ...]


@pytest.fixture
def mocap(rng):
    rest = rng.normal(size=(22, 3)) * 0.3
    steps = rng.normal(size=(3, 90, 22, 3)).cumsum(1) * 0.01
    words = ("a person walks", "someone dances", "a person jumps to the left")
    return [Mocap(f"m{i}", (rest + steps[i]).astype(np.float32), (words[i],)) for i in range(3)]


@pytest.fixture
def clips(mocap):
    raw = features_of(mocap, None)
    normalizer = Normalizer.from_features("test", [clip.features for clip in raw])
    return normalizer, [FeatureClip(c.clip_id, normalizer.normalize(c.features), c.captions) for c in raw]


def trainer(folder, steps):
    return pl.Trainer(
        default_root_dir=folder,
        max_steps=steps,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def test_vqvae_loss_is_the_published_sum(clips):
    torch.manual_seed(0)
    module = MotionVQVAEModule(VQ).eval()
    module.model.vqvae.quantizer.codebook.normal_()
    batch = torch.from_numpy(np.stack([clip.features[:64] for clip in clips[1]]))
    loss, output = module.loss(batch)
    difference = (output.reconstruction - batch).double()
    huber = torch.where(difference.abs() < 1, 0.5 * difference**2, difference.abs() - 0.5)
    vectors = module.model.encode_vectors(batch)
    codes = module.model.vqvae.quantizer.codebook[output.codes]
    expected = huber.mean() + 0.02 * ((vectors - codes) ** 2).mean() + 0.5 * huber[..., 4:67].mean()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    rooted = MotionVQVAEModule(VQ, VQVAERecipe(root=0.25)).eval()
    rooted.load_state_dict(module.state_dict())
    assert rooted.loss(batch)[0].item() == pytest.approx((expected + 0.25 * huber[..., :4].mean()).item(), rel=1e-5)


def test_published_recipes():
    vqvae, transformer = VQVAERecipe(), TransformerRecipe()
    assert (vqvae.batch_size, vqvae.window, vqvae.commitment, vqvae.positions) == (256, 64, 0.02, 0.5)
    rates = [vqvae.schedule.learning_rate * vqvae.schedule.scale(step) for step in (499, 999, 100_000, 201_000)]
    np.testing.assert_allclose(rates, [1e-4, 2e-4, 2e-4, 1e-5])
    assert (transformer.batch_size, transformer.keep, transformer.schedule.betas) == (128, 0.5, (0.5, 0.9))
    rates = [transformer.schedule.learning_rate * transformer.schedule.scale(step) for step in (0, 149_999, 150_000)]
    np.testing.assert_allclose(rates, [1e-4, 1e-4, 5e-6])
    assert Schedule(1.0, cosine_steps=100).scale(100) == pytest.approx(0.02)


def test_vqvae_learns_and_all_random_states_are_seeded(clips, tmp_path):
    losses = []
    for _ in range(2):
        pl.seed_everything(3, verbose=False)
        module = MotionVQVAEModule(VQ, VQVAERecipe(Schedule(5e-3), batch_size=8, window=32))
        data = MotionDataModule(FeatureWindows(clips[1], 32, 480), FeatureWindows(clips[1], 32, 8, seed=1), 8)
        batch = torch.stack([data.val[i] for i in range(8)])
        before = module.eval().loss(batch)[0].item()
        module.train()
        trainer(tmp_path, 60).fit(module, data)
        losses.append(module.eval().loss(batch)[0].item())
        assert losses[-1] < 0.9 * before
    assert losses[0] == losses[1]


@pytest.fixture
def token_clips(rng):
    long, short = rng.integers(0, 12, 80), rng.integers(0, 12, 9)
    return [
        TokenClip("long", (long, long[1:]), rng.integers(0, 12, (80, 2)), ("a person dances",)),
        TokenClip("short", (short,), rng.integers(0, 12, (9, 2)), ("a person walks", "walk")),
        TokenClip("silent", (short,), rng.integers(0, 12, (9, 2)), ()),
    ]


def test_examples_hold_prompt_body_and_end(token_clips):
    windows = TokenWindows(token_clips, 12, 300, seed=1)
    kinds = set()
    for index in range(300):
        item = windows[index]
        caption, inputs, targets, held = (item[key] for key in ("text", "inputs", "targets", "held"))
        tokens = inputs[inputs != 13]
        assert len(inputs) == 50 and len(targets) == 51
        assert (targets[:held] == 13).all()
        np.testing.assert_array_equal(targets[held : len(tokens)], tokens[held:])
        rest = targets[len(tokens) :]
        assert set(rest[1:]) <= {13} and rest[0] in (12, 13)
        source = next(c for c in token_clips if any(word in caption for word in ("danc",)) == (c.clip_id == "long"))
        body = tokens[held:].tolist()
        found = [
            start
            for codes in source.phases
            for start in range(len(codes) - len(body) + 1)
            if codes[start : start + len(body)].tolist() == body
        ]
        assert found
        if held:
            assert any(source.poses[start, :held].tolist() == tokens[:held].tolist() for start in found)
        ends = rest[0] == 12
        assert ends == any(found[0] + len(body) == len(codes) for codes in source.phases) or source.clip_id == "long"
        kinds.add((source.clip_id, bool(ends), held))
    assert {("short", True, 0), ("short", True, 2), ("long", False, 0), ("long", False, 1)} <= kinds
    assert not any(kind[0] == "silent" for kind in kinds)


def test_examples_depend_on_seed_and_index_only(token_clips):
    first, second = TokenWindows(token_clips, 12, 50, seed=4), TokenWindows(token_clips, 12, 9, seed=4)
    for key, value in first[7].items():
        np.testing.assert_array_equal(value, second[7][key])
    assert any(first[i]["text"] != TokenWindows(token_clips, 12, 50, seed=5)[i]["text"] for i in range(50))


def test_transformer_loss_is_the_published_mean(token_clips):
    torch.manual_seed(0)
    module = MotionTransformerModule(HashTextEncoder(HashTextConfig(64, 8, 10)), GPT).eval()
    data = MotionDataModule(TokenWindows(token_clips, 12, 6), TokenWindows(token_clips, 12, 6), 6)
    batch = next(iter(data.val_dataloader()))
    loss, _ = module.loss(batch)
    scores = module.model(batch["inputs"], module.text_encoder.encode(batch["text"]))
    rows = []
    for row in range(6):  # the published code's loop
        used = batch["targets"][row] != 13
        rows.append(functional.cross_entropy(scores[row][used], batch["targets"][row][used]).item())
    assert loss.item() == pytest.approx(np.mean(rows), rel=1e-5)


def test_corruption_spares_the_prompt():
    torch.manual_seed(0)
    module = MotionTransformerModule(HashTextEncoder(HashTextConfig(64, 8, 10)), GPT, TransformerRecipe(keep=0.5))
    inputs = torch.full((4000, 10), 13)
    corrupted = module.corrupted(inputs, torch.tensor([0, 2]).repeat(2000))
    changed = (corrupted != inputs).float()
    assert changed[1::2, :2].sum() == 0
    assert changed[::2].mean().item() == pytest.approx(0.5, abs=0.02)
    assert corrupted[corrupted != 13].max() < 12


@pytest.mark.parametrize("frozen", [False, True])
def test_transformer_learns_what_text_means(token_clips, tmp_path, frozen):
    pl.seed_everything(0, verbose=False)
    encoder = HashTextEncoder(HashTextConfig(256, 16, 10))
    if frozen:
        inner = encoder.eval()

        class Frozen:
            dim = 10
            calls = 0

            def encode(self, texts):
                Frozen.calls += len(texts)
                return inner.encode(texts)

        encoder = Frozen()
    recipe = TransformerRecipe(Schedule(5e-3), batch_size=8, keep=0.9, text_dropout=0.1)
    module = MotionTransformerModule(encoder, GPT, recipe)
    plain = TokenRecipe(held_share=0.0, paraphrase_share=0.0, early_start_share=0.0)
    data = MotionDataModule(
        TokenWindows(token_clips, 12, 1600, recipe=plain), TokenWindows(token_clips, 12, 32, 1, plain), 8
    )
    trainer(tmp_path, 200).fit(module, data)
    module.eval()
    right = torch.stack([module.loss(batch)[0] for batch in data.val_dataloader()]).mean()
    wrong = []
    for batch in data.val_dataloader():
        batch["text"] = ["a person dances" if "walk" in text else "a person walks" for text in batch["text"]]
        wrong.append(module.loss(batch)[0])
    assert right < torch.stack(wrong).mean()
    if frozen:
        assert Frozen.calls <= 4  # every text once


def test_held_poses_are_what_a_repeated_pose_gives(mocap):
    poses, offsets = mocap[0].joints_world[[5, 40]], bone_offsets(mocap[1].joints_world[0])
    for target in (None, offsets):
        held = still_features(poses, target)
        # the first frame of a clip is another matter: its heading is forced to zero
        again = [motion_features(np.repeat(pose[None], 6, 0), target, continuous_heading=True)[1:] for pose in poses]
        for row, frames in zip(held, again):
            np.testing.assert_allclose(np.repeat(row[None], 4, 0), frames, atol=2e-6)


def test_time_warping_keeps_the_path():
    joints = np.linspace(0, 1, 41)[:, None, None] * np.ones((41, 22, 3), np.float32)
    fast, slow = warped(joints, 2.0), warped(joints, 0.5)
    assert (len(fast), len(slow)) == (21, 81)
    np.testing.assert_allclose(fast[:, 0, 0], np.linspace(0, 1, 21), atol=1e-6)
    np.testing.assert_allclose(slow[:, 0, 0], np.linspace(0, 1, 81), atol=1e-6)


def test_tokens_of_clips_are_those_of_the_model(clips):
    normalizer, own = clips
    torch.manual_seed(0)
    model = MotionVQVAEModule(VQ).model.eval()
    model.vqvae.quantizer.codebook.normal_()
    tokens = tokenize(model, normalizer, own)
    for clip, token in zip(own, tokens):
        for start, phase in zip((0, 2), token.phases):
            expected = model.encode(torch.from_numpy(clip.features[start:])[None])[0]
            np.testing.assert_array_equal(phase, expected)
        assert token.poses.shape == (len(token.phases[0]), 2)
    errors = reconstruction_error_mm(model, normalizer, own)
    assert errors["local [mm]"] > 0 and errors["frames"] > 200


def test_bad_data_is_refused(clips, token_clips):
    with pytest.raises(InputError, match="long enough"):
        FeatureWindows(clips[1], 500, 4)
    with pytest.raises(InputError, match="caption"):
        TokenWindows(token_clips[2:], 12, 4)
    with pytest.raises(InputError, match="batch_size"):
        MotionDataModule(FeatureWindows(clips[1], 8, 4), FeatureWindows(clips[1], 8, 4), 0)


def interrupted_and_whole(make_module, make_data, folder, stop, steps):
    """State dicts of one training in one go and of the same one that was interrupted after ``stop`` steps."""
    states = []
    for parts in ((steps,), (stop, steps)):
        checkpoint = None
        for until in parts:
            pl.seed_everything(hash((parts, until)) % 1000, verbose=False)  # resumption must not depend on it
            module = make_module()
            if checkpoint is None:
                torch.manual_seed(11)
                module = make_module()
            run = trainer(folder, until)
            run.fit(module, make_data(), ckpt_path=checkpoint, weights_only=True)
            checkpoint = folder / f"{len(parts)}-{until}.ckpt"
            run.save_checkpoint(checkpoint)
        states.append(torch.load(checkpoint, weights_only=True))
    return states


@pytest.mark.parametrize("quantizers", [1, 3])
def test_a_resumed_tokeniser_equals_an_uninterrupted_one(clips, tmp_path, quantizers):
    config = VQVAEConfig(codes=12, code_dim=8, width=12, dead_below=0.4, quantizers=quantizers, quantizer_dropout=0.5)
    recipe = VQVAERecipe(Schedule(5e-3, warmup=3, cosine_steps=14), batch_size=8, window=32, short_share=0.3)

    def data():
        return MotionDataModule(FeatureWindows(clips[1], 32, 112), FeatureWindows(clips[1], 32, 8, seed=1), 8)

    whole, resumed = interrupted_and_whole(lambda: MotionVQVAEModule(config, recipe), data, tmp_path, 6, 14)
    assert whole["global_step"] == resumed["global_step"] == 14
    keys = [key for key in whole["state_dict"] if "ema" in key or "codebook" in key]
    assert len(keys) == 3 * quantizers
    for key, value in whole["state_dict"].items():
        assert torch.equal(value, resumed["state_dict"][key]), key
    moments = [state["optimizer_states"][0]["state"] for state in (whole, resumed)]
    for one, other in zip(moments[0].values(), moments[1].values()):
        assert torch.equal(one["exp_avg"], other["exp_avg"])


def test_a_resumed_transformer_equals_an_uninterrupted_one(token_clips, tmp_path):
    recipe = TransformerRecipe(Schedule(5e-3), batch_size=4, keep=0.6, text_dropout=0.2)
    config = TransformerConfig(codes=12, width=16, text_dim=10, layers=1, heads=2, dropout=0.3)

    def module():
        return MotionTransformerModule(HashTextEncoder(HashTextConfig(64, 8, 10)), config, recipe)

    def data():
        return MotionDataModule(TokenWindows(token_clips, 12, 40), TokenWindows(token_clips, 12, 4, 1), 4)

    whole, resumed = interrupted_and_whole(module, data, tmp_path, 4, 10)
    for key, value in whole["state_dict"].items():
        assert torch.equal(value, resumed["state_dict"][key]), key


def test_the_joint_loss_is_in_metres(clips):
    normalizer, own = clips
    module = MotionVQVAEModule(VQ, VQVAERecipe(joints=2.0, smoothness=3.0), normalizer).eval()
    plain = MotionVQVAEModule(VQ).eval()
    plain.load_state_dict(module.state_dict())
    batch = torch.from_numpy(np.stack([clip.features[:32] for clip in own]))
    loss, output = module.loss(batch)
    got, truth = (recover_joints(normalizer.denormalize(x.detach())).double() for x in (output.reconstruction, batch))
    posed = ((got - got[:, :, :1]) - (truth - truth[:, :, :1])).norm(dim=-1).mean()
    jolt = (got - truth).diff(n=2, dim=1).norm(dim=-1).mean()
    assert loss.item() == pytest.approx(plain.loss(batch)[0].item() + 2 * posed.item() + 3 * jolt.item(), rel=1e-3)
    with pytest.raises(InputError, match="normaliser"):
        MotionVQVAEModule(VQ, VQVAERecipe(joints=1.0))


def test_validation_logs_metrics(clips, tmp_path):
    module = MotionVQVAEModule(VQ, VQVAERecipe(batch_size=8, window=32), clips[0])
    run = trainer(tmp_path, 2)
    data = MotionDataModule(FeatureWindows(clips[1], 32, 16), FeatureWindows(clips[1], 32, 8, seed=1), 8)
    run.fit(module, data)
    assert {"val/loss", "val/perplexity", "val/mpjpe", "train/loss"} <= set(run.callback_metrics)


def test_only_the_decoder_learns_if_asked(clips, tmp_path):
    config = VQVAEConfig(codes=12, code_dim=8, width=12, quantizers=2, linear=True, convolutional_encoder=False)
    module = MotionVQVAEModule(config, VQVAERecipe(Schedule(5e-3), batch_size=8, window=32, decoder_only=True))
    module.model.vqvae.quantizer.adopt_codebook()
    for layer in module.model.vqvae.quantizer.layers:
        layer.codebook.normal_()
    before = {key: value.clone() for key, value in module.state_dict().items()}
    data = MotionDataModule(FeatureWindows(clips[1], 32, 40), FeatureWindows(clips[1], 32, 8, seed=1), 8)
    trainer(tmp_path, 5).fit(module, data)
    for key, value in module.state_dict().items():
        assert torch.equal(value, before[key]) != ("decoder" in key), key


def test_windows_mix_recorded_made_and_held_frames(clips):
    recorded, made = FeatureWindows(clips[1][:1], 32, 300), FeatureWindows(clips[1][1:2], 32, 300, seed=1)
    held, still = np.full((3, 263), 7.0, np.float32), np.full(263, 9.0, np.float32)
    windows = MixedWindows(recorded, made, held, still)
    kinds = {"held": 0, "stopped": 0, "other": 0}
    for index in range(300):
        frames = windows[index].numpy()
        assert frames.shape == (32, 263)
        np.testing.assert_array_equal(frames, windows[index])
        if (frames == 7).all():
            kinds["held"] += 1
        elif (frames[:4, 193:] == 9).all():
            kinds["stopped"] += 1
            np.testing.assert_array_equal(frames[0], frames[3])
        else:
            kinds["other"] += 1
    assert 25 <= kinds["held"] <= 65 and 20 <= kinds["stopped"] <= 60


def test_the_residual_transformer_learns_and_spares_what_is_known(tmp_path, rng):
    torch.manual_seed(0)
    quantizer = ResidualQuantizer(3, 12, 8).eval()
    for layer in quantizer.layers:
        layer.codebook.normal_()
    first = rng.integers(0, 12, 40)
    codes = np.stack([first, (first * 5 + 1) % 12, (first + 3) % 12], 1)  # the first code tells the others
    clip = TokenClip("m", (codes,), np.stack([codes, codes], 1), ("a person walks",))
    encoder = HashTextEncoder(HashTextConfig(64, 8, 10)).eval()
    sizes = ResidualConfig(3, 12, 8, 10, width=16, layers=1, heads=2, dropout=0.0)
    module = MotionResidualModule(quantizer, encoder, sizes, ResidualRecipe(Schedule(1e-2), batch_size=8))
    data = MotionDataModule(TokenWindows([clip], 12, 640), TokenWindows([clip], 12, 8, 1), 8)
    batch = next(iter(data.val_dataloader()))
    level = torch.ones(8, dtype=torch.int64)
    before = module.eval().loss(batch, level).item()
    trainer(tmp_path, 80).fit(module.train(), data)
    assert module.eval().loss(batch, level).item() < 0.6 * before
    assert not any(name.startswith(("quantizer", "text_encoder")) for name in module.state_dict())
