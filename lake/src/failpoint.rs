//! Named points at which a test ends the process, as a crash of the machine would.
//!
//! Only a debug build has them; a release build passes over them. The binary arms one from
//! `RUMLEDGER_FAILPOINT`.

use std::sync::OnceLock;

/// Every point, in the order in which a batch of reports meets them.
pub const NAMES: &[&str] = &[
    "before-data-files",
    "after-data-files",
    "after-commit",
    "before-index",
    "after-index",
    "before-receipts",
    "after-receipts",
    "after-group-offsets",
    "on-assignment",
];

static ARMED: OnceLock<String> = OnceLock::new();

/// Arms a point, once in a process.
///
/// # Errors
/// If there is no such point, or this is a release build; the known names are in the text.
pub fn arm(name: &str) -> Result<(), String> {
    if !cfg!(debug_assertions) {
        return Err("a release build has no failpoints".to_owned());
    }
    if !NAMES.contains(&name) {
        return Err(format!("'{name}' is no failpoint; there are {}", NAMES.join(", ")));
    }
    let _ = ARMED.set(name.to_owned());
    Ok(())
}

/// Ends the process without any cleaning up, if this point is armed.
pub fn here(name: &'static str) {
    if cfg!(debug_assertions) && ARMED.get().is_some_and(|armed| armed == name) {
        debug_assert!(NAMES.contains(&name), "an unknown failpoint");
        std::process::abort();
    }
}
