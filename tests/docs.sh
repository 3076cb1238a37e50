#!/bin/sh
# docs.sh - checks that what the pages in docs/ name exists. Runs from anywhere; ends with "docs: N
# passed, N failed", and with exit 1 if one failed.
#
#   `name()`             a function (or macro) of aligner.c or of tests/
#   tests/x.c, a link    a file; also a bare name such as `train.sh` between backticks
#   `make x`             a target of the Makefile (also after four spaces, as a command to type)
#   `./train.sh x`       an argument that train.sh takes
#   `--option`           an option of aligner.c or of a program in tests/
#
# A page has no heading twice.
cd "$(dirname "$0")/.." || exit 1
tmp=$(mktemp -d) || exit 1
trap 'rm -rf "$tmp"' EXIT
passed=0 failed=0

result() {                              # result STATUS PAGE MESSAGE
    if [ "$1" = 0 ]; then passed=$((passed + 1)); return; fi
    failed=$((failed + 1))
    echo "docs.sh: $2: $3"
}

# A definition begins at the left margin: a type, the name, a parenthesis. An attribute would look
# like one, so attributes go first.
sed 's/__attribute__((.*)) *//' aligner.c tests/*.c tests/*.h |
    sed -n -e 's/^#define \([A-Za-z_][A-Za-z0-9_]*\)(.*/\1/p' \
           -e 's/^[A-Za-z_][A-Za-z0-9_ *]*[ *]\([A-Za-z_][A-Za-z0-9_]*\)(.*/\1/p' | sort -u > "$tmp/functions"

for page in docs/*.md; do
    [ -f "$page" ] || { result 1 docs "there is no page"; continue; }
    awk -F'`' '{ for (i = 2; i <= NF; i += 2) print $i }' "$page" > "$tmp/spans"
    sed -n 's/^    *//p' "$page" | cat - "$tmp/spans" > "$tmp/commands"
    tr -s ' ,;()' '\n' < "$tmp/spans" > "$tmp/words"
    awk -F'`' 'NF && NF % 2 == 0 { bad = 1 } END { exit bad }' "$page"
    result $? "$page" "a line has an odd number of backticks, so some of what it names goes unchecked"
    twice=$(grep '^##* ' "$page" | sort | uniq -d)
    [ -z "$twice" ]
    result $? "$page" "this heading is there twice: $twice"

    for name in $(tr -s ' ,;' '\n' < "$tmp/spans" |
                  sed -n 's/^\([A-Za-z_][A-Za-z0-9_]*\)()$/\1/p' | sort -u); do
        grep -qx "$name" "$tmp/functions"
        result $? "$page" "there is no function $name() in aligner.c or tests/"
    done
    for path in $(tr -c 'A-Za-z0-9_./*-' '\n' < "$page" | sed -e 's/\.*$//' -e 's/^\.\///' |
                  grep -E '^(tests|docs|\.ci)/[A-Za-z0-9_.-]+$' | sort -u); do
        [ -e "$path" ]
        result $? "$page" "there is no file $path"
    done
    for path in $(sed -n -E 's/^(\.\/)?([A-Za-z0-9_-]+\.(c|h|sh|md|py|mjs|bin))$/\2/p' "$tmp/words" |
                  sort -u); do
        [ -e "$path" ] || [ -e "docs/$path" ]
        result $? "$page" "there is no file $path"
    done
    for path in $(awk '{ n = split($0, part, /\]\(/)
                         for (i = 2; i <= n; i++) { sub(/[)#].*/, "", part[i]); print part[i] } }' "$page" |
                  grep -v '^[a-z]*:' | sort -u); do
        [ -e "docs/$path" ]
        result $? "$page" "a link leads to docs/$path, which is missing"
    done
    for target in $(sed -n 's/^make  *\([^;&#|]*\).*/\1/p' "$tmp/commands" | tr ' ' '\n' |
                    grep -v -e '^-' -e = -e '^$' | sort -u); do
        case $target in build/*) target="\$(B)/${target#build/}" ;; esac
        awk -v t="$target:" 'index($0, t) == 1 { found = 1 } END { exit !found }' Makefile
        result $? "$page" "the Makefile has no target $target"
    done
    for argument in $(sed -n 's/^\.\/train\.sh  *\([a-z][a-z-]*\).*/\1/p' "$tmp/commands" | sort -u); do
        grep -Eq "^ *([a-z-]+ *\| *)*$argument *(\| *[a-z-]+ *)*\)" train.sh || [ "$argument" = all ] ||
            grep -Eq "[\"']$argument[\"']" tests/experiments.py
        result $? "$page" "train.sh takes no argument $argument"
    done
    for option in $(grep -E '^--[a-z][a-z-]*$' "$tmp/words" | sort -u); do
        grep -qF -e "\"$option\"" aligner.c tests/*.c tests/*.py
        result $? "$page" "there is no option $option"
    done
done

echo "docs: $passed passed, $failed failed"
[ $failed = 0 ]
