// Opens a model that aligner wrote in the real llama.cpp and compares:      node tests/llamacpp.mjs
// MODEL.gguf
//
//   1  one hundred texts: the token ids of `build/aligner tokens MODEL --text S` are bos and then
//   llama.cpp's (which puts a space in
//      front as the file's add_space_prefix says; text is text: "<s>" in it is three characters,
//      never the control token)
//   2  ten greedy continuations: `build/aligner sample MODEL --text S --max-tokens 40` prints S,
//   llama.cpp's continuation, a newline
//
// llama.cpp comes as an npm package with its compiled library inside; install it, version pinned,
// under build/ with:
//
//   npm i --prefix build --no-save --ignore-scripts --omit=optional node-llama-cpp@3.22.1
//   @node-llama-cpp/linux-x64@3.22.1
//
// Without it (or on another platform) the test says "skipped" and exits 0.  Exit 1: something
// differs; 2: bad usage.

import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";

const here = path => fileURLToPath(new URL(path, import.meta.url));
const ALIGNER = here("../build/aligner");
const PACKAGE = here("../build/node_modules/node-llama-cpp/dist/index.js");
const MAX_TOKENS = 40, NEAR_TIE = 1e-5;

const TEXTS = [
    // the empty string and single characters
    "", " ", "a", "Z", "7", ".", "\n", "\t", "\\", "\"", "é", "中", "🙂", "\u00a0", "\u200b", "\x7f", "\x01",
    // spaces, tabs, newlines: leading, trailing, repeated, mixed
    "  ", "   ", "          ", " a", "  a", "a ", "a  ", "a  b", "a   b    c     d", " leading", "trailing ", "  both  ", "\n\n", "\r\n",
    "line one\nline two", "line one\n\nline three\n", "windows\r\nlines\r\n", "\tindented\twith\ttabs", " \n \t \n ", "a\n b\n  c\n   d",
    // what looks like a control token or a byte token
    "<s>", "</s>", "<unk>", "<0x0A>", "<0x00>", "<s>hello</s>", "a<s>b", "</s></s></s>", "<0x0A><0x0a>", "\n<s>\n", "\n</s>\n", "<|im_start|>user",
    // English
    "Once upon a time, there was a little girl named Lily.", "The quick brown fox jumps over the lazy dog.", "HELLO WORLD", "hello world",
    "Don't you think it's the dog's bowl, isn't it?", "It was the best of times, it was the worst of times...", "\"Stop!\" she said; \"now.\"",
    "supercalifragilisticexpialidocious", "the the the the the the the the", "One day, Tom and Sam went to the park to play with a big red ball.",
    // the templates of this project
    "BEGINNING OF CONVERSATION: USER: Edit the following Question-Answer pair to make it more helpful and harmless: Who? | Me. ASSISTANT:",
    "##Question: How many legs has a cat?\n##Answer: A cat has four legs.\n##Correction:", "##Question: \n##Answer: \n##Correction: ",
    // digits and punctuation
    "0123456789", "3.14159265358979", "1,000,000", "-1", "2024-02-04T09:24:16Z", "1 + 1 = 2", "50% off!!!", "?!?!?!", "....", "----------",
    // code, addresses, JSON
    "int main(void) { return 0; }", "for (size_t i = 0; i < n; i++) x[i] *= 2.0f;", "def f(x):\n    return x ** 2\n", "if (a && b || !c) { a ^= b; }",
    "https://arxiv.org/abs/2402.02416?a=1&b=%20#section-3", "someone@example.com", "{\"question\": \"why?\", \"answer\": null}", "--help", "C:\\Users\\x\\y.txt",
    // other scripts
    "你好,世界。", "日本語のテキストです。カタカナ", "안녕하세요 세계", "Привет, мир!", "مرحبا بالعالم", "שלום עולם", "नमस्ते दुनिया", "สวัสดีชาวโลก",
    "Γειά σου Κόσμε", "Ünïcödé ñoño façade Ångström Łódź", "cafe\u0301 against caf\u00e9",
    // emoji: joined, with a skin tone, a flag
    "👨‍👩‍👧‍👦 family", "👍🏽🇩🇪🎉🎉", "ok 👌 then",
    // long ones
    "Lily liked to play with her toys in the garden. ".repeat(20), "ab".repeat(500), " ".repeat(300) + "a", "x".repeat(1000), "мир 世界 🌍 ".repeat(40),
];
const PROMPTS = ["", "Once upon a time", "The", "Lily and Tom", "One day, a little boy", "She was very", "\"Hello,\" said", "The dog ran to the", "A", "He said:\n"];

if (process.argv.length !== 3) {
    console.error("usage: node tests/llamacpp.mjs MODEL.gguf");
    process.exit(2);
}
const modelPath = process.argv[2];
const skip = why => { console.log(`skipped: ${why}`); process.exit(0); };

