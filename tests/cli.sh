#!/usr/bin/env bash
# cli.sh - the program as its users meet it: exit codes, messages, filters in pipes, Ctrl-C and
# --resume, a terminal. Runs in the project's root with $B/aligner ($B is build unless set). First a
# tiny model learns four rows by heart. Broken files and rows are in tests/faults.py.
set -u
cd "$(dirname "$0")/.." || exit 1
B=${B:-build}
aligner=$B/aligner
t=$B/tests/tmp/cli.$$
passed=0 failed=0
unset NO_COLOR
export OMP_NUM_THREADS=1
[ -x "$aligner" ] || { echo "cli.sh: $aligner is missing; run make first"; exit 1; }
mkdir -p "$t" && trap 'rm -rf "$t"' EXIT

ok() {                                  # ok WHAT COMMAND...: the command succeeds
    local what=$1
    shift
    if "$@"; then passed=$((passed + 1)); return; fi
    failed=$((failed + 1))
    echo "cli.sh: failed: $what"
    [ ! -s "$t/err" ] || head -n 3 "$t/err" | cut -c1-200
}
run() { timeout 60 "$aligner" "$@" > "$t/out" 2> "$t/err" < /dev/null; }
code() {                                # code N ARGS...: aligner exits with N; a failure says why in one line, without a result
    local want=$1 got
    shift
    run "$@"
    got=$?
    ok "aligner $* exits $got, not $want" [ $got = "$want" ]
    [ "$want" = 0 ] || ok "aligner $*: one line of message was expected" [ "$(wc -l < "$t/err")" = 1 ]
}
usage() { code 2 "$@"; ok "aligner $*: a usage error points to --help" grep -q -e --help "$t/err"; }
out() { grep -q -E -e "$1" "$t/out"; }
err() { grep -q -E -e "$1" "$t/err"; }
lines() { [ "$(wc -l < "$2")" -eq "$1" ]; }

cat > "$t/rows.jsonl" <<'END'
{"id": 1, "question": "Two and two?", "answer": "It is five.", "correction": "It is four.", "category": "sums"}
{"id": 2, "question": "The sky?", "answer": "It is blue.", "correction": "It is blue.", "category": "facts"}
{"id": 3, "question": "One and two?", "answer": "It is three.", "correction": "It is three.", "category": "sums"}
{"id": 4, "question": "The grass?", "answer": "It is red.", "correction": "It is green.", "category": "facts"}
END
rows=$t/rows.jsonl
cat > "$t/want" <<'END'
{"id": 1, "question": "Two and two?", "answer": "It is five.", "category": "sums", "correction": "It is four.", "action": "correct"}
{"id": 2, "question": "The sky?", "answer": "It is blue.", "category": "facts", "correction": "It is blue.", "action": "copy"}
{"id": 3, "question": "One and two?", "answer": "It is three.", "category": "sums", "correction": "It is three.", "action": "copy"}
{"id": 4, "question": "The grass?", "answer": "It is red.", "category": "facts", "correction": "It is green.", "action": "correct"}
END

# --- usage: exit 2, one line, nothing on stdout
run; ok "no command exits 2" [ $? = 2 ]; ok "... and points to --help" err '--help'
ok "... and nothing on stdout" [ ! -s "$t/out" ]
for help in --help -h; do code 0 $help; ok "$help prints the commands" out '^  correct M '; done
code 0 train sft --help; ok "a command's options" out '^    --muon X'; ok "... and no other's" [ "$(grep -c -e --diff "$t/out")" = 0 ]
code 0 --version; ok "--version" out '^aligner.c [0-9]'
usage frob; usage --frob; usage -x; usage info a b c; usage info; usage eval; usage answer; usage correct; usage tokens
usage sample
usage sample m.gguf text; usage eval m.gguf f; usage tokens m.gguf x; usage info m.gguf f; usage tokenizer f
usage tokenizer; usage tokenizer --data "$rows" --vocab 300; usage tokenizer --data "$rows" --out "$t/x" --vocab 258
usage tokenizer --data "$rows" --out "$t/x" --vocab 2000000
usage train; usage train frob; usage train sft; usage train sft --data "$rows" --steps 1
usage train sft --out "$t/x" --steps 1
usage train sft --data "$rows" --out "$t/x"; usage train sft "$rows" --data "$rows" --out "$t/x" --steps 1
usage train sft --data "$rows" --out "$t/x" --steps 1                                           # neither --init nor --tokenizer
usage train sft --data "$rows" --out "$t/x" --steps 1 --batch 0; usage train sft --data "$rows" --out "$t/x" --steps 1 --ema 1
usage train sft --data "$rows" --out "$t/x" --steps 1 --epochs 1; usage train sft --data "$rows" --out "$t/x" --epochs 1.5
# An option that would have no effect is bad usage, and the nearest name is offered.
usage correct m.gguf --lr 1; usage train sft --top-k 3; usage info m.gguf --json; usage answer m.gguf --keeep 1
nearest() { usage "${@:2}"; ok "aligner ${*:2}: $1 is offered" err "did you mean $1\?"; }
nearest --temperature correct m.gguf --temprature 1; nearest --question answer m.gguf --qestion x
nearest correct corect m.gguf; nearest --frequency-penalty sample m.gguf --frequency-penality 1
usage correct m.gguf --diff=1; usage train sft --dim=x
for bad in x "" 1x -1 1.5 1e99 nan inf; do usage train sft --dim "$bad"; done
for bad in x -1 nan; do usage train sft --lr "$bad"; done
usage train sft --steps; usage --seed

