"""Fixtures for all tests. Environment variables are set before torch is imported anywhere."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("MPLBACKEND", "Agg")

from pathlib import Path

import numpy as np
import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The data pack beside the checkout; tests that need it skip where it is absent."""
    if not SHARED.is_dir():
        pytest.skip(f"the data pack {SHARED} is absent")
    return SHARED


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def vision_model(tmp_path_factory) -> Path:
    """A LLaVA with random weights: 32-pixel CLIP, two-layer Llama, a vocabulary of a few dozen words."""
    pytest.importorskip("transformers")
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import (
        CLIPImageProcessor,
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
        PreTrainedTokenizerFast,
    )

    from posesyn.synthesis.motion.captions import PROMPT

    words = sorted({*PROMPT.lower().replace("?", "").replace(".", "").replace(":", "").split(), "walks", "."})
    vocabulary = {word: i for i, word in enumerate(["<unk>", "<s>", "</s>", "<pad>", "<image>", *words])}
    raw = Tokenizer(models.WordLevel(vocabulary, "<unk>"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>",
        additional_special_tokens=["<image>"], padding_side="left",
    )  # fmt: skip
    template = (
        "{% for message in messages %}{% for part in message['content'] %}"
        "{% if part['type'] == 'image' %}<image>{% else %} {{ part['text'] }} {% endif %}"
        "{% endfor %}{% endfor %}"
    )
    processor = LlavaProcessor(
        CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}), tokenizer,
        patch_size=16, vision_feature_select_strategy="default", chat_template=template, num_additional_image_tokens=1,
    )  # fmt: skip
    vision = CLIPVisionConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=32, patch_size=16,
        projection_dim=16,
    )  # fmt: skip
    text = LlamaConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2,
        vocab_size=len(vocabulary), max_position_embeddings=256, bos_token_id=1, eos_token_id=2, pad_token_id=3,
    )  # fmt: skip
    torch.manual_seed(0)
    config = LlavaConfig(
        vision_config=vision, text_config=text, image_token_index=vocabulary["<image>"], vision_feature_layer=-1
    )
    folder = tmp_path_factory.mktemp("vlm")
    LlavaForConditionalGeneration(config).eval().save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture
def make_clip():
    """Factory of small consistent clips: a stick body in front of a camera, labels that project exactly."""
    return _make_clip


def _make_clip(clip_id: str = "clip-0", frames: int = 5, size: int = 48, seed: int = 0, **fields):
    from posesyn.types import Clip

    rng = np.random.default_rng(seed)
    joints = rng.normal(0, 0.25, (frames, 45, 3)) + np.array([0, 0, 3.0])
    intrinsics = np.array([[1.2 * size, 0, (size - 1) / 2], [0, 1.2 * size, (size - 1) / 2], [0, 0, 1.0]])
    keypoints = joints[..., :2] / joints[..., 2:] * 1.2 * size + (size - 1) / 2
    mask = np.zeros((frames, size, size), bool)
    for index, points in enumerate(keypoints):
        low = np.clip(points.min(0), 0, size - 2).astype(int)
        high = np.clip(points.max(0), 1, size - 1).astype(int)
        mask[index, low[1] : high[1] + 1, low[0] : high[0] + 1] = True
    rows, columns = np.mgrid[:size, :size]
    smooth = np.stack([rows * 4 % 255, columns * 4 % 255, (rows + columns) * 2 % 255], -1).astype(np.uint8)
    values = {
        "frames": np.stack([np.roll(smooth, index, 1) for index in range(frames)]),
        "pose_rotvec": rng.normal(0, 0.3, (frames, 24, 3)).astype(np.float32),
        "betas": rng.normal(0, 1, 10).astype(np.float32),
        "transl_cam": joints[:, 0].astype(np.float32),
        "joints_cam": joints.astype(np.float32),
        "keypoints_px": keypoints.astype(np.float32),
        "visible": ((keypoints >= 0) & (keypoints < size)).all(-1),
        "mask": mask,
        "depth": np.where(mask, 3.0, 0.0).astype(np.float16),
        "intrinsics": intrinsics.astype(np.float32),
        "fps": 20.0,
    }
    return Clip(clip_id, **{**values, **fields})
