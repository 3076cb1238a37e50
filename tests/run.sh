#!/usr/bin/env bash
# run.sh - `make test`: runs every test that was built, adds up their "N passed, N failed" lines and
# ends with the sum; exit 1 if one failed. $B is the build folder (build unless set), so a sanitizer
# build uses the same script.
set -u
cd "$(dirname "$0")/.." || exit 1
export B=${B:-build} ASAN_OPTIONS=${ASAN_OPTIONS:-detect_leaks=0}      # exit() leaves memory to the system
out=$(mktemp) || exit 1
trap 'rm -f "$out"' EXIT
passed=0 failed=0 died='' skipped=''
TIMEFORMAT=%1R

run() {                                 # run NAME COMMAND...
    local name=$1 status seconds p f skips note=''
    shift
    seconds=$( { time "$@" > "$out" 2>&1 < /dev/null; } 2>&1; exit $?)
    status=$?
    read -r p f < <(awk '/(^|[^0-9])[0-9]+ passed, [0-9]+ failed$/ { p += $(NF - 3); f += $(NF - 1); n++ }
                         END { print n ? p : -1, f + 0 }' "$out")
    if [ "$p" = -1 ] || { [ $status != 0 ] && [ "$f" = 0 ]; }; then    # it died, before or after its count
        [ "$p" != -1 ] || p=0
        f=$((f + 1)) died="$died $name" note="   exit $status"
    fi
    printf '%-18s %8d passed %4d failed %7s s%s\n' "$name" "$p" "$f" "$(echo "$seconds" | tail -n 1)" "$note"
    [ "$f" = 0 ] || sed 's/^/    /' "$out"
    skips=$(grep '^skipped' "$out" | sed "s/^/    $name: /")
    [ -z "$skips" ] || skipped="$skipped$skips"$'\n'
    passed=$((passed + p)) failed=$((failed + f))
}

for test in "$B"/tests/*; do
    if [ -f "$test" ] && [ -x "$test" ] && [ "${test##*/}" != fuzz ]; then run "${test##*/}" "$test"; fi
done
run one_line.sh tests/one_line.sh
run docs.sh tests/docs.sh
run exercises.sh tests/exercises.sh
run cli.sh tests/cli.sh
if python3 -c 'import sys; assert sys.version_info >= (3, 9)' 2> /dev/null; then
    run faults.py tests/faults.py
    run kill.py tests/kill.py
else
    skipped="${skipped}    faults.py, kill.py: no python3 (3.9 or later)"$'\n'
fi
run "world selftest" "$B/world" selftest

[ -z "$skipped" ] || printf 'not everything ran:\n%s' "$skipped"
[ -z "$died" ] || echo "died, or failed without a count:$died"
echo "$passed passed, $failed failed"
[ $failed = 0 ]
