"""Captioned motions as training batches of the motion prior."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from posesyn.errors import InputError
from posesyn.synthesis.motion.prior.features import motion_features, recover_joints, still_features
from posesyn.synthesis.motion.prior.normalizer import FEATURE_DIM
from posesyn.synthesis.motion.prior.text import paraphrase
from posesyn.synthesis.motion.prior.vqvae import MotionVQVAE


@dataclass(frozen=True, eq=False)
class FeatureClip:
    """Features (T, 263) of one motion and what is said about it."""

    clip_id: str
    features: np.ndarray
    captions: tuple[str, ...]

    @classmethod
    def of(
        cls, clip_id: str, joints: np.ndarray, target_offsets: np.ndarray | None, captions: Sequence[str]
    ) -> FeatureClip:
        """From joints (T, 22, 3) in metres, y up, 20 fps; not normalised. See :func:`motion_features`."""
        return cls(clip_id, motion_features(joints, target_offsets, continuous_heading=True), tuple(captions))


@dataclass(frozen=True, eq=False)
class TokenClip:
    """One motion as tokens."""

    clip_id: str
    # Token sequences (N,) or (N, quantizers) of the motion, from its first frames on, one each.
    phases: tuple[np.ndarray, ...]
    # (N, P) or (N, P, quantizers) codes of the N-th token's first pose (of phase 0) held still, to start from.
    poses: np.ndarray
    captions: tuple[str, ...]


def warped(joints: np.ndarray, speed: float) -> np.ndarray:
    """(T, J, 3) played ``speed`` times as fast, by linear interpolation of positions."""
    times = np.arange(0, len(joints) - 1 + 1e-6, speed)
    low = np.minimum(times.astype(int), len(joints) - 2)
    share = (times - low)[:, None, None]
    return (joints[low] * (1 - share) + joints[low + 1] * share).astype(np.float32)


class FeatureWindows(Dataset):
    """Random windows of clips, chosen in proportion to their length.

    Item i depends on (seed, i) only. ``count`` items make up the whole training.
    """

    def __init__(self, clips: Sequence[FeatureClip], window: int, count: int, seed: int = 0) -> None:
        self.clips = [clip for clip in clips if len(clip.features) >= window]
        if not self.clips:
            expected = f">= {window} frames"
            raise InputError("no motion is long enough for the window", where="FeatureWindows", expected=expected)
        self.window, self.count, self.seed = window, count, seed
        starts = np.array([len(clip.features) - window + 1 for clip in self.clips], float)
        self.bounds = np.cumsum(starts / starts.sum())

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Tensor:
        rng = np.random.default_rng([self.seed, index])
        clip = self.clips[min(int(np.searchsorted(self.bounds, rng.random())), len(self.clips) - 1)]
        start = rng.integers(len(clip.features) - self.window + 1)
        return torch.from_numpy(clip.features[start : start + self.window])


class MixedWindows(Dataset):
    """Windows for the tokeniser: recorded motions, made-up ones, and poses that are held still.

    Item i depends on (seed, i) only.

    Args:
        recorded, perturbed: Sources of windows.
        held: (N, 263) normalised features of poses that are held still
            (:func:`~posesyn.synthesis.motion.prior.features.still_features`).
        perturbed_share, held_share: Shares of the windows that are made up, and of those that are one held pose.
        stopped_share: Share of the other windows in which the first 4 to 16 frames hold the next frame's pose.
        still: Normalised values of the root's steps and the joint velocities at rest and of contacts at 1, (263,);
            other entries are not used.
    """

    def __init__(
        self,
        recorded: FeatureWindows,
        perturbed: FeatureWindows,
        held: np.ndarray,
        still: np.ndarray,
        perturbed_share: float = 0.4,
        held_share: float = 0.15,
        stopped_share: float = 0.15,
    ) -> None:
        self.recorded, self.perturbed, self.held, self.still = recorded, perturbed, held, still
        self.bounds = np.cumsum([held_share, perturbed_share])
        self.stopped_share = stopped_share

    def __len__(self) -> int:
        return len(self.recorded)

    def __getitem__(self, index: int) -> Tensor:
        rng = np.random.default_rng([self.recorded.seed, index, 1])
        kind = int(np.searchsorted(self.bounds, rng.random(), side="right"))
        window = self.recorded.window
        if kind == 0:
            return torch.from_numpy(np.repeat(self.held[rng.integers(len(self.held))][None], window, 0))
        frames = (self.perturbed if kind == 1 else self.recorded)[index]
        if rng.random() < self.stopped_share:
            stop = int(rng.integers(4, 17))
            frames = frames.clone()
            frames[:stop] = frames[stop]
            for part in (slice(0, 3), slice(193, FEATURE_DIM)):
                frames[:stop, part] = torch.from_numpy(self.still[part])
        return frames


@torch.no_grad()
def tokenize(
    vqvae: MotionVQVAE, normalizer, clips: Sequence[FeatureClip], held_tokens: int = 2, phases: int = 2
) -> list[TokenClip]:
    """Tokens of normalised clips, begun at ``phases`` of their first frames, and of poses held still.

    Every token's first pose is held for ``held_tokens`` tokens.
    """
    step = vqvae.config.frames_per_token
    result = []
    for clip in clips:
        starts = [k * step // phases for k in range(phases) if len(clip.features) - k * step // phases >= step]
        sequences = tuple(vqvae.encode(torch.from_numpy(clip.features[start:])[None])[0].numpy() for start in starts)
        joints = recover_joints(normalizer.denormalize(clip.features))[::step][: len(sequences[0])]
        still = normalizer.normalize(still_features(joints)).astype(np.float32)
        poses = vqvae.encode(torch.from_numpy(np.repeat(still[:, None], held_tokens * step, 1))).numpy()
        result.append(TokenClip(clip.clip_id, sequences, poses, clip.captions))
    return result


@dataclass(frozen=True)
class TokenRecipe:
    """How training examples are cut from tokens. The first default is T2M-GPT's, the rest our own choice."""

    max_tokens: int = 50  # longest example, END not counted
    # Share of examples that begin with one or more tokens of their first pose held still, as the synthesizer prompts;
    # these tokens carry no loss.
    held_share: float = 0.5
    paraphrase_share: float = 0.5  # share of captions that are reworded by templates
    early_start_share: float = 0.5  # share of short motions that begin later than at their first frame


