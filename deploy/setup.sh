#!/bin/sh
# Gets a checkout ready: what `make demo`, `make test` and `make check` do first. Nothing happens when all is there.
#
#   sh deploy/setup.sh demo     .venv with what the bridge runs with; mosquitto if it can be had
#   sh deploy/setup.sh test     .venv with the tools too; mosquitto and its clients, or exit 1
#   sh deploy/setup.sh check    .venv with the tools
#   sh deploy/setup.sh postgres as test, and a PostgreSQL, or exit 1; its service is not started
#   sh deploy/setup.sh nodered  as test, and .node with a Node-RED and the Node.js that it needs, both from npm
#   sh deploy/setup.sh sparkplug   as test, and .sparkplug with two decoders of Sparkplug payloads, from npm and PyPI
#   sh deploy/setup.sh console  a Chromium with fonts from apt-get, and playwright and axe in .venv; or says what is missing
#   sh deploy/setup.sh homeassistant   .venv-homeassistant with a real Home Assistant, or exit 1
#   sh deploy/setup.sh lock     makes both lock files anew from pyproject.toml
#   sh deploy/setup.sh tools    build/tools with pip-audit and cyclonedx-py, away from what the bridge runs with
#
# One short line per step on stderr. What apt-get and pip say goes to a log, which is shown when they fail.
set -eu
cd "$(dirname "$0")/.."
PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin:/opt/homebrew/sbin"   # mosquitto lives in sbin, which a plain user's PATH lacks
log=$(mktemp "${TMPDIR:-/tmp}/oneweb-bridge-setup.XXXXXX")
cleanup="rm -f '$log'"
trap 'eval "$cleanup"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

say()  { echo "setup: $*" >&2; }
fail() { [ ! -s "$log" ] || tail -n 40 "$log" >&2; say "$*"; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }
root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi; }

# --- system packages -------------------------------------------------------------------------------------------

may_apt() { have apt-get && { [ "$(id -u)" = 0 ] || { have sudo && sudo -n true 2>/dev/null; }; }; }

updated=
apt_install() {
    say "installing $* with apt-get"
    set -- -qq -y --no-install-recommends -o DPkg::Lock::Timeout=60 install "$@"
    if [ -z "$updated" ]; then   # a fresh image has no package lists; one broken source of several must not stop us
        updated=yes
        root apt-get -qq -o Acquire::Retries=1 -o Acquire::http::Timeout=20 update >>"$log" 2>&1 || true
    fi
    root env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get "$@" >>"$log" 2>&1 </dev/null
}

# Only the program is wanted. Its package also brings a service (mosquitto on port 1883, nginx on 80) that would start at
# once and at every boot: under systemd a mask that lives in /run for the time of the installation stops the first,
# `disable` the second; without systemd RUNLEVEL=1 (above) tells invoke-rc.d to start nothing. Nothing outside this package
# is touched, and a program that was there before is left as it is, because then nothing is installed.
install_without_service() {   # the service, then packages
    service=$1; shift
    if ! have "$service" && [ -d /run/systemd/system ]; then
        root systemctl --runtime mask "$service.service" >>"$log" 2>&1 || true
        cleanup="$cleanup; root systemctl --runtime unmask $service.service >/dev/null 2>&1 || true"
        apt_install "$@" || return 1
        root systemctl --runtime unmask "$service.service" >>"$log" 2>&1 || true
        root systemctl disable "$service.service" >>"$log" 2>&1 || true
    else
        apt_install "$@"
    fi
}

mosquitto_if_possible() {
    ! have mosquitto || return 0
    may_apt || return 0                              # the demo says itself what is missing, and goes on without
    install_without_service mosquitto mosquitto || say "mosquitto could not be installed, going on without"
}

mosquitto_or_fail() {
    missing=
    have mosquitto || missing="mosquitto"
    have mosquitto_sub || missing="$missing mosquitto-clients"
    [ -n "$missing" ] || return 0
    sentence="The tests need a real broker: install it with 'apt-get install mosquitto mosquitto-clients' (or your system's packages of Eclipse Mosquitto), then run this again."
    may_apt || fail "$sentence"
    # shellcheck disable=SC2086  # a list of words
    install_without_service mosquitto $missing || fail "$sentence"
    have mosquitto && have mosquitto_sub || fail "$sentence"
}

# The recipes of the documentation are tested as they are printed, and use jq.
jq_or_fail() {
    ! have jq || return 0
    sentence="The tests run the recipes of docs/recipes.md, which need jq: install it with 'apt-get install jq', then run this again."
    may_apt || fail "$sentence"
    apt_install jq || fail "$sentence"
    have jq || fail "$sentence"
}

