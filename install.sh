#!/usr/bin/env bash
# Install all that the default run and the tests need. On Debian and Ubuntu the system libraries come by apt-get.
#   ./install.sh [ENVIRONMENT]      ENVIRONMENT: folder of the virtual environment, .venv if not given
#   PYTHON=python3.12 ./install.sh  another Python, 3.11 or newer
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
environment=${1:-.venv}
python=${PYTHON:-python3}

# libgl1, libglib2.0-0 and libxcb1 are for OpenCV, libegl1 is what the simulator renders with.
packages=(libegl1 libgl1 libglib2.0-0 libxcb1)
command -v "$python" >/dev/null || packages+=(python3)
"$python" -c 'import ensurepip, venv' 2>/dev/null || packages+=(python3-venv)

missing=()
if command -v apt-get >/dev/null; then
    for package in "${packages[@]}"; do
        dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || missing+=("$package")
    done
else
    echo "install.sh: no apt-get here; install the counterparts of ${packages[*]} yourself" >&2
fi
if ((${#missing[@]})); then
    as_root=()
    ((EUID == 0)) || as_root=(sudo)
    "${as_root[@]}" apt-get update -qq
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "install.sh: $python is older than 3.11; name a newer one: PYTHON=python3.12 ./install.sh" >&2
    exit 1
}
[[ -x $environment/bin/python ]] || "$python" -m venv "$environment"
"$environment/bin/python" -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[sim,lerobot,dev]"
echo "installed into $environment" >&2
