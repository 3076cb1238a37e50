#!/bin/sh
# results.sh - from numbers to pages: docs/results/NAME.tsv becomes NAME.md (a table) and NAME.svg (a plot, where gnuplot is there).
#
#   tests/results.sh                        all of docs/results, and the table in docs/experiments.md; `make docs` runs it
#   tests/results.sh F.tsv                  one
#   tests/results.sh page F.tsv             the page alone, to stdout; tests/docs.sh compares it with what is there
#   tests/results.sh table                  the table of docs/experiments.md, to stdout
#
# A .tsv has a line a number: point, seed, metric, value. Points that are "series/number" make curves. All figures of a page are
# computed here: the mean, and half of the 95 % interval by Student's t over the seeds.
set -eu
cd "$(dirname "$0")/.."
export LC_ALL=C

# about NAME: what is on the page: title, the paper's claim, the columns, the plot (x-axis, metrics, lines or bars), remarks.
about() {
    note='' x='' axis=''
    case $1 in
    resources)
        title="What training takes" paper="Pages 2-4: for a 7B upstream DPO takes 1.125 and RLHF 2.25 times the Aligner's resources, for a 70B upstream 11.25 and 22.5 times. No formula is given."
        columns="bytes, mixed precision|ratio|ratio, 70B to 7B|bytes, here|bytes, measured|FLOP|tokens a step|us a token" plot="bytes, here|bytes, measured" style=bars axis="bytes a parameter"
        note="The first three columns are the ledger of aligner.c, chapter 8: bytes of training state a parameter, with PPO's critic for RLHF, which gives the paper's factors. \"Here\" is the same for our f32 trainers, without a critic; \"measured\" is the peak of resident memory over the number of parameters, activations and program included. FLOP are counted, not measured: a parameter and trained token, 2 for a forward and 4 for a backward pass, frozen models and generation included. A row of DPO is two sequences, so it has more tokens a step. The times are those of one thread on a machine that was shared, and their intervals show it." ;;
    bound)
        title="Both sides of Eq. (3)" paper="Eq. (3), p. 3: - log pi'(y_c | x) is at most - log mu(y_c | y_o, x) - log pi(y_o | x); no measurement is printed."
        columns="left|right|slack|mass|violations" plot="left|right" style=lines x="steps of Eq. (4) after the warm-up" axis="nats an answer"
        note="Answers of at most three words, likeliest first, up to 256 of them; mass is the probability that they cover. \"left\" is an upper bound of the true left side, so \"slack\" is a lower bound of the true slack." ;;
    twice)
        title="Aligner(Aligner(y))" paper="Not in the paper."
        columns="changed|after|D_L" plot="changed" style=lines x="pass" axis="rows changed, %"
        note="\"big\" is the Aligner of train.sh, one model and another part of the examination for each seed; \"mini\" are small Aligners, one trained for each seed." ;;
    copyprior)
        title="Does copying follow the answers or the prior?" paper="The paper does not report copies. A user of the released model measured more than 80 % of answers almost unchanged."
        columns="copied|exact copy|corrected|missed|net win" plot="copied" style=lines x="good answers at test, %" axis="rows copied, %"
        note="\"big\" is the Aligner of train.sh; mini20, mini45 and mini70 are small Aligners whose triples held 20, 45 and 70 % good answers. A copier that follows the answers lies on the diagonal; one that follows its prior is flat." ;;
    steering)
        title="Copy or correct as a direction" paper="Fig. 4 and appendix B.6: alpha from -1 to 0.5 moves the mean D_L from 0.59 to 4.0 (3.14 at 0), R^2 about 0.93; the decision shows in the early layers."
        columns="D_L|slope|R^2|gap, first token|gap, mean of 8" plot="D_L" style=lines x="alpha" axis="degree of correction D_L"
        note="V_c is added behind every layer; alpha = 1 is the mean length of the differences, so that alphas are not those of the paper. The sign of V_c is chosen on the rows it was made from, D_L is measured on others. \"gap\" is the activity r(l, k) of rows that correct less that of rows that copy, in lengths of V_c. For \"big\", one model, the seeds are parts of the rows; for \"mini\", trainings." ;;
    upstreams)
        title="One Aligner behind many upstream models" paper="Table 1, p. 4: one Aligner, trained once, behind 11 upstream models; net win rate of Eq. (5) positive for all but few cells."
        columns="before|after|net win|helpful|harmless|honest|exact copy|corrected|missed" plot="net win" style=bars axis="net win rate, Eq. (5), %"
        note="Upstreams with a star never spoke in training; upstream-small, upstream and other-tokenizer are trained models, the last one with a tokenizer of its own. Seeds are thirds of the examination of one trained Aligner, not training runs. \"paste\" is foreign text, which cannot be won. \"kind: notices\" are questions whose answer stands in the question: retrieval in miniature." ;;
    warmup)
        title="How much warm-up?" paper="Fig. 3, one run a point: flat at 0-10 % identity, a jump at 20 %, a fall at 50 %."
        columns="after|net win|helpful|harmless|honest|exact copy|corrected|foreign copied|loss" plot="after|exact copy|corrected" style=lines x="share of identity, % of all tokens" axis="%"
        note="The total is the same for all: what the identity gets, the triples lose. \"foreign copied\": pasted text that neither training nor tokenizer knows." ;;
    correction)
        title="Correction against generation" paper="Correction is easier than generation: the reason it gives for small Aligners; no experiment isolates it."
        columns="good|facts|unknowable|common|rare|loss" plot="good" style=lines x="steps of 512 tokens" axis="good on all three H, %"
        note="\"aligner\": (x, y_o) to y_c, a quarter of the steps for the warm-up; \"sft\": x to y_c; \"blind\": trained and tested with y_o = \"Hm.\"; \"told nothing\": trained as usual, tested with y_o = \"Hm.\". Common and rare: facts about the third of the subjects that training has most and fewest rows of." ;;
    scale)
        title="Width and data" paper="Table 1: 2B to 7B is a large gain, 7B to 13B a smaller one, helpfulness is not monotone; amounts of data are not varied."
        columns="parameters|after|net win|exact copy|corrected" plot="net win" style=lines x="triples" axis="net win rate, Eq. (5), %" note="Series are widths; all take the same 2,000 steps of 512 tokens." ;;
    baselines)
        title="Improve the upstream, or leave it frozen" paper="Table 3, Alpaca-7B: the Aligner's net win (helpful/harmless) over SFT +23.1/+0.4, over RLHF +24.4/+21.9, over DPO +49.1/+0.1; the baselines' learning rate is a twentieth of the Aligner's."
        columns="after|net win|helpful|harmless|honest|Aligner over it, helpful|Aligner over it, harmless|Aligner over it" plot="net win" style=bars axis="net win rate over the upstream, %"
        note="matched: the Aligner's learning rate for all; published: a twentieth of it for SFT and DPO, half of it for the policy of RLHF, as in Table 23; tuned: the best of a few, by hand. SFT takes as many tokens as the Aligner, DPO about one epoch of pairs, RLHF 150 steps of 8 questions with 4 answers." ;;
    weak-to-strong)
        title="A weak Aligner supervises a stronger student" paper="Table 4 and App. A, helpful/harmless, Alpaca2-13B with Aligner-7B: SFT +28.4/+59.6, RLHF +21.6/+43.9, DPO -9.6/+68.4; SFT alone improves every cell. Whose answers are corrected is contradictory: the footnote says a weak model's, Fig. 8 the student's."
        columns="before|after|net win|helpful|harmless|honest" plot="net win" style=bars axis="net win rate over the student, %"
        note="This is what the paper calls weak-to-strong: a small supervisor of a larger student, nothing superhuman. The student is judged alone, without the Aligner, against its own answers before. \"young\": the same student after 150 instead of 400 steps of its own training." ;;
    rounds)
        title="Three rounds" paper="Figs. 5-6: pairs made by the Aligner feed further rounds of RLHF or DPO, which keep improving; plain rounds do not."
        columns="after|net win|helpful|harmless|honest" plot="after" style=lines x="round" axis="good on all three H, %"
        note="aligner: the policy's own answers against their corrections; plain: two of the policy's answers, ranked by a reward model that was trained once on the triples." ;;
    domain)
        title="A domain's own triples" paper="Med-Aligner and its like, of which the paper is the ancestor: no number to compare with."
        columns="loss|exact copy|corrected|missed|the world, net win" plot="exact copy|corrected|the world, net win" style=bars axis="%"
        note="The Aligner of train.sh before and after fine-tuning on nine tenths of tests/domain_example.jsonl; measured on the last tenth, another one for each seed, and on the world that it was trained on. \"mixed\": fine-tuned on as many of the world's own training rows besides, for the same number of steps. All medicines and clinics in that file are invented." ;;
    *) title=$1 paper="" columns="" plot="" style=bars ;;
    esac
}

