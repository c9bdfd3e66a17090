#!/bin/sh
# Makes assets/starter.gguf again from nothing: text, vocabulary, training, conversion, score.
# Wants Python 3.11 or later, a C++ compiler, 8 GB of memory, and under an hour on 2 cores.
set -eu
cd "$(dirname "$0")"
mkdir -p build
export TORCHINDUCTOR_CACHE_DIR="$PWD/build/inductor" OMP_NUM_THREADS=1
[ -x build/venv/bin/python ] || python3 -m venv build/venv
python="$PWD/build/venv/bin/python"
"$python" -m pip install --quiet --requirement requirements.txt

made=build/vocabulary.json
rm -f "$made"
"$python" generate.py --out build/phase1.npz --tokens 9000000 --tools-share 0.24 --seed 1 --vocabulary "$made"
# The first part stops while the rate is still high; the second text has its own seed and ends at rate zero.
"$python" train.py --data build/phase1.npz --until 5000000 --out build/phase1.pt
"$python" generate.py --out build/phase2.npz --tokens 3200000 --tools-share 0.27 --seed 2 --vocabulary "$made"
"$python" train.py --data build/phase2.npz --start build/phase1.pt --out build/phase2.pt
"$python" convert.py --checkpoint build/phase2.pt --vocabulary "$made" --out ../../assets/starter.gguf
"$python" evaluate.py --model ../../assets/starter.gguf --vocabulary "$made" --score SCORE.md
