#!/bin/sh
# Makes the folder that Home Assistant's Supervisor builds: the add-on and the bridge's source beside it.
#
#   sh deploy/homeassistant-addon/pack.sh DIR      DIR/oneweb_bridge, to be copied into /addons
set -eu
[ $# = 1 ] || { echo "usage: sh deploy/homeassistant-addon/pack.sh DIR" >&2; exit 2; }
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
to=$1/oneweb_bridge
[ ! -e "$to" ] || { echo "pack: $to is there already: move it away, then run this again." >&2; exit 1; }
mkdir -p "$to/mosquitto"
cp -R "$here/config.yaml" "$here/Dockerfile" "$here/DOCS.md" "$here/run.py" "$here/bridge.yaml" "$here/translations" "$to"
cp -R "$root/pyproject.toml" "$root/README.md" "$root/LICENSE" "$root/CHANGELOG.md" "$root/requirements.lock" "$root/oneweb_bridge" "$to"
cp "$root/mosquitto/demo.conf" "$to/mosquitto"
find "$to" -name __pycache__ -type d -prune -exec rm -rf {} +
echo "pack: made $to"
