//! Files of a cache: what can be lost and made anew.

use std::path::Path;

/// Puts a cache in its place. Under its name it is whole: two may be written at the same moment.
///
/// # Errors
/// If the folder cannot be made, or the file not written.
pub fn put(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    std::fs::create_dir_all(path.parent().unwrap_or(path))?;
    let temporary = path.with_extension(format!("{}.tmp", std::process::id()));
    std::fs::write(&temporary, bytes)?;
    std::fs::rename(&temporary, path)
}
