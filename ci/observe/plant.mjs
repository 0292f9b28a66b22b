// Plants one fault in a copy of dashboards, rules and manifests.
//   node plant.mjs FOLDER FAULT
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";

const [folder, fault] = process.argv.slice(2);
const change = (file, from, to) => () => {
  const path = join(folder, file);
  const text = readFileSync(path, "utf8");
  const planted = text.replace(from, to);
  if (planted === text) throw new Error(`${fault}: nothing to change in ${file}`);
  writeFileSync(path, planted);
};
const panel = (edit) => () => {
  const path = join(folder, "dashboards/billing.json");
  const dashboard = JSON.parse(readFileSync(path, "utf8"));
  edit(dashboard);
  writeFileSync(path, JSON.stringify(dashboard, null, 2));
};
const stat = (dashboard) => dashboard.panels.find((p) => p.type === "stat");

const faults = {
  "alert-wrong-expression": change("dashboards/rules.yml", "rumledger:ingest_balance != 0", "rumledger:ingest_balance !== 0"),
  "alert-without-runbook": change("runbooks.md", "## RumledgerServeStale", "## Stale"),
  "alert-without-test": change("dashboards/rules_test.yml", /alertname: RumledgerReceiptsFail/g, "alertname: RumledgerCommitsFail2"),
  "alert-never-fires": change("dashboards/rules.yml", "max by (period) (rumledger_ledger_chain_broken) > 0", "max by (period) (rumledger_ledger_chain_broken) > 1"),
  "panel-without-unit": panel((d) => delete stat(d).fieldConfig.defaults.unit),
  "panel-wrong-type": panel((d) => { stat(d).options.graphMode = "sparkles"; }),
  "panel-bad-promql": change("dashboards/ingest.json", "sum by (reason) (rumledger_suspended_reports)", "sum by reason (rumledger_suspended_reports"),
  "panel-dead-link": panel((d) => { d.panels.find((p) => p.links).links[0].url = "/d/rumledger-nothing?x"; }),
  "panels-overlap": panel((d) => { d.panels[1].gridPos.x = 0; }),
  "rate-fixed-interval": change("dashboards/ingest.json", "$__rate_interval", "5m"),
  "object-unknown-key": change("k8s/base/serve.yaml", "  replicas: 1\n", "  replicas: 1\n  replica: 1\n"),
  "object-wrong-type": change("k8s/base/serve.yaml", "  replicas: 1\n", "  replicas: one\n"),
  "pod-privileged": change("k8s/base/worker.yaml", "allowPrivilegeEscalation: false", "allowPrivilegeEscalation: true"),
  "pod-root-writable": change("k8s/base/reconcile.yaml", "readOnlyRootFilesystem: true", "readOnlyRootFilesystem: false"),
  "pod-without-limits": change("k8s/base/serve.yaml", /^ *limits:.*\n/m, ""),
  "image-latest": change("k8s/overlays/single-node/kustomization.yaml", "newTag: 0.1.0", "newTag: latest"),
  "liveness-needs-kafka": change("k8s/base/worker.yaml", /(livenessProbe:\n *httpGet: \{path: )\/healthz/, "$1/readyz"),
  "secret-inline": change("k8s/base/rumledger.toml", '"sasl.password.file" = "/secrets/kafka/password"', '"sasl.password" = "hunter2"'),
  "no-default-deny": change("k8s/base/network.yaml", "  policyTypes: [Ingress, Egress]\n", "  policyTypes: [Ingress]\n"),
};
faults[fault]();
