#!/usr/bin/env bash
# Deploys federated recognition on this machine: one SuperLink, two SuperNodes, each with
# its own manifest.
#
#   recipes/LibriSpeech/ASR/loopback.sh [OUTPUT FOLDER] [ROUNDS]
#
# Environment: CORPUS, a folder that holds LibriSpeech/ (default: the built-in corpus);
# and that of fed/loopback.sh.
set -euo pipefail

root=$(cd "$(dirname "$0")/../../.." && pwd)
cd "$root"
mkdir -p "${1:-results/fedasr_loopback}"
out=$(cd "${1:-results/fedasr_loopback}" && pwd)
corpus=${CORPUS:-$root/data/MiniLibriFSD50K}
manifests=$out/manifests
[ ! -x .venv/bin/python ] || PATH=$root/.venv/bin:$PATH

built_in=()
[ -n "${CORPUS:-}" ] || built_in=(--built_in_corpus "$corpus")
python -m fedenhance.recipes.LibriSpeech.ASR.prepare "$corpus" "$manifests" --clients 2 \
    ${built_in[@]+"${built_in[@]}"}
# The server's text: here, that of the validation speakers.
python - "$manifests/valid.csv" >"$out/text.txt" <<PYTHON
import csv, sys
for row in csv.DictReader(open(sys.argv[1], encoding="utf-8")):
    print(row["wrd"])
PYTHON

everywhere="prepare: null\\ndata_folder: $corpus\\nrounds: ${2:-2}\\nkeep_optimizer: False"
server="output_folder: $out\\ntrain_csv: null\\ntokenizer_text: $out/text.txt"
node="train_csv: $manifests/client{}.csv\\ntokenizer_text: null"
splits="valid_csv: $manifests/valid.csv\\ntest_csv: $manifests/test.csv"
fed/loopback.sh recipes/LibriSpeech/ASR/hparams/fedasr_ctc.yaml 2 \
    "$everywhere\\n$splits\\n$server" "$node"
echo "Rounds, clients and alignments: $out/rounds.csv, clients.csv, wer_test.txt"
