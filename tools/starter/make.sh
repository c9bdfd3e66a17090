#!/bin/sh
# Makes assets/starter.gguf: text, vocabulary, training, conversion, score.
#   make.sh                      from nothing
#   make.sh more [TOKENS [SEED]] trains the file in the repository further on fresh text
# A run that was cut off goes on where it was; to begin anew, remove build/.
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

write() {
    [ -e "build/$1.npz" ] || "$python" generate.py --vocabulary "$words" --out "build/$1.npz" --tokens "$2" --tools-share "$3" --seed "$4" ${5:+"$5"}
}
train() { "$python" train.py "$@"; }

if [ "${1:-all}" = more ]; then
    tokens=${2:-4000000} seed=${3:-11} out=build/more.pt
    [ -e build/start.pt ] || "$python" resume.py --model "$model" --checkpoint build/start.pt --vocabulary "$words"
    write "more$seed" $((tokens + 100000)) 0.18 "$seed" --dense
    train --data "build/more$seed.npz" --start build/start.pt --rate 0.3 --tokens "$tokens" --fall-from $((tokens / 10)) --out "$out"
else
    out=build/last.pt
    write chats1 4500000 0.13 1
    write chats2 6000000 0.17 2
    write chats3 3500000 0.18 3 --dense
    # The rate falls slowly at first, then faster; the last text is mostly tools, with more calls for fewer tokens.
    train --data build/chats1.npz build/chats2.npz --tokens 10000000 --fall-from 1750000 --until 3759000 --out build/main.pt
    train --data build/chats1.npz build/chats2.npz --tokens 6800000 --fall-from 720000 --until 4785000 --out build/main.pt
    train --data build/chats3.npz --start build/main.pt --rate 0.38 --tokens 3000000 --fall-from 150000 --out "$out"
fi
"$python" convert.py --checkpoint "$out" --vocabulary "$words" --out "$model"
"$python" evaluate.py --model "$model" --vocabulary "$words" --fresh --score SCORE.md
