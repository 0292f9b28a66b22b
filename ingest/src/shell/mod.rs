//! The part of mediation that touches the world: files, the index, the lake.

pub mod files;
pub mod index;
pub mod rows;
pub mod runner;
