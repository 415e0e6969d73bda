"""The command `lime-spec`; in a checkout `python -m spec_tests`."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
