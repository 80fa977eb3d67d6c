#!/usr/bin/env bash
# Install SpeechEQ and all it needs into a virtual environment, every version pinned (utils/requirements).
#
#   utils/install.sh [--stack auto|k2|modern] [--venv DIR] [--python PATH] [--extras LIST]
#
# --stack auto     k2: Python 3.10, torch 1.13.1, k2 1.23.4. modern: Python 3.11 to 3.13, torch 2, k2 by --k2.
#                  auto keeps the stack that is installed; else it takes modern where there is a k2 for it, then k2
#                  where a Python 3.10 is to be had (on PATH, under pyenv, through uv) and torch 1.13.1 knows the GPU,
#                  if there is one, then modern. On aarch64 Linux and Macs with Apple's processors it is modern.
# --venv DIR       where to install (default: $SPEECHEQ_VENV, or .venv of this checkout)
# --python PATH    the Python to build on, instead of looking for one
# --extras LIST    av (PyAV, for m4a, mp4 and others), cited (librosa, openSMILE: features of other systems), demo
#                  (espeak-ng, for the mini corpora), encoders (pretrained ones, through transformers), export
#                  (ONNX), listen (a page for the microphone), parquet (a format of speecheq embed), segments
#                  (TextGrid, .eaf, SRT and VTT) and test, separated by commas
# --make-wheelhouse DIR  beside installing, fill DIR with all that was installed, for machines without a network
# --wheelhouse DIR       install from such a DIR alone; of the same stack, extras and torch, on the same Python
# --k2 auto        whether the modern stack gets k2, from the wheels of k2's own pages, with the torch that they are
#                  for (utils/requirements/k2-pairs.tsv): yes, no, or auto: with --stack auto, or where --k2-wheels is
#                  given; where no wheel fits or works, one line says so. docs/recipes.md has all outcomes
# --k2-wheels PAGE|DIR   where these wheels are (https://k2-fsa.github.io/k2/cpu.html or cuda.html, as torch is)
# --torch auto     the modern stack's torch: cuda (2.11.0), cpu (2.13.0), or auto: cuda where there is a GPU
#
# Run again it does only what is missing, and nothing takes a second. An installation that was broken off is
# never taken for whole: the stamp, $venv/speecheq-stamp, is written last.
set -euo pipefail
[[ $OSTYPE == darwin* ]] || export LC_ALL=C.UTF-8 # decimal points, and one order of files everywhere

root=$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/.." && pwd)
requirements=$root/utils/requirements
uv_version=0.13.8
newest_gpu_of_k2_stack=89 # compute capability 8.9; torch 1.13.1 has no code for later ones

stack=auto
venv=${SPEECHEQ_VENV:-$root/.venv}
python=
extras=
torch=auto
make_wheelhouse=
wheelhouse=
k2=auto
k2_wheels=
options=(stack venv python extras torch make_wheelhouse wheelhouse k2 k2_wheels)
# shellcheck source=utils/parse_options.sh
. "$root/utils/parse_options.sh"

# is_python COMMAND VERSION...: prints the path of the real program if it runs, is one of VERSIONs and can
# make environments. (A pyenv shim may stand on PATH and not run.)
is_python() {
  local command=$1
  shift
  "$command" -c '
import sys, os, venv, ensurepip
if "%d.%d" % sys.version_info[:2] not in sys.argv[1:]: sys.exit(1)
print(os.path.realpath(sys.executable))' "$@" 2>/dev/null
}

# find_python VERSION: prints the first Python of that version on PATH or under pyenv
find_python() {
  local candidate
  while IFS= read -r candidate; do
    is_python "$candidate" "$1" && return
  done < <(
    type -aP "python$1" python3 python || true
    compgen -G "${PYENV_ROOT:-$HOME/.pyenv}/versions/$1.*/bin/python$1" || true
  )
  return 1
}

find_modern_python() {
  local version
  for version in 3.11 3.12 3.13; do # the first is the one that the tests run on
    find_python $version && return
  done
  return 1
}

