// bench_llama.mjs: times llama.cpp (node-llama-cpp in build/node_modules) on prefill of 128 tokens,
// then 96 tokens one by one.
//   node tests/bench_llama.mjs SHAPE M.gguf [THREADS]
// prints lines like `lab bench`: part, shape, key value ... Without the package it says so and
// exits 3. llama.cpp's own sampler draws, greedily; all figures are medians.
import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";
const place = new URL("../build/node_modules/node-llama-cpp/dist/index.js", import.meta.url);
const entry = fileURLToPath(place);
if (!existsSync(entry)) {
    console.error("node-llama-cpp is not installed in build/node_modules");
    process.exit(3);
}
const [shape, file, threads] = process.argv.slice(2), T = Number(threads ?? 2);
const { getLlama } = await import(entry);
const llama = await getLlama({ gpu: false, build: "never", logLevel: "error" });
const model = await llama.loadModel({ modelPath: file, useMmap: true });
const context = await model.createContext({ contextSize: 512, batchSize: 512,
                                            threads: { ideal: T, min: T } });
const sequence = context.getSequence();
const median = a => a.sort((x, y) => x - y)[a.length >> 1];
const tokens = n => Array.from({ length: n }, (_, i) => 300 + i * 37 % 700);
const prefill = [], decode = [];
for (let r = 0; r < 6; r++) {
    await sequence.clearHistory();
    const start = performance.now();
    await sequence.evaluateWithoutGeneratingNewTokens(tokens(128));
    if (r) prefill.push(performance.now() - start);
}
for (let r = 0; r < 4; r++) {
    await sequence.clearHistory();
    let n = 0, start = 0;
    for await (const _ of sequence.evaluate(tokens(2), { temperature: 0, yieldEogToken: true })) {
        if (n++ === 0) start = performance.now();
        if (n > 96) break;
    }
    if (r && n > 2) decode.push((performance.now() - start) / (n - 1));
}
const ms = median(prefill);
console.log(`prefill ${shape} ms ${ms.toFixed(2)} tokens_per_s ${(128e3 / ms).toFixed(1)}`);
if (decode.length)
    console.log(`decode ${shape} tokens_per_s ${(1e3 / median(decode)).toFixed(1)}`);
process.exit(0);
