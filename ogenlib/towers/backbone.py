"""A frozen CLIP model with its two towers, its tokenizer, its preprocessing and a name for its weights.

Notation: `B` images, `N` texts, `D` embedding width.
"""

from __future__ import annotations

import hashlib
import json
import logging
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import open_clip
import torch
import torch.nn.functional as F
from open_clip.transform import PreprocessCfg, image_transform_v2
from safetensors import SafetensorError
from torch import Tensor, nn

from ogenlib.towers.base import ClipLike
from ogenlib.towers.hub import fetching, not_here
from ogenlib.towers.image import ImageTower
from ogenlib.towers.sizes import check_sizes
from ogenlib.towers.source import BUNDLED, LOCAL, Source, find_source
from ogenlib.towers.text import TextTower, encode_texts
from ogenlib.towers.trusted import check_text_model, check_tokenizer
from ogenlib.towers.weights import check_finite, check_weights, weights_of

# What open_clip, timm and torch raise where a configuration or its weights do not make a model.
_NO_MODEL = (
    ArithmeticError, AssertionError, AttributeError, LookupError, MemoryError, RuntimeError, TypeError, ValueError,
    SafetensorError, StopIteration, UnpicklingError,
)  # fmt: skip
PRECISIONS = ("fp32", "bf16", "fp16", "pure_bf16", "pure_fp16")
_log = logging.getLogger(__name__)


class Backbone(ClipLike):
    """An open_clip model, frozen and in eval mode.

    Nothing in it trains, `logit_scale` included; a host that fine-tunes switches `requires_grad` on where
    it needs it. `train()` is ignored: batch norm, dropout and patch dropout stay as in evaluation.

    Attributes:
        name, pretrained: what `load_backbone` was given.
        preprocess: PIL image -> pixels `(3, height, width)`.
        preprocess_cfg: its settings, JSON-able.
        weights_hash: see `weights_hash`.
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Callable[..., Tensor],
        *,
        name: str,
        pretrained: str | None = None,
        quick_gelu: bool = False,
        precision: str = "fp32",
    ) -> None:
        super().__init__()
        self.model: Any = model.eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.name, self.pretrained = name, pretrained
        self.quick_gelu, self.precision = quick_gelu, precision
        self.text = TextTower.from_open_clip(model, tokenizer)
        self.image = ImageTower.from_open_clip(model)
        self.embed_dim = self.image.embed_dim
        settings = dict(open_clip.get_model_preprocess_cfg(model) or {})
        settings.setdefault("size", self.image.image_size)
        self.preprocess = image_transform_v2(PreprocessCfg(**settings), is_train=False)
        self.preprocess_cfg: dict[str, Any] = json.loads(json.dumps(settings))
        self.weights_hash = weights_hash(model)
        self.eval()

    @property
    def device(self) -> torch.device:
        """Where the model's weights lie."""
        return self.model.logit_scale.device

    @property
    def logit_scale(self) -> Tensor:
        """Scalar, fp32, already exponentiated (about 100 for OpenAI's CLIP)."""
        return self.model.logit_scale.float().exp().reshape(())

    @property
    def logit_bias(self) -> Tensor | None:
        """Scalar, fp32; None for models trained with a softmax."""
        bias = getattr(self.model, "logit_bias", None)
        return None if bias is None else bias.float().reshape(())

    def encode_image(self, pixels: Tensor, normalize: bool = True) -> Tensor:
        """Features `(B, D)`, fp32, of preprocessed pixels `(B, 3, height, width)`."""
        features = self.image.encode(pixels.to(self.device)).float()
        return F.normalize(features, dim=-1) if normalize else features

    def encode_text(self, texts: str | Sequence[str], normalize: bool = True, chunk: int = 256) -> Tensor:
        """Features `(N, D)`, fp32, of plain sentences, `chunk` at a time.

        Raises:
            ValueError: a text is longer than the tower reads.
        """
        features = encode_texts(self.text, texts, chunk)
        return F.normalize(features, dim=-1) if normalize else features