# Student's t: what mean and spread of n numbers say. Reads metric and value by point, keeps their order.
STATISTICS='
BEGIN { FS = OFS = "\t"; split("12.706 4.303 3.182 2.776 2.571 2.447 2.365 2.306 2.262 2.228", t, " ") }
FNR == 1 || $1 == "-" { if ($3 == "seconds") seconds = $4; next }
{
    if (!($1 in seen)) { seen[$1] = 1; point[++points] = $1 }
    n[$1, $3]++; sum[$1, $3] += $4; square[$1, $3] += $4 * $4
    if (!(($2) in seed)) { seed[$2] = 1; seeds++ }
}
function mean(p, m) { return sum[p, m] / n[p, m] }
function half(p, m,   k, v) {
    k = n[p, m]; if (k < 2) return 0
    v = (square[p, m] - sum[p, m] * sum[p, m] / k) / (k - 1)
    return (k < 12 ? t[k - 1] : 2.2) * sqrt(v > 1e-12 * square[p, m] ? v / k : 0)
}
'

# page F.tsv: the markdown page.
page() {
    name=$(basename "$1" .tsv)
    about "$name"
    echo "# $title"
    echo
    if [ -n "$paper" ]; then echo "The paper. $paper"; echo; fi
    awk -v name="$name" -v columns="$columns" "$STATISTICS"'
        function shown(v, h) {
            a = v < 0 ? -v : v; if (h > a) a = h
            return sprintf(a >= 10000 ? "%.0f" : a >= 100 ? "%.1f" : a >= 10 ? "%.1f" : a >= 1 ? "%.2f" : "%.3f", v)
        }
        END {
            c = split(columns, all, "|"); k = 0
            for (i = 1; i <= c; i++) {
                for (j = 1; j <= points; j++) if ((point[j], all[i]) in n) { column[++k] = all[i]; break }
            }
            printf "Here. `./train.sh %s`, %d s; %d seed%s; mean, and half of the 95 %% interval by Student'"'"'s t.\n\n", name, seconds, seeds, seeds == 1 ? "" : "s"
            line = "| point |"; rule = "|---|"
            for (i = 1; i <= k; i++) { line = line " " column[i] " |"; rule = rule "---:|" }
            print line; print rule
            for (j = 1; j <= points; j++) {
                p = point[j]; line = "| " p " |"
                for (i = 1; i <= k; i++) {
                    m = column[i]
                    if (!((p, m) in n)) { line = line " |"; continue }
                    v = mean(p, m); h = half(p, m)
                    if (h == 0) { line = line " " sprintf("%.5g", v) " |"; continue }      # the same for all seeds
                    line = line " " shown(v, 0) (n[p, m] > 1 && h > 0 ? " ± " shown(h, v) : "") " |"
                }
                print line
            }
        }' "$1"
    echo
    if [ -n "$note" ]; then echo "$note"; echo; fi
    echo "![$title]($name.svg)"
    echo
    echo "The numbers, a line each: [$name.tsv]($name.tsv). \`make docs\` makes this page and the plot from them."
}

