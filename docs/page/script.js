"use strict";
const $ = id => document.getElementById(id);
const utf8 = text => new TextEncoder().encode(text);
const strict = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
const loose = new TextDecoder("utf-8", { ignoreBOM: true });
const string = bytes => loose.decode(Uint8Array.from(bytes));
const sum = (list, f) => list.reduce((s, x, i) => s + f(x, i), 0);
const EOS = 2;

// ---- The machine: aligner.c and its memory. page.c says what its functions return.

let module, wasm, said, shape;          // shape: of the Aligner

const memory = (Type, at, n) => new Type(wasm.memory.buffer, at, n);

function unpack(id) {
    const text = atob($(id).textContent), bytes = new Uint8Array(text.length);
    for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
    return bytes;
}

// Of WASI two calls matter: messages are kept, and exit(1) becomes an Error that says them.
const WASI = {
    fd_write(fd, list, n, written) {
        const parts = memory(Uint32Array, list, 2 * n);
        let size = 0;
        for (let i = 0; i < 2 * n; size += parts[i + 1], i += 2)
            said += string(memory(Uint8Array, parts[i], parts[i + 1]));
        memory(Uint32Array, written, 1)[0] = size;
        return 0;
    },
    proc_exit(code) { throw new Error(said.trim() || `exit ${code}`); },
};

function put(bytes) {
    const at = wasm.malloc(bytes.length + 1);
    memory(Uint8Array, at, bytes.length).set(bytes);
    return at;
}

function load(upstream) {
    const bytes = unpack(upstream ? "pi" : "mu"), at = put(bytes);
    wasm.page_load(upstream, at, bytes.length);
    wasm.free(at);
}

// A new instance: at first, and after aligner.c has ended. The upstream model waits until asked.
function start() {
    const call = ({ name }) => [name, WASI[name] ?? (() => 52)];
    const calls = Object.fromEntries(WebAssembly.Module.imports(module).map(call));
    said = "";
    wasm = new WebAssembly.Instance(module, { wasi_snapshot_preview1: calls }).exports;
    wasm._initialize();
    load(false);
    const [vocabulary, , layers, heads, , , context] = memory(Int32Array, wasm.page_config(), 7);
    shape = { vocabulary, layers, heads, context, upstream: false };
}

// Calls a function with texts, each as address and length, and reads page.c's `result`.
function call(name, texts, ...more) {
    try {
        const bytes = texts.map(utf8), at = bytes.map(put);
        const result = wasm[name](...at.flatMap((a, i) => [a, bytes[i].length]), ...more);
        const [text, reason, y_o, written, n_text, n_condition, n_y_o, n_written, passes, copied]
            = memory(Int32Array, result, 10);
        const ids = (p, from, to) => memory(Int32Array, p, to).slice(from);
        const end = memory(Uint8Array).indexOf(0, reason);
        at.forEach(wasm.free);
        const y = string(memory(Uint8Array, text, n_text));
        return { text: y, action: y === texts[1] ? "copy" : "correct", passes, copied,
                 reason: reason ? string(memory(Uint8Array, reason, end - reason)) : "",
                 condition: ids(y_o, 0, n_condition), draft: ids(y_o, n_condition, n_y_o),
                 written: ids(written, 0, n_written) };
    } catch (error) {
        start();
        throw error;
    }
}

const correct = (x, y, keep) => call("page_correct", [x, y], keep);

function answer(x) {
    if (!shape.upstream) load(true);
    shape.upstream = true;
    return call("page_answer", [x]);
}

function piece(id) {
    const [at, n] = memory(Int32Array, wasm.page_piece(id), 2);
    return memory(Uint8Array, at, n).slice();
}

// log p of tokens at target o of the last forward pass.
function logP(o, ...ids) {
    const z = memory(Float32Array, wasm.page_logits(o), shape.vocabulary);
    const whole = Math.log(sum(z, Math.exp));
    return ids.map(id => z[id] - whole);
}