def load_backbone(
    name: str = BUNDLED,
    pretrained: str | Path | None = None,
    *,
    device: str | torch.device = "cpu",
    precision: str = "fp32",
    quick_gelu: bool | None = None,
    download: bool = True,
) -> Backbone:
    """Load a CLIP model, frozen, in eval mode.

    No code that comes with a model is run, and nothing asks whether it may be: configuration, tokenizer files and
    weights are looked at first, and what is more than the description of a model is refused.

    Args:
        name: "ogen-tiny" (bundled, offline), an open_clip model name, "local-dir:FOLDER" (open_clip's
            folder format) or "hf-hub:ORG/NAME".
        pretrained: an open_clip tag or a checkpoint file, for open_clip model names; None leaves the
            weights random.
        precision: "fp32"; "bf16" or "fp16" (matrices only, norms stay fp32); "pure_bf16" or "pure_fp16".
        quick_gelu: which activation to build. None: what the configuration says, refused where the
            weights are known to want the other one (OpenAI, MetaCLIP and DFN weights want quick-GELU).
        download: fetch what is not on this machine. False opens what lies in folders and caches only; other threads
            of the process are kept from the hub while the model is opened.

    Raises:
        ValueError: unknown name, tag, precision or device; a quick-GELU mismatch; a model that brings code; damaged
            weights, or weights that do not fit the model.
        FileNotFoundError: a named file or folder does not exist, or has to be fetched and `download` is False.
        UnknownTower: the model's text tower is of a class that cannot be handled.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision is {precision!r}, expected one of {', '.join(PRECISIONS)}")
    target = _device(device)
    with fetching(download):
        source = find_source(name, pretrained, download)
        quick = _settle_quick_gelu(name, source, quick_gelu)
        text_model = _check_texts(source, download)
        weights = weights_of(source, download)
        if weights is not None:
            check_weights(weights)
            check_sizes(source.config, source.where, weights, text_model)
        else:
            _log.warning("%s has random weights: name some with pretrained=", name)
        model = _create(source, weights, quick, precision, target, download)
        check_finite(model, weights or source.where)
        tokenizer = _tokenizer(source, download)
    try:
        return Backbone(
            model, tokenizer, name=name, pretrained=source.pretrained, quick_gelu=quick, precision=precision
        )
    except (AssertionError, IndexError, RuntimeError) as error:
        raise ValueError(f"{source.where}: this model does not run on its own texts: {_reason(error)}") from error


def _check_texts(source: Source, download: bool) -> dict[str, Any]:
    """Look at what transformers would open; returns its configuration of the text tower, where it has one."""
    text = source.config["text_cfg"]
    tokenizer, tower = text.get("hf_tokenizer_name"), text.get("hf_model_name")
    if tokenizer:
        folder = source.open_clip_name.removeprefix(LOCAL)  # in a folder, the tokenizer is there, whatever its name is
        check_tokenizer(folder if source.open_clip_name.startswith(LOCAL) else tokenizer)
    return check_text_model(tower, download) if tower else {}


def _tokenizer(source: Source, download: bool) -> Any:
    """open_clip's tokenizer; that of Hugging Face is told not to run code, as it asks on the terminal otherwise."""
    name = source.config["text_cfg"].get("hf_tokenizer_name")
    options: dict[str, Any] = {"trust_remote_code": False} if name else {}
    try:
        return open_clip.get_tokenizer(source.open_clip_name, **options)
    except (*_NO_MODEL, OSError) as error:
        if isinstance(error, OSError) and not source.open_clip_name.startswith(LOCAL):
            raise not_here(source.open_clip_name, f"the tokenizer {name!r}", error, download) from error
        raise ValueError(f"{source.where}: the tokenizer {name!r} could not be opened: {_reason(error)}") from error


