//! Files of a cache: what can be lost and made anew.

use std::path::Path;
use std::time::Duration;

/// How much older than a cache what a process left of its own copy is, before it is taken for dead.
const LEFT_OVER: Duration = Duration::from_secs(3600);

/// Puts a cache in its place. Under its name it is whole: two may be written at the same moment.
///
/// # Errors
/// If the folder cannot be made, or the file not written.
pub fn put(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let dir = path.parent().unwrap_or(path);
    std::fs::create_dir_all(dir)?;
    let temporary = path.with_extension(format!("{}.tmp", std::process::id()));
    let put = std::fs::write(&temporary, bytes).and_then(|()| std::fs::rename(&temporary, path));
    if let Err(error) = put {
        // A disk that is full is not to keep a part of it.
        let _ = std::fs::remove_file(&temporary);
        return Err(error);
    }
    remove_left_over(dir, path)
}

/// Removes what processes that were killed left of this cache.
fn remove_left_over(dir: &Path, path: &Path) -> std::io::Result<()> {
    let name = path.with_extension("");
    let now = std::fs::metadata(path)?.modified()?;
    for file in std::fs::read_dir(dir)? {
        let file = file?.path();
        let is_copy = file.extension().is_some_and(|e| e == "tmp")
            && file.with_extension("").with_extension("") == name;
        let is_old = || {
            let modified = std::fs::metadata(&file).and_then(|file| file.modified());
            modified.is_ok_and(|at| now.duration_since(at).is_ok_and(|age| age > LEFT_OVER))
        };
        if is_copy && is_old() {
            std::fs::remove_file(file)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_put_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("bearing.json");
        std::fs::create_dir_all(path.join("in the way")).unwrap();
        put(&path, b"new").unwrap_err();
        let left = std::fs::read_dir(dir.path()).unwrap().count();
        assert_eq!(left, 1);
    }

    #[test]
    fn what_the_dead_left_of_a_cache_goes() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, hours: u64| {
            let path = dir.path().join(name);
            let file = std::fs::File::create(&path).unwrap();
            let at = file.metadata().unwrap().modified().unwrap();
            file.set_modified(at - Duration::from_secs(hours * 3600)).unwrap();
            path
        };
        let old = file("2026-10.bearing.7.tmp", 2);
        let young = file("2026-10.bearing.8.tmp", 0);
        let of_another = file("2026-10.7.tmp", 2);
        let cache = file("2026-11.json", 2);
        put(&dir.path().join("2026-10.bearing.json"), b"new").unwrap();
        assert!(!old.exists());
        assert!(young.exists() && of_another.exists() && cache.exists());
        assert_eq!(std::fs::read(dir.path().join("2026-10.bearing.json")).unwrap(), b"new");
    }
}
