// Waits until a Prometheus has something for every recorded query, and until alerts came through Alertmanager.
//   node live.mjs PROMETHEUS-PORT HOOK-PORT QUERIES RULES ALERT…
import { createServer } from "node:http";
import { readFileSync } from "node:fs";

const [prometheus, hook, queries, rules, ...alerts] = process.argv.slice(2);
const names = JSON.parse(readFileSync(queries, "utf8")).groups[0].rules.map((rule) => rule.record);
for (const [, name] of readFileSync(rules, "utf8").matchAll(/- record: (\S+)/g)) names.push(name);

const received = new Map();
createServer((request, response) => {
  let text = "";
  request.on("data", (part) => { text += part; });
  request.on("end", () => {
    for (const { labels, annotations, status } of JSON.parse(text).alerts) {
      if (status === "firing") received.set(labels.alertname, annotations);
    }
    response.end();
  });
}).listen(Number(hook), "127.0.0.1");

const series = new Map(names.map((name) => [name, 0]));
const missing = () => [
  ...[...series].filter(([, count]) => count === 0).map(([name]) => name),
  ...alerts.filter((alert) => !received.has(alert)),
];
for (let tries = 0; tries < 120 && missing().length > 0; tries++) {
  await new Promise((done) => setTimeout(done, 500));
  for (const name of names.filter((n) => series.get(n) === 0)) {
    const url = `http://127.0.0.1:${prometheus}/api/v1/query?query=${encodeURIComponent(name)}`;
    const answer = await fetch(url).then((r) => r.json()).catch(() => null);
    series.set(name, answer?.data?.result?.length ?? 0);
  }
}
for (const [name, count] of series) console.log(`${name}: ${count} series`);
for (const [alert, { summary, runbook }] of received) console.log(`${alert} fired: ${summary} (${runbook})`);
if (missing().length > 0) {
  console.error(`nothing came of: ${missing().join(", ")}`);
  process.exit(1);
}
process.exit(0);
