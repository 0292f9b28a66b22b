//! Mediation: from the bytes of RUM reports to rows of the journal.
//!
//! A report's way: [`core::carrier`] finds it in its input, [`core::decode`] reads it,
//! [`shell::index`] knows whether it was seen, [`core::keyring`] checks its signature,
//! [`core::mediate`] gives it its one disposition, [`shell::rows`] makes it a row, and
//! [`shell::runner`] commits the row with all that came beside it.

pub mod core;
#[cfg(feature = "shell")]
pub mod shell;
