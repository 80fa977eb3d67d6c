#!/usr/bin/env bash
# What a container of SpeechEQ installs, in Debian or Ubuntu: Python and git from the distribution, then one of the two
# stacks with every version pinned. The Dockerfiles and Apptainer definitions beside this file run it, and so does CI.
#
#   utils/containers/setup.sh --stack k2|modern --venv DIR [--torch cuda] [--extras demo,export] [--k2 yes]
#
# The drivers of a GPU are the host's (docker run --gpus all, apptainer run --nv); all else of CUDA comes with torch.
set -euo pipefail

root=$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/../.." && pwd)
stack=modern
venv=
torch=auto
extras=demo,export
k2=auto
# shellcheck disable=SC2034  # read by parse_options.sh
options=(stack venv torch extras k2)
# shellcheck source=utils/parse_options.sh
. "$root/utils/parse_options.sh"
[[ -n $venv ]] || die "--venv needs the name of a folder."

packages=(ca-certificates git python3 python3-venv)
{
  flock 9  # two of these at once, as in CI: apt does not wait for another apt
  if ! dpkg-query -W "${packages[@]}" >/dev/null 2>&1; then
    as=()
    ((EUID == 0)) || as=(sudo -n)
    "${as[@]}" apt-get update -qq
    DEBIAN_FRONTEND=noninteractive "${as[@]}" apt-get install -y -qq --no-install-recommends "${packages[@]}"
  fi
} 9<"${BASH_SOURCE[0]}"
"$root/utils/install.sh" --stack "$stack" --venv "$venv" --torch "$torch" --extras "$extras" --k2 "$k2"