# fetch_python_310: prints a Python 3.10 that uv downloaded beside the environment
fetch_python_310() {
  local place=$venv-python uv=uv any candidate
  candidate=$(compgen -G "$place/*/bin/python3.10" | head -n 1) && is_python "$candidate" 3.10 && return
  if ! command -v uv >/dev/null; then
    any=$(find_modern_python) || return 1
    scratch=$(mktemp -d)
    trap 'rm -rf "$scratch"' EXIT
    "$any" -m venv "$scratch" && "$scratch/bin/python" -m pip install -q "uv==$uv_version" || return 1
    uv=$scratch/bin/uv
  fi >/dev/null 2>&1
  log "asking uv for a Python 3.10"
  UV_PYTHON_INSTALL_BIN=0 UV_HTTP_TIMEOUT=30 timeout 300 \
    "$uv" python install --install-dir "$place" 3.10 >/dev/null 2>&1 || { rm -rf "$place" && return 1; }
  candidate=$(compgen -G "$place/*/bin/python3.10" | head -n 1) && is_python "$candidate" 3.10
}

# gpu_capability: the highest compute capability of this machine's GPUs times ten; 0 without a GPU
gpu_capability() {
  { nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null || true; } |
    awk '/^[0-9]+\.[0-9]+$/ && $1 * 10 > most { most = $1 * 10 } END { printf "%d\n", most + 0.5 }'
}

# without_k2 REASON: after a wheel of k2 or its torch that cannot be used; begins anew where the k2 stack may come next
without_k2() {
  [[ $k2 != yes ]] || die "--k2 yes: $1."
  log "no k2 for the modern stack: $1"
  if $k2_stack_is_next; then
    rm -rf "$venv" "$k2_scratch"
    exec "$root/utils/install.sh" --k2 no --venv "$venv" --extras "$extras" --torch "$torch" \
      --wheelhouse "$wheelhouse" --make-wheelhouse "$make_wheelhouse"
  fi
  pick_torch_after_k2
}

# look_for_k2: sets k2_torch, k2_wheel and k2_digest by k2's page of wheels; one line says why there is none
look_for_k2() {
  local build=cpu source answer
  k2_sought=true
  [[ $torch == cuda || ($torch == auto && $gpu -gt 0) ]] && build=cuda
  source=${k2_wheels:-${wheelhouse:-https://k2-fsa.github.io/k2/$build.html}}
  k2_scratch=$(mktemp -d)
  trap 'rm -rf "$k2_scratch" ${scratch:+"$scratch"}' EXIT
  if answer=$("$python" "$root/utils/k2_wheels.py" "$source" "$requirements/k2-pairs.tsv" $build "$k2_scratch" 2>&1); then
    IFS=$'\t' read -r k2_torch k2_wheel k2_digest <<<"$answer"
    k2_build=$build
    log "k2 for the modern stack: $(basename "$k2_wheel"), with torch $k2_torch"
  else
    log "no k2 for the modern stack: $(tail -n 1 <<<"$answer") (looked in $source)"
    return 1
  fi
}

# choose: sets stack and python for a fresh environment, and says why
choose() {
  local version why asked=$stack
  if [[ -n $python ]]; then
    command -v "$python" >/dev/null || die "--python $python: there is no such program."
    version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) ||
      die "--python $python cannot be run as a Python."
    case $stack.$version in
      auto.3.10 | k2.3.10) stack=k2 ;;
      auto.3.1[123] | modern.3.1[123]) stack=modern ;;
      k2.*) die "--python $python is Python $version: the k2 stack needs 3.10, since k2's wheel imports on no other." ;;
      *) die "--python $python is Python $version: SpeechEQ runs on 3.10 (k2 stack) and 3.11 to 3.13 (modern stack)." ;;
    esac
    python=$(is_python "$python" "$version") ||
      die "--python $python lacks venv or ensurepip: install them (Debian: apt-get install python$version-venv)."
    why="--python is Python $version"
  elif [[ $stack == modern ]]; then
    why=$reason_given
  elif [[ $stack == auto && $k2 != no ]] && python=$(find_modern_python) && look_for_k2; then
    stack=modern why="there is a k2 for it" k2_stack_is_next=true
  elif [[ $stack == auto ]] && ((gpu > newest_gpu_of_k2_stack)); then
    python=
    stack=modern why="the GPU has compute capability $((gpu / 10)).$((gpu % 10)), which torch 1.13.1 does not know"
  elif python=$(find_python 3.10); then
    why="there is a Python 3.10"
    [[ $stack == k2 ]] && why=$reason_given
    stack=k2
  elif python=$(fetch_python_310); then
    stack=k2 why="uv brought a Python 3.10"
  elif [[ $stack == k2 ]]; then
    die "the k2 stack needs Python 3.10, and there is none on PATH, under pyenv or through uv:" \
      "install one and name it with --python, or take --stack modern."
  else
    stack=modern why="there is no Python 3.10 on PATH, under pyenv or through uv"
  fi
  if [[ $stack == modern && -z $python ]]; then
    python=$(find_modern_python) ||
      die "no Python 3.11, 3.12 or 3.13 with its venv module is on PATH or under pyenv: install one" \
        "(Debian: apt-get install python3 python3-venv), or name it with --python."
  fi
  if [[ $stack == modern && $k2 != no && ($k2 == yes || $asked == auto || -n $k2_wheels || -n $had_k2) ]] &&
    ! $k2_sought; then
    look_for_k2 || true
  fi
  [[ $k2 != yes || $stack == k2 || -n $k2_wheel ]] ||
    die "--k2 yes: there is no wheel of k2 that fits, for the reason above; --k2 no takes torch's CTC."
  [[ $stack == k2 || -n $k2_wheel ]] || why+="; CTC is torch's"
  log "stack $stack, because $why; building on $python"
  if [[ $stack == k2 ]] && ((gpu > newest_gpu_of_k2_stack)); then
    log "warning: torch 1.13.1 does not know this machine's GPU; --stack modern does"
  fi
}

