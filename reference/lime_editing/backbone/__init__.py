"""The raw model: trunk and upper part, x and δ, and loading."""

from .arrays import NO_LABEL, Array, Bucket, Places, Rows, Sent, filled, padded, places_of
from .loading import configuration, fingerprint, load, load_encoder, load_tokenizer, max_tokens
from .model import Backbone, States, capture, states_at, wrap

__all__ = [
    "NO_LABEL",
    "Array",
    "Backbone",
    "Bucket",
    "Places",
    "Rows",
    "Sent",
    "States",
    "capture",
    "configuration",
    "filled",
    "fingerprint",
    "load",
    "load_encoder",
    "load_tokenizer",
    "max_tokens",
    "padded",
    "places_of",
    "states_at",
    "wrap",
]