# --- bad input: exit 1, one line
code 1 info "$t/none.gguf"; code 1 info "$rows"; code 1 info "$t"; code 1 tokens "$t/none.bin" --text x
code 1 tokenizer --data "$t/none.jsonl" --out "$t/x.bin" --vocab 300
code 0 tokenizer --data "$rows" --out "$t/x.bin" --vocab 3000
ok "more pieces than the text yields: what it yields, said in one line" err 'x.bin: [0-9]+ pieces from .*yields no more'
code 1 tokenizer --data "$rows" --out "$t/none/x.bin" --vocab 300 --quiet
code 1 tokenizer --data "$rows" --out "$t/x.bin" --vocab 300 --prompt "no places"
code 1 train sft --tokenizer "$t/none.bin" --data "$rows" --out "$t/x" --steps 1

# --- tokenizer and training
tiny="--tokenizer $t/t.bin --dim 16 --layers 1 --heads 2 --context 64 --prompt short"
run_of="--batch 4 --lr 1e-2 --quiet"
code 0 tokenizer --data "$rows" --vocab 330 --prompt short --out "$t/t.bin"
ok "stdout is for results" [ ! -s "$t/out" ]
code 0 tokenizer --data "$rows" --vocab 330 --prompt short --out "$t/t2.bin" --quiet
ok "the same text makes the same tokenizer" cmp -s "$t/t.bin" "$t/t2.bin"
ok "--quiet is quiet" [ ! -s "$t/err" ]
code 1 train sft $tiny --heads 3 --data "$rows" --out "$t/x" --steps 1
cp "$t/t.bin" "$t/old.gguf"; code 1 train sft $tiny --data "$rows" --out "$t/old.gguf" --steps 1 --resume --quiet
ok "a file without its state is no run" err 'nothing to resume'
mkdir "$t/folder"
code 1 train sft $tiny $run_of --data "$rows" --out "$t/folder" --steps 1000000; ok "a folder" err 'not a file'
code 1 train sft $tiny $run_of --data "$rows" --out "$rows" --steps 1; ok "the input is kept" lines 4 "$rows"
code 1 train sft $tiny $run_of --data "$rows" --out "$t/x" --log "$rows" --steps 1; ok "... and here" lines 4 "$rows"
code 1 train sft $tiny $run_of --data "$rows" --out "$t/none/x" --steps 1000000
ok "an output that cannot be written is said at once" err 'cannot write'
: > "$t/empty"
code 1 train sft $tiny --data "$t/empty" --out "$t/x" --steps 1 --quiet
code 0 train sft $tiny $run_of --data "$rows" --out "$t/sft.gguf" --steps 200 --log "$t/log.csv" --valid "$rows" --save-every 100
ok "stdout is for results" [ ! -s "$t/out" ]
ok "the log has a line a step" lines 201 "$t/log.csv"
ok "the log's columns" [ "$(head -n 1 "$t/log.csv")" = step,loss,lr,norm,tokens,targets,longest,valid ]
ok "validation where the model is saved" [ "$(grep -c -E ',[0-9.]+$' "$t/log.csv")" = 2 ]
code 0 train warmup --init "$t/sft.gguf" $run_of --data "$rows" --out "$t/warm.gguf" --steps 100
code 0 train aligner --init "$t/warm.gguf" $run_of --data "$rows" --out "$t/m.gguf" --steps 200
code 0 train sft $tiny $run_of --data "$rows" "$rows" --out "$t/x.gguf" --epochs 2 --tied --kv-heads 1 --hidden 24
code 0 info "$t/x.gguf"; ok "two epochs of twice four rows are four steps" out 'sft, 4 steps'
ok "the shape asked for" out 'key/value heads 1, hidden 24.*head tied'
code 0 info "$t/m.gguf"; ok "info: shape" out '^dim 16, layers 1, heads 2,.* vocabulary 330'
ok "info: objective" out 'aligner, 200 steps'; ok "info: prompt" out 'prompt: ##Question'
model=$t/m.gguf
printf '%s\n' '{"question": "q", "answer": "a", "correction": ""}' >> "$t/some.jsonl"; cat "$rows" >> "$t/some.jsonl"
run train aligner --init "$model" $run_of --data "$t/some.jsonl" --out "$t/x.gguf" --steps 1
ok "rows that cannot be learnt are counted and named" err 'skipped 1 .*line 1'
run train aligner --init "$model" --data "$rows" --out "$t/x.gguf" --steps 2 --batch 64 --quiet
ok "a batch of more rows than there are" [ $? = 0 ]
run train aligner --init "$model" --data "$rows" --out "$t/x.gguf" --steps 3 --batch 3 --grow-below 1 --quiet
ok "--grow-below with no row that is short enough to begin with" [ $? = 0 ]
grow="train warmup $tiny $run_of --data $rows --out $t/x.gguf --log $t/x.csv --quiet"
code 0 $grow --steps 2 --grow-below 0.001; ok "short rows first" [ "$(tail -n 1 "$t/x.csv" | cut -d , -f 7)" -gt 0 ]

