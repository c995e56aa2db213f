#!/usr/bin/env bash
# Compress pictures on Spark on this machine, and reconstruct them from their archives.
#   ./run.sh                                    the pictures of samples/
#   ./run.sh --input FOLDER [--quality 60 ...]  yours; options as of femto_job/compress.py
# The first run installs what it needs into .venv (or $FEMTO_VENV) and takes some minutes.
set -euo pipefail
. "$(dirname -- "${BASH_SOURCE[0]}")/environment.sh"

for argument in "$@"; do
    case $argument in
        -h | --help)
            femto_help
            python=$(femto_find_python) || femto_fail "no Python 3.10 or newer, which would tell the options"
            echo
            exec "$python" "$femto_home/femto_job/compress.py" --help
            ;;
    esac
done

# What compiles comes first, for that takes as long as installing all the rest: once, for all
# processes. Without a linker each compiles what it needs.
femto_python numba numpy pillow scipy
compiling=
if command -v cc > /dev/null; then
    PYTHONPATH=$femto_home/femto_job "$python" -m femto.build native > /dev/null &
    compiling=$!
    trap 'kill "$compiling" 2>/dev/null || true' EXIT
fi
femto_python tifffile imagecodecs rawpy pillow-heif pydicom pyspark pyarrow
femto_java

output=images_out
input=
previous=
for argument in "$@"; do
    case $previous in
        --output) output=$argument ;;
        --input) input=$argument ;;
    esac
    case $argument in
        --output=*) output=${argument#*=} ;;
        --input=*) input=${argument#*=} ;;
    esac
    previous=$argument
done
if [ -z "$input" ]; then
    set -- --input "$femto_home/samples" "$@"
fi

if [ -n "$compiling" ]; then
    wait "$compiling" || :
    trap - EXIT
fi

# Java mangles file names with letters beyond ASCII unless the locale has them.
case ${LC_ALL:-${LC_CTYPE:-${LANG:-}}} in
    *UTF-8 | *utf8) ;;
    *) export LC_ALL=C.UTF-8 ;;
esac
SPARK_HOME=$("$python" -c 'import os, pyspark; print(os.path.dirname(pyspark.__file__))')
export SPARK_HOME PYSPARK_PYTHON=$python PYSPARK_DRIVER_PYTHON=$python
# All of it stays on this machine: nothing listens to the network.
export SPARK_LOCAL_IP=${SPARK_LOCAL_IP:-127.0.0.1}
status=0
"$SPARK_HOME/bin/spark-submit" --master 'local[*]' "$femto_home/femto_job/compress.py" "$@" || status=$?
if [ "$status" -gt 1 ]; then
    exit "$status"
fi

if [ ! -d "$output" ]; then
    exit "$status"
fi
echo
echo "Reconstructing the pictures from their archives ..."
archives=()
while IFS= read -r -d '' archive; do
    archives+=("$archive")
done < <(find "$output" -name '*.laff.gz' -print0 | sort -z)
if [ "${#archives[@]}" -gt 0 ]; then
    # Named through xargs: a folder may hold more archives than fit into one command.
    printf '%s\0' "${archives[@]}" |
        xargs -0 "$python" "$femto_home/femto_job/decompressor.py" --overwrite -o "$output/reconstructed/" > /dev/null ||
        status=1
fi

echo "Archives:  $output (${#archives[@]} .laff.gz)"
echo "Pictures:  $output/reconstructed"
if [ -f "$output/report.html" ]; then
    echo "Report:    $output/report.html"
fi
exit "$status"