# run_pip ARGUMENT...: runs the environment's pip; what it says goes to $venv/pip.last and, behind all else, the log
run_pip() {
  local status=0
  "$venv/bin/python" -m pip --no-input --disable-pip-version-check "$@" >"$venv/pip.last" 2>&1 || status=$?
  cat "$venv/pip.last" >>"$pip_log"
  return $status
}

# pip ARGUMENT...: the same, and a failure ends the script with one sentence
pip() {
  local reason
  run_pip "$@" && return
  reason=$(grep -E '^ERROR' "$venv/pip.last" | tail -n 1) || reason="pip $1: $(tail -n 1 "$venv/pip.last")"
  if grep -qE 'NewConnectionError|NameResolutionError|ConnectTimeout|ProxyError' "$venv/pip.last"; then
    reason="the package index cannot be reached (check the network, or pip's settings for a mirror)"
  fi
  die "installing into $venv failed: ${reason%.}; all of pip's words are in $pip_log."
}

# check_packages: whether all that is installed goes together, but for what is left out on purpose
check_packages() {
  local complaints
  run_pip check && return
  complaints=$(grep -Ev '^torchattacks [0-9.]+ (requires (requests|torchvision), which is not|has requirement requests)' \
    "$venv/pip.last") || return 0
  complaints=$(tail -n 1 <<<"$complaints")
  die "installing into $venv failed: pip check: ${complaints%.}; all of pip's words are in $pip_log."
}

# fetch_cpu_torch: brings the CPU build of torch to $venv/wheels, from where pip is set to look or from pytorch.org
fetch_cpu_torch() {
  local fetch=(download --no-deps --retries 1 --dest "$venv/wheels" -r "$requirements/modern-cpu.txt")
  run_pip "${fetch[@]}" || run_pip "${fetch[@]}" --index-url https://download.pytorch.org/whl/cpu
}

# pick_torch: sets torch_build to cpu or cuda
pick_torch() {
  torch_build=cuda
  if [[ $torch == cuda || ($torch == auto && ($installed_torch == cuda || $gpu -gt 0)) ]]; then
    return
  elif fetch_cpu_torch; then
    torch_build=cpu
  elif [[ $torch == cpu ]]; then
    die "no CPU build of torch for this Python can be reached: --torch cuda takes PyPI's, which runs on CPUs too."
  else
    log "no CPU build of torch can be reached: taking PyPI's with its CUDA libraries, some gigabytes"
  fi
}

