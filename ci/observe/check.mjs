// Checks dashboards and rendered manifests against the schemas of those who read them.
//   node check.mjs dashboards FILE…      Grafana's schema by the TypeScript compiler, layout, ids, units
//   node check.mjs queries FILE…         writes each PromQL as a recording rule, for promtool
//   node check.mjs manifests FILE        Kubernetes, KEDA and Prometheus-operator schemas
import { mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { basename } from "node:path";
import { spawnSync } from "node:child_process";

const [mode, ...files] = process.argv.slice(2);
const problems = [];
if (files.length === 0) throw new Error("no files to check");

// tsc reports lines of the generated file; its one line of header is kept on the first line, so that
// they are the lines of the source as well.
function compile(sources) {
  rmSync("build", { recursive: true, force: true });
  mkdirSync("build");
  const from = new Map();
  for (const [file, text] of sources) {
    from.set(`build/${basename(file)}.ts`, file);
    writeFileSync(`build/${basename(file)}.ts`, text);
  }
  const tsc = ["node_modules/typescript/bin/tsc", "-p", ".", "--pretty", "false"];
  const run = spawnSync(process.execPath, tsc, { encoding: "utf8" });
  if (run.status !== 0) {
    problems.push(run.stdout.replace(/^(\S+?)(?=\()/gm, (path) => from.get(path) ?? path) + run.stderr);
  }
}

function dashboards() {
  const uids = new Set();
  compile(files.map((file) => {
    const text = readFileSync(file, "utf8");
    return [file, `import type { Dashboard } from "../dashboard"; export const d: Dashboard = ${text.trimEnd()};\n`];
  }));
  for (const file of files) {
    const dashboard = JSON.parse(readFileSync(file, "utf8"));
    const say = (panel, what) => problems.push(`${file}: panel ${panel.id} '${panel.title}': ${what}`);
    if (uids.has(dashboard.uid)) problems.push(`${file}: uid ${dashboard.uid} comes twice`);
    uids.add(dashboard.uid);
    const ids = new Set();
    const taken = new Set();
    for (const panel of dashboard.panels) {
      if (ids.has(panel.id)) say(panel, "its id comes twice");
      ids.add(panel.id);
      const { x, y, w, h } = panel.gridPos;
      if (x + w > 24) say(panel, "wider than the grid");
      for (let row = y; row < y + h; row++) {
        for (let column = x; column < x + w; column++) {
          const cell = `${column},${row}`;
          if (taken.has(cell)) say(panel, `overlaps another at ${cell}`);
          taken.add(cell);
        }
      }
      if (panel.type !== "table" && !panel.fieldConfig.defaults.unit) say(panel, "has no unit");
      for (const { expr } of panel.targets) {
        if (expr && /\b(rate|increase)\(/.test(expr) && !expr.includes("$__rate_interval")) {
          say(panel, "a rate without $__rate_interval");
        }
      }
    }
  }
}

function queries() {
  const rules = files.flatMap((file) =>
    JSON.parse(readFileSync(file, "utf8")).panels.flatMap((panel) =>
      panel.targets.filter((t) => t.expr).map((t) => ({
        record: `panel:${basename(file, ".json")}_${panel.id}_${t.refId}`,
        expr: t.expr.replaceAll("$__rate_interval", process.env.RATE_INTERVAL ?? "1m"),
      }))));
  console.log(JSON.stringify({ groups: [{ name: "panels", rules }] }, null, 1));
}

const PACKAGES = {
  "v1": "kubernetes-models",
  "apps/v1": "kubernetes-models",
  "batch/v1": "kubernetes-models",
  "policy/v1": "kubernetes-models",
  "networking.k8s.io/v1": "kubernetes-models",
  "keda.sh/v1alpha1": "@kubernetes-models/keda",
  "monitoring.coreos.com/v1": "@kubernetes-models/prometheus-operator",
};

async function manifests() {
  const { parseAllDocuments } = await import("yaml");
  const objects = files.flatMap((file) =>
    parseAllDocuments(readFileSync(file, "utf8")).map((document) => document.toJS()));
  if (objects.length === 0) throw new Error("nothing was rendered");
  const sources = [];
  for (const [i, object] of objects.entries()) {
    const name = `${object.kind} ${object.metadata?.name}`;
    const home = PACKAGES[object.apiVersion];
    if (!home) {
      problems.push(`${name}: no schema for ${object.apiVersion}`);
      continue;
    }
    const path = `${home}/${object.apiVersion}/${object.kind}`;
    try {
      const module = await import(path);
      new module[object.kind](object).validate();
    } catch (error) {
      problems.push(`${name}: ${error.message}`);
    }
    // The validator passes over unknown keys; the compiler does not.
    sources.push([`object-${i}`,
      `import type { I${object.kind} as T } from "${path}"; export const o: T = ${JSON.stringify(object)};\n`]);
  }
  compile(sources);
  console.log(`${objects.length} objects`);
}

await { dashboards, queries, manifests }[mode]();
if (problems.length > 0) {
  console.error(problems.join("\n"));
  process.exit(1);
}
