"""The names of the public face, and where each is from. `__init__.py` reads this file."""

from .core.backbone import (
    Backbone as Backbone,
)
from .core.backbone import (
    load as load,
)
from .core.backbone import (
    load_encoder as load_encoder,
)
from .core.backbone import (
    load_tokenizer as load_tokenizer,
)
from .core.backbone import (
    wrap as wrap,
)
from .core.editing import (
    Editor as Editor,
)
from .core.editing import (
    Objective as Objective,
)
from .core.editing import (
    edit as edit,
)
from .core.editing import (
    make_editor as make_editor,
)
from .core.editors import (
    Edits as Edits,
)
from .core.editors import (
    Gradient as Gradient,
)
from .core.editors import (
    Method as Method,
)
from .core.editors import (
    register as register,
)
from .core.evaluation import (
    answers as answers,
)
from .core.evaluation import (
    evaluate as evaluate,
)
from .core.evaluation import (
    predict as predict,
)
from .core.evaluation import (
    validator as validator,
)
from .core.metrics import (
    Counts as Counts,
)
from .core.metrics import (
    Scores as Scores,
)
from .core.metrics import (
    aggregate as aggregate,
)
from .core.metrics import (
    breakdown as breakdown,
)
from .core.metrics import (
    count as count,
)
from .core.metrics import (
    scores as scores,
)
from .core.metrics import (
    succ as succ,
)
from .core.records import (
    EditRequest as EditRequest,
)
from .core.records import (
    Input as Input,
)
from .core.records import (
    Outcome as Outcome,
)
from .core.records import (
    Triple as Triple,
)
from .core.sampling import (
    derived_rng as derived_rng,
)
from .core.sampling import (
    evaluation_pairs as evaluation_pairs,
)
from .core.sampling import (
    training_triples as training_triples,
)
from .core.task import (
    Task as Task,
)
from .core.task import (
    pair as pair,
)
from .core.task import (
    request as request,
)
from .core.task import (
    sentence as sentence,
)
from .core.training import (
    Schedule as Schedule,
)
from .core.training import (
    train as train,
)
from .core.training import (
    train_step as train_step,
)
from .core.updates import (
    Update as Update,
)
from .data import (
    Dataset as Dataset,
)
from .data import (
    Reader as Reader,
)
from .errors import (
    DataError as DataError,
)
from .errors import (
    LanguageError as LanguageError,
)
from .errors import (
    ModelError as ModelError,
)
from .errors import (
    UserError as UserError,
)
from .names import (
    Rulings as Rulings,
)

__version__: str
