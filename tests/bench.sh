#!/usr/bin/env bash
# bench.sh - `make bench`: measures this program and its peers in turn (A B A B), then prints
# medians, ratios and shares of the limits as a table, and writes build/bench.json. About five
# minutes. A peer that is not installed is named and left out:
#   PyTorch      apt-get install python3-torch libopenblas0-openmp
#   llama.cpp    npm i --prefix build --no-save --ignore-scripts --omit=optional \
#                    node-llama-cpp @node-llama-cpp/linux-x64
#   FIRST=path   another build of this program, or of its first edition
# ROUNDS=1 tests/bench.sh is a quick look. Quote figures of 3 rounds or more, from a machine that does
# nothing else.
#   bench.sh scaling     how a step's time and memory grow with context, width and rows (2 minutes)
set -u -o pipefail
cd "$(dirname "$0")/.." || exit 1
B=${B:-build} rounds=${ROUNDS:-3} FIRST=${FIRST:-}
threads=${OMP_NUM_THREADS:-$(nproc 2>/dev/null || echo 2)}
export OMP_NUM_THREADS=$threads
unset OPENBLAS_CORETYPE OPENBLAS_L2_SIZE
lab=$B/lab

# The slope of log(cost) over log(size), from the row above: 1 is proportional, 2 quadratic.
scaling() {
    local base=(--dim 128 --layers 4 --heads 4 --hidden 352 --vocab 1024 --context 128) last=''
    row() {                             # row SIZE BATCH OPTIONS...: the last of two equal options counts
        local size=$1 batch=$2 ms mb
        shift 2
        ms=$("$lab" bench train "${base[@]}" --batch "$batch" "$@" |
            awk '$1 == "train" { print $4 }') || exit 1
        mb=$("$lab" memory "${base[@]}" "$@" | awk '$2 ~ /^total/ { print $1 }') || exit 1
        awk -v n="$size" -v ms="$ms" -v mb="$mb" -v last="$last" 'BEGIN {
            split(last, l, " ")
            d = l[1] ? log(n / l[1]) : 0
            printf "| %d | %.1f | %s | %.1f | %s |\n", n,
                ms, d ? sprintf("%.2f", log(ms / l[2]) / d) : "",
                mb, d ? sprintf("%.2f", log(mb / l[3]) / d) : "" }'
        last="$size $ms $mb"
    }
    title() {
        last=''
        printf '\n| %s | ms a step | slope | MB | slope |\n|---:|---:|---:|---:|---:|\n' "$1"
    }
    title 'context (one row a batch)'
    for n in 128 256 512 1024 2048; do row $n 1 --context $n; done
    title 'context (2048 tokens a batch)'
    for n in 128 256 512 1024 2048; do row $n $((2048 / n)) --context $n; done
    title 'width'
    for n in 64 128 256 512; do row $n 16 --dim $n --hidden $((n * 11 / 4)); done
    title 'rows a batch'
    for n in 1 2 4 8 16 32; do row $n $n; done
}
if [ "${1:-}" = scaling ]; then scaling; exit; fi

mkdir -p "$B/bench"
: > "$B/bench/figures"
take() {                                # take WHO COMMAND...: adds its lines, each after WHO
    local who=$1
    shift
    "$@" 2> "$B/bench/err" | sed "s/^/$who /" >> "$B/bench/figures" && return
    echo "$who: $(tail -n 1 "$B/bench/err")" >&2
    return 1
}
both() {                                # both PART: ours, then the other build's
    take ours "$lab" bench "$1" || exit 1
    [ -z "$FIRST" ] || take first "$FIRST" bench "$1" || exit 1
}
# The best known settings of PyTorch on a CPU: OpenBLAS with OpenMP, and a malloc that keeps its memory.
openblas=/usr/lib/x86_64-linux-gnu/openblas-openmp
torch() {
    env LD_LIBRARY_PATH=$openblas MALLOC_MMAP_THRESHOLD_=4294967296 \
        MALLOC_TRIM_THRESHOLD_=68719476736 MALLOC_TOP_PAD_=268435456 \
        /usr/bin/python3 tests/bench_torch.py
}
has_torch=1 has_llama=1
/usr/bin/python3 -c 'import torch' 2>/dev/null ||
    { has_torch=0; echo "PyTorch is not installed: nothing to compare training with"; }
[ $has_torch = 0 ] || [ -d $openblas ] || { has_torch=0
    echo "PyTorch has no libopenblas0-openmp: the reference BLAS would not be a fair peer"; }
{ [ -d build/node_modules/node-llama-cpp ] && command -v node > /dev/null; } ||
    { has_llama=0; echo "llama.cpp is not installed: nothing to compare decoding with"; }
for shape in 15M 110M; do
    [ $has_llama = 0 ] || [ -f "$B/bench/$shape.gguf" ] ||
        "$lab" bench decode $shape --out "$B/bench/$shape.gguf" || exit 1
