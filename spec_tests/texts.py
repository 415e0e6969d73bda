"""Tokenizers that are less tame than one word, one number: each in a folder as transformers writes it.

wordpiece    BERT's kind: [CLS] and [SEP] around, token types for pairs, pieces of words, [UNK] for words that it lacks
metaspace    XLM-R's kind: a space is part of the word behind it, <mask> swallows the one before it, no token types
spaced       the same, but <mask> swallows no space, so that masks between spaces are not side by side
bytes        RoBERTa's kind: every byte a token, a space as well
bare         adds no special tokens by default
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertForMaskedLM, BertForSequenceClassification, PreTrainedTokenizerFast

KINDS = ("wordpiece", "metaspace", "spaced", "bytes", "bare")
#: The classes of a sentence pair by their numbers in the data.
CLASSES = ("entailment", "neutral", "contradiction")


def write_tokenizer(kind: str, folder: Path, words: Sequence[str]) -> Any:
    """A tokenizer of this kind, which knows these words, written into a folder and read from it."""
    makers = {"wordpiece": _wordpiece, "metaspace": _metaspace, "spaced": _spaced, "bytes": _bytes, "bare": _bare}
    makers[kind](words).save_pretrained(folder)
    return read_tokenizer(folder)


def read_tokenizer(folder: Path) -> Any:
    return PreTrainedTokenizerFast.from_pretrained(folder)


def write_classes(folder: Path, names: Sequence[str]) -> None:
    """The configuration of a classifier that calls its classes by these names, in this order.

    The file lists the last class first: a class has its own number, not that of its line.
    """
    called = {str(number): name for number, name in reversed([*enumerate(names)])}
    config = {"model_type": "bert", "num_labels": len(names), "id2label": called}
    config["label2id"] = {name: int(number) for number, name in called.items()}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")


def _wordpiece(words: Sequence[str]) -> PreTrainedTokenizerFast:
    return _of_bert(words, special=True)


def _bare(words: Sequence[str]) -> PreTrainedTokenizerFast:
    return _of_bert(words, special=False)


def _of_bert(words: Sequence[str], special: bool) -> PreTrainedTokenizerFast:
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *sorted(set(words))]
    pieces += [f"##{digit}" for digit in range(10)]
    made = Tokenizer(models.WordPiece({piece: place for place, piece in enumerate(pieces)}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    if special:
        made.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]",
            pair="[CLS] $A [SEP] $B:1 [SEP]:1",
            special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=made,
        pad_token="[PAD]",
        unk_token="[UNK]",
        mask_token="[MASK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )


_OF_ROBERTA: dict[str, Any] = {
    "bos_token": "<s>",
    "cls_token": "<s>",
    "eos_token": "</s>",
    "sep_token": "</s>",
    "pad_token": "<pad>",
    "unk_token": "<unk>",
    "model_input_names": ["input_ids", "attention_mask"],
}
_SPECIAL = ["<s>", "<pad>", "</s>", "<unk>"]


def _of_roberta(made: Tokenizer, swallows: bool = True) -> PreTrainedTokenizerFast:
    made.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    mask = AddedToken("<mask>", lstrip=swallows, special=True)
    return PreTrainedTokenizerFast(tokenizer_object=made, mask_token=mask, **_OF_ROBERTA)


def _spaced(words: Sequence[str]) -> PreTrainedTokenizerFast:
    return _metaspace(words, swallows=False)


def _metaspace(words: Sequence[str], swallows: bool = True) -> PreTrainedTokenizerFast:
    pieces = sorted({f"▁{word}" for word in words} | {"▁", *"0123456789().", *words})
    scores = [*((piece, 0.0) for piece in _SPECIAL), *((piece, -1.0 - 0.01 * len(piece)) for piece in pieces)]
    made = Tokenizer(models.Unigram(scores, unk_id=3))
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    return _of_roberta(made, swallows)


def _bytes(words: Sequence[str]) -> PreTrainedTokenizerFast:
    alphabet = [*_SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    made = Tokenizer(models.BPE({piece: place for place, piece in enumerate(alphabet)}, []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return _of_roberta(made)


def write_model(
    folder: Path,
    words: Sequence[str],
    classes: Sequence[str] = (),
    seed: int = 7,
    positions: int = 48,
    layers: int = 3,
) -> Any:
    """A tiny BERT with a WordPiece tokenizer: a masked language model, or a classifier with classes of these names."""
    encode = write_tokenizer("wordpiece", folder, words)
    sizes: dict[str, Any] = {
        "vocab_size": len(encode),
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": layers,
        "num_attention_heads": 2,
        "max_position_embeddings": positions,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "initializer_range": 0.3,
    }
    if classes:
        sizes |= {"id2label": dict(enumerate(classes)), "label2id": {name: i for i, name in enumerate(classes)}}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        kind = BertForSequenceClassification if classes else BertForMaskedLM
        model = kind(BertConfig(**sizes)).eval()
    model.save_pretrained(folder)
    return model
