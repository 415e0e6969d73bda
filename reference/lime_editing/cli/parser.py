"""All commands, their options and their help. Nothing heavy is imported here."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ..errors import UserError
from .options import CheckData, Edit, Edits, MakeClassifier, Many, Report, Reproduce, add

COMMANDS = """examples:
  python -m lime_editing edit --fact P36/France --to Berlin           change one answer, and look at it in 15 languages
  python -m lime_editing edits kept/update.safetensors                the edits of a file
  python -m lime_editing reproduce                                    the paper's tables and figures in small
  python -m lime_editing many --edits 1,10,100                        what holds after many edits in one model
  python -m lime_editing report --results runs/tiny                   write the page again
  python -m lime_editing check-data mlama1.1.zip                      what data hold, lack, and what is skipped
  python -m lime_editing make-classifier --model xlm-roberta-base     a raw classifier of sentence pairs from an encoder
Every command says more: python -m lime_editing COMMAND --help
"""
REPRODUCE = r"""examples:
  python -m lime_editing reproduce --dry-run --seeds 3
  python -m lime_editing reproduce --task facts --approach mend --training lime --languages en,fr,sw
  python -m lime_editing reproduce --scale paper --device cuda --executor slurm --partition gpu --hours 12
  python -m lime_editing reproduce --scale paper --device cuda --facts mlama1.1.zip --protocol both
  python -m lime_editing reproduce --scale paper --device cuda --task nli --model xlm-roberta-base
  python -m lime_editing reproduce --scale paper --device cuda --task nli --raw-model path/to/your/classifier
  python -m lime_editing reproduce --task facts --facts my-facts.csv --model path/to/your/model --edited-layers 2
  torchrun --nproc_per_node 8 -m lime_editing reproduce --scale paper --device cuda --precision bf16 …
At scale paper facts are the authors' upload (yxu/LiME_data), pairs facebook/xnli, and the model is
bert-base-multilingual-cased. A model that is no classifier is fine-tuned to one on the English pairs, once.
"""
EDIT = r"""examples:
  python -m lime_editing edit --fact P36/France --to Berlin
  python -m lime_editing edit --language de --to Rom "Die Hauptstadt von Frankreich ist [MASK] ." \
      --look "Frankreichs Hauptstadt ist [MASK] ."
  python -m lime_editing edit --pair test/114 --to entailment
  python -m lime_editing edit --premise "Paris is in France ." --hypothesis "Paris is in Spain ." --to entailment
  python -m lime_editing edit --checkpoint runs/tiny/facts-mend-all-seed0-… --fact P36/Q142 --to Berlin --json
  python -m lime_editing edit --file edits.jsonl --save edited --as model
Shown are the input, its parallels in all languages, inputs of your choice, and unrelated ones, which should not change.
A file of edits (jsonl, csv, tsv, parquet) has the columns to (the desired answer), language (default: --language), and
prompt (a sentence with [MASK]), or relation and subject (of the corpus, by id or name); with --task nli, premise and
hypothesis. A wrong row is an error that names it. --save holds an ordinary model folder, a LoRA adapter for PEFT
(--as lora), or the edits themselves (--as update), which `edits` lists and drops; edits.json says what took and broke.
The best stored editor of the model edits: of the cells in --results, or the repository's for its own model. Without
any, and with --approach finetuning, nothing is trained. `reproduce --task facts --approach mend --training all` trains.
"""
REPORT = """examples:
  python -m lime_editing report --results runs/paper
  python -m lime_editing report --results runs/tiny --to results/tiny     renew what is published
"""
CHECK_DATA = """examples:
  python -m lime_editing check-data mlama1.1.zip --languages en,fr
  python -m lime_editing check-data my-facts.csv --json
  python -m lime_editing check-data facebook/xnli --task nli --model bert-base-multilingual-cased
A table of facts (jsonl, csv, tsv, parquet) has the columns language, relation, template (with [X] and [Y]), subject,
object, and subject_id or fact, whose rows are parallel in all languages; object_id may be beside them. A table of
sentence pairs has id, language, premise, hypothesis, label and split. The exit code is 1 for data that cannot be read.
"""
MAKE_CLASSIFIER = """examples:
  python -m lime_editing make-classifier --model fixtures/raw_model
  python -m lime_editing make-classifier --scale paper --model xlm-roberta-base --nli facebook/xnli --device cuda
It learns from the English training pairs. Its accuracy in each language is printed, and its folder, which `reproduce`
and `edit` take as --raw-model.
"""
MANY = """examples:
  python -m lime_editing many --seeds 3
  python -m lime_editing many --approach mend,memit --edits 1,10,100
Editors are trained as by `reproduce`, or taken where they are trained. Then 1, 10, 100 and 1,000 edits are made with
each, in series and at once, in all languages and in English.
"""
EDITS = """examples:
  python -m lime_editing edits kept/update.safetensors --drop 3 --drop 7
"""


class Command(NamedTuple):
    """A command: its record of options, a line of help, and examples with what else is to be known."""

    options: type
    help: str
    examples: str


LIST: Mapping[str, Command] = {
    "reproduce": Command(Reproduce, "train and judge editors, and write tables, figures and a page", REPRODUCE),
    "many": Command(Many, "judge editors over many edits in one model, and write what still holds", MANY),
    "edit": Command(Edit, "change one answer, and show it before and after in every language", EDIT),
    "edits": Command(Edits, "list the edits that `edit --as update` has kept, or drop some of them", EDITS),
    "report": Command(Report, "write tables, figures and the page from stored cells", REPORT),
    "check-data": Command(CheckData, "print what data hold, what they lack, and what a run skips and why", CHECK_DATA),
    "make-classifier": Command(
        MakeClassifier, "fine-tune the raw classifier of pairs from an encoder", MAKE_CLASSIFIER
    ),
}


class _Help(argparse.RawDescriptionHelpFormatter):
    """Examples as they are written, and one line for a command."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=30)
        self._action_max_length = 4 + max(map(len, LIST))  # argparse does not count the indent of a command


def plugins_of(argv: Sequence[str]) -> list[str]:
    """The plug-ins that a command line names."""
    before = argparse.ArgumentParser(add_help=False)
    before.add_argument("--plugin", action="append", nargs="?", default=[])
    return [name for name in before.parse_known_args(argv)[0].plugin if name is not None]


def parser() -> argparse.ArgumentParser:
    """All commands and options, one line each. UserError: a plug-in's data set has an option's name."""
    result = argparse.ArgumentParser(
        "lime_editing", description="Cross-lingual model editing.", epilog=COMMANDS, formatter_class=_Help
    )
    commands = result.add_subparsers(dest="command", metavar="COMMAND", title="commands", prog="lime_editing")
    for name, command in LIST.items():
        made = commands.add_parser(
            name,
            help=command.help,
            description=f"{command.help[0].upper()}{command.help[1:]}.",
            epilog=command.examples,
            usage=f"python -m lime_editing {name} [options]",
            formatter_class=_Help,
        )
        try:
            add(made, command.options)
        except argparse.ArgumentError as error:
            raise UserError(f"a plug-in registers a data set that is named like an option: {error}") from error
    return result
