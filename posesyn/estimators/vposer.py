"""The layers of VPoser v1, a variational pose prior: 32 numbers ↔ the rotations of 21 body joints."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from posesyn.geometry.rotations import rot6d_to_matrix

LATENT, JOINTS = 32, 21
_HIDDEN, _SLOPE = 512, 0.2


class VPoser(nn.Module):
    """Decoder 32-512-512-126 and the encoder that belongs to it (estimators.md section 2.2; key names of the v1 file).

    Weights are licensed apart and come with official checkpoints only; at random the decoder is a plain two-layer
    network from latent to pose that can be trained.
    """

    def __init__(self) -> None:
        super().__init__()
        self.bodyprior_enc_bn1 = nn.BatchNorm1d(3 * JOINTS)
        self.bodyprior_enc_fc1 = nn.Linear(3 * JOINTS, _HIDDEN)
        self.bodyprior_enc_bn2 = nn.BatchNorm1d(_HIDDEN)
        self.bodyprior_enc_fc2 = nn.Linear(_HIDDEN, _HIDDEN)
        self.bodyprior_enc_mu = nn.Linear(_HIDDEN, LATENT)
        self.bodyprior_enc_logvar = nn.Linear(_HIDDEN, LATENT)
        self.bodyprior_dec_fc1 = nn.Linear(LATENT, _HIDDEN)
        self.bodyprior_dec_fc2 = nn.Linear(_HIDDEN, _HIDDEN)
        self.bodyprior_dec_out = nn.Linear(_HIDDEN, 6 * JOINTS)

    def encode(self, pose_rotvec: Float[Tensor, "B 21 3"]) -> Float[Tensor, "B 32"]:
        """Mean of the latent; eval mode, as the prior is frozen."""
        hidden = self.bodyprior_enc_fc1(self.bodyprior_enc_bn1(pose_rotvec.flatten(1)))
        hidden = self.bodyprior_enc_bn2(functional.leaky_relu(hidden, _SLOPE))
        return self.bodyprior_enc_mu(functional.leaky_relu(self.bodyprior_enc_fc2(hidden), _SLOPE))

    def decode(self, latent: Float[Tensor, "B 32"]) -> Float[Tensor, "B 21 3 3"]:
        """Local rotations of SMPL's joints 1 to 21."""
        hidden = functional.leaky_relu(self.bodyprior_dec_fc1(latent), _SLOPE)
        hidden = functional.leaky_relu(self.bodyprior_dec_fc2(hidden), _SLOPE)
        return rot6d_to_matrix(self.bodyprior_dec_out(hidden).view(-1, JOINTS, 6), layout="interleaved")


class PosePrior(nn.Module):
    """A :class:`VPoser` under the name ``vposer``, as 3DCrowdNet's files have it.

    Args:
        frozen: Whether its weights stay as they are in training.
    """

    def __init__(self, frozen: bool) -> None:
        super().__init__()
        self.vposer = VPoser()
        self.frozen = frozen
        self.vposer.requires_grad_(False)
        if not frozen:
            for name, parameter in self.vposer.named_parameters():
                parameter.requires_grad_(name.startswith("bodyprior_dec_"))

    def train(self, mode: bool = True) -> PosePrior:
        super().train(mode)
        self.vposer.eval()  # its normalisation belongs to the encoder, which is never trained here
        return self

    def forward(self, latent: Float[Tensor, "B 32"]) -> Float[Tensor, "B 21 3 3"]:
        """Decodes."""
        return self.vposer.decode(latent)


def body_pose_of(decoded: Float[Tensor, "B 21 3 3"], root: Float[Tensor, "B 3 3"]) -> Float[Tensor, "B 24 3 3"]:
    """Root, 21 joints and two resting hands."""
    hands = torch.eye(3, dtype=decoded.dtype, device=decoded.device).expand(len(decoded), 2, 3, 3)
    return torch.cat((root[:, None], decoded, hands), dim=1)
