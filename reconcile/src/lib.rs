//! Rating and ledger: from the journal and the book to ledger lines.
//!
//! [`shell::run`] pins the versions of what it reads, [`engine`] fetches claims in the order of group
//! and item, [`core`] decides everything, and [`shell::ledger`] posts the lines in one commit.

pub mod core;