# --- filters
correct() { timeout 60 "$aligner" correct "$model" "$@" > "$t/out" 2> "$t/err"; }
correct < "$rows"; ok "correct as a filter: one line for one, in order, unknown keys kept" cmp -s "$t/out" "$t/want"
ok "progress goes to stderr" [ -s "$t/err" ]
correct --quiet < "$rows"; ok "--quiet is quiet" [ ! -s "$t/err" ]
correct "$rows"; ok "correct with a file" cmp -s "$t/out" "$t/want"
correct --no-draft < "$rows"; ok "--no-draft changes nothing" cmp -s "$t/out" "$t/want"
correct --keep 0 < "$rows"; ok "--keep 0 changes nothing" cmp -s "$t/out" "$t/want"
correct --keep 1000 < "$rows"; ok "--keep 1000 copies" [ "$(grep -c '"action": "copy"' "$t/out")" = "$(grep -c . "$t/out")" ]
correct --threads 2 < "$rows"; ok "--threads 2 changes nothing" cmp -s "$t/out" "$t/want"
correct < "$t/want"; ok "what is there already is replaced" cmp -s "$t/out" "$t/want"
(echo '['; sed '$!s/$/,/' "$rows"; echo ']') | correct; ok "a JSON array" cmp -s "$t/out" "$t/want"
(printf '\357\273\277'; sed 's/$/\r/' "$rows"; echo) | correct
ok "a byte order mark, CRLF, an empty line" cmp -s "$t/out" "$t/want"
correct < "$t/empty"; ok "empty input exits 0" [ $? = 0 ]; ok "... with empty output" [ ! -s "$t/out" ]
echo '[]' | correct; ok "an empty array: empty output" [ ! -s "$t/out" ]
correct --temperature 1 --top-k 5 --top-p 0.9 --seed 7 < "$rows"; cp "$t/out" "$t/drawn"
correct --temperature 1 --top-k 5 --top-p 0.9 --seed 7 < "$rows"
ok "the same seed draws the same" cmp -s "$t/out" "$t/drawn"
bad() { head -n 1 "$rows"; echo '{"id": 5, "question": "q"}'; echo 'broken "line'; tail -n 1 "$rows"; }
bad | correct; ok "bad rows do not end the filter" [ $? = 0 ]; ok "... one line for one" lines 4 "$t/out"
ok "... the good ones corrected" cmp -s <(sed -n '1p;4p' "$t/out") <(sed -n '1p;4p' "$t/want")
ok "... a row without answer" out '^\{"id": 5, "question": "q", "action": "copy", "reason": "line 2: [^"]*\\"answer\\"[^"]*"\}$'
ok "... a broken line" out '^\{"line": "broken \\"line", "action": "copy", "reason": "line 3, column 1: [^"]+"\}$'
bad | correct --strict; ok "--strict exits 1" [ $? = 1 ]; ok "... after what came before" lines 1 "$t/out"
ok "... with the line" err 'line 2'
sed 's/, /,\n  /g' "$rows" | correct; ok "objects over lines" cmp -s "$t/out" "$t/want"
correct - < "$rows"; ok "- is standard input" cmp -s "$t/out" "$t/want"
correct --keep=1000 "$rows"; ok "--key=value" [ "$(grep -c '"action": "copy"' "$t/out")" = 4 ]
code 0 train aligner --init "$model" $run_of --data "$rows" --out "$t/keep.gguf" --steps 1 --keep 1000
code 0 correct "$t/keep.gguf" "$rows"; ok "keep travels in the file" [ "$(grep -c '"action": "copy"' "$t/out")" = 4 ]
code 0 eval "$t/keep.gguf" --data "$rows"; ok "... and eval decodes as correct does" out '100.00 % missed'
code 0 correct "$t/keep.gguf" "$rows" --keep 0; ok "--keep overrules it" cmp -s "$t/out" "$t/want"
code 0 info "$t/keep.gguf"; ok "info: keep" out 'keep 1000'