# curves F.tsv METRICS: blocks for gnuplot, one a series and metric: a title line, then x, mean, half; or, for bars, one block a
# metric: index, mean, half, label.
curves() {
    awk -v metrics="$2" -v style="$3" "$STATISTICS"'
        END {
            k = split(metrics, metric, "|")
            for (i = 1; i <= k; i++) {
                m = metric[i]; blocks = 0; delete_all()
                for (j = 1; j <= points; j++) {
                    p = point[j]; if (!((p, m) in n)) continue
                    x = p; s = ""
                    if (style == "lines") {
                        if (at = match(p, /\/[^\/]*$/)) { s = substr(p, 1, at - 1); x = substr(p, at + 1) }
                        if (x !~ /^-?[0-9.]+$/) continue
                    } else x = j - 1
                    if (!(s in block)) { order[++blocks] = s; block[s] = "" }
                    block[s] = block[s] x "\t" mean(p, m) "\t" half(p, m) "\t\"" p "\"\n"
                }
                for (b = 1; b <= blocks; b++) {
                    s = order[b]
                    printf "\"%s\"\n%s\n\n", (s == "" ? m : (k > 1 ? s ", " m : s)), block[s]
                }
            }
        }
        function delete_all(  q) { for (q in block) delete block[q] }' "$1"
}

