//! From bytes to dispositions, without a lake: every reason, every carrier, every bound.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod carriers;
mod desk;
mod properties;
mod reports;
mod simulation;
mod vectors;
