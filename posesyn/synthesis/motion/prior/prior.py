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
from posesyn.geometry.devices import device_of
from posesyn.interfaces import TextEncoder
from posesyn.storage.checkpoints import load_into, load_metadata, load_weights, save_weights
from posesyn.synthesis.motion.prior.normalizer import Normalizer
from posesyn.synthesis.motion.prior.quantizer import ResidualConfig, ResidualTransformer
from posesyn.synthesis.motion.prior.sampling import sample_tokens, seeds_of_rows
from posesyn.synthesis.motion.prior.text import ClipTextEncoder, HashTextConfig, HashTextEncoder, SentenceTextEncoder
from posesyn.synthesis.motion.prior.transformer import MotionTransformer, TransformerConfig
from posesyn.synthesis.motion.prior.vqvae import MotionVQVAE, VQVAEConfig

FORMAT = "posesyn-motion-prior-2"
_OLDER = ("posesyn-motion-prior-1",)  # read as well: one codebook, no residual transformer
SHIPPED = Path(__file__).parents[3] / "assets" / "motion_prior.safetensors"


class MotionPriorModel(nn.Module):
    """Text-to-motion model over HumanML3D features at 20 fps.

    Attributes:
        name: Name for provenance, e.g. ``"posesyn-cmu-small"``.
        vqvae, transformer: The networks.
        text_encoder: Any :class:`~posesyn.interfaces.TextEncoder` of the transformer's ``text_dim``.
        normalizer: Statistics the networks were trained with; they travel with the weights.
        guidance: Classifier-free guidance to sample with by default; 1 for models not trained for it.
        max_run: Default of the option of that name of ``SamplingOptions``.
        residual: Fills in the codes of further codebooks, for a tokeniser that has them; else None.
    """

    def __init__(
        self,
        vqvae: MotionVQVAE,
        transformer: MotionTransformer,
        text_encoder: TextEncoder,
        normalizer: Normalizer,
        name: str = "motion-prior",
        guidance: float = 1.0,
        residual: ResidualTransformer | None = None,
        max_run: int | None = None,
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
        _check_residual(residual, vqvae, text_encoder, f"motion prior '{name}'")
        self.vqvae, self.transformer, self.residual, self.text_encoder = vqvae, transformer, residual, text_encoder
        self.normalizer, self.name, self.guidance, self.max_run = normalizer, name, guidance, max_run
        self.eval()

    @property
    def device(self) -> torch.device:
        """Where the networks are; codes, features and embeddings that come out are there too."""
        return device_of(self.transformer)

    @property
    def frames_per_token(self) -> int:
        return self.vqvae.config.frames_per_token

    @property
    def max_tokens(self) -> int:
        return self.transformer.config.max_tokens

    def encode(self, features: Tensor) -> Tensor:
        """(B, T, 263) features, not normalised → codes (B, T // 4); with several codebooks (B, T // 4, quantizers)."""
        return self.vqvae.encode(self.normalizer.normalize(features.to(self.device)))

    def decode(self, codes: Tensor) -> Tensor:
        """Codes as of :meth:`encode` → (B, 4 N, 263) features, not normalised; rows are independent."""
        return self.normalizer.denormalize(self.vqvae.decode(codes.to(self.device)))

    def embed(self, texts: Sequence[str]) -> Tensor:
        """B texts → (B, text_dim)."""
        return self.text_encoder.encode(texts).to(self.device)

    @torch.no_grad()
    def sample(
        self,
        text_embedding: Tensor,
        prefix_codes: Tensor | Sequence[Tensor] | None = None,
        residual_temperature: float = 0.0,
        **options: Any,
    ) -> list[Tensor]:
        """Codes of every sampled motion, prefix included, END excluded.

        Args:
            text_embedding: (B, text_dim).
            prefix_codes: As :meth:`encode` gives them, (B, P) or (B, P, quantizers), or B tensors of any lengths. They
                stay as they are. Of several codebooks the first alone, (P,), will do: the rest is filled in.
            residual_temperature: 0 takes the likeliest codes of the further codebooks, else they are drawn.
            **options: Of ``sampling.sample_tokens``.

        Returns:
            B * num_samples tensors (N,), or (N, quantizers) with several codebooks.

        Raises:
            InputError: As ``sampling.sample_tokens``; a prefix of another number of codebooks.
        """
        options.setdefault("guidance", self.guidance)
        options.setdefault("max_run", self.max_run)
        if self.residual is None:
            return sample_tokens(self.transformer, text_embedding, prefix_codes, **options)
        count = options.get("num_samples", 1)
        prefixes = self._prefixes(prefix_codes, len(text_embedding))
        firsts = [prefix if prefix.ndim == 1 else prefix[:, 0] for prefix in prefixes]
        options["seed"] = seeds = seeds_of_rows(options.get("seed"), len(text_embedding) * count)
        codes = sample_tokens(self.transformer, text_embedding, firsts, **options)
        embedding = torch.as_tensor(text_embedding).to(self.residual.positions).repeat_interleave(count, 0)
        every = [prefix for prefix in prefixes for _ in range(count)]
        return self.residual.fill(embedding, codes, every, self.vqvae.vqvae.quantizer, residual_temperature, seeds)

    def _prefixes(self, prefixes: Tensor | Sequence[Tensor] | None, rows: int) -> list[Tensor]:
        where, layers = "MotionPriorModel.sample", self.vqvae.config.quantizers
        if prefixes is None:
            return [torch.zeros(0, dtype=torch.int64)] * rows
        prefixes = [torch.as_tensor(prefix, dtype=torch.int64) for prefix in prefixes]
        for index, prefix in enumerate(prefixes):
            if prefix.ndim not in (1, 2) or (prefix.ndim == 2 and prefix.shape[1] != layers):
                raise InputError(
                    "a prefix has the wrong shape",
                    where=f"{where}, text {index}",
                    expected=f"(P, {layers}) codes of all codebooks, or (P,) of the first",
                    got=tuple(prefix.shape),
                )
            if prefix.numel() and not (int(prefix.min()) >= 0 and int(prefix.max()) < self.vqvae.config.codes):
                raise InputError(
                    "a prefix code lies outside the codebook",
                    where=f"{where}, text {index}",
                    expected=f"0 .. {self.vqvae.config.codes - 1}",
                    got=(int(prefix.min()), int(prefix.max())),
                )
        return prefixes

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
            "max_run": self.max_run,
            "vqvae": self.vqvae.config_dict(),
            "transformer": self.transformer.config_dict(),
            "residual": None if self.residual is None else self.residual.config_dict(),
            "text": _describe(self.text_encoder),
            "normalizer": self.normalizer.name,
            "statistics": self.normalizer.fingerprint(),
        }
        save_weights(path, weights, settings)

    @classmethod
    def load(
        cls,
        path: str | Path | None = None,
        text_encoder: TextEncoder | None = None,
        normalizer: Normalizer | None = None,
    ) -> MotionPriorModel:
        """Reads what :meth:`save` wrote; None is the shipped prior.

        Args:
            path: A file.
            text_encoder: For priors whose encoder is a file of its own (CLIP).
            normalizer: Statistics of the features at hand, if they are to be compared with the prior's own.

        Raises:
            FileError: Missing or damaged.
            CheckpointError: Not a motion prior, weights that do not fit its settings, or
                statistics other than the ones it was trained with.
        """
        path = SHIPPED if path is None else Path(path)
        if not path.is_file():
            raise FileError(
                "there is no such motion prior",
                where=path,
                fix="leave it out for the shipped one, or make one with posesyn.training.train_prior",
            )
        settings, weights = load_metadata(path), load_weights(path)
        if settings.get("format") not in (FORMAT, *_OLDER):
            raise CheckpointError(
                "the file is not a motion prior", where=path, expected=FORMAT, got=settings.get("format", "no format")
            )
        try:
            vqvae = MotionVQVAE(VQVAEConfig(**settings["vqvae"]))
            transformer = MotionTransformer(TransformerConfig(**settings["transformer"]))
            stored = Normalizer(
                settings["normalizer"], weights.pop("normalizer.mean").numpy(), weights.pop("normalizer.std").numpy()
            )
            if settings.get("statistics", stored.fingerprint()) != stored.fingerprint():
                raise CheckpointError(
                    "the motion prior's statistics are not those it was trained with",
                    where=path,
                    expected=f"{settings['normalizer']} ({settings['statistics']})",
                    got=stored.fingerprint(),
                )
            if normalizer is not None:
                stored.require_same(normalizer, where=path)
            encoder = text_encoder or _build(settings["text"])
            sizes = settings.get("residual")
            residual = None if sizes is None else ResidualTransformer(ResidualConfig(**sizes))
            model = cls(
                vqvae,
                transformer,
                encoder,
                stored,
                settings["name"],
                float(settings["guidance"]),
                residual,
                settings.get("max_run"),
            )
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


def _check_residual(
    residual: ResidualTransformer | None, vqvae: MotionVQVAE, text_encoder: TextEncoder, where: str
) -> None:
    tokeniser = vqvae.config
    if residual is None:
        if tokeniser.quantizers > 1:
            raise InputError(
                "the tokeniser has several codebooks but nothing fills in the further ones",
                where=where,
                expected="residual=ResidualTransformer(...)",
                got=f"{tokeniser.quantizers} codebooks",
            )
        return
    expected = (tokeniser.quantizers, tokeniser.codes, tokeniser.code_dim, text_encoder.dim)
    sizes = residual.config
    got = (sizes.quantizers, sizes.codes, sizes.code_dim, sizes.text_dim)
    if got != expected:
        raise InputError(
            "the residual transformer does not fit",
            where=where,
            expected=f"(quantizers, codes, code_dim, text_dim) = {expected}",
            got=got,
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
