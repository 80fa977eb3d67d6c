"""What others made runs no code here, leaves no trace outside its place, and is refused in one sentence."""

import ast
import base64
import io
import json
import os
import pickle
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lhotse import CutSet, Features, MonoCut
from tar_filters import needs_tar_filters

from speecheq.common.command_line import exit_status
from speecheq.common.errors import InputError
from speecheq.common.log import log, one_line, set_up_logging
from speecheq.corpora.data_card import find_card
from speecheq.corpora.download import download, unpack_zip
from speecheq.corpora.prep_script import audio_folder_main
from speecheq.evaluation.score_files import EMBEDDINGS, read_embeddings
from speecheq.features.storage import load_features
from speecheq.inference import model_folder
from speecheq.inference.recordings import find_segments
from speecheq.models import checkpoint

ROOT = Path(__file__).resolve().parents[1]

# ---- what the program may call

# A call that runs what it reads, by its full name; with the argument that makes it harmless, where there is one.
UNSAFE_MODULES = (
    "pickle",
    "cPickle",
    "_pickle",
    "dill",
    "cloudpickle",
    "joblib",
    "marshal",
    "shelve",
    "runpy",
    "code",
    "xmlrpc",
    "torch.package",
    "torch.hub",
)
UNSAFE_CALLS = {
    "torch.load": "weights_only=True",
    "numpy.load": "allow_pickle=False",
    "torch.jit.load": None,
    "torch.export.load": None,
    "pandas.read_pickle": None,
    "eval": None,
    "exec": None,
    "compile": None,
    "__import__": None,
    "importlib.import_module": None,
    "os.system": None,
    "os.popen": None,
    "subprocess.getoutput": None,
    "subprocess.getstatusoutput": None,
    "yaml.load": None,
    "yaml.load_all": None,
    "yaml.full_load": None,
    "yaml.unsafe_load": None,
    "shutil.unpack_archive": None,
    "torch.distributed.all_gather_object": None,
    "torch.distributed.broadcast_object_list": None,
    "torch.distributed.gather_object": None,
    "torch.distributed.recv_object_list": None,
    "torch.distributed.scatter_object_list": None,
}
# The same of methods, whatever they are called on: of archives, where those are imported, and of lhotse, which for some
# manifests runs a command or unpickles.
UNSAFE_METHODS = {
    "extract": None,
    "extractall": "filter='data'",
    "load_features": None,
    "load_audio": None,
    "load_array": None,
}
OF_ARCHIVES = {"extract", "extractall"}
ALLOWED = {
    ("speecheq/dataset/loader.py", "pickle"): "mini-batches on their way from a loading process to its own training",
    ("speecheq/__init__.py", "importlib.import_module"): "modules of the package that are named in that file",
    ("speecheq/common/yaml_files.py", "yaml.load"): "its loader is a SafeLoader that also refuses keys that repeat",
    (
        "speecheq/cluster/distributed.py",
        "torch.distributed.all_gather_object",
    ): "between the processes of one training, of one user, who has named where they meet",
    ("speecheq/cluster/distributed.py", "torch.distributed.broadcast_object_list"): "the same",
    (
        "speecheq/corpora/download.py",
        "importlib.import_module",
    ): "lhotse's recipes of two corpora that are named in that file",
    (
        "speecheq/corpora/download.py",
        ".extract",
    ): "of zipfile, which makes files and folders alone, after a look at all names",
    (
        "speecheq/features/encoders/emotion2vec.py",
        "pickle",
    ): "the name of an error; torch.load reads its file with weights_only",
    ("speecheq/features/speech_activity.py", "torch.jit.load"): "a file of the package silero-vad, which we depend on",
    ("speecheq/features/storage.py", ".load_features"): "after a look at how they are stored",
    ("speecheq/inference/own_data/labels.py", "yaml.load"): "its BaseLoader makes text, lists and mappings alone",
}


def unsafe(source):
    """The names of the calls and imports in a program's text that may run, or unpack, what another has made."""
    tree = ast.parse(source)
    names = {}  # what is imported, by its name here
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for item in node.names:
                names[item.asname or item.name.split(".")[0]] = item.name if item.asname else item.name.split(".")[0]
                found += [item.name] * (item.name in UNSAFE_MODULES)
        elif isinstance(node, ast.ImportFrom):
            for item in node.names:
                full = f"{node.module}.{item.name}"
                names[item.asname or item.name] = full
                found += [full] * (node.module in UNSAFE_MODULES or full in UNSAFE_MODULES)
    methods = set(UNSAFE_METHODS) - (set() if {"tarfile", "zipfile"} & set(names.values()) else OF_ARCHIVES)
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        given = {f"{argument.arg}={ast.unparse(argument.value)}" for argument in node.keywords}
        root, dot, rest = ast.unparse(node.func).partition(".")
        name, method = names.get(root, root) + dot + rest, "." + ast.unparse(node.func).rpartition(".")[2]
        if name in UNSAFE_CALLS and UNSAFE_CALLS[name] not in given:
            found.append(name)
        elif dot and method[1:] in methods and UNSAFE_METHODS[method[1:]] not in given:
            found.append(method)
        found += [f"{name} with a shell" for argument in given if re.match(r"shell=(?!False)", argument)]
    return found