// What head k looks at from position t: weights that add up to 1.
const attention = (k, t) => memory(Float32Array,
    wasm.page_attention(Math.floor(k / shape.heads), k % shape.heads, t), t + 1);

// ---- What generate() did, told from what it wrote. tests/page.mjs holds this to its counts.

const FIRST = 16, AGAIN = 8, MOST = 64;         // guesses in a pass
function resume(draft, out, from) {
    for (let n = 3; n >= 2; n--)
        for (const first of n <= out.length ? [from, 0] : [])
            for (let i = first; i + n < draft.length - 1; i++)
                if (out.slice(-n).every((id, k) => id === draft[i + k])) return i + n;
    return -1;
}

// Each token with its pass, the draft's token at that place (-1: none), the probabilities of both.
function trace({ condition, draft, written }) {
    const n = draft.length - 1, room = shape.context - condition.length;
    let at = 0, block = FIRST, pass = 0, i = 0, guesses = 0, right = false;
    return Array.from(written, (id, t) => {
        const first = !right;
        if (first) i = 0, pass++;
        if (first) guesses = at < 0 ? 0 : Math.min(n - at, block, room - t);
        const place = at < 0 ? -1 : at + i, theirs = place < 0 ? -1 : draft[place];
        const [p, q] = logP(t, id, theirs).map(Math.exp), same = id === theirs;
        right = same && i < guesses;
        if (right) i++;
        else {
            const on = same && place < n, out = Array.from(written.slice(0, t + 1));
            block = on ? Math.min(2 * block, MOST) : AGAIN;
            at = on ? place + 1 : resume(draft, out, Math.max(at, 0));
        }
        return { id, t, pass, first, place, theirs, p, q, bytes: piece(id),
                 kind: right ? "copied" : same ? "same" : "new" };
    });
}

// log mu(y_c | y_o, x) - log mu(y_o | y_o, x), in nats.
function gain({ condition, draft, written }) {
    const y_o = draft.slice(0, shape.context + 1 - condition.length), n = written.length;
    return sum(written, (id, o) => logP(o, id)[0]) - sum(y_o, (id, o) => logP(n + o, id)[0]);
}

// Tokens that are the bytes of one character share a cell.
function cells(tokens) {
    const list = [];
    let open = null;
    for (const token of tokens) {
        if (open) open.bytes.push(...token.bytes), open.p *= token.p;
        else list.push(open = { ...token, bytes: [...token.bytes] });
        open.last = token.t;
        try {
            open.text = visible(strict.decode(Uint8Array.from(open.bytes)), open.id);
            open = null;
        } catch {
            open.text = open.bytes.map(byte => `<${byte.toString(16)}>`).join("");
            if (open.bytes.length > 3) open = null;
        }
    }
    return list;
}

// Control characters as pictures of themselves; □ and ■ begin and end a row.
function visible(text, id) {
    if (id === 1 || id === EOS) return id === EOS ? "■" : "□";
    return text.replace(/[\0-\x1f\x7f]/g, c => c === "\n" ? "↵" : c === "\x7f" ? "␡"
        : String.fromCharCode(0x2400 + c.charCodeAt(0)));
}

const name = id => visible(string(piece(id)), id).trim();

// Two lists of ids as one, by a longest common subsequence: ids kept, gone (del) or new (ins).
function align(a, b) {
    const lcs = Array.from({ length: a.length + 1 }, () => new Uint16Array(b.length + 1));
    for (let i = a.length - 1; i >= 0; i--)
        for (let j = b.length - 1; j >= 0; j--)
            lcs[i][j] = a[i] === b[j] ? lcs[i + 1][j + 1] + 1
                : Math.max(lcs[i + 1][j], lcs[i][j + 1]);
    const list = [];
    for (let i = 0, j = 0; i < a.length || j < b.length;) {
        const left = i < a.length, right = j < b.length;
        if (left && right && a[i] === b[j]) list.push({ tag: "span", id: a[i++], t: j++ });
        else if (left && (!right || lcs[i + 1][j] >= lcs[i][j + 1]))
            list.push({ tag: "del", id: a[i++] });
        else list.push({ tag: "ins", id: b[j], t: j++ });
    }
    return list;
}

