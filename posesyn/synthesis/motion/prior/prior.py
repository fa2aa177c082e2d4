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
from posesyn.storage.seeds import seed_of
from posesyn.synthesis.motion.prior.normalizer import Normalizer
from posesyn.synthesis.motion.prior.quantizer import ResidualConfig, ResidualTransformer, check_codes
from posesyn.synthesis.motion.prior.sampling import sample_tokens, seeds_of_rows
from posesyn.synthesis.motion.prior.text import (
    ClipTextEncoder,
    HashTextConfig,
    HashTextEncoder,
    SentenceTextEncoder,
    checked_texts,
)
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
        where, codes = f"motion prior '{name}'", transformer.config.codes
        if codes != vqvae.config.codes:
            what = "tokeniser and transformer have different codebooks"
            raise InputError(what, where=where, expected=vqvae.config.codes, got=codes)
        if text_encoder.dim != transformer.config.text_dim:
            expected = f"embeddings of size {transformer.config.text_dim}"
            what = "text encoder and transformer do not fit"
            raise InputError(what, where=where, expected=expected, got=text_encoder.dim)
        _check_residual(residual, vqvae, text_encoder, where)
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
                expected, got = f"(P, {layers}) codes of all codebooks, or (P,) of the first", tuple(prefix.shape)
                where = f"{where}, text {index}"
                raise InputError("a prefix has the wrong shape", where=where, expected=expected, got=got)
            check_codes(prefix, self.vqvae.config.codes, "a prefix code", f"{where}, text {index}")
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
            fix = "leave it out for the shipped one, or make one with posesyn.training.train_prior"
            raise FileError("there is no such motion prior", where=path, fix=fix)
        settings, weights = load_metadata(path), load_weights(path)
        if settings.get("format") not in (FORMAT, *_OLDER):
            got = settings.get("format", "no format")
            raise CheckpointError("the file is not a motion prior", where=path, expected=FORMAT, got=got)
        try:
            vqvae = MotionVQVAE(VQVAEConfig(**settings["vqvae"]))
            transformer = MotionTransformer(TransformerConfig(**settings["transformer"]))
            stored = Normalizer(
                settings["normalizer"], weights.pop("normalizer.mean").numpy(), weights.pop("normalizer.std").numpy()
            )
            if settings.get("statistics", stored.fingerprint()) != stored.fingerprint():
                what = "the motion prior's statistics are not those it was trained with"
                expected = f"{settings['normalizer']} ({settings['statistics']})"
                raise CheckpointError(what, where=path, expected=expected, got=stored.fingerprint())
            if normalizer is not None:
                stored.require_same(normalizer, where=path)
            encoder = text_encoder or _build(settings["text"])
            sizes = settings.get("residual")
            residual = None if sizes is None else ResidualTransformer(ResidualConfig(**sizes))
            name, guidance, max_run = settings["name"], float(settings["guidance"]), settings.get("max_run")
            model = cls(vqvae, transformer, encoder, stored, name, guidance, residual, max_run)
        except (KeyError, TypeError) as error:
            raise CheckpointError("the motion prior's settings are damaged", where=path, got=error) from error
        weights = {name: value.float() if value.is_floating_point() else value for name, value in weights.items()}
        load_into(model, weights, where=path)
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
            what = "the tokeniser has several codebooks but nothing fills in the further ones"
            has = f"{tokeniser.quantizers} codebooks"
            raise InputError(what, where=where, expected="residual=ResidualTransformer(...)", got=has)
        return
    wanted = (tokeniser.quantizers, tokeniser.codes, tokeniser.code_dim, text_encoder.dim)
    sizes = residual.config
    got = (sizes.quantizers, sizes.codes, sizes.code_dim, sizes.text_dim)
    if got != wanted:
        expected = f"(quantizers, codes, code_dim, text_dim) = {wanted}"
        raise InputError("the residual transformer does not fit", where=where, expected=expected, got=got)


def _describe(encoder: TextEncoder) -> dict[str, Any]:
    if isinstance(encoder, HashTextEncoder):
        return {"kind": "hash", **encoder.config_dict()}
    kinds = {SentenceTextEncoder: "sentence", ClipTextEncoder: "clip"}
    if type(encoder) not in kinds:
        raise InputError("this text encoder cannot be saved with a prior", where=type(encoder).__name__)
    return {"kind": kinds[type(encoder)]}


