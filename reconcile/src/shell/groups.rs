//! The PI groups of the journal, kept beside the lake, so that a question about one account need not read
//! what every device of all time named.
//!
//! A cache like the index: reports only ever add to groups, so what came since is joined to what is kept.
//! Where it is not of this journal, or the book strikes other PIs, the groups are read anew.

use std::collections::HashSet;
use std::path::Path;

use lake::Table;
use schemas::book::Book;
use schemas::merkle;
use schemas::udi::Udi;
use serde::{Deserialize, Serialize};

use super::memo;
use crate::ReconcileError;
use crate::core::groups::Groups;
use crate::engine;

#[derive(Serialize, Deserialize)]
struct Kept {
    rumledger: String,
    /// Where the journal stood ([`Table::stands_at`]), and its version then.
    journal: String,
    version: u64,
    /// Digest of the PIs that belong to no group (R6.5).
    alone: String,
    /// PID and serial of the members of each group.
    groups: Vec<Vec<(String, String)>>,
}

/// The groups as the journal has them.
///
/// # Errors
/// If the journal cannot be read.
pub async fn groups_of(
    journal: &Table,
    book: &Book,
    cache_dir: &Path,
) -> Result<Groups, ReconcileError> {
    let path = cache_dir.join("groups.json");
    let alone = engine::alone(book);
    let digest = digest_of(&alone);
    let fits = |kept: &Kept| kept.rumledger == memo::KEPT_BY && kept.alone == digest;
    let kept = memo::read::<Kept>(&path).filter(fits);
    let since = match &kept {
        Some(kept) => journal.stood_at(&kept.journal).await?,
        None => None,
    };
    // An older version is not what is kept, and not worth keeping.
    let id = journal.id()?;
    let is_ahead = |kept: &Kept| kept.version > journal.version() && kept.journal.starts_with(&id);
    if kept.as_ref().is_some_and(is_ahead) {
        return engine::read_groups(journal, None, Groups::new(alone)).await;
    }
    let mut groups = Groups::new(alone);
    let changes = match since {
        Some(version) => journal.changes_since(version).await?,
        None => None,
    };
    let files = match (kept, changes) {
        (Some(kept), Some(changes)) => {
            for members in kept.groups {
                let members: Vec<Udi> =
                    members.iter().map(|(pid, serial)| Udi::new(pid, serial)).collect();
                if let Some((first, rest)) = members.split_first() {
                    groups.join(first, rest);
                }
            }
            Some(changes.added)
        }
        _ => None,
    };
    let groups = engine::read_groups(journal, files, groups).await?;
    if since != Some(journal.version()) {
        keep(&path, journal.stands_at()?, journal.version(), digest, &groups);
    }
    Ok(groups)
}

fn digest_of(alone: &HashSet<Udi>) -> String {
    let mut names: Vec<String> = alone.iter().map(ToString::to_string).collect();
    names.sort_unstable();
    merkle::digest(names.join("\n").as_bytes()).to_string()
}

/// That it cannot be kept costs the next one its time, and nothing else.
fn keep(path: &Path, journal: String, version: u64, alone: String, groups: &Groups) {
    let members = |of: Vec<Udi>| of.into_iter().map(|udi| (udi.pid, udi.serial)).collect();
    let kept = Kept {
        rumledger: memo::KEPT_BY.to_owned(),
        journal,
        version,
        alone,
        groups: groups.clone().members().into_iter().map(members).collect(),
    };
    if let Err(error) = memo::put(path, &kept) {
        tracing::debug!(%error, path = %path.display(), "the groups are not kept");
    }
}
