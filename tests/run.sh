#!/usr/bin/env bash
# run.sh - runs every test that was built, one after the other, adds up their "N passed, N failed" lines and closes with the sum.
# Runs from the project's root; $B is the build folder (build unless set), so that a sanitizer build uses the same script.
set -u
cd "$(dirname "$0")/.." || exit 1
B=${B:-build}
export B ASAN_OPTIONS=${ASAN_OPTIONS:-detect_leaks=0}       # a program that dies with a message leaves its memory to the system
out=$(mktemp) || exit 1
trap 'rm -f "$out"' EXIT
passed=0 failed=0 silent='' skipped=''
TIMEFORMAT=%1R

run() {                                 # run NAME COMMAND...
    local name=$1 status seconds counts p f
    shift
    seconds=$( { time "$@" > "$out" 2>&1 < /dev/null; } 2>&1; exit $?)
    status=$?
    counts=$(sed -n 's/.*[^0-9]\([0-9][0-9]*\) passed, \([0-9][0-9]*\) failed$/\1 \2/p; s/^\([0-9][0-9]*\) passed, \([0-9][0-9]*\) failed$/\1 \2/p' "$out")
    p=$(echo "$counts" | awk '{ p += $1 } END { print p + 0 }')
    f=$(echo "$counts" | awk '{ f += $2 } END { print f + 0 }')
    if [ -z "$counts" ] || { [ $status != 0 ] && [ "$f" = 0 ]; }; then      # it died before, or after, its count
        f=$((f + 1)) silent="$silent $name"
    fi
    [ "$f" = 0 ] || sed 's/^/    /' "$out"
    grep -i '^skipped' "$out" | sed "s/^/    /" | grep -q . && skipped="$skipped$(grep -i '^skipped' "$out" | sed "s/^/  $name /")"$'\n'
    printf '%-22s %7d passed %5d failed %7s s%s\n' "$name" "$p" "$f" "$seconds" "$([ $status = 0 ] || echo "   (exit $status)")"
    passed=$((passed + p)) failed=$((failed + f))
}

for test in "$B"/tests/*; do
    [ -f "$test" ] && [ -x "$test" ] || continue
    [ "${test##*/}" = fuzz ] || run "${test##*/}" "$test"
done
for script in one_line cli; do
    [ ! -e tests/$script.sh ] || run $script.sh tests/$script.sh
done
run "world selftest" "$B/world" selftest

[ -z "$skipped" ] || printf '\nskipped:\n%s' "$skipped"
[ -z "$silent" ] || printf '\ndied, or failed without a count:%s\n' "$silent"
echo "$passed passed, $failed failed"
[ $failed = 0 ]
