#!/usr/bin/env bash
# lint.sh - clang-tidy (bugprone-*, cert-*, clang-analyzer-*) and cppcheck on aligner.c. Exit 1 if either
# finds something that is not explained here. First the checks that are off, then single findings.
set -u
cd "$(dirname "$0")/.." || exit 1
found=$(mktemp) || exit 1
trap 'rm -f "$found"' EXIT
checks='-*,bugprone-*,cert-*,clang-analyzer-*'
off() { checks="$checks,-$1"; }         # off CHECK REASON
off bugprone-easily-swappable-parameters "M, N, K and T, C are shapes; the formulas fix their order"
off clang-analyzer-security.insecureAPI.DeprecatedOrUnsafeBufferHandling "libc has no memcpy_s"
off bugprone-suspicious-string-compare "strcmp() and memcmp() as conditions are C"
off bugprone-implicit-widening-of-multiplication-result "int products are bounded by config_check() and UNIT"
off cert-err33-c "flush_results() checks stdout, write_file() files; nobody could read of stderr's errors"
off clang-analyzer-optin.performance.Padding "tables are ordered for readers"
off bugprone-reserved-identifier "_POSIX_C_SOURCE is how a program asks for POSIX"
off cert-dcl37-c "the same"
off cert-dcl51-cpp "the same"

explained=()                            # this check may report a line of aligner.c that has this text
because() { explained+=("$1|$2"); }     # because CHECK TEXT REASON
because bugprone-misplaced-widening-cast '(size_t)(t0 + i0)' "both are positions inside a batch"
because clang-analyzer-core.NullDereference 'const char c = o->text.s[o->at]' "at < n, so there is text"
because clang-analyzer-core.NullDereference 'best->name' "each command takes --quiet, so a nearest name exists"
because clang-analyzer-core.NonNullParamChecker 'bool is(const char *a' "it assumes an empty list of commands"
because clang-analyzer-core.UndefinedBinaryOperatorResult '1099511628211u' "it cannot follow the bytes of a double"
because bugprone-sizeof-expression 'sizeof *row)' "an array of pointers is meant"
because bugprone-sizeof-expression 'sizeof *run->drawn' "an array of pointers is meant"
because clang-analyzer-core.NonNullParamChecker 'memcpy(b->s + b->n, s, n)' "s is NULL only if n is 0"
because clang-analyzer-unix.Malloc 'n = n_named_files' "the names of files stay until the program ends"
because ctuuninitvar 'head, p, m->params' "state_parts() fills *head"
because nullPointer 'draft' "draft is read only if n_draft > 0"
because uninitvar 'edge' "tile() has filled edge, through the pointer to"

if command -v clang-tidy > /dev/null; then
    clang-tidy -quiet --checks="$checks" aligner.c -- -std=c11 -march=native 2> /dev/null |
        grep -E '^[^ ]*aligner.c:[0-9]+:[0-9]+: (warning|error)' >> "$found"
    n_tools=1
else n_tools=0; echo "skipped: no clang-tidy"; fi
if command -v cppcheck > /dev/null; then
    cppcheck --enable=warning,performance,portability --std=c11 --quiet aligner.c 2>&1 |
        grep -E '^aligner.c:[0-9]+:[0-9]+: ' | grep -v ': note:' >> "$found"
    n_tools=$((n_tools + 1))
else echo "skipped: no cppcheck"; fi

failed=0 accepted=0
while IFS= read -r finding; do
    check=${finding##*[} check=${check%]} check=${check%%,*}
    line=$(sed -n "$(echo "$finding" | sed -E 's/^[^:]*:([0-9]+):.*/\1/')p" aligner.c)
    for e in "${explained[@]}"; do
        if [ "${e%%|*}" = "$check" ] && [[ $line = *"${e#*|}"* ]]; then
            accepted=$((accepted + 1))
            continue 2
        fi
    done
    failed=$((failed + 1))
    echo "$finding"
    echo "    $line"
done < "$found"
echo "lint: $n_tools programs, $accepted findings explained, $failed not"
[ $failed = 0 ]
