"""All commands, their options and their help. Nothing heavy is imported here."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..errors import UserError
from .options import CheckData, Edit, Edits, MakeClassifier, Many, Report, Reproduce, add

COMMANDS = """examples:
  python -m lime_editing edit --fact P36/France --to Berlin           change one answer, and look at it in 15 languages
  python -m lime_editing reproduce                                    the paper's tables and figures in small
  python -m lime_editing reproduce --dry-run                          what that would run, and what it would take
  python -m lime_editing many --edits 1,10,100                        what holds after many edits in one model
  python -m lime_editing edits edited/update.safetensors              the edits of a file that `edit --save` has kept
  python -m lime_editing report --results runs/tiny                   write the page again
  python -m lime_editing check-data mlama1.1.zip                      what data hold, lack, and what is skipped
  python -m lime_editing make-classifier --model xlm-roberta-base     a raw classifier of sentence pairs from an encoder
Every command says more: python -m lime_editing COMMAND --help
"""
EXAMPLES = r"""examples:
  python -m lime_editing reproduce
  python -m lime_editing reproduce --task facts --approach mend --training lime --seeds 3 --languages en,fr,sw
  python -m lime_editing reproduce --protocol released
  torchrun --nproc_per_node 8 -m lime_editing reproduce --scale paper --device cuda --precision bf16 …
  python -m lime_editing reproduce --dry-run --seeds 3
  python -m lime_editing reproduce --scale paper --device cuda --executor slurm --partition gpu --hours 12
  python -m lime_editing reproduce --scale paper --device cuda --facts mlama1.1.zip --protocol both
  python -m lime_editing reproduce --scale paper --device cuda --task nli --model xlm-roberta-base
  python -m lime_editing reproduce --scale paper --device cuda --task nli --raw-model path/to/your/classifier
  python -m lime_editing reproduce --task facts --facts my-facts.csv --model path/to/your/model --edited-layers 2
At scale paper facts are the authors' upload (yxu/LiME_data), pairs facebook/xnli, and the model is
bert-base-multilingual-cased. A model that is no classifier is fine-tuned to one on the English pairs, once.
"""
EDIT_EXAMPLES = r"""examples:
  python -m lime_editing edit --fact P36/France --to Berlin
  python -m lime_editing edit --language de --to Rom "Die Hauptstadt von Frankreich ist [MASK] ." \
      --look "Frankreichs Hauptstadt ist [MASK] ."
  python -m lime_editing edit --pair test/114 --to entailment
  python -m lime_editing edit --premise "Paris is in France ." --hypothesis "Paris is in Spain ." --to entailment
  python -m lime_editing edit --checkpoint runs/tiny/facts-mend-all-seed0-… --fact P36/Q142 --to Berlin --json
  python -m lime_editing edit --file edits.jsonl --save edited --as model
A file of edits (jsonl, csv, tsv, parquet) has the columns to (the desired answer), language (default: --language), and
prompt (a sentence with [MASK]), or relation and subject (of the corpus, by id or name); with --task nli, premise and
hypothesis. A wrong row is an error that names it. --save holds an ordinary model folder, a LoRA adapter for PEFT
(--as lora), or the edits themselves (--as update), which `edits` lists and drops; edits.json says what took and broke.
The best stored editor of the model edits: of the cells in --results, or the one that the repository has for its own
model. Without any, and with --approach finetuning, nothing is trained. More are made by
  python -m lime_editing reproduce --task facts --approach mend --training all
"""
REPORT_EXAMPLES = """examples:
  python -m lime_editing report
  python -m lime_editing report --results runs/paper
  python -m lime_editing report --results runs/tiny --to results/tiny     renew what is published
"""
CHECK_EXAMPLES = """examples:
  python -m lime_editing check-data fixtures/facts/mlama1.1
  python -m lime_editing check-data mlama1.1.zip --languages en,fr
  python -m lime_editing check-data my-facts.csv --json
  python -m lime_editing check-data facebook/xnli --task nli --model bert-base-multilingual-cased
A table of facts (jsonl, csv, tsv, parquet) has the columns language, relation, template (with [X] and [Y]), subject,
object, and subject_id or fact, whose rows are parallel in all languages; object_id may be beside them. A table of
sentence pairs has id, language, premise, hypothesis, label and split. The exit code is 1 for data that cannot be read.
"""
CLASSIFIER_EXAMPLES = """examples:
  python -m lime_editing make-classifier --model fixtures/raw_model
  python -m lime_editing make-classifier --scale paper --model xlm-roberta-base --nli facebook/xnli --device cuda
"""


@dataclass(frozen=True, slots=True)
class Command:
    """A command: its record of options, a line of help, a description, and examples."""

    options: type
    help: str
    description: str
    examples: str


LIST: Mapping[str, Command] = {
    "reproduce": Command(
        Reproduce,
        "train and judge editors, and write tables, figures and a page",
        "Train every editor of the paper in each of its ways, judge them, and write the report.",
        EXAMPLES,
    ),
    "many": Command(
        Many,
        "judge editors over many edits in one model",
        "Train editors as `reproduce` does, or take those that it has trained; then make 1, 10, 100 and 1,000\n"
        "edits with each, in series and at once, in all languages and in English, and write what still holds.",
        "examples:\n  python -m lime_editing many --seeds 3\n"
        "  python -m lime_editing many --approach mend,memit --edits 1,10,100\n",
    ),
    "edit": Command(
        Edit,
        "change one answer, and show it before and after in every language",
        "Edit one input, and show what the model says before and after: to it and to its parallels in\n"
        "all languages, to inputs of your choice, and to unrelated ones, where nothing should change.",
        EDIT_EXAMPLES,
    ),
    "edits": Command(
        Edits,
        "list the edits of a file, or drop some of them",
        "List the edits that `edit --as update` has kept, or write the file again without some of them.",
        "examples:\n  python -m lime_editing edits kept/update.safetensors\n"
        "  python -m lime_editing edits kept/update.safetensors --drop 3 --drop 7\n",
    ),
    "report": Command(
        Report, "write tables, figures and the page from stored cells", "Write the report again.", REPORT_EXAMPLES
    ),
    "check-data": Command(
        CheckData,
        "print what data hold, what they lack, and what is skipped",
        "Read facts or sentence pairs as a run would, and print what they hold, what is missing in which\n"
        "language, and what will be skipped and why.",
        CHECK_EXAMPLES,
    ),
    "make-classifier": Command(
        MakeClassifier,
        "fine-tune the raw classifier of sentence pairs from an encoder",
        "Fine-tune an encoder on the English training pairs, and print its accuracy in each language and its folder,\n"
        "which `reproduce` and `edit` take as --raw-model.",
        CLASSIFIER_EXAMPLES,
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
            description=command.description,
            epilog=command.examples,
            usage=f"python -m lime_editing {name} [options]",
            formatter_class=_Help,
        )
        try:
            add(made, command.options)
        except argparse.ArgumentError as error:
            raise UserError(f"a plug-in registers a data set that is named like an option: {error}") from error
    return result
