"""HMR2's head: one query token that looks at the feature map and is read out as a SMPL body."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from posesyn.estimators.regressor import CAM_SIZE, POSE_SIZE, SHAPE_SIZE

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
        self.layers = nn.ModuleList(
            nn.ModuleList(
                (
                    _Normed(dim, _SelfAttention(dim, heads * head_dim)),
                    _Normed(dim, _CrossAttention(dim, context_dim, heads, head_dim)),
                    _Normed(dim, _FeedForward(dim, mlp_dim)),
                )
            )
            for _ in range(depth)
        )

    def forward(self, token: Tensor, context: Tensor) -> Tensor:
        for own, cross, feed in self.layers:
            token = token + own(token)
            token = token + cross(token, context)
            token = token + feed(token)
        return token


class TokenDecoder(nn.Module):
    """One learned token through pre-norm layers of self-attention, cross-attention and feed-forward; no final norm.

    Args:
        dim: Of the token.
        context_dim: Of what it looks at; not normalised again.
        depth, heads, head_dim, mlp_dim: Of the layers.
    """

    def __init__(
        self,
        dim: int = 1024,
        context_dim: int = 1280,
        depth: int = 6,
        heads: int = 8,
        head_dim: int = 64,
        mlp_dim: int = 1024,
    ) -> None:
        super().__init__()
        # The published token is made from the number 0, so the weight of this layer never acts.
        self.to_token_embedding = nn.Linear(1, dim)
        self.pos_embedding = nn.Parameter(torch.randn(1, 1, dim))
        self.transformer = _Layers(depth, dim, context_dim, heads, head_dim, mlp_dim)

    def forward(self, context: Float[Tensor, "B N C"]) -> Float[Tensor, "B D"]:
        zero = context.new_zeros(len(context), 1, 1)
        return self.transformer(self.to_token_embedding(zero) + self.pos_embedding, context)[:, 0]


class SmplDecoder(nn.Module):
    """Feature map → 6D pose, betas, weak-perspective camera; key names of ``smpl_head`` of shubham-goel/4D-Humans.

    Args:
        context_dim: Channels of the feature map.
        options: See :class:`TokenDecoder`.
    """

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
        return (
            self.init_body_pose + self.decpose(token),
            self.init_betas + self.decshape(token),
            self.init_cam + self.deccam(token),
        )
