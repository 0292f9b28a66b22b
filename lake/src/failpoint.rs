//! Named points at which a test ends the process, as a crash of the machine would, or has the disk
//! refuse.
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

/// Points that a batch of reports does not meet.
pub const BESIDE: &[&str] = &["before-receipts-of-taken-up"];

/// Where a test makes the disk refuse for good instead.
pub const REFUSALS: &[&str] = &["disk-does-not-sync"];

static ARMED: OnceLock<String> = OnceLock::new();

/// Arms a point, once in a process.
///
/// # Errors
/// If there is no such point, or this is a release build; the known names are in the text.
pub fn arm(name: &str) -> Result<(), String> {
    if !cfg!(debug_assertions) {
        return Err("a release build has no failpoints".to_owned());
    }
    let known = [NAMES, BESIDE, REFUSALS].concat();
    if !known.contains(&name) {
        let known = known.join(", ");
        return Err(format!("'{name}' is no failpoint; there are {known}"));
    }
    let _ = ARMED.set(name.to_owned());
    Ok(())
}

/// Ends the process without any cleaning up, if this point is armed.
pub fn here(name: &'static str) {
    debug_assert!(NAMES.contains(&name) || BESIDE.contains(&name), "an unknown failpoint");
    if is_armed(name) {
        std::process::abort();
    }
}

/// True if a test wants a refusal here.
#[must_use]
pub fn refuses(name: &'static str) -> bool {
    debug_assert!(REFUSALS.contains(&name), "an unknown failpoint");
    is_armed(name)
}

fn is_armed(name: &str) -> bool {
    cfg!(debug_assertions) && ARMED.get().is_some_and(|armed| armed == name)
}