// ---- The demo

let now = null;                         // what is shown: result, tokens, cells, chosen cell, head

function make(tag, attributes, ...children) {
    const element = document.createElement(tag);
    for (const key in attributes) element.setAttribute(key, attributes[key]);
    element.append(...children);
    return element;
}

const say = (id, text) => { $(id).textContent = text; };
const percent = p => (100 * p).toFixed(p > 0.0995 || p < 0.0005 ? 0 : 1);
const headName = k => `layer ${1 + Math.floor(k / shape.heads)} head ${1 + k % shape.heads}`;
const keep = () => Number($("keep").value);
const withoutEnd = ids => ids.filter(id => id !== EOS);

function clear() {
    now = null;
    $("tokens").removeAttribute("aria-activedescendant");
    for (const place of document.querySelectorAll("[data-result]")) place.replaceChildren();
}

function failed(error) {
    clear();
    for (const id of ["reason", "spoken"]) say(id, error.message);
    say("verdict", "Stopped.");
}

function run() {
    try {
        clear();
        const y = $("y").value, r = correct($("x").value, y, keep());
        const tokens = r.written.length ? trace(r) : [];
        now = { r, y, tokens, cells: cells(tokens), gain: tokens.length ? gain(r) : 0 };
        now.differs = tokens.length > 0 && tokens.map(token => token.id).join() !== r.draft.join();
        showTokens();
        showVerdict(now.cells.length ? arrival(now.cells.at(-1)) : 0);
        showWeighing();
        findCopyingHead();
        const own = now.cells.findIndex(cell => cell.kind === "new");
        if (tokens.length) choose(own < 0 ? now.cells.length >> 1 : own);
    } catch (error) { failed(error); }
}

// The tokens that generate() wrote, and between them, struck out, what only the draft has.
function showTokens() {
    const parts = align(withoutEnd(now.r.draft), now.tokens.map(token => token.id));
    const cellAt = new Map(now.cells.map((cell, i) => [cell.t, i]));
    const gone = id => make("span", { "aria-hidden": true }, make("del", {}, name(id)));
    $("tokens").replaceChildren(...parts.flatMap(({ tag, id, t }) => tag === "del" ? gone(id)
        : cellAt.has(t) ? option(now.cells[cellAt.get(t)], cellAt.get(t)) : []));
}

const arrival = token => 250 * (token.pass - 1) + 15 * token.t;         // milliseconds

// A token as an option; what is drawn for the eye alone is said in hidden words for the ear.
function option(cell, i) {
    const word = text => make("span", { class: "hidden" }, text);
    const kind = { copied: ", copied, ", same: ", as the draft, ", new: ", written, " }[cell.kind];
    const draft = cell.kind === "new" && cell.theirs >= 0
        ? [word(" percent; the draft: "), `${name(cell.theirs)} ${percent(cell.q)}`] : [];
    const element = make("span", { role: "option", id: `token-${i}`, "aria-selected": false,
            class: `arrive ${cell.kind} ${cell.first ? "pass" : ""}`,
            style: `--delay: ${arrival(cell)}ms` },
        make("b", {}, cell.text), word(kind), make("small", {}, percent(cell.p)),
        make("small", {}, ...draft), word(" percent"));
    element.addEventListener("pointerover", () => choose(i));
    return cell.element = element;
}

