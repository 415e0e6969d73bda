"""The names of the public face, and where each is from. `__init__.py` reads this file."""

from .backbone import (
    Backbone as Backbone,
    load as load,
    load_encoder as load_encoder,
    load_tokenizer as load_tokenizer,
    wrap as wrap,
)
from .core.corpus import Example as Example, ParallelCorpus as ParallelCorpus
from .core.editing import Editor as Editor, Objective as Objective, edit as edit, make_editor as make_editor
from .core.evaluation import answers as answers, evaluate as evaluate, predict as predict, validator as validator
from .core.metrics import (
    Counts as Counts,
    Scores as Scores,
    aggregate as aggregate,
    breakdown as breakdown,
    count as count,
    scores as scores,
    succ as succ,
)
from .core.sampling import (
    derived_rng as derived_rng,
    evaluation_pairs as evaluation_pairs,
    training_triples as training_triples,
)
from .core.sets import edit_all as edit_all, fit as fit
from .core.task import Task as Task, pair as pair, request as request, sentence as sentence
from .core.training import Schedule as Schedule, train as train, train_step as train_step
from .data import Dataset as Dataset, Reader as Reader
from .editors import Edits as Edits, Gradient as Gradient, Method as Method, register as register
from .errors import (
    DataError as DataError,
    LanguageError as LanguageError,
    ModelError as ModelError,
    UserError as UserError,
)
from .names import Rulings as Rulings
from .records import EditRequest as EditRequest, Input as Input, Outcome as Outcome, Triple as Triple
from .saving import (
    Saved as Saved,
    load_updates as load_updates,
    save_lora as save_lora,
    save_model as save_model,
    save_updates as save_updates,
)
from .updates import Update as Update, compose as compose

__version__: str
