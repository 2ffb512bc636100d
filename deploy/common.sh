# What deploy/up and deploy/rehearse do, for them to source: $home is the folder of the
# federation, and commands are those of docs/real-machines.md.
root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P)
cd "$root"
if [ -z "${PYTHON:-}" ]; then
    PYTHON=$root/.venv/bin/python
    [ -x "$PYTHON" ] || PYTHON=$(type -P python3)
fi
export PATH=$(dirname "$PYTHON"):$PATH
export FLWR_TELEMETRY_ENABLED=0 FLWR_DISABLE_UPDATE_CHECK=1
port=${PORT:-9700}
declare -A pid=()

background() { # name, command...
    local name=$1
    shift
    "$@" >>"$home/$name.log" 2>&1 &
    pid[$name]=$!
}

tree() { # pid; its descendants come first
    local child
    for child in $(pgrep -P "$1"); do tree "$child"; done
    echo "$1"
}

signal() { # signal, name: Flower's processes start others, which are meant as well
    kill "-$1" $(tree "${pid[$2]}") 2>/dev/null || true
}

stop_all() {
    local name
    for name in "${!pid[@]}"; do signal CONT "$name"; signal TERM "$name"; done
    for _ in {1..50}; do
        [ -n "$(jobs -pr)" ] || return 0
        sleep 0.2
    done
    for name in "${!pid[@]}"; do signal KILL "$name"; done
}

start_superlink() {
    export FLWR_HOME=$home
    CONTROL_PORT=$port "$root/deploy/certificates" "$home" localhost >/dev/null
    : >"$home/superlink.log" # may be of one that was killed
    background superlink python -m fed.superlink --home "$home" --port "$port" \
        --nodes-host 127.0.0.1 --nodes-port $((port + 1))
    until grep -q "running on https://127.0.0.1:$port" "$home/superlink.log"; do
        kill -0 "${pid[superlink]}" 2>/dev/null || fail superlink
        sleep 0.3
    done
}

fail() { # name
    cat "$home/$1.log" >&2
    echo "$1 has failed." >&2
    exit 1
}

admit() { # number
    [ -f "$home/node$1" ] || ssh-keygen -q -t ecdsa -b 384 -N "" -f "$home/node$1"
    flwr supernode register "$home/node$1.pub" federation >"$home/admit$1.log" 2>&1 ||
        fail "admit$1"
}

start_node() { # number, command...
    local i=$1 each=${EACH:---partition-id {\}}
    shift
    case $each in --client*|--partition-id*) ;; *) each="--partition-id {} $each" ;; esac
    local who own=(${each//\{\}/$i})
    who=("${own[@]:0:2}") own=("${own[@]:2}")
    background "node$i" python -m fed.node --superlink "127.0.0.1:$((port + 1))" \
        --root-certificates "$home/ca.crt" --key "$home/node$i" --port $((port + 2 + i)) \
        "${who[@]}" "$@" "--output_folder=$home/results$i" "${own[@]}"
}

submit() { # command...
    python -m fed.deployment --nodes "${NODES:-2}" --server "${SERVER:-}" "$@"
}