done
start=$SECONDS
for ((round = 1; round <= rounds; round++)); do
    echo "round $round of $rounds, $((SECONDS - start)) s" >&2
    both train
    both rows
    [ $has_torch = 0 ] || take torch torch || has_torch=0
    for part in prefill decode draft; do both $part; done
    for shape in 15M 110M; do
        [ $has_llama = 0 ] ||
            take llama.cpp node tests/bench_llama.mjs $shape "$B/bench/$shape.gguf" "$threads" ||
            has_llama=0
    done
done

# A line is: who part shape, then pairs of key and value. Takes medians over the rounds.
awk -v json="$B/bench.json" '
function median(list,    a, n, i, j, x) {
    n = split(list, a, " ")
    for (i = 2; i <= n; i++)
        for (j = i; j > 1 && a[j - 1] + 0 > a[j] + 0; j--) {
            x = a[j]; a[j] = a[j - 1]; a[j - 1] = x
        }
    return (a[int((n + 1) / 2)] + a[int(n / 2) + 1]) / 2
}
function value(who, place, key) {
    return (who, place, key) in all ? median(all[who, place, key]) : ""
}
function ratio(x, y, name) { return x == "" || y == "" ? "" : sprintf("%.2f x %s", x / y, name) }
{
    place = $2 " " $3; first = 4
    if ($2 == "limits") { place = "limits"; first = 5; threads = $3 }
    for (i = first; i < NF; i += 2) {
        if (!(($1, place, $i) in all)) {
            if (!(($1, place) in seen)) { seen[$1, place] = 1; order[$1] = order[$1] "|" place }
            keys[$1, place] = keys[$1, place] " " $i
        }
        all[$1, place, $i] = all[$1, place, $i] " " $(i + 1)
    }
}
END {
    printf "{\"threads\": %d", threads > json
    n_who = split("ours first torch llama.cpp", whos, " ")
    for (w = 1; w <= n_who; w++) {
        who = whos[w]
        n = split(order[who], places, "|")
        if (n < 2) { printf ", \"%s\": null", who > json; continue }
        printf ", \"%s\": {", who > json
        part = ""; comma = ""
        for (p = 2; p <= n; p++) {
            split(places[p], name, " ")
            if (places[p] == "limits") {
                printf("\"peak_gflops\": %.1f, \"read_gbs\": %.2f",
                    value(who, "limits", "peak_gflops"), value(who, "limits", "read_gbs")) > json
                comma = ", "
                continue
            }
            if (name[1] != part) {
                printf("%s%s\"%s\": {", part == "" ? "" : "}", comma, name[1]) > json
                part = name[1]; inner = ""
            }
            comma = ", "
            m = split(keys[who, places[p]], key, " ")
            printf "%s\"%s\": {", inner, name[2] > json
            inner = ", "
            for (k = 1; k <= m; k++)
                printf("%s\"%s\": %.5g", (k > 1) ? ", " : "", key[k],
                    value(who, places[p], key[k])) > json
            printf "}" > json
        }
        printf("%s}", part == "" ? "" : "}") > json
    }
    print "}" > json

    printf "%d threads; multiply-adds %.1f GFLOP/s, reading %.1f GB/s; medians\n\n", threads,
        value("ours", "limits", "peak_gflops"), value("ours", "limits", "read_gbs")
    printf "| what | ours | share of the limit | beside FIRST | beside the peer |\n"
    printf "|---|---:|---:|---:|---:|\n"
    n = split(order["ours"], places, "|")
    for (p = 2; p <= n; p++) {
        place = places[p]
        if (place == "limits") continue
        split(place, name, " ")
        if (name[1] == "draft") {
            x = value("ours", place, "copied"); y = value("ours", place, "nothing")
            printf "| %s | %.2fx copied, %.2fx if nothing is | | %s | |\n", place, x, y,
                ratio(x, value("first", place, "copied"), "first")
            continue
        }
        unit = name[1] == "rows" ? "targets_per_s" : "tokens_per_s"
        peer = name[1] == "train" || name[1] == "rows" ? "torch" : "llama.cpp"
        x = value("ours", place, unit)
        share = value("ours", place, "peak_share") value("ours", place, "read_share")
        printf "| %s | %.0f %s | %s | %s | %s |\n", place, x,
            name[1] == "rows" ? "targets/s" : "tokens/s",
            share == "" ? "" : sprintf("%.0f %%", 100 * share),
            ratio(x, value("first", place, unit), "first"), ratio(x, value(peer, place, unit), peer)
    }
}' "$B/bench/figures"
[ -n "$FIRST" ] || echo "no other build in this run (FIRST=path)"
[ $has_torch = 1 ] || echo "no PyTorch in this run"
[ $has_llama = 1 ] || echo "no llama.cpp in this run"
echo "$B/bench.json written, $((SECONDS - start)) s"
