//! From bytes to dispositions: every reason, every carrier, every bound; and writers that race on one lake.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod carriers;
mod desk;
mod keyring;
mod properties;
mod races;
mod reports;
mod simulation;
mod vectors;
