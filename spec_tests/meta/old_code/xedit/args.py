"""The settings. Every module reads them when it runs."""

from types import SimpleNamespace

DEFAULTS = {
    "layers": [],
    "langs": [],
    "masks": "none",  # or "language" or "shared"
    "rank": 1920,
    "lr": 1e-6,
    "edit_lr": 1e-4,  # where the inner learning rates start
    "lr_lr": 1e-4,
    "mask_lr": 1e-3,
    "cedit": 0.1,
    "cloc": 1.0,
    "cmask": 1.0,
}
ARGS = SimpleNamespace(**DEFAULTS)


def use(given):
    """From now on the settings are these."""
    ARGS.__dict__.update(DEFAULTS)
    ARGS.__dict__.update(given)
