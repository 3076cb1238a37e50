#!/bin/sh
# one_line.sh - exactly one line changes from sft to aligner, from sft to warmup, and from warmup to
# aligner. Prints the first of these changes; exit 1 if more or less than one line differs.
# `make diff` and `make test` run it in the project's root.
tmp=build/tests/tmp
mkdir -p $tmp || exit 1
passed=0
failed=0

for name in sft warmup aligner; do      # the function's lines, with one name for all
    sed -n "/^static Row $name *(const Model \*m, Triple t)/,/^}/p" aligner.c |
        sed "s/^static Row $name *(/static Row OBJECTIVE(/" > $tmp/one_line.$name
    if [ "$(wc -l < $tmp/one_line.$name)" -lt 3 ]; then
        echo "one_line.sh: aligner.c has no function $name(const Model *m, Triple t)"
        exit 1
    fi
done

for pair in "sft aligner" "sft warmup" "warmup aligner"; do
    set -- $pair
    changes=$(diff $tmp/one_line.$1 $tmp/one_line.$2 | grep -c '^[<>]')         # one line is one < and one >
    if [ "$changes" = 2 ] && [ "$(wc -l < $tmp/one_line.$1)" = "$(wc -l < $tmp/one_line.$2)" ]; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        echo "one_line.sh: $1 -> $2 changes more or less than one line:"
        diff -u $tmp/one_line.$1 $tmp/one_line.$2
    fi
done

echo "sft -> aligner"
diff -u $tmp/one_line.sft $tmp/one_line.aligner | sed 1,3d
echo "the one line: $passed passed, $failed failed"
[ $failed = 0 ]
