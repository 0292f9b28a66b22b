//! Who reports for whom in HA (R5.5, R6.6).
//!
//! The member that reported last is the active, and reports for all that its reports name until one of them
//! reports itself. One that `devices.csv` holds no more reports for nobody: what it owed is owed by a member
//! that is left, the first by name.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap, HashSet};

use schemas::period::EpochSeconds;
use schemas::udi::Udi;

use super::history::{Fleet, Heard};

/// The actives of all groups, as of an instant.
pub struct Actives<'a> {
    active_of: HashMap<&'a Udi, &'a Udi>,
    naming: HashMap<&'a Udi, Vec<(&'a Udi, &'a Heard)>>,
}

/// What a PI reported last: what it speaks of last, and of what speaks of the same time, what came last. An old report that
/// comes late makes nobody the active again.
type Spoke<'a> = (EpochSeconds, EpochSeconds, &'a Udi);

fn spoke<'a>(udi: &'a Udi, heard: &Heard) -> Spoke<'a> {
    (heard.last_at(), heard.received_at, udi)
}

impl<'a> Actives<'a> {
    /// `groups`: the number of each PI's group; those under vManage are in none (R2.6).
    #[must_use]
    pub fn new(
        fleet: &'a Fleet<'a>,
        groups: &'a HashMap<Udi, u64>,
        at: EpochSeconds,
    ) -> Actives<'a> {
        let mut naming: HashMap<&Udi, Vec<(&Udi, &Heard)>> = HashMap::new();
        let mut last: HashMap<&Udi, Spoke<'_>> = HashMap::new();
        for (udi, reports) in fleet.history.heard.iter().filter(|(u, _)| groups.contains_key(*u)) {
            for heard in reports {
                let held = last.entry(udi).or_insert_with(|| spoke(udi, heard));
                *held = (*held).max(spoke(udi, heard));
                for member in heard.ha.iter().map(|member| &member.udi) {
                    if member != udi && groups.contains_key(member) {
                        naming.entry(member).or_default().push((udi, heard));
                    }
                }
            }
        }
        let is_gone = |udi: &&Udi| fleet.pi(udi).retired_at(at).is_some();
        let retired: HashSet<&Udi> = groups.keys().filter(is_gone).collect();
        let is_retired = |udi: &Udi| retired.contains(udi);
        // Whoever reports for a PI spoke after it, so its own active is known by then.
        let mut members: Vec<&Udi> = groups.keys().collect();
        members.sort_unstable_by_key(|udi| (Reverse(last.get(udi)), *udi));
        let actives = |may: &dyn Fn(&Udi) -> bool| {
            let mut active_of: HashMap<&Udi, &Udi> = HashMap::new();
            for udi in &members {
                let named = naming.get(udi).into_iter().flatten().filter(|(by, _)| may(by));
                let Some(by) = named.map(|(by, heard)| spoke(by, heard)).max() else { continue };
                if last.get(udi).is_none_or(|own| by > *own) {
                    active_of.insert(udi, active_of.get(by.2).copied().unwrap_or(by.2));
                }
            }
            active_of
        };
        let mut active_of = actives(&|by| !is_retired(by));
        let whoever = actives(&|_| true);
        // One that neither reported nor stands in the book is in no table: it cannot owe anything.
        let is_known = |udi: &Udi| last.contains_key(udi) || !fleet.pi(udi).rows.is_empty();
        let mut heirs: BTreeMap<&Udi, &Udi> = BTreeMap::new();
        let mut left: Vec<(&Udi, &Udi)> = Vec::new();
        for (udi, by) in &whoever {
            if active_of.contains_key(udi) {
                continue;
            }
            if !is_retired(by) {
                active_of.insert(udi, by);
                continue;
            }
            left.push((udi, by));
            if !is_retired(udi) && is_known(udi) {
                let heir = heirs.entry(by).or_insert(udi);
                *heir = (*heir).min(udi);
            }
        }
        for (udi, by) in left {
            let heir = heirs.get(by).copied().unwrap_or(by);
            if heir != udi {
                active_of.insert(udi, heir);
            }
        }
        active_of.extend(heirs);
        // Who reported for another may have an heir by now.
        let of = |(udi, by): (&&'a Udi, &&'a Udi)| (*udi, active_of.get(by).copied().unwrap_or(by));
        let active_of = active_of.iter().map(of).collect();
        Actives { active_of, naming }
    }

    /// The member that reports for a PI, where it is not the PI itself.
    #[must_use]
    pub fn of(&self, udi: &Udi) -> Option<&'a Udi> {
        self.active_of.get(udi).copied()
    }

    /// Reports of other members that name a PI, and so are of its usage too.
    #[must_use]
    pub fn naming(&self, udi: &Udi) -> &[(&'a Udi, &'a Heard)] {
        self.naming.get(udi).map_or(&[], Vec::as_slice)
    }
}

#[cfg(test)]
mod tests;