// The correction as text, for the eye (ins, del; after the last token has come) and for the ear.
function showVerdict(delay) {
    const { r, y, tokens } = now, copied = r.action === "copy", runs = [];
    say("verdict", copied ? "Copied." : "Corrected.");
    say("reason", r.reason ? `Because: ${r.reason}.` : !copied || !now.differs ? ""
        : "The model wrote another text, but it is not enough likelier than the answer (--keep).");
    const parts = copied ? [{ tag: "span", bytes: utf8(y) }]
        : align(withoutEnd(r.draft), withoutEnd(r.written));
    for (const { tag, id, bytes } of parts) {
        if (runs.at(-1)?.tag !== tag) runs.push({ tag, bytes: [] });
        for (const byte of bytes ?? piece(id)) runs.at(-1).bytes.push(byte);
    }
    for (const run of runs) run.text = string(run.bytes);
    if (!copied && runs.length) runs[0].text = runs[0].text.trimStart();
    const style = { class: "arrive", style: `--delay: ${delay}ms` };
    $("text").replaceChildren(...runs.map(({ tag, text }) => make(tag, style, text)));
    const mark = { del: "deleted:", ins: "inserted:", span: "" }, n = tokens.length;
    say("spoken", `${$("verdict").textContent} ${$("reason").textContent} `
        + runs.map(({ tag, text }) => `${mark[tag]} ${text.slice(0, 2000)}`).join("; "));
    say("count", !n ? "" : `${n} tokens in ${r.passes} forward pass${r.passes === 1 ? "" : "es"}; `
        + `one at a time they would take ${n}. ${r.copied} were copied from the draft.`);
}

// --keep X: y_c must be e^X times as likely as y_o.
function showWeighing() {
    const x = nats => 20 + 320 * Math.max(0, Math.min(1, (nats + 4) / 20)), at = x(keep());
    say("keep-value", keep().toFixed(1));
    say("weighed", !now.differs ? "The model wrote the draft itself, so there is nothing to compare."
        : `log μ(y_c | y_o, x) − log μ(y_o | y_o, x) = ${now.gain.toFixed(2)} nats: `
        + (now.gain >= keep() ? "enough for a change." : "too little for a change."));
    $("scale").innerHTML = `<line class="grid" x1="20" x2="340" y1="12" y2="12"/>`
        + [-4, 0, 4, 8, 12, 16].map(nats => `<text x="${x(nats)}" y="30">${nats}</text>`).join("")
        + `<line class="bound" x1="${at}" x2="${at}" y1="2" y2="20"/>`
        + (now.differs ? `<circle class="after" cx="${x(now.gain)}" cy="12" r="5"/>` : "");
}

// ---- Where it looks

// Where the prompt has the draft. Up to three tokens at its end may have merged with what follows.
function draftStart({ condition, draft }) {
    for (let n = draft.length - 1; n > 0 && n > draft.length - 5; n--)
        for (let s = condition.length - n; s >= 0; s--)
            if (draft.slice(0, n).every((id, k) => condition[s + k] === id)) return s;
    return -1;
}

// The copying head: while tokens are copied it puts the most weight on the draft's next token.
function findCopyingHead() {
    const { r, tokens } = now, copied = tokens.filter(token => token.kind === "copied");
    const n = copied.length, weight = (k, { t, place }) =>
        attention(k, r.condition.length + t - 1)[now.start + place];
    let best = -1;
    now.start = draftStart(r), now.head = 0;
    for (let k = 0; now.start >= 0 && n && k < shape.layers * shape.heads; k++) {
        const mean = sum(copied, token => weight(k, token)) / n;
        if (mean > best) best = mean, now.head = k;
    }
    say("copying", best < 0 ? "No token was copied here." : `The copying head is ${
        headName(now.head)}: at the ${n} copied tokens it puts ${
        percent(best)} % of its weight on the draft's next token.`);
    $("heads").elements[now.head].checked = true;
}

