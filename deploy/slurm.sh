#!/usr/bin/env bash
# A node as a job, with deploy/deploy.env: sbatch deploy/slurm.sh
# Compute nodes must reach the server; SuperNode's own port is on the compute node alone.
#SBATCH --job-name=fed-node
#SBATCH --cpus-per-task=4
#SBATCH --mem=16G
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@60
#SBATCH --requeue
set -euo pipefail
set -a
while IFS='=' read -r key value; do
    [[ $key =~ ^[A-Z_]+$ ]] && printf -v "$key" '%s' "$value"
done <"${SLURM_SUBMIT_DIR:-.}/deploy/deploy.env"
set +a
cd "$APP"
read -ra accept <<<"$ACCEPT"
read -ra command <<<"$COMMAND"
exec python -m fed.node --superlink "$SUPERLINK" --root-certificates "$FLWR_HOME/ca.crt" \
    --key "$KEY" --client "$CLIENT" --port $((10000 + ${SLURM_JOB_ID:-0} % 50000)) \
    "${accept[@]}" "${command[@]}"
