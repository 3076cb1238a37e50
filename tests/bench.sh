#!/usr/bin/env bash
# bench.sh - what `make bench` runs: this program in turn with its peers (A B A B), then medians, ratios and shares of the
# limits, as a table and in build/bench.json. About five minutes. A peer that is not installed is named and left out:
#   PyTorch      apt-get install python3-torch libopenblas0-openmp
#   llama.cpp    npm i --prefix build --no-save --ignore-scripts --omit=optional node-llama-cpp @node-llama-cpp/linux-x64
# ROUNDS=1 tests/bench.sh is a quick look; figures that are quoted have 3 rounds or more, on a machine that does nothing else.
set -u
cd "$(dirname "$0")/.." || exit 1
B=${B:-build} rounds=${ROUNDS:-3} threads=${OMP_NUM_THREADS:-$(nproc 2>/dev/null || echo 2)}
export OMP_NUM_THREADS=$threads
unset OPENBLAS_CORETYPE OPENBLAS_L2_SIZE
mkdir -p "$B/bench"
: > "$B/bench/figures"
take() {                                # take WHO COMMAND...: adds its lines, each with WHO in front
    local who=$1
    shift
    "$@" 2> "$B/bench/err" | sed "s/^/$who /" >> "$B/bench/figures"
    if [ "${PIPESTATUS[0]}" != 0 ]; then echo "$who: $(tail -n 1 "$B/bench/err")" >&2; return 1; fi
}
# The best known settings of PyTorch on a CPU: OpenBLAS with OpenMP, and a malloc that does not give memory back each step.
openblas=/usr/lib/x86_64-linux-gnu/openblas-openmp
torch() {
    env LD_LIBRARY_PATH=$openblas MALLOC_MMAP_THRESHOLD_=4294967296 \
        MALLOC_TRIM_THRESHOLD_=68719476736 MALLOC_TOP_PAD_=268435456 /usr/bin/python3 tests/bench_torch.py
}
has_torch=1 has_llama=1
/usr/bin/python3 -c 'import torch' 2>/dev/null || { has_torch=0; echo "PyTorch is not installed: nothing to compare training with"; }
[ $has_torch = 0 ] || [ -d $openblas ] ||
    { has_torch=0; echo "PyTorch has no libopenblas0-openmp: with the reference BLAS it is many times slower, and no peer"; }
{ [ -d build/node_modules/node-llama-cpp ] && command -v node > /dev/null; } ||
    { has_llama=0; echo "llama.cpp (node-llama-cpp) is not installed: nothing to compare decoding with"; }
if [ $has_llama = 1 ]; then
    for shape in 15M 110M; do
        [ -f "$B/bench/$shape.gguf" ] || "$B/bench_gguf" $shape "$B/bench/$shape.gguf" || exit 1
    done
fi
start=$SECONDS
for ((round = 1; round <= rounds; round++)); do
    echo "round $round of $rounds, $((SECONDS - start)) s" >&2
    take ours "$B/aligner" bench train || exit 1
    take ours "$B/aligner" bench rows || exit 1
    if [ $has_torch = 1 ]; then take torch torch || has_torch=0; fi
    for part in prefill decode draft; do take ours "$B/aligner" bench $part || exit 1; done
    for shape in 15M 110M; do
        if [ $has_llama = 1 ]; then take llama.cpp node tests/bench_llama.mjs $shape "$B/bench/$shape.gguf" "$threads" || has_llama=0; fi
    done
done

# Lines are: who part shape, then pairs of key and value. Medians over the rounds; shares as each run found them.
awk -v json="$B/bench.json" '
function median(list,    a, n, i, j, x) {
    n = split(list, a, " ")
    for (i = 2; i <= n; i++) for (j = i; j > 1 && a[j - 1] + 0 > a[j] + 0; j--) { x = a[j]; a[j] = a[j - 1]; a[j - 1] = x }
    return (a[int((n + 1) / 2)] + a[int(n / 2) + 1]) / 2
}
function value(who, place, key) { return (who, place, key) in all ? median(all[who, place, key]) : "" }
{
    if ($2 == "limits") { place = "limits"; first = 5; threads = $3 } else { place = $2 " " $3; first = 4 }
    for (i = first; i < NF; i += 2) {
        if (!(($1, place, $i) in all)) { if (!(($1, place) in seen)) { seen[$1, place] = 1; order[$1] = order[$1] "|" place }
                                         keys[$1, place] = keys[$1, place] " " $i }
        all[$1, place, $i] = all[$1, place, $i] " " $(i + 1)
    }
}
END {
    printf "%d threads; multiply-adds %.1f GFLOP/s, reading %.1f GB/s; medians\n\n", threads,
        value("ours", "limits", "peak_gflops"), value("ours", "limits", "read_gbs")
    printf "| what | ours | share of the limit | peer | ratio |\n|---|---:|---:|---:|---:|\n"
    printf "{\"threads\": %d", threads > json
    n_who = split("ours torch llama.cpp", whos, " ")
    for (w = 1; w <= n_who; w++) {
        who = whos[w]; n = split(order[who], places, "|")
        if (n < 2) { printf ", \"%s\": null", who > json; continue }
        printf ", \"%s\": {", who > json
        part = ""; comma = ""
        for (p = 2; p <= n; p++) {
            split(places[p], name, " ")
            if (places[p] == "limits") { printf("\"peak_gflops\": %.1f, \"read_gbs\": %.2f",
                value(who, "limits", "peak_gflops"), value(who, "limits", "read_gbs")) > json; comma = ", "; continue }
            if (name[1] != part) { printf("%s%s\"%s\": {", part == "" ? "" : "}", comma, name[1]) > json; part = name[1]; inner = "" }
            comma = ", "
            m = split(keys[who, places[p]], key, " ")
            printf "%s\"%s\": {", inner, name[2] > json; inner = ", "
            for (k = 1; k <= m; k++) printf("%s\"%s\": %.5g", (k > 1) ? ", " : "", key[k], value(who, places[p], key[k])) > json
            printf "}" > json
        }
        printf("%s}", part == "" ? "" : "}") > json
    }
    print "}" > json
    n = split(order["ours"], places, "|")
    for (p = 2; p <= n; p++) {
        place = places[p]; split(place, name, " ")
        if (place == "limits") continue
        if (name[1] == "draft") {
            printf "| %s | %.2fx copied, %.2fx where nothing is | | | |\n", place, value("ours", place, "copied"), value("ours", place, "nothing")
            continue
        }
        unit = name[1] == "rows" ? "targets_per_s" : "tokens_per_s"
        x = value("ours", place, unit)
        share = value("ours", place, "peak_share") value("ours", place, "read_share")
        peer = name[1] == "train" || name[1] == "rows" ? "torch" : "llama.cpp"
        y = value(peer, place, unit)
        printf "| %s | %.0f %s | %s | %s | %s |\n", place, x, name[1] == "rows" ? "targets/s" : "tokens/s",
            share == "" ? "" : sprintf("%.0f %%", 100 * share), y == "" ? "" : sprintf("%.0f %s", y, peer),
            y == "" ? "" : sprintf("%.2f", x / y)
    }
}' "$B/bench/figures"
[ $has_torch = 1 ] || echo "no PyTorch in this run"
[ $has_llama = 1 ] || echo "no llama.cpp in this run"
echo "$B/bench.json written, $((SECONDS - start)) s"
