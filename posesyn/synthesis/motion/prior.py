"""The motion prior: tokeniser, transformer, text encoder and statistics as one thing that is saved and loaded whole."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from posesyn.errors import CheckpointError, FileError, InputError
from posesyn.protocols import TextEncoder
from posesyn.storage.checkpoints import load_into, load_metadata, load_weights, save_weights
from posesyn.synthesis.motion.normalizer import Normalizer
from posesyn.synthesis.motion.text import ClipTextEncoder, HashTextConfig, HashTextEncoder, SentenceTextEncoder
from posesyn.synthesis.motion.transformer import MotionTransformer, TransformerConfig
from posesyn.synthesis.motion.vqvae import MotionVQVAE, VQVAEConfig

FORMAT = "posesyn-motion-prior-1"
SHIPPED = Path(__file__).parents[2] / "assets" / "motion_prior.safetensors"


class MotionPriorModel(nn.Module):
    """Text-to-motion model over HumanML3D features at 20 fps; fits :class:`posesyn.protocols.MotionPrior`.

    Attributes:
        name: Name for provenance, e.g. ``"posesyn-cmu-small"``.
        vqvae, transformer: The networks.
        text_encoder: Any :class:`~posesyn.protocols.TextEncoder` of the transformer's ``text_dim``.
        normalizer: Statistics the networks were trained with; they travel with the weights.
        guidance: Classifier-free guidance to sample with by default; 1 for models not trained for it.
    """

    def __init__(
        self,
        vqvae: MotionVQVAE,
        transformer: MotionTransformer,
        text_encoder: TextEncoder,
        normalizer: Normalizer,
        name: str = "motion-prior",
        guidance: float = 1.0,
    ) -> None:
        super().__init__()
        if transformer.config.codes != vqvae.config.codes:
            raise InputError(
                "tokeniser and transformer have different codebooks",
                where=f"motion prior '{name}'",
                expected=vqvae.config.codes,
                got=transformer.config.codes,
            )
        if text_encoder.dim != transformer.config.text_dim:
            raise InputError(
                "text encoder and transformer do not fit",
                where=f"motion prior '{name}'",
                expected=f"embeddings of size {transformer.config.text_dim}",
                got=text_encoder.dim,
            )
        self.vqvae, self.transformer, self.text_encoder = vqvae, transformer, text_encoder
        self.normalizer, self.name, self.guidance = normalizer, name, guidance
        self.eval()

    @property
    def frames_per_token(self) -> int:
        return self.vqvae.config.frames_per_token

    @property
    def max_tokens(self) -> int:
        return self.transformer.config.max_tokens

    def encode(self, features: Tensor) -> Tensor:
        """(B, T, 263) features, not normalised → (B, T // 4) codes."""
        return self.vqvae.encode(self.normalizer.normalize(features))

    def decode(self, codes: Tensor) -> Tensor:
        """(B, N) codes → (B, 4 N, 263) features, not normalised; rows are independent."""
        return self.normalizer.denormalize(self.vqvae.decode(codes))

    def embed(self, texts: Sequence[str]) -> Tensor:
        """B texts → (B, text_dim)."""
        return self.text_encoder.encode(texts)

    def sample(self, text_embedding: Tensor, prefix_codes: Any = None, **options: Any) -> list[Tensor]:
        """Codes of every sampled motion, prefix included, END excluded; options of :meth:`MotionTransformer.sample`."""
        options.setdefault("guidance", self.guidance)
        return self.transformer.sample(text_embedding, prefix_codes, **options)

    def save(self, path: str | Path, half: bool = True) -> None:
        """Writes safetensors: weights (float16 if ``half``; buffers and statistics stay float32) and all settings.

        Raises:
            InputError: The text encoder cannot be described in the file; only the three of posesyn can.
        """
        parameters = {name for name, _ in self.named_parameters()}
        weights = {
            # CLIP and sentence encoders are files of their own.
            name: value.half() if half and name in parameters else value
            for name, value in self.state_dict().items()
            if not name.startswith("text_encoder.") or isinstance(self.text_encoder, HashTextEncoder)
        }
        weights["normalizer.mean"] = torch.from_numpy(self.normalizer.mean)
        weights["normalizer.std"] = torch.from_numpy(self.normalizer.std)
        settings = {
            "format": FORMAT,
            "name": self.name,
            "guidance": self.guidance,
            "vqvae": self.vqvae.config_dict(),
            "transformer": self.transformer.config_dict(),
            "text": _describe(self.text_encoder),
            "normalizer": self.normalizer.name,
        }
        save_weights(path, weights, settings)

    @classmethod
    def load(cls, path: str | Path | None = None, text_encoder: TextEncoder | None = None) -> MotionPriorModel:
        """Reads what :meth:`save` wrote; None is the shipped prior.

        Args:
            path: A file.
            text_encoder: For priors whose encoder is a file of its own (CLIP).

        Raises:
            FileError: Missing or damaged.
            CheckpointError: Not a motion prior, or weights that do not fit its settings.
        """
        path = SHIPPED if path is None else Path(path)
        if not path.is_file():
            raise FileError(
                "there is no such motion prior",
                where=path,
                fix="use MotionSynthesizer.from_pretrained() for the shipped one, or tools/train_prior.py to make one",
            )
        settings, weights = load_metadata(path), load_weights(path)
        if settings.get("format") != FORMAT:
            raise CheckpointError(
                "the file is not a motion prior", where=path, expected=FORMAT, got=settings.get("format", "no format")
            )
        try:
            vqvae = MotionVQVAE(VQVAEConfig(**settings["vqvae"]))
            transformer = MotionTransformer(TransformerConfig(**settings["transformer"]))
            normalizer = Normalizer(
                settings["normalizer"], weights.pop("normalizer.mean").numpy(), weights.pop("normalizer.std").numpy()
            )
            encoder = text_encoder or _build(settings["text"])
            model = cls(vqvae, transformer, encoder, normalizer, settings["name"], float(settings["guidance"]))
        except (KeyError, TypeError) as error:
            raise CheckpointError("the motion prior's settings are damaged", where=path, got=error) from error
        load_into(
            model,
            {name: value.float() if value.is_floating_point() else value for name, value in weights.items()},
            where=path,
        )
        return model.eval()

    @classmethod
    def from_official(
        cls, vqvae: str | Path, transformer: str | Path, mean: str | Path, std: str | Path, clip: str | Path
    ) -> MotionPriorModel:
        """The published T2M-GPT model from its own files.

        Args:
            vqvae: ``net_last.pth``.
            transformer: ``net_best_fid.pth``.
            mean, std: ``mean.npy`` and ``std.npy`` of ``VQVAEV3_CB1024_CMT_H1024_NRES3/meta``. Files of that name from
                other projects differ by 25 times on the root; the normaliser is named after a hash of their content.
            clip: Folder of CLIP ViT-B/32 in the transformers format.

        Raises:
            FileError, UnsafeFileError, CheckpointError: A file that is missing, damaged or of another model.
        """
        arrays = []
        for path in map(Path, (mean, std)):
            try:
                arrays.append(np.load(path, allow_pickle=False))
            except (OSError, ValueError) as error:
                raise FileError("the statistics cannot be read", where=path, got=error) from error
        name = "t2mgpt-" + hashlib.sha256(b"".join(a.astype(np.float32).tobytes() for a in arrays)).hexdigest()[:8]
        return cls(
            MotionVQVAE.from_official(vqvae),
            MotionTransformer.from_official(transformer),
            ClipTextEncoder(clip),
            Normalizer(name, *arrays),
            name="t2mgpt-official",
        )


def _describe(encoder: TextEncoder) -> dict[str, Any]:
    if isinstance(encoder, HashTextEncoder):
        return {"kind": "hash", **encoder.config_dict()}
    kinds = {SentenceTextEncoder: "sentence", ClipTextEncoder: "clip"}
    if type(encoder) not in kinds:
        raise InputError("this text encoder cannot be saved with a prior", where=type(encoder).__name__)
    return {"kind": kinds[type(encoder)]}


def _build(settings: dict[str, Any]) -> TextEncoder:
    settings = dict(settings)
    kind = settings.pop("kind")
    if kind == "hash":
        return HashTextEncoder(HashTextConfig(**{**settings, "letters": tuple(settings["letters"])}))
    if kind == "sentence":
        return SentenceTextEncoder()
    raise CheckpointError(
        "the motion prior needs its text encoder",
        expected="text_encoder=ClipTextEncoder(folder)",
        got=kind,
        fix="pass the encoder to MotionPriorModel.load(path, text_encoder=...)",
    )
