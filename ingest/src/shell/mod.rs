//! The part of mediation that touches the world: files, the index, the lake.

pub mod files;
pub mod index;
pub mod mediation;
pub mod rows;
pub mod runner;
pub mod writer;
