"""HMR2.0 (4D-Humans): a ViT-H and a one-token decoder, image → SMPL pose, shape and weak-perspective camera."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.nn import functional

from posesyn.body import load_body
from posesyn.estimators.base import SmplNetwork
from posesyn.estimators.hmr2 import losses
from posesyn.estimators.hmr2.losses import Hmr2LossWeights, MocapPoses, PoseDiscriminator
from posesyn.estimators.layers import CAM_SIZE, POSE_SIZE, SHAPE_SIZE
from posesyn.estimators.losses import HMR2_RECIPE, trainable
from posesyn.estimators.weights import OfficialWeights
from posesyn.geometry.cameras import weak_perspective_to_translation
from posesyn.geometry.rotations import rot6d_to_matrix, rotvec_to_matrix
from posesyn.interfaces import BodyModel, EstimatorSpec
from posesyn.types import Motion

_norm = partial(nn.LayerNorm, eps=1e-6)


class PatchEmbedding(nn.Module):
    """Image → tokens of one strided convolution with zero padding."""

    def __init__(self, patch: int, padding: int, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, dim, patch, patch, padding)

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B dim h w"]:
        return self.proj(images)


class VisionTransformer(nn.Module):
    """Image of (height, width) → feature map; key names and layout of the backbone of shubham-goel/4D-Humans.

    The defaults are ViT-H as published. The position table keeps the row of a class token that is not there: it is
    added to every token. ``drop_path``: stochastic depth of the last block, rising linearly from 0 at the first.
    """

    def __init__(
        self,
        image_size: tuple[int, int] = (256, 192),
        patch: int = 16,
        padding: int = 2,
        dim: int = 1280,
        depth: int = 32,
        heads: int = 16,
        mlp_ratio: float = 4.0,
        drop_path: float = 0.55,
    ) -> None:
        super().__init__()
        self.patch_embed = PatchEmbedding(patch, padding, dim)
        height, width = ((side + 2 * padding - patch) // patch + 1 for side in image_size)
        self.pos_embed = nn.Parameter(torch.zeros(1, height * width + 1, dim))
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        rates = [drop_path * index / max(depth - 1, 1) for index in range(depth)]
        self.blocks = nn.ModuleList(
            Block(dim, heads, mlp_ratio, qkv_bias=True, drop_path=rate, norm_layer=_norm) for rate in rates
        )
        self.last_norm = _norm(dim)

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B dim h w"]:
        patches = self.patch_embed(images)
        tokens = patches.flatten(2).transpose(1, 2) + (self.pos_embed[:, 1:] + self.pos_embed[:, :1])
        for block in self.blocks:
            tokens = block(tokens)
        return self.last_norm(tokens).transpose(1, 2).reshape(patches.shape)


# A SMPL body stands with y up, the camera's y points down: half a turn about x, contiguous 6D.
_UPRIGHT = (1.0, 0.0, 0.0, 0.0, -1.0, 0.0)
_IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


class _Normed(nn.Module):
    """Normalises the token, and the token only, before ``fn``."""

    def __init__(self, dim: int, fn: nn.Module) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.fn = fn

    def forward(self, token: Tensor, *context: Tensor) -> Tensor:
        return self.fn(self.norm(token), *context)


class _Output(nn.Sequential):
    """A linear layer under the official name ``to_out.0``."""

    def __init__(self, inner: int, dim: int) -> None:
        super().__init__(nn.Linear(inner, dim))


class _SelfAttention(nn.Module):
    """Self-attention of a single token: its softmax has one element, so that only the values count."""

    def __init__(self, dim: int, inner: int) -> None:
        super().__init__()
        self.inner = inner
        self.to_qkv = nn.Linear(dim, 3 * inner, bias=False)
        self.to_out = _Output(inner, dim)

    def forward(self, token: Float[Tensor, "B 1 D"]) -> Float[Tensor, "B 1 D"]:
        return self.to_out(functional.linear(token, self.to_qkv.weight[2 * self.inner :]))


class _CrossAttention(nn.Module):
    def __init__(self, dim: int, context_dim: int, heads: int, head_dim: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_kv = nn.Linear(context_dim, 2 * heads * head_dim, bias=False)
        self.to_q = nn.Linear(dim, heads * head_dim, bias=False)
        self.to_out = _Output(heads * head_dim, dim)

    def forward(self, token: Float[Tensor, "B 1 D"], context: Float[Tensor, "B N C"]) -> Float[Tensor, "B 1 D"]:
        keys, values = (self._split(part) for part in self.to_kv(context).chunk(2, dim=-1))
        found = functional.scaled_dot_product_attention(self._split(self.to_q(token)), keys, values)
        return self.to_out(found.transpose(1, 2).flatten(2))

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class _FeedForward(nn.Module):
    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        # The places 2 and 4 are dropout, which is zero in the published network.
        self.net = nn.Sequential(
            nn.Linear(dim, hidden), nn.GELU(), nn.Identity(), nn.Linear(hidden, dim), nn.Identity()
        )

    def forward(self, token: Tensor) -> Tensor:
        return self.net(token)


class _Layers(nn.Module):
    def __init__(self, depth: int, dim: int, context_dim: int, heads: int, head_dim: int, mlp_dim: int) -> None:
        super().__init__()

        def layer() -> nn.ModuleList:
            own, cross = _SelfAttention(dim, heads * head_dim), _CrossAttention(dim, context_dim, heads, head_dim)
            return nn.ModuleList(_Normed(dim, part) for part in (own, cross, _FeedForward(dim, mlp_dim)))

        self.layers = nn.ModuleList(layer() for _ in range(depth))

    def forward(self, token: Tensor, context: Tensor) -> Tensor:
        for own, cross, feed in self.layers:
            token = token + own(token)
            token = token + cross(token, context)
            token = token + feed(token)
        return token


class TokenDecoder(nn.Module):
    """One learned token of ``dim`` through pre-norm layers of self-attention, cross-attention and feed-forward; no
    final norm. What it looks at, of ``context_dim``, is not normalised again."""

    def __init__(
        self, dim: int = 1024, context_dim: int = 1280, depth: int = 6, heads: int = 8, head_dim: int = 64,
        mlp_dim: int = 1024,
    ) -> None:  # fmt: skip
        super().__init__()
        # The published token is made from the number 0, so the weight of this layer never acts.
        self.to_token_embedding = nn.Linear(1, dim)
        self.pos_embedding = nn.Parameter(torch.randn(1, 1, dim))
        self.transformer = _Layers(depth, dim, context_dim, heads, head_dim, mlp_dim)

    def forward(self, context: Float[Tensor, "B N C"]) -> Float[Tensor, "B D"]:
        zero = context.new_zeros(len(context), 1, 1)
        return self.transformer(self.to_token_embedding(zero) + self.pos_embedding, context)[:, 0]


class SmplDecoder(nn.Module):
    """Feature map of ``context_dim`` channels → 6D pose, betas, weak-perspective camera; key names of ``smpl_head`` of
    shubham-goel/4D-Humans, ``options`` of :class:`TokenDecoder`."""

    init_body_pose: Tensor
    init_betas: Tensor
    init_cam: Tensor

    def __init__(self, context_dim: int = 1280, **options: int) -> None:
        super().__init__()
        self.transformer = TokenDecoder(context_dim=context_dim, **options)
        dim = self.transformer.pos_embedding.shape[-1]
        self.decpose = nn.Linear(dim, POSE_SIZE)
        self.decshape = nn.Linear(dim, SHAPE_SIZE)
        self.deccam = nn.Linear(dim, CAM_SIZE)
        # Official checkpoints bring mean parameters of mocap; the default is the rest pose.
        self.register_buffer("init_body_pose", torch.tensor([_UPRIGHT + _IDENTITY * 23]))
        self.register_buffer("init_betas", torch.zeros(1, SHAPE_SIZE))
        self.register_buffer("init_cam", torch.tensor([[0.9, 0.0, 0.0]]))

    def forward(
        self, maps: Float[Tensor, "B C h w"]
    ) -> tuple[Float[Tensor, "B 144"], Float[Tensor, "B 10"], Float[Tensor, "B 3"]]:
        """Returns 6D pose (24 x 6, contiguous, flattened), betas and camera (s, tx, ty)."""
        token = self.transformer(maps.flatten(2).transpose(1, 2))
        pose, betas, cam = self.decpose(token), self.decshape(token), self.deccam(token)
        return self.init_body_pose + pose, self.init_betas + betas, self.init_cam + cam


# The box is padded to 192:256 and then to a square (shubham-goel/4D-Humans); detector boxes are not enlarged.
HMR2_SPEC = EstimatorSpec(
    "hmr2",
    input_size=(256, 256),
    box_scale=1.0,
    box_aspect=192 / 256,
    rot6d_layout="contiguous",
    antialias="gaussian",
)
# Columns of the crop that the backbone does not see, on either side.
_MARGIN = 32
_DEPTH = 32
_IGNORED = ("smpl.", "discriminator.", "initialized")
_BLOCK = re.compile(r"backbone\.blocks\.(\d+)\.")


class HMR2(SmplNetwork):
    """Image → SMPL pose, shape and weak-perspective camera; a ``TrainableEstimator`` of 670 million weights.

    Layers, key names and numbers as in shubham-goel/4D-Humans.

    Args:
        depth: Blocks of the backbone; 32 as published.
        drop_path: Stochastic depth in training.
        body: Body model; default the free one in its small version.
        loss_weights: Default: the published ones.
        batch_size: Persons per forward pass in :meth:`predict`.
    """

    def __init__(
        self,
        depth: int = _DEPTH,
        *,
        drop_path: float = 0.55,
        body: BodyModel | None = None,
        loss_weights: Hmr2LossWeights | None = None,
        batch_size: int = 16,
    ) -> None:
        super().__init__(HMR2_SPEC, body, batch_size)
        self.backbone = VisionTransformer(depth=depth, drop_path=drop_path)
        self.smpl_head = SmplDecoder()
        self.loss_weights = loss_weights or Hmr2LossWeights()
        self.mocap: MocapPoses | None = None
        self.losses_computed = 0

    @classmethod
    def from_official(cls, path: str | os.PathLike[str], **options: Any) -> HMR2:
        """The network with weights from a checkpoint of shubham-goel/4D-Humans (a Lightning ``.ckpt``).

        Its configuration is read as plain data, never run; body model and discriminator in it are skipped. The depth
        is that of the file. Needs about 2.7 GB of memory for the published depth.

        Raises:
            FileError, CheckpointError: Not readable, or the checkpoint of another model.
        """
        official = OfficialWeights.read(path, _IGNORED)
        options.setdefault("body", load_body(size="small"))
        # Nothing is drawn at random for weights that are about to come, and they are not copied either.
        with torch.device("meta"):
            model = cls(_depth_of(official.tensors), **options)
        official.load_into(model, assign=True)
        return model.eval()

    def set_mocap(self, motions: Sequence[Motion], seed: int = 0) -> HMR2:
        """Adds the adversarial losses: a discriminator is trained along against the poses of these motions.

        Raises:
            InputError: No motions.
        """
        self.mocap = MocapPoses(list(motions), seed)
        self.discriminator = PoseDiscriminator().to(self.device)
        return self

    def forward(self, images: Float[Tensor, "B 3 256 256"]) -> dict[str, Tensor]:
        """Crops → ``pose_rotmat`` (B, 24, 3, 3), also as ``global_orient`` (B, 1, 3, 3) and ``body_pose``
        (B, 23, 3, 3), ``betas`` (B, 10), ``cam`` (B, 3) (s, tx, ty), ``cam_t`` (B, 3) metres in the camera of the
        crop, ``feature`` (B, 1280, 16, 12).

        Raises:
            InputError: Images of another size.
        """
        self.check_images(images)
        maps = self.run_heavy(self.backbone, images[..., _MARGIN:-_MARGIN])
        pose, betas, cam = self.smpl_head(maps)
        rotmat = rot6d_to_matrix(pose.view(-1, 24, 6), layout=self.spec.rot6d_layout)
        return {
            "pose_rotmat": rotmat,
            "global_orient": rotmat[:, :1],
            "body_pose": rotmat[:, 1:],
            "betas": betas,
            "cam": cam,
            "cam_t": weak_perspective_to_translation(cam, self.spec.focal_length, self.spec.input_size[1]),
            "feature": maps,
        }

    def training_losses(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """The published losses, see :mod:`posesyn.estimators.hmr2.losses`; adversarial ones after :meth:`set_mocap`."""
        output = self(batch["images"])
        joints = self.body(output["pose_rotmat"], output["betas"]).joints
        keypoints = losses.project_to_crop(joints, output["cam_t"], self.spec.focal_length, self.spec.input_size[1])
        terms = losses.hmr2_losses({**output, "joints": joints, "keypoints_norm": keypoints}, batch, self.loss_weights)
        if self.mocap is not None:
            step = batch.get("batch_index", self.losses_computed)
            self.losses_computed += 1
            rotvec, betas = (value.to(joints.device) for value in self.mocap.sample(len(joints), step))
            predicted = (output["body_pose"], output["betas"])
            real = (rotvec_to_matrix(rotvec), betas)
            terms |= losses.adversarial_losses(self.discriminator, predicted, real, self.loss_weights.adversarial)
        return terms

    def published_optimizers(self, learning_rate: float | None = None) -> dict[str, Any]:
        """The published AdamW, see :mod:`posesyn.estimators.losses`."""
        groups = trainable(self.named_parameters(), ["backbone.", "smpl_head.", "discriminator."])
        return HMR2_RECIPE.build(groups, learning_rate)


def _depth_of(names: Mapping[str, Tensor]) -> int:
    """Blocks numbered without a gap from 0; the published depth for a file without any, so that the report is right."""
    found = {int(match[1]) for name in names if (match := _BLOCK.match(name))}
    depth = 0
    while depth in found:
        depth += 1
    return depth or _DEPTH
