#!/bin/sh
# loc.sh - lines of code and comment of aligner.c (or of the file named), chapter by chapter. `make loc` runs it.
# A chapter begins at the comment that names it: "   Chapter N. Name."
awk '
function start(name) { chapter[++n] = name }
function row(name, l, c, m) { printf "%-24s %7d %7d %9d %9.0f %%\n", name, l, c, m, c + m ? 100 * m / (c + m) : 0 }
BEGIN { start("0  Prologue") }
/^   Chapter [0-9]+\. / {                 # the line above it, /* ====, belongs to the chapter too
    name = $0
    sub(/^   Chapter /, "", name); sub(/\.  .*/, "", name); sub(/\.$/, "", name); sub(/\. /, "  ", name)
    lines[n]--; comment[n]--
    start(name)
    lines[n]++; comment[n]++
}
{
    s = $0; code = 0; text = 0
    if (!inside) { gsub(/"([^"\\]|\\.)*"/, "S", s); gsub(/\047([^\047\\]|\\.)\047/, "C", s) }
    while (s != "") {                       # walk over the line: in a comment, or not
        if (inside) {
            i = index(s, "*/")
            if (i ? substr(s, 1, i - 1) ~ /[^ \t]/ || i : s ~ /[^ \t]/) text = 1
            if (i) { s = substr(s, i + 2); inside = 0 } else s = ""
        } else if (match(s, /\/[\/*]/)) {
            if (substr(s, 1, RSTART - 1) ~ /[^ \t]/) code = 1
            text = 1
            if (substr(s, RSTART, 2) == "//") s = ""
            else { inside = 1; s = substr(s, RSTART + 2) }
        } else { if (s ~ /[^ \t]/) code = 1; s = "" }
    }
    lines[n]++; codes[n] += code; comment[n] += text && !code
    mixed += text && code
}
END {
    printf "%-24s %7s %7s %9s %11s\n", "chapter", "lines", "code", "comment", "of both"
    for (i = 1; i <= n; i++) {
        row(chapter[i], lines[i], codes[i], comment[i])
        l += lines[i]; c += codes[i]; m += comment[i]
    }
    row("total", l, c, m)
    printf "\nA line with any code on it is a line of code, also where a comment stands behind it (%d lines have\n", mixed
    print "both); a line with nothing but comment is a line of comment; an empty line is neither."
}' "${1:-aligner.c}"