awk 'BEGIN { printf "{\"question\": \"Two\", \"answer\": \""; for (i = 0; i < 300; i++) printf "long\\u0020 "; print "\", \"n\": [1]}" }' > "$t/long.jsonl"
correct < "$t/long.jsonl"; ok "too long a row: exit 0" [ $? = 0 ]
ok "... a copy, with a reason" out '"n": \[1\], "correction": .*"action": "copy", "reason": "[^"]+"\}$'
long=$(sed 's/.*"answer": \("[^"]*"\).*/\1/' "$t/long.jsonl")
ok "... byte for byte" grep -q -F "\"correction\": $long," "$t/out"
correct --max-tokens 2 < "$rows"
ok "no room for the correction: copies with a reason" [ "$(grep -c '"action": "copy", "reason": ' "$t/out")" = 4 ]

echo '{"question": "The sky?", "answer": "It is blue.", "reason": "mine"}' | correct
ok "a reason of the user's own stays" out '"reason": "mine", "correction": "It is blue.", "action": "copy"\}$'
echo '{"question": "The sky?", "answer": "It is blue.", "reason": "old", "action": "copy"}' | correct
ok "a reason beside an old action goes with it" [ "$(grep -c reason "$t/out")" = 0 ]
sed 's/"n": \[1\]/"reason": "mine"/' "$t/long.jsonl" | correct
ok "there is one reason a row" [ "$(grep -o '"reason"' "$t/out" | wc -l)" = 1 ]

timeout 60 "$aligner" answer "$t/sft.gguf" < "$rows" > "$t/out" 2> "$t/err"
ok "answer: one line for one" lines 4 "$t/out"
ok "answer: what it learnt" out '^{"id": 1, .*"category": "sums", "answer": "It is five."}$'
echo '{"question": "'"$(printf 'long %.0s' {1..200})"'", "id": 9}' | timeout 60 "$aligner" answer "$t/sft.gguf" > "$t/out" 2> "$t/err"
ok "answer: too long a question gets a reason" out '^\{"question": .*"id": 9, "answer": "", "reason": "[^"]+"\}$'

code 0 correct "$model" --question "The grass?" --answer "It is red."
ok "--question --answer" [ "$(cat "$t/out")" = "It is green." ]
code 0 answer "$t/sft.gguf" --question "The sky?"; ok "--question" [ "$(cat "$t/out")" = "It is blue." ]
usage correct "$model" --question "The grass?"
code 0 correct "$model" "$rows" --diff; ok "--diff marks what changed" out '\[-five-\].*\{\+four\+\}\.'
ok "--diff says copied" out 'copied'
ok "no colour in a pipe" [ "$(tr -cd '\033' < "$t/out" | wc -c)" -eq 0 ]
echo '{"question": "q\u0007", "answer": "\u001b[31ma"}' | correct --diff
ok "--diff: no control codes of the input reach the terminal" [ "$(tr -cd '\033\007' < "$t/out" | wc -c)" -eq 0 ]
code 0 train sft $tiny --data "$rows" --out "$t/x.gguf" --steps 1 --quiet --prompt "$(printf '\033[31m{question} {answer}')"
code 0 info "$t/x.gguf"; ok "info: no control codes of the template reach the terminal" out '^prompt: \[31m\{question\}'
code 1 correct "$t/sft.gguf" "$rows"; code 1 answer "$model" "$rows"; code 1 correct "$model" "$t/none.jsonl"

