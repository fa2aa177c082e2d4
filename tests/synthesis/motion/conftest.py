from __future__ import annotations

import numpy as np
import pytest
import torch

from posesyn.synthesis.motion.prior.normalizer import Normalizer
from posesyn.synthesis.motion.prior.prior import MotionPriorModel
from posesyn.synthesis.motion.prior.text import HashTextConfig, HashTextEncoder
from posesyn.synthesis.motion.prior.transformer import MotionTransformer, TransformerConfig
from posesyn.synthesis.motion.prior.vqvae import MotionVQVAE, VQVAEConfig


def make_prior(seed: int = 0) -> MotionPriorModel:
    """A whole prior with random weights, small enough for milliseconds; its motions are near a standing pose."""
    torch.manual_seed(seed)
    vqvae = MotionVQVAE(VQVAEConfig(codes=24, code_dim=8, width=12))
    vqvae.vqvae.quantizer.codebook.normal_()
    transformer = MotionTransformer(TransformerConfig(codes=24, width=16, text_dim=10, layers=1, heads=2))
    for parameter in transformer.parameters():
        parameter.data.mul_(6)
    encoder = HashTextEncoder(HashTextConfig(buckets=64, width=8, dim=10))
    return MotionPriorModel(
        vqvae, transformer, encoder, Normalizer("test", standing_features(), np.full(263, 0.05)), "tiny"
    )


def standing_joints() -> np.ndarray:
    """(22, 3) a person standing with the arms hanging, facing +z, pelvis at the origin."""
    half = {
        0: (0, 0), 3: (0, 0.12), 6: (0, 0.26), 9: (0, 0.31), 12: (0, 0.52), 15: (0, 0.62), 1: (0.07, -0.09),
        4: (0.1, -0.47), 7: (0.09, -0.87), 10: (0.1, -0.92), 13: (0.08, 0.43), 16: (0.19, 0.45), 18: (0.25, 0.2),
        20: (0.27, -0.05),
    }  # fmt: skip
    mirror = {1: 2, 4: 5, 7: 8, 10: 11, 13: 14, 16: 17, 18: 19, 20: 21}
    joints = np.zeros((22, 3))
    for index, (x, y) in half.items():
        joints[index, :2] = x, y
        if index in mirror:
            joints[mirror[index], :2] = -x, y
    joints[[10, 11], 2] = 0.13
    return joints


def standing_features() -> np.ndarray:
    from posesyn.synthesis.motion.prior.features import motion_features

    return motion_features(np.repeat(standing_joints()[None], 2, 0))[0]


@pytest.fixture
def tiny_prior() -> MotionPriorModel:
    return make_prior()


@pytest.fixture
def standing() -> np.ndarray:
    return standing_joints()