postgres_or_fail() {
    ! have postgres && [ -z "$(ls /usr/lib/postgresql/*/bin/postgres 2>/dev/null)" ] || return 0
    sentence="These tests need the programs of PostgreSQL 14 or newer: install them with 'apt-get install postgresql' (or your system's package), then run this again."
    may_apt || fail "$sentence"
    install_without_service postgresql postgresql || fail "$sentence"
    [ -n "$(ls /usr/lib/postgresql/*/bin/postgres 2>/dev/null)" ] || fail "$sentence"
}

nats_or_fail() {
    ! have nats-server && [ ! -x /usr/sbin/nats-server ] || return 0
    sentence="These tests need a NATS server: install it with 'apt-get install nats-server' (or your system's package), then run this again."
    may_apt || fail "$sentence"
    install_without_service nats-server nats-server || fail "$sentence"
    have nats-server || [ -x /usr/sbin/nats-server ] || fail "$sentence"
}

# --- Python ----------------------------------------------------------------------------------------------------

new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }
can_venv()   { "$1" -c 'import venv, ensurepip' 2>/dev/null; }

# The first Python that is new enough and complete; else the first that is new enough.
find_python() {
    incomplete=
    for python in python3 python3.14 python3.13 python3.12 python3.11; do
        have "$python" && new_enough "$python" || continue
        ! can_venv "$python" || return 0
        incomplete=${incomplete:-$python}
    done
    python=$incomplete
    [ -n "$python" ] || fail "Python 3.11 or newer is needed and not in the PATH: install it, for example with 'apt-get install python3 python3-venv', then run this again."
    version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    sentence="Python $version has no venv module: install it with 'apt-get install python$version-venv', then run this again."
    may_apt || fail "$sentence"
    apt_install "python$version-venv" || apt_install python3-venv || fail "$sentence"
    can_venv "$python" || fail "$sentence"
}

# A venv that works is kept, also one that somebody else made here. One that these lines made elsewhere (the checkout was
# moved or copied), or whose Python went away with an upgrade, is made anew.
make_venv() {
    made_in=$(cat .venv/made-in 2>/dev/null || true)
    if new_enough .venv/bin/python && [ "${made_in:-$PWD}" = "$PWD" ]; then
        [ -z "$made_in" ] || return 0
        .venv/bin/python -m pip --version >/dev/null 2>&1 || fail "The .venv that is here has no pip: move it away, then run this again."
        say "using the .venv that is here"
    else
        find_python
        say "making .venv with $("$python" --version 2>&1)"
        rm -rf .venv
        "$python" -m venv .venv >>"$log" 2>&1 || fail "The virtual environment .venv could not be made with $python."
    fi
    # Modules are found from every directory, without building a package for it.
    echo "$PWD" >"$(.venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/oneweb-bridge-checkout.pth"
    printf '#!%s\nimport sys\n\nfrom oneweb_bridge.cli.main import main\n\nsys.exit(main())\n' "$PWD/.venv/bin/python" >.venv/bin/oneweb-bridge
    chmod +x .venv/bin/oneweb-bridge
    echo "$PWD" >.venv/made-in
}

pip() {
    python=$1; shift
    "$python" -m pip --disable-pip-version-check --no-input -q "$@" >>"$log" 2>&1
}

# pip runs only when the lock file is another one than at the last success.
install_locked() {
    make_venv
    wanted="$1 $(cksum <"$1")"
    case "$(cat .venv/installed 2>/dev/null)" in *"$wanted"*) return 0 ;; esac
    say "installing $(grep -c == "$1") Python packages from $1"
    pip .venv/bin/python install --require-hashes -r "$1" || fail "pip could not install $1: it needs the network, or the proxy or mirror that your pip is configured for."
    echo "$wanted" >>.venv/installed
}

# --- Node-RED --------------------------------------------------------------------------------------------------

node_red=5.0.7
node_js=22.23.3   # Node-RED 5 needs 22.9; where the node that is here is older, this one comes from npm beside it

runs_node_red() { "$1" -e 'const [a, b] = process.versions.node.split("."); process.exit(a > 22 || (a == 22 && b >= 9) ? 0 : 1)' 2>/dev/null; }

