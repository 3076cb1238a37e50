#!/bin/sh
# fuzz.sh SECONDS [TARGET...] - runs build/fuzz (make fuzz) on each target for so many seconds. It begins
# with good inputs, and keeps those that reach new code in build/corpus. Exit 1 at the first finding,
# whose input is then in build/crash-...
set -eu
cd "$(dirname "$0")/.."
seconds=${1:?}
shift
all="G T S D P C W"
for target in $all; do mkdir -p "build/corpus/$target"; done
ASAN_OPTIONS=detect_leaks=0 build/fuzz seeds build/corpus 2> /dev/null
for target in ${@:-$all}; do
    log=build/fuzz-$target.log
    if ! ASAN_OPTIONS=detect_leaks=0 TARGET=$target build/fuzz -close_fd_mask=3 \
        -detect_leaks=0 -max_total_time="$seconds" -max_len=40000 \
        -timeout=20 -rss_limit_mb=4000 -print_final_stats=1 -artifact_prefix="build/crash-$target-" \
        "build/corpus/$target" > "$log" 2>&1
    then
        echo "fuzz $target: a finding; the end of $log:"
        tail -n 40 "$log"
        exit 1
    fi
    echo "fuzz $target: $(sed -n 's/^stat::number_of_executed_units: *//p' "$log") inputs in" \
        "$seconds s, nothing found," \
        "$(sed -n 's/.*DONE *cov: \([0-9]*\).*/\1/p' "$log") places reached"
done
rm -f build/fuzz-[0-9]*
