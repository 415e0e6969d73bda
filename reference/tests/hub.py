"""Small random models in the layouts of the hub's own: the same files, the same names of weights, and no more heads."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertForPreTraining,
    BertModel,
    BertTokenizer,
    DebertaV2Config,
    DebertaV2ForMaskedLM,
    PreTrainedTokenizerFast,
    XLMRobertaConfig,
    XLMRobertaForMaskedLM,
    XLMRobertaModel,
)

from reference.tests.corpora import CITIES, LANGUAGES

SHA = "0123456789" * 4
SIZE = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 32}
WORDS = (".", "P1", "P2", *LANGUAGES, *CITIES, *(city.lower() for city in CITIES))


def mbert(folder: Path) -> Path:
    """bert-base-multilingual-cased: pre-training heads, LayerNorm's old names, and a bare vocabulary beside it."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    torch.manual_seed(0)
    BertForPreTraining(BertConfig(vocab_size=len(words), max_position_embeddings=32, **SIZE)).save_pretrained(folder)
    _rename(folder, {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"})
    _shrink_config(folder, "BertForMaskedLM")
    (folder / "vocab.txt").write_text("\n".join(words), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text('{"do_lower_case": false, "model_max_length": 32}')
    return folder


def labse(folder: Path) -> Path:
    """LaBSE: a BertModel with its pooler, without a prefix before the names of its weights."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    torch.manual_seed(0)
    BertModel(BertConfig(vocab_size=len(words), max_position_embeddings=32, **SIZE)).save_pretrained(folder)
    BertTokenizer(vocab={word: i for i, word in enumerate(words)}, do_lower_case=False).save_pretrained(folder)
    return folder


def xlm_r(folder: Path) -> Path:
    torch.manual_seed(0)
    XLMRobertaForMaskedLM(_xlm_r_config()).save_pretrained(folder)
    return _with_tokenizer(folder)


def e5(folder: Path) -> Path:
    """multilingual-e5: an XLMRobertaModel, whose weights lack the pooler here, and files of another library."""
    torch.manual_seed(0)
    XLMRobertaModel(_xlm_r_config(), add_pooling_layer=False).save_pretrained(folder)
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode_mean_tokens": true}')
    (folder / "modules.json").write_text("[]")
    return _with_tokenizer(folder)


def mdeberta(folder: Path) -> Path:
    """mDeBERTa: relative positions, which its layers are told one by one."""
    torch.manual_seed(0)
    config = DebertaV2Config(
        vocab_size=len(WORDS) + 5,
        max_position_embeddings=32,
        relative_attention=True,
        position_biased_input=False,
        pos_att_type=["p2c", "c2p"],
        **SIZE,
    )
    DebertaV2ForMaskedLM(config).save_pretrained(folder)
    return _with_tokenizer(folder)


def cached(folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The hub id of a folder's copy, which lies in the hub's cache as a download does."""
    there = cache / "models--somebody--model"
    shutil.copytree(folder, there / "snapshots" / SHA)
    (there / "refs").mkdir()
    (there / "refs" / "main").write_text(SHA)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
    return "somebody/model"


def _xlm_r_config() -> XLMRobertaConfig:
    return XLMRobertaConfig(
        vocab_size=len(WORDS) + 5, max_position_embeddings=34, type_vocab_size=1, pad_token_id=1, **SIZE
    )


def _with_tokenizer(folder: Path) -> Path:
    """XLM-R's special tokens and pieces of words, which begin with ▁."""
    pieces = ["<s>", "<pad>", "</s>", "<unk>", *("▁" + word for word in WORDS), "<mask>"]
    tokenizer = Tokenizer(models.Unigram([(piece, -1.0) for piece in pieces], unk_id=3))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    special = [("<s>", 0), ("</s>", 2)]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=special
    )
    names = {"bos_token": "<s>", "cls_token": "<s>", "eos_token": "</s>", "sep_token": "</s>", "pad_token": "<pad>"}
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", mask_token="<mask>", **names
    ).save_pretrained(folder)
    about = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(about | {"tokenizer_class": "XLMRobertaTokenizer"}))
    return folder


def _rename(folder: Path, parts: dict[str, str]) -> None:
    path = folder / "model.safetensors"
    renamed: dict[str, Any] = {}
    for name, tensor in load_file(path).items():
        for part, other in parts.items():
            name = name.replace(part, other)  # noqa: PLW2901
        renamed[name] = tensor
    save_file(renamed, path, {"format": "pt"})


def _shrink_config(folder: Path, architecture: str) -> None:
    """No more than the hub's file says."""
    path = folder / "config.json"
    about = json.loads(path.read_text())
    for name in ("dtype", "transformers_version"):
        about.pop(name, None)
    path.write_text(json.dumps(about | {"architectures": [architecture]}))
