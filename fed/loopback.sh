#!/usr/bin/env bash
# Deploys a federation on this machine with Flower's own programs: a SuperLink, SuperNodes
# with one client of the partition each, TLS, keys for all nodes. The nodes run what the
# server sends, in a new process for each message; deploy/up is closed, and quicker.
#
#   fed/loopback.sh hparams/fedenhance.yaml 4 "rounds: 2"
#
#   fed/loopback.sh recipes/LibriSpeech/ASR/hparams/fedasr_ctc.yaml 2 "rounds: 2" \
#       "train_csv: manifests/client{}.csv"
#
# Arguments: YAML file, number of SuperNodes, overrides (YAML, optional), overrides of
# each node (optional; {} is its number, from 0), with which it holds data of its own.
# Environment: SCRIPT (train.py; empty if YAML names Brain and datasets), DEVICE (cpu),
# PORT (9700; nodes take the ports after it), INSECURE=1 for neither TLS nor keys, LOGS
# (a folder to keep), TIMEOUT in seconds (3600).
set -euo pipefail

hparams=${1:?YAML file} nodes=${2:?number of SuperNodes} overrides=${3:-} own=${4:-}
app=$(cd "$(dirname "$0")/.." && pwd)
# The app that Flower packs has no links, such as hparams/.
folder=$(cd "$app/$(dirname "$hparams")" && pwd -P)
hparams=${folder#"$app"/}/$(basename "$hparams")
port=${PORT:-9700}
work=$(mktemp -d)
logs=${LOGS:-$work}
mkdir -p "$logs" "$work/flwr"
export FLWR_HOME=$work/flwr
export FLWR_TELEMETRY_ENABLED=0 FLWR_DISABLE_UPDATE_CHECK=1 RAY_USAGE_STATS_ENABLED=0

descendants() { # pid
    local child
    for child in $(pgrep -P "$1"); do descendants "$child"; done
    echo "$1"
}

stop() {
    # Flower's processes start others in sessions of their own, which outlive them.
    local all=()
    for pid in "${pids[@]}"; do all+=($(descendants "$pid")); done
    kill "${all[@]}" 2>/dev/null || true
    wait 2>/dev/null || true
    kill -KILL "${all[@]}" 2>/dev/null || true
    rm -rf "$work"
}
pids=()
trap stop EXIT

background() { # log file, command...
    local log=$logs/$1.log
    shift
    "$@" >"$log" 2>&1 &
    pids+=($!)
}

link=(flower-superlink --port "$port" --disable-runtime-dependency-installation)
if [ -n "${INSECURE:-}" ]; then
    link+=(--insecure)
    node=(--insecure)
    security="insecure = true"
else
    # A certificate authority, and a certificate for the SuperLink's address.
    openssl req -x509 -newkey rsa:2048 -nodes -days 30 -subj /CN=loopback-ca \
        -keyout "$work/ca.key" -out "$work/ca.crt" 2>/dev/null
    openssl req -newkey rsa:2048 -nodes -subj /CN=localhost \
        -keyout "$work/server.key" -out "$work/server.csr" 2>/dev/null
    openssl x509 -req -in "$work/server.csr" -days 30 -CAcreateserial \
        -CA "$work/ca.crt" -CAkey "$work/ca.key" -out "$work/server.crt" \
        -extfile <(echo "subjectAltName=DNS:localhost,IP:127.0.0.1") 2>/dev/null
    link+=(--ssl-ca-certfile "$work/ca.crt" --ssl-certfile "$work/server.crt"
        --ssl-keyfile "$work/server.key" --enable-supernode-auth)
    node=(--root-certificates "$work/ca.crt")
    security="root-certificates = \"$work/ca.crt\""
fi
cat >"$FLWR_HOME/config.toml" <<TOML
[superlink.loopback]
address = "127.0.0.1:$port"
$security
TOML

background superlink "${link[@]}"
until (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do
    kill -0 "${pids[0]}" 2>/dev/null || { cat "$logs/superlink.log" >&2; exit 1; }
    sleep 0.3
done

for ((i = 0; i < nodes; i++)); do
    key=()
    if [ -z "${INSECURE:-}" ]; then
        ssh-keygen -q -t ecdsa -b 384 -N "" -f "$work/node$i"
        flwr supernode register "$work/node$i.pub" loopback >"$logs/register$i.log"
        key=(--auth-supernode-private-key "$work/node$i")
    fi
    config="partition-id=$i"
    [ -z "$own" ] || config="client=\"client$i\" overrides=\"${own//\{\}/$i}\""
    background "supernode$i" flower-supernode --superlink "127.0.0.1:$port" \
        --port $((port + 1 + i)) --node-config "$config" "${node[@]}" "${key[@]}"
done

# --stream follows the run's log until it has ended.
timeout "${TIMEOUT:-3600}" flwr run "$app" loopback --stream --run-config \
    "script=\"${SCRIPT-train.py}\" hparams=\"$hparams\" nodes=$nodes
    device=\"${DEVICE:-cpu}\" overrides=\"$overrides\"" \
    >"$logs/run.log" 2>&1 || true
status=$(flwr ls loopback --format json |
    python3 -c 'import json, sys; print(json.load(sys.stdin)["runs"][0]["status"])')
[ "$status" = finished:completed ] && exit 0
cat "$logs/run.log" >&2
echo "The run ended as $status." >&2
exit 1