def weights_hash(model: nn.Module) -> str:
    """16 hex digits of sha256 over the state dict's sorted names, dtypes, shapes and bytes."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(memoryview(flat.view(torch.uint8).numpy()))
    return digest.hexdigest()[:16]


def check_fingerprint(saved: dict[str, Any], backbone: ClipLike) -> None:
    """Refuse a backbone that is not the one `saved` was made with.

    Names are compared only where neither is a path: the same weights may lie elsewhere today.

    Raises:
        ValueError: names every field that differs and the call that fixes it.
    """
    present = backbone.fingerprint()
    differing = []
    for field, now in present.items():
        was = json.loads(json.dumps(saved.get(field)))
        if was == now or (field in ("name", "pretrained") and (_is_path(was) or _is_path(now))):
            continue
        differing.append(f"{field} (saved {was!r}, given {now!r})")
    if differing:
        call = ", ".join([repr(saved.get("name")), *_keywords(saved)])
        fix = f"load_backbone({call}) in the same precision"
        if saved.get("preprocess") == {}:  # nothing but a table has no preprocessing
            fix = f"the EmbeddingTable {saved.get('name')!r} of the same names and features"
        raise ValueError(f"this backbone is not the one it was made with: {'; '.join(differing)}. Open it with {fix}")


def _create(
    source: Source, weights: Path | None, quick_gelu: bool, precision: str, device: torch.device, download: bool
) -> nn.Module:
    try:
        with warnings.catch_warnings():
            # open_clip compares the tag with the configuration; that has been settled by now.
            warnings.filterwarnings("ignore", message="QuickGELU mismatch")
            return open_clip.create_model(
                source.open_clip_name,
                pretrained=source.pretrained,
                precision=precision,
                device=device,
                quick_gelu=quick_gelu,
            )
    except OSError as error:
        if source.open_clip_name.startswith(LOCAL):
            raise
        raise not_here(source.open_clip_name, "a part of it", error, download) from error
    except _NO_MODEL as error:
        into = f"{source.open_clip_name} ({source.where})"
        said = f"weights {weights or 'of its own'} could not be loaded into {into}: {_reason(error)}"
        raise ValueError(said) from error


def _reason(error: BaseException) -> str:
    """The start of what a library says, in one line."""
    if isinstance(error, UnpicklingError):  # torch advises to trust the file and run it
        return "they are no plain tensors"
    lines = str(error).strip().splitlines()[:2] or [type(error).__name__]
    return " ".join(line.strip() for line in lines)[:400]


def _settle_quick_gelu(name: str, source: Source, asked: bool | None) -> bool:
    if asked is not None:
        return asked
    expected, built = source.expects_quick_gelu, source.config_quick_gelu
    if expected is None or expected == built:
        return built
    twin = f"{source.open_clip_name}-quickgelu"
    other = source.open_clip_name.removesuffix("-quickgelu")
    renamed = twin if expected else other
    alternative = ""
    if renamed != source.open_clip_name and renamed in open_clip.list_models():
        alternative = f" or load_backbone({renamed!r}, pretrained={source.pretrained!r})"
    raise ValueError(
        f"the weights {source.pretrained!r} were trained with quick_gelu={expected}, the configuration {name!r} "
        f"builds quick_gelu={built}: load_backbone({name!r}, pretrained={source.pretrained!r}, "
        f"quick_gelu={expected}){alternative}"
    )


def _device(device: str | torch.device) -> torch.device:
    try:
        target = torch.device(device)
    except RuntimeError as error:
        raise ValueError(f"device is {device!r}, expected 'cpu', 'cuda', 'cuda:0', ... ({error})") from error
    if target.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device is {device!r}, but this machine has no usable GPU: device='cpu'")
    return target


def _is_path(value: object) -> bool:
    return isinstance(value, str) and (value.startswith("local-dir:") or "/" in value or "\\" in value)


def _keywords(saved: dict[str, Any]) -> list[str]:
    pretrained = [f"pretrained={saved['pretrained']!r}"] if saved.get("pretrained") else []
    return [*pretrained, f"quick_gelu={saved.get('quick_gelu')}"]
