// Checks rendered manifests: the schemas of Kubernetes, KEDA, Strimzi and the Prometheus operator; then
// what we hold of every pod, and that what refers to something finds it.
//   node manifests.mjs RENDERED
import { readFileSync } from "node:fs";
import { isDeepStrictEqual } from "node:util";
import { parseAllDocuments, parse } from "yaml";
import { compile } from "./compile.mjs";

const PACKAGES = {
  "v1": "kubernetes-models",
  "apps/v1": "kubernetes-models",
  "batch/v1": "kubernetes-models",
  "policy/v1": "kubernetes-models",
  "networking.k8s.io/v1": "kubernetes-models",
  "keda.sh/v1alpha1": "@kubernetes-models/keda",
  "monitoring.coreos.com/v1": "@kubernetes-models/prometheus-operator",
  "kafka.strimzi.io/v1": "@kubernetes-models/strimzi-kafka-operator",
};

const problems = [];
const objects = parseAllDocuments(readFileSync(process.argv[2], "utf8")).map((document) => document.toJS());
if (objects.length === 0) throw new Error("nothing was rendered");
const of = (kind) => objects.filter((object) => object.kind === kind);
const nameOf = (object) => `${object.kind} ${object.metadata?.name}`;
const fits = (labels, wanted) => Object.entries(wanted ?? {}).every(([key, value]) => labels?.[key] === value);

async function schemas() {
  const sources = [];
  for (const [i, object] of objects.entries()) {
    const home = PACKAGES[object.apiVersion];
    if (!home) {
      problems.push(`${nameOf(object)}: no schema for ${object.apiVersion}`);
      continue;
    }
    const path = `${home}/${object.apiVersion}/${object.kind}`;
    try {
      const module = await import(path);
      new module[object.kind](object).validate();
    } catch (error) {
      problems.push(`${nameOf(object)}: ${error.message}`);
    }
    // The validator passes over unknown keys; the compiler does not.
    sources.push([`${object.kind}-${object.metadata?.name}-${i}`,
      `import type { I${object.kind} as T } from "${path}"; export const o: T = ${JSON.stringify(object)};\n`]);
  }
  problems.push(...compile(sources));
}

const workloads = objects.flatMap((object) => {
  const template = object.spec?.jobTemplate?.spec?.template ?? object.spec?.template;
  return template?.spec?.containers ? [{ object, template, pod: template.spec }] : [];
});

function pods() {
  for (const { object, template, pod } of workloads) {
    const must = (holds, what) => holds || problems.push(`${nameOf(object)}: must ${what}`);
    must(pod.automountServiceAccountToken === false, "mount no service-account token");
    must(pod.securityContext?.runAsNonRoot === true, "run as another user than root");
    must(pod.securityContext?.seccompProfile?.type === "RuntimeDefault", "have the runtime's seccomp profile");
    must(!pod.hostNetwork && !pod.hostPID && !pod.hostIPC, "have namespaces of its own");
    for (const volume of pod.volumes ?? []) {
      must(!volume.hostPath, `not mount the host's ${volume.hostPath?.path}`);
      must(!volume.emptyDir || volume.emptyDir.sizeLimit, `limit the size of its volume ${volume.name}`);
      const map = volume.configMap?.name;
      must(!map || of("ConfigMap").some((c) => c.metadata.name === map), `mount a ConfigMap that is there, not ${map}`);
    }
    for (const container of pod.containers) {
      const security = container.securityContext ?? {};
      must(security.allowPrivilegeEscalation === false, "not let privileges grow");
      must(security.privileged !== true, "not be privileged");
      must(security.readOnlyRootFilesystem === true, "have a read-only root");
      must(isDeepStrictEqual(security.capabilities?.drop, ["ALL"]) && !security.capabilities.add, "drop all capabilities");
      must(container.resources?.requests?.cpu && container.resources?.requests?.memory, "request CPU and memory");
      must(container.resources?.limits?.memory, "limit its memory");
      must(/:(?!latest$)[^:/]+$|@sha256:/.test(container.image), `name a fixed image, not ${container.image}`);
      for (const { name, value } of container.env ?? []) {
        must(value === undefined || !/PASSWORD|SECRET|TOKEN|KEY_ID/.test(name), `take ${name} from a Secret`);
      }
      if (object.kind === "CronJob") continue;
      must(container.livenessProbe?.httpGet?.path === "/healthz", "ask /healthz whether it lives: /readyz depends on others");
      must(container.readinessProbe?.httpGet?.path === "/readyz", "ask /readyz whether it is ready");
      const ports = new Set(container.ports?.map((port) => port.name));
      must(ports.has(container.livenessProbe?.httpGet?.port), "probe a port that it has");
    }
    if (object.kind === "CronJob") {
      must(object.spec.concurrencyPolicy === "Forbid", "not run twice at once");
      continue;
    }
    const budget = of("PodDisruptionBudget").some((b) => fits(template.metadata.labels, b.spec.selector.matchLabels));
    must(budget, "have a PodDisruptionBudget");
  }
}

