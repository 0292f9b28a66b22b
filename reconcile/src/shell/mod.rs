//! The part of rating that touches the world: snapshots, the ledger, runs.

pub mod close;
pub mod compliance;
pub mod compliance_tables;
pub mod daily;
pub mod explain;
pub mod groups;
pub mod ledger;
pub mod memo;
pub mod prices;
pub mod run;
pub mod suspense;
pub mod verify;
