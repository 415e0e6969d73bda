"""The raw model: trunk and upper part, x and δ, and where models come from."""

from .loading import configuration, fingerprint, load, load_encoder, load_tokenizer, max_tokens
from .model import Backbone, States, capture, padded, wrap

__all__ = [
    "Backbone",
    "States",
    "capture",
    "configuration",
    "fingerprint",
    "load",
    "load_encoder",
    "load_tokenizer",
    "max_tokens",
    "padded",
    "wrap",
]
