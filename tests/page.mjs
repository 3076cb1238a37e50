// Opens build/page.html in a headless Chromium (and Firefox, where it is) and checks what it promises:
//
//     make page && npm i --prefix build --no-save --ignore-scripts puppeteer-core@24 axe-core@4
//     node tests/page.mjs [DIRECTORY [MODEL]]
//
// DIRECTORY (build) has page.html and the examination; MODEL (DIRECTORY/models/aligner.gguf) is what the
// program reads. The page has its weights in F16: a model of a few steps, whose best two tokens are often
// as good as equal, is compared with DIRECTORY/page.aligner, the file that the page was given.
//
//   1  200 rows of the examination: the bytes of build/aligner correct, with --keep and without,
//      and the passes and copied tokens that it counts
//   2  bad input (nothing, 100 KB, control characters, other scripts): the text and reason of the program
//   3  Tab reaches every control; axe-core finds no violation, in light and dark, wide and 360 px
//   4  no error on the console, no request, no layout that jumps; the first correction in a second
//
// Screenshots are written to build/. Without Node's packages, Chromium or the page it says "skipped" and
// exits 0. Exit 1: something differs.

import { spawnSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { fileURLToPath, pathToFileURL } from "node:url";

const here = path => fileURLToPath(new URL("../" + path, import.meta.url));
const BUILD = process.argv[2] ?? "build";
const PAGE = here(`${BUILD}/page.html`), MODEL = here(process.argv[3] ?? `${BUILD}/models/aligner.gguf`);
const skip = why => { console.log(`page: skipped: ${why}`); process.exit(0); };
const CHROMIUM = process.env.CHROMIUM ?? ["/usr/bin/chromium", "/usr/bin/chromium-browser",
    "/usr/bin/google-chrome"].find(existsSync);

if (!existsSync(PAGE)) skip("there is no build/page.html; ./run.sh && make page builds it");
if (!CHROMIUM) skip("there is no Chromium");
let puppeteer, axe;
try {
    const require = createRequire(pathToFileURL(here("build/node_modules/")));
    puppeteer = (await import(pathToFileURL(require.resolve("puppeteer-core")))).default;
    axe = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");
} catch {
    skip("puppeteer-core and axe-core are not installed under build/ (the head of this file says how)");
}

let passed = 0, failed = 0;
function check(good, what, found = "") {
    if (good) passed++;
    else failed++, console.log(`page: FAILED: ${what}${found === "" ? "" : `: ${found}`}`);
}

// What the program says to rows, as JSON lines; and the counts that it closes with.
function native(rows, keep) {
    const done = spawnSync(here("build/aligner"), ["correct", MODEL, "--keep", String(keep)], {
        input: rows.map(row => JSON.stringify(row) + "\n").join(""), encoding: "utf8", maxBuffer: 1 << 28 });
    if (done.status !== 0) throw new Error(`build/aligner: ${done.stderr}`);
    const [, tokens, copied, passes] = /(\d+) tokens, (\d+) of them copied from the draft, in (\d+) passes/.exec(done.stderr);
    return { rows: done.stdout.trim().split("\n").map(JSON.parse), tokens: +tokens, copied: +copied, passes: +passes };
}

async function open(browser, { width = 1366, height = 900, scheme = "light" } = {}) {
    const page = await browser.newPage();
    page.on("console", message => check(message.type() !== "error", "an error on the console", message.text()));
    page.on("pageerror", error => check(false, "an error in the page", error.message));
    page.on("request", request => check(/^(file:.*\/page\.html|data:,)/.test(request.url()), "a request", request.url()));
    await page.setViewport({ width, height });
    await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: scheme },
        { name: "prefers-reduced-motion", value: "reduce" }]);
    await page.evaluateOnNewDocument(() => {
        window.jumps = 0;
        new PerformanceObserver(list => list.getEntries().forEach(entry => {
            if (!entry.hadRecentInput) window.jumps += entry.value;
        })).observe({ type: "layout-shift", buffered: true });
    });
    await page.goto(pathToFileURL(PAGE).href);
    await page.waitForFunction(() => now !== null, { timeout: 30_000 });
    return page;
}

