// Checks dashboards against the schema of Grafana, who reads them, and takes out their queries.
//   node check.mjs dashboards FILE…      Grafana's schema by the TypeScript compiler, layout, ids, units
//   node check.mjs queries FILE…         writes each PromQL as a recording rule, for promtool
//   node check.mjs sql FILE…             writes each SQL with its panel, as Grafana would send it
import { readFileSync } from "node:fs";
import { basename } from "node:path";
import { compile } from "./compile.mjs";

const [mode, ...files] = process.argv.slice(2);
const problems = [];
if (files.length === 0) throw new Error("no files to check");

function dashboards() {
  const uids = new Set();
  const linked = [];
  problems.push(...compile(files.map((file) => {
    const text = readFileSync(file, "utf8");
    return [file, `import type { Dashboard } from "../dashboard"; export const d: Dashboard = ${text.trimEnd()};\n`];
  })));
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
      if (panel.type === "stat" && !panel.fieldConfig.defaults.thresholds) say(panel, "has no thresholds");
      for (const { url } of panel.links ?? []) linked.push([panel, url, say]);
      for (const { expr } of panel.targets) {
        if (expr && /\b(rate|increase)\(/.test(expr) && !expr.includes("$__rate_interval")) {
          say(panel, "a rate without $__rate_interval");
        }
      }
    }
    for (const { url } of dashboard.links) linked.push([{ id: "-", title: "links" }, url, say]);
  }
  for (const [panel, url, say] of linked) {
    const uid = /^\/d\/([^?]+)/.exec(url)?.[1];
    if (!uids.has(uid)) say(panel, `leads to '${url}', which is no dashboard of ours`);
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

// Grafana's macros and variables, as its PostgreSQL data source puts them in; all customers are chosen.
function sql() {
  const [from, to] = (process.env.TIME_RANGE ?? "2026-08-01T00:00:00Z,2027-03-01T00:00:00Z").split(",");
  const filter = (text) => {
    const at = text.indexOf("$__timeFilter(");
    if (at < 0) return text;
    let depth = 1;
    let end = at + "$__timeFilter(".length;
    const start = end;
    for (; depth > 0; end++) depth += { "(": 1, ")": -1 }[text[end]] ?? 0;
    const column = text.slice(start, end - 1);
    return filter(`${text.slice(0, at)}${column} BETWEEN '${from}' AND '${to}'${text.slice(end)}`);
  };
  for (const file of files) {
    const dashboard = JSON.parse(readFileSync(file, "utf8"));
    const customers = process.env.CUSTOMERS ?? "''";
    for (const panel of dashboard.panels) {
      for (const target of panel.targets.filter((t) => t.rawSql)) {
        const text = filter(target.rawSql).replaceAll("$customer", customers);
        if (/\$/.test(text)) problems.push(`${file}: panel ${panel.id}: an unknown macro: ${text}`);
        console.log([dashboard.uid, panel.id, target.refId, panel.title, text].join("\t"));
      }
    }
    for (const variable of dashboard.templating.list.filter((v) => v.type === "query")) {
      console.log([dashboard.uid, "-", variable.name, "variable", variable.query].join("\t"));
    }
  }
}

await { dashboards, queries, sql }[mode]();
if (problems.length > 0) {
  console.error(problems.join("\n"));
  process.exit(1);
}
