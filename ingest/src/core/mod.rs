//! The pure part of mediation: bytes in, decisions out.
//!
//! Architecture Invariant: nothing here names a runtime, a lake, a clock or an environment. What it
//! reads it is given, as bytes or as a [`std::io::Read`].

mod block;
pub mod carrier;
pub mod decode;
pub mod eight;
pub mod json;
pub mod keyring;
pub mod mediate;
pub mod report;
pub mod requests;
pub mod worker;
