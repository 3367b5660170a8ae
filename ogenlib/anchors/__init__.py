"""Captions of images, and pairs of image and text retrieved from a pool: anchors of robust fine-tuning."""

from ogenlib.anchors.captioner import (
    Captioner,
    CaptionTable,
    FileCaptions,
    caption_table,
    read_captions,
    write_captions,
)
from ogenlib.anchors.emoji_candidates import EmojiCaptions, emoji_pool
from ogenlib.anchors.faiss_index import FaissIndex
from ogenlib.anchors.pool import CandidatePool
from ogenlib.anchors.pool_shards import extract_pool, join_shards
from ogenlib.anchors.retrieve import AnchorPairs, Anchors, retrieve
from ogenlib.anchors.source import AnchorSource, anchor_source, emoji_anchors, read_candidates
from ogenlib.anchors.top_k import exact_top_k
from ogenlib.anchors.transformers_captioner import TransformersCaptioner

__all__ = [
    "AnchorPairs", "AnchorSource", "Anchors", "CandidatePool", "CaptionTable", "Captioner", "EmojiCaptions",
    "FaissIndex", "FileCaptions", "TransformersCaptioner", "anchor_source", "caption_table", "emoji_anchors",
    "emoji_pool", "exact_top_k", "extract_pool", "join_shards", "read_candidates", "read_captions", "retrieve",
    "write_captions",
]  # fmt: skip
