#!/usr/bin/env bash
# Start JupyterLab with PySpark and femto's notebooks, or find the one that runs, and print its address.
#   ./pyspark.sh                 on the cluster's master: its JupyterLab, whose notebooks use all workers
#                                elsewhere: one of this machine alone, reachable from here alone; Ctrl-C ends it
#   ./pyspark.sh --local         of this machine alone, on the master too
#   ./pyspark.sh --port 8888     another port than 1337, for this machine alone
# On a machine without a cluster the first run installs what it needs into .venv (or $FEMTO_VENV).
set -euo pipefail
. "$(dirname -- "${BASH_SOURCE[0]}")/environment.sh"

local=
port=1337
while [ "$#" -gt 0 ]; do
    case $1 in
        -h | --help) femto_help; exit ;;
        --local) local=yes ;;
        --port=*) port=${1#*=}; local=yes ;;
        --port) [ "$#" -ge 2 ] || femto_fail "--port wants a number"; port=$2; local=yes; shift ;;
        *) femto_fail "unknown argument $1: ./pyspark.sh [--local] [--port PORT]" ;;
    esac
    shift
done
case $port in
    '' | *[!0-9]*) femto_fail "$port is no port: give a number such as 1337" ;;
esac

# The cluster's configuration; tests look elsewhere.
settings=${FEMTO_ETC:-/etc}
if [ -z "$local" ] && [ -f "$settings/spark/node.env" ]; then
    node() { sed -n "s/^$1=//p" "$settings/spark/node.env"; }
    if [ ! -f "$settings/jupyter/server.py" ]; then
        if [ "$(node SPARK_LOCAL_IP)" != "$(node SPARK_MASTER_HOST)" ]; then
            femto_fail "this host is a worker: run it on the master, $(node SPARK_MASTER_HOST), or add --local"
        fi
        femto_fail "JupyterLab is not installed on this master: run site.yml (or spark_setup.sh) again, or add --local"
    fi
    [ "$(id -u)" -eq 0 ] || femto_fail "you are not root, who alone may read JupyterLab's token: sudo ./pyspark.sh, or add --local"
    systemctl is-active --quiet spark-master ||
        femto_fail "the cluster's master does not run: startmaster, or add --local"
    if ! systemctl is-active --quiet jupyter; then
        echo "Starting JupyterLab ..."
    fi
    systemctl enable --quiet --now jupyter ||
        femto_fail "JupyterLab does not start: journalctl -u jupyter says why"
    port=$(sed -n 's/^c\.ServerApp\.port = //p' "$settings/jupyter/server.py")
    scheme=http
    if grep --quiet '^c\.ServerApp\.certfile' "$settings/jupyter/server.py"; then
        scheme=https
    fi
    for _ in $(seq 60); do
        if curl --silent --insecure --fail --max-time 5 --output /dev/null "$scheme://localhost:$port/api"; then
            echo "JupyterLab runs: $scheme://$(node SPARK_LOCAL_IP):$port/lab?token=$(cat "$settings/jupyter/token")"
            echo "It is open to the addresses in jupyter_admin_cidrs; from elsewhere: ssh -L $port:localhost:$port THIS_HOST"
            exit
        fi
        systemctl is-active --quiet jupyter || break
        sleep 1
    done
    femto_fail "JupyterLab does not answer on port $port: journalctl -u jupyter says why"
fi

femto_python numpy numba pillow tifffile imagecodecs rawpy pillow-heif pydicom pyspark pyarrow pandas scipy \
    scikit-learn scikit-image matplotlib ipykernel ipywidgets jupyterlab jupyter-server
femto_java

# Servers of this environment tell in this folder where they listen.
export JUPYTER_RUNTIME_DIR=$femto_venv/jupyter
mkdir -p -m 700 "$JUPYTER_RUNTIME_DIR"
# Prints the address with its token of the server on that port, if there is one of ours.
address() {
    "$python" - "$port" <<'PYTHON'
import sys
from jupyter_server.serverapp import list_running_servers
for server in list_running_servers():
    if server["port"] == int(sys.argv[1]):
        print(f"{server['url']}lab?token={server['token']}")
        break
PYTHON
}
running=$(address)
if [ -n "$running" ]; then
    echo "JupyterLab runs already: $running"
    exit
fi
if ! "$python" -c 'import socket, sys; socket.create_server(("127.0.0.1", int(sys.argv[1]))).close()' "$port" 2> /dev/null; then
    femto_fail "port $port is taken by another program: name another one with --port"
fi

SPARK_HOME=$("$python" -c 'import os, pyspark; print(os.path.dirname(pyspark.__file__))')
export SPARK_HOME PYSPARK_PYTHON=$python PYSPARK_DRIVER_PYTHON=$python
# No cluster: notebooks get all cores of this machine, and nothing listens to the network.
export MASTER='local[*]' SPARK_LOCAL_IP=127.0.0.1
export PYTHONPATH=$femto_home/femto_job${PYTHONPATH:+:$PYTHONPATH}
export PATH=$femto_venv/bin:$PATH
cd "$femto_home"
start=/lab
if [ -d notebooks ]; then
    start=/lab/tree/notebooks
fi
root=()
if [ "$(id -u)" -eq 0 ]; then
    # In a container, say: it is reached from this machine alone, with the token.
    root=(--allow-root)
fi
"$python" -m jupyterlab ${root[@]+"${root[@]}"} --no-browser --ip=127.0.0.1 --port="$port" --ServerApp.port_retries=0 \
    --ServerApp.root_dir="$femto_home" --ServerApp.default_url="$start" --log-level=ERROR &
server=$!
trap 'kill "$server" 2> /dev/null' INT TERM
for _ in $(seq 120); do
    running=$(address)
    if [ -n "$running" ]; then
        echo "JupyterLab runs: $running"
        echo "Ctrl-C here ends it."
        break
    fi
    kill -0 "$server" 2> /dev/null || femto_fail "JupyterLab did not start; its message is above"
    sleep 0.5
done
wait "$server"
