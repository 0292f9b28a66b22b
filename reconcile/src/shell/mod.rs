//! The part of rating that touches the world: snapshots, the ledger, runs.

pub mod close;
pub mod compliance;
pub mod compliance_tables;
pub mod daily;
pub mod explain;
pub mod groups;
pub mod ledger;
pub mod memo;
mod plan;
pub mod prices;
pub mod run;
mod since;
pub mod suspense;
pub mod verify;