# install_k2_pair: installs the torch that k2_wheel was built for, and k2; both digests go to $venv/k2-pair
install_k2_pair() {
  local name=torch==$k2_torch file fetch
  [[ $k2_build == cuda ]] || name+=+cpu
  fetch=(download --no-deps --only-binary :all: --retries 1 --dest "$venv/wheels" "$name")
  run_pip "${fetch[@]}" || run_pip "${fetch[@]}" --index-url "https://download.pytorch.org/whl/$k2_build" || {
    without_k2 "$name, which its wheel is for, cannot be fetched ($(tail -n 1 "$venv/pip.last"))"
    return
  }
  file=$(compgen -G "$venv/wheels/torch-*.whl" | head -n 1)
  pip install --only-binary :all: "$file"
  pip install --no-deps "$k2_wheel"
  torch_build=$k2_build
  printf '%s %s\n' "$torch_build" "$k2_torch" "$(sha256sum <"$file" | cut -d ' ' -f 1)" "$(basename "$file")" \
    "$k2_digest" "$(basename "$k2_wheel")" >"$venv/k2-pair"
}

# pick_torch_after_k2: takes the modern stack as it is without k2
pick_torch_after_k2() {
  k2_wheel='' k2_torch=''
  rm -f "$venv/k2-pair"
  pick_torch
  files+=(--find-links "$venv/wheels" -r "$requirements/modern-$torch_build.txt")
}

# k2_works: whether the environment's k2 imports, and computes the CTC loss that torch does
k2_works() {
  "$venv/bin/python" - "$root" 2>>"$pip_log" <<'PYTHON'
import sys

sys.path.insert(0, sys.argv[1])
import torch

from speecheq.losses import resolve_ctc_backend

resolve_ctc_backend("k2", torch.device("cpu"))
PYTHON
}

verify() {
  "$venv/bin/python" - "$stack" "$root" 2>>"$pip_log" <<'PYTHON' ||
import platform
import sys

sys.path.insert(0, sys.argv[2])
import kaldi_native_fbank, lhotse, lilcom, numpy, pypinyin, rapidfuzz, sentencepiece, soundfile, torch, yaml  # noqa
from torch.utils.tensorboard import SummaryWriter  # noqa: F401

import speecheq  # noqa: F401
from speecheq.dataset.phones.english import predict

assert predict("speechify")  # g2p_en, which is particular about its surroundings
said = [f"Python {platform.python_version()}", f"torch {torch.__version__}", f"lhotse {lhotse.__version__}"]
if sys.argv[1] == "k2":
    import k2
    import torchaudio  # noqa: F401

    assert k2.ctc_graph([[1, 2]]).shape[0] == 1
    said.append("k2 with CTC graphs")
if torch.cuda.is_available():
    try:
        assert (torch.ones(2, device="cuda") + 1).sum().item() == 4
        said.append(torch.cuda.get_device_name())
    except RuntimeError as error:
        said.append("but the GPU cannot be used: " + str(error).splitlines()[0])
print("it runs: " + ", ".join(said), flush=True)
PYTHON
    die "what was installed in $venv does not work: see the end of $pip_log."
}

# --- check the request
[[ $stack =~ ^(auto|k2|modern)$ ]] || die "--stack is auto, k2 or modern, not '$stack'."
[[ $torch =~ ^(auto|cpu|cuda)$ ]] || die "--torch is auto, cpu or cuda, not '$torch'."
[[ ${extras:-demo} =~ ^(av|cited|demo|encoders|export|listen|parquet|segments|test)(,(av|cited|demo|encoders|export|listen|parquet|segments|test))*$ ]] ||
  die "--extras is a list of av, cited, demo, encoders, export, listen, parquet, segments and test, such as demo,test, not '$extras'."
[[ -n $venv ]] || die "--venv needs the name of a folder."
if [[ -n $wheelhouse ]]; then
  compgen -G "$wheelhouse/*.whl" >/dev/null ||
    die "--wheelhouse $wheelhouse: there are no wheels; make them where there is a network, with --make-wheelhouse DIR."
  PIP_FIND_LINKS=$(realpath -- "$wheelhouse")
  export PIP_FIND_LINKS PIP_NO_INDEX=1
