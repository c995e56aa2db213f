#!/usr/bin/env bash
# Check everything: lint, then the tests, two at a time, in an environment of their own making.
#   ./test.sh                        what every change has to pass
#   ./test.sh --all                  also what takes long: tests marked slow, such as whole roads
#                                    on other systems
#   ./test.sh tests/unit -k tiff     arguments go to pytest
#   ./test.sh -n 0 --pdb tests/unit  one at a time, in this terminal
#   ./test.sh tests/cluster          roles and playbooks, by Molecule, on hosts in podman or docker
set -euo pipefail
. "$(dirname -- "${BASH_SOURCE[0]}")/environment.sh"
cd "$femto_home"

case ${1:-} in
    -h | --help)
        femto_help
        exit
        ;;
esac

femto_python numpy numba pillow tifffile imagecodecs rawpy pillow-heif pydicom pyspark \
    scipy scikit-learn pyarrow matplotlib scikit-image ssimulacra2 ruff mypy pytest pytest-xdist \
    hypothesis setuptools ansible ansible-lint molecule yamllint linode-api4 \
    nbclient nbformat ipykernel ipywidgets pandas playwright websocket-client imageio numcodecs \
    'zarr; python_version >= "3.11"'
femto_java
export PATH=$femto_venv/bin:$PATH

# Meanwhile: both processes of pytest would begin with it.
PYTHONPATH=femto_job python -m femto.build &
compiling=$!
trap 'kill "$compiling" 2>/dev/null || true' EXIT

status=0
echo "Lint"
ruff check --quiet --no-cache . || status=1
ruff format --check --quiet --no-cache . || {
    echo "run: ruff format ."
    status=1
}
mypy --cache-dir "$femto_venv/mypy" --no-error-summary || status=1
yamllint --strict . || status=1
ansible-lint --offline -q --profile production || status=1
wait "$compiling" || status=1
trap - EXIT
# Pytest comes last and prints the summary; lint that failed is told by the exit status.
python -m pytest -n 2 --no-loadscope-reorder "$@" || status=$?
exit "$status"
