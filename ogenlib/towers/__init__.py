"""Any open_clip model as two clean towers."""

from ogenlib.towers.backbone import Backbone, check_fingerprint, load_backbone, weights_hash
from ogenlib.towers.base import ClipLike
from ogenlib.towers.convert import convert_openai
from ogenlib.towers.image import ImageTower
from ogenlib.towers.prefix import encode_shared_prefix
from ogenlib.towers.prompt import PromptTokens, context_from_words, encode_prompts, prompt_tokens
from ogenlib.towers.random_texts import RandomTexts
from ogenlib.towers.table import EmbeddingTable
from ogenlib.towers.text import TextTower

__all__ = [
    "Backbone",
    "ClipLike",
    "EmbeddingTable",
    "ImageTower",
    "PromptTokens",
    "RandomTexts",
    "TextTower",
    "check_fingerprint",
    "context_from_words",
    "convert_openai",
    "encode_prompts",
    "encode_shared_prefix",
    "load_backbone",
    "prompt_tokens",
    "weights_hash",
]
