#!/usr/bin/env python3
"""picture.py - draws docs/results/exam.svg from build/exam/table.json: the share of good answers before
and after correction, by split. `make docs` runs it. The colours follow the reader's dark or light mode."""
import json, os, sys

os.chdir(os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
TABLE, OUT = "build/exam/table.json", "docs/results/exam.svg"
SPLITS = ["seen", "unseen", "upstreams", "foreign", "people"]
LEFT, WIDTH, BAR, GAP, TOP = 100, 460, 16, 14, 44

if not os.path.exists(TABLE):
    sys.exit(f"picture.py: {TABLE} is missing; ./train.sh makes it")
with open(TABLE, encoding="utf-8") as f:
    table = json.load(f)

def bar(y, share, name):
    """A bar with its number at the end."""
    w = WIDTH * share / 100
    return (f'<rect class="{name}" x="{LEFT}" y="{y}" width="{w:.1f}" height="{BAR}"/>'
            f'<text x="{LEFT + w + 6:.1f}" y="{y + BAR - 3}">{share:.1f}</text>')

y, parts = TOP, []
for split in SPLITS:
    row = table["split/" + split]
    before, after = (100 * row[key] / row["answers"] for key in ("good_before", "good_after"))
    parts.append(f'<text class="label" x="{LEFT - 10}" y="{y + BAR + 5}">{split}</text>')
    parts += [bar(y, before, "before"), bar(y + BAR + 2, after, "after")]
    y += 2 * BAR + 2 + GAP
key = (f'<rect class="before" x="{LEFT}" y="14" width="14" height="14"/><text x="{LEFT + 20}" y="26">before</text>'
       f'<rect class="after" x="{LEFT + 90}" y="14" width="14" height="14"/>'
       f'<text x="{LEFT + 110}" y="26">after correction</text>'
       f'<text x="{LEFT + 250}" y="26">% of answers that are good</text>')
with open(OUT, "w", encoding="utf-8") as f:
    f.write(f'''<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {LEFT + WIDTH + 60} {y}" role="img"
 aria-label="Share of good answers before and after correction, by split">
<style>
text {{ font: 13px sans-serif; fill: #222 }} .label {{ text-anchor: end }}
.before {{ fill: #b0b7c3 }} .after {{ fill: #2563a8 }}
@media (prefers-color-scheme: dark) {{ text {{ fill: #e6e6e6 }} .before {{ fill: #6b7280 }} .after {{ fill: #6fb1ff }} }}
</style>
{key}
''' + "\n".join(parts) + "\n</svg>\n")
print(OUT)