function choose(i) {
    now.at = Math.max(0, Math.min(now.cells.length - 1, i));
    now.cells.forEach(({ element }, k) => element.setAttribute("aria-selected", k === now.at));
    $("tokens").setAttribute("aria-activedescendant", `token-${now.at}`);
    drawHeads();
}

// The query that writes token t reads position t - 1 of the row.
function drawHeads() {
    const { r, start, head } = now, cell = now.cells[now.at], t = r.condition.length + cell.t - 1;
    const ids = [...r.condition, ...r.written].slice(0, t + 1), n = r.draft.length - 1;
    const next = start >= 0 && cell.place >= 0 && cell.place < n ? start + cell.place : -1;
    $("heads").querySelectorAll("label").forEach((label, k) => {
        const w = attention(k, t).slice(), top = w.indexOf(Math.max(...w));
        const svg = label.querySelector("svg"), mark = `<path d="M${next - 0.7} 20h2.4l-1.2 -7z"/>`;
        const bar = (p, j) => `<rect x="${j}" width="1" y="${20 - 20 * p}" height="${20 * p}"/>`;
        svg.setAttribute("viewBox", `0 0 ${t + 1} 20`);
        svg.innerHTML = Array.from(w, bar).join("") + (next < 0 ? "" : mark);
        label.querySelector("span").textContent
            = `${headName(k)}: ${percent(w[top])} % on “${name(ids[top])}”`;
    });
    const w = attention(head, t).slice();
    say("looked", `Writing “${cell.text.trim()}”, ${headName(head)} ` + (next < 0 ? "looks here:"
        : `puts ${percent(w[next])} % on the draft's next token, “${name(ids[next])}”:`));
    const read = cells(ids.map((id, t) => ({ id, t, bytes: piece(id) })));
    $("context").replaceChildren(...read.map(({ t, last, text }) => make("span", {
        class: (t >= start && t < start + n && start >= 0 ? "draft" : "")
            + (t <= next && next <= last ? " next" : ""),
        style: `--weight: ${sum(w.slice(t, last + 1), p => p).toFixed(3)}`,
    }, text.replace("↵", "↵\n"))));
}

// ---- Events

$("form").addEventListener("submit", event => { event.preventDefault(); run(); });
for (const id of ["x", "y"]) $(id).addEventListener("keydown", event => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing)
        event.preventDefault(), run();
});
$("examples").addEventListener("click", ({ target: { dataset: { x, y } } }) => {
    if (x === undefined) return;
    $("x").value = x, $("y").value = y;
    run();
});
$("ask").addEventListener("click", () => {
    try {
        const { text, reason } = answer($("x").value);
        $("y").value = text;
        run();
        if (reason) say("reason", `Because: ${reason}.`);
    } catch (error) { failed(error); }
});
$("keep").addEventListener("input", () => {
    if (!now) return;
    Object.assign(now.r, correct($("x").value, now.y, keep()));
    showVerdict(0);
    showWeighing();
});
$("tokens").addEventListener("keydown", event => {
    if (!now?.cells.length) return;
    const to = { ArrowRight: now.at + 1, ArrowLeft: now.at - 1, Home: 0, End: Infinity }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    choose(to);
    now.cells[now.at].element.scrollIntoView({ block: "nearest" });
});
$("heads").addEventListener("change", event => {
    if (now?.cells.length) now.head = Number(event.target.value), drawHeads();
});

WebAssembly.compile(unpack("wasm")).then(compiled => {
    module = compiled;
    start();
    $("keep").value = wasm.page_keep();
    $("heads").style.setProperty("--heads", shape.heads);
    for (let k = 0; k < shape.layers * shape.heads; k++)
        $("heads").insertAdjacentHTML("beforeend", `<label><input type="radio" name="head"
            value="${k}" class="hidden"><span></span><svg preserveAspectRatio="none"
            aria-hidden="true"></svg></label>`);
    $("examples").querySelector("button").click();
    performance.mark("corrected");
}).catch(failed);