fi
reason_given="--stack asks for it"
kinds=(--only-binary :all:)
[[ -n $wheelhouse ]] || kinds+=(--no-binary Distance) # which the index has as source alone
case $(uname -sm) in
  "Linux x86_64") ;;
  "Linux aarch64" | "Darwin arm64") # neither torch 1.13 nor k2 has wheels for these
    [[ $stack != k2 && $k2 != yes ]] || die "the k2 stack and k2 are for Linux on x86-64, and this is $(uname -sm): take --stack modern."
    [[ $(uname -s) != Darwin || $torch != cuda ]] || die "--torch cuda is for Linux: a Mac's GPU is used by --device mps."
    [[ $stack != auto ]] || reason_given="k2 and its torch are for Linux on x86-64"
    stack=modern k2=no
    ;;
  *) die "the pinned versions are for Linux on x86-64 or aarch64 and for Macs with Apple's processors, and this is $(uname -sm)." ;;
esac
venv=$(realpath -m -- "$venv")
gpu=$(gpu_capability)
[[ $stack == modern || $torch == auto ]] || die "--torch is for --stack modern: the k2 stack has one torch."

k2_torch='' k2_wheel='' k2_digest='' k2_build='' k2_sought=false k2_stack_is_next=false
[[ $k2 =~ ^(auto|yes|no)$ ]] || die "--k2 is auto, yes or no, not '$k2'."
[[ $k2 != no || -z $k2_wheels ]] || die "--k2-wheels says where k2 is, and --k2 no that there is to be none."
if [[ -n $wheelhouse && -z $k2_wheels && $k2 != no ]] && compgen -G "$wheelhouse/k2-*+*torch*.whl" >/dev/null; then
  k2_wheels=$wheelhouse
fi

# --- the existing environment
started=$SECONDS
lock_of() { # the state of all that the installation of stack $1 depends on
  cat "$requirements/$1"*.txt "$root/pyproject.toml" | sha256sum | cut -d ' ' -f 1
}
installed_stack='' installed_lock='' installed_torch='' installed_extras='' installed_at='' had_k2=''
fresh=true
if [[ -f $venv/speecheq-stack ]]; then
  read -r installed_stack <"$venv/speecheq-stack" || true
  if [[ ! -f $venv/speecheq-stamp ]]; then
    log "an installation in $venv was broken off: starting it afresh"
  else
    { read -r installed_lock && read -r installed_torch && read -r installed_extras && read -r installed_at; } \
      <"$venv/speecheq-stamp" || true
    [[ ! -f $venv/k2-pair ]] || had_k2=true
    fresh=false
    if [[ $stack != auto && $stack != "$installed_stack" ]]; then
      log "replacing the $installed_stack stack in $venv by the $stack stack (--venv installs it beside the other)"
      fresh=true
    elif [[ -n $python && $(readlink -f "$(command -v "$python")") != "$(readlink -f "$venv/bin/python")" ]]; then
      log "replacing the environment in $venv, which is built on another Python than $python"
      fresh=true
    elif [[ $venv != "$installed_at" ]]; then
      log "the environment in $venv was made as ${installed_at}, and environments cannot be moved: starting it afresh"
      [[ $stack != auto || -n $python ]] || stack=$installed_stack reason_given="it stood there before"
      fresh=true
    elif [[ $installed_torch == cpu && ($torch == cuda || ($torch == auto && $gpu -gt 0)) ]]; then
      log "replacing the environment in $venv, whose torch uses no GPU"
      stack=modern reason_given="it stood there before"
      fresh=true
    elif [[ $installed_torch == cuda && $torch == cpu ]]; then
      log "replacing the environment in $venv, whose torch is the one with CUDA"
      fresh=true
    elif [[ $installed_stack == modern && (($k2 == yes && -z $had_k2) || ($k2 == no && -n $had_k2)) ]]; then
      log "replacing the environment in $venv, as --k2 $k2 asks"
      stack=modern reason_given="it stood there before"
      fresh=true
    elif ! "$venv/bin/python" -c '' 2>/dev/null; then
      log "the Python under $venv is gone: starting it afresh"
      [[ $stack != auto || -n $python ]] || stack=$installed_stack reason_given="it stood there before"
      fresh=true
    fi
  fi
elif [[ -e $venv && -n $(ls -A "$venv" 2>/dev/null || echo file) ]]; then
  die "$venv exists and was not made by utils/install.sh: remove it, or name another folder with --venv."
fi