@pytest.mark.parametrize(
    "line, found",
    [
        ("import torch as t\nt.load(x, map_location='cpu')", ["torch.load"]),
        ("import torch\ntorch.load(x, weights_only=True)", []),
        ("from torch import load as f\nf(x, weights_only=False)", ["torch.load"]),
        ("import numpy as np\nnp.load(x)", ["numpy.load"]),
        ("import numpy as np\nnp.load(x, allow_pickle=False)", []),
        ("from pickle import loads", ["pickle.loads"]),
        ("import subprocess\nsubprocess.run(x, shell=True)", ["subprocess.run with a shell"]),
        ("import os.path\nos.system(x)", ["os.system"]),
        ("eval(x)\nmodel.eval()\nre.compile(x)", ["eval"]),
        ("import tarfile\narchive.extractall(x)", [".extractall"]),
        ("import tarfile\narchive.extractall(x, filter='data')", []),
        ("fbank.extract(x)", []),
        ("recording.load_audio()", [".load_audio"]),
        ("import torch.distributed as dist\ndist.all_gather_object(x, y)", ["torch.distributed.all_gather_object"]),
    ],
)
def test_unsafe_calls_are_found(line, found):
    assert unsafe(line) == found


def test_the_program_makes_no_unsafe_call_but_those_with_a_reason():
    found = {
        (str(path.relative_to(ROOT)), name)
        for folder in ("speecheq", "local", "utils", "benchmarks", "docs")
        for path in (ROOT / folder).rglob("*.py")
        for name in unsafe(path.read_text(encoding="utf-8"))
    }
    assert found == set(ALLOWED)


def test_no_shell_runs_a_string():
    """eval, sh -c and the like, in all shell files; where a script runs a word, it is one word."""
    scripts = [
        path
        for path in [*ROOT.rglob("*.sh"), ROOT / ".ci/run"]
        if not any(part.startswith(".venv") for part in path.parts)
    ]
    assert len(scripts) > 8
    for path in scripts:
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            code = line.split(" #")[0] if not line.lstrip().startswith("#") else ""
            assert not re.search(r"(^|[\s;&|(])(eval|(ba|da)?sh -c|source <\(|\. <\()", code), (path, number)


# ---- files that would run something