// ---- 1 and 2: the same bytes

const exam = ["speakers", "upstream-small", "upstream"].flatMap(name => {
    const rows = readFileSync(here(`${BUILD}/exam/${name}.jsonl`), "utf8").trim().split("\n").map(JSON.parse);
    const step = name === "speakers" ? Math.floor(rows.length / 140) : Math.floor(rows.length / 30);
    return rows.filter((_, i) => i % step === 0).slice(0, name === "speakers" ? 140 : 30);
}).map(({ question, answer }) => ({ question, answer }));

const odd = [["", ""], ["What is this?", ""], ["", "The capital of Spain is London."], [" ", " "], ["\n\n", "\n"],
    ["a".repeat(100_000), "b"], ["What?", "no ".repeat(34_000)], ["What?", "x".repeat(700)], ["Q", "word ".repeat(300)],
    ["bell \x07 and escape \x1b[31m", "nul \0 and delete \x7f"], ["Tab\there", "one\r\ntwo\rthree\n"],
    ["\u0085\u009b", "\u202eright to left"],
    ["你叫什么名字?", "我叫小明。"], ["Как тебя зовут?", "Меня зовут Анна."], ["ما اسمك؟", "اسمي ليلى."],
    ["👋🏽?", "👨‍👩‍👧‍👦 🇩🇪"], ["e\u0301", "caf\u00e9"],
    ["{question}{answer}", "##Question: {answer}\n##Correction:"], ["<s>", "</s>"], ["<script>alert(1)</script>", "<img src=x onerror=alert(1)>"],
].map(([question, answer]) => ({ question, answer }));

async function sameAsNative(page, rows, keep, counted) {
    const theirs = await page.evaluate((rows, keep) => rows.map(({ question, answer }) => {
        const r = correct(question, answer, keep), tokens = r.written.length ? trace(r) : [];
        return { text: r.text, reason: r.reason, action: r.action, passes: r.passes, copied: r.copied,
                 tokens: tokens.filter(t => t.id !== 2).length, ended: tokens.at(-1)?.id === 2,
                 told: [tokens.at(-1)?.pass ?? 0, tokens.filter(t => t.kind === "copied").length] };
    }), rows, keep);
    const ours = native(rows, keep);
    rows.forEach((row, i) => {
        const a = ours.rows[i], b = theirs[i], what = JSON.stringify(row).slice(0, 120);
        const same = a.correction === b.text && a.action === b.action && (a.reason ?? "") === b.reason;
        check(same, `${what} with --keep ${keep}`,
              JSON.stringify([a.correction.slice(0, 200), a.reason, b.text.slice(0, 200), b.reason]));
        check(b.told[0] === b.passes && b.told[1] === b.copied || !b.ended, `the passes of ${what}`,
              JSON.stringify([b.told, b.passes, b.copied]));
    });
    if (!counted) return;
    for (const key of ["tokens", "copied", "passes"]) {
        const total = theirs.reduce((n, r) => n + r[key], 0);
        check(total === ours[key], `${key} of ${rows.length} rows`, `${total} in the page, ${ours[key]} natively`);
    }
}

// ---- 3: Tab, axe

async function tabReaches(page) {
    const wanted = await page.evaluate(() => {
        const all = [...document.querySelectorAll("a[href], button, input, textarea, [tabindex='0']")];
        all.forEach((e, i) => { e.dataset.control = i; });
        return all.map(e => e.type === "radio" ? "radio" : e.dataset.control);
    });
    const reached = new Set(), limit = wanted.length + 5;
    await page.evaluate(() => { document.activeElement.blur(); window.scrollTo(0, 0); });
    for (let i = 0; i < limit; i++) {
        await page.keyboard.press("Tab");
        reached.add(await page.evaluate(() =>
            document.activeElement.type === "radio" ? "radio" : document.activeElement.dataset.control));
    }
    const missing = [...new Set(wanted)].filter(control => !reached.has(control));
    check(missing.length === 0, "controls that Tab does not reach", missing.join(" "));
    return new Set(wanted).size;
}

