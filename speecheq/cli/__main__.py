"""``python -m speecheq.cli``."""

import sys

from speecheq.cli.main import main

sys.exit(main())
