//! The contract as types: what a report, the book and a ledger line are, before any IO.
//!
//! Architecture Invariant: this crate is pure. It names no runtime, no store, no clock and no
//! environment; everything here is a value or a function of its arguments.

pub mod book;
pub mod disposition;
pub mod document;
pub mod domain;
pub mod finding;
pub mod hex;
pub mod journal;
pub mod key;
pub mod ledger;
pub mod merkle;
pub mod period;
pub mod programme;
pub mod quantity;
pub mod release;
pub mod trust;
pub mod udi;
