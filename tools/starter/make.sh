#!/bin/sh
# Makes assets/starter.gguf: text, vocabulary, training, conversion, score.
#   make.sh                      from nothing: three texts of 5, 3.2 and 2.2 million tokens
#   make.sh more [TOKENS [SEED]] trains the file in the repository further on fresh text
# Wants Python 3.11 or later, a C++ compiler, 8 GB of memory, and under an hour on 2 idle cores.
set -eu
cd "$(dirname "$0")"
mkdir -p build
export TORCHINDUCTOR_CACHE_DIR="$PWD/build/inductor" OMP_NUM_THREADS=1
[ -x build/venv/bin/python ] || python3 -m venv build/venv
python="$PWD/build/venv/bin/python"
"$python" -m pip install --quiet --requirement requirements.txt
words=build/vocabulary.json
model=../../assets/starter.gguf

write() { "$python" generate.py --vocabulary "$words" --out "build/$1.npz" --tokens "$2" --tools-share "$3" --seed "$4"; }
train() { "$python" train.py "$@"; }

if [ "${1:-all}" = more ]; then
    "$python" resume.py --model "$model" --checkpoint build/start.pt --vocabulary "$words"
    write more "${2:-8000000}" 0.4 "${3:-4}"
    train --data build/more.npz --start build/start.pt --out build/last.pt
else
    rm -f "$words"
    write first 9000000 0.24 1
    # The first part stops while the rate is still high; the second text ends at rate zero, the third is mostly tools.
    train --data build/first.npz --until 5000000 --out build/first.pt
    write second 3200000 0.27 2
    train --data build/second.npz --start build/first.pt --out build/second.pt
    write third 2200000 0.5 3
    train --data build/third.npz --start build/second.pt --rate 0.6 --out build/last.pt
fi
"$python" convert.py --checkpoint build/last.pt --vocabulary "$words" --out "$model"
"$python" evaluate.py --model "$model" --vocabulary "$words" --score SCORE.md