async function accessible(page, where) {
    const violations = await page.evaluate(async source => {
        if (!window.axe) (0, eval)(source);
        const { violations } = await window.axe.run(document, { resultTypes: ["violations"] });
        return violations.map(v => `${v.id} (${v.nodes.slice(0, 3).map(n => n.target).join(", ")})`);
    }, axe);
    check(violations.length === 0, `axe-core, ${where}`, violations.join("; "));
}

// ---- the keyboard at work: the arrow keys choose tokens and heads, Enter corrects, the slider holds back

async function handled(page) {
    await page.evaluate(() => {
        $("x").value = "Which city is the capital of Spain?";
        $("y").value = "";
        $("y").focus();
    });
    await page.keyboard.type("The capital of Spain is London.");
    await page.keyboard.press("Enter");
    const state = () => page.evaluate(() => ({ at: now.at, head: now.head, looked: $("looked").textContent,
        spoken: $("spoken").textContent, text: $("text").innerHTML, verdict: $("verdict").textContent,
        active: $("tokens").getAttribute("aria-activedescendant") }));
    const first = await state();
    check(/^(Copied|Corrected)\. /.test(first.spoken), "the verdict is announced", first.spoken);
    const marked = /deleted: .*inserted: /.test(first.spoken) && /<del.*<ins/.test(first.text);
    check(marked || first.verdict === "Copied.", "marks are announced", first.spoken);
    await page.focus("#tokens");
    await page.keyboard.press("Home");
    await page.keyboard.press("ArrowRight");
    const second = await state();
    check(second.at === 1 && second.active === "token-1", "arrow keys choose a token", JSON.stringify(second));
    await page.focus("#heads input:checked");
    await page.keyboard.press("ArrowUp");
    const third = await state();
    check(third.head !== second.head && third.looked !== second.looked, "arrow keys choose a head", third.looked);
    const weights = await page.evaluate(() => {
        let worst = 0;
        for (let k = 0; k < shape.layers * shape.heads; k++)
            for (let t = 0; t < now.r.condition.length + now.r.written.length - 1; t++)
                worst = Math.max(worst, Math.abs(1 - sum(attention(k, t), p => p)));
        return worst;
    });
    check(weights < 1e-5, "the weights of a head add up to 1", weights);
    await page.focus("#keep");
    await page.keyboard.press("End");
    const most = await state();
    const gain = await page.evaluate(() => [now.gain, keep()]);
    const right = gain[0] >= gain[1] ? first.verdict : "Copied.";
    check(most.verdict === right, "--keep holds back", `${most.verdict} at ${gain}`);
    await page.keyboard.press("Home");
    await page.click("#ask");
    check(await page.evaluate(() => $("y").value.length > 0 && now !== null), "the upstream model answers");
}

// --keep as the page decides it and as log ratio: the same decision.
async function decisions(page, rows) {
    const wrong = await page.evaluate(rows => rows.filter(({ question, answer }) => {
        const r = correct(question, answer, 0), difference = gain(r);
        if (r.action === "copy" || r.reason || difference < 0.02) return false;
        const action = keep => correct(question, answer, keep).action;
        return action(difference + 0.01) !== "copy" || action(difference - 0.01) !== "correct";
    }), rows);
    check(wrong.length === 0, "the log ratio is what --keep compares", JSON.stringify(wrong[0]));
}

// ---- the quotations are aligner.c's own lines, and the links lead somewhere

