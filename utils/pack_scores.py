#!/usr/bin/env python3
"""Pack the score files of a recipe's experiments, so that their page of results can be made anew without training.

    utils/pack_scores.py --exp egs/mandarin/exp --archive egs/mandarin/scores/results_mtl.tar.xz

Packed are what stage 5 has scored, of each fold and seed: settings, run, scores and the stages' marks, no checkpoints,
features or clips. Of absolute paths only the last part is kept. The same files make the same archive, byte for byte. To
make the page:

    mkdir DIR && tar -xf ARCHIVE -C DIR
    speecheq report --exp DIR --title TITLE --results PAGE.md --table egs/RECIPE/conf/table.yaml
"""

import argparse
import io
import json
import re
import sys
import tarfile
from pathlib import Path

SCORED, STAMP = "scored", "stage.json"
# files with paths of the machine in them; those of scores have none
WITH_PATHS = {"config.yaml", "run.json"}
ABSOLUTE = re.compile(rb"(?<![\w.~-])/(?:[\w.+@~-]+/)+")


def files_of(folder: Path) -> dict[str, bytes]:
    """The files of a scored fold and seed by their names, without paths of this machine."""
    stamps = {name: json.loads((folder / name).read_text(encoding="utf-8")) for name in (STAMP, f"{SCORED}/{STAMP}")}
    written = {Path(name).name for stamp in stamps.values() for name in stamp["outputs"]} - {"best.pt", "last.pt"}
    files = {name: (folder / name).read_bytes() for name in written}
    for name in WITH_PATHS & files.keys():
        files[name] = ABSOLUTE.sub(b"", files[name])
    for name, stamp in stamps.items():
        stamp["inputs"] = {}  # which are not packed
        sizes = {output: len(files[Path(output).name]) for output in stamp["outputs"] if Path(output).name in files}
        stamp["outputs"].update(sizes)
        files[name] = json.dumps(stamp, indent=2, sort_keys=True).encode()
    return files


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--exp", type=Path, required=True, help="folder of the experiments")
    parser.add_argument("--archive", type=Path, required=True, help="file to write, such as scores/results_mtl.tar.xz")
    given = parser.parse_args()
    folders = sorted(mark.parent.parent for mark in given.exp.glob(f"*/*/fold*/seed*/{SCORED}/{STAMP}"))
    if not folders:
        sys.exit(f"error: --exp {given.exp}: stage 5 has scored no fold in it; run stages 4 and 5 first.")
    if not given.archive.name.endswith(".tar.xz"):
        sys.exit(f"error: --archive {given.archive}: the name must end in .tar.xz.")
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:xz", preset=9) as archive:
        for folder in folders:
            for name, content in sorted(files_of(folder).items()):
                member = tarfile.TarInfo((folder.relative_to(given.exp) / name).as_posix())
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    given.archive.parent.mkdir(parents=True, exist_ok=True)
    part = given.archive.with_name(f"{given.archive.name}.part")
    part.write_bytes(packed.getvalue())
    part.replace(given.archive)
    print(f"{len(folders)} folds and seeds, {len(packed.getvalue())} bytes: {given.archive}")


if __name__ == "__main__":
    main()