class Harm:
    """Unpickled, it leaves a file."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def traced(path):
    """A TorchScript program, which torch.load of old versions runs in spite of weights_only."""
    torch.jit.trace(torch.nn.Linear(1, 1), torch.zeros(1, 1)).save(str(path))


def legacy_tar(path):
    """What torch.load takes for a checkpoint of its first versions, and unpacks."""
    with tarfile.open(path, "w") as archive:
        for name in ("storages", "tensors", "pickle", "sys_info"):
            content = pickle.dumps(0)
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def tar_then_zip(path):
    legacy_tar(path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("archive/data.pkl", b"")


@pytest.mark.parametrize(
    "make",
    [
        lambda path: torch.save({"format": checkpoint.FORMAT, "config": Harm(path.parent / "harm")}, path),
        lambda path: torch.save(Harm(path.parent / "harm"), path, _use_new_zipfile_serialization=False),
        lambda path: path.write_bytes(pickle.dumps(Harm(path.parent / "harm"))),
        traced,
        legacy_tar,
        tar_then_zip,
        lambda path: path.write_bytes(b""),
    ],
)
def test_a_checkpoint_that_holds_a_program_is_refused(tmp_path, make, monkeypatch):
    make(tmp_path / "best.pt")
    monkeypatch.setattr(torch.jit, "load", lambda *_, **__: pytest.fail("the program is loaded"))
    with pytest.raises(InputError, match=r"best.pt: is not a complete checkpoint \(.*\); train again"):
        checkpoint.read(tmp_path / "best.pt")
    assert os.listdir(tmp_path) == ["best.pt"]


def test_embeddings_that_hold_objects_are_refused(tmp_path):
    values = np.array([Harm(tmp_path / "harm")], dtype=object)
    np.savez(tmp_path / EMBEDDINGS, ids=values, embeddings=values)
    with pytest.raises(InputError, match=f"{EMBEDDINGS}: .*run stage 5"):
        read_embeddings(tmp_path / EMBEDDINGS, ["a"])
    assert os.listdir(tmp_path) == [EMBEDDINGS]


def test_features_that_are_stored_as_pickles_are_refused(tmp_path):
    """lhotse unpickles them: they lie in the manifest itself."""
    features = Features(
        type="fbank",
        num_frames=2,
        num_features=80,
        frame_shift=0.01,
        sampling_rate=16000,
        start=0,
        duration=0.02,
        storage_type="memory_raw",
        storage_path="",
        storage_key=pickle.dumps(Harm(tmp_path / "harm")),
        channels=0,
    )
    made = MonoCut("a", 0, 0.02, 0, features=features)
    written = made.to_dict()
    written["features"]["storage_key"] = base64.b64encode(features.storage_key).decode()
    assert json.dumps(written)
    for cut in (made, CutSet.from_cuts([made])[0]):
        with pytest.raises(InputError, match="the features of a have the storage type memory_raw"):
            load_features(cut)
    assert os.listdir(tmp_path) == []


def refused_parts(*names):
    from contextlib import ExitStack

    with ExitStack() as kept:
        return [str(part) for part in find_segments(names, kept) if isinstance(part, InputError)]


@pytest.mark.parametrize(
    "source",
    [
        {"type": "command", "channels": [0], "source": "touch harm"},
        {"type": "url", "channels": [0], "source": "pipe:touch harm"},
    ],
)
def test_recordings_that_are_commands_are_refused(tmp_path, source, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recording = {"id": "a", "sources": [source], "sampling_rate": 16000, "num_samples": 16000, "duration": 1.0}
    Path("cuts.jsonl").write_text(json.dumps(recording) + "\n")
    (refused,) = refused_parts("cuts.jsonl")
    assert refused == "cuts.jsonl: a is not an audio file or a part of one."
    (tmp_path / "kaldi").mkdir()
    (tmp_path / "kaldi/wav.scp").write_text("a touch harm |\n")
    (refused,) = refused_parts("kaldi")
    assert "is the output of a command, which is not run here" in refused
    assert sorted(os.listdir()) == ["cuts.jsonl", "kaldi"]


def test_a_manifest_whose_name_lhotse_would_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("pipe:touch harm;.jsonl").write_text("")
    refused_parts("pipe:touch harm;.jsonl")
    assert os.listdir() == ["pipe:touch harm;.jsonl"]


@pytest.fixture
def handed_on(experiment, tmp_path):
    """A model folder of our own making, to be spoiled."""
    model_folder.write(experiment, tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize(
    "name, content, sentence",
    [
        ("config.yaml", "!!python/object/apply:os.mkdir [{harm}]\n", "config.yaml, line 1: is not YAML"),
        ("config.yaml", "model: !!python/object/apply:os.mkdir [{harm}]\n", "config.yaml, line 1: is not YAML"),
        ("labels.json", "__import__('os').mkdir('{harm}')", "labels.json: is not valid JSON"),
        ("model.safetensors", "cos\nmkdir\n(S'{harm}'\ntR.", "model.safetensors: is not a whole file of weights"),
    ],
)
def test_a_model_folder_that_holds_a_program_is_refused(handed_on, tmp_path, name, content, sentence):
    (handed_on / name).write_text(content.format(harm=tmp_path / "harm"))
    with pytest.raises(InputError, match=re.escape(sentence)):
        checkpoint.restore(model_folder.read(handed_on), str(handed_on))
    assert not (tmp_path / "harm").exists()


# ---- archives


def member(name, kind=tarfile.REGTYPE, link=""):
    made = tarfile.TarInfo(name)
    made.type, made.linkname = kind, link
    return made


def tar_of(*members):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for each in members:
            content = b"content" if each.isreg() else b""
            each.size = len(content)
            archive.addfile(each, io.BytesIO(content))
    return stream.getvalue()


BAD_MEMBERS = {
    "above": lambda out: [member("data_aishell/../../../harm")],
    "through a symbolic link": lambda out: [
        member("data_aishell/link", tarfile.SYMTYPE, str(out)),
        member("data_aishell/link/harm"),
    ],
    "a relative symbolic link": lambda out: [member("data_aishell/link", tarfile.SYMTYPE, "../../../harm")],
    "a hard link": lambda out: [member("data_aishell/link", tarfile.LNKTYPE, "../../../secret")],
    "a device": lambda out: [member("data_aishell/null", tarfile.CHRTYPE)],
    "a pipe": lambda out: [member("data_aishell/pipe", tarfile.FIFOTYPE)],
}


@needs_tar_filters
@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("kind", BAD_MEMBERS)
def test_a_tar_that_reaches_outside_is_refused(tmp_path, monkeypatch, kind, nested):
    """AISHELL-1, as a server that is not ours may send it; nested, in the archive of one of its speakers."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (tmp_path / "secret").write_text("secret")
    bad = tar_of(*BAD_MEMBERS[kind](outside))
    if nested:
        speaker = member("data_aishell/wav/S0002.tar.gz")
        speaker.size = len(bad)
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode="w:gz") as archive:
            archive.addfile(speaker, io.BytesIO(bad))
        bad = stream.getvalue()
    folder = tmp_path / "corpora/aishell"
    monkeypatch.setattr("speecheq.corpora.download.fetch", lambda _url, path, _known: path.write_bytes(bad))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="an archive could not be unpacked"):
        download(find_card("aishell"), tmp_path / "corpora")
    assert sorted(os.listdir(tmp_path)) == ["corpora", "outside", "secret"] and not os.listdir(outside)
    assert not any(
        path.is_fifo() or path.is_char_device() or path.is_symlink() and not path.resolve().is_relative_to(folder)
        for path in folder.rglob("*")
    )


