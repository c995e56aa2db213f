# Set up this server for Spark, the SciPy stack and femto:
#
#     source ./spark_setup.sh            (or: bash spark_setup.sh)
#
# Afterwards `startmaster [IP]` makes it a master, `startslave spark://MASTER:7077` a worker, and
# femto-compress, pyspark and spark-submit work. Safe to run again: it changes what is not as it
# should be. For more than a few servers, site.yml does the same for all of them from one place.
#
# FEMTO_ADMIN     addresses and networks that may open the web pages: FEMTO_ADMIN="198.51.100.7/32"
#
# When this file came alone, without the rest of femto beside it, a release is fetched and checked:
# FEMTO_TAG       the release, such as v1.0.0
# FEMTO_SHA256    the checksum of its .tar.gz, which the release's page tells
# FEMTO_SOURCE    another address of that .tar.gz, such as a mirror's
# FEMTO_HOME      where to put it (/opt/femto/source)
#
# Settings are kept in /etc/femto.yml; all variables of roles/*/README.md may stand there.
#
# It is sourced into people's shells: everything happens in a function, in a shell of its own.

femto_setup() (
    set -euo pipefail
    fail() {
        printf 'spark_setup.sh: %s\n' "$*" >&2
        exit 1
    }
    here=$1
    home=${FEMTO_HOME:-/opt/femto/source}
    source=${FEMTO_SOURCE:-https://github.com/alexcordover/femto/archive/refs/tags/${FEMTO_TAG:-}.tar.gz}
    sum=${FEMTO_SHA256:-}

    if [ -f "$here/site.yml" ] && [ -d "$here/roles/spark" ]; then
        home=$here
    elif [ -z "${FEMTO_TAG:-}${FEMTO_SOURCE:-}" ] || ! [[ $sum =~ ^[0-9a-f]{64}$ ]]; then
        fail "name the release to fetch and the checksum of its .tar.gz: FEMTO_TAG=v1.0.0 FEMTO_SHA256=... (64 digits, on the release's page), or run this from a clone"
    fi
    [ -r /etc/os-release ] || fail "this is no Linux that is known: use Ubuntu 22.04, 24.04 or 26.04, or Debian 12 or 13"
    system=$(. /etc/os-release && echo "${ID:-} ${VERSION_ID:-}")
    case $system in
        "ubuntu 22.04" | "ubuntu 24.04" | "ubuntu 26.04" | "debian 12" | "debian 13") ;;
        *) fail "$system is not supported: use Ubuntu 22.04, 24.04 or 26.04, or Debian 12 or 13" ;;
    esac
    [ -d /run/systemd/system ] || fail "systemd does not run here, and the services need it: use a server or a virtual machine"
    as_root=()
    if [ "$(id -u)" -ne 0 ]; then
        command -v sudo > /dev/null || fail "you are not root, and there is no sudo: log in as root"
        sudo -v || fail "you are not root, and sudo does not let you: log in as root"
        as_root=(sudo)
    fi
    root() { ${as_root[@]+"${as_root[@]}"} "$@"; }

    if ! python3 -c 'import ensurepip, venv' 2> /dev/null || ! command -v curl > /dev/null; then
        echo "Installing python3-venv and curl ..."
        root env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=600 -qq update &&
            root env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=600 -qq -y install python3-venv curl ca-certificates > /dev/null ||
            fail "apt-get could not install python3-venv and curl; its message is above: check the network, then run again"
    fi
    if [ "$home" != "$here" ] && [ "$(cat "$home/.sha256" 2> /dev/null)" != "$sum" ]; then
        if [ -e "$home" ] && { [ ! -d "$home/roles/spark" ] || [ -e "$home/.git" ]; }; then
            fail "$home is there and is no release that this fetched: name another folder in FEMTO_HOME"
        fi
        echo "Fetching femto ${FEMTO_TAG:-} into $home ..."
        # Not in /tmp, which may be memory. Nothing is unpacked before its checksum is right.
        part=$(mktemp -d /var/tmp/femto-setup.XXXXXX)
        trap 'rm -rf "$part"' EXIT
        curl --fail --silent --show-error --location --output "$part/femto.tar.gz" "$source" ||
            fail "$source cannot be fetched: check the network and the tag, or give another address in FEMTO_SOURCE"
        got=$(sha256sum < "$part/femto.tar.gz")
        [ "${got%% *}" = "$sum" ] ||
            fail "$source has checksum ${got%% *}, not $sum: it was changed, or FEMTO_SHA256 is another release's"
        mkdir "$part/femto"
        tar -xzf "$part/femto.tar.gz" --strip-components=1 -C "$part/femto" && [ -f "$part/femto/site.yml" ] ||
            fail "$source is no release of femto: name one in FEMTO_TAG"
        echo "$sum" > "$part/femto/.sha256"
        root mkdir -p "${home%/*}"
        root rm -rf "$home.new"
        root cp -R "$part/femto" "$home.new"
        root rm -rf "$home"
        root mv "$home.new" "$home"
    fi

    ansible=/opt/femto/ansible
    pins=$home/requirements.txt
    if ! root cmp --quiet "$pins" "$ansible/requirements.txt"; then
        echo "Installing Ansible into $ansible (a minute) ..."
        root mkdir -p /opt/femto
        root python3 -m venv "$ansible" &&
            root "$ansible/bin/python" -m pip install --quiet --disable-pip-version-check --progress-bar off -c "$pins" ansible-core ||
            fail "pip could not install Ansible; its message is above: check the network and the disk, then run again"
        root cp "$pins" "$ansible/requirements.txt"
    fi

    # What was given once holds for the next time too.
    if [ -n "${FEMTO_ADMIN:-}" ] || [ ! -f /etc/femto.yml ]; then
        root touch /etc/femto.yml
        {
            root grep -v '^spark_admin_cidrs:' /etc/femto.yml || echo "---"
            printf 'spark_admin_cidrs: [%s]\n' "$(printf '%s' "${FEMTO_ADMIN:-}" | tr -s ' ,' ',')"
        } | root sh -c 'umask 077 && cat > /etc/femto.yml.new'
        root mv /etc/femto.yml.new /etc/femto.yml
    fi
    # Keys of storage may stand in it.
    root chmod 600 /etc/femto.yml
    echo "Setting up Spark and femto (some minutes the first time) ..."
    cd "$home"
    root env ANSIBLE_CONFIG="$home/ansible.cfg" ANSIBLE_NOCOWS=1 LC_ALL=C.UTF-8 \
        "$ansible/bin/ansible-playbook" site.yml -i inventory/local -e spark_managed=false -e @/etc/femto.yml ||
        fail "the line after 'fatal:' above says what is wrong; when it is mended, run this again"
    echo
    echo "Ready. Next:  startmaster [IP]                    on the master"
    echo "              startslave spark://MASTER:7077      on each worker"
)

if [ -n "${BASH_SOURCE[0]:-}" ]; then
    femto_setup "$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" > /dev/null && pwd)"
else
    femto_setup "$PWD"
fi
femto_status=$?
if [ "$femto_status" -eq 0 ] && [ -r /etc/profile.d/femto.sh ]; then
    . /etc/profile.d/femto.sh
fi
unset -f femto_setup
# Sourced, it must not end the caller's shell.
if (return 0 2> /dev/null); then
    return "$femto_status"
fi
exit "$femto_status"
