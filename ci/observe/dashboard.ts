// The shape of our dashboards: Grafana's own schema, made strict. Grafana types a panel's options and
// targets as anything; here each kind of panel has its own, and strings are held to their enums.
import type {
  Dashboard as GrafanaDashboard,
  DataQuery,
  FieldConfig,
  FieldConfigSource,
  Panel as GrafanaPanel,
  VariableModel,
} from "@grafana/schema";
import type * as Stat from "@grafana/schema/dist/esm/raw/composable/stat/panelcfg/x/StatPanelCfg_types.gen";
import type * as Table from "@grafana/schema/dist/esm/raw/composable/table/panelcfg/x/TablePanelCfg_types.gen";
import type * as Time from "@grafana/schema/dist/esm/raw/composable/timeseries/panelcfg/x/TimeSeriesPanelCfg_types.gen";

// An enum's values as JSON writes them.
type Plain<T> = unknown extends T
  ? T
  : T extends string
    ? string extends T ? T : `${T}`
    : T extends number
      ? number extends T ? T : `${T}` extends `${infer N extends number}` ? N : never
      : T extends boolean | null | undefined
        ? T
        : T extends Array<infer Element>
          ? Array<Plain<Element>>
          : T extends object ? { [Key in keyof T]: Plain<T[Key]> } : T;

type Source<Type extends string, Variable extends string> = { type: Type; uid: `\${${Variable}}` };
type Prometheus = Source<"prometheus", "prometheus">;
type Postgres = Source<"grafana-postgresql-datasource", "postgres">;
type Query = Pick<DataQuery, "refId">;
type PromQl = Query & {
  datasource: Prometheus;
  expr: string;
  legendFormat: string;
  editorMode: "code";
  range?: true;
  instant?: true;
};
type Sql = Query & {
  datasource: Postgres;
  rawSql: string;
  rawQuery: true;
  editorMode: "code";
  format: "table" | "time_series";
};

type Config<Custom> = Omit<FieldConfigSource, "defaults"> & {
  defaults: Omit<FieldConfig, "custom"> & { custom?: Custom };
};
type PanelOf<Type extends string, From, Target, Options, Custom> =
  & Omit<
    Plain<Omit<GrafanaPanel, "type" | "options" | "fieldConfig" | "targets" | "datasource">>,
    "id" | "title" | "description" | "gridPos"
  >
  & {
    type: Type;
    id: number;
    title: string;
    description: string;
    gridPos: { h: number; w: number; x: number; y: number };
    datasource: From;
    targets: [Target, ...Target[]];
    options: Plain<Options>;
    fieldConfig: Plain<Config<Custom>>;
  };
type Panel =
  | PanelOf<"timeseries", Prometheus, PromQl, Time.Options, Time.FieldConfig>
  | PanelOf<"timeseries", Postgres, Sql, Time.Options, Time.FieldConfig>
  | PanelOf<"stat", Prometheus, PromQl, Stat.Options, Record<string, never>>
  | PanelOf<"stat", Postgres, Sql, Stat.Options, Record<string, never>>
  | PanelOf<"table", Postgres, Sql, Table.Options, Partial<Table.FieldConfig>>;

export type Dashboard =
  & Plain<Omit<GrafanaDashboard, "panels" | "templating" | "uid" | "title" | "timezone">>
  & {
    uid: string;
    title: string;
    timezone: "utc";
    panels: Panel[];
    templating: { list: Plain<VariableModel>[] };
  };
