// The TypeScript compiler as a checker of JSON.
import { mkdirSync, rmSync, writeFileSync } from "node:fs";
import { basename } from "node:path";
import { spawnSync } from "node:child_process";

// tsc reports lines of the generated file; its one line of header is kept on the first line, so that
// they are the lines of the source as well.
export function compile(sources) {
  rmSync("build", { recursive: true, force: true });
  mkdirSync("build");
  const from = new Map();
  for (const [file, text] of sources) {
    from.set(`build/${basename(file)}.ts`, file);
    writeFileSync(`build/${basename(file)}.ts`, text);
  }
  const tsc = ["node_modules/typescript/bin/tsc", "-p", ".", "--pretty", "false"];
  const run = spawnSync(process.execPath, tsc, { encoding: "utf8" });
  if (run.status === 0) return [];
  return [run.stdout.replace(/^(\S+?)(?=\()/gm, (path) => from.get(path) ?? path) + run.stderr];
}
