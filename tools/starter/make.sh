#!/bin/sh
# Makes assets/starter.gguf: text, vocabulary, training, conversion, score.
#   make.sh                      from nothing
#   make.sh more [TOKENS [SEED]] trains the file in the repository further on fresh text
# A run that was cut off goes on where it was; to begin anew, remove build/.
# Wants Python 3.11 or later, a C++ compiler, 8 GB of memory, and 2 idle cores: under an hour when they
# multiply in bfloat16 (AMX or AVX512-BF16), several hours when they do not.
set -eu
cd "$(dirname "$0")"
mkdir -p build
export TORCHINDUCTOR_CACHE_DIR="$PWD/build/inductor" OMP_NUM_THREADS=1
[ -x build/venv/bin/python ] || python3 -m venv build/venv
python="$PWD/build/venv/bin/python"
"$python" -m pip install --quiet --requirement requirements.txt
words=build/vocabulary.json
model=../../assets/starter.gguf

write() { # NAME TOKENS SEED ODDITY SHARE-OF-TOOLS
    [ -e "build/$1.npz" ] || "$python" generate.py --vocabulary "$words" --out "build/$1.npz" --tokens "$2" --tools-share "$5" --seed "$3" --oddity "$4" --dense
}

if [ "${1:-all}" = more ]; then
    tokens=${2:-4000000} seed=${3:-11} out=build/more.pt
    [ -e build/start.pt ] || "$python" resume.py --model "$model" --checkpoint build/start.pt --vocabulary "$words"
    write "more$seed" $((tokens + 100000)) "$seed" 0.6 0.2
    "$python" train.py --data "build/more$seed.npz" --vocabulary "$words" --start build/start.pt --rates $((tokens / 10)):0.3 "$tokens:0" --out "$out"
else
    out=build/last.pt
    # First what is odd, so that names are read and copied instead of known; then more of what is usual.
    write chats1 6000000 1 1 0.2
    write chats2 8000000 2 0.7 0.2
    write chats3 6200000 3 0.6 0.2
    "$python" train.py --data build/chats1.npz build/chats2.npz build/chats3.npz --vocabulary "$words" --out build/first.pt --rates 6000000:1 20000000:0
    # Calls are learned last.
    write chats4 8200000 4 0.6 0.35
    "$python" train.py --data build/chats4.npz --vocabulary "$words" --start build/first.pt --out "$out" --rates 800000:0.4 8000000:0
fi
"$python" convert.py --checkpoint "$out" --vocabulary "$words" --out "$model"
# Where the program has been built, it is asked too: it constrains calls, llama.cpp alone does not.
program=${MESH_LLM:-../../target/release/mesh-llm}
url=
if [ -x "$program" ]; then
    MESH_LLM_HOME="$PWD/build/home" "$program" --model "$model" --port 0 --no-mesh --no-console --log-format json >build/served.jsonl 2>build/served.log &
    server=$!
    trap 'kill "$server" 2>/dev/null || true' EXIT
    for _ in $(seq 60); do
        url=$(sed -n 's/.*"event":"ready".*"api_url":"\([^"]*\)".*/\1/p' build/served.jsonl)
        [ -z "$url" ] && kill -0 "$server" 2>/dev/null || break
        sleep 1
    done
    [ -n "$url" ] || echo "$program does not serve the model (build/served.log): asking llama.cpp alone" >&2
fi
"$python" evaluate.py --model "$model" --vocabulary "$words" --fresh --score SCORE.md ${url:+--url "$url"}
