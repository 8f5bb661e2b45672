// node compile.mjs NODE_MODULES OUT: compile src/*.sol to OUT/<Contract>.json {abi, bytecode, compiler}, reproducibly.
import { createRequire } from "node:module";
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";

const [modules, out] = process.argv.slice(2).map((path) => resolve(path));
const here = dirname(fileURLToPath(import.meta.url));
const solc = createRequire(join(modules, "solc", "package.json"))("solc");
const names = readdirSync(join(here, "src")).filter((name) => name.endsWith(".sol")).sort();
const input = {
  language: "Solidity",
  sources: Object.fromEntries(names.map((name) => [name, { content: readFileSync(join(here, "src", name), "utf8") }])),
  settings: {
    optimizer: { enabled: true, runs: 1000 },
    evmVersion: "cancun",
    metadata: { appendCBOR: false, bytecodeHash: "none" }, // the bytes depend on nothing but code and compiler
    outputSelection: { "*": { "*": ["abi", "evm.bytecode.object"] } },
  },
};
const result = JSON.parse(
  solc.compile(JSON.stringify(input), { import: (path) => ({ contents: readFileSync(join(modules, path), "utf8") }) }),
);
for (const { formattedMessage } of result.errors ?? []) console.error(formattedMessage);
if (result.errors?.length) process.exit(1); // warnings too
mkdirSync(out, { recursive: true });
for (const name of names) {
  const contract = name.slice(0, -".sol".length);
  const { abi, evm } = result.contracts[name][contract];
  const bytecode = evm.bytecode.object;
  if (abi.length === 0) continue; // an internal library
  const artifact = { abi, bytecode: `0x${bytecode}`, compiler: solc.version() };
  writeFileSync(join(out, `${contract}.json`), JSON.stringify(artifact, null, 1) + "\n");
}