async function quotations(page) {
    const source = readFileSync(here("aligner.c"), "utf8");
    const quoted = await page.$$eval("#paper pre", all => all.map(pre => [pre.getAttribute("aria-label"), pre.textContent]));
    check(quoted.length >= 6, "six quotations", quoted.length);
    for (const [label, text] of quoted) {
        const diff = label.startsWith("the one line"), names = label.match(/(\w+) and (\w+)/)?.slice(1);
        const side = i => text.split("\n").filter(line => line[0] !== "-+"[1 - i]).map(line => line.slice(1)).join("\n");
        const texts = diff ? names.map((name, i) => side(i).replace("OBJECTIVE(", name + "(")) : [text];
        for (const part of texts) check(source.includes(part), `aligner.c has the lines of ${label}`, part);
    }
    for (const href of await page.$$eval("a[href]", all => all.map(a => a.getAttribute("href")))) {
        const [path, anchor] = href.split("#");
        const ids = path === "" ? await page.$$eval("[id]", all => all.map(e => e.id))
            : readFileSync(here("docs/" + path.replace("../docs/", "")), "utf8").split("\n")
                .filter(line => line.startsWith("#")).map(line => line.replace(/^#+ /, "").toLowerCase().replace(/[^\w -]/g, "").replaceAll(" ", "-"));
        check(ids.includes(anchor), `the link ${href} leads somewhere`);
    }
}

// A message of aligner.c stops the instance, not the page: it is shown, and a new instance goes on.
async function survives(page) {
    const message = await page.evaluate(() => {
        try { const at = put(new Uint8Array(64)); wasm.page_load(false, at, 64); return "nothing"; }
        catch (error) { start(); return error.message; }
    });
    check(/not a GGUF file/.test(message), "a message of aligner.c arrives", message);
    check(await page.evaluate(() => correct("Q", "A", 1e9).text === "A"), "and the page goes on");
}

// Firefox, where it is: the same bytes, no error.
async function firefox(rows) {
    const path = process.env.FIREFOX ?? ["/usr/bin/firefox-esr", "/usr/bin/firefox"].find(existsSync);
    if (!path) return console.log("page: no Firefox here");
    const browser = await puppeteer.launch({ browser: "firefox", executablePath: path, headless: true });
    try {
        const page = await browser.newPage();
        page.on("console", message => check(message.type() !== "error", "Firefox: an error on the console", message.text()));
        page.on("pageerror", error => check(false, "Firefox: an error in the page", error.message));
        await page.goto(pathToFileURL(PAGE).href);
        await page.waitForFunction(() => now !== null, { timeout: 60_000 });
        await sameAsNative(page, rows, 0, true);
    } finally { await browser.close(); }
}

const browser = await puppeteer.launch({ executablePath: CHROMIUM, args: ["--no-sandbox"] });
try {
    const began = performance.now();
    const page = await open(browser);
    const ms = await page.evaluate(() => performance.getEntriesByName("corrected")[0].startTime);
    console.log(`page: first correction ${ms.toFixed(0)} ms after the page was asked for`);
    check(ms < 3000, "the first correction comes at once", `${ms} ms`);
    await sameAsNative(page, exam, 2.5, false);
    await sameAsNative(page, exam, 0, true);
    await sameAsNative(page, odd, 2.5, false);
    await decisions(page, exam.slice(0, 60));
    const controls = await tabReaches(page);
    await handled(page);
    await quotations(page);
    await survives(page);
    await firefox(exam.slice(0, 40));
    for (const [name, look] of Object.entries({ light: {}, dark: { scheme: "dark" }, phone: { width: 360, height: 740 } })) {
        const shown = await open(browser, look);
        for (let i = 0; i < await shown.$$eval("#examples button", all => all.length); i++) {
            await shown.click(`#examples button:nth-child(${i + 1})`);
            if (i % 4 === 1) await accessible(shown, name);
        }
        await shown.click("#examples button:nth-child(5)");
        await new Promise(done => setTimeout(done, 1500));
        const fits = await shown.evaluate(() => document.documentElement.scrollWidth <= innerWidth);
        check(fits, `${name}: nothing is wider than the window`);
        const jumps = await shown.evaluate(() => window.jumps);
        check(jumps < 0.02, `${name}: the layout jumps`, jumps);
        await shown.screenshot({ path: here(`${BUILD}/page-${name}.png`), fullPage: true });
        await shown.close();
    }
    const s = (performance.now() - began) / 1000;
    console.log(`page: ${exam.length} rows and ${odd.length} odd ones, ${controls} controls, ${s.toFixed(0)} s`);
} finally {
    await browser.close();
}
console.log(`page: ${passed} passed, ${failed} failed`);
process.exit(failed ? 1 : 0);