install_nodered() {
    sentence="Node-RED comes from npm: install it with 'apt-get install npm' (or your system's package), then run this again."
    if ! have npm; then
        may_apt || fail "$sentence"
        apt_install npm || fail "$sentence"
    fi
    wanted="node-red@$node_red"
    runs_node_red node || wanted="$wanted node-$(node -p 'process.platform + "-" + process.arch')@$node_js"
    [ "$wanted" != "$(cat .node/installed 2>/dev/null)" ] || return 0
    say "installing $wanted into .node"
    rm -rf .node
    mkdir .node
    # shellcheck disable=SC2086  # a list of words
    npm install --prefix .node --no-save --no-package-lock --no-audit --no-fund --no-update-notifier --ignore-scripts $wanted >>"$log" 2>&1 ||
        fail "npm could not install $wanted: it needs the network, or the proxy or registry that your npm is configured for."
    (cd .node && ln -s "$(ls -d node_modules/node-*-*/bin/node 2>/dev/null || command -v node)" node)
    echo "$wanted" >.node/installed
}

# --- Sparkplug decoders ----------------------------------------------------------------------------------------

sparkplug_payload=1.0.3
pysparkplug=0.6.1   # needs paho-mqtt 1, so it is in an environment of its own

install_sparkplug() {
    if ! have npm; then
        may_apt && apt_install npm || fail "sparkplug-payload comes from npm: install it with 'apt-get install npm' (or your system's package), then run this again."
    fi
    wanted="sparkplug-payload@$sparkplug_payload pysparkplug==$pysparkplug"
    [ "$wanted" != "$(cat .sparkplug/installed 2>/dev/null)" ] || return 0
    say "installing $wanted into .sparkplug"
    rm -rf .sparkplug
    mkdir .sparkplug
    npm install --prefix .sparkplug --no-save --no-package-lock --no-audit --no-fund --no-update-notifier --ignore-scripts "sparkplug-payload@$sparkplug_payload" >>"$log" 2>&1 ||
        fail "npm could not install sparkplug-payload: it needs the network, or the proxy or registry that your npm is configured for."
    .venv/bin/python -m venv .sparkplug/python >>"$log" 2>&1 || fail "The virtual environment .sparkplug/python could not be made."
    pip .sparkplug/python/bin/python install "pysparkplug==$pysparkplug" || fail "pip could not install pysparkplug: it needs the network, or the proxy or mirror that your pip is configured for."
    echo "$wanted" >.sparkplug/installed
}

# --- Chromium --------------------------------------------------------------------------------------------------

playwright=1.65.2   # drives Debian's Chromium
axe=0.1.8           # brings axe-core 4.12.1

# Without a Chromium, an nginx or a Prometheus their tests are skipped, and say so: it is nothing that pip or npm could bring.
install_console() {
    if ! have chromium; then
        may_apt && apt_install chromium fonts-dejavu-core fonts-noto-core ||
            say "no chromium, so the tests of the console's page will be skipped: install it with 'apt-get install chromium fonts-noto-core'"
    fi
    if ! have nginx; then
        may_apt && install_without_service nginx nginx-light || say "no nginx, so the tests behind a proxy will be skipped: install it with 'apt-get install nginx-light'"
    fi
    if ! have prometheus; then
        may_apt && install_without_service prometheus prometheus || say "no prometheus, so its test will be skipped: install it with 'apt-get install prometheus'"
    fi
    wanted="playwright==$playwright axe-playwright-python==$axe"
    case "$(cat .venv/installed 2>/dev/null)" in *"$wanted"*) return 0 ;; esac
    say "installing $wanted"
    # shellcheck disable=SC2086  # a list of words
    pip .venv/bin/python install --prefer-binary $wanted || fail "pip could not install $wanted: it needs the network, or the proxy or mirror that your pip is configured for."
    echo "$wanted" >>.venv/installed
}

# --- lock files ------------------------------------------------------------------------------------------------

# Made with the oldest Python that is supported, whose closure holds what newer ones do without.
lock() {
    have python3.11 && can_venv python3.11 || fail "The lock files are made with Python 3.11: install python3.11 and python3.11-venv, then run this again."
    fresh=$(mktemp -d)
    cleanup="$cleanup; rm -rf '$fresh'"
    freeze "." "$fresh/run"
    freeze ".[dev]" "$fresh/dev"
    sed 's/^typing_extensions==.*/&; python_version < "3.13"/' "$fresh/run.txt" >"$fresh/run.in"
    say "asking for the hashes of every file of each release"
    python3.11 -m venv "$fresh/tools"
    pip "$fresh/tools/bin/python" install "pip-tools>=7.5,<8" || fail "pip could not install pip-tools."
    hashes "$fresh/run.in" "$fresh/run.lock"
    hashes "$fresh/dev.txt" "$fresh/dev.lock"
    {
        echo "# What the bridge runs with: the whole closure, for Python 3.11 to 3.14. Made with \`make lock\`."
        cat "$fresh/run.lock"
    } >requirements.lock
    {
        echo "# What tests and checks run with: requirements.lock and the extra \"dev\". Made with \`make lock\`."
        cat "$fresh/dev.lock"
    } >requirements-dev.lock
    {
        echo "# The driver of PostgreSQL, in addition to requirements.lock. Made with \`make lock\`."
        sed -n '/^psycopg/,/[0-9a-f]$/p' requirements-dev.lock
    } >requirements-postgres.lock
    say "made requirements.lock, requirements-postgres.lock and requirements-dev.lock"
}