# --- do what is missing
pip_log=$venv/install.log
torch_build=
if $fresh; then
  choose
  installed_torch=
  rm -rf "$venv"
  mkdir -p "$venv"
  # The name of the stack comes first and marks the folder as ours; the stamp comes last and says that it is whole.
  echo "$stack" >"$venv/speecheq-stack"
  : >"$pip_log"
  "$python" -m venv "$venv" >>"$pip_log" 2>&1 || die "$python could not make an environment in $venv: see $pip_log."
else
  stack=$installed_stack
fi
if ! $fresh && [[ -n $make_wheelhouse && -n $had_k2 ]]; then
  die "--make-wheelhouse: $venv has kept neither k2's wheel nor that of its torch: make a new environment (--venv DIR)."
fi
lock=$(lock_of "$stack")
# What is there stays, and the tests use all that the others bring.
wanted=$(tr ',' '\n' <<<"$installed_extras,$extras" | sed '/^$/d; s/^test$/av\ncited\ndemo\nencoders\nexport\nlisten\nparquet\nsegments\ntest/' |
  sort -u | paste -sd ,)
if ! $fresh && [[ $lock == "$installed_lock" && $wanted == "$installed_extras" && -z $make_wheelhouse ]]; then
  log "the $stack stack in $venv is complete${wanted:+, with $wanted}"
  exit 0
fi
rm -f "$venv/speecheq-stamp"
mkdir -p "$venv/wheels"
$fresh || log "bringing the $stack stack in $venv up to date${wanted:+, with $wanted}"

# pip first: the one that comes with the Python may refuse k2's wheel.
grep -E '^(pip|setuptools|wheel)==' "$requirements/$stack.txt" >"$venv/tools.txt"
pip install --no-deps --only-binary :all: -r "$venv/tools.txt"
files=(-r "$requirements/$stack.txt")
if [[ $stack == modern && -f $venv/k2-pair ]] && ! $fresh; then
  read -r torch_build k2_torch <"$venv/k2-pair" # stays as it is: without the page there may be no other one
elif [[ $stack == modern && -n $k2_wheel ]]; then
  install_k2_pair
elif [[ $stack == modern ]]; then
  pick_torch
  files+=(--find-links "$venv/wheels" -r "$requirements/modern-$torch_build.txt")
fi
for extra in ${wanted//,/ }; do
  files+=(-r "$requirements/$stack-$extra.txt")
done
log "installing the pinned packages (some minutes on a slow line; pip's words go to $pip_log)"
install_all() { # ARGUMENT...: all that is pinned, with pip ARGUMENT...
  pip "$@" --no-deps --no-build-isolation "${kinds[@]}" "${files[@]}"
  [[ $stack != k2 ]] || pip "$@" --no-deps --no-build-isolation -r "$requirements/k2-wheel.txt"
}
install_all install
pip install --no-deps --no-build-isolation --use-pep517 -e "$root"
if [[ -n $k2_wheel ]] && ! k2_works; then
  without_k2 "$(basename "$k2_wheel") does not work with torch $k2_torch ($(tail -n 1 "$pip_log"))"
  run_pip uninstall -y k2 torch || true
  install_all install
fi
if [[ -n $make_wheelhouse ]]; then
  log "gathering the wheels in $make_wheelhouse"
  install_all wheel --wheel-dir "$make_wheelhouse"
  if [[ -n $k2_wheel ]]; then # and its torch with all that it asks for, which our lists have for other versions
    pip download --only-binary :all: --dest "$make_wheelhouse" "$(compgen -G "$venv/wheels/torch-*.whl" | head -n 1)"
    mkdir -p "$make_wheelhouse" && cp "$k2_wheel" "$make_wheelhouse"
  fi
fi
check_packages
verify >"$venv/verified"
printf '%s\n' "$lock" "$torch_build" "$wanted" "$venv" >"$venv/speecheq-stamp.new"
rm -rf "$venv/wheels" "$venv/pip.last" "$venv/tools.txt"
mv "$venv/speecheq-stamp.new" "$venv/speecheq-stamp"
log "$(cat "$venv/verified")${k2_wheel:+, and k2 computes the CTC loss that torch does}"
log "installed the $stack stack${wanted:+, with $wanted,} in $venv in $((SECONDS - started)) s"