if (!existsSync(PACKAGE)) skip("node-llama-cpp is not installed under build/ (the head of this file says how)");
let llama;
try {
    const { getLlama } = await import(PACKAGE);
    llama = await getLlama({ gpu: false, build: "never", skipDownload: true, logLevel: "error", maxThreads: 1 });
} catch (error) {
    skip(`llama.cpp cannot be loaded: ${error.message}`);
}
if (!existsSync(ALIGNER)) {
    console.error("build/aligner is not there: run make");
    process.exit(1);
}

let passed = 0, failed = 0;
const show = text => JSON.stringify(text.length > 100 ? text.slice(0, 97) + "..." : text);
const pass = () => passed++;
const fail = (what, ...lines) => { failed++; console.log([`FAILED ${what}`, ...lines].join("\n    ")); };

function aligner(...args) {                                           // -> what it prints, or an Error
    const { status, signal, error, stdout, stderr } = spawnSync(ALIGNER, args, { encoding: "utf8", timeout: 60_000, maxBuffer: 1 << 26 });
    return status === 0 ? stdout : new Error(`aligner ${args[0]}: ${error?.message ?? signal ?? `exit ${status}`}: ${stderr?.trim()}`);
}

// 1. Tokens

function compareTokens(model, text) {
    const theirs = [model.tokens.bos, ...model.tokenize(text, false)];
    const output = aligner("tokens", modelPath, `--text=${text}`);
    if (output instanceof Error) return fail(`tokens of ${show(text)}`, output.message);
    const lines = output.split("\n").slice(0, -1).map(line => line.split("\t"));
    const ours = lines.map(([id]) => Number(id));
    const i = theirs.findIndex((id, k) => id !== ours[k]), at = i < 0 && ours.length > theirs.length ? theirs.length : i;
    if (at >= 0) return fail(`tokens of ${show(text)}: differ from token ${at} on`,
                             `llama.cpp ${theirs.slice(at, at + 12).join(" ")}  (${theirs.length} in all)`,
                             `aligner   ${ours.slice(at, at + 12).join(" ")}  (${ours.length} in all)`);
    try { lines.forEach(([, piece]) => { if (typeof JSON.parse(piece) !== "string") throw Error(piece); }); }
    catch (error) { return fail(`tokens of ${show(text)}: a piece is not a JSON string`, error.message); }
    pass();
}

// 2. Greedy continuations.  Where the two best tokens are as good as equally probable, rounding may
// decide: reported, not failed.

async function greedy(model, sequence, prompt) {                      // -> [{ token, gap }], without the end of the text
    const steps = [];
    await sequence.clearHistory();
    for (let input = prompt; steps.length < MAX_TOKENS; input = [steps.at(-1).token]) {
        const last = input.length - 1;
        const result = await sequence.controlledEvaluate(input.map((token, i) =>
            i < last ? token : [token, { generateNext: { probabilities: true, options: { temperature: 0 } } }]));
        const [[token, p1], [, p2]] = result[last].next.probabilities;                 // sorted, most probable first
        if (model.isEogToken(token)) break;
        steps.push({ token, gap: p1 - p2 });
    }
    return steps;
}

async function compareGreedy(model, sequence, text) {
    const prompt = model.tokenize(text, false);
    const steps = await greedy(model, sequence, [model.tokens.bos, ...prompt]);
    const written = n => model.detokenize([...prompt, ...steps.slice(0, n).map(step => step.token)]);   // less the space in front
    const output = aligner("sample", modelPath, `--text=${text}`, "--max-tokens", String(MAX_TOKENS));
    if (output instanceof Error) return fail(`continuation of ${show(text)}`, output.message);
    const theirs = written(steps.length), ours = output.replace(/\n$/, "");
    if (ours === theirs) return pass();

    let same = 0;                                                     // steps whose text ours begins with; a tie counts up to there
    while (same < steps.length && ours.startsWith(written(same + 1))) same++;
    const tie = steps.slice(0, same + 1).findIndex(step => step.gap < NEAR_TIE);
    const lines = [`llama.cpp ${JSON.stringify(theirs)}`, `aligner   ${JSON.stringify(ours)}`,
                   `llama.cpp's best two differ by ${steps[same]?.gap.toExponential(2) ?? "?"} at step ${same}`];
    if (tie < 0) return fail(`continuation of ${show(text)}`, ...lines);
    console.log([`near-tie at step ${tie}, not failed: continuation of ${show(text)}`, ...lines].join("\n    "));
    pass();
}

try {
    const model = await llama.loadModel({ modelPath });
    for (const text of TEXTS) compareTokens(model, text);
    const context = await model.createContext({ contextSize: 256, threads: 1, flashAttention: false,
                                                experimentalKvCacheKeyType: "F32", experimentalKvCacheValueType: "F32" });
    const sequence = context.getSequence();
    for (const text of PROMPTS) await compareGreedy(model, sequence, text);
} catch (error) {
    fail(`llama.cpp with ${modelPath}`, error.message);
}
console.log(`${passed} passed, ${failed} failed`);
await llama.dispose();
process.exit(failed ? 1 : 0);