# draw F.tsv: the plot beside it.
draw() {
    name=$(basename "$1" .tsv) out=${1%.tsv}.svg
    about "$name"
    [ -n "$plot" ] || return 0
    curves "$1" "$plot" "$style" > "$tmp/curves"
    n=$(grep -c '^"' "$tmp/curves" || true)
    [ "$n" -gt 0 ] || return 0
    {
        echo "set terminal svg size 760,440 dynamic font 'sans-serif,13' background '#ffffff'"
        echo "set output '$tmp/plot.svg'"
        echo "set title \"$title\" noenhanced"
        echo "set grid ytics lc rgb '#dddddd'"
        echo "set key noenhanced $( [ "$style" = bars ] && echo 'top right' || echo 'outside right' )"
        echo "set ylabel \"$axis\" noenhanced"
        if [ "$style" = lines ]; then
            echo "set xlabel \"$x\" noenhanced"
            echo "set autoscale xfix"
            echo "set offsets graph 0.03, graph 0.03, graph 0.05, graph 0.05"
            echo "plot for [i=0:$((n - 1))] '$tmp/curves' index i using 1:2:3 with yerrorlines lw 2 pt 7 ps 0.6 title columnheader(1)"
        else
            [ "$n" -gt 1 ] || echo "set key off"
            echo "set style fill solid 0.6 noborder"
            echo "set xtics rotate by 40 right noenhanced scale 0"
            echo "set xrange [-0.6:$(awk '!/^$/ && !/^"/ { if ($1 > n) n = $1 } END { print n + 0.6 }' "$tmp/curves")]"
            echo "set boxwidth $(awk "BEGIN { print 0.8 / $n }")"
            echo "plot for [i=0:$((n - 1))] '$tmp/curves' index i using (\$1 + (i - ($n - 1) / 2.0) * 0.8 / $n):2:3:xticlabels(4) with boxerrorbars title columnheader(1)"
        fi
    } > "$tmp/plot.gp"
    gnuplot "$tmp/plot.gp"
    mv "$tmp/plot.svg" "$out"
}

# table: what each experiment found, one number of its first and last point; for docs/experiments.md.
table() {
    echo "| experiment | seeds | seconds | what is shown | lowest point | highest point |"
    echo "|---|---:|---:|---|---|---|"
    for name in resources bound twice copyprior steering upstreams warmup correction baselines weak-to-strong rounds scale domain; do
        f=docs/results/$name.tsv
        if [ ! -f "$f" ]; then echo "| $name | - | - | not run at full size yet | | |"; continue; fi
        about "$name"
        awk -v name="$name" -v m="${plot%%|*}" "$STATISTICS"'
            END {
                for (j = 1; j <= points; j++) {
                    p = point[j]; if (!((p, m) in n)) continue
                    if (low == "" || mean(p, m) < mean(low, m)) low = p
                    if (high == "" || mean(p, m) > mean(high, m)) high = p
                }
                printf "| [%s](results/%s.md) | %d | %d | %s | %s: %.2f ± %.2f | %s: %.2f ± %.2f |\n", name, name, seeds, seconds, m,
                    low, mean(low, m), half(low, m), high, mean(high, m), half(high, m)
            }' "$f"
    done
}

tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

one() {
    page "$1" > "$tmp/page"
    cp "$tmp/page" "${1%.tsv}.md"
    if command -v gnuplot > /dev/null 2>&1; then draw "$1"; else echo "skipped: no gnuplot, ${1%.tsv}.svg is not drawn" >&2; fi
}

case "${1-}" in
    page) page "$2" ;;
    table) table ;;
    "")
        for f in docs/results/*.tsv; do if [ -f "$f" ]; then one "$f"; fi; done
        table > "$tmp/table"
        awk -v table="$tmp/table" '
            /^<!-- table -->$/ { print; while ((getline line < table) > 0) print line; skip = 1; next }
            /^<!-- end -->$/ { skip = 0 }
            !skip' docs/experiments.md > "$tmp/experiments.md"
        cp "$tmp/experiments.md" docs/experiments.md ;;
    *) one "$1" ;;
esac
