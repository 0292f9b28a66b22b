//! The streaming worker against a real broker (ci/kafka/broker.sh).
//!
//! `cargo test --test kafka` runs the short forms. `RUMLEDGER_TEST_LONG=1`, as in `just crash-test`,
//! runs them at full length.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(clippy::print_stderr, reason = "figures, shown with --nocapture")]
#![allow(clippy::disallowed_methods, reason = "tests read their environment and the clock")]

#[path = "../blackbox/support.rs"]
#[allow(dead_code, reason = "shared with the black-box tests")]
mod support;

mod beside;
mod crash;
mod faults;
mod order;
mod security;
mod stand;
mod trust;
mod workers;
