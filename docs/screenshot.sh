#!/usr/bin/env bash
# Makes docs/report.png anew: docs/screenshot.sh egs/.../report.html [PICTURE.png]
# Needs Debian's chromium.
set -euo pipefail
[[ $# == [12] && -f $1 ]] || { echo "usage: docs/screenshot.sh REPORT.html [PICTURE.png]" >&2 && exit 1; }
here=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
# shellcheck source=path.sh
. "$here/../path.sh"
picture=$(readlink -f "${2:-$here/report.png}")
sandbox=()
((EUID)) || sandbox=(--no-sandbox) # chromium has none for root
chromium --headless --hide-scrollbars "${sandbox[@]}" --window-size=1000,1700 --screenshot="$picture" \
  "$(readlink -f "$1")" 2>/dev/null
# a picture of few colours: with 128 of them it is a third of the size
python - "$picture" <<'PYTHON'
import sys

from PIL import Image

Image.open(sys.argv[1]).convert("RGB").quantize(128).save(sys.argv[1], optimize=True)
PYTHON
