//! The part of mediation that touches the world: files, Kafka, the index, the lake.

mod again;
pub mod documents;
pub mod endpoints;
pub mod files;
pub mod index;
pub mod kafka;
mod line;
pub mod mediation;
pub mod metrics;
pub mod recheck;
pub mod rows;
pub mod runner;
pub mod suspense;
pub mod takeup;
pub mod trust;
pub mod writer;