freeze() {
    say "resolving $1"
    python3.11 -m venv "$2"
    pip "$2/bin/python" install "$1" || fail "pip could not install $1."
    "$2/bin/python" -m pip --disable-pip-version-check freeze --exclude oneweb-bridge >"$2.txt" 2>>"$log"
}

# Of a release all files count, so that one lock file holds for every Python and machine. No address is written down:
# where packages come from is the business of whoever installs them, and the hashes say whether they are the right ones.
hashes() {
    "$fresh/tools/bin/pip-compile" -q --generate-hashes --allow-unsafe --strip-extras --no-config --no-header --no-annotate \
        --no-emit-index-url --no-emit-trusted-host --no-emit-find-links --output-file "$2" "$1" >>"$log" 2>&1 ||
        fail "pip-compile could not find the hashes of what is in $1."
}

# The auditors are no part of what they look at.
tools() {
    [ ! -x build/tools/bin/pip-audit ] || [ ! -x build/tools/bin/cyclonedx-py ] || return 0
    make_venv
    say "installing pip-audit and cyclonedx-bom in build/tools"
    .venv/bin/python -m venv build/tools >>"$log" 2>&1 || fail "build/tools could not be made."
    pip build/tools/bin/python install "pip-audit>=2.10,<3" "cyclonedx-bom>=7.5,<8" || fail "pip could not install the tools."
}

# --- Home Assistant --------------------------------------------------------------------------------------------

# Home Assistant asks for the newest Python, and for its newest bug fix too, which is not everywhere yet: so the newest
# release is taken that was made for the Python that is here, and only the last digit of what it asks for is ignored.
release_for() { case $1 in 3.13) echo 2026.2.3 ;; *) echo ;; esac; }

# A Python by its name in the PATH, else one of pyenv's that is there without being chosen.
find_new_python() {
    for version in 3.14 3.13; do
        for python in "python$version" python3 "${PYENV_ROOT:-$HOME/.pyenv}/versions/$version".*/bin/python; do
            have "$python" && [ "$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)" = "$version" ] || continue
            ! can_venv "$python" || return 0
        done
    done
    fail "Home Assistant needs Python 3.13 or newer, and none is in the PATH or in pyenv: install python3.13 and python3.13-venv, then run this again."
}

install_homeassistant() {
    [ ! -f .venv-homeassistant/installed ] || return 0
    find_new_python
    release=$(release_for "$version")
    say "installing Home Assistant ${release:-(newest)} into .venv-homeassistant with $("$python" --version 2>&1), which takes some minutes"
    rm -rf .venv-homeassistant
    "$python" -m venv .venv-homeassistant >>"$log" 2>&1 || fail "The virtual environment .venv-homeassistant could not be made with $python."
    pip .venv-homeassistant/bin/python install --prefer-binary --ignore-requires-python "homeassistant${release:+==$release}" paho-mqtt ||
        fail "pip could not install Home Assistant: it needs the network, or the proxy or mirror that your pip is configured for."
    "$python" --version >.venv-homeassistant/installed
}

case "${1-}" in
    homeassistant) install_homeassistant ;;
    console) install_console ;;
    demo)  # what the tests need includes what the demo needs
        if grep -qs '^requirements-dev.lock' .venv/installed; then install_locked requirements-dev.lock
        else install_locked requirements.lock; fi
        mosquitto_if_possible ;;
    test)  install_locked requirements-dev.lock; mosquitto_or_fail; jq_or_fail ;;
    postgres) install_locked requirements-dev.lock; mosquitto_or_fail; jq_or_fail; postgres_or_fail; nats_or_fail ;;
    check) install_locked requirements-dev.lock ;;
    nodered) install_locked requirements-dev.lock; mosquitto_or_fail; install_nodered ;;
    sparkplug) install_locked requirements-dev.lock; mosquitto_or_fail; install_sparkplug ;;
    lock)  lock ;;
    tools) tools ;;
    *)     echo "usage: sh deploy/setup.sh demo|test|postgres|check|nodered|sparkplug|console|homeassistant|lock|tools" >&2; exit 2 ;;
esac
