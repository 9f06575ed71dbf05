"""`python -m tfmb`."""

import sys

from tfmb.cli import main

sys.exit(main())
