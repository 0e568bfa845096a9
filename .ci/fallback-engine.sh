# shellcheck shell=bash
# Starts a private container engine where the machine has none, builds what the container tests need, and
# stops it (or wipes it, if it was made for this run) when the shell ends. `.ci/run` sources this, and nothing else does.
# The script that CONTAINER_ENGINE names is no part of this repository; CONTRIBUTING.md says what an engine must offer.
CONTAINER_ENGINE=${CONTAINER_ENGINE:-../shared/container-engine.sh}
[ -r "$CONTAINER_ENGINE" ] || { echo "no container engine: install docker, or name a script in CONTAINER_ENGINE" >&2; exit 1; }
[ -n "${CE_ROOT:-}" ] || { CE_ROOT=$(mktemp -d -p /var/tmp mrigan-ci.XXXXXX); chmod 755 "$CE_ROOT"; wipe=1; }
export CE_ROOT BUILD_NETWORK=host
# shellcheck source=/dev/null
source "$CONTAINER_ENGINE"
trap 'set +e; if [ -n "${wipe:-}" ]; then ce_wipe; else ce_stop; fi' EXIT
# Its first mode reaches the outside and can build, its second has the networks that compose needs.
{ ce_install && ce_start host && ce_base; } || { echo "no container engine: see above" >&2; exit 1; }
docker build --quiet --network host --tag chrislusf/seaweedfs:4.46 tests/container/seaweedfs
docker compose build --quiet train
ce_start netns || { echo "the engine did not start again: see above" >&2; exit 1; }
