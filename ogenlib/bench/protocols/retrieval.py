"""retrieval: train on images with captions, find test captions by image and test images by caption.

Recall@1, 5 and 10 both ways, in each domain by itself. How ties and repeated captions count: `ogenlib.evaluate.recall`.
Every training image is a class of its own whose texts are its captions; test images and captions are others. Captions
are classified as names are, with the template ``{}``. A caption that is longer than the text tower reads loses its last
words, where open_clip's tokenizers cut it in the middle of one; how many did is in the protocol card.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ogenlib.bench.protocols.parts.plan import Outcome, Part, Plan, Tested, home_of
from ogenlib.bench.protocols.registry import SECTIONS, ProtocolInfo, Shown, register
from ogenlib.data.captions import CaptionDataset, read_karpathy
from ogenlib.evaluate.recall import Recalls, pair_up, retrieval
from ogenlib.hosts import Host, learns_pairs
from ogenlib.results.tables import METRICS
from ogenlib.towers import ClipLike
from ogenlib.towers.tokens import Tokens
from ogenlib.train.batches import Bank, test_batches

if TYPE_CHECKING:
    from ogenlib.bench.config import BenchConfig

BUNDLED = ("emoji-categories", "emoji-captions")  # the same drawings; the first is what `ogen bench` asks for unasked
TEXTS = 1024  # texts whose weights are asked for at a time


@torch.no_grad()
def features(host: Host, bank: Bank, texts: Sequence[str], batch_size: int = 256) -> tuple[Tensor, Tensor]:
    """Unit vectors `(N, D)` of the images (first views) and `(T, D)` of the texts by a trained host, fp32, on the CPU.

    Raises:
        ValueError: class weights of this host depend on the image, so a text has no feature of its own.
    """
    host.eval()
    images = [host.image_features(batch).float().cpu() for batch in test_batches(host, bank, batch_size)]
    z = torch.cat(images) if images else torch.zeros(0, host.clip.embed_dim)
    probe = F.normalize(torch.ones(1, host.clip.embed_dim, device=host.device), dim=-1)
    weights = []
    for start in range(0, len(texts), TEXTS):
        w = host.class_weights(texts[start : start + TEXTS], z=probe)
        if w.ndim != 2:
            raise ValueError(f"text features of {host.info.name} depend on the image; retrieval needs another method")
        weights.append(F.normalize(w.float(), dim=-1).cpu())
    return z, torch.cat(weights)


def recalls(host: Host, bank: Bank, captions: Mapping[str, Sequence[str]], *, identical: str = "shared") -> Recalls:
    """Recalls of a trained host on the images of a bank.

    Args:
        captions: image key -> its captions.
        identical: as for `pair_up`.

    Raises:
        ValueError: an image of the bank without captions, and what `features` raises.
    """
    missing = [key for key in bank.keys if key not in captions]
    if missing:
        raise ValueError(f"{len(missing)} images have no captions, the first {missing[:3]}; give captions to every key")
    texts, pairs = pair_up([captions[key] for key in bank.keys], identical=identical)
    z, w = features(host, bank, texts)
    return retrieval(z, w, pairs)


@dataclass(frozen=True)
class RetrievalJudge:
    """Scores every domain of one part.

    captions: image key -> its captions.
    """

    dataset: str
    captions: Mapping[str, Sequence[str]]

    def measure(self, host: Host, tested: Tested) -> dict[str, float]:
        """Nothing: recalls are measured once, after training."""
        return {}

    def outcome(self, host: Host, tested: Tested) -> Outcome:
        bank = tested.of(host)[0]
        rows: list[dict[str, Any]] = []
        for domain in dict.fromkeys(bank.domains):
            scores = recalls(host, bank.of_domain(domain), self.captions)
            rows.append({"dataset": self.dataset, "domain": domain, **dict.fromkeys(METRICS), **scores.as_row()})
        return Outcome(rows, [], [])


def plan(config: BenchConfig) -> Plan:
    """Train on the pairs of `config.dataset`, test both ways on its test images.

    The captions are the data's own until `Plan.fitted` has shortened those that the text tower cannot read whole.
    """
    data = load_captions(config)
    source = data.as_dataset()
    home = home_of(source)
    card = {
        "trained_on": f"{len(data.train)} images of {data.name}, each a class of its own, with their captions",
        "tested_on": "recall in percent, in each domain among its images and their captions; identical captions are "
        "one text, ties count in expectation",
        "shots": None,
        "captions_hash": data.hash(),
        "captions": {"train": sum(map(len, data.train.captions)), "test": sum(map(len, data.test.captions))},
    }
    parts = (Part(source.name, data.test.images()),)
    judge = RetrievalJudge(data.name, data.test.texts)
    return Plan(
        config.protocol,
        source,
        tuple(data.train.keys),
        (),
        home,
        parts,
        judge,
        (1,),
        texts=data.train.texts,
        card=card,
        fit=_shortened,
    )


def load_captions(config: BenchConfig) -> CaptionDataset:
    """The bundled drawings with captions, or a Karpathy-split JSON file.

    Raises:
        ValueError: any other dataset.
    """
    if config.dataset in BUNDLED:
        from ogenlib.data.emoji import load_emoji_captions

        if config.root is not None:
            raise ValueError(f"{config.dataset!r} is bundled and has no root; leave --root out")
        return load_emoji_captions(test_domains=config.test_domains)
    if Path(os.fspath(config.dataset)).suffix.lower() != ".json":
        raise ValueError(
            f"--dataset {config.dataset} has no captions; --protocol retrieval takes emoji-captions, or a Karpathy "
            "split as dataset_coco.json with --root DIR, the folder of its pictures"
        )
    return read_karpathy(config.dataset, config.root)


def _shortened(planned: Plan, clip: ClipLike) -> Plan:
    """The plan with captions that the text tower reads whole."""
    judge = planned.judge
    assert isinstance(judge, RetrievalJudge) and planned.texts is not None
    trained, cut = shortened(clip, planned.texts)
    tested, cut_too = shortened(clip, judge.captions)
    card = {**planned.card, "captions_shortened": {"train": cut, "test": cut_too}}
    return replace(planned, texts=trained, judge=replace(judge, captions=tested), card=card)


def shortened(clip: ClipLike, texts: Mapping[str, Sequence[str]]) -> tuple[dict[str, tuple[str, ...]], int]:
    """The texts, those that the text tower does not read whole without their last words; and how many these are.

    Raises:
        ValueError: the first word of a text alone is too long, or there is no text tower.
    """
    tokens, flat = clip.text.tokens, [text for own in texts.values() for text in own]
    needed = [n for start in range(0, len(flat), TEXTS) for n in tokens.count(flat[start : start + TEXTS])]
    fitting = [text if n <= tokens.context_length else _cut(text, tokens) for text, n in zip(flat, needed, strict=True)]
    changed, rest = sum(a != b for a, b in zip(flat, fitting, strict=True)), iter(fitting)
    return {key: tuple(next(rest) for _ in own) for key, own in texts.items()}, changed


def _cut(text: str, tokens: Tokens) -> str:
    words = text.split()
    while tokens.count([" ".join(words)])[0] > tokens.context_length:
        if len(words) == 1:
            raise ValueError(
                f"the word {words[0][:40]!r} is longer than the {tokens.context_length} tokens that the "
                "text tower reads; leave this caption out"
            )
        words = words[:-1]
    return " ".join(words)


def refuses(cls: type[Host]) -> str:
    """Why a method cannot be trained on pairs of image and text, "" where it can."""
    if learns_pairs(cls):
        return ""
    if cls.reads_names:
        return f"{cls.info.name} puts phrases behind class names, and images with captions have none"
    return f"{cls.info.name} learns names, not pairs of image and text"


register(
    ProtocolInfo(
        "retrieval",
        "train on images with captions, find one by the other",
        plan,
        no_suite="trains on pairs of image and text, and a suite has none",
        ogen=False,
        new_names=False,
        curves=False,
        refuses=refuses,
        shots=lambda config: (),
        no_shots="every image of retrieval is a class of its own, and all are trained on",
        shown=Shown(
            {"image_to_text_r1": "recall@1 of texts by image", "text_to_image_r1": "recall@1 of images by text"},
            trained=("image with captions", "images with captions"),
            sections=tuple(name for name in SECTIONS if name != "domains"),  # its own has every domain
            listing="recalls",
        ),
    )
)