class TokenWindows(Dataset):
    """Examples (caption, input tokens, target tokens) of the transformer; item i depends on (seed, i) only.

    Motions of more than ``max_tokens`` tokens give random windows without END (unless they reach the end of the
    motion); shorter ones end with END. Targets that carry no loss are ``pad``.
    """

    def __init__(
        self,
        clips: Sequence[TokenClip],
        codes: int,
        count: int,
        seed: int = 0,
        recipe: TokenRecipe | None = None,
        weights: Sequence[float] | None = None,
    ) -> None:
        self.clips = [clip for clip in clips if clip.captions]
        if not self.clips:
            raise InputError("no motion has a caption", where="TokenWindows", expected="at least one")
        if weights is None:  # a long take counts more, but not in proportion: it repeats itself
            weights = [len(clip.phases[0]) ** 0.5 for clip in self.clips]
        self.bounds = np.cumsum(np.asarray(weights, float) / np.sum(weights))
        self.end, self.pad = codes, codes + 1
        self.count, self.seed, self.recipe = count, seed, recipe or TokenRecipe()

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, object]:
        """An example.

        ``text``; ``inputs`` (max_tokens,) and ``targets`` (max_tokens + 1,) of the first codebook; number of ``held``
        tokens in front; ``codes`` (max_tokens, quantizers) of all codebooks; ``length``.
        """
        rng, recipe = np.random.default_rng([self.seed, index]), self.recipe
        clip = self.clips[min(int(np.searchsorted(self.bounds, rng.random())), len(self.clips) - 1)]
        codes, poses = clip.phases[rng.integers(len(clip.phases))], clip.poses
        held = int(rng.integers(1, poses.shape[1] + 1)) if rng.random() < recipe.held_share else 0
        room, start = recipe.max_tokens - held, 0
        if len(codes) > room:
            start = int(rng.integers(len(codes) - room + 1))
        elif rng.random() < recipe.early_start_share:
            start = int(rng.integers(max(1, len(codes) // 2)))
        body = codes[start : start + room]
        tokens = np.concatenate([poses[start, :held], body]).reshape(held + len(body), -1)  # (n, quantizers)
        every = np.zeros((recipe.max_tokens, tokens.shape[1]), np.int64)
        every[: len(tokens)] = tokens
        inputs = np.full(recipe.max_tokens, self.pad, np.int64)
        targets = np.full(recipe.max_tokens + 1, self.pad, np.int64)
        inputs[: len(tokens)] = tokens[:, 0]
        targets[held : len(tokens)] = tokens[held:, 0]
        if start + len(body) == len(codes):
            targets[len(tokens)] = self.end
        caption = clip.captions[rng.integers(len(clip.captions))]
        if rng.random() < recipe.paraphrase_share:
            caption = paraphrase(caption, lambda n: int(rng.integers(n)))
        numbers = {"held": held, "codes": every, "length": len(tokens)}
        return {"text": caption, "inputs": inputs, "targets": targets, **numbers}


def collate_tokens(items: Sequence[dict[str, object]]) -> dict[str, object]:
    """Examples of :class:`TokenWindows` as a batch: ``text`` a list of B, all else tensors with B rows."""
    batch: dict[str, object] = {"text": [item["text"] for item in items]}
    longest = max(item["length"] for item in items)  # padding beyond it would cost time only
    for name, count in (("inputs", longest), ("targets", longest + 1), ("codes", longest)):
        batch[name] = torch.from_numpy(np.stack([item[name][:count] for item in items]))
    for name in ("held", "length"):
        batch[name] = torch.tensor([item[name] for item in items])
    return batch


class _Onwards(Sampler):
    """Indices from ``start`` on; its length is that of the whole, as Lightning counts the batches done before."""

    def __init__(self, count: int, start: int) -> None:
        self.count, self.start = count, start

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.start, self.count))


class MotionDataModule(pl.LightningDataModule):
    """Training and validation examples for one of the modules of :mod:`posesyn.training.prior.modules`.

    ``train`` and ``val`` are :class:`FeatureWindows` or :class:`TokenWindows`, fixed ones for validation; the examples
    do not depend on ``num_workers``.
    """

    def __init__(self, train: Dataset, val: Dataset, batch_size: int, num_workers: int = 0) -> None:
        super().__init__()
        if batch_size < 1:
            raise InputError("batch_size must be positive", where="MotionDataModule", got=batch_size)
        self.train, self.val, self.batch_size, self.num_workers = train, val, batch_size, num_workers

    def _loader(self, data: Dataset, start: int = 0) -> DataLoader:
        collate: Callable | None = collate_tokens if isinstance(data, TokenWindows) else None
        order = _Onwards(len(data), start)
        return DataLoader(data, self.batch_size, sampler=order, num_workers=self.num_workers, collate_fn=collate)

    def train_dataloader(self) -> DataLoader:
        # Items are random already; their order needs no shuffling. A resumed training goes on where it stopped.
        done = 0 if self.trainer is None else self.trainer.global_step
        if done:  # Lightning does not know that this data module goes on at the right example
            warnings.filterwarnings("ignore", message="You're resuming from a checkpoint that ended before")
        return self._loader(self.train, done * self.batch_size % len(self.train))

    def val_dataloader(self) -> DataLoader:
        return self._loader(self.val)


def reconstruction_error_mm(
    vqvae: MotionVQVAE, normalizer, clips: Sequence[FeatureClip], window: int = 64
) -> dict[str, float]:
    """How far joints move when motions pass through the tokens: mm, mean over joints and frames.

    Clips are cut into windows of at most ``window`` frames. ``local`` compares root-relative joints in each frame's
    own heading; ``mpjpe`` compares joints with the heading rebuilt from the start of the window, pelvis on pelvis in
    each frame, as T2M-GPT's and MoMask's evaluations do (their windows are whole clips of at most 196 frames); ``path``
    compares joints with heading and path rebuilt, so errors add up.
    """
    errors, local, posed, step = [], [], [], vqvae.config.frames_per_token
    for clip in clips:
        for start in range(0, len(clip.features) - step + 1, window):
            frames = min(window, len(clip.features) - start) // step * step
            if frames < step:
                continue
            features = torch.from_numpy(clip.features[start : start + frames])[None]
            decoded = vqvae.decode(vqvae.encode(features))
            truth, got = (normalizer.denormalize(x)[0] for x in (features, decoded))
            world, own = recover_joints(truth), recover_joints(got)
            errors.append((own - world).norm(dim=-1).mean(-1))
            posed.append((own - own[:, :1] - world + world[:, :1]).norm(dim=-1).mean(-1))
            offsets = (got - truth)[:, 4:67].unflatten(-1, (21, 3))
            offsets = offsets - (got - truth)[:, None, 3:4] * offsets.new_tensor([0.0, 1.0, 0.0])
            local.append(offsets.norm(dim=-1).mean(-1))
    return {
        "local [mm]": float(torch.cat(local).mean() * 1000),
        "mpjpe [mm]": float(torch.cat(posed).mean() * 1000),
        "path [mm]": float(torch.cat(errors).mean() * 1000),
        "frames": int(sum(map(len, errors))),
    }


def features_of(motions, target_offsets: np.ndarray | None, speeds: Sequence[float] = (1.0,)) -> list[FeatureClip]:
    """Features, not normalised, of captioned mocap at each speed; too short results are left out.

    Args:
        motions: :class:`posesyn.data.motions.captions.CaptionedMotion` objects at 20 fps.
        target_offsets: (22, 3) bone vectors of the body the prior is for.
        speeds: Playback speeds; other than 1 are an augmentation (our own choice).
    """
    clips = []
    for motion in motions:
        for speed in speeds:
            joints = motion.joints_world if speed == 1 else warped(motion.joints_world, speed)
            if len(joints) < 9:
                continue
            clips.append(FeatureClip.of(f"{motion.motion_id}x{speed:g}", joints, target_offsets, motion.captions))
    return clips
