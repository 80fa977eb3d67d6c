"""``python -m speecheq.predict FILES``: short for ``speecheq predict FILES``."""

import sys

from speecheq.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["predict", *sys.argv[1:]]))