def _build(settings: dict[str, Any]) -> TextEncoder:
    kind = settings["kind"]
    if kind == "hash":
        sizes = {name: value for name, value in settings.items() if name != "kind"}
        return HashTextEncoder(HashTextConfig(**{**sizes, "letters": tuple(settings["letters"])}))
    if kind == "sentence":
        return SentenceTextEncoder()
    raise CheckpointError(
        "the motion prior needs its text encoder",
        expected="text_encoder=ClipTextEncoder(folder)",
        got=kind,
        fix="pass the encoder to MotionPriorModel.load(path, text_encoder=...)",
    )


# Tokens that a window takes over from the one before: half of what the prior holds. Our own choice; fewer windows make
# a long motion quicker, more context makes it steadier.
CONTEXT_SHARE = 0.5


def continue_codes(
    prior: MotionPriorModel,
    texts: Sequence[Sequence[str]],
    num_tokens: int,
    prefixes: Sequence[Tensor] | None = None,
    seeds: Sequence[int] | None = None,
    context_tokens: int | None = None,
    **options: Any,
) -> tuple[list[Tensor], list[int]]:
    """``num_tokens`` codes for each row, whatever the length that the prior holds, in a sliding window.

    A prior holds at most 50 tokens (200 frames). Every further window starts from the last tokens of the motion so far,
    as a prefix, so what comes next knows where limbs are and where they are going. All tokens are decoded in one pass,
    and the features hold velocities, not places, so frames around the border of two windows are made like all others.

    Args:
        prior: The motion prior.
        texts: B rows of one or more captions, which share the time evenly, in order.
        num_tokens: Length, prefix included. END is not drawn.
        prefixes: B tensors of codes to start from, all of one length, as ``prior.encode`` gives them.
        seeds: One seed per row.
        context_tokens: Tokens that every window takes over; None takes half of what the prior holds.
        options: Of ``SamplingOptions``: temperature, top_k, greedy, guidance.

    Returns:
        B tensors (num_tokens,) or (num_tokens, quantizers), and the tokens at which new windows begin.

    Raises:
        InputError: num_tokens < 1, context outside 1 .. the prior's tokens - 1, prefixes of differing length or longer
            than ``num_tokens``, an empty caption.
    """
    where, most = "continue_codes", prior.max_tokens
    context = max(1, int(most * CONTEXT_SHARE)) if context_tokens is None else context_tokens
    if not 1 <= context < most:
        raise InputError("context_tokens is out of range", where=where, expected=f"1 to {most - 1}", got=context)
    if num_tokens < 1:
        raise InputError("num_tokens must be positive", where=where, got=num_tokens)
    rows = [checked_texts(row, f"{where}, row {index}") for index, row in enumerate(texts)]
    if not all(rows):
        raise InputError("each row needs a caption", where=where, got=[len(row) for row in rows])
    seeds = seeds_of_rows(None, len(rows)) if seeds is None else list(seeds)
    empty = torch.zeros(0, dtype=torch.int64)
    codes = [empty] * len(rows) if prefixes is None else [torch.as_tensor(prefix) for prefix in prefixes]
    if len(codes) != len(rows) or len(seeds) != len(rows):
        got = (len(codes), len(seeds))
        raise InputError("one prefix and one seed per row are needed", where=where, expected=len(rows), got=got)
    lengths = sorted({len(row) for row in codes})
    if len(lengths) > 1 or (lengths and lengths[0] > num_tokens):
        expected = f"at most {num_tokens} tokens, all the same"
        what = "the prefixes are too long or of differing length"
        raise InputError(what, where=where, expected=expected, got=lengths)
    seams: list[int] = []
    done = lengths[0] if lengths else num_tokens
    while done < num_tokens:
        # The first window keeps as much of a long prefix as leaves room for new tokens.
        kept = [row if done < most and not seams else row[-context:] for row in codes]
        window = min(most, len(kept[0]) + num_tokens - done)
        if len(kept[0]):
            seams.append(done)
        embedding = prior.embed([row[min(done * len(row) // num_tokens, len(row) - 1)] for row in rows])
        options |= {"max_tokens": window, "min_tokens": window}
        drawn = prior.sample(embedding, kept, seed=[seed_of(seed, f"window/{done}") for seed in seeds], **options)
        codes = [torch.cat([row[:done].to(new), new[len(old) :]]) for row, old, new in zip(codes, kept, drawn)]
        done = len(codes[0])
    return codes, seams