@needs_tar_filters
def test_absolute_names_in_a_tar_are_taken_for_relative_ones(tmp_path, monkeypatch):
    outside = tmp_path / "outside"
    content = tar_of(member(f"{outside}/harm"))
    monkeypatch.setattr("speecheq.corpora.download.fetch", lambda _url, path, _known: path.write_bytes(content))
    assert exit_status(lambda: download(find_card("aishell"), tmp_path / "corpora")) == 1, "it is no AISHELL-1"
    assert not outside.exists() and list(tmp_path.glob(f"corpora/aishell/aishell/{outside}/harm".replace("//", "/")))


def test_links_in_a_zip_become_files(tmp_path):
    """Nothing can be written through them."""
    link = zipfile.ZipInfo("link")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(link, str(tmp_path))
        archive.writestr("other/harm", "content")
    unpack_zip([(tmp_path / "a.zip", "")], tmp_path / "corpus")
    assert not (tmp_path / "corpus/link").is_symlink() and (tmp_path / "corpus/link").read_text() == str(tmp_path)


# ---- what is written


@given(st.text(st.characters()))
def test_any_text_is_one_line_that_can_be_written(text):
    line = one_line(text)
    assert line.splitlines() in ([line], []) and line.encode("utf-8") and len(line) >= len(text) or not text
    assert one_line(line) == line


def test_names_forge_no_entries_of_a_log(tmp_path, capsys):
    forged = "x\n2026-01-01 00:00:00 INFO all is well\r\x1b[2K\u2028 end"
    before = log.handlers[:]

    def action():
        raise InputError(f"{tmp_path / forged}: there is no such file.")

    try:
        set_up_logging()
        assert exit_status(action) == 1
        log.warning("dropped: %s", forged)
    finally:
        log.handlers[:] = before
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2 and r"x\n2026-01-01 00:00:00 INFO all is well\r\x1b[2K\u2028 end" in lines[0]


def test_a_name_that_is_not_utf_8_is_refused_in_one_sentence(toys, tmp_path, capsys):
    toys.write_wav(tmp_path / "noise/a.wav")
    os.rename(tmp_path / "noise/a.wav", os.fsencode(tmp_path / "noise") + b"/a\xff.wav")
    before = log.handlers[:]
    try:
        assert audio_folder_main("noise", "noises", [str(tmp_path / "noise"), str(tmp_path / "out")]) == 1
    finally:
        log.handlers[:] = before
    assert r"noise/a\udcff.wav: the name of a file or folder is not UTF-8; rename it." in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_shells_log_is_one_line_too(tmp_path):
    done = subprocess.run(
        ["bash", "-c", '. "$1"; log "$2"', "-", ROOT / "utils/log.sh", "a\nb\033[2K"],
        stderr=subprocess.PIPE,
        text=True,
        check=True,
    )
    assert done.stderr.endswith(" a?b?[2K\n") and done.stderr.count("\n") == 1


def test_bash_evaluates_no_name_of_a_folder(tmp_path):
    """Prepared corpora are found by their folders; an associative array's subscript would be evaluated."""
    names = ["x[$(touch harm)]", "$(touch harm)", "a b", "-e", "*"]
    for name in names:
        folder = tmp_path / "data/manifests" / name
        folder.mkdir(parents=True)
        (folder / "stage.json").write_text("{}")
    done = subprocess.run(
        [ROOT / "egs/mandarin/run.sh", "--data", "data", "--exp", "exp", "--stage", "2"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, "SPEECHEQ_VENV": sys.prefix},
    )
    assert done.returncode == 1 and "no corpus is given and none is prepared" in done.stderr, done.stderr
    assert sorted(os.listdir(tmp_path)) == ["data"] and not (ROOT / "egs/mandarin/harm").exists()
