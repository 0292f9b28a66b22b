//! Joins that end in time, and let others run meanwhile.
//!
//! The engine gives way where rows come from a table, or go to another thread. A join makes many rows of few, and
//! rejects most of them, without either: a thread would be lost to it, and with as many such queries as threads
//! all other queries would wait.

use std::any::Any;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use datafusion::arrow::datatypes::{FieldRef, Schema};
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode as _};
use datafusion::common::{DataFusionError, Result};
use datafusion::logical_expr::ColumnarValue;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::coop::CooperativeExec;
use datafusion::physical_plan::joins::utils::JoinFilter;
use datafusion::physical_plan::joins::{
    CrossJoinExec, HashJoinExec, NestedLoopJoinExec, NestedLoopJoinExecBuilder,
};
use datafusion::physical_plan::{ExecutionPlan, PhysicalExpr};
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::task::block_in_place;
use tokio::time::Instant;

use crate::rows::GRACE;

/// A join that works longer hands its place among the threads over to whoever waits.
const GIVES_WAY_AFTER: Duration = Duration::from_millis(50);

/// Makes joins of every plan give way, and end when the plan's time is over.
#[derive(Debug)]
pub(crate) struct Ends {
    /// From when a query is planned. A client's own shorter limit ends its answer, and at the latest this the
    /// work; by then it was told.
    pub(crate) after: Duration,
}

impl PhysicalOptimizerRule for Ends {
    fn optimize(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        _: &ConfigOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let planned = Instant::now();
        let time = Time { planned, over: planned + self.after + 2 * GRACE };
        plan.transform_up(|node| {
            let filter = |join: Option<&JoinFilter>| {
                join.map(|filter| {
                    let timed = Timed { filter: filter.expression().clone(), time };
                    let (columns, schema) = (filter.column_indices(), filter.schema());
                    JoinFilter::new(Arc::new(timed), columns.to_vec(), schema.clone())
                })
            };
            let any: &dyn Any = node.as_ref();
            let join: Arc<dyn ExecutionPlan> =
                if let Some(join) = any.downcast_ref::<NestedLoopJoinExec>() {
                    let timed = filter(join.filter());
                    Arc::new(NestedLoopJoinExecBuilder::from(join).with_filter(timed).build()?)
                } else if let Some(join) = any.downcast_ref::<HashJoinExec>() {
                    let timed = filter(join.filter());
                    join.builder().with_filter(timed).build_exec()?
                } else if any.is::<CrossJoinExec>() {
                    node
                } else {
                    return Ok(Transformed::no(node));
                };
            Ok(Transformed::yes(Arc::new(CooperativeExec::new(join))))
        })
        .map(|plan| plan.data)
    }

    fn name(&self) -> &'static str {
        "Ends"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

#[derive(Clone, Copy, Debug)]
struct Time {
    planned: Instant,
    over: Instant,
}

/// A join's condition, as long as there is time.
#[derive(Debug)]
struct Timed {
    filter: Arc<dyn PhysicalExpr>,
    time: Time,
}

impl fmt::Display for Timed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.filter.fmt(f)
    }
}

impl PartialEq for Timed {
    fn eq(&self, other: &Timed) -> bool {
        self.filter.eq(&other.filter)
    }
}

impl Eq for Timed {}

impl Hash for Timed {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.filter.hash(state);
    }
}

impl PhysicalExpr for Timed {
    fn evaluate(&self, batch: &RecordBatch) -> Result<ColumnarValue> {
        let now = Instant::now();
        if now >= self.time.over {
            return Err(DataFusionError::Execution("the query's time is over".to_owned()));
        }
        let may_wait = || {
            Handle::try_current()
                .is_ok_and(|handle| handle.runtime_flavor() == RuntimeFlavor::MultiThread)
        };
        if now - self.time.planned >= GIVES_WAY_AFTER && may_wait() {
            return block_in_place(|| self.filter.evaluate(batch));
        }
        self.filter.evaluate(batch)
    }

    fn return_field(&self, schema: &Schema) -> Result<FieldRef> {
        self.filter.return_field(schema)
    }

    fn children(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        vec![&self.filter]
    }

    fn with_new_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn PhysicalExpr>>,
    ) -> Result<Arc<dyn PhysicalExpr>> {
        Ok(match children.pop() {
            Some(filter) => Arc::new(Timed { filter, time: self.time }),
            None => self,
        })
    }

    fn fmt_sql(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.filter.fmt_sql(f)
    }
}
