#!/bin/sh
# loc.sh - counts lines of code and comment in aligner.c, chapter by chapter, and prints each budget
# beside its number. `make loc` runs it.
#
#   tests/loc.sh            the tables
#   tests/loc.sh --check    the same; exit 1 if a budget is exceeded
#   tests/loc.sh FILE       the chapters of another file, without budgets
#
# A line with any code is a line of code, even if a comment follows; a line with nothing but a comment
# is a line of comment; an empty line is neither. A function is a definition at the left margin.
# Chapters begin at the comment that names them, Part II at the comment that says PART II.
cd "$(dirname "$0")/.." || exit 1
check=0
[ "${1-}" != --check ] || { check=1; shift; }

# Prints "chapter NAME LINES CODE COMMENT" for each chapter, then "total KEY NUMBER" lines.
count() {
    awk '
    function start(name) { chapter[++n] = name }
    BEGIN { start("0  prologue") }
    /^   Chapter [0-9]+\. / {           # the line above it, /* ====, belongs to the chapter too
        name = $0
        sub(/^   Chapter /, "", name); sub(/\.  .*/, "", name); sub(/\. /, "  ", name)
        lines[n]--; comment[n]--
        start(name)
        lines[n]++; comment[n]++
    }
    /^ *PART II: THE MACHINE ROOM/ && !part { part = 1; part_code = code; part_line = NR }
    {
        s = $0; is_code = 0; is_text = 0
        bytes += length($0) + 1
        if (length($0) > 100) wide++
        if (!inside && /^[a-zA-Z_]/ && !/=.*\(/) {
            if (/\).*\{.*\} *$/) sizes[++functions] = 1
            else if (/\(/ && !/[;{] *$/ && !/;  /) pending = NR         # a signature of several lines
            else if (/\) *\{ *$/) open = NR
        } else if (pending && /\) *\{ *$/) open = pending
        else if (pending && /^\{/) open = pending
        if (open || /; *$/) pending = 0
        if (/^\}/ && open) { sizes[++functions] = NR - open + 1; open = 0 }
        if (!inside) { gsub(/"([^"\\]|\\.)*"/, "S", s); gsub(/\047([^\047\\]|\\.)\047/, "C", s) }
        while (s != "") {               # walk along the line, in and out of comments
            if (inside) {
                i = index(s, "*/")
                if (i ? substr(s, 1, i - 1) ~ /[^ \t]/ || i : s ~ /[^ \t]/) is_text = 1
                if (i) { s = substr(s, i + 2); inside = 0 } else s = ""
            } else if (match(s, /\/[\/*]/)) {
                if (substr(s, 1, RSTART - 1) ~ /[^ \t]/) is_code = 1
                is_text = 1
                if (substr(s, RSTART, 2) == "//") s = ""
                else { inside = 1; s = substr(s, RSTART + 2) }
            } else { if (s ~ /[^ \t]/) is_code = 1; s = "" }
        }
        lines[n]++; codes[n] += is_code; comment[n] += is_text && !is_code
        code += is_code; text += is_text && !is_code
    }
    END {
        for (i = 1; i <= n; i++) print "chapter\t" chapter[i] "\t" lines[i] "\t" codes[i] "\t" comment[i] + 0
        for (i = 1; i <= functions; i++)        # the median, by counting
            for (j = below = same = 0; j < functions; ) {
                j++
                below += sizes[j] < sizes[i]; same += sizes[j] == sizes[i]
                if (j == functions && below <= functions / 2 && below + same > functions / 2)
                    median = sizes[i]
            }
        printf "total\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\n",
            NR, code, text, wide, bytes, functions, median, part_code
    }' "$1"
}

show() {                                # show FILE: the chapters
    count "$1" | awk -F '\t' '
    function share(c, m) { return c + m ? 100 * m / (c + m) : 0 }
    BEGIN { printf "%-32s %7s %7s %9s %11s\n", "chapter", "lines", "code", "comment", "of both" }
    $1 == "chapter" { printf "%-32s %7d %7d %9d %9.0f %%\n", $2, $3, $4, $5, share($4, $5) }
    $1 == "total" { printf "%-32s %7d %7d %9d %9.0f %%\n", "total", $2, $3, $4, share($3, $4) }'
}

if [ $# -gt 0 ]; then
    show "$1"
    exit
fi
show aligner.c
echo
for file in aligner.c tests/lab.c tests/world.c; do
    [ -f "$file" ] || { printf '%-32s not there\n' "$file"; continue; }
    count "$file" | awk -F '\t' -v file="$file" '
    # A budget that is not met yet may not get worse: --check then holds it to `now`.
    function budget(what, number, sign, limit, now) {
        ok = sign == "<=" ? number <= limit : number >= limit
        held = now == "" ? ok : sign == "<=" ? number <= now : number >= now
        printf "%-32s %9s   %s %-9s %s\n", file ": " what, number, sign, limit,
            ok ? "" : held ? "not met (held at " now ")" : "EXCEEDED"
        bad += !held
    }
    $1 == "total" {
        if (file == "aligner.c") budget("lines of code", $3, "<=", 2600, 3160)
        else budget("lines of code", $3, "<=", file == "tests/lab.c" ? 1100 : 1200)
        budget("lines over 100 columns", $5, "<=", 0)
        if (file == "aligner.c") {
            budget("bytes", $6, "<=", 170 * 1024, 224000)
            budget("functions", $7, "<=", 200, 240)
            budget("lines of the median function", $8, ">=", 12, 8)
            budget("lines of code in Part I", $9 ? $9 : "no end", "<=", 700)
        }
        share = sprintf("%.1f", 100 * $4 / ($3 + $4))
        if (file == "aligner.c") budget("% of comment", share, ">=", 25, 22)
        else if (file == "tests/lab.c") budget("% of comment", share, ">=", 25)
    }
    END { exit bad > 0 }' || exceeded=1
done
[ $check = 0 ] || [ -z "${exceeded-}" ]