function network() {
  const denies = of("NetworkPolicy").some(({ spec }) =>
    isDeepStrictEqual(spec.podSelector, {}) && spec.policyTypes?.length === 2 && !spec.ingress && !spec.egress);
  if (!denies) problems.push("no NetworkPolicy denies all that is not named");
  for (const policy of of("NetworkPolicy")) {
    const reached = workloads.filter(({ template }) => fits(template.metadata.labels, policy.spec.podSelector.matchLabels));
    if (reached.length === 0) problems.push(`${nameOf(policy)}: is for no pod`);
    const open = new Set(reached.flatMap(({ pod }) => pod.containers.flatMap((c) => c.ports?.map((p) => p.containerPort) ?? [])));
    for (const { port } of (policy.spec.ingress ?? []).flatMap((rule) => rule.ports ?? [])) {
      if (!open.has(port)) problems.push(`${nameOf(policy)}: opens ${port}, which no container has`);
    }
  }
  for (const namespace of of("Namespace")) {
    if (namespace.metadata.labels?.["pod-security.kubernetes.io/enforce"] !== "restricted") {
      problems.push(`${nameOf(namespace)}: must enforce the restricted pod security standard`);
    }
  }
}

function references() {
  for (const service of of("Service")) {
    const pods = workloads.filter(({ template }) => fits(template.metadata.labels, service.spec.selector));
    const names = new Set(pods.flatMap(({ pod }) => pod.containers.flatMap((c) => c.ports?.map((p) => p.name) ?? [])));
    for (const { targetPort } of service.spec.ports) {
      if (!names.has(targetPort)) problems.push(`${nameOf(service)}: no pod has its port ${targetPort}`);
    }
  }
  for (const monitor of of("ServiceMonitor")) {
    const services = of("Service").filter((s) => fits(s.metadata.labels, monitor.spec.selector.matchLabels));
    const ports = new Set(services.flatMap((s) => s.spec.ports.map((p) => p.name)));
    for (const { port } of monitor.spec.endpoints) {
      if (!ports.has(port)) problems.push(`${nameOf(monitor)}: no Service has its port ${port}`);
    }
  }
  for (const scaled of of("ScaledObject")) {
    const { kind, name } = scaled.spec.scaleTargetRef;
    if (!of(kind).some((o) => o.metadata.name === name)) problems.push(`${nameOf(scaled)}: no ${kind} ${name}`);
    const topic = scaled.spec.triggers[0].metadata.topic;
    const known = of("KafkaTopic").find((t) => t.metadata.name === topic);
    if (of("KafkaTopic").length > 0 && known?.spec.partitions < scaled.spec.maxReplicaCount) {
      problems.push(`${nameOf(scaled)}: more workers than ${topic} has partitions`);
    }
  }
  for (const map of of("ConfigMap")) {
    for (const [file, text] of Object.entries(map.data ?? {})) {
      if (/^\s*"?[\w.]*(password|secret)"?\s*=/im.test(text)) problems.push(`${nameOf(map)}: ${file} must not hold a secret`);
    }
  }
  const rules = process.env.RULES;
  for (const rule of rules ? of("PrometheusRule") : []) {
    const { groups } = parse(readFileSync(rules, "utf8"));
    if (!isDeepStrictEqual(rule.spec.groups, groups)) problems.push(`${nameOf(rule)}: differs from ${rules}`);
  }
}

await schemas();
pods();
network();
references();
if (problems.length > 0) {
  console.error(problems.join("\n"));
  process.exit(1);
}
console.log(`${objects.length} objects, ${workloads.length} of them with pods`);