mkfifo "$t/in"                          # the answer comes before the input ends
timeout 60 "$aligner" correct "$model" --quiet < "$t/in" > "$t/out" 2> "$t/err" & pid=$!
exec 3> "$t/in"
for n in 1 2; do
    sed -n "${n}p" "$rows" >&3
    for ((i = 0; i < 200; i++)); do lines $n "$t/out" && break; sleep 0.05; done
    ok "line $n is answered before the input ends" cmp -s "$t/out" <(head -n $n "$t/want")
done
exec 3>&-
wait $pid; ok "the end of the input ends the filter" [ $? = 0 ]

# --- eval, tokens, sample
code 0 eval "$model" --data "$rows"
ok "eval: loss" out '^4 rows, [0-9]+ target tokens: loss [0-9.]+'
ok "eval: rates" out '^to copy: +2 rows, 100.00 % exact; .*2 rows, 100.00 % exact'
code 0 eval "$model" --data "$rows" --json
n='[0-9.]+' counts="\"copy\": \{\"rows\": 2, \"exact\": 2\}, \"correct\": \{\"rows\": 2, \"exact\": 2, \"missed\": 0, \"wrong\": 0\}"
ok "eval --json" out "^\{\"rows\": 4, \"target_tokens\": [0-9]+, \"loss\": $n, $counts\}\$"
code 0 eval "$t/sft.gguf" --data "$rows" --json; ok "eval --json of an SFT model" out '^\{"rows": 4, .*\}$'
code 1 eval "$model" --data "$t/empty"; ok "eval of no rows is refused" err "no rows"
usage eval "$model"
code 0 tokens "$t/t.bin" --text 'a "b\é'; ok "tokens: <s> first" [ "$(head -n 1 "$t/out")" = "1	\"\\n<s>\\n\"" ]
ok "tokens: id, tab, piece as a JSON string" [ "$(grep -c -v -E '^[0-9]+	"([^"\]|\\.)*"$' "$t/out")" = 0 ]
code 0 tokens "$model" --question "The sky?" --answer "It is red." --correction "It is blue."
ok "tokens: roles" [ "$(cut -f 3 "$t/out" | uniq | tr '\n' ' ')" = "condition target " ]
ok "tokens: </s> last" [ "$(tail -n 1 "$t/out" | cut -f 1)" = 2 ]
ok "tokens: the text comes back" [ "$(grep target "$t/out" | cut -f 2 | sed '$d' | tr -d '"\n')" = " It is blue." ]
usage tokens "$model"
code 0 sample "$model" --text "##Question: The"; ok "sample begins with its text" out '^##Question: The'
cp "$t/out" "$t/first"
code 0 sample "$model" --text "##Question: The"; ok "sample is greedy" cmp -s "$t/out" "$t/first"
code 0 sample "$model" --temperature 2 --seed 3; cp "$t/out" "$t/first"; code 0 sample "$model" --temperature 2 --seed 3
ok "the seed decides" cmp -s "$t/out" "$t/first"
code 1 sample "$model" --text "$(printf 'long %.0s' {1..200})"

# --- writing fails, stdout is closed early
if [ -c /dev/full ]; then
    full() {
        timeout 60 "$aligner" "$@" < "$rows" > /dev/full 2> "$t/err"
        ok "aligner $* into a full disk exits 1" [ $? = 1 ]; ok "... and says so" err 'write'
    }
    full correct "$model"; full answer "$t/sft.gguf"; full correct "$model" --diff
    full correct "$model" --question q --answer a
    full info "$model"; full tokens "$model" --text x; full sample "$model"; full eval "$model" --data "$rows"
    full eval "$model" --data "$rows" --json
    full --help
    code 1 train aligner --init "$model" $run_of --data "$rows" --out "$t/x.gguf" --steps 2 --log /dev/full
else echo "skipped: no /dev/full"; fi
for i in {1..200}; do cat "$rows"; done > "$t/many.jsonl"
ok "| head -n 1 ends the filter" timeout 20 bash -c '"$0" correct "$1" --quiet < "$2" 2> "$3" | head -n 1 > "$4"' "$aligner" "$model" "$t/many.jsonl" "$t/err" "$t/out"
ok "... with its first line" cmp -s "$t/out" <(head -n 1 "$t/want")

# --- Ctrl-C saves; --resume continues bit for bit
long_run="train aligner $tiny --data $rows --batch 3 --seed 5 --steps 1000 --save-every 300 --valid $rows --quiet"
timeout 120 "$aligner" $long_run --out "$t/whole.gguf" --log "$t/whole.csv" 2> "$t/err"
ok "a run without interruption" [ $? = 0 ]
"$aligner" $long_run --out "$t/cut.gguf" --log "$t/cut.csv" 2> "$t/err" & pid=$!
for ((i = 0; i < 400; i++)); do [ -s "$t/cut.csv" ] && ! lines 1 "$t/cut.csv" && break; sleep 0.01; done
kill -INT $pid; wait $pid; ok "Ctrl-C exits 1" [ $? = 1 ]; ok "... and says how to go on" err 'resume'
ok "... before the end" [ "$(wc -l < "$t/cut.csv")" -lt 1001 ]
ok "no temporary file stays" [ -z "$(ls "$t" | grep 'aligner-tmp')" ]
code 0 $long_run --out "$t/cut.gguf" --log "$t/cut.csv" --resume
for end in gguf gguf.state csv; do ok "resumed, .$end has the same bytes" cmp -s "$t/whole.$end" "$t/cut.$end"; done
code 1 $long_run --out "$t/cut.gguf" --resume --seed 6
ok "another run is refused" err 'the state of another run'
code 0 $long_run --out "$t/none.gguf" --resume; ok "nothing saved yet: from the start" cmp -s "$t/whole.gguf" "$t/none.gguf"
"$aligner" correct "$model" "$t/many.jsonl" --quiet >> "$t/many.jsonl" 2> "$t/err"
ok "correct M f >> f is refused" [ $? = 1 ]; ok "... and says why" err 'both input and output'

# --- a terminal: the conversation, colour
terminal() {                            # terminal COMMAND: runs it on a pseudo-terminal; stdin is typed
    timeout 20 python3 -c '
import os, pty, sys, time
pid, fd = pty.fork()
if not pid: os.execvp("sh", ["sh", "-c", sys.argv[1]])
time.sleep(0.3)
for line in sys.stdin:
    os.write(fd, line.encode()); time.sleep(0.1)
os.write(fd, b"\4")
try:
    while (s := os.read(fd, 4096)): os.write(1, s)
except OSError: pass
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))' "$1" > "$t/out"
}
if python3 -c 'import pty, os; os.waitstatus_to_exitcode' 2> /dev/null; then
    esc=$(printf '\033')
    printf 'The grass?\n\nIt is\nred.\n\nThe grass?\n\nIt is red.\n\nThe sky?\n\nIt is blue.\n\n' | terminal "$aligner correct $model"
    ok "the conversation ends with Ctrl-D" [ $? = 0 ]
    ok "... and corrects" out 'correction .*green'; ok "... and copies" out 'copied'
    ok "... in colour" out "$esc\[32mgreen"
    printf 'The grass?\n\nIt is red.\n\n' | NO_COLOR=1 terminal "$aligner correct $model"
    ok "NO_COLOR" out '\{\+green\+\}'
    ok "... no colour at all" [ "$(tr -cd '\033' < "$t/out" | wc -c)" -eq 0 ]
    printf 'The sky?\n\n' | terminal "$aligner answer $t/sft.gguf"; ok "answer talks too" out 'It is blue'
    printf 'The sky?\n\n\nThe grass?\n\nIt is red.\n\n' | terminal "$aligner correct $model --upstream $t/sft.gguf"
    ok "the upstream model answers" out 'y_o   = It is blue'
    ok "... and is corrected or copied" out 'correction   = It is blue'
    printf 'The grass?\n\nIt is red.\n\n%s\n\n\n' "$(printf 'long %.0s' {1..60})" | terminal "NO_COLOR=1 $aligner correct $model --upstream $t/sft.gguf"
    ok "where the upstream model finds no end, no older correction is shown" [ "$(grep -c green "$t/out")" = 1 ]
    printf 'The sky?\n\n\n' | terminal "$aligner correct $model --upstream $model"
    ok "an Aligner is no upstream model" out 'a model that answers was expected'
    printf 'The sky?\n\n\n' | terminal "$aligner correct $model --upstream $t/sft.gguf --max-tokens 1"
    ok "the sampling options hold for the upstream model, too" out 'no end'
    printf '' | terminal "$aligner train aligner $tiny --data $rows --out $t/x.gguf --steps 20 --batch 4"
    ok "a live line with an ETA" out 'ETA'
else echo "skipped: no python3 with pty for the conversation"; fi

echo "command line: $passed passed, $failed failed"
[ $failed = 0 ]
